//! The way that is in use: how it is taken, kept, asked about, left, and tried for a better one.

use std::time::Duration;

use sekisho_control::PathId;

use super::liveness::Liveness;
use super::paths::{Better, PathInfo, Proof};
use super::{Action, GatewayId, Machine, Reason};
use crate::moment::Moment;

/// A handshake without an answer is repeated after this time.
const REPEAT: Duration = Duration::from_millis(500);
/// Handshakes on one path before another one is tried.
const TRIES: u8 = 3;
/// After a change of path the gateway is told at once, and twice more, as the first may be lost.
const KICKS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(60),
];
/// `REJECT_AFTER_TIME`: nothing sealed with an older session is accepted by anyone.
pub(super) const REJECT: Duration = Duration::from_mins(3);

/// Handshakes that wait for an answer over one path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) path: PathId,
    pub(super) tries: u8,
    /// The last handshake.
    pub(super) asked: Moment,
    pub(super) next: Moment,
}

impl Attempt {
    /// From the handshake to an answer now, if there was but one.
    fn round_trip(&self, now: Moment) -> Option<Duration> {
        (self.tries == 1).then(|| now.since(self.asked))
    }
}

/// The way that is in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) path: PathId,
    /// What the tunnel lives on.
    pub(super) proof: Proof,
    /// How many kicks have been sent since it was taken.
    pub(super) kicks: usize,
    pub(super) life: Liveness,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Closed(Reason),
    Open(Way),
}

impl Machine {
    pub(super) fn way_deadline(&self, way: &Way) -> Moment {
        let life = &way.life;
        let session = self.session.map_or(life.taken(), |(_, since)| since);
        let mut due = life.next_question(session).min(session + REJECT);
        if let Some(pause) = KICKS.get(way.kicks) {
            due = due.min(life.taken() + *pause);
        }
        let dead = life
            .silent_since()
            .map(|since| since + self.timings.dead_after);
        let ends = [life.lost_at(), dead].into_iter().flatten();
        ends.filter(|&end| end > self.done).fold(due, Moment::min)
    }

    pub(super) fn sent(&mut self, now: Moment) {
        if let Phase::Open(way) = &mut self.phase {
            way.life.sent(now);
        }
    }

    pub(super) fn heard(
        &mut self,
        path: PathId,
        handshake: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        // Words over a path that is gone may still be read, but prove nothing; of an engine's tunnel
        // the engine alone says whether it lives.
        let Some(gateway) = self.paths.heard(path) else {
            return;
        };
        let tried = self.attempt.is_some_and(|attempt| attempt.path == path);
        if !tried && self.is_with_another(gateway) {
            // It answers late, after all; the tunnel is another gateway's by now.
            return;
        }
        if handshake || self.session.is_none_or(|(with, _)| with != gateway) {
            if let Some((with, _)) = self.session
                && with != gateway
                && !handshake
            {
                return;
            }
            self.session = Some((gateway, now));
        }
        if handshake {
            self.paths.answered(gateway);
        }
        if let Phase::Open(way) = &mut self.phase
            && way.path == path
        {
            way.life.heard(handshake, now);
        }
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.path == path) {
            let life = Liveness::new(now, true, attempt.round_trip(now));
            self.take(path, life, actions);
        } else if matches!(self.phase, Phase::Closed(_)) && self.usable(path, now) {
            // The far end began.
            self.take(path, Liveness::new(now, true, None), actions);
        }
    }

    /// Whether there is something to seal with for this path: a session with its gateway, which may
    /// go any way, or an engine's tunnel, which goes this one only.
    fn carried(&self, info: &PathInfo) -> bool {
        match info.proof {
            Proof::Handshake => self.session.is_some_and(|(with, _)| with == info.gateway),
            Proof::Engine => self.engaged.is_some_and(|engaged| engaged.carries(info.id)),
        }
    }

    /// Makes `path` the way, which needs something that carries it.
    pub(super) fn take(&mut self, path: PathId, life: Liveness, actions: &mut Vec<Action>) {
        let Some(info) = self.paths.info(path) else {
            return;
        };
        let proof = info.proof;
        if !self.carried(info) || !self.usable(path, life.taken()) {
            return;
        }
        self.paths.pardon_one(path);
        self.paths.used(path);
        self.phase = Phase::Open(Way {
            path,
            proof,
            kicks: 1,
            life,
        });
        if proof == Proof::Handshake {
            actions.push(Action::Kick(path));
        }
    }

    /// Whether the tunnel in use is one with another gateway.
    fn is_with_another(&self, gateway: GatewayId) -> bool {
        let Phase::Open(way) = self.phase else {
            return false;
        };
        let info = self.paths.info(way.path);
        info.is_some_and(|info| info.proof == Proof::Handshake && info.gateway != gateway)
    }

    /// Leaves a way that is gone, unusable, silent or without a session: for another path if the
    /// session may continue there, else the gate closes.
    pub(super) fn leave_bad_way(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let Phase::Open(way) = self.phase else {
            return;
        };
        if way.proof == Proof::Engine {
            let carries = self
                .engaged
                .is_some_and(|engaged| engaged.carries(way.path));
            if !carries || !self.usable(way.path, now) {
                self.close(Reason::Connecting);
            }
            return;
        }
        if self.session.is_none() {
            return self.close(Reason::Connecting);
        }
        let silence = way
            .life
            .silent_since()
            .map_or(Duration::ZERO, |since| now.since(since));
        let dead = silence >= self.timings.dead_after;
        let lost = way.life.lost_at().is_some_and(|at| now >= at);
        let lived = self.usable(way.path, now);
        if lived && !lost && !dead {
            return;
        }
        if lived {
            self.paths.condemn(way.path, now, &self.timings);
        }
        let gateway = self.session.map(|(with, _)| with);
        let next = self.refuge(Some(way.path), gateway, now);
        match next {
            Some(next) => {
                self.attempt = None;
                self.take(next, Liveness::new(now, false, None), actions);
            }
            // The only path: it is given all the time that policy allows.
            None if lived && !dead => {
                self.paths.pardon_one(way.path);
            }
            None => {
                let reason = if lived {
                    Reason::GatewaySilent
                } else {
                    Reason::Connecting
                };
                self.close(reason);
            }
        }
    }

    /// Kicks, questions and renewals on the way in use.
    pub(super) fn keep_way(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let session = self.session;
        let Phase::Open(way) = &mut self.phase else {
            return;
        };
        if way.proof == Proof::Engine {
            return;
        }
        while KICKS
            .get(way.kicks)
            .is_some_and(|pause| now >= way.life.taken() + *pause)
        {
            way.kicks += 1;
            actions.push(Action::Kick(way.path));
        }
        let since = session.map_or(way.life.taken(), |(_, since)| since);
        if now >= way.life.next_question(since) {
            way.life.ask(now);
            actions.push(Action::Initiate(way.path));
        }
    }

    /// The path that is to be tried by a handshake: the best while closed, a better one than that in use,
    /// or any other where that has fallen silent and its gateway has no other path.
    fn wanted(&self, now: Moment) -> Option<PathId> {
        let way = match self.phase {
            Phase::Closed(_) => return self.refuge(None, None, now),
            Phase::Open(way) => way,
        };
        let lost = way.life.lost_at().is_some_and(|at| now >= at);
        if way.proof == Proof::Handshake && lost {
            return self.refuge(Some(way.path), None, now);
        }
        self.better(way.path, now)
            .filter(|better| now >= better.from)
            .min_by_key(Better::order)
            .map(|better| better.info.id)
    }

    /// When a better path than the one in use is to be tried.
    pub(super) fn better_deadline(&self) -> Option<Moment> {
        let Phase::Open(way) = self.phase else {
            return None;
        };
        self.better(way.path, self.done)
            .map(|better| better.from)
            .filter(|from| *from > self.done)
            .min()
    }

    fn better(&self, used: PathId, now: Moment) -> impl Iterator<Item = Better<'_>> {
        let proven = move |port: &str| self.proofs.hold(port, now);
        self.paths
            .better(used, (now, self.standby), &self.timings, proven)
    }

    fn refuge(&self, from: Option<PathId>, with: Option<GatewayId>, now: Moment) -> Option<PathId> {
        self.paths
            .refuge(from, with, now, |port| self.proofs.hold(port, now))
    }

    /// Tries the path that is wanted by a handshake. The way in use stays until the gateway has answered
    /// over the new one.
    pub(super) fn attempt_better(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.asleep {
            return;
        }
        let mut wanted = self.wanted(now);
        if let Some(attempt) = self.attempt {
            if wanted != Some(attempt.path) {
                self.attempt = None;
            } else if now >= attempt.next && attempt.tries >= TRIES {
                self.paths.condemn(attempt.path, now, &self.timings);
                self.attempt = None;
                wanted = self.wanted(now);
            }
        }
        if self.attempt.is_none() {
            self.attempt = wanted.map(|path| Attempt {
                path,
                tries: 0,
                asked: now,
                next: now,
            });
        }
        if let Some(attempt) = &mut self.attempt
            && now >= attempt.next
        {
            attempt.tries += 1;
            attempt.asked = now;
            attempt.next = now + REPEAT;
            actions.push(Action::Initiate(attempt.path));
        }
    }
}
