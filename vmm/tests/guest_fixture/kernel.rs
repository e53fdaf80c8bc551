//! Kernel files around a guest's code.

/// A bzImage with `code` at its 64-bit entry point.
pub fn bz_image(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 0x600];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one setup sector
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes()); // 64-bit entry
    put(0x258, &0x10_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image.extend(code);
    image
}

/// Where [`pvh_elf`] puts its code: where Linux lies.
const PVH_AT: u32 = 0x100_0000;

/// An ELF kernel with a PVH entry note and `code` at that entry.
pub fn pvh_elf(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 0x100];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let mut words = |at: usize, words: &[u64]| {
        for (place, word) in (at..).step_by(8).zip(words) {
            put(place, &word.to_le_bytes());
        }
    };
    let (at, length) = (u64::from(PVH_AT), code.len() as u64);
    words(0x18, &[at, 0x40, 0]); // entry, program headers, no section headers
    words(0x48, &[0x100, at, at, length, length, 0x1000]);
    words(0x80, &[0xc0, 0, 0, 20, 20, 4]);
    put(0x00, b"\x7fELF\x02\x01\x01");
    put(0x10, &[2, 0, 62, 0, 1]); // executable, x86-64
    put(0x34, &[64, 0, 56, 0, 2]); // sizes of the headers; two of them
    put(0x40, &[1, 0, 0, 0, 7]); // PT_LOAD
    put(0x78, &[4]); // PT_NOTE
    put(0xc0, &[4, 0, 0, 0, 4, 0, 0, 0, 18]); // XEN_ELFNOTE_PHYS32_ENTRY
    put(0xcc, b"Xen");
    put(0xd0, &PVH_AT.to_le_bytes());
    image.extend(code);
    image
}
