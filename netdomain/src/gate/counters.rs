//! Refusals are counted by rule; a sample of them is reported at a bounded rate.

use std::time::Duration;

use super::admit::{Refusal, Rule, Subject};
use crate::moment::Moment;

/// One report of a rule in this time.
const EVERY: Duration = Duration::from_secs(1);
/// Reports of different things by the same rule in a burst: a program that tries several forbidden
/// servers at once should be seen with each.
const BURST: u32 = 16;

#[derive(Debug, Clone, Copy)]
struct Counter {
    total: u64,
    unreported: u64,
    /// The last that was reported, and the last that was refused.
    last: Option<Subject>,
    latest: Option<Refusal>,
    tokens: u32,
    filled: Moment,
}

/// A refusal to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The rule.
    pub rule: Rule,
    /// The latest packet that it refused.
    pub subject: Subject,
    /// Refusals since the last report.
    pub count: u64,
}

/// Counters by rule.
#[derive(Debug)]
pub struct Counters {
    rules: Vec<Counter>,
    /// Whether some rule may have refusals that were not reported.
    waiting: bool,
    swept: Moment,
}

impl Counters {
    /// Counters for the built-in rules and `policy` more.
    pub fn new(policy: usize, now: Moment) -> Self {
        let fresh = Counter {
            total: 0,
            unreported: 0,
            last: None,
            latest: None,
            tokens: BURST,
            filled: now,
        };
        Self {
            rules: vec![fresh; Rule::BUILT_IN + policy],
            waiting: false,
            swept: now,
        }
    }

    /// Counts a refusal; returns it if it is to be reported now.
    pub fn refused(&mut self, refusal: &Refusal, now: Moment) -> Option<Sample> {
        let counter = self.rules.get_mut(refusal.rule.index())?;
        counter.total += 1;
        counter.unreported += 1;
        counter.latest = Some(*refusal);
        let earned = now.since(counter.filled).as_millis() / EVERY.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            counter.tokens = counter.tokens.saturating_add(earned).min(BURST);
            counter.filled = now;
        }
        // The same again is told once a second, something new at once while the burst lasts.
        let same = counter.last == Some(refusal.subject);
        if counter.tokens == 0 || (same && earned == 0) {
            self.waiting = true;
            return None;
        }
        counter.tokens -= 1;
        counter.last = Some(refusal.subject);
        let count = std::mem::take(&mut counter.unreported);
        Some(Sample {
            rule: refusal.rule,
            subject: refusal.subject,
            count,
        })
    }

    /// Gives `report` what was counted and never reported, so that the end of a burst is not kept
    /// back until the next one: at most once in a second, and at most [`BURST`] rules at once. What
    /// `report` does not take is given again.
    pub fn sweep(&mut self, now: Moment, mut report: impl FnMut(Sample) -> bool) {
        if !self.waiting || now.since(self.swept) < EVERY {
            return;
        }
        self.swept = now;
        let mut left = BURST;
        for counter in &mut self.rules {
            let Some(latest) = counter.latest.filter(|_| counter.unreported > 0) else {
                continue;
            };
            let sample = Sample {
                rule: latest.rule,
                subject: latest.subject,
                count: counter.unreported,
            };
            if left == 0 || !report(sample) {
                return;
            }
            left -= 1;
            counter.unreported = 0;
            counter.last = Some(latest.subject);
        }
        self.waiting = false;
    }

    /// Takes back a sample that could not be reported.
    pub fn take_back(&mut self, sample: &Sample) {
        if let Some(counter) = self.rules.get_mut(sample.rule.index()) {
            counter.unreported += sample.count;
            self.waiting = true;
        }
    }

    /// Refusals by `rule` since the gate began.
    pub fn total(&self, rule: Rule) -> u64 {
        self.rules
            .get(rule.index())
            .map_or(0, |counter| counter.total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::fixture::at;

    fn refusal(port: u16) -> Refusal {
        Refusal {
            rule: Rule::Closed,
            subject: Subject::Peer {
                protocol: sekisho_policy::Protocol::Tcp,
                peer: [10, 99, 0, 1].into(),
                port,
            },
        }
    }

    #[test]
    fn the_end_of_a_burst_is_told_a_second_later() {
        let mut counters = Counters::new(0, at(0));
        assert_eq!(
            counters.refused(&refusal(443), at(5)).map(|s| s.count),
            Some(1)
        );
        for _ in 0..100 {
            assert_eq!(counters.refused(&refusal(443), at(5)), None);
        }
        let mut told = Vec::new();
        counters.sweep(at(6), |sample| {
            told.push(sample.count);
            false
        });
        counters.sweep(at(7), |sample| {
            told.push(sample.count);
            true
        });
        counters.sweep(at(8), |_| panic!("all is told"));
        assert_eq!(told, [100, 100]);
    }

    proptest! {
        /// However it is sampled, and whatever the channel refuses, every refusal is told once.
        #[test]
        fn every_refusal_is_told_once(
            steps in proptest::collection::vec((0u16..4, 0u64..3, any::<bool>()), 0..300),
        ) {
            let mut counters = Counters::new(0, at(0));
            let (mut now, mut told) = (0, 0);
            for (port, pause, takes) in &steps {
                now += pause;
                if let Some(sample) = counters.refused(&refusal(*port), at(now)) {
                    if *takes {
                        told += sample.count;
                    } else {
                        counters.take_back(&sample);
                    }
                }
                counters.sweep(at(now), |sample| {
                    told += if *takes { sample.count } else { 0 };
                    *takes
                });
            }
            counters.sweep(at(now + 1), |sample| {
                told += sample.count;
                true
            });
            prop_assert_eq!(told, steps.len() as u64);
        }
    }
}
