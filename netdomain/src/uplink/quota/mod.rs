//! The monthly quota of the SIM: how much was used, and what follows from it. Pure; the clock and
//! the interface's counter are given.
//!
//! Whatever goes wrong counts as more used, never as less: a clock that went back keeps the month
//! that was begun, an interface that is not the known one counts from its first byte, and a record
//! that is damaged counts as a quota that is spent. A clock that is set forward begins the next
//! month early, and then that month only ends when it really does: over time nobody gains a byte.

mod calendar;
mod record;

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use sekisho_control::QuotaState;
use sekisho_policy::{OverQuota, Quota};

pub(crate) use record::{Kept, RecordError, UsageFile, fuzz};

/// Interfaces that are remembered. Each time that a modem is plugged in it is another one; beyond
/// this all are forgotten, and count from their first byte again.
const MAX_INTERFACES: usize = 64;

/// The month that a reset day divides, and how much of it was used.
#[derive(Debug)]
pub(crate) struct Account {
    quota: Quota,
    /// First day of the month that is counted.
    month: Date,
    used: u64,
    /// Interfaces of this boot, and how far their counters were read.
    read: BTreeMap<u32, u64>,
    /// The one that moved something last, which is kept.
    last: Option<Mark>,
    told: (u8, QuotaState),
}

/// An interface of this boot and how far its counter was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Interface index.
    pub(crate) index: u32,
    /// Bytes received and sent since the interface exists.
    pub(crate) bytes: u64,
}

/// What may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// Everything.
    Full,
    /// Slowly.
    Slow,
    /// Nothing.
    Nothing,
}

/// Something that the person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    /// Bytes used this month.
    pub(crate) used: u64,
    /// Whole percent of the quota, at most 100.
    pub(crate) percent: u8,
    /// What follows.
    pub(crate) state: QuotaState,
}

impl Account {
    /// Goes on from what was kept; `None` where nothing ever was. `boot` names the running boot.
    pub(crate) fn new(quota: Quota, kept: Option<Kept>, boot: [u8; 16], now: Timestamp) -> Self {
        let month = calendar::month(calendar::today(now), quota.resets);
        let mut account = Self {
            quota,
            month,
            used: 0,
            read: BTreeMap::new(),
            last: None,
            told: (0, QuotaState::Within),
        };
        match kept {
            None => {}
            Some(Kept::Damaged) => account.used = account.quota.monthly,
            Some(Kept::Usage(usage)) => {
                account.month = usage.month;
                account.used = usage.used;
                // Counters begin anew with each boot.
                account.last = usage.last.filter(|_| usage.boot == boot);
                account
                    .read
                    .extend(account.last.map(|mark| (mark.index, mark.bytes)));
            }
        }
        account.turn_month(now);
        account
    }

    /// Counts what an interface has moved since it was last looked at.
    pub(crate) fn count(&mut self, mark: Mark, now: Timestamp) {
        self.turn_month(now);
        if self.read.len() > MAX_INTERFACES {
            self.read.clear();
        }
        let before = self.read.insert(mark.index, mark.bytes);
        let known = before.filter(|before| *before <= mark.bytes);
        let fresh = mark.bytes - known.unwrap_or(0);
        self.used = self.used.saturating_add(fresh);
        if fresh > 0 {
            self.last = Some(mark);
        }
    }

    /// A month that has begun is never left for an earlier one, whatever the clock says.
    fn turn_month(&mut self, now: Timestamp) {
        let month = calendar::month(calendar::today(now), self.quota.resets);
        if month > self.month {
            self.month = month;
            self.used = 0;
        }
    }

    /// What may pass now.
    pub(crate) fn allowance(&self) -> Allowance {
        match self.quota.over {
            _ if self.used < self.quota.monthly => Allowance::Full,
            OverQuota::Throttle { .. } => Allowance::Slow,
            OverQuota::Refuse => Allowance::Nothing,
        }
    }

    /// News since the last call: another whole percent, or another state.
    pub(crate) fn news(&mut self) -> Option<News> {
        let percent = self.percent();
        let state = match self.allowance() {
            Allowance::Slow => QuotaState::Throttled,
            Allowance::Nothing => QuotaState::Refused,
            Allowance::Full if self.quota.warn_percent.iter().any(|w| percent >= *w) => {
                QuotaState::Warned
            }
            Allowance::Full => QuotaState::Within,
        };
        let told = (percent, state);
        (std::mem::replace(&mut self.told, told) != told).then_some(News {
            used: self.used,
            percent,
            state,
        })
    }

    fn percent(&self) -> u8 {
        let percent = u128::from(self.used) * 100 / u128::from(self.quota.monthly.max(1));
        u8::try_from(percent).unwrap_or(100).min(100)
    }

    /// The quota in bytes.
    pub(crate) fn monthly(&self) -> u64 {
        self.quota.monthly
    }

    /// What is to be kept.
    pub(crate) fn usage(&self, boot: [u8; 16]) -> record::Usage {
        record::Usage {
            month: self.month,
            used: self.used,
            boot,
            last: self.last,
        }
    }
}

#[cfg(test)]
mod tests;
