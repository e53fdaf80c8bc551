//! Boot by UEFI firmware: two images for the flash, and what `fw_cfg` offers of the board.
//!
//! Source: `machine.md`, section 1.1.

use std::fs::File;
use std::io::{Read as _, Seek as _};

use super::payload::RAM;
use super::{BootError, LinuxBoot};
use crate::acpi::{Files, LOADER_FILE, RSDP_FILE, TABLES_FILE};
use crate::board::layout::FLASH_MAX;
use crate::board::memory::ram_ranges;
use crate::chipset::flash::BLOCK;
use crate::chipset::fw_cfg::{Items, key};
use crate::pci::Slot;
use crate::smbios::{self, Inventory};

/// What firmware starts from.
#[derive(Debug)]
pub struct FirmwareBoot<'a> {
    /// The firmware itself and its name for messages.
    pub code: (&'a mut File, &'a str),
    /// Its variables, which it changes, and their name for messages. Opened so that a write is in
    /// the file for good when it returns.
    pub variables: (&'a File, &'a str),
    /// What to start before anything on a disk: a Linux kernel, or any other EFI program.
    pub program: Option<LinuxBoot<'a>>,
    /// Disks to start from, the first one first.
    pub disks: &'a [BootDisk],
}

/// Where a disk is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDisk {
    /// A virtio block device.
    Virtio(Slot),
    /// Namespace 1 of an NVMe controller.
    Nvme(Slot),
}

/// One of the two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(pub Vec<u8>);

impl Image {
    /// Reads an image of whole flash blocks.
    pub fn read(file: &mut File, name: &str) -> Result<Self, BootError> {
        let content = read_all(file, name, FLASH_MAX)?;
        if content.is_empty() || !content.len().is_multiple_of(BLOCK) {
            return Err(BootError::Firmware {
                path: name.to_owned(),
                bytes: content.len() as u64,
            });
        }
        Ok(Self(content))
    }
}

/// Reads at most `limit` bytes; a longer file is refused.
fn read_all(file: &mut File, name: &str, limit: u64) -> Result<Vec<u8>, BootError> {
    let read = |source| BootError::Read {
        path: name.to_owned(),
        source,
    };
    file.rewind().map_err(read)?;
    let mut content = Vec::new();
    let mut some = file.take(limit + 1);
    some.read_to_end(&mut content).map_err(read)?;
    if content.len() as u64 > limit {
        let bytes = file.metadata().map_err(read)?.len();
        return Err(BootError::Firmware {
            path: name.to_owned(),
            bytes,
        });
    }
    Ok(content)
}

/// What `fw_cfg` offers of a board with `memory` bytes and `cpus` processors, beside the ACPI
/// tables.
pub fn items(
    memory: u64,
    cpus: u8,
    disks: &[BootDisk],
    program: Option<LinuxBoot<'_>>,
) -> Result<Items, BootError> {
    let mut items = Items::new();
    let count = u16::from(cpus).to_le_bytes().to_vec();
    items.add(key::CPUS, count.clone());
    items.add(key::MAX_CPUS, count);
    let ranges = ram_ranges(memory);
    items.add_file("etc/e820", e820(&ranges));
    let tables = smbios::build(&Inventory {
        cpus,
        low: ranges.first().copied().unwrap_or_default(),
        high: ranges.get(1).copied(),
    });
    items.add_file("etc/smbios/smbios-anchor", tables.anchor);
    items.add_file("etc/smbios/smbios-tables", tables.structures);
    // There is a menu, for whoever presses a key, and nobody is waited for.
    items.add(key::BOOT_MENU, 1u16.to_le_bytes().to_vec());
    items.add_file("etc/boot-menu-wait", 0u16.to_le_bytes().to_vec());
    items.add_file("bootorder", boot_order(disks));
    if let Some(program) = program {
        add_program(&mut items, program)?;
    }
    Ok(items)
}

/// The ACPI tables as `fw_cfg` files.
pub(crate) fn table_files(files: Files) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (LOADER_FILE, files.loader),
        (RSDP_FILE, files.rsdp),
        (TABLES_FILE, files.tables),
    ]
}

/// Start, length and kind of each range, 20 bytes each.
fn e820(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (start, length) in ranges {
        bytes.extend(start.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(RAM.to_le_bytes());
    }
    bytes
}

/// Open Firmware paths as QEMU writes them and OVMF reads them, a line each and a zero at the end. An
/// NVMe controller goes by the ids of QEMU's first one there, whatever its own are.
fn boot_order(disks: &[BootDisk]) -> Vec<u8> {
    let line = |disk: &BootDisk| match disk {
        BootDisk::Virtio(slot) => format!("/pci@i0cf8/scsi@{:x}/disk@0,0\n", slot.device),
        BootDisk::Nvme(slot) => {
            let device = slot.device;
            format!("/pci@i0cf8/pci8086,5845@{device:x}/namespace@1,0\n")
        }
    };
    let mut text: String = disks.iter().map(line).collect();
    text.push('\0');
    text.into_bytes()
}

/// Firmware joins set-up part and kernel again and starts the whole as an EFI program, checking its
/// signature where Secure Boot is on: so the file stays in one piece.
fn add_program(items: &mut Items, program: LinuxBoot<'_>) -> Result<(), BootError> {
    let mut add = |size_key, content_key, content: Vec<u8>| {
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        items.add(size_key, size.to_le_bytes().to_vec());
        items.add(content_key, content);
    };
    let limit = u64::from(u32::MAX);
    let (kernel, name) = program.kernel;
    add(
        key::KERNEL_SIZE,
        key::KERNEL,
        read_all(kernel, name, limit)?,
    );
    if let Some((initrd, name)) = program.initrd {
        add(
            key::INITRD_SIZE,
            key::INITRD,
            read_all(initrd, name, limit)?,
        );
    }
    if !program.cmdline.is_empty() {
        let mut line = program.cmdline.as_bytes().to_vec();
        line.push(0);
        add(key::CMDLINE_SIZE, key::CMDLINE, line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn memory_is_told_in_two_pieces() {
        let bytes = e820(&ram_ranges(3 << 30));
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[8..16], (2u64 << 30).to_le_bytes());
        assert_eq!(bytes[20..28], (4u64 << 30).to_le_bytes());
        assert_eq!(bytes[36..], 1u32.to_le_bytes());
    }

    #[test]
    fn disks_are_named_as_open_firmware_does() {
        let order = boot_order(&[
            BootDisk::Virtio(Slot::new(3, 0)),
            BootDisk::Nvme(Slot::new(0x1a, 0)),
        ]);
        let expected = "/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/pci8086,5845@1a/namespace@1,0\n\0";
        assert_eq!(String::from_utf8(order).unwrap(), expected);
    }

    #[test]
    fn images_that_no_flash_holds_are_refused() {
        for (bytes, good) in [
            (0, false),
            (BLOCK, true),
            (BLOCK + 1, false),
            (17 << 20, false),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![0xff; bytes]).unwrap();
            let image = Image::read(&mut file, "vars.fd");
            assert_eq!(image.is_ok(), good, "{bytes}");
        }
    }
}
