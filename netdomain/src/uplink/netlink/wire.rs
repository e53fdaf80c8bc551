//! Netlink messages: a builder and two walkers.
//!
//! Written out here rather than taken from a crate that models every attribute of the kernel:
//! three attributes of a link are of interest, and one that a newer kernel sends in another shape
//! must not cost us the event that tells of a pulled cable. Layout: RFC 3549 §2.3, `netlink(7)`.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of an attribute's header, `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// Messages and attributes start at multiples of this.
const ALIGN: usize = 4;
/// The upper bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const CREATE: u16 = 0x400;

/// Answer to a request: an errno, 0 for success.
pub(super) const ERROR: u16 = 2;
/// End of a dump.
pub(super) const DONE: u16 = 3;

/// One message, or a batch of them, being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Appends one message; `body` writes what follows its header.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.raw(&kind.to_ne_bytes());
        self.raw(&flags.to_ne_bytes());
        self.raw(&sequence.to_ne_bytes());
        self.raw(&0u32.to_ne_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).expect("requests are small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// Appends bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.enclosed(kind, |writer| writer.raw(value));
    }

    /// Appends an attribute that holds attributes.
    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.enclosed(kind | NESTED, body);
    }

    fn enclosed(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).expect("attributes are small");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One message that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// The errno of an [`ERROR`] message, 0 for success.
    pub(super) fn errno(&self) -> i32 {
        read_u32(self.body, 0).map_or(0, |code| code.cast_signed().saturating_neg())
    }
}

/// The messages of one datagram. Stops at the first that does not fit.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|m| m.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(Message {
            kind: read_u16(message, 4)?,
            sequence: read_u32(message, 8)?,
            body: &message[HEADER..],
        })
    })
}

/// Type and value of each attribute. Stops at the first that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let attribute = bytes.get(..length).filter(|a| a.len() >= ATTRIBUTE)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((read_u16(attribute, 2)? & TYPE_MASK, &attribute[ATTRIBUTE..]))
    })
}

/// Reads a number in the machine's byte order.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

/// Reads a number in the machine's byte order.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(16, REQUEST, 7, |message| {
            message.raw(&[0; 8]);
            message.attribute(3, b"eth0\0");
            message.nested(9, |inner| inner.attribute(1, &[1, 2]));
        });
        writer.message(17, ACK, 8, |_| {});

        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence), (16, 7));
        let fields: Vec<_> = attributes(&read[0].body[8..]).collect();
        assert_eq!(fields[0], (3, b"eth0\0".as_slice()));
        assert_eq!(fields[1].0, 9);
        assert_eq!(
            attributes(fields[1].1).collect::<Vec<_>>(),
            [(1, [1, 2].as_slice())]
        );
        assert_eq!((read[1].kind, read[1].body), (17, [].as_slice()));
    }

    proptest! {
        /// The kernel is trusted, but a walker that can loop or panic is not worth having.
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                let _ = message.errno();
                prop_assert!(attributes(message.body).count() <= bytes.len() / ATTRIBUTE);
            }
        }
    }
}
