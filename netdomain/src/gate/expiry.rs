//! The end of a policy's time, on two clocks.

use std::time::Duration;

use jiff::Timestamp;
use sekisho_policy::{Policy, Verified};

use crate::moment::Moment;

/// When the policy in force ends. The wall clock may say so at any time; the clock that nobody can
/// set says so at the latest, so that turning the wall clock back wins nothing while the gate
/// serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    wall: Duration,
    latest: Moment,
}

impl Expiry {
    /// Of `policy`, at `wall` since 1970 and `now`.
    pub(super) fn of(policy: &Verified<Policy>, wall: Duration, now: Moment) -> Self {
        // To the nanosecond, as it was judged at the start: a gate that ended for its policy's age
        // must not find that policy in force when it is started again.
        let since_1970 =
            |time: Timestamp| Duration::try_from(time.as_duration()).unwrap_or_default();
        let expires = since_1970(policy.policy.expires);
        let floor = since_1970(policy.floor().time);
        Self::new(expires, floor, wall, now)
    }

    fn new(expires: Duration, floor: Duration, wall: Duration, now: Moment) -> Self {
        Self {
            wall: expires,
            latest: now + expires.saturating_sub(wall.max(floor)),
        }
    }

    /// Whether the policy has ended.
    pub(super) fn is_over(&self, wall: Duration, now: Moment) -> bool {
        wall >= self.wall || now >= self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    const fn at(count: u64) -> Moment {
        Moment::from_boot(seconds(count))
    }

    #[test]
    fn t32_turning_the_clock_back_wins_no_time() {
        // An hour is left; the laptop has been up for ten seconds.
        let expiry = Expiry::new(seconds(1_003_600), seconds(0), seconds(1_000_000), at(10));
        assert!(!expiry.is_over(seconds(1_003_599), at(3609)));
        assert!(expiry.is_over(seconds(1_003_600), at(3609)));
        assert!(expiry.is_over(seconds(500_000), at(3610)), "set back");
        assert!(expiry.is_over(seconds(2_000_000), at(11)), "set forward");
    }

    #[test]
    fn t32_a_clock_below_the_floor_counts_from_the_floor() {
        let expiry = Expiry::new(seconds(1_003_600), seconds(1_000_000), seconds(0), at(10));
        assert!(!expiry.is_over(seconds(3599), at(3609)));
        assert!(expiry.is_over(seconds(3600), at(3610)));
    }
}
