//! The gate's side of a tunnel whose engine is a process of its own: it is told to begin and to end,
//! is handed connections that the uplink made, and hands back the descriptor for packets.
//!
//! The engine is believed in one thing: that its gateway proved itself. What it says beside is
//! checked: the address and the length of packets against the device file, the kind of its
//! descriptor by the kernel's word, and every packet by admission like any other.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketType, sockopt};
use sekisho_control::{
    Channel, DownCause, EngineToGate, GateToEngine, GateToUplink, PathId, Received, UplinkToGate,
};

use super::engine::Gate;
use super::plan::{EngineKind, TunnelPlan};
use super::situation::{Event, GatewayId, PathInfo, Proof};
use super::sockets::{is_bound_to, set_nonblocking};
use crate::moment::Moment;

/// The gate's end of its channel to an engine.
pub(super) type EngineChannel = Channel<GateToEngine, EngineToGate>;

/// Messages of the engine in one turn.
const MESSAGES: usize = 16;
/// Connections of one attempt: one that signs in, one that carries, and a redirection each. An
/// engine that wants more is in a loop.
const MAX_DIALS: u8 = 4;

/// What an engine is at.
#[derive(Debug)]
struct Task {
    engine: EngineKind,
    attempt: u32,
    path: PathId,
    gateway: GatewayId,
    dials: u8,
    /// The path that it was on before, until there is a socket over the new one.
    left: Option<PathId>,
}

/// The engines and their task: at most one is at something at a time.
#[derive(Debug, Default)]
pub(super) struct Engines {
    tls: Option<EngineChannel>,
    ike: Option<EngineChannel>,
    task: Option<Task>,
    /// The task of the `IPsec` engine that was over last: until the engine says so too it may tell its
    /// gateway, and the path's sockets live on.
    leaving: Option<(u32, PathId)>,
    attempts: u32,
}

impl Engines {
    pub(super) const fn new(tls: Option<EngineChannel>, ike: Option<EngineChannel>) -> Self {
        Self {
            tls,
            ike,
            task: None,
            leaving: None,
            attempts: 0,
        }
    }

    pub(super) const fn channel(&self, engine: EngineKind) -> Option<&EngineChannel> {
        match engine {
            EngineKind::Tls => self.tls.as_ref(),
            EngineKind::Ike => self.ike.as_ref(),
        }
    }

    /// Lets the engine that may keep a PIN erase it. One that cannot be told is cut off, which erases it
    /// as well.
    pub(super) fn forget(&mut self) {
        let engine = EngineKind::Ike;
        if self.channel(engine).is_some() && !self.tell(engine, &GateToEngine::Forget, &[]) {
            self.set_channel(engine, None);
        }
    }

    fn set_channel(&mut self, engine: EngineKind, channel: Option<EngineChannel>) {
        match engine {
            EngineKind::Tls => self.tls = channel,
            EngineKind::Ike => self.ike = channel,
        }
    }

    fn tell(
        &self,
        engine: EngineKind,
        message: &GateToEngine,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> bool {
        self.channel(engine)
            .is_some_and(|channel| match channel.send(message, fds) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(?engine, "cannot tell the engine: {error}");
                    false
                }
            })
    }
}

impl Gate {
    /// Tells the engine that is at this path something about its attempt. Whether it took it.
    pub(super) fn tell_engaged(
        &self,
        path: PathId,
        message: impl FnOnce(u32) -> GateToEngine,
    ) -> bool {
        let task = self.engines.task.as_ref().filter(|task| task.path == path);
        task.is_some_and(|task| self.engines.tell(task.engine, &message(task.attempt), &[]))
    }

    /// Takes a fresh engine; what the last one was at is over.
    pub(super) fn attach_engine(&mut self, engine: EngineKind, socket: OwnedFd, now: Moment) {
        self.lose_engine(engine, now);
        match Channel::from_fd(socket) {
            Ok(channel) => self.engines.set_channel(engine, Some(channel)),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn lose_engine(&mut self, engine: EngineKind, now: Moment) {
        self.engines.set_channel(engine, None);
        if engine == EngineKind::Ike {
            self.hang_up_left();
        }
        let task = self.engines.task.as_ref();
        if let Some(path) = task
            .filter(|task| task.engine == engine)
            .map(|task| task.path)
        {
            self.happen(Event::EngineCrashed(path), now);
        }
    }

    /// The sockets of the task that was over last are of no use any more.
    fn hang_up_left(&mut self) {
        if let Some((_, path)) = self.engines.leaving.take() {
            self.tell_uplink(&GateToUplink::HangUp { id: path });
        }
    }

    /// The machine wants the tunnel of this path.
    pub(super) fn engage(&mut self, path: PathId) {
        self.hang_up_left();
        let Some(gateway) = self.machine.path(path).map(|info| info.gateway) else {
            return;
        };
        let Some(name) = self.plan.gateways.get(usize::from(gateway.0)) else {
            return;
        };
        let TunnelPlan::Engine(engine) = name.tunnel else {
            return;
        };
        self.engines.attempts = self.engines.attempts.wrapping_add(1);
        let attempt = self.engines.attempts;
        let begin = GateToEngine::Begin {
            attempt,
            gateway: name.name.clone(),
        };
        self.engines.task = Some(Task {
            engine,
            attempt,
            path,
            gateway,
            dials: 0,
            left: None,
        });
        tracing::debug!(
            ?path,
            attempt,
            gateway = name.name,
            "the engine is to begin"
        );
        if !self.engines.tell(engine, &begin, &[]) {
            self.events.push_back(Event::EngineDown(path));
        }
    }

    /// The machine takes a tunnel that is up to another path. Its packets go on coming and going by
    /// the same descriptor; what the engine sends goes by the old path's socket, if that lives, until
    /// it has the new one's.
    pub(super) fn move_engine(&mut self, from: PathId, to: PathId) {
        let task = self.engines.task.as_mut();
        let Some(task) = task.filter(|task| task.path == from) else {
            return;
        };
        task.path = to;
        let left = task.left.replace(from);
        self.sockets.rename(from, to);
        if let Some(left) = left {
            self.tell_uplink(&GateToUplink::HangUp { id: left });
        }
        tracing::info!(?from, ?to, "the engine's tunnel goes another way");
        self.tell_uplink(&GateToUplink::Dial { id: to });
    }

    /// The machine wants the tunnel of this path no more. What came in before is still read.
    pub(super) fn disengage(&mut self, path: PathId, now: Moment) {
        let Some(task) = self.engines.task.take_if(|task| task.path == path) else {
            return;
        };
        let tunnel = self.tunnels.get_mut(usize::from(task.gateway.0));
        if let Some(tunnel) = tunnel.and_then(|tunnel| tunnel.ip_fd()) {
            tunnel.set_up(false);
        }
        self.sockets.drain(path, now);
        if let Some(left) = task.left {
            self.tell_uplink(&GateToUplink::HangUp { id: left });
        }
        let attempt = task.attempt;
        let told = self
            .engines
            .tell(task.engine, &GateToEngine::End { attempt }, &[]);
        if told && task.engine == EngineKind::Ike {
            self.engines.leaving = Some((attempt, path));
        } else {
            self.tell_uplink(&GateToUplink::HangUp { id: path });
        }
    }

    /// Hears an engine. One that breaks the channel's rules is cut off until it is started anew: it
    /// takes no other way along.
    pub(super) fn read_engine(&mut self, engine: EngineKind, now: Moment) {
        for _ in 0..MESSAGES {
            let Some(channel) = self.engines.channel(engine) else {
                return;
            };
            match channel.recv() {
                Ok(Some(received)) => self.engine_says(engine, received, now),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(?engine, "the engine is gone: {error}");
                    self.lose_engine(engine, now);
                }
            }
        }
    }

    fn engine_says(&mut self, engine: EngineKind, received: Received<EngineToGate>, now: Moment) {
        let (EngineToGate::Dial { attempt }
        | EngineToGate::Ask { attempt }
        | EngineToGate::Opened { attempt }
        | EngineToGate::Up { attempt, .. }
        | EngineToGate::Down { attempt, .. }) = received.message;
        let left = self.engines.leaving.map(|(attempt, _)| attempt);
        if engine == EngineKind::Ike && left == Some(attempt) {
            if matches!(received.message, EngineToGate::Down { .. }) {
                self.hang_up_left();
            }
            return;
        }
        // Late words about what is over.
        let task = self.engines.task.as_mut();
        let Some(task) = task.filter(|task| (task.engine, task.attempt) == (engine, attempt))
        else {
            return;
        };
        let (path, gateway) = (task.path, task.gateway);
        match received.message {
            EngineToGate::Dial { .. } if task.dials < MAX_DIALS => {
                task.dials += 1;
                self.tell_uplink(&GateToUplink::Dial { id: path });
            }
            EngineToGate::Dial { .. } => {
                tracing::warn!("the engine wants connection after connection");
                self.happen(Event::EngineDown(path), now);
            }
            EngineToGate::Ask { .. } => self.happen(Event::EngineAsks(path), now),
            EngineToGate::Opened { .. } => self.happen(Event::TokenOpened(path), now),
            EngineToGate::Up { address, mtu, .. } => {
                let socket = received.fds.into_iter().next();
                if self.machine.lacks_factor(path) {
                    tracing::warn!(
                        ?path,
                        "a tunnel without the second factor that policy demands"
                    );
                }
                let taken = self.take_packets(engine, path, gateway, (address, mtu), socket);
                self.happen(
                    match taken {
                        Ok(()) => Event::EngineUp(path),
                        Err(why) => {
                            tracing::warn!(?path, "a tunnel that cannot be used: {why}");
                            Event::EngineDown(path)
                        }
                    },
                    now,
                );
            }
            EngineToGate::Down { why, cause, .. } => {
                tracing::info!(?path, ?why, ?cause, "the engine's tunnel is down");
                let event = match cause {
                    DownCause::Any => Event::EngineDown(path),
                    DownCause::Crashed => Event::EngineCrashed(path),
                    DownCause::Token(fault) => Event::TokenFailed(path, fault),
                };
                self.happen(event, now);
            }
        }
    }

    fn take_packets(
        &mut self,
        engine: EngineKind,
        path: PathId,
        gateway: GatewayId,
        (address, mtu): (Ipv4Addr, u16),
        socket: Option<OwnedFd>,
    ) -> Result<(), String> {
        if address != self.address {
            return Err(format!(
                "the gateway gives the address {address}, the device file says {}",
                self.address
            ));
        }
        if mtu < self.mtu {
            return Err(format!(
                "the gateway takes packets of {mtu} bytes, the device file says {}",
                self.mtu
            ));
        }
        let socket = socket.ok_or("no descriptor came with it")?;
        let tunnel = self.tunnels.get_mut(usize::from(gateway.0));
        let tunnel = tunnel
            .and_then(|tunnel| tunnel.ip_fd())
            .ok_or("it is not an engine's gateway")?;
        self.sockets
            .add_engine(path, gateway, engine, socket)
            .map_err(|error| error.to_string())?;
        tunnel.set_up(true);
        Ok(())
    }

    /// A path to a gateway that an engine speaks to.
    pub(super) fn stream_path(&mut self, message: UplinkToGate, now: Moment) {
        let UplinkToGate::StreamPath {
            id,
            port,
            kind,
            rank,
            gateway,
            side,
            peer,
        } = message
        else {
            return;
        };
        let Some(gateway) = self.plan.gateway(&gateway, Proof::Engine, side, peer, kind) else {
            tracing::warn!(%port, %peer, "a path that policy does not name");
            return;
        };
        if self.machine.path(id).is_some() {
            return;
        }
        let info = PathInfo {
            id,
            port,
            kind,
            rank,
            gateway,
            side,
            proof: Proof::Engine,
        };
        self.happen(Event::PathUp(info), now);
    }

    /// A connection for the engine.
    pub(super) fn stream(&mut self, id: PathId, socket: &OwnedFd, now: Moment) {
        let Some(task) = self.engines.task.as_ref().filter(|task| task.path == id) else {
            return;
        };
        let (engine, attempt) = (task.engine, task.attempt);
        let wanted = match engine {
            EngineKind::Tls => SocketType::STREAM,
            EngineKind::Ike => SocketType::DGRAM,
        };
        let Some(port) = self.machine.path(id).map(|info| info.port.clone()) else {
            return;
        };
        let kind = sockopt::socket_type(socket);
        if kind != Ok(wanted) || !is_bound_to(socket, &port) || set_nonblocking(socket).is_err() {
            tracing::warn!(%port, "a connection over another port, or none at all");
            return;
        }
        let stream = GateToEngine::Stream { attempt };
        if !self.engines.tell(engine, &stream, &[socket.as_fd()]) {
            return self.happen(Event::EngineDown(id), now);
        }
        let left = self.engines.task.as_mut().and_then(|task| task.left.take());
        if let Some(left) = left {
            self.tell_uplink(&GateToUplink::HangUp { id: left });
        }
    }
}
