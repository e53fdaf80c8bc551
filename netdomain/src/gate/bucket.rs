//! Token buckets: so much of something in a while, and a burst.
//!
//! A bucket is kept as the time at which it will be full again (the virtual scheduling algorithm of
//! ITU-T I.371, annex A): one addition and one comparison each time, no timer, and nothing to top
//! up while nobody asks.

use std::time::Duration;

use crate::moment::Moment;

/// One token bucket. Over any interval it gives at most the rate's worth and one burst; and whoever
/// always wants more gets the rate's worth but for the one piece that does not fit yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Tokens that drip in `period`.
    tokens: u64,
    /// In nanoseconds.
    period: u64,
    /// Time that an empty bucket takes to fill.
    depth: Duration,
    /// When it will be full. Not after now: it is full.
    full_at: Moment,
}

impl Bucket {
    /// A full bucket for `burst` tokens, into which `tokens` drip in each `period`.
    pub(super) fn new(tokens: u64, period: Duration, burst: u64) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let tokens = tokens.max(1);
        // Rounded down: the burst may be a bit smaller than said, never larger.
        let depth = burst.saturating_mul(period) / tokens;
        Self {
            tokens,
            period,
            depth: Duration::from_nanos(depth),
            full_at: Moment::default(),
        }
    }

    /// When the bucket will be full if `tokens` are taken out of it now; `None` if it does not hold
    /// them.
    pub(super) fn after(&self, tokens: u64, now: Moment) -> Option<Moment> {
        // Rounded up, so that rounding never adds up to more than the rate. What does not fit 64
        // bits is more than any bucket holds.
        let cost = tokens.saturating_mul(self.period).div_ceil(self.tokens);
        let full_at = self.full_at.max(now) + Duration::from_nanos(cost);
        (full_at.since(now) <= self.depth).then_some(full_at)
    }

    /// Takes out what [`Bucket::after`] was asked about.
    pub(super) const fn settle(&mut self, full_at: Moment) {
        self.full_at = full_at;
    }

    /// Takes `tokens` out, if the bucket holds them.
    pub(super) fn take(&mut self, tokens: u64, now: Moment) -> bool {
        let after = self.after(tokens, now);
        if let Some(full_at) = after {
            self.settle(full_at);
        }
        after.is_some()
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    reason = "the figures of a test are far below 2^52"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens of one attempt at most, and so the smallest bucket here: as for a super-packet.
    const PIECE: u64 = 65_535 * 8;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = Moment::from_boot(Duration::from_secs(1));
        let mut bucket = Bucket::new(1, Duration::from_millis(10), 3);
        let given = (0..9).filter(|_| bucket.take(1, start)).count();
        assert_eq!(given, 3);
        assert!(!bucket.take(1, start + Duration::from_millis(9)));
        assert!(bucket.take(1, start + Duration::from_millis(10)));
        assert!(!bucket.take(1, start + Duration::from_millis(10)));
        let later = start + Duration::from_hours(1);
        assert_eq!((0..9).filter(|_| bucket.take(1, later)).count(), 3);
        assert!(!bucket.take(u64::MAX, start + Duration::from_hours(9)));
    }

    proptest! {
        #[test]
        fn a_bucket_gives_its_rate_over_any_interval(
            rate in 16_000u64..100_000_000,
            attempts in prop::collection::vec((1..PIECE, 0u64..200_000_000), 1..300),
        ) {
            let mut bucket = Bucket::new(rate, Duration::from_secs(1), 2 * PIECE);
            let rate = rate as f64;
            let burst = 2.0 * PIECE as f64;
            // Doubles are good to some hundred nanoseconds here.
            let slack = rate * 1e-6 + 1.0;
            let mut now = 1_000_000_000_000u64;
            let mut given = 0.0;
            // Time, tokens given before and after, whether refused.
            let mut seen: Vec<(f64, f64, f64, bool)> = Vec::new();
            for (tokens, pause) in attempts {
                now += pause;
                let before = given;
                let taken = bucket.take(tokens, Moment::from_boot(Duration::from_nanos(now)));
                if taken {
                    given += tokens as f64;
                }
                seen.push((now as f64 / 1e9, before, given, !taken));
            }
            for (at, first) in seen.iter().enumerate() {
                for last in &seen[at..] {
                    let time = last.0 - first.0;
                    prop_assert!(last.2 - first.1 <= rate * time + burst + slack);
                }
            }
            // From one refusal to another, unless the bucket could run full between them.
            let refusals: Vec<_> = seen.iter().filter(|entry| entry.3).collect();
            for pair in refusals.windows(2) {
                let time = pair[1].0 - pair[0].0;
                if rate * time < PIECE as f64 {
                    let through = pair[1].1 - pair[0].2;
                    prop_assert!(through >= rate * time - PIECE as f64 - slack);
                }
            }
        }
    }
}
