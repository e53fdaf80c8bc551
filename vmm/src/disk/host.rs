//! What the host can do with ranges of an image, as far as is known.

use std::fs::{self, File};
use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, FileType, fallocate, fstat, major, minor};

use super::clear::PAGE;

/// Changes only from "can" to "cannot".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// A block device: the kernel drops what it has cached of a range before it asks the device.
    pub(super) device: bool,
    /// `FALLOC_FL_PUNCH_HOLE`.
    pub(super) punches: bool,
    /// `FALLOC_FL_ZERO_RANGE`.
    pub(super) zeroes: bool,
}

impl Host {
    /// Finds out without touching what the image holds.
    pub(super) fn of(file: &File, length: u64) -> Self {
        let Ok(status) = fstat(file) else {
            return Self::NOTHING;
        };
        let device = FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice;
        let punches = if device {
            device_clears(major(status.st_rdev), minor(status.st_rdev))
        } else {
            // Behind the end there is nothing to lose.
            let end = length.next_multiple_of(PAGE);
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file.as_fd(), hole, end, PAGE).is_ok()
        };
        Self {
            device,
            punches,
            // Only tried when it is wanted: on a file, behind the end, it would take room.
            zeroes: true,
        }
    }

    const NOTHING: Self = Self {
        device: false,
        punches: false,
        zeroes: false,
    };
}

/// Whether the kernel has a command of the device for zeroes. It may be wrong: some devices are only
/// known by their answer.
fn device_clears(major: u32, minor: u32) -> bool {
    // A partition has its queue's limits in the folder of its disk.
    ["queue", "../queue"].iter().any(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/write_zeroes_max_bytes");
        let limit = fs::read_to_string(path).ok();
        limit.and_then(|text| text.trim().parse().ok()) > Some(0_u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing() {
        use std::os::unix::fs::{FileExt as _, MetadataExt as _};
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let before = file.metadata().unwrap();
        let host = Host::of(&file, 10_000);
        assert!(!host.device && host.zeroes);
        let after = file.metadata().unwrap();
        assert_eq!((after.len(), after.blocks()), (10_000, before.blocks()));
        let mut bytes = [0; 10_000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 10_000]);
    }

    #[test]
    fn a_file_that_may_not_change_gives_nothing_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let read_only = File::open(file.path()).unwrap();
        assert!(!Host::of(&read_only, 4096).punches);
        let nothing = device_clears(0, 0);
        assert!(!nothing);
    }
}
