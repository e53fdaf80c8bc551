//! Direct boot of a bzImage: kernel, initrd, command line and zero page.
//!
//! Source: Linux `Documentation/x86/boot.rst` and `zero-page.rst`.

use std::fs::File;

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use super::{BootEntry, BootError, write_tables};
use crate::board::layout::{
    ACPI_TABLES, BOOT_STACK, COMMAND_LINE, COMMAND_LINE_MAX, CONVENTIONAL_END, ECAM,
    EXTENDED_START, LOW_RAM_LIMIT, ZERO_PAGE,
};
use crate::board::memory::{GuestRam, ram_ranges};

/// RAM that the guest may use.
const E820_RAM: u32 = 1;
/// Addresses that the guest must not use for anything else.
const E820_RESERVED: u32 = 2;
/// "Some other boot loader" in `type_of_loader`.
const LOADER_UNDEFINED: u8 = 0xff;
/// `xloadflags`: the kernel has a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// `loadflags`: print nothing early.
const QUIET_FLAG: u8 = 1 << 5;
/// Offset of the 64-bit entry point.
const ENTRY_64: u64 = 0x200;
const PAGE: u64 = 0x1000;

/// What a direct boot starts.
#[derive(Debug)]
pub struct LinuxBoot<'a> {
    /// The kernel and its name for messages.
    pub kernel: (&'a mut File, &'a str),
    /// The initial RAM disk, if any, and its name for messages.
    pub initrd: Option<(&'a mut File, &'a str)>,
    /// Kernel command line.
    pub cmdline: &'a str,
}

/// Puts kernel, initrd, command line, zero page and the first page tables into `ram`, which has
/// `memory` bytes.
pub fn load(ram: &GuestRam, boot: LinuxBoot<'_>, memory: u64) -> Result<BootEntry, BootError> {
    let (kernel, kernel_name) = boot.kernel;
    let bad_kernel = |reason: String| BootError::Kernel {
        path: kernel_name.to_owned(),
        reason,
    };
    let loaded = BzImage::load(ram, None, kernel, Some(GuestAddress(EXTENDED_START)))
        .map_err(|error| bad_kernel(error.to_string()))?;
    let mut header = loaded
        .setup_header
        .ok_or_else(|| bad_kernel("it has no setup header".to_owned()))?;
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(bad_kernel("it has no 64-bit entry point".to_owned()));
    }
    // The kernel unpacks itself into `init_size` bytes at `pref_address`.
    let kernel_end = loaded
        .kernel_end
        .max(header.pref_address.saturating_add(header.init_size.into()));
    if kernel_end > memory.min(LOW_RAM_LIMIT) {
        return Err(BootError::Room {
            what: "the kernel",
            bytes: header.init_size.into(),
        });
    }
    if let Some((file, name)) = boot.initrd {
        let limit = memory.min(LOW_RAM_LIMIT);
        let limit = limit.min(u64::from(header.initrd_addr_max) + 1);
        let (address, size) = load_initrd(ram, file, name, kernel_end, limit)?;
        header.ramdisk_image = address;
        header.ramdisk_size = size;
    }
    write_command_line(ram, boot.cmdline)?;
    write_zero_page(ram, header, memory)?;
    write_tables(ram)?;
    Ok(BootEntry {
        rip: loaded.kernel_load.0 + ENTRY_64,
        rsp: BOOT_STACK,
        rsi: ZERO_PAGE,
    })
}

/// Copies the initrd as high as it may lie; gives its address and size.
fn load_initrd(
    ram: &GuestRam,
    file: &mut File,
    name: &str,
    floor: u64,
    limit: u64,
) -> Result<(u32, u32), BootError> {
    let read = |source| BootError::Read {
        path: name.to_owned(),
        source,
    };
    let size = file.metadata().map_err(read)?.len();
    let room = || BootError::Room {
        what: "the initrd",
        bytes: size,
    };
    let address = limit
        .checked_sub(size)
        .map(|address| address & !(PAGE - 1))
        .filter(|address| *address >= floor)
        .ok_or_else(room)?;
    let count = usize::try_from(size).map_err(|_| room())?;
    ram.read_exact_volatile_from(GuestAddress(address), file, count)
        .map_err(|error| read(std::io::Error::other(error.to_string())))?;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| room());
    Ok((narrow(address)?, narrow(size)?))
}

fn write_command_line(ram: &GuestRam, cmdline: &str) -> Result<(), BootError> {
    let plain = cmdline.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !plain || cmdline.len() >= COMMAND_LINE_MAX {
        return Err(BootError::CommandLine {
            len: cmdline.len(),
            max: COMMAND_LINE_MAX - 1,
        });
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    let address = u64::from(COMMAND_LINE);
    ram.write_slice(&bytes, GuestAddress(address))
        .map_err(|error| memory_error(address, &error))
}

fn write_zero_page(ram: &GuestRam, header: setup_header, memory: u64) -> Result<(), BootError> {
    let mut params = boot_params {
        hdr: header,
        acpi_rsdp_addr: ACPI_TABLES.start,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags |= QUIET_FLAG;
    params.hdr.cmd_line_ptr = COMMAND_LINE;
    for (slot, entry) in params.e820_table.iter_mut().zip(e820(memory)) {
        *slot = entry;
        params.e820_entries += 1;
    }
    ram.write_obj(params, GuestAddress(ZERO_PAGE))
        .map_err(|error| memory_error(ZERO_PAGE, &error))
}

/// The memory map that firmware would give.
fn e820(memory: u64) -> Vec<boot_e820_entry> {
    let entry = |addr: u64, end: u64, kind: u32| boot_e820_entry {
        addr,
        size: end - addr,
        r#type: kind,
    };
    let mut map = vec![
        entry(0, CONVENTIONAL_END, E820_RAM),
        entry(CONVENTIONAL_END, EXTENDED_START, E820_RESERVED),
    ];
    for (start, len) in ram_ranges(memory) {
        map.push(entry(start.max(EXTENDED_START), start + len, E820_RAM));
    }
    map.push(entry(ECAM.start, ECAM.end, E820_RESERVED));
    map
}

fn memory_error(address: u64, error: &dyn std::error::Error) -> BootError {
    BootError::Memory {
        address,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::board::memory;

    /// The start of a bzImage: header fields that the loader looks at, and some code.
    fn kernel(xloadflags: u16) -> File {
        let mut image = vec![0u8; 0x800];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]); // setup_sects
        put(0x202, b"HdrS");
        put(0x206, &0x020fu16.to_le_bytes());
        put(0x211, &[1]); // loadflags: LOADED_HIGH
        put(0x214, &0x10_0000u32.to_le_bytes());
        put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(0x236, &xloadflags.to_le_bytes());
        put(0x258, &0x100_0000u64.to_le_bytes());
        put(0x260, &0x10_0000u32.to_le_bytes());
        put(0x400, b"code");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&image).unwrap();
        file
    }

    // The magic number stands at 0x202 in the file, where `HdrS` spells it in little endian.
    fn start(ram: &GuestRam, kernel: &mut File, cmdline: &str) -> Result<BootEntry, BootError> {
        let boot = LinuxBoot {
            kernel: (kernel, "vmlinuz"),
            initrd: None,
            cmdline,
        };
        load(ram, boot, 64 << 20)
    }

    #[test]
    fn kernel_and_zero_page_are_where_the_protocol_wants_them() {
        let ram = memory::allocate(64 << 20).unwrap();
        let entry = start(&ram, &mut kernel(XLF_KERNEL_64), "quiet").unwrap();

        assert_eq!((entry.rip, entry.rsi), (0x10_0200, ZERO_PAGE));
        let code: [u8; 4] = ram.read_obj(GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&code, b"code");
        let params: boot_params = ram.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let (rsdp, entries) = (params.acpi_rsdp_addr, params.e820_entries);
        assert_eq!((rsdp, entries), (ACPI_TABLES.start, 4));
        let line: [u8; 6] = ram.read_obj(GuestAddress(COMMAND_LINE.into())).unwrap();
        assert_eq!(&line, b"quiet\0");
    }

    #[test]
    fn an_initrd_lies_at_the_top_of_low_memory() {
        let ram = memory::allocate(64 << 20).unwrap();
        let mut initrd = tempfile::tempfile().unwrap();
        initrd.write_all(&[7; 5000]).unwrap();
        std::io::Seek::rewind(&mut initrd).unwrap();
        let (address, size) = load_initrd(&ram, &mut initrd, "i", 0, 64 << 20).unwrap();
        assert_eq!((address, size), ((64 << 20) - 0x2000, 5000));
        let last: u8 = ram
            .read_obj(GuestAddress(u64::from(address) + 4999))
            .unwrap();
        assert_eq!(last, 7);
        let none = load_initrd(&ram, &mut initrd, "i", 64 << 20, 64 << 20);
        assert!(matches!(none, Err(BootError::Room { .. })));
    }

    #[test]
    fn what_cannot_boot_is_refused_with_a_reason() {
        let ram = memory::allocate(64 << 20).unwrap();
        let mut old = kernel(0);
        assert!(matches!(
            start(&ram, &mut old, ""),
            Err(BootError::Kernel { .. })
        ));
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&[0; 0x800]).unwrap();
        assert!(start(&ram, &mut other, "").is_err());
        let mut good = kernel(XLF_KERNEL_64);
        for line in ["a\nb", &"x".repeat(COMMAND_LINE_MAX)] {
            assert!(matches!(
                start(&ram, &mut good, line),
                Err(BootError::CommandLine { .. })
            ));
        }
    }

    #[test]
    fn the_memory_map_covers_memory_above_the_hole() {
        let map = e820(3 << 30);
        let ram: u64 = map
            .iter()
            .filter(|entry| entry.r#type == E820_RAM)
            .map(|entry| entry.size)
            .sum();
        assert_eq!(ram, (3 << 30) - EXTENDED_START + CONVENTIONAL_END);
    }
}
