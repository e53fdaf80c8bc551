//! The gate as one value: everything it holds, and what it does with a frame, a datagram, a
//! message and the time. The loop that waits is in [`turn`](super::turn).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path as FilePath;
use std::time::Duration;

use bytes::BytesMut;
use gotatun::noise::index_table::IndexTable;
use sekisho_control::{Channel, Command, GateToUplink, Report, UplinkToGate};
use sekisho_framelink::FrameArena;
use sekisho_policy::{Admission, Policy, Verified};

use super::GateError;
use super::admit::{Gatekeeper, Refusal, Terms};
use super::counters::{Counters, Sample};
use super::device::{Device, DeviceFile};
use super::direct::Wiring;
use super::edge::{Edge, Reply, Resolver};
use super::engines::Engines;
use super::expiry::Expiry;
use super::factor::Answering;
use super::findings::Findings;
use super::guest::Guest;
use super::path::{Inbox, Leave, Path};
use super::plan::{Plan, TunnelPlan};
use super::room::Room;
use super::situation::{Action, Event, GatewayId, Machine, Situation};
use super::sockets::Sockets;
use super::standby::Standby;
use crate::moment::{Moment, slept};
use crate::portal::{Knock, Knocker};
use crate::premises::{BeaconClient, Probe};
use crate::tunnel::{AnyTunnel, Datagram, Identity, IpFd, Roaming as _, StampFile, WireGuard};

/// Frames that are read from the guest with one system call. More would only push each other out
/// of the cache: a super-frame is 64 KiB.
const ARENA: usize = 16;

/// The gate's end of its channel to the supervisor.
pub(super) type Control = Channel<Report, Command>;
/// The gate's end of its channel to the uplink.
pub(super) type UplinkChannel = Channel<GateToUplink, UplinkToGate>;

/// The gate.
pub struct Gate {
    pub(super) plan: Plan,
    pub(super) edge: Edge,
    pub(super) resolver: Resolver,
    pub(super) keeper: Gatekeeper,
    pub(super) counters: Counters,
    pub(super) findings: Findings,
    pub(super) machine: Machine,
    pub(super) tunnels: Vec<AnyTunnel>,
    pub(super) engines: Engines,
    pub(super) answering: Answering,
    /// The second key, where this laptop has one.
    pub(super) standby: Option<Standby>,
    pub(super) stamp: StampFile,
    pub(super) path: Path,
    pub(super) guest: Guest,
    pub(super) sockets: Sockets,
    pub(super) control: Control,
    pub(super) uplink: Option<UplinkChannel>,
    pub(super) wiring: Wiring,
    pub(super) beacon: Option<BeaconClient>,
    pub(super) probes: Vec<Probe>,
    pub(super) knocker: Knocker,
    pub(super) knocks: Vec<Knock>,
    pub(super) address: Ipv4Addr,
    pub(super) mtu: u16,
    /// Room for packets on the way in use.
    pub(super) room: Room,
    pub(super) arena: Option<FrameArena>,
    pub(super) inbox: Option<Inbox>,
    pub(super) opened: Vec<BytesMut>,
    pub(super) reply: Reply,
    pub(super) datagram: Datagram,
    pub(super) events: VecDeque<Event>,
    pub(super) actions: Vec<Action>,
    /// Messages that the present link has dropped, as far as they are counted.
    pub(super) flawed: u64,
    /// The situation changed and the supervisor could not be told yet.
    pub(super) untold: bool,
    /// The guest's cable was pulled and the supervisor could not be told yet.
    pub(super) unplugged: bool,
    /// Time that the machine has slept, and the wall clock less the time since boot, when last
    /// looked at.
    pub(super) slept: Duration,
    pub(super) wall: Duration,
    pub(super) expiry: Expiry,
    pub(super) ended: bool,
}

/// What a gate is made of.
pub struct Parts<'a> {
    /// The policy in force.
    pub policy: &'a Verified<Policy>,
    /// The device and its key.
    pub device: DeviceFile,
    /// Folder that keeps the handshake timestamp.
    pub state: &'a FilePath,
    /// Channel to the supervisor.
    pub control: OwnedFd,
    /// Frame link, if there is one yet.
    pub link: Option<OwnedFd>,
    /// Channel to the uplink, if there is one yet.
    pub uplink: Option<OwnedFd>,
    /// Channel to the engine of the TLS tunnel, if there is one yet.
    pub tls: Option<OwnedFd>,
    /// Channel to the engine of the `IPsec` tunnel, if there is one yet.
    pub ike: Option<OwnedFd>,
    /// See [`Timings::healthy_after`](super::situation::Timings::healthy_after).
    pub healthy_after: Duration,
}

impl Gate {
    /// Opens everything. Afterwards the gate needs no path, no name and no new socket.
    pub fn open(parts: Parts<'_>) -> Result<Self, GateError> {
        let now = Moment::now();
        let plan = Plan::new(parts.policy, parts.healthy_after);
        let device = Device {
            v6: carried(parts.policy, &parts.device),
            ..parts.device.device
        };
        let stamp = StampFile::open(parts.state)?;
        let indices = IndexTable::from_os_rng();
        let tunnels = plan
            .gateways
            .iter()
            .map(|gateway| match gateway.tunnel {
                TunnelPlan::WireGuard(public_key) => {
                    let identity = Identity {
                        private: parts.device.private_key,
                        gateway: public_key,
                        stamp_floor: stamp.newest(),
                        mtu: device.mtu,
                    };
                    AnyTunnel::WireGuard(WireGuard::new(&identity, &indices, now))
                }
                TunnelPlan::Engine(_) => AnyTunnel::IpFd(IpFd::default()),
            })
            .collect();
        let standby = parts
            .device
            .probe_key
            .map(|key| Standby::new(key, device.mtu, stamp.newest(), now));
        let beacon = plan
            .beacon
            .map(|beacon| BeaconClient::new(beacon.address, beacon.spki_sha256, beacon.round_trip))
            .transpose()?;
        let mut guest = Guest::new(device.mtu);
        if let Some(link) = parts.link {
            guest.attach(link)?;
        }
        let uplink = parts.uplink.map(Channel::from_fd).transpose()?;
        let engines = Engines::new(
            parts.tls.map(Channel::from_fd).transpose()?,
            parts.ike.map(Channel::from_fd).transpose()?,
        );
        let resolver = Resolver::new(plan.domains.clone(), &device, Box::new(random), now);
        Ok(Self {
            edge: Edge::new(device, plan.probes, now),
            resolver,
            keeper: Gatekeeper::new(
                Admission::compile(parts.policy),
                Terms {
                    address: device.address,
                    v6: device.v6,
                    mtu: device.mtu,
                    resolvers: plan.domains.servers(),
                },
                now,
            ),
            counters: Counters::new(plan.rules, now),
            findings: Findings::default(),
            machine: Machine::new(plan.timings, random().into())
                .with_direct(plan.direct.is_some())
                .with_roaming(plan.roaming())
                .with_standby(standby.is_some())
                .with_factors(plan.factors(), plan.answer_within, random()),
            tunnels,
            engines,
            answering: Answering::default(),
            standby,
            stamp,
            path: Path::default(),
            guest,
            sockets: Sockets::default(),
            control: Channel::from_fd(parts.control)?,
            uplink,
            wiring: Wiring::default(),
            beacon,
            probes: Vec::new(),
            knocker: Knocker::new()?,
            knocks: Vec::new(),
            address: device.address,
            mtu: device.mtu,
            room: Room::new(device.mtu),
            arena: Some(FrameArena::new(ARENA)),
            inbox: Some(Inbox::default()),
            opened: Vec::with_capacity(1024),
            reply: Reply::with_mtu(device.mtu),
            datagram: Datagram::new(),
            events: VecDeque::with_capacity(64),
            actions: Vec::with_capacity(64),
            flawed: 0,
            untold: true,
            unplugged: false,
            slept: slept(),
            wall: wall_less_boot(now),
            // Opening takes a while: the clock of now is read after the wall's, so that a gate never
            // ends for its policy's age before that policy does.
            expiry: {
                let wall = wall();
                Expiry::of(parts.policy, wall, Moment::now())
            },
            ended: false,
            plan,
        })
    }

    /// Where the gate stands.
    pub const fn situation(&self) -> Situation {
        self.machine.situation()
    }

    /// Refusals, by rule.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The tunnel to a gateway that proves itself by handshakes of ours.
    pub(super) fn tunnel(&mut self, gateway: GatewayId) -> Option<&mut WireGuard> {
        self.tunnels.get_mut(usize::from(gateway.0))?.roaming()
    }

    /// Lets an event happen, with everything that follows from it.
    pub(super) fn happen(&mut self, event: Event, now: Moment) {
        self.events.push_back(event);
        // An action can fail and so make an event; each path can fail once, so this ends.
        while let Some(event) = self.events.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            self.machine.handle(event, now, &mut actions);
            for action in actions.drain(..) {
                self.act(action, now);
            }
            self.actions = actions;
        }
    }

    fn act(&mut self, action: Action, now: Moment) {
        match action {
            Action::Initiate(path) => {
                let Some(gateway) = self.sockets.sender(path).map(|socket| socket.gateway) else {
                    return;
                };
                let mut datagram = std::mem::take(&mut self.datagram);
                if let Some(tunnel) = self.tunnel(gateway) {
                    tunnel.initiate(&mut datagram, now);
                    self.findings.asked(path);
                    self.keep_stamp(gateway);
                    self.send_on(path, datagram.bytes());
                }
                self.datagram = datagram;
            }
            Action::Kick(path) => {
                let Some(gateway) = self.sockets.sender(path).map(|socket| socket.gateway) else {
                    return;
                };
                let mut datagram = std::mem::take(&mut self.datagram);
                let ready = self
                    .tunnel(gateway)
                    .is_some_and(|tunnel| tunnel.kick(&mut datagram, now));
                if ready {
                    self.send_on(path, datagram.bytes());
                }
                self.datagram = datagram;
            }
            Action::Check(path) => self.check(path, now),
            Action::Engage(path) => self.engage(path),
            Action::HandOver(path) => self.hand_over(path),
            Action::Forget => self.engines.forget(),
            Action::Move { from, to } => self.move_engine(from, to),
            Action::Disengage(path) => self.disengage(path, now),
            Action::ResetTunnels => {
                for tunnel in self.tunnels.iter_mut().filter_map(AnyTunnel::roaming) {
                    tunnel.reset(now);
                }
                self.path.clear();
            }
            Action::Close(path) => {
                self.forget_path(path);
                self.sockets.close(path);
            }
            Action::Drain(path) => {
                self.forget_path(path);
                self.sockets.drain(path, now);
            }
            Action::Probe(port) => self.tell_uplink(&GateToUplink::ProbeBeacon { port }),
            Action::Knock(port) => self.tell_uplink(&GateToUplink::Knock { port }),
            Action::Premises(port, proven) => {
                tracing::info!(%port, proven, "premises");
                self.tell_uplink(&GateToUplink::Premises { port, proven });
            }
            Action::AskWire(port) => self.ask_wire(port),
            Action::CloseWire(wire) => self.wiring.close(wire),
            Action::Report => {
                let situation = self.machine.situation();
                self.path.change(Leave::of(&situation));
                self.seat(situation, now);
                self.widen();
                if situation.scope().is_none() {
                    self.findings.closed();
                }
                self.untold = true;
            }
        }
    }

    /// The path is gone: what was found over it says nothing any more.
    fn forget_path(&mut self, path: sekisho_control::PathId) {
        self.findings.forget(path);
        if let Some(standby) = &mut self.standby {
            standby.forget(path);
        }
    }

    /// Sends one datagram of the protocol itself. A path that does not take it has failed.
    pub(super) fn send_on(&mut self, path: sekisho_control::PathId, datagram: &[u8]) {
        use rustix::io::Errno;
        let Some(socket) = self.sockets.sender(path) else {
            return;
        };
        match super::path::send_datagram(socket.as_fd(), datagram) {
            Ok(()) | Err(Errno::AGAIN | Errno::NOBUFS) => {}
            Err(Errno::CONNREFUSED | Errno::HOSTUNREACH) => self.findings.unreachable(path),
            Err(error) => {
                tracing::debug!(?path, %error, "cannot send");
                self.events.push_back(Event::SendFailed(path));
            }
        }
    }

    /// Keeps the newest handshake stamp before the handshake leaves.
    pub(super) fn keep_stamp(&mut self, gateway: GatewayId) {
        let Some(stamp) = self.tunnel(gateway).map(|tunnel| tunnel.last_stamp()) else {
            return;
        };
        if let Err(error) = self.stamp.keep(stamp) {
            tracing::warn!("{error}");
        }
    }

    pub(super) fn tell_uplink(&mut self, message: &GateToUplink) {
        if let Some(uplink) = &self.uplink
            && let Err(error) = uplink.send(message, &[])
        {
            tracing::warn!("cannot tell the uplink: {error}");
            if error.ends() {
                self.lose_uplink();
            }
        }
    }

    /// The uplink is gone: so is every path.
    pub(super) fn lose_uplink(&mut self) {
        self.uplink = None;
        self.probes.clear();
        self.knocks.clear();
        self.events.push_back(Event::UplinkGone);
    }

    /// Counts a refusal and reports a sample.
    pub(super) fn refused(&mut self, refusal: &Refusal, now: Moment) {
        if let Some(sample) = self.counters.refused(refusal, now)
            && !tell_refusal(&self.control, &self.keeper, &sample)
        {
            // A full channel costs a sample, not a count.
            self.counters.take_back(&sample);
        }
    }

    /// Reports refusals that were counted and not told yet.
    pub(super) fn tell_refusals(&mut self, now: Moment) {
        let (control, keeper) = (&self.control, &self.keeper);
        self.counters
            .sweep(now, |sample| tell_refusal(control, keeper, &sample));
    }

    /// Sends the reply that the edge left.
    pub(super) fn send_reply(&mut self) {
        if !self.reply.frame().is_empty() {
            self.guest.send(self.reply.frame());
            self.reply.clear();
        }
    }
}

/// The guest's address of IPv6, if that is carried: where policy names networks of it and the device
/// has an address.
fn carried(policy: &Policy, device: &DeviceFile) -> Option<Ipv6Addr> {
    let (named, address) = (policy.names_ipv6(), device.device.v6);
    if named && address.is_none() {
        tracing::warn!(
            "policy names networks of IPv6, but the device file has no `address6`: none is carried"
        );
    }
    address.filter(|_| named)
}

/// Whether the supervisor took it.
fn tell_refusal(control: &Control, keeper: &Gatekeeper, sample: &Sample) -> bool {
    let report = Report::Refused(sekisho_control::Refused {
        rule: keeper.name(sample.rule).into_owned(),
        packet: sample.subject.to_string(),
        count: sample.count,
    });
    control.send(&report, &[]).is_ok()
}

/// Wall clock less time since boot: jumps when the wall clock does.
pub(super) fn wall_less_boot(now: Moment) -> Duration {
    wall().saturating_sub(now.since_boot())
}

/// Time since 1970.
pub(super) fn wall() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// An unpredictable number.
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// Fills `bytes` with unpredictable ones. The kernel gives up to 256 bytes whole once it is up.
pub(super) fn fill_random(bytes: &mut [u8]) {
    use rustix::rand::{GetRandomFlags, getrandom};
    while getrandom(&mut *bytes, GetRandomFlags::empty()).is_err() {}
}
