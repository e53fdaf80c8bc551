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
    last: Option<Subject>,
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
}

impl Counters {
    /// Counters for the built-in rules and `policy` more.
    pub fn new(policy: usize, now: Moment) -> Self {
        let fresh = Counter {
            total: 0,
            unreported: 0,
            last: None,
            tokens: BURST,
            filled: now,
        };
        Self {
            rules: vec![fresh; Rule::BUILT_IN + policy],
        }
    }

    /// Counts a refusal; returns it if it is to be reported now.
    pub fn refused(&mut self, refusal: &Refusal, now: Moment) -> Option<Sample> {
        let counter = self.rules.get_mut(refusal.rule.index())?;
        counter.total += 1;
        counter.unreported += 1;
        let earned = now.since(counter.filled).as_millis() / EVERY.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            counter.tokens = counter.tokens.saturating_add(earned).min(BURST);
            counter.filled = now;
        }
        // The same again is told once a second, something new at once while the burst lasts.
        let same = counter.last == Some(refusal.subject);
        if counter.tokens == 0 || (same && earned == 0) {
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

    /// Refusals by `rule` since the gate began.
    pub fn total(&self, rule: Rule) -> u64 {
        self.rules
            .get(rule.index())
            .map_or(0, |counter| counter.total)
    }
}
