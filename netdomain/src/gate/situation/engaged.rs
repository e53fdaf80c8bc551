//! The tunnel that an engine of its own is at: begun, up, ended.
//!
//! One at a time, and the last resort: it is begun only while the gate is closed and every path that a
//! handshake of ours could prove has had its turn in vain since the last one began. While it serves,
//! handshakes go on being tried, and the first that is answered takes over.
//!
//! Where the engine can take its tunnel to another path, it does so when the path is lost, or when the
//! gateway's LAN side is there, over a port that has just been proven. It does not for a path that is
//! only preferred: whether that one leads anywhere would show after the tunnel has left the other.

use std::time::Duration;

use sekisho_control::PathId;

use super::liveness::Liveness;
use super::way::Phase;
use super::{Action, GatewayId, Machine};
use crate::moment::Moment;

/// From the crash of an engine whose tunnel was up to its next beginning: the engine's own process may have
/// to be started first, which takes some 50 ms.
const AGAIN: Duration = Duration::from_millis(200);

/// A tunnel of an engine's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Engaged {
    pub(super) path: PathId,
    /// The gateway at its end.
    pub(super) gateway: GatewayId,
    /// When it must be up; none once it is.
    pub(super) until: Option<Moment>,
}

impl Engaged {
    /// Whether it is up, over this path.
    pub(super) fn carries(self, path: PathId) -> bool {
        self.path == path && self.until.is_none()
    }
}

impl Machine {
    /// The engine says that its tunnel is up. Taken only for what it was asked to begin.
    pub(super) fn engine_up(&mut self, path: PathId, now: Moment, actions: &mut Vec<Action>) {
        if self.engaged.is_none_or(|engaged| engaged.path != path) {
            return;
        }
        if !self.counts_as_up(path) {
            return self.engine_down(path, now, actions);
        }
        let Some(engaged) = &mut self.engaged else {
            return;
        };
        engaged.until = None;
        if matches!(self.phase, Phase::Closed(_)) {
            self.take(path, Liveness::new(now, true, None), actions);
        }
    }

    /// The engine says that its tunnel is down, or is gone itself.
    pub(super) fn engine_down(&mut self, path: PathId, now: Moment, actions: &mut Vec<Action>) {
        if self.engaged.is_some_and(|engaged| engaged.path == path) {
            self.attempt_failed(path, now);
            self.disengage(actions);
        }
    }

    /// The engine, or its program, was killed. What it did until then led somewhere: it goes on there at
    /// once. One that crashes again and again is held back as after any other failure: whoever can make it
    /// crash by a packet is not to try at the speed of its start.
    pub(super) fn engine_crashed(&mut self, path: PathId, now: Moment, actions: &mut Vec<Action>) {
        let served = self.engaged.is_some_and(|engaged| engaged.carries(path));
        self.engine_down(path, now, actions);
        let often = |excused: Moment| now < excused + self.timings.healthy_after;
        if served && !self.excused.is_some_and(often) {
            self.excused = Some(now);
            self.paths.excuse(path, now + AGAIN);
        }
    }

    /// Whether an engine is about to go on where it crashed, so that none begins elsewhere.
    fn goes_on(&self, now: Moment) -> bool {
        self.excused.is_some_and(|excused| now < excused + AGAIN)
    }

    /// What failed for want of the second factor is no fault of the path's.
    fn attempt_failed(&mut self, path: PathId, now: Moment) {
        if !self.factor_failed(path, now) {
            self.paths.condemn(path, now, &self.timings);
        }
    }

    /// Takes the engine's tunnel to where it can live: to another path if its own is gone or the LAN
    /// is better, else to its end.
    pub(super) fn follow_path(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let Some(engaged) = self.engaged else {
            return;
        };
        let usable = self.usable(engaged.path, now);
        let next = self
            .best_to(engaged.gateway, now)
            .filter(|&next| next != engaged.path)
            .filter(|&next| !usable || self.paths.is_lan(next))
            .filter(|_| engaged.until.is_none() && self.roaming.contains(&engaged.gateway));
        match next {
            Some(to) => {
                let from = engaged.path;
                self.engaged = Some(Engaged {
                    path: to,
                    ..engaged
                });
                if let Phase::Open(way) = &mut self.phase
                    && way.path == from
                {
                    way.path = to;
                }
                actions.push(Action::Move { from, to });
            }
            None if !usable => self.disengage(actions),
            None => {}
        }
    }

    /// The best path that an engine has to this gateway.
    fn best_to(&self, gateway: GatewayId, now: Moment) -> Option<PathId> {
        let proven = |port: &str| self.proofs.hold(port, now);
        self.paths.best_to(gateway, now, proven)
    }

    /// Ends what the engine is at, if it is at this path.
    pub(super) fn disengage_from(&mut self, path: PathId, actions: &mut Vec<Action>) {
        if self.engaged.is_some_and(|engaged| engaged.path == path) {
            self.disengage(actions);
        }
    }

    /// Ends what the engine is at.
    pub(super) fn disengage(&mut self, actions: &mut Vec<Action>) {
        if let Some(engaged) = self.engaged.take() {
            self.demands.withdraw(engaged.path);
            actions.push(Action::Disengage(engaged.path));
        }
    }

    /// The path to begin with: one of a gateway for which the person need not be left alone.
    fn best_engine(&self, now: Moment) -> Option<PathId> {
        self.paths.next_engine(
            now,
            |port| self.proofs.hold(port, now),
            |gateway| !self.demands.holds(gateway),
        )
    }

    /// Lets the engine begin where nothing else leads on, and end where it is not needed any more or
    /// did not get through in time.
    pub(super) fn keep_engine(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let open = match self.phase {
            Phase::Open(way) => Some(way.path),
            Phase::Closed(_) => None,
        };
        if let Some(engaged) = self.engaged {
            let late = engaged.until.is_some_and(|until| now >= until);
            if late {
                self.attempt_failed(engaged.path, now);
            }
            // What is up is the way in use, or of no use.
            let idle = match open {
                Some(path) => path != engaged.path,
                None => engaged.until.is_none(),
            };
            if late || idle {
                self.disengage(actions);
            }
        }
        let closed = open.is_none() && self.proofs.wire(now).is_none();
        let needed = closed && !self.asleep && self.engaged.is_none() && !self.goes_on(now);
        if needed
            && !self
                .paths
                .waits(self.began, now, |port| self.proofs.hold(port, now))
            && let Some(path) = self.best_engine(now)
            && let Some(gateway) = self.paths.info(path).map(|info| info.gateway)
        {
            self.engaged = Some(Engaged {
                path,
                gateway,
                until: Some(now + self.timings.up_within),
            });
            self.began = now;
            self.demands.entitle(gateway, actions);
            actions.push(Action::Engage(path));
        }
    }
}
