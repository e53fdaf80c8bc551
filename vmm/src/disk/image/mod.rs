//! Images that are more than their bytes: qcow2 (crate `imago`), alone or as an overlay that holds the
//! changes to a base.
//!
//! Nothing is opened but what the machine file names: an image that itself names a backing file, a data
//! file or a key is refused ([`header`]), and the base is open for reading only. The crate's calls
//! block, so an image has a thread of its own ([`requests::Service`]), which copies between guest memory
//! and a buffer. Metadata that changed is in the crate's caches until a flush; what a flush has
//! answered is in the file.

mod header;
mod open;
pub mod requests;

use std::io;
use std::ops::Range;

use imago::FormatAccess;
use imago::file::File as Storage;

pub use self::open::{Changes, ImageError, Plan, lock};

/// Clusters of what is given up: 64 KiB, what `qemu-img` and we make. Smaller ones are rounded up to it.
pub(super) const CLUSTER: u64 = 64 << 10;

/// An open image.
#[derive(Debug)]
pub struct Image {
    access: FormatAccess<Storage>,
    read_only: bool,
}

impl Image {
    fn length(&self) -> u64 {
        self.access.size()
    }

    fn read(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.access.read(data, offset)
    }

    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.access.write(data, offset)
    }

    /// Everything is in the file and on the medium: data before the tables that point to it.
    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.access.sync()?;
        self.access.flush()?;
        self.access.sync()
    }

    /// Whole clusters of the range are free and read zero; its edges stay what they are.
    fn discard(&mut self, range: &Range<u64>) -> io::Result<()> {
        let start = range.start.next_multiple_of(CLUSTER);
        let end = range.end - range.end % CLUSTER;
        if start >= end {
            return Ok(());
        }
        self.access.discard_to_zero(start, end - start)
    }

    /// The range reads zero.
    fn zero(&mut self, range: &Range<u64>, unmap: bool) -> io::Result<()> {
        let length = range.end - range.start;
        if unmap {
            self.access.discard_to_zero(range.start, length)
        } else {
            self.access.write_zeroes(range.start, length)
        }
    }
}
