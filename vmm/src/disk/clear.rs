//! Ranges that are given up or zeroed, one after the other: which call comes next, and what takes its
//! place where the host cannot do it.
//!
//! A range is *discarded* by a hole, or stays as it is where the host makes none. It is *zeroed* by a
//! hole where it may give up its room, else by `FALLOC_FL_ZERO_RANGE`, at last by zeroes written piece by
//! piece; afterwards it reads zero in any case.
//!
//! A hole in a block device has a trap: the kernel drops what is cached of the range *before* it asks
//! the device, and a device that then says no leaves what the range held before the last writes. So
//! what is cached of a range to discard is written first, and only whole pages are taken, of which
//! nothing is left in the cache.

use std::ops::Range;

use super::host::Host;

/// The page cache's unit, and the largest block of a host's disk.
pub(super) const PAGE: u64 = 4096;
/// Zeroes written at once. A reset waits for one piece, and a busy disk gets in between.
pub(super) const PIECE: u64 = 1 << 20;

/// What is wanted of the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Discard,
    Zeroes {
        /// Their room may be given up.
        unmap: bool,
        /// They are on the medium when the request completes.
        stable: bool,
    },
}

/// A call to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `sync_file_range`: what is cached of it is written.
    Settle(Range<u64>),
    /// `FALLOC_FL_PUNCH_HOLE`.
    Punch(Range<u64>),
    /// `FALLOC_FL_ZERO_RANGE`.
    Zero(Range<u64>),
    /// Zeroes as data; at most a [`PIECE`].
    Write(Range<u64>),
    /// `fdatasync`.
    Sync,
}

/// A request for ranges on its way.
#[derive(Debug)]
pub(super) struct Clearing {
    wanted: Wanted,
    /// What is still to be done; the next one last.
    ranges: Vec<Range<u64>>,
    under_way: Step,
}

impl Clearing {
    /// Nothing done yet.
    pub(super) fn new(wanted: Wanted, ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges.collect();
        ranges.reverse();
        Self {
            wanted,
            ranges,
            under_way: Step::Sync,
        }
    }

    /// The first step; `None` where there is nothing to do.
    pub(super) fn first(&mut self, host: Host) -> Option<Step> {
        let step = self.next_range(host)?;
        self.under_way = step.clone();
        Some(step)
    }

    /// Takes in the kernel's answer: the step that follows, or none at the end, or its error.
    pub(super) fn follow(&mut self, result: i32, host: &mut Host) -> Result<Option<Step>, i32> {
        let cannot = [-libc::EOPNOTSUPP, -libc::EINVAL].contains(&result);
        let next = match std::mem::replace(&mut self.under_way, Step::Sync) {
            Step::Settle(range) if result >= 0 => Some(Step::Punch(range)),
            Step::Punch(range) if cannot => {
                host.punches = false;
                if self.wanted != Wanted::Discard {
                    self.ranges.push(range);
                }
                self.next_range(*host)
            }
            Step::Zero(range) if cannot => {
                host.zeroes = false;
                self.ranges.push(range);
                self.next_range(*host)
            }
            Step::Punch(_) | Step::Zero(_) if result >= 0 => self.next_range(*host),
            Step::Write(piece) if u64::try_from(result) == Ok(piece.end - piece.start) => {
                self.next_range(*host)
            }
            Step::Sync if result >= 0 => return Ok(None),
            // An answer that is no error is a write that came short.
            _ => return Err(if result < 0 { result } else { -libc::EIO }),
        };
        let stable = matches!(self.wanted, Wanted::Zeroes { stable: true, .. });
        let next = next.or_else(|| stable.then_some(Step::Sync));
        if let Some(step) = &next {
            self.under_way = step.clone();
        }
        Ok(next)
    }

    /// What comes after a range that is done.
    fn next_range(&mut self, host: Host) -> Option<Step> {
        while let Some(range) = self.ranges.pop() {
            let unmap = match self.wanted {
                Wanted::Discard => {
                    let whole = if host.device {
                        whole_pages(range)
                    } else {
                        range
                    };
                    match (whole.is_empty() || !host.punches, host.device) {
                        (true, _) => continue,
                        (false, true) => return Some(Step::Settle(whole)),
                        (false, false) => return Some(Step::Punch(whole)),
                    }
                }
                Wanted::Zeroes { unmap, .. } => unmap,
            };
            // A device takes only its own blocks.
            let fits = !host.device || whole_pages(range.clone()) == range;
            return Some(match range {
                _ if range.is_empty() => continue,
                range if fits && unmap && host.punches => Step::Punch(range),
                range if fits && host.zeroes => Step::Zero(range),
                Range { start, end } => {
                    let middle = end.min(start.saturating_add(PIECE));
                    if middle < end {
                        self.ranges.push(middle..end);
                    }
                    Step::Write(start..middle)
                }
            });
        }
        None
    }
}

/// The whole pages inside a range; an empty range where there is none.
fn whole_pages(range: Range<u64>) -> Range<u64> {
    let start = range.start.checked_next_multiple_of(PAGE);
    let end = range.end - range.end % PAGE;
    match start {
        Some(start) if start < end => start..end,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Host = Host {
        device: false,
        punches: true,
        zeroes: true,
    };
    const DEVICE: Host = Host {
        device: true,
        ..ABLE
    };
    const NO: i32 = -libc::EOPNOTSUPP;

    /// All steps of a request whose calls the kernel answers with `answer`.
    fn steps(
        wanted: Wanted,
        ranges: &[(u64, u64)],
        host: &mut Host,
        answer: impl Fn(&Step) -> i32,
    ) -> Result<Vec<Step>, i32> {
        let mut clearing = Clearing::new(wanted, ranges.iter().map(|(start, end)| *start..*end));
        let mut next = clearing.first(*host);
        let mut done = Vec::new();
        while let Some(step) = next {
            let result = answer(&step);
            done.push(step);
            next = clearing.follow(result, host)?;
        }
        Ok(done)
    }

    fn good(step: &Step) -> i32 {
        match step {
            Step::Write(range) => i32::try_from(range.end - range.start).unwrap(),
            _ => 0,
        }
    }

    const ZEROES: Wanted = Wanted::Zeroes {
        unmap: false,
        stable: false,
    };
    const UNMAP: Wanted = Wanted::Zeroes {
        unmap: true,
        stable: true,
    };

    #[test]
    fn a_file_gets_a_hole_for_each_range_in_order() {
        let ranges = [(0, 512), (0, 0), (4096, 8192)];
        let done = steps(Wanted::Discard, &ranges, &mut { ABLE }, good);
        assert_eq!(done, Ok(vec![Step::Punch(0..512), Step::Punch(4096..8192)]));
        let done = steps(ZEROES, &ranges, &mut { ABLE }, good);
        assert_eq!(done, Ok(vec![Step::Zero(0..512), Step::Zero(4096..8192)]));
        let done = steps(UNMAP, &ranges[..1], &mut { ABLE }, good);
        assert_eq!(done, Ok(vec![Step::Punch(0..512), Step::Sync]));
    }

    #[test]
    fn what_a_device_has_cached_is_written_before_it_is_dropped() {
        let mut host = DEVICE;
        let ranges = [(512, 9000), (512, 4608), (8192, 16_384)];
        let refuse = |step: &Step| {
            if matches!(step, Step::Punch(_)) {
                NO
            } else {
                0
            }
        };
        let done = steps(Wanted::Discard, &ranges, &mut host, refuse);
        // Whole pages only, and after the refusal nothing is dropped any more.
        let expected = [Step::Settle(4096..8192), Step::Punch(4096..8192)];
        assert_eq!(done, Ok(expected.to_vec()));
        assert!(!host.punches);
        assert_eq!(
            steps(Wanted::Discard, &ranges, &mut host, refuse),
            Ok(vec![])
        );
        // What could not be written is not dropped.
        let broken = |_: &Step| -libc::EIO;
        let mut host = DEVICE;
        let done = steps(Wanted::Discard, &ranges, &mut host, broken);
        assert_eq!(done, Err(-libc::EIO));
    }

    #[test]
    fn zeroes_are_written_where_nothing_else_is_possible() {
        let mut host = ABLE;
        let refuse = |step: &Step| match step {
            Step::Punch(_) | Step::Zero(_) => NO,
            other => good(other),
        };
        let range = 512..512 + 2 * PIECE + 512;
        let done = steps(UNMAP, &[(range.start, range.end)], &mut host, refuse).unwrap();
        let middle = 512 + PIECE;
        let expected = [
            Step::Punch(range.clone()),
            Step::Zero(range.clone()),
            Step::Write(512..middle),
            Step::Write(middle..middle + PIECE),
            Step::Write(middle + PIECE..range.end),
            Step::Sync,
        ];
        assert_eq!(done, expected);
        assert!(!host.punches && !host.zeroes);
        // It is asked no more.
        let done = steps(ZEROES, &[(0, 512)], &mut host, refuse).unwrap();
        assert_eq!(done, [Step::Write(0..512)]);
    }

    #[test]
    fn a_device_is_asked_for_whole_pages_only() {
        let done = steps(UNMAP, &[(512, 8192)], &mut { DEVICE }, good).unwrap();
        assert_eq!(done, [Step::Write(512..8192), Step::Sync]);
        let done = steps(UNMAP, &[(4096, 8192)], &mut { DEVICE }, good).unwrap();
        assert_eq!(done, [Step::Punch(4096..8192), Step::Sync]);
    }

    #[test]
    fn a_short_write_and_an_error_end_it() {
        let mut host = Host {
            punches: false,
            zeroes: false,
            ..ABLE
        };
        let short = |_: &Step| 512;
        assert_eq!(
            steps(ZEROES, &[(0, 1024)], &mut host, short),
            Err(-libc::EIO)
        );
        let full = |_: &Step| -libc::ENOSPC;
        let ranges = [(0, 1024), (4096, 8192)];
        assert_eq!(
            steps(ZEROES, &ranges, &mut { ABLE }, full),
            Err(-libc::ENOSPC)
        );
    }

    #[test]
    fn pages_are_counted_inwards() {
        assert_eq!(whole_pages(1..8193), 4096..8192);
        assert_eq!(whole_pages(4096..4096), 0..0);
        assert_eq!(whole_pages(1..4096), 0..0);
        assert_eq!(whole_pages(u64::MAX - 1..u64::MAX), 0..0);
    }
}
