//! How often the memory is looked at for changes.
//!
//! A look costs a system call and write-protects what had changed. So there are as many as a screen
//! shows, and few where nothing happens.

use std::time::{Duration, Instant};

/// Between two looks while something changes: 60 a second.
pub const FRAME: Duration = Duration::from_nanos(16_666_667);
/// Between two looks while nothing does: five a second, and a picture that begins to move by itself
/// is at most this late. What a person's hand starts is not late at all: see [`Pace::hurry`].
pub const IDLE: Duration = Duration::from_millis(200);

/// When to look next.
#[derive(Debug)]
pub struct Pace {
    last: Option<Instant>,
    interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: None,
            interval: FRAME,
        }
    }
}

impl Pace {
    /// When the next look is due; at once if there was none yet.
    pub fn due(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| last + self.interval)
    }

    /// There was a look now, which found something or not.
    pub fn looked(&mut self, now: Instant, found: bool) {
        self.last = Some(now);
        self.interval = if found {
            FRAME
        } else {
            (self.interval * 2).min(IDLE)
        };
    }

    /// Something is about to happen.
    pub fn hurry(&mut self) {
        self.interval = FRAME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of a second in which something is found as `found` says.
    fn looks(pace: &mut Pace, from: Instant, found: bool) -> usize {
        let mut now = pace.due(from).max(from);
        let mut looks = 0;
        while now < from + Duration::from_secs(1) {
            pace.looked(now, found);
            looks += 1;
            now = pace.due(now);
        }
        looks
    }

    #[test]
    fn a_still_picture_costs_five_looks_a_second_and_a_moving_one_sixty() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert_eq!(looks(&mut pace, start, true), 60);
        // It slows down within the first second.
        assert!((5..=10).contains(&looks(&mut pace, start + second, false)));
        assert_eq!(looks(&mut pace, start + 2 * second, false), 5);
        pace.hurry();
        assert!(pace.due(start + 3 * second) <= start + 3 * second + FRAME);
        assert!((59..=61).contains(&looks(&mut pace, start + 3 * second, true)));
    }
}
