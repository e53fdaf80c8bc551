//! Direct boot of a bzImage, by Linux's 64-bit boot protocol: kernel and zero page.
//!
//! Source: Linux `Documentation/x86/boot.rst` and `zero-page.rst`.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use super::payload::{self, Initrd, memory_error};
use super::{BootEntry, BootError, LinuxBoot, bad_kernel, state};
use crate::board::layout::{
    ACPI_TABLES, BOOT_STACK, COMMAND_LINE, EXTENDED_START, LOW_RAM_LIMIT, ZERO_PAGE,
};
use crate::board::memory::GuestRam;

/// "Some other boot loader" in `type_of_loader`.
const LOADER_UNDEFINED: u8 = 0xff;
/// `xloadflags`: the kernel has a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// `loadflags`: print nothing early.
const QUIET_FLAG: u8 = 1 << 5;
/// Offset of the 64-bit entry point.
const ENTRY_64: u64 = 0x200;

/// Puts kernel, initrd, command line, zero page and the first page tables into `ram`, which has
/// `memory` bytes.
pub(super) fn load(
    ram: &GuestRam,
    boot: LinuxBoot<'_>,
    memory: u64,
) -> Result<BootEntry, BootError> {
    let (kernel, name) = boot.kernel;
    let loaded = BzImage::load(ram, None, kernel, Some(GuestAddress(EXTENDED_START)))
        .map_err(|error| bad_kernel(name, error.to_string()))?;
    let mut header = loaded
        .setup_header
        .ok_or_else(|| bad_kernel(name, "it has no setup header"))?;
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(bad_kernel(name, "it has no 64-bit entry point"));
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
        let Initrd { address, size } = payload::load_initrd(ram, file, name, kernel_end..limit)?;
        header.ramdisk_image = address;
        header.ramdisk_size = size;
    }
    payload::write_command_line(ram, boot.cmdline)?;
    write_zero_page(ram, header, memory)?;
    state::write_gdt(ram)?;
    state::write_page_tables(ram)?;
    Ok(BootEntry::Long {
        rip: loaded.kernel_load.0 + ENTRY_64,
        rsp: BOOT_STACK,
        rsi: ZERO_PAGE,
    })
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
    let map = payload::memory_map(memory);
    for (slot, area) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr: area.range.start,
            size: area.range.end - area.range.start,
            r#type: area.kind,
        };
        params.e820_entries += 1;
    }
    ram.write_obj(params, GuestAddress(ZERO_PAGE))
        .map_err(|error| memory_error(ZERO_PAGE, &error))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::board::layout::COMMAND_LINE_MAX;
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

        let expected = BootEntry::Long {
            rip: 0x10_0200,
            rsp: BOOT_STACK,
            rsi: ZERO_PAGE,
        };
        assert_eq!(entry, expected);
        let code: [u8; 4] = ram.read_obj(GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&code, b"code");
        let params: boot_params = ram.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let (rsdp, entries) = (params.acpi_rsdp_addr, params.e820_entries);
        assert_eq!((rsdp, entries), (ACPI_TABLES.start, 4));
        let line: [u8; 6] = ram.read_obj(GuestAddress(COMMAND_LINE.into())).unwrap();
        assert_eq!(&line, b"quiet\0");
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
}
