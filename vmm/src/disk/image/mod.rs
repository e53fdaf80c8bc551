//! Images that are more than their bytes: qcow2 (crate `imago`), alone or as an overlay that holds the
//! changes to a base.
//!
//! Nothing is opened but what the machine file names: an image that itself names a backing file, a data
//! file or a key is refused ([`header`]), and the base is open for reading only. The crate's calls
//! block, so an image has a thread of its own ([`requests::Service`]), which copies between guest memory
//! and a buffer. Metadata that changed is in the crate's caches until a flush; what a flush has
//! answered is in the file and on the medium, and what the power cuts off leaves an image that is whole
//! ([`ordered`]).

#[cfg(test)]
mod cuts;
mod header;
mod open;
mod ordered;
pub mod requests;

use std::io;
use std::ops::Range;

use imago::file::File;
use imago::{FormatAccess, Storage};

pub use self::open::{Changes, ImageError, Plan, lock};
use self::ordered::Ordered;

/// Clusters of what is given up: 64 KiB, what `qemu-img` and we make. Smaller ones are rounded up to it.
pub(super) const CLUSTER: u64 = 64 << 10;

/// An open image; what it lies on is a file, but in tests.
#[derive(Debug)]
pub struct Image<S: Storage + 'static = File> {
    access: FormatAccess<Ordered<S>>,
    /// Whether anything of it has to outlive the VMM.
    kept: bool,
}

impl<S: Storage> Image<S> {
    fn length(&self) -> u64 {
        self.access.size()
    }

    fn read(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.access.read(data, offset)
    }

    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.access.write(data, offset)
    }

    /// Everything is in the file and on the medium.
    fn flush(&self) -> io::Result<()> {
        if !self.kept {
            return Ok(());
        }
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
