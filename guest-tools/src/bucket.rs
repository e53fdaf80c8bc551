//! A limit on how often something may happen because the other side wants it.

use std::time::Duration;

/// Lets a burst through and then one per interval; counts what it does not let through.
#[derive(Debug)]
pub(crate) struct Bucket {
    left: u32,
    burst: u32,
    every: Duration,
    filled: Duration,
    refused: u64,
}

impl Bucket {
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self {
            left: burst,
            burst,
            every,
            filled: Duration::ZERO,
            refused: 0,
        }
    }

    /// Whether it may happen now.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        while self.left < self.burst && self.filled + self.every <= now {
            self.left += 1;
            self.filled += self.every;
        }
        if self.left == self.burst {
            self.filled = now;
        }
        if self.left == 0 {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.left -= 1;
        true
    }

    /// How often it was refused since this was last asked.
    pub(crate) fn refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let mut bucket = Bucket::new(3, Duration::from_secs(1));
        let at = Duration::from_millis;
        let passed = (0..10).filter(|_| bucket.take(at(5000))).count();
        assert_eq!((passed, bucket.refused()), (3, 7));
        assert!(!bucket.take(at(5900)));
        assert!(bucket.take(at(6000)));
        assert!(!bucket.take(at(6100)));
        assert!((0..5).filter(|_| bucket.take(at(100_000))).count() == 3);
    }
}
