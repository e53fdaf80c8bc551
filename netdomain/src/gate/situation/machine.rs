//! The machine itself: events and the time go in, actions come out, and every failure closes.

use sekisho_control::{PathId, Place, Side, UplinkKind};

use super::direct::{close_wires, end_proofs};
use super::engaged::Engaged;
use super::factor::Demands;
use super::knocks::Knocks;
use super::paths::{PathInfo, Paths, Proof};
use super::premises::Proofs;
use super::way::{Attempt, Phase, REJECT};
use super::{Action, Event, GatewayId, Reason, Situation, Timings};
use crate::moment::Moment;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub(super) timings: Timings,
    pub(super) phase: Phase,
    pub(super) paths: Paths,
    pub(super) proofs: Proofs,
    /// Where nobody answers that should.
    pub(super) knocks: Knocks,
    pub(super) attempt: Option<Attempt>,
    /// The tunnel that an engine is at.
    pub(super) engaged: Option<Engaged>,
    /// When an engine last began.
    pub(super) began: Moment,
    /// When the crash of one was last excused.
    pub(super) excused: Option<Moment>,
    /// What gateways demand of the person.
    pub(super) demands: Demands,
    /// The gateways whose engine can take its tunnel from path to path.
    pub(super) roaming: Vec<GatewayId>,
    /// The gateway with which there is a session, and when its handshake was completed.
    pub(super) session: Option<(GatewayId, Moment)>,
    /// Whether policy lets packets onto a proven wire without a tunnel.
    pub(super) direct: bool,
    /// Whether there is a second key.
    pub(super) standby: bool,
    /// When it was last used.
    pub(super) asked_standby: Option<Moment>,
    pub(super) asleep: bool,
    /// Everything that was due then has been done.
    pub(super) done: Moment,
    pub(super) told: Situation,
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
            knocks: Knocks::default(),
            attempt: None,
            engaged: None,
            began: Moment::default(),
            excused: None,
            demands: Demands::default(),
            roaming: Vec::new(),
            session: None,
            direct: false,
            standby: false,
            asked_standby: None,
            asleep: false,
            done: Moment::default(),
            told: Situation::Closed(Reason::Started),
        }
    }

    /// With gateways whose engine can take its tunnel from path to path.
    #[must_use]
    pub fn with_roaming(mut self, gateways: impl IntoIterator<Item = GatewayId>) -> Self {
        self.roaming.extend(gateways);
        self
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
            Event::PathLost(id) => self.paths_lost(&[id], Action::Drain, now, actions),
            Event::Checked(path) => self.checked(path, now),
            Event::EngineUp(path) => self.engine_up(path, now, actions),
            Event::EngineDown(path) => self.engine_down(path, now, actions),
            Event::EngineCrashed(path) => self.engine_crashed(path, now, actions),
            Event::EngineAsks(path) => self.engine_asks(path, now, actions),
            Event::TokenOpened(path) => self.token_opened(path, now, actions),
            Event::TokenFailed(path, fault) => self.token_failed(path, fault, now, actions),
            Event::Answered(demand) => self.answered(demand, now, actions),
            Event::AskAgain => self.demands.ask_again(),
            Event::CarrierLost(port) => self.carrier_lost(&port, now, actions),
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
                // First: an engine that says goodbye to its gateway has no time for anything else.
                self.demands.forget(actions);
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

    /// When the machine wants an [`Event::Tick`]. It does not matter when it is asked: what became due
    /// since the last event is due, however long the shell was busy meanwhile.
    pub fn next_deadline(&self) -> Option<Moment> {
        let mut due = [
            self.attempt.map(|attempt| attempt.next),
            self.proofs.next_deadline(),
            self.paths.next_deadline(self.done),
            self.engaged.and_then(|engaged| engaged.until),
            self.standby_deadline(),
            self.better_deadline(),
            self.demands.next_deadline(),
            self.knocks.next_deadline(),
            None,
        ];
        if let Phase::Open(way) = self.phase
            && way.proof == Proof::Handshake
        {
            due[8] = Some(self.way_deadline(&way));
        }
        due.into_iter().flatten().min()
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

    fn paths_lost(
        &mut self,
        ids: &[PathId],
        farewell: fn(PathId) -> Action,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let lost: Vec<_> = ids.iter().filter(|&&id| self.paths.remove(id)).collect();
        // Before what an engine's packets come by is closed with the path that it leaves.
        self.follow_path(now, actions);
        actions.extend(lost.into_iter().map(|&id| farewell(id)));
    }

    fn carrier_lost(&mut self, port: &str, now: Moment, actions: &mut Vec<Action>) {
        self.paths_lost(&self.paths.on_port(port), Action::Close, now, actions);
        self.knocks.forget(port);
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
        self.knocks.clear();
        self.disengage(actions);
        self.attempt = None;
        self.session = None;
        actions.push(Action::ResetTunnels);
        self.close(reason);
    }

    fn doubt(&mut self, now: Moment, actions: &mut Vec<Action>) {
        end_proofs(self.proofs.doubt(now), actions);
        self.disengage(actions);
        self.demands.forget(actions);
        self.attempt = None;
        self.session = None;
        self.paths.pardon();
        actions.push(Action::ResetTunnels);
        self.close(Reason::Doubt);
    }

    pub(super) fn close(&mut self, reason: Reason) {
        self.phase = Phase::Closed(reason);
    }

    /// Whether the path may carry the tunnel at all at present.
    pub(super) fn usable(&self, id: PathId, now: Moment) -> bool {
        self.paths
            .usable(id, now, |port| self.proofs.hold(port, now))
    }

    /// Everything that follows from the present state and the time.
    fn advance(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.done = now;
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
        self.follow_path(now, actions);
        self.keep_demands(now, actions);
        self.leave_bad_way(now, actions);
        self.keep_way(now, actions);
        self.attempt_better(now, actions);
        self.check_standbys(now, actions);
        self.keep_engine(now, actions);
        self.knock(now, actions);
        self.explain();
        self.tell(now, actions);
    }

    /// Asks who answers over the ports whose paths lead to nobody; not while the person is what is waited
    /// for.
    fn knock(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let open = matches!(self.phase, Phase::Open(_)) || self.proofs.wire(now).is_some();
        let person = self.demands.asks() || self.demands.holds_any();
        if open || person || self.asleep {
            return self.knocks.rest();
        }
        let ports: Vec<&str> = self.paths.ports().collect();
        self.knocks.attend(&ports, now);
        actions.extend(self.knocks.due(now).map(Action::Knock));
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
