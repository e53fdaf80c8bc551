//! The screen's memory: a file in memory, which the guest writes, the VMM writes for it where a
//! write exits, and the seat reads.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::VolatileSlice;

/// The memory. Mapped as long as the process lives, because KVM keeps its address.
pub struct Vram {
    cells: &'static [AtomicU8],
    file: OwnedFd,
}

impl Vram {
    /// `bytes` of memory, all zero. Whoever is handed the file can neither change its length nor
    /// write to it: only the mapping that is made here, before the seal, writes.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("sekisho-vram", flags)?;
        ftruncate(&file, bytes)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        // SAFETY: the range is the fresh mapping, and the advice leaves its content.
        unsafe { rustix::mm::madvise(base, length, Advice::LinuxDontDump) }?;
        fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?;
        // SAFETY: the mapping has `length` bytes, is never unmapped, and the file behind it cannot
        // shrink; an `AtomicU8` is a byte, and any byte is one of its values.
        let cells = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU8>(), length) };
        Ok(Self { cells, file })
    }

    /// Its bytes, which the guest may change at any time.
    pub fn cells(&self) -> &'static [AtomicU8] {
        self.cells
    }

    /// The file, for others to read.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads for the guest; what is not there reads zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (byte, cell) in data.iter_mut().zip(self.from(offset)) {
            *byte = cell.load(Ordering::Relaxed);
        }
    }

    /// Writes for the guest, as far as it is there.
    pub fn write(&self, offset: u64, data: &[u8]) {
        for (byte, cell) in data.iter().zip(self.from(offset)) {
            cell.store(*byte, Ordering::Relaxed);
        }
    }

    /// Fills a part with zeros, as far as it is there.
    pub fn clear(&self, offset: u64, len: u64) {
        const ZEROS: &[u8] = &[0; 4096];
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        for part in self.from(offset).chunks(ZEROS.len()) {
            let part = volatile(&part[..part.len().min(left)]);
            part.copy_from(&ZEROS[..part.len()]);
            left -= part.len();
        }
    }

    /// A part, for copies from guest memory; none where it is not all there.
    pub fn slice(&self, offset: u64, len: usize) -> Option<VolatileSlice<'_>> {
        self.from(offset).get(..len).map(volatile)
    }

    fn from(&self, offset: u64) -> &[AtomicU8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.cells.get(start..).unwrap_or_default()
    }
}

/// The same bytes, for copies of many at once.
fn volatile(cells: &[AtomicU8]) -> VolatileSlice<'_> {
    // SAFETY: the cells are valid for reads and writes as long as the borrow lives, by several at the
    // same time, too.
    unsafe { VolatileSlice::new(cells.as_ptr().cast_mut().cast(), cells.len()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::io::Errno;

    use super::*;

    const LENGTH: u64 = 1 << 16;

    /// What who is handed the file may do with it; a file without the seals shows that the same
    /// attempts succeed there.
    #[test]
    fn who_has_the_file_can_only_read() {
        let vram = Vram::new(LENGTH).unwrap();
        vram.write(7, b"pixel");
        let open = memfd_create("open", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&open, LENGTH).unwrap();
        let attempts = |file: BorrowedFd<'_>| {
            let map = |access| {
                // SAFETY: a fresh mapping touches nothing that exists; it is not used.
                unsafe {
                    rustix::mm::mmap(
                        std::ptr::null_mut(),
                        4096,
                        access,
                        MapFlags::SHARED,
                        file,
                        0,
                    )
                }
                .map(drop)
            };
            // Opened anew, as another process could.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let again = std::fs::File::options().write(true).open(path).unwrap();
            [
                rustix::io::pwrite(file, b"x", 0).map(drop),
                rustix::io::pwrite(&again, b"x", 0).map(drop),
                map(ProtFlags::READ | ProtFlags::WRITE),
                ftruncate(file, LENGTH / 2),
                ftruncate(file, LENGTH * 2),
                fcntl_add_seals(file, SealFlags::WRITE),
            ]
        };
        assert!(
            attempts(vram.file())
                .iter()
                .all(|done| *done == Err(Errno::PERM))
        );
        let done = attempts(open.as_fd()).map(|done| done.is_ok());
        assert_eq!(done, [true, true, true, true, true, false]);
        let mut seen = [0; 5];
        rustix::io::pread(vram.file(), &mut seen, 7).unwrap();
        assert_eq!(&seen, b"pixel");
    }

    #[test]
    fn what_is_outside_is_not_there() {
        let vram = Vram::new(LENGTH).unwrap();
        vram.write(LENGTH - 1, &[1, 2]);
        vram.write(u64::MAX, &[3]);
        let mut data = [9; 2];
        vram.read(LENGTH - 1, &mut data);
        assert_eq!(data, [1, 0]);
        vram.write(0, &[7; 10]);
        vram.clear(2, 5);
        let mut data = [0; 10];
        vram.read(0, &mut data);
        assert_eq!(data, [7, 7, 0, 0, 0, 0, 0, 7, 7, 7]);
        vram.clear(LENGTH - 1, u64::MAX);
        assert!(vram.slice(LENGTH - 1, 2).is_none());
    }
}
