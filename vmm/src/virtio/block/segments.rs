//! The ranges of a discard or of zeroes (virtio 1.2, section 5.2.6, `virtio_blk_discard_write_zeroes`).

use std::ops::Range;

use super::request::{HEADER_LEN, Request, Status};
use crate::disk::SECTOR;
use crate::virtio::{Chain, GuestRam};

/// Bytes of a segment: first sector, sectors, flags.
const SEGMENT_LEN: usize = 16;
/// Segments of a discard. Linux and Windows collect up to this many ranges.
pub(super) const MAX_DISCARDS: u32 = 256;
/// Segments of a request for zeroes: no driver sends more, and one bounds what a request makes the
/// host write.
pub(super) const MAX_ZEROES: u32 = 1;
/// Sectors of a segment to discard: 1 GiB. A hole of that size takes a file system milliseconds.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Sectors of a segment of zeroes: 32 MiB, as with NVMe. The host may have to write them.
pub(super) const MAX_ZEROES_SECTORS: u32 = 1 << 16;

/// The only flag: the room of what is zeroed may be given up.
const UNMAP: u32 = 1;

/// What a kind of request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limits {
    Discard,
    Zeroes,
}

impl Limits {
    fn segments(self) -> u32 {
        match self {
            Self::Discard => MAX_DISCARDS,
            Self::Zeroes => MAX_ZEROES,
        }
    }

    fn sectors(self) -> u32 {
        match self {
            Self::Discard => MAX_DISCARD_SECTORS,
            Self::Zeroes => MAX_ZEROES_SECTORS,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Discard => 0,
            Self::Zeroes => UNMAP,
        }
    }
}

/// Segments of one request, all of which are inside the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segments {
    /// In bytes of the image.
    pub(super) ranges: Vec<Range<u64>>,
    /// Whether one of them has the flag.
    pub(super) unmap: bool,
}

impl Segments {
    /// Copies the segments out of guest memory, once, and looks at all of them.
    pub(super) fn read(
        ram: &GuestRam,
        chain: &Chain,
        request: &Request,
        limits: Limits,
        capacity: u64,
    ) -> Result<Self, Status> {
        let length = usize::try_from(request.data_len).map_err(|_| Status::Error)?;
        let most = limits.segments() as usize * SEGMENT_LEN;
        if length == 0 || length > most || !length.is_multiple_of(SEGMENT_LEN) {
            return Err(Status::Error);
        }
        let mut bytes = vec![0; length];
        if chain.read_at(ram, HEADER_LEN as u64, &mut bytes) < length {
            return Err(Status::Error);
        }
        Self::parse(&bytes, limits, capacity)
    }

    fn parse(bytes: &[u8], limits: Limits, capacity: u64) -> Result<Self, Status> {
        let mut segments = Self {
            ranges: Vec::new(),
            unmap: false,
        };
        for segment in bytes.as_chunks::<SEGMENT_LEN>().0 {
            let [first @ .., n0, n1, n2, n3, f0, f1, f2, f3] = *segment;
            let flags = u32::from_le_bytes([f0, f1, f2, f3]);
            if flags & !limits.flags() != 0 {
                return Err(Status::Unsupported);
            }
            let count = u32::from_le_bytes([n0, n1, n2, n3]);
            let first = u64::from_le_bytes(first);
            let end = first.checked_add(count.into());
            match end {
                Some(end) if end <= capacity && count <= limits.sectors() => {
                    segments.ranges.push(first * SECTOR..end * SECTOR);
                }
                _ => return Err(Status::Error),
            }
            segments.unmap |= flags & UNMAP != 0;
        }
        Ok(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u64, count: u32, flags: u32) -> Vec<u8> {
        [
            &first.to_le_bytes()[..],
            &count.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn segments_are_inside_the_disk_or_refused() {
        let capacity = u64::from(MAX_DISCARD_SECTORS) * 4;
        for (first, count, outcome) in [
            (0, 8, Ok(0..4096)),
            (capacity - 1, 1, Ok((capacity - 1) * 512..capacity * 512)),
            (capacity, 0, Ok(capacity * 512..capacity * 512)),
            (capacity - 1, 2, Err(Status::Error)),
            (capacity + 1, 0, Err(Status::Error)),
            (u64::MAX, 1, Err(Status::Error)),
            (u64::MAX - 1, u32::MAX, Err(Status::Error)),
            (0, MAX_DISCARD_SECTORS + 1, Err(Status::Error)),
        ] {
            let parsed = Segments::parse(&segment(first, count, 0), Limits::Discard, capacity);
            let ranges = parsed.map(|parsed| parsed.ranges[0].clone());
            assert_eq!(ranges, outcome, "{first} {count}");
        }
    }

    #[test]
    fn one_bad_segment_refuses_all() {
        let good = segment(0, 8, 0);
        let bad = segment(64, 1, 0);
        let parsed = Segments::parse(&[good, bad].concat(), Limits::Discard, 64);
        assert_eq!(parsed, Err(Status::Error));
    }

    #[test]
    fn flags_are_known_or_unsupported() {
        let flags = |flags, limits| Segments::parse(&segment(0, 1, flags), limits, 64);
        assert!(flags(UNMAP, Limits::Zeroes).unwrap().unmap);
        assert!(!flags(0, Limits::Zeroes).unwrap().unmap);
        for (value, limits) in [
            (UNMAP, Limits::Discard),
            (2, Limits::Discard),
            (2, Limits::Zeroes),
            (1 << 31 | UNMAP, Limits::Zeroes),
        ] {
            assert_eq!(flags(value, limits), Err(Status::Unsupported), "{value}");
        }
    }
}
