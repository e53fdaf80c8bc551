//! Direct boot of an ELF kernel by its PVH entry: kernel, start information, and the lists of
//! modules and of memory that it points to.
//!
//! Source: Xen `docs/misc/pvh.pandoc`, "x86/HVM direct boot ABI", and
//! `xen/include/public/arch-x86/hvm/start_info.h`.

use std::fs::File;

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{self, PvhBootCapability};
use linux_loader::loader::{self, Elf, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::payload::{self, Initrd, memory_error};
use super::{BootEntry, BootError, LinuxBoot, bad_kernel, state};
use crate::board::layout::{ACPI_TABLES, COMMAND_LINE, EXTENDED_START, LOW_RAM_LIMIT, PVH_START};
use crate::board::memory::GuestRam;

/// What an ELF file starts with.
pub(super) const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Version of the start information that has a memory map.
const VERSION: u32 = 1;
/// Where the list of modules lies: behind the start information's 56 bytes.
const MODULES: u64 = PVH_START + 0x40;
/// Where the memory map lies: behind the one module's 32 bytes.
const MEMORY_MAP: u64 = PVH_START + 0x60;

/// Puts kernel, initrd, command line and start information into `ram`, which has `memory` bytes.
pub(super) fn load(
    ram: &GuestRam,
    boot: LinuxBoot<'_>,
    memory: u64,
) -> Result<BootEntry, BootError> {
    let (kernel, name) = boot.kernel;
    let limit = memory.min(LOW_RAM_LIMIT);
    let loaded = Elf::load(ram, None, kernel, Some(GuestAddress(EXTENDED_START)))
        .map_err(|error| not_loaded(kernel, name, limit, &error))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(bad_kernel(name, "it is an ELF file without a PVH entry"));
    };
    if loaded.kernel_end > limit {
        return Err(BootError::Room {
            what: "the kernel",
            bytes: loaded.kernel_end - EXTENDED_START,
        });
    }
    let rip = u32::try_from(entry.0)
        .ok()
        .filter(|rip| (EXTENDED_START..loaded.kernel_end).contains(&u64::from(*rip)))
        .ok_or_else(|| bad_kernel(name, "its PVH entry lies outside of it"))?;
    let initrd = match boot.initrd {
        Some((file, name)) => {
            let room = loaded.kernel_end..limit;
            Some(payload::load_initrd(ram, file, name, room)?)
        }
        None => None,
    };
    payload::write_command_line(ram, boot.cmdline)?;
    write_start_info(ram, initrd, memory)?;
    state::write_gdt(ram)?;
    Ok(BootEntry::Protected {
        rip,
        // Below 1 MiB.
        rbx: u32::try_from(PVH_START).unwrap_or(0),
    })
}

/// Why the loader refused. It does not tell a segment outside memory from one that the file does
/// not have.
fn not_loaded(kernel: &File, name: &str, limit: u64, error: &loader::Error) -> BootError {
    let reason = match error {
        loader::Error::Elf(elf::Error::ReadKernelImage) => {
            let size = kernel.metadata().map_or(0, |data| data.len());
            if size.saturating_add(EXTENDED_START) > limit {
                return BootError::Room {
                    what: "the kernel",
                    bytes: size,
                };
            }
            "a part of it lies outside the guest's memory, or the file was cut short".to_owned()
        }
        loader::Error::Elf(elf::Error::InvalidEntryAddress) => {
            "it wants to lie below 1 MiB".to_owned()
        }
        other => other.to_string(),
    };
    bad_kernel(name, reason)
}

fn write_start_info(ram: &GuestRam, initrd: Option<Initrd>, memory: u64) -> Result<(), BootError> {
    if let Some(Initrd { address, size }) = initrd {
        let module = hvm_modlist_entry {
            paddr: address.into(),
            size: size.into(),
            ..hvm_modlist_entry::default()
        };
        put(ram, MODULES, module)?;
    }
    let mut entries = 0;
    for (area, at) in payload::memory_map(memory)
        .into_iter()
        .zip((MEMORY_MAP..).step_by(size_of::<hvm_memmap_table_entry>()))
    {
        let entry = hvm_memmap_table_entry {
            addr: area.range.start,
            size: area.range.end - area.range.start,
            type_: area.kind,
            reserved: 0,
        };
        put(ram, at, entry)?;
        entries += 1;
    }
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        flags: 0,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { MODULES } else { 0 },
        cmdline_paddr: COMMAND_LINE.into(),
        rsdp_paddr: ACPI_TABLES.start,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: entries,
        reserved: 0,
    };
    put(ram, PVH_START, info)
}

fn put<T: ByteValued>(ram: &GuestRam, address: u64, value: T) -> Result<(), BootError> {
    ram.write_obj(value, GuestAddress(address))
        .map_err(|error| memory_error(address, &error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::board::memory;
    use crate::boot;

    const MEMORY: u64 = 64 << 20;
    const AT: u64 = 0x100_0000;

    /// A kernel of one segment with `code` and one note, of which `kind` is the type; 18 is
    /// `XEN_ELFNOTE_PHYS32_ENTRY`.
    fn kernel(kind: u32, at: u64, entry: u32, room: u64) -> File {
        let words =
            |list: &[u64]| -> Vec<u8> { list.iter().flat_map(|n| n.to_le_bytes()).collect() };
        let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        image.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
        image.extend(words(&[at, 64, 0])); // entry, program headers, section headers
        image.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        image.extend([1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD
        image.extend(words(&[0x100, at, at, 4, room, 0x1000]));
        image.extend([4, 0, 0, 0, 0, 0, 0, 0]); // PT_NOTE
        image.extend(words(&[0xc0, 0, 0, 20, 20, 4]));
        image.resize(0xc0, 0);
        for word in [4, 4, kind, u32::from_le_bytes(*b"Xen\0"), entry] {
            image.extend(word.to_le_bytes());
        }
        image.resize(0x100, 0);
        image.extend(b"code");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&image).unwrap();
        file
    }

    fn start(
        ram: &GuestRam,
        mut kernel: File,
        initrd: Option<(&mut File, &str)>,
    ) -> Result<BootEntry, BootError> {
        let boot = LinuxBoot {
            kernel: (&mut kernel, "vmlinux"),
            initrd,
            cmdline: "quiet",
        };
        boot::load(ram, boot, MEMORY)
    }

    fn read<T: ByteValued>(ram: &GuestRam, address: u64) -> T {
        ram.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn the_start_information_names_all_that_is_there() {
        let ram = memory::allocate(MEMORY).unwrap();
        let mut initrd = tempfile::tempfile().unwrap();
        initrd.write_all(b"initrd").unwrap();
        std::io::Seek::rewind(&mut initrd).unwrap();
        let kernel = kernel(18, AT, 0x100_0002, 0x1000);
        let entry = start(&ram, kernel, Some((&mut initrd, "i"))).unwrap();

        let (rip, rbx) = (0x100_0002, 0x7000);
        assert_eq!(entry, BootEntry::Protected { rip, rbx });
        assert_eq!(&read::<[u8; 4]>(&ram, AT), b"code");
        let info: hvm_start_info = read(&ram, PVH_START);
        assert_eq!((info.magic, info.version), (0x336e_c578, 1));
        assert_eq!(info.rsdp_paddr, ACPI_TABLES.start);
        assert_eq!(&read::<[u8; 6]>(&ram, info.cmdline_paddr), b"quiet\0");
        assert_eq!(info.nr_modules, 1);
        let module: hvm_modlist_entry = read(&ram, info.modlist_paddr);
        assert_eq!(module.size, 6);
        assert_eq!(&read::<[u8; 6]>(&ram, module.paddr), b"initrd");
        assert_eq!(info.memmap_entries, 4);
        let first: hvm_memmap_table_entry = read(&ram, info.memmap_paddr);
        assert_eq!((first.addr, first.size, first.type_), (0, 0x9_fc00, 1));
    }

    #[test]
    fn what_cannot_start_is_refused_with_a_reason() {
        let ram = memory::allocate(MEMORY).unwrap();
        let refused = |kernel| start(&ram, kernel, None).unwrap_err().to_string();
        let text = refused(kernel(17, AT, 0x100_0000, 0x1000));
        assert!(text.contains("without a PVH entry"), "{text}");
        assert!(text.contains("CONFIG_PVH"), "{text}");
        let text = refused(kernel(18, AT, 0x200_0000, 0x1000));
        assert!(text.contains("its PVH entry lies outside"), "{text}");
        let text = refused(kernel(18, AT, 0x100_0000, MEMORY));
        assert!(text.contains("give more --memory"), "{text}");
        let text = refused(kernel(18, MEMORY, 0x100_0000, 0x1000));
        assert!(text.contains("outside the guest's memory"), "{text}");
        let text = refused(kernel(18, 0x8000, 0x8000, 0x1000));
        assert!(text.contains("below 1 MiB"), "{text}");
        let mut cut = tempfile::tempfile().unwrap();
        cut.write_all(&ELF_MAGIC).unwrap();
        assert!(refused(cut).contains("elf header"));
    }
}
