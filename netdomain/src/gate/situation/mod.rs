//! Where the gate stands: [`Situation`], and the machine that moves it.
//!
//! Pure: events and the time go in, actions come out. It begins closed, and every failure, end of
//! file, suspension, jump of a clock and doubt leads back to closed. There is a way out only while
//! a live path leads to a gateway that has proven itself by a handshake.

mod direct;
mod engaged;
mod factor;
mod liveness;
mod paths;
mod premises;
#[cfg(test)]
mod tests;

use std::time::Duration;

use sekisho_control::{DemandId, PathId, Place, Side, UplinkKind, WireId};

use self::direct::{close_wires, end_proofs};
use self::engaged::Engaged;
use self::factor::Demands;
pub use self::factor::{Demanded, max_wrong};
use self::liveness::Liveness;
use self::paths::Paths;
pub use self::paths::{MAX_PATHS, PathInfo, Proof};
use self::premises::Proofs;
use super::admit::Scope;
use crate::moment::Moment;

/// Names a gateway by its place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(pub u8);

/// Where guest packets may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// Nowhere.
    Closed(Reason),
    /// Through the tunnel.
    Tunnelled {
        /// The gateway at its end.
        gateway: GatewayId,
        /// The path that carries it.
        path: PathId,
        /// What kind of uplink that path uses.
        kind: UplinkKind,
        /// Which side of the gateway it enters.
        side: Side,
        /// Where the laptop has proven to be.
        place: Place,
    },
    /// Onto the office LAN itself, over the port that holds the proof of being there.
    Direct {
        /// The wire of that port.
        wire: WireId,
    },
}

impl Situation {
    /// The circumstances under which policy decides; none while closed.
    pub const fn scope(&self) -> Option<Scope> {
        match *self {
            Self::Closed(_) => None,
            Self::Tunnelled { kind, place, .. } => Some(Scope {
                place,
                uplink: kind,
            }),
            Self::Direct { .. } => Some(Scope {
                place: Place::Office,
                uplink: UplinkKind::Wired,
            }),
        }
    }
}

/// Why there is no way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The gate has just begun.
    Started,
    /// No uplink leads to a gateway.
    NoPath,
    /// A handshake is under way.
    Connecting,
    /// The gateway does not answer any more.
    GatewaySilent,
    /// The uplink process is gone.
    UplinkGone,
    /// The laptop sleeps.
    Suspended,
    /// A clock jumped, or the laptop slept without telling us.
    Doubt,
    /// A gateway demands a second factor, and the person is being asked.
    SecondFactor,
    /// The second factor was not given, or not taken, and is not asked for at present.
    SecondFactorMissing,
}

impl Reason {
    /// The reason in plain words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::NoPath => "no uplink leads to a gateway",
            Self::Connecting => "waiting for the gateway's handshake",
            Self::GatewaySilent => "the gateway does not answer",
            Self::UplinkGone => "the uplink process is gone",
            Self::Suspended => "suspended",
            Self::Doubt => "the clock jumped or the laptop slept",
            Self::SecondFactor => "waiting for the second factor",
            Self::SecondFactorMissing => "the second factor is missing",
        }
    }
}

/// What happens to the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The uplink handed over a path whose peer policy names.
    PathUp(PathInfo),
    /// The path is gone.
    PathLost(PathId),
    /// The port has no carrier any more.
    CarrierLost(String),
    /// The gateway authenticated a datagram that came over this path.
    Heard {
        /// The path.
        path: PathId,
        /// Whether it completed a handshake that we began.
        handshake: bool,
    },
    /// Guest data left over the current path.
    Sent,
    /// The kernel refused to send over this path.
    SendFailed(PathId),
    /// The tunnel had no session to seal with.
    SessionGone,
    /// The engine of this path's tunnel says that the gateway has proven itself and the tunnel is
    /// up.
    EngineUp(PathId),
    /// The engine ended the tunnel of this path, or is itself gone.
    EngineDown(PathId),
    /// The engine of this path's tunnel needs the second factor.
    EngineAsks(PathId),
    /// The person answered this asking.
    Answered(DemandId),
    /// The person is there.
    AskAgain,
    /// The beacon was proven over this port.
    Proven(String),
    /// The proof over this port failed or ended.
    Disproven(String),
    /// The uplink handed over the wire of a port, of this kind.
    WireUp(WireId, String, UplinkKind),
    /// The wire is gone, or takes nothing any more.
    WireLost(WireId),
    /// The channel to the uplink process ended.
    UplinkGone,
    /// The laptop is about to sleep.
    Suspend,
    /// The laptop woke up.
    Resume,
    /// A clock jumped.
    Doubt,
    /// Time passed.
    Tick,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a handshake initiation over this path.
    Initiate(PathId),
    /// Send an empty authenticated packet over this path.
    Kick(PathId),
    /// Let the engine of this path's tunnel begin.
    Engage(PathId),
    /// Hand the person's answer to the engine of this path's tunnel.
    HandOver(PathId),
    /// Let the engine of this path's tunnel end; nothing is sent by it any more.
    Disengage(PathId),
    /// Forget every session with every gateway.
    ResetTunnels,
    /// Close the path's socket at once.
    Close(PathId),
    /// Read the path's socket a little longer, send nothing on it.
    Drain(PathId),
    /// Ask the uplink for a connection to the beacon over this port.
    Probe(String),
    /// Tell the uplink whether the proof over this port holds.
    Premises(String, bool),
    /// Ask the uplink for the wire of this proven port.
    AskWire(String),
    /// Close this wire at once.
    CloseWire(WireId),
    /// The situation changed.
    Report,
}

/// Times that policy gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// An engine that needs longer than this to bring its tunnel up has failed.
    pub up_within: Duration,
    /// Silence of a gateway after which the gate closes.
    pub dead_after: Duration,
    /// First pause before a failed path is tried again.
    pub retry_first: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// How often the proof of premises is renewed.
    pub recheck: Duration,
}

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
const REJECT: Duration = Duration::from_mins(3);

/// Handshakes that wait for an answer over one path.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    path: PathId,
    tries: u8,
    /// The last handshake.
    asked: Moment,
    next: Moment,
}

impl Attempt {
    /// From the handshake to an answer now, if there was but one.
    fn round_trip(&self, now: Moment) -> Option<Duration> {
        (self.tries == 1).then(|| now.since(self.asked))
    }
}

/// The way that is in use.
#[derive(Debug, Clone, Copy)]
struct Way {
    path: PathId,
    /// What the tunnel lives on.
    proof: Proof,
    /// How many kicks have been sent since it was taken.
    kicks: usize,
    life: Liveness,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed(Reason),
    Open(Way),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    timings: Timings,
    phase: Phase,
    paths: Paths,
    proofs: Proofs,
    attempt: Option<Attempt>,
    /// The tunnel that an engine is at.
    engaged: Option<Engaged>,
    /// What gateways demand of the person.
    demands: Demands,
    /// The gateway with which there is a session, and when its handshake was completed.
    session: Option<(GatewayId, Moment)>,
    /// Whether policy lets packets onto a proven wire without a tunnel.
    direct: bool,
    asleep: bool,
    told: Situation,
}

impl Machine {
    /// Closed, without paths. `seed` is to differ from laptop to laptop: it scatters their questions
    /// to the beacon.
    pub fn new(timings: Timings, seed: u64) -> Self {
        Self {
            timings,
            phase: Phase::Closed(Reason::Started),
            paths: Paths::default(),
            proofs: Proofs::new(timings.recheck, seed),
            attempt: None,
            engaged: None,
            demands: Demands::default(),
            session: None,
            direct: false,
            asleep: false,
            told: Situation::Closed(Reason::Started),
        }
    }

    /// The situation after the last event.
    pub const fn situation(&self) -> Situation {
        self.told
    }

    /// The path with this name, if it lives.
    pub fn path(&self, id: PathId) -> Option<&PathInfo> {
        self.paths.info(id)
    }

    /// Whether the last question to the beacon over this port found no office.
    pub fn unproven(&self, port: &str) -> bool {
        self.proofs.failed(port)
    }

    /// Moves by one event.
    pub fn handle(&mut self, event: Event, now: Moment, actions: &mut Vec<Action>) {
        match event {
            Event::Sent => return self.sent(now),
            Event::Heard { path, handshake } => self.heard(path, handshake, now, actions),
            Event::PathUp(info) => self.path_up(info, now, actions),
            Event::PathLost(id) => self.path_lost(id, Action::Drain(id), actions),
            Event::EngineUp(path) => self.engine_up(path, now, actions),
            Event::EngineDown(path) => self.engine_down(path, now, actions),
            Event::EngineAsks(path) => self.engine_asks(path, now, actions),
            Event::Answered(demand) => self.answered(demand, now, actions),
            Event::AskAgain => self.demands.ask_again(),
            Event::CarrierLost(port) => self.carrier_lost(&port, actions),
            Event::SendFailed(id) => {
                self.path_failed(id, now);
                self.disengage_from(id, actions);
            }
            Event::SessionGone => self.session_gone(now, actions),
            Event::Proven(port) => self.proven(port, now, actions),
            Event::Disproven(port) => self.disproven(&port, now, actions),
            Event::WireUp(wire, port, kind) => self.wire_up(wire, &port, kind, now, actions),
            Event::WireLost(wire) => self.wire_lost(wire, actions),
            Event::UplinkGone => self.drop_everything(Reason::UplinkGone, actions),
            Event::Suspend => {
                self.asleep = true;
                self.drop_everything(Reason::Suspended, actions);
            }
            Event::Resume => {
                self.asleep = false;
                self.demands.ask_again();
            }
            Event::Doubt => self.doubt(now, actions),
            Event::Tick => {}
        }
        self.advance(now, actions);
    }

    /// When the machine wants an [`Event::Tick`].
    pub fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let mut due = [
            self.attempt.map(|attempt| attempt.next),
            self.proofs.next_deadline(),
            self.paths.next_deadline(now),
            self.engaged.and_then(|engaged| engaged.until),
            self.demands.next_deadline(),
            None,
        ];
        if let Phase::Open(way) = self.phase
            && way.proof == Proof::Handshake
        {
            due[5] = Some(self.way_deadline(&way, now));
        }
        due.into_iter().flatten().min()
    }

    fn way_deadline(&self, way: &Way, now: Moment) -> Moment {
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
        ends.filter(|&end| end > now).fold(due, Moment::min)
    }

    fn sent(&mut self, now: Moment) {
        if let Phase::Open(way) = &mut self.phase {
            way.life.sent(now);
        }
    }

    fn heard(&mut self, path: PathId, handshake: bool, now: Moment, actions: &mut Vec<Action>) {
        // Words over a path that is gone may still be read, but prove nothing; of an engine's tunnel
        // the engine alone says whether it lives.
        let Some(gateway) = self.paths.heard(path) else {
            return;
        };
        if handshake || self.session.is_none_or(|(with, _)| with != gateway) {
            if let Some((with, _)) = self.session
                && with != gateway
                && !handshake
            {
                return;
            }
            self.session = Some((gateway, now));
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

    fn path_up(&mut self, info: PathInfo, now: Moment, actions: &mut Vec<Action>) {
        let id = info.id;
        if info.proof == Proof::Engine {
            self.demands.ask_again();
        }
        if self.asleep || !self.paths.add(info, now) {
            actions.push(Action::Close(id));
        }
    }

    fn path_lost(&mut self, id: PathId, farewell: Action, actions: &mut Vec<Action>) {
        self.disengage_from(id, actions);
        if self.paths.remove(id) {
            actions.push(farewell);
        }
    }

    fn carrier_lost(&mut self, port: &str, actions: &mut Vec<Action>) {
        for id in self.paths.on_port(port) {
            self.path_lost(id, Action::Close(id), actions);
        }
        // The uplink knows: it told us.
        close_wires(self.proofs.forget(port), actions);
    }

    fn session_gone(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if let Phase::Open(way) = self.phase
            && way.proof == Proof::Engine
        {
            self.engine_down(way.path, now, actions);
        }
        self.close(Reason::Connecting);
    }

    fn path_failed(&mut self, id: PathId, now: Moment) {
        self.paths.condemn(id, now, &self.timings);
    }

    fn proven(&mut self, port: String, now: Moment, actions: &mut Vec<Action>) {
        if self.asleep {
            return;
        }
        // What comes too late renews nothing.
        end_proofs(self.proofs.expire(now), actions);
        if self.proofs.begin(&port, now) {
            actions.push(Action::Premises(port.clone(), true));
        }
        self.ask_wire(port, now, actions);
    }

    fn disproven(&mut self, port: &str, now: Moment, actions: &mut Vec<Action>) {
        if !self.asleep {
            end_proofs(self.proofs.fail(port, now), actions);
        }
    }

    fn drop_everything(&mut self, reason: Reason, actions: &mut Vec<Action>) {
        for id in self.paths.clear() {
            actions.push(Action::Close(id));
        }
        close_wires(self.proofs.clear(), actions);
        self.disengage(actions);
        self.attempt = None;
        self.session = None;
        actions.push(Action::ResetTunnels);
        self.close(reason);
    }

    fn doubt(&mut self, now: Moment, actions: &mut Vec<Action>) {
        end_proofs(self.proofs.doubt(now), actions);
        self.disengage(actions);
        self.attempt = None;
        self.session = None;
        self.paths.pardon();
        actions.push(Action::ResetTunnels);
        self.close(Reason::Doubt);
    }

    fn close(&mut self, reason: Reason) {
        self.phase = Phase::Closed(reason);
    }

    /// Whether the path may carry the tunnel at all at present.
    fn usable(&self, id: PathId, now: Moment) -> bool {
        self.paths
            .usable(id, now, |port| self.proofs.hold(port, now))
    }

    fn best(&self, proof: Proof, now: Moment) -> Option<PathId> {
        self.paths
            .best(proof, now, |port| self.proofs.hold(port, now))
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
    fn take(&mut self, path: PathId, life: Liveness, actions: &mut Vec<Action>) {
        let Some(info) = self.paths.info(path) else {
            return;
        };
        let proof = info.proof;
        if !self.carried(info) || !self.usable(path, life.taken()) {
            return;
        }
        self.paths.pardon_one(path);
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

    /// Everything that follows from the present state and the time.
    fn advance(&mut self, now: Moment, actions: &mut Vec<Action>) {
        end_proofs(self.proofs.expire(now), actions);
        for port in self.proofs.due(now) {
            actions.push(Action::Probe(port));
        }
        if self
            .session
            .is_some_and(|(_, since)| now.since(since) >= REJECT)
        {
            self.session = None;
        }
        self.keep_demands(now, actions);
        self.leave_bad_way(now, actions);
        self.keep_way(now, actions);
        self.attempt_better(now, actions);
        self.keep_engine(now, actions);
        self.explain();
        self.tell(now, actions);
    }

    /// Leaves a way that is gone, unusable, silent or without a session: for another path if the
    /// session may continue there, else the gate closes.
    fn leave_bad_way(&mut self, now: Moment, actions: &mut Vec<Action>) {
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
        let next = self
            .best(Proof::Handshake, now)
            .filter(|&id| self.paths.info(id).map(|info| info.gateway) == gateway);
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
    fn keep_way(&mut self, now: Moment, actions: &mut Vec<Action>) {
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

    /// Tries the best path by a handshake if it is not the one in use. The way in use stays until
    /// the gateway has answered over the new one.
    fn attempt_better(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.asleep {
            return;
        }
        let in_use = match self.phase {
            Phase::Open(way) => Some(way.path),
            Phase::Closed(_) => None,
        };
        if let Some(attempt) = self.attempt {
            let pointless = !self.usable(attempt.path, now);
            let outdated = self
                .best(Proof::Handshake, now)
                .is_some_and(|best| best != attempt.path);
            if pointless || outdated {
                self.attempt = None;
            } else if now >= attempt.next && attempt.tries >= TRIES {
                self.paths.condemn(attempt.path, now, &self.timings);
                self.attempt = None;
            }
        }
        if self.attempt.is_none() {
            let wanted = self
                .best(Proof::Handshake, now)
                .filter(|&best| Some(best) != in_use)
                .filter(|&best| in_use.is_none_or(|used| self.paths.preferred(best, used, now)));
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

    /// Brings the reason for being closed up to date.
    fn explain(&mut self) {
        if self.explain_factor() {
            return;
        }
        if let Phase::Closed(reason) = &mut self.phase
            && !self.asleep
            && matches!(
                reason,
                Reason::Started
                    | Reason::NoPath
                    | Reason::Connecting
                    | Reason::UplinkGone
                    | Reason::SecondFactor
                    | Reason::SecondFactorMissing
            )
        {
            if self.attempt.is_some() || self.engaged.is_some() {
                *reason = Reason::Connecting;
            } else if self.paths.is_empty() && *reason == Reason::Connecting {
                *reason = Reason::NoPath;
            } else if matches!(reason, Reason::SecondFactor | Reason::SecondFactorMissing) {
                *reason = if self.paths.is_empty() {
                    Reason::NoPath
                } else {
                    Reason::Connecting
                };
            }
        }
    }

    fn tell(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let situation = self.judge(now);
        if situation != self.told {
            self.told = situation;
            actions.push(Action::Report);
        }
    }

    fn judge(&self, now: Moment) -> Situation {
        if let Some(wire) = self.proofs.wire(now) {
            return Situation::Direct { wire };
        }
        let way = match self.phase {
            Phase::Closed(reason) => return Situation::Closed(reason),
            Phase::Open(way) => way,
        };
        let Some(info) = self.paths.info(way.path) else {
            return Situation::Closed(Reason::NoPath);
        };
        let office = info.side == Side::Lan
            && info.kind == UplinkKind::Wired
            && self.proofs.hold(&info.port, now);
        Situation::Tunnelled {
            gateway: info.gateway,
            path: info.id,
            kind: info.kind,
            side: info.side,
            place: if office { Place::Office } else { Place::Remote },
        }
    }
}
