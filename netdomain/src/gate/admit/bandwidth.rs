//! Bandwidth: token buckets, one a class and one for everything together, each way.
//!
//! What exceeds a limit is dropped, as a slower wire would drop it: TCP adapts, and nothing waits
//! here, so there is no queue to bound. Where policy sets no limit, a packet costs one comparison.

use std::time::Duration;

use sekisho_policy::{Bandwidth, ClassId, Rate, Rates};

use crate::gate::bucket::Bucket;
use crate::gate::family::Family;
use crate::gate::packet::{Offload, Packet};
use crate::moment::Moment;

/// Bytes that a bucket holds at least: two of the longest super-packets with the headers that their
/// segments add, so that each of them passes a bucket that is full, however slow the rate.
const LEAST_BURST: u64 = 2 * (65_535 + 123 * 80);
/// And milliseconds of its rate: a window of TCP over a long path. With less than a round trip's
/// worth, TCP is cut off in the middle of each window and never reaches the rate.
const BURST_TIME: u64 = 250;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the work OS.
    Up,
    /// To the work OS.
    Down,
}

/// A full bucket for this rate, in bits.
fn bucket(rate: Rate) -> Bucket {
    let rate = rate.bits_per_second().get();
    let worth = rate / 1000 * BURST_TIME;
    Bucket::new(rate, Duration::from_secs(1), worth.max(8 * LEAST_BURST))
}

/// The buckets of one limit.
#[derive(Debug, Clone, Copy)]
struct Pair {
    up: Bucket,
    down: Bucket,
}

impl Pair {
    fn new(rates: Rates) -> Self {
        Self {
            up: bucket(rates.up),
            down: bucket(rates.down),
        }
    }

    fn way(&mut self, way: Way) -> &mut Bucket {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// All limits of a policy.
#[derive(Debug)]
pub(super) struct Limits {
    total: Option<Pair>,
    classes: Vec<Pair>,
}

/// The limit that a packet exceeds: a class, or everything together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded(pub(super) Option<ClassId>);

impl Limits {
    /// Full buckets.
    pub(super) fn new(bandwidth: &Bandwidth) -> Self {
        Self {
            total: bandwidth.total.map(Pair::new),
            classes: bandwidth.classes.values().copied().map(Pair::new).collect(),
        }
    }

    /// Takes `packet` out of its buckets: out of both, or out of none.
    pub(super) fn take<A: Family>(
        &mut self,
        packet: &Packet<'_, A>,
        class: Option<ClassId>,
        way: Way,
        now: Moment,
    ) -> Result<(), Exceeded> {
        let share = class.and_then(|class| self.classes.get_mut(usize::from(class.0)));
        if share.is_none() && self.total.is_none() {
            return Ok(());
        }
        self.take_bytes(length(packet), class, way, now)
    }

    fn take_bytes(
        &mut self,
        bytes: usize,
        class: Option<ClassId>,
        way: Way,
        now: Moment,
    ) -> Result<(), Exceeded> {
        let mut share = class
            .and_then(|class| self.classes.get_mut(usize::from(class.0)))
            .map(|pair| pair.way(way));
        let mut total = self.total.as_mut().map(|pair| pair.way(way));
        let bits = 8 * bytes as u64;
        let full_at = |bucket: &Option<&mut Bucket>, limit| match bucket {
            None => Ok(now),
            Some(bucket) => bucket.after(bits, now).ok_or(Exceeded(limit)),
        };
        let (share_full, total_full) = (full_at(&share, class)?, full_at(&total, None)?);
        if let Some(bucket) = &mut share {
            bucket.settle(share_full);
        }
        if let Some(bucket) = &mut total {
            bucket.settle(total_full);
        }
        Ok(())
    }
}

/// Bytes of a packet inside the tunnel: for a super-packet those of all segments that it becomes,
/// each with its headers.
fn length<A: Family>(packet: &Packet<'_, A>) -> usize {
    let bytes = packet.bytes().len();
    let Offload::Tcp { mss } = packet.offload() else {
        return bytes;
    };
    let headers = packet.header_len();
    let segments = (bytes - headers).div_ceil(usize::from(mss).max(1));
    bytes + segments.saturating_sub(1) * headers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gate::fixture::{GUEST, SERVER, tcp};

    fn bandwidth(total: Option<&str>, bulk: &str) -> Bandwidth {
        let rates = |text: &str| Rates {
            up: text.parse().unwrap(),
            down: text.parse().unwrap(),
        };
        Bandwidth {
            total: total.map(rates),
            classes: BTreeMap::from([("bulk".to_owned(), rates(bulk))]),
        }
    }

    const BULK: Option<ClassId> = Some(ClassId(0));

    fn at(nanoseconds: u64) -> Moment {
        Moment::from_boot(Duration::from_nanos(nanoseconds))
    }

    #[test]
    fn a_super_packet_counts_as_its_segments() {
        let bytes = tcp((GUEST, 1), (SERVER, 443), (1, 1), 0x10, &[], &[0; 3000]);
        let whole = Packet::parse(&bytes, Offload::None).unwrap();
        assert_eq!(length(&whole), 3040);
        let cut = Packet::parse(&bytes, Offload::Tcp { mss: 1000 }).unwrap();
        assert_eq!(length(&cut), 3 * 1040);
        let cut = Packet::parse(&bytes, Offload::Tcp { mss: 999 }).unwrap();
        assert_eq!(length(&cut), 3000 + 4 * 40);
    }

    #[test]
    fn what_the_class_refuses_costs_the_total_nothing_and_the_other_way_round() {
        let mut limits = Limits::new(&bandwidth(Some("1Mbit/s"), "1Mbit/s"));
        let mut passed = 0;
        while limits.take_bytes(1000, BULK, Way::Up, at(0)).is_ok() {
            passed += 1;
        }
        assert!(passed > 100);
        let before = limits.classes[0].up;
        // Both are empty; the class is told first, and neither got into debt by asking.
        assert_eq!(
            limits.take_bytes(1000, BULK, Way::Up, at(0)),
            Err(Exceeded(BULK))
        );
        assert_eq!(
            limits.take_bytes(1000, None, Way::Up, at(0)),
            Err(Exceeded(None))
        );
        assert_eq!(limits.classes[0].up, before);
        // The other way has buckets of its own.
        assert_eq!(limits.take_bytes(1000, BULK, Way::Down, at(0)), Ok(()));
    }

    #[test]
    fn nothing_is_limited_where_policy_says_nothing() {
        let mut limits = Limits::new(&Bandwidth::default());
        for _ in 0..10_000 {
            assert_eq!(limits.take_bytes(65_535, BULK, Way::Up, at(0)), Ok(()));
        }
    }

    #[test]
    fn the_longest_super_packet_passes_the_slowest_bucket() {
        let mut limits = Limits::new(&bandwidth(None, "16kbit/s"));
        let longest = 65_535 + 122 * 80;
        assert_eq!(limits.take_bytes(longest, BULK, Way::Up, at(0)), Ok(()));
    }
}
