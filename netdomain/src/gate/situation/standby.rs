//! Paths that wait: whether the gateway at their end lives, asked by a second key.
//!
//! A path that is not in use must not be asked with the laptop's own key: whatever a gateway
//! authenticates moves its answers there. The second key is another peer to the gateway, without an
//! address inside, so its handshake proves that path and gateway live and moves nothing.

use std::time::Duration;

use sekisho_control::{PathId, UplinkKind};

use super::paths::Proof;
use super::way::Phase;
use super::{Action, Machine};
use crate::moment::Moment;

/// A path is asked so often: a handshake is 0.4 ms of the gateway's time, so 1,000 laptops with two
/// waiting paths keep a sixth of one of its processors.
const PERIOD: Duration = Duration::from_secs(5);
/// Over a SIM: some 300 bytes each, 13 MiB a month.
const PERIOD_SIM: Duration = Duration::from_mins(1);
/// Without an answer it is asked again after this time.
const REPEAT: Duration = Duration::from_millis(500);
/// So many questions in a row without an answer, and the path is silent: a datagram or two are lost now
/// and then.
const MISSES: u8 = 3;
/// All paths together are asked no more often than this. A gateway takes 50 handshakes a second of one
/// key (`WireGuard`, `INITIATIONS_PER_SECOND`), and no two with the same time stamp.
const APART: Duration = Duration::from_millis(100);

/// What is known of a path that waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Questions since the last answer.
    unanswered: u8,
    /// It has answered each time since.
    since: Option<Moment>,
    /// When it is to be asked.
    next: Moment,
}

impl Health {
    /// It was in use and failed.
    pub(super) fn fail(&mut self, now: Moment) {
        *self = Self {
            unanswered: MISSES,
            since: None,
            next: now + REPEAT,
        };
    }

    /// When it is to be asked.
    pub(super) const fn due(&self) -> Moment {
        self.next
    }

    fn ask(&mut self, kind: UplinkKind, now: Moment) {
        let period = if kind == UplinkKind::Sim {
            PERIOD_SIM
        } else {
            PERIOD
        };
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= MISSES {
            self.since = None;
        }
        // An answer puts it off.
        self.next = now
            + if self.unanswered < MISSES {
                REPEAT
            } else {
                period
            };
    }

    fn answered(&mut self, kind: UplinkKind, now: Moment) {
        self.unanswered = 0;
        self.since.get_or_insert(now);
        self.next = now
            + if kind == UplinkKind::Sim {
                PERIOD_SIM
            } else {
                PERIOD
            };
    }

    /// It was asked in vain.
    pub(super) const fn is_silent(&self) -> bool {
        self.unanswered >= MISSES
    }

    /// Since when it has answered each time.
    pub(super) const fn since(&self) -> Option<Moment> {
        self.since
    }
}

impl Machine {
    /// The same machine, with a second key to ask the paths that wait, or without.
    #[must_use]
    pub fn with_standby(self, standby: bool) -> Self {
        Self { standby, ..self }
    }

    /// The gateway answered the second key over this path.
    pub(super) fn checked(&mut self, path: PathId, now: Moment) {
        if let Some((kind, health)) = self.paths.health(path) {
            health.answered(kind, now);
            // It may be taken again, whatever went wrong with it before.
            self.paths.lives(path);
        }
    }

    /// Asks the next path that is due.
    pub(super) fn check_standbys(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.asked_standby.is_some_and(|at| now < at + APART) {
            return;
        }
        let Some((path, due)) = self.next_standby() else {
            return;
        };
        if now >= due
            && let Some((kind, health)) = self.paths.health(path)
        {
            health.ask(kind, now);
            self.asked_standby = Some(now);
            actions.push(Action::Check(path));
        }
    }

    /// When a path that waits is to be asked.
    pub(super) fn standby_deadline(&self) -> Option<Moment> {
        let (_, due) = self.next_standby()?;
        let earliest = self.asked_standby.map_or(due, |at| at + APART);
        Some(due.max(earliest))
    }

    /// Of the paths that wait while another one is in use, the first that is due.
    fn next_standby(&self) -> Option<(PathId, Moment)> {
        let Phase::Open(way) = self.phase else {
            return None;
        };
        if !self.standby || self.asleep {
            return None;
        }
        let tried = self.attempt.map(|attempt| attempt.path);
        self.paths
            .of(Proof::Handshake, |port| self.proofs.hold(port, self.done))
            .filter(|(info, _)| info.id != way.path && Some(info.id) != tried)
            .map(|(info, health)| (info.id, health.due()))
            .min_by_key(|(_, due)| *due)
    }
}
