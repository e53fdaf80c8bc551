//! What goes into the guest's memory beside the kernel, whatever the kernel's format: initrd,
//! command line, and the map of the memory.

use std::fs::File;
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::board::layout::{
    COMMAND_LINE, COMMAND_LINE_MAX, CONVENTIONAL_END, ECAM, EXTENDED_START,
};
use crate::board::memory::{GuestRam, ram_ranges};

/// RAM that the guest may use; ACPI, e820 and PVH have the same number for it.
pub(super) const RAM: u32 = 1;
/// Addresses that the guest must not use for anything else; the same number again.
pub(super) const RESERVED: u32 = 2;
const PAGE: u64 = 0x1000;

/// A part of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    /// Guest physical addresses.
    pub(super) range: Range<u64>,
    /// [`RAM`] or [`RESERVED`].
    pub(super) kind: u32,
}

/// Where an initrd lies, in bytes; below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Initrd {
    pub(super) address: u32,
    pub(super) size: u32,
}

/// Copies the initrd as high into `room` as it goes.
pub(super) fn load_initrd(
    ram: &GuestRam,
    file: &mut File,
    name: &str,
    room: Range<u64>,
) -> Result<Initrd, BootError> {
    let read = |source| BootError::Read {
        path: name.to_owned(),
        source,
    };
    let size = file.metadata().map_err(read)?.len();
    let no_room = || BootError::Room {
        what: "the initrd",
        bytes: size,
    };
    let address = room
        .end
        .checked_sub(size)
        .map(|address| address & !(PAGE - 1))
        .filter(|address| *address >= room.start)
        .ok_or_else(no_room)?;
    let count = usize::try_from(size).map_err(|_| no_room())?;
    ram.read_exact_volatile_from(GuestAddress(address), file, count)
        .map_err(|error| read(std::io::Error::other(error.to_string())))?;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| no_room());
    Ok(Initrd {
        address: narrow(address)?,
        size: narrow(size)?,
    })
}

/// Writes the command line, with its final zero, to [`COMMAND_LINE`].
pub(super) fn write_command_line(ram: &GuestRam, cmdline: &str) -> Result<(), BootError> {
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

/// The memory map that firmware would give.
pub(super) fn memory_map(memory: u64) -> Vec<Area> {
    let area = |range: Range<u64>, kind| Area { range, kind };
    let mut map = vec![
        area(0..CONVENTIONAL_END, RAM),
        area(CONVENTIONAL_END..EXTENDED_START, RESERVED),
    ];
    for (start, len) in ram_ranges(memory) {
        map.push(area(start.max(EXTENDED_START)..start + len, RAM));
    }
    map.push(area(ECAM, RESERVED));
    map
}

pub(super) fn memory_error(address: u64, error: &dyn std::error::Error) -> BootError {
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

    #[test]
    fn an_initrd_lies_at_the_top_of_its_room() {
        let ram = memory::allocate(64 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let initrd = load_initrd(&ram, &mut file, "i", 0..64 << 20).unwrap();
        let address = (64 << 20) - 0x2000;
        assert_eq!(
            initrd,
            Initrd {
                address,
                size: 5000
            }
        );
        let last: u8 = ram
            .read_obj(GuestAddress(u64::from(address) + 4999))
            .unwrap();
        assert_eq!(last, 7);
        let none = load_initrd(&ram, &mut file, "i", 64 << 20..64 << 20);
        assert!(matches!(none, Err(BootError::Room { .. })));
    }

    #[test]
    fn the_memory_map_covers_memory_above_the_hole() {
        let ram: u64 = memory_map(3 << 30)
            .iter()
            .filter(|area| area.kind == RAM)
            .map(|area| area.range.end - area.range.start)
            .sum();
        assert_eq!(ram, (3 << 30) - EXTENDED_START + CONVENTIONAL_END);
    }
}
