//! A token bucket.

use std::time::Duration;

/// So many at once, then one in each period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    burst: u32,
    every: Duration,
    left: u32,
    filled: Duration,
}

impl Bucket {
    /// A full one.
    pub(crate) const fn new(burst: u32, every: Duration, now: Duration) -> Self {
        Self {
            burst,
            every,
            left: burst,
            filled: now,
        }
    }

    fn fill(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.filled).as_nanos() / self.every.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.burst);
            // What is left of a period counts towards the next token, unless the bucket is full.
            self.filled = if self.left == self.burst {
                now
            } else {
                self.filled + self.every.saturating_mul(earned)
            };
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// When there will be a token; `None` if there is one now.
    pub(crate) fn empty_until(&self, now: Duration) -> Option<Duration> {
        let mut copy = *self;
        copy.fill(now);
        (copy.left == 0).then(|| copy.filled + copy.every)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No more than the burst and what time has earned, and never stuck.
        #[test]
        fn gives_what_it_may(steps in proptest::collection::vec(0u64..400, 1..200)) {
            let every = Duration::from_millis(250);
            let mut bucket = Bucket::new(4, every, Duration::ZERO);
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                let at = Duration::from_millis(now);
                match bucket.empty_until(at) {
                    None => prop_assert!(bucket.take(at)),
                    Some(due) => {
                        prop_assert!(due > at && due <= at + every);
                        prop_assert!(!bucket.take(at));
                        continue;
                    }
                }
                taken += 1;
                prop_assert!(taken <= 4 + now / 250);
            }
        }
    }
}
