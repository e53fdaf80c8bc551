//! What supervisor and uplink say, and what the gate tells the supervisor.

use std::os::fd::OwnedFd;

use sekisho_control::{
    Channel, ChannelError, Command, Port, Received, Report, SituationReport, UplinkToGate,
};

use super::engine::{Gate, fill_random};
use super::plan::EngineKind;
use super::situation::{Event, PathInfo, Proof, Situation};
use super::sockets::{is_bound_to, set_nonblocking};
use crate::moment::Moment;
use crate::premises::{NOT_ITS_KEY, Progress, QUESTIONS};

/// Messages of one channel in one turn.
const MESSAGES: usize = 16;
/// Conversations with the beacon at one time: one a port.
pub(super) const MAX_PROBES: usize = 4;
/// `IFNAMSIZ` less its final zero.
const MAX_PORT_NAME: usize = 15;

impl Gate {
    /// Hears the supervisor.
    pub(super) fn read_control(&mut self, now: Moment) {
        for _ in 0..MESSAGES {
            match self.control.recv() {
                Ok(Some(received)) => self.command(received, now),
                Ok(None) => return,
                Err(error) => {
                    // Nobody is left to restart anything: everything ends with the supervisor.
                    tracing::info!("the supervisor is gone: {error}");
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn command(&mut self, received: Received<Command>, now: Moment) {
        let mut fds = received.fds.into_iter();
        match received.message {
            Command::Attach { port } => {
                if let Some(socket) = fds.next() {
                    self.attach(port, socket, now);
                }
            }
            Command::Suspend => self.happen(Event::Suspend, now),
            Command::Resume => self.happen(Event::Resume, now),
            Command::Shutdown => self.ended = true,
            Command::Answer { demand, answer } => self.answer(demand, answer, now),
            Command::AskAgain => self.happen(Event::AskAgain, now),
            // Not the gate's business.
            Command::PowerButton | Command::Notice { .. } => {}
        }
    }

    fn attach(&mut self, port: Port, socket: OwnedFd, now: Moment) {
        match port {
            Port::Link => match self.guest.attach(socket) {
                Ok(()) => tracing::info!("a fresh frame link"),
                Err(error) => tracing::warn!("{error}"),
            },
            Port::Uplink => {
                self.lose_uplink();
                self.happen(Event::Tick, now);
                match Channel::from_fd(socket) {
                    Ok(channel) => self.uplink = Some(channel),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            Port::Tls => self.attach_engine(EngineKind::Tls, socket, now),
            Port::Ike => self.attach_engine(EngineKind::Ike, socket, now),
            Port::Gate | Port::Modem | Port::GuestChannel | Port::Seat => {}
        }
    }

    /// Hears the uplink.
    ///
    /// # Errors
    /// A message that cannot be taken: no room for its descriptor, or none of ours. The uplink lives
    /// on and would wait for a new gate for ever, so the gate ends: the supervisor joins both afresh.
    pub(super) fn read_uplink(&mut self, now: Moment) -> Result<(), ChannelError> {
        for _ in 0..MESSAGES {
            let Some(uplink) = &self.uplink else {
                return Ok(());
            };
            match uplink.recv() {
                Ok(Some(received)) => self.uplink_says(received, now),
                Ok(None) => return Ok(()),
                Err(ChannelError::Closed) => {
                    tracing::warn!("the uplink is gone");
                    self.lose_uplink();
                    self.happen(Event::Tick, now);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn uplink_says(&mut self, received: Received<UplinkToGate>, now: Moment) {
        // Before anything is made of it, a line of the log included.
        if let UplinkToGate::Path { port, .. }
        | UplinkToGate::StreamPath { port, .. }
        | UplinkToGate::Beacon { port }
        | UplinkToGate::Knock { port }
        | UplinkToGate::Wire { port, .. }
        | UplinkToGate::CarrierLost { port } = &received.message
            && !may_be_a_port(port)
        {
            tracing::warn!("the uplink speaks of a port with an impossible name");
            return;
        }
        let mut fds = received.fds.into_iter();
        let (socket, second) = (fds.next(), fds.next());
        match received.message {
            UplinkToGate::Path {
                id,
                port,
                kind,
                rank,
                gateway,
                side,
                peer,
            } => {
                let Some(socket) = socket else { return };
                let proof = Proof::Handshake;
                let Some(gateway) = self.plan.gateway(&gateway, proof, side, peer, kind) else {
                    tracing::warn!(%port, %peer, "a path that policy does not name");
                    return;
                };
                if self.machine.path(id).is_some() {
                    return;
                }
                if let Err(error) = self.sockets.add(id, gateway, (&port, peer), socket) {
                    tracing::warn!(%port, %peer, "{error}");
                    return;
                }
                let info = PathInfo {
                    id,
                    port,
                    kind,
                    rank,
                    gateway,
                    side,
                    proof,
                };
                self.happen(Event::PathUp(info), now);
            }
            message @ UplinkToGate::StreamPath { .. } => self.stream_path(message, now),
            UplinkToGate::Stream { id } => {
                if let Some(socket) = socket {
                    self.stream(id, &socket, now);
                }
            }
            UplinkToGate::PathLost { id } => self.happen(Event::PathLost(id), now),
            UplinkToGate::Beacon { port } => {
                if let Some(socket) = socket {
                    self.begin_probe(port, socket, now);
                }
            }
            UplinkToGate::Knock { port } => {
                if let Some(socket) = socket {
                    self.begin_knock(port, socket, now);
                }
            }
            message @ UplinkToGate::Wire { .. } => {
                if let (Some(device), Some(carrier)) = (socket, second) {
                    self.take_wire(message, device, carrier, now);
                }
            }
            UplinkToGate::WireLost { id } => self.happen(Event::WireLost(id), now),
            UplinkToGate::CarrierLost { port } => {
                self.probes.retain(|probe| probe.port() != port);
                self.knocks.retain(|knock| knock.port() != port);
                self.happen(Event::CarrierLost(port), now);
            }
        }
    }

    fn begin_probe(&mut self, port: String, socket: OwnedFd, now: Moment) {
        let Some(beacon) = &self.beacon else {
            return;
        };
        self.probes.retain(|probe| probe.port() != port);
        if self.probes.len() >= MAX_PROBES {
            return;
        }
        if !is_bound_to(&socket, &port) {
            tracing::warn!(%port, "a connection to the beacon over another port");
            return;
        }
        if set_nonblocking(&socket).is_err() {
            return;
        }
        let mut nonces = [[0; 32]; QUESTIONS];
        for nonce in &mut nonces {
            fill_random(nonce);
        }
        match beacon.begin(port, socket, &nonces, now) {
            Ok(probe) => self.probes.push(probe),
            Err(error) => tracing::warn!("cannot ask the beacon: {error}"),
        }
        self.advance_probes(now);
    }

    /// Goes on with every conversation with the beacon.
    pub(super) fn advance_probes(&mut self, now: Moment) {
        let mut index = 0;
        while let Some(probe) = self.probes.get_mut(index) {
            let port = probe.port().to_owned();
            let event = match probe.advance(now) {
                Progress::Waiting => {
                    index += 1;
                    continue;
                }
                Progress::Proven(took) => {
                    tracing::debug!(%port, ?took, "the beacon proved itself");
                    Event::Proven(port)
                }
                progress @ (Progress::Stranger | Progress::Failed(_)) => {
                    let why = match progress {
                        Progress::Failed(why) => why,
                        _ => NOT_ITS_KEY,
                    };
                    if progress == Progress::Stranger {
                        // Told each time, and so soon again where the channel is full.
                        let report = Report::Stranger { port: port.clone() };
                        let _ = self.control.send(&report, &[]);
                    }
                    // Away from the office every question fails: only the first one is news.
                    if self.machine.unproven(&port) {
                        tracing::debug!(%port, "{why}");
                    } else {
                        tracing::info!(%port, "{why}");
                    }
                    Event::Disproven(port)
                }
            };
            self.probes.swap_remove(index);
            self.happen(event, now);
        }
    }

    /// Tells the supervisor the situation if it does not know it yet.
    pub(super) fn tell_situation(&mut self) {
        if self.unplugged {
            // A supervisor that is gone is noticed below.
            self.unplugged = self.control.send(&Report::Replug, &[]).is_err();
        }
        if !self.untold {
            return;
        }
        let report = Report::Situation(self.describe());
        match self.control.send(&report, &[]) {
            Ok(()) => {
                tracing::info!(situation = ?self.machine.situation(), "situation");
                self.untold = false;
            }
            Err(ChannelError::Full) => {}
            Err(error) => {
                tracing::info!("the supervisor is gone: {error}");
                self.ended = true;
            }
        }
    }

    fn describe(&self) -> SituationReport {
        match self.machine.situation() {
            Situation::Closed(reason) => SituationReport::Closed {
                reason: reason.words().to_owned(),
            },
            Situation::Tunnelled {
                gateway,
                path,
                side,
                place,
                ..
            } => SituationReport::Tunnelled {
                gateway: self
                    .plan
                    .gateways
                    .get(usize::from(gateway.0))
                    .map(|gateway| gateway.name.clone())
                    .unwrap_or_default(),
                port: self
                    .machine
                    .path(path)
                    .map(|path| path.port.clone())
                    .unwrap_or_default(),
                side,
                place,
            },
            Situation::Direct { wire } => SituationReport::Direct {
                port: self.machine.wire_port(wire).unwrap_or_default().to_owned(),
                address: self.edge.place().address,
            },
        }
    }

    /// Tells the supervisor what is applied, and that everything is open and the sandbox closed.
    pub fn ready(&self) -> Result<(), ChannelError> {
        let (id, version) = self.plan.policy.clone();
        self.control.send(&Report::Policy { id, version }, &[])?;
        self.control.send(&Report::Ready, &[])
    }
}

/// Whether the kernel would let an interface have this name (Linux, `dev_valid_name`); we add that
/// it can be shown as it is.
fn may_be_a_port(name: &str) -> bool {
    let length = (1..=MAX_PORT_NAME).contains(&name.len());
    length
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
}
