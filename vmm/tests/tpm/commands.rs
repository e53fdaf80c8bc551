//! Commands, byte for byte after TPM 2.0 Library, Part 3.

const OWNER: u32 = 0x4000_0001;
/// `TPM_RS_PW`, with an empty password.
const PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const ECC: u16 = 0x0023;
const RSA: u16 = 0x0001;

fn message(tag: u16, code: u32, rest: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + rest.len()).unwrap();
    [
        &tag.to_be_bytes()[..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        rest,
    ]
    .concat()
}

fn plain(code: u32, rest: &[u8]) -> Vec<u8> {
    message(0x8001, code, rest)
}

/// A command with handles, of which the first is authorised by an empty password.
fn authorised(code: u32, handles: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = handles.iter().flat_map(|one| one.to_be_bytes()).collect();
    bytes.extend(9u32.to_be_bytes());
    bytes.extend(PASSWORD);
    bytes.extend(rest);
    message(0x8002, code, &bytes)
}

/// A structure with its size before it.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).unwrap();
    [&size.to_be_bytes()[..], bytes].concat()
}

pub(crate) fn startup() -> Vec<u8> {
    plain(0x144, &[0, 0])
}

pub(crate) fn self_test() -> Vec<u8> {
    plain(0x143, &[1])
}

pub(crate) fn random(count: u16) -> Vec<u8> {
    plain(0x17b, &count.to_be_bytes())
}

/// One property of `TPM_CAP_TPM_PROPERTIES`.
pub(crate) fn property(property: u32) -> Vec<u8> {
    let rest = [6u32, property, 1].map(u32::to_be_bytes).concat();
    plain(0x17a, &rest)
}

/// The value in the answer to [`property`].
pub(crate) fn value(answer: &[u8]) -> u32 {
    u32::from_be_bytes(answer[13..17].try_into().unwrap())
}

fn primary(kind: u16, parameters: &[u8]) -> Vec<u8> {
    let public = [
        &kind.to_be_bytes()[..],
        // SHA-256; fixed, made here, used by its owner, restricted decryption: a storage key.
        &[0, 0x0b, 0, 3, 0, 0x72, 0, 0],
        // AES-128 CFB and no scheme.
        &[0, 6, 0, 0x80, 0, 0x43, 0, 0x10],
        parameters,
    ]
    .concat();
    let rest = [sized(&[0, 0, 0, 0]), sized(&public), sized(&[]), vec![0; 4]].concat();
    authorised(0x131, &[OWNER], &rest)
}

/// The storage key of curve P-256: the same each time, for the same TPM.
pub(crate) fn storage_key() -> Vec<u8> {
    primary(ECC, &[0, 3, 0, 0x10, 0, 0, 0, 0])
}

/// One of 2048 bits, which takes its time to make.
pub(crate) fn slow_key() -> Vec<u8> {
    primary(RSA, &[8, 0, 0, 0, 0, 0, 0, 0])
}

pub(crate) fn handle(answer: &[u8]) -> u32 {
    u32::from_be_bytes(answer[..4].try_into().unwrap())
}

pub(crate) fn seal(parent: u32, secret: &[u8]) -> Vec<u8> {
    let sensitive = [sized(&[]), sized(secret)].concat();
    let public = [0, 8, 0, 0x0b, 0, 0, 4, 0x52, 0, 0, 0, 0x10, 0, 0];
    let rest = [sized(&sensitive), sized(&public), sized(&[]), vec![0; 4]].concat();
    authorised(0x153, &[parent], &rest)
}

/// The sealed object in the answer to [`seal`]: its private and its public part.
pub(crate) fn sealed(answer: &[u8]) -> Vec<u8> {
    let object = &answer[4..];
    let length = |at: usize| usize::from(u16::from_be_bytes([object[at], object[at + 1]])) + 2;
    let private = length(0);
    object[..private + length(private)].to_vec()
}

pub(crate) fn load(parent: u32, object: &[u8]) -> Vec<u8> {
    authorised(0x157, &[parent], object)
}

pub(crate) fn unseal(object: u32) -> Vec<u8> {
    authorised(0x15e, &[object], &[])
}

/// What was sealed, in the answer to [`unseal`].
pub(crate) fn secret(answer: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([answer[4], answer[5]]));
    answer[6..6 + length].to_vec()
}

/// An index for eight bytes that its owner reads and writes.
pub(crate) fn define(index: u32) -> Vec<u8> {
    let public = [&index.to_be_bytes()[..], &[0, 0x0b, 0, 2, 0, 2, 0, 0, 0, 8]].concat();
    authorised(0x12a, &[OWNER], &[sized(&[]), sized(&public)].concat())
}

pub(crate) fn write(index: u32, bytes: [u8; 8]) -> Vec<u8> {
    let rest = [sized(&bytes), vec![0, 0]].concat();
    authorised(0x137, &[OWNER, index], &rest)
}

pub(crate) fn read(index: u32) -> Vec<u8> {
    authorised(0x14e, &[OWNER, index], &[0, 8, 0, 0])
}
