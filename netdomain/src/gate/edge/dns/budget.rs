//! How much may be asked and answered: bounds on a tunnel made of names (T45).
//!
//! A tunnel carries data out in names that nobody asked before, and data in with answers. A person's
//! programs ask few names, again and again. So names cost the bytes in front of their domain the
//! first time, and nothing while they are remembered; answers cost their bytes; types that hold
//! free text cost extra. All of it is counted by domain, because a tunnel needs one domain's server.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::domains::Place;
use crate::gate::bucket::Bucket;
use crate::moment::Moment;

const MINUTE: Duration = Duration::from_mins(1);
/// Questions in a burst, and each second: enough for a browser, too slow to carry data out at
/// leisure in the choice among names that are remembered (ten bits each).
const QUESTIONS: (u64, u64) = (200, 50);
/// Bytes of new names in a burst, and each minute: two hundred names of ten letters when the person
/// logs on, a hundred each minute after that. A tunnel gets 136 bit/s of base 256 out of it.
const NAMES: (u64, u64) = (2048, 1024);
/// Bytes of answers in a burst, and each minute: six hundred ordinary answers, then some three
/// hundred. A tunnel gets 4.4 kbit/s.
const ANSWERS: (u64, u64) = (64 * 1024, 32 * 1024);
/// Questions for free text in a burst, and each minute. Mail servers ask such; a work OS asks now
/// and then, to find a service.
const BULKY: (u64, u64) = (10, 10);
/// Names that are remembered; 24 bytes each. A city's intranet has some hundreds.
const REMEMBERED: usize = 1024;
/// How long a name is remembered: a working day's pauses.
const MEMORY: Duration = Duration::from_hours(1);

/// The budget of one domain.
#[derive(Debug, Clone, Copy)]
struct Spending {
    names: Bucket,
    answers: Bucket,
    bulky: Bucket,
}

/// All budgets.
pub(super) struct Budget {
    questions: Bucket,
    domains: Vec<Spending>,
    /// Names that were paid for, as hashes keyed by a secret of this process, and until when; each
    /// has one place, and who comes later takes it.
    known: Vec<(u64, Moment)>,
    hash: RandomState,
}

impl Budget {
    /// Full budgets for so many domains.
    pub(super) fn new(domains: usize) -> Self {
        let per = |(burst, tokens), period| Bucket::new(tokens, period, burst);
        let spending = Spending {
            names: per(NAMES, MINUTE),
            answers: per(ANSWERS, MINUTE),
            bulky: per(BULKY, MINUTE),
        };
        Self {
            questions: per(QUESTIONS, Duration::from_secs(1)),
            domains: vec![spending; domains],
            known: vec![(0, Moment::default()); REMEMBERED],
            hash: RandomState::new(),
        }
    }

    /// Pays for a question, whatever it asks.
    pub(super) fn question(&mut self, now: Moment) -> bool {
        self.questions.take(1, now)
    }

    /// Pays for this lower-case name and type, if they are new.
    pub(super) fn name(
        &mut self,
        name: &[u8],
        number: u16,
        place: Place,
        bulky: bool,
        now: Moment,
    ) -> bool {
        let Some(spending) = self.domains.get_mut(place.domain) else {
            return false;
        };
        if bulky && !spending.bulky.take(1, now) {
            return false;
        }
        let hash = self.hash.hash_one((name, number));
        // Below REMEMBERED, so the cast loses nothing.
        let slot = usize::try_from(hash % REMEMBERED as u64).unwrap_or(0);
        let (held, until) = self.known[slot];
        if held != hash || until <= now {
            // The domain's own name is no longer than nothing, but not free.
            if !spending.names.take(place.front.max(1) as u64, now) {
                return false;
            }
            self.known[slot] = (hash, now + MEMORY);
        }
        true
    }

    /// Pays for an answer's bytes.
    pub(super) fn answer(&mut self, domain: usize, bytes: usize, now: Moment) -> bool {
        let spending = self.domains.get_mut(domain);
        spending.is_some_and(|spending| spending.answers.take(bytes as u64, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        domain: 0,
        front: 10,
    };
    const A: u16 = 1;

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(1000 + seconds))
    }

    #[test]
    fn a_name_costs_once() {
        let mut budget = Budget::new(1);
        let paid = |budget: &mut Budget, name: String, seconds| {
            budget.name(name.as_bytes(), A, PLACE, false, at(seconds))
        };
        let new = (0..1000).filter(|n| paid(&mut budget, format!("new-{n}"), 0));
        assert_eq!(new.count(), 204);
        // The last ones are surely remembered still, and go on for nothing.
        for _ in 0..10_000 {
            assert!(paid(&mut budget, "new-203".to_owned(), 1));
        }
        assert!(!paid(&mut budget, "another".to_owned(), 0));
        // After an hour nobody remembers, and the budget is full again.
        assert!(paid(&mut budget, "another".to_owned(), 3601));
    }

    /// A hundred kibibytes in an hour is what a tunnel gets out at the very most.
    #[test]
    fn t45_an_hour_of_new_names_carries_little() {
        let mut budget = Budget::new(1);
        let mut carried = 0;
        for number in 0..360_000u32 {
            let place = Place {
                domain: 0,
                front: 200,
            };
            let now = at(u64::from(number) / 100);
            if budget.name(&number.to_be_bytes(), A, place, false, now) {
                carried += 200;
            }
        }
        assert!(carried <= 2048 + 60 * 1024, "{carried}");
        assert!(carried >= 59 * 1024, "{carried}: starved");
    }

    #[test]
    fn t45_free_text_is_rare() {
        let mut budget = Budget::new(1);
        let asked = (0..3600).filter(|second| budget.name(b"same", 16, PLACE, true, at(*second)));
        assert!((600..=610).contains(&asked.count()));
    }

    #[test]
    fn domains_do_not_pay_for_each_other() {
        let mut budget = Budget::new(2);
        while budget.answer(0, 1000, at(0)) {}
        assert!(!budget.answer(0, 1000, at(0)));
        assert!(budget.answer(1, 1000, at(0)));
        assert!(!budget.answer(2, 1, at(0)), "no such domain");
    }
}
