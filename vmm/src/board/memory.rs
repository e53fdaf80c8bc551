//! Guest memory: anonymous pages of this process, below and above the hole for devices.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use thiserror::Error;
use vm_memory::mmap::{GuestRegionMmap, MmapRegion};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::layout::{EXTENDED_START, HIGH_RAM_START, LOW_RAM_LIMIT};

/// The guest's memory, as all devices see it.
pub type GuestRam = GuestMemoryMmap<()>;

/// Host pages behind guest memory are of this size where the host has them: a guest that starts
/// touches most of its memory once, and each touch of a fresh small page costs an exit.
const HUGE_PAGE: u64 = 2 << 20;
/// The smallest guest: kernel, initrd and the tables below 1 MiB need room.
const MIN_MEMORY: u64 = 32 << 20;
/// The largest guest: far above any office laptop, and far below where the 64-bit PCI window of
/// the narrowest processor (36 address bits) starts.
const MAX_MEMORY: u64 = 48 << 30;

/// Why there is no guest memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The size is out of bounds or crooked.
    #[error("guest memory of {bytes} bytes is not possible: give a multiple of 2M from 32M to 48G")]
    Size {
        /// The size asked for.
        bytes: u64,
    },
    /// The host refused.
    #[error("the host gives no {bytes} bytes of memory for the guest: {source}")]
    Map {
        /// The size asked for.
        bytes: u64,
        /// The host's answer.
        source: std::io::Error,
    },
    /// `vm-memory` refused.
    #[error("the guest's memory cannot be laid out: {0}")]
    Layout(String),
}

/// Where RAM of `bytes` lies in the guest: from 0, and from 4 GiB on what does not fit below the
/// hole.
pub fn ram_ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(LOW_RAM_LIMIT);
    let mut ranges = vec![(0, low)];
    ranges.extend(NonZeroU64::new(bytes - low).map(|high| (HIGH_RAM_START, high.get())));
    ranges
}

/// Maps memory for a guest of `bytes`.
pub fn allocate(bytes: u64) -> Result<GuestRam, MemoryError> {
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&bytes) || !bytes.is_multiple_of(HUGE_PAGE) {
        return Err(MemoryError::Size { bytes });
    }
    let regions = ram_ranges(bytes)
        .into_iter()
        .map(|(start, len)| map_region(start, len))
        .collect::<Result<Vec<_>, _>>()?;
    debug_assert!(bytes > EXTENDED_START);
    GuestRam::from_regions(regions).map_err(|error| MemoryError::Layout(error.to_string()))
}

/// Maps one region so that guest and host addresses agree modulo the huge page size. The mapping
/// lives as long as the process.
fn map_region(start: u64, len: u64) -> Result<GuestRegionMmap, MemoryError> {
    let fail = |source: std::io::Error| MemoryError::Map { bytes: len, source };
    let too_large = || fail(std::io::ErrorKind::OutOfMemory.into());
    let size = usize::try_from(len).map_err(|_| too_large())?;
    let huge = usize::try_from(HUGE_PAGE).map_err(|_| too_large())?;
    let reserved = size.checked_add(huge).ok_or_else(too_large)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
    // exists.
    let base = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            reserved,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .map_err(|error| fail(error.into()))?;
    let skip = base.cast::<u8>().align_offset(huge);
    // SAFETY: `skip` < `huge`, so the result is inside the mapping of `size + huge` bytes.
    let aligned = unsafe { base.cast::<u8>().add(skip) };
    for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
        // SAFETY: the range is inside the fresh mapping; both kinds of advice leave its content.
        // A host without huge pages refuses: the guest then runs on small ones.
        let _ = unsafe { rustix::mm::madvise(aligned.cast(), size, advice) };
    }
    // SAFETY: `aligned` starts `size` bytes of the mapping, which is never unmapped.
    let region = unsafe {
        MmapRegion::build_raw(
            aligned,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        )
    }
    .map_err(|error| MemoryError::Layout(error.to_string()))?;
    GuestRegionMmap::new(region, GuestAddress(start))
        .ok_or_else(|| MemoryError::Layout(format!("{len:#x} bytes at {start:#x} do not fit")))
}

/// Memory outside the guest's RAM that the guest may read, filled with `content`: whole pages, which
/// live as long as the process.
pub fn allocate_rom(content: &[u8]) -> Result<&'static [AtomicU8], MemoryError> {
    let fail = |source: std::io::Error| MemoryError::Map {
        bytes: content.len() as u64,
        source,
    };
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
    // exists.
    let base = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            content.len(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .map_err(|error| fail(error.into()))?;
    // SAFETY: the mapping is fresh, has `content.len()` bytes and is never unmapped; an `AtomicU8`
    // is a byte, and zero is one of its values.
    let cells = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU8>(), content.len()) };
    for (cell, byte) in cells.iter().zip(content) {
        cell.store(*byte, Ordering::Relaxed);
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[test]
    fn memory_leaves_the_hole_free() {
        assert_eq!(ram_ranges(512 << 20), [(0, 512 << 20)]);
        assert_eq!(ram_ranges(2 << 30), [(0, 2 << 30)]);
        assert_eq!(
            ram_ranges(5 << 30),
            [(0, 2 << 30), (HIGH_RAM_START, 3 << 30)]
        );
    }

    #[test]
    fn crooked_sizes_are_refused() {
        for bytes in [0, 1 << 20, (64 << 20) + 1, 1 << 40] {
            assert!(matches!(allocate(bytes), Err(MemoryError::Size { .. })));
        }
    }

    #[test]
    fn memory_is_aligned_and_writable_to_its_end() {
        let ram = allocate(64 << 20).unwrap();
        let host = ram.get_host_address(GuestAddress(0)).unwrap();
        assert_eq!(host.align_offset(2 << 20), 0);
        ram.write_obj(7u8, GuestAddress((64 << 20) - 1)).unwrap();
        assert!(ram.write_obj(7u8, GuestAddress(64 << 20)).is_err());
    }
}
