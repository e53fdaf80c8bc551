//! Whether the gateway lives at the other end of the way in use.
//!
//! `WireGuard` says nothing when it has nothing to say, so silence alone proves nothing. But data that
//! nothing follows is reason to ask, and the one thing that a gateway always answers is a
//! handshake. A gateway that owes an answer for longer than its round trip explains is gone, or the
//! way to it is.

use std::time::Duration;

use crate::moment::Moment;

/// A question without an answer is repeated after this time, before the way is given up.
const REPEAT_FIRST: Duration = Duration::from_millis(200);
/// And again after this, where there is no other way: a gateway that comes back finds all its laptops
/// asking.
const REPEAT: Duration = Duration::from_millis(500);
/// A new way that brought nothing by then is asked by a handshake.
const CONFIRM: Duration = Duration::from_millis(300);
/// Data without any answer for so long is reason to ask the gateway whether it lives: longer than a
/// receiver may hold back an acknowledgement (RFC 1122, section 4.2.3.2: half a second at most, 40 to
/// 200 ms in fact).
const SILENCE: Duration = Duration::from_millis(300);
/// So many round trips are silence on a slow way.
const SILENT_TRIPS: u32 = 3;
/// A slow way is not given more than this.
const MOST_SILENCE: Duration = Duration::from_secs(1);
/// So long the answer to a question may take where the round trip is not known: that of a satellite
/// is 600 ms.
const ANSWER: Duration = Duration::from_secs(1);
/// And where it is known, at least.
const LEAST_ANSWER: Duration = Duration::from_millis(400);
/// So much longer where other things come: what we send may be lost now and then, and hardly so
/// often in a row.
const WHILE_HEARD: Duration = Duration::from_millis(600);
/// The round trip of a way that was taken without a question is measured after this time.
const MEASURE: Duration = Duration::from_millis(500);
/// Questions on a way that answers them come no closer than this, while anything else comes, too.
const ASK_FIRST: Duration = Duration::from_millis(500);
/// A stream that goes one way only is asked about more and more seldom, down to this.
const ASK_LAST: Duration = Duration::from_secs(5);
/// `REKEY_AFTER_TIME` (`WireGuard` whitepaper, section 6.1): the session is renewed also while idle.
const REKEY: Duration = Duration::from_mins(2);

/// A question that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Question {
    /// When it was first asked.
    first: Moment,
    /// How often.
    times: u32,
    /// Whether data was without an answer.
    silence: bool,
    /// Something else came since: the gateway lives, but may not hear us.
    heard: bool,
}

/// What is known of the gateway's life over one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liveness {
    /// When the way was taken.
    taken: Moment,
    /// The last sign of life since then.
    heard: Option<Moment>,
    /// The first data that nothing has followed from the gateway.
    unanswered: Option<Moment>,
    /// The last question.
    asked: Option<Moment>,
    /// What is still to be answered.
    owed: Option<Question>,
    /// The pause after an answered question.
    pause: Duration,
    /// From a question to its answer.
    round_trip: Option<Duration>,
}

impl Liveness {
    /// Of a way that is taken now. `heard`: it is taken because the gateway answered over it, after so
    /// long if that is known.
    pub(super) const fn new(now: Moment, heard: bool, round_trip: Option<Duration>) -> Self {
        Self {
            taken: now,
            heard: if heard { Some(now) } else { None },
            unanswered: None,
            asked: None,
            owed: None,
            pause: ASK_FIRST,
            round_trip,
        }
    }

    /// When the way was taken.
    pub(super) const fn taken(&self) -> Moment {
        self.taken
    }

    /// Data left.
    pub(super) fn sent(&mut self, now: Moment) {
        self.unanswered.get_or_insert(now);
    }

    /// The gateway was heard. `handshake`: it answered a question. Whatever else comes answers none:
    /// it may have been sent to a way that is cut in the other direction.
    pub(super) fn heard(&mut self, handshake: bool, now: Moment) {
        self.heard = Some(now);
        self.unanswered = None;
        if !handshake {
            self.pause = ASK_FIRST;
            if let Some(question) = &mut self.owed {
                question.heard = true;
            }
            return;
        }
        let Some(question) = self.owed.take() else {
            return;
        };
        // Which of several was answered is not known (Karn and Partridge, 1987).
        if question.times == 1 {
            self.round_trip = Some(now.since(question.first));
        }
        self.pause = if question.silence && !question.heard {
            (self.pause * 2).min(ASK_LAST)
        } else {
            ASK_FIRST
        };
    }

    /// A question leaves.
    pub(super) fn ask(&mut self, now: Moment) {
        self.asked = Some(now);
        let question = self.owed.get_or_insert(Question {
            first: now,
            times: 0,
            silence: self.unanswered.is_some(),
            heard: false,
        });
        question.times += 1;
    }

    /// Since when the gateway is silent although it should not be.
    pub(super) fn silent_since(&self) -> Option<Moment> {
        if self.heard.is_none() {
            Some(self.taken)
        } else {
            self.unanswered
        }
    }

    /// When the gateway is to be asked, with a session that began then.
    pub(super) fn next_question(&self, session: Moment) -> Moment {
        if let (Some(question), Some(asked)) = (self.owed, self.asked) {
            let first = question.times < 2;
            return asked + if first { REPEAT_FIRST } else { REPEAT };
        }
        let earliest = self.asked.map_or(self.taken, |at| at + self.pause);
        let stale = match (self.round_trip, self.asked) {
            (None, None) => (session + REKEY).min(self.taken + MEASURE),
            _ => session + REKEY,
        };
        let silent = match (self.heard, self.unanswered) {
            (None, _) => self.taken + CONFIRM,
            (Some(_), Some(since)) => since + self.silence(),
            (Some(_), None) => stale,
        };
        silent.min(stale).max(earliest)
    }

    /// When another way is better than this one, if no answer comes until then.
    pub(super) fn lost_at(&self) -> Option<Moment> {
        let question = self.owed?;
        let answer = self.round_trip.map_or(ANSWER, |trip| {
            (trip * SILENT_TRIPS).clamp(LEAST_ANSWER, ANSWER)
        });
        let more = if question.heard {
            WHILE_HEARD
        } else {
            Duration::ZERO
        };
        Some(question.first + answer + more)
    }

    fn silence(&self) -> Duration {
        let trips = self.round_trip.unwrap_or_default() * SILENT_TRIPS;
        trips.clamp(SILENCE, MOST_SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(millis))
    }

    fn alive() -> Liveness {
        Liveness::new(at(0), true, Some(Duration::from_millis(10)))
    }

    #[test]
    fn silence_is_noticed_within_a_second() {
        let mut way = alive();
        way.heard(false, at(9_000));
        way.sent(at(10_000));
        assert_eq!(way.next_question(at(0)), at(10_300));
        assert_eq!(way.lost_at(), None, "not before it was asked");
        way.ask(at(10_300));
        assert_eq!(way.next_question(at(0)), at(10_500));
        assert_eq!(way.lost_at(), Some(at(10_700)));
        way.heard(false, at(10_310));
        assert_eq!(way.lost_at(), Some(at(11_300)), "it may not hear us");
        assert_eq!(way.next_question(at(0)), at(10_500));
        way.heard(true, at(10_320));
        assert_eq!(way.lost_at(), None);
    }

    #[test]
    fn a_slow_way_is_given_time() {
        let mut way = Liveness::new(at(0), true, Some(Duration::from_millis(600)));
        way.sent(at(10_000));
        assert_eq!(way.next_question(at(0)), at(11_000));
        way.ask(at(11_000));
        assert_eq!(way.lost_at(), Some(at(12_000)));
        way.heard(true, at(11_020));
        way.sent(at(12_000));
        assert_eq!(way.next_question(at(0)), at(12_300), "it became quick");
    }

    #[test]
    fn a_stream_that_goes_one_way_is_asked_about_more_and_more_seldom() {
        let mut way = alive();
        let mut now = 10_000;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            way.sent(at(now));
            let asked = way.next_question(at(0));
            way.ask(asked);
            pauses.push(asked.since(at(now)).as_millis());
            way.heard(true, asked + Duration::from_millis(10));
            now = u64::try_from(asked.since_boot().as_millis()).unwrap() + 10;
        }
        assert_eq!(pauses, [300, 990, 1990, 3990, 4990, 4990]);
        way.heard(false, at(now));
        way.sent(at(now));
        let asked = way.next_question(at(0));
        assert_eq!(asked, at(now + 490), "and again as soon as something came");
    }

    #[test]
    fn an_unknown_round_trip_is_measured_once() {
        let mut way = Liveness::new(at(0), false, None);
        way.heard(false, at(20));
        assert_eq!(way.next_question(at(0)), at(500));
        way.ask(at(500));
        way.heard(true, at(530));
        assert_eq!(way.round_trip, Some(Duration::from_millis(30)));
        assert_eq!(way.next_question(at(0)), at(120_000));
    }

    #[test]
    fn which_question_was_answered_is_not_guessed() {
        let mut way = alive();
        way.sent(at(10_000));
        way.ask(at(10_300));
        way.ask(at(10_500));
        way.heard(true, at(10_510));
        assert_eq!(way.round_trip, Some(Duration::from_millis(10)));
    }
}
