//! What to do about links, leases and the gate's wishes: a pure machine. Events go in, actions come
//! out in the order in which they must be done.
//!
//! For each port: carrier starts a DHCP client; a lease configures the port and opens one path per
//! gateway and a connection to the beacon; a proof by the gate opens paths to the LAN side. The
//! loss of the carrier is told to the gate first, then everything of the port is undone.

mod direct;
mod guise;
mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use sekisho_control::{
    Bearer, GateToUplink, LanMember, PathId, Report, Side, UplinkKind, UplinkToGate,
};

use super::{
    Endpoints, Transport,
    dhcp::Lease,
    dot1x::Standing,
    netlink::{AddressSet, Link, PortSet},
    quota::Allowance,
};

mod bearer;

pub(crate) use direct::OpenWire;
use guise::Guise;

/// More network cards than this are no laptop's; the rest stays down.
const MAX_PORTS: usize = 16;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A link is new or changed.
    Link(Link),
    /// A link left the namespace.
    Gone(u32),
    /// The DHCP client of a port has a lease.
    Bound(u32, Lease),
    /// It lost it.
    LeaseLost(u32),
    /// The network of the lease says that it has a captive portal.
    Portal(u32),
    /// How a port that has a carrier stands with its authenticator.
    Standing(u32, Standing),
    /// A gate is there, afresh.
    GateAttached,
    /// The gate's channel ended.
    GateLost,
    /// The gate wants something.
    Gate(GateToUplink),
    /// What may pass over the SIM.
    Allowance(Allowance),
    /// The SIM's connection, or that there is none.
    Bearer(Option<Bearer>),
    /// The time is over in which a port was to be proven under the work OS's MAC.
    TrialOver(u32),
    /// Shut everything until [`Event::Resume`].
    Suspend,
    /// Start over.
    Resume,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Set the link up.
    Up(u32),
    /// Set the link down.
    Down(u32),
    /// Set the MAC of a link that is down, and leave word on it of the card's own where it is another.
    SetMac {
        /// The port.
        port: At,
        /// Its MAC from now on.
        mac: [u8; 6],
        /// The card's own, where `mac` is the work OS's: [`Event::TrialOver`] is wanted.
        own: Option<[u8; 6]>,
    },
    /// Whether a magic packet to the link wakes the laptop.
    Wake(u32, bool),
    /// Start a DHCP client for this MAC.
    StartDhcp(u32, [u8; 6]),
    /// End the DHCP client.
    StopDhcp(u32),
    /// Speak 802.1X over the port; [`Event::Standing`] tells what comes of it.
    BeginDot1x(At),
    /// Speak it no more.
    EndDot1x(u32),
    /// Set address, routes and next hop.
    Configure {
        /// The port.
        port: At,
        /// Its lease.
        lease: Lease,
        /// Hosts that get a route.
        destinations: Vec<Ipv4Addr>,
    },
    /// Remove addresses and routes.
    Flush(u32),
    /// Put the port into a set of the packet filter.
    Allow(String, PortSet),
    /// Take the port out of a set of the packet filter.
    Forbid(String, PortSet),
    /// Take an address of the port out of a set of the packet filter.
    Forget(String, AddressSet, Ipv4Addr),
    /// Open a socket to a gateway and send this [`UplinkToGate::Path`] with it.
    OpenPath {
        /// Where the socket is bound to.
        from: Bound,
        /// The message.
        path: UplinkToGate,
    },
    /// Cut the sockets of a path, also the gate's copies.
    CutPath(PathId),
    /// Connect to a gateway and send [`UplinkToGate::Stream`] with the socket.
    OpenStream {
        /// The path.
        id: PathId,
        /// Which kind of socket.
        transport: Transport,
        /// Where the socket is bound to.
        from: Bound,
        /// The gateway.
        to: SocketAddrV4,
    },
    /// Connect to the beacon and send [`UplinkToGate::Beacon`] with the socket.
    OpenBeacon {
        /// Where the socket is bound to.
        from: Bound,
        /// The beacon.
        to: SocketAddrV4,
    },
    /// Join the work OS's packets to a proven port, and hand the gate the wire.
    OpenWire(OpenWire),
    /// Part them again.
    ShutWire(OpenWire),
    /// Tell the gate.
    Tell(UplinkToGate),
    /// Tell the supervisor.
    Report(Report),
}

/// A port by index and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    /// Interface index.
    pub(crate) index: u32,
    /// Interface name.
    pub(crate) name: String,
}

/// What a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Interface name.
    pub(crate) port: String,
    /// The leased address.
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug)]
struct Port {
    name: String,
    mac: [u8; 6],
    ethernet: bool,
    kind: UplinkKind,
    losses: u32,
    /// The link has a carrier, used or not.
    carrier: bool,
    /// How it stands with its authenticator, while it has a carrier and the policy demands 802.1X
    /// of it.
    standing: Option<Standing>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No carrier.
    Dark,
    /// Carrier, no lease.
    Lit,
    /// A lease, and what was opened on it.
    Leased {
        lease: Lease,
        proven: bool,
        paths: Vec<OpenPath>,
    },
}

#[derive(Debug)]
struct OpenPath {
    id: PathId,
    side: Side,
    /// Where the sockets lead that an engine asks for, and of which kind, if it is an engine's.
    stream: Option<(Transport, SocketAddrV4)>,
}

/// All ports.
#[derive(Debug)]
pub(crate) struct Ports {
    endpoints: Endpoints,
    /// Names that may be used; empty: all.
    only: Vec<String>,
    by_index: BTreeMap<u32, Port>,
    gate: bool,
    asleep: bool,
    /// Of the ports of kind SIM.
    allowance: Allowance,
    /// The SIM's connection, as ModemManager made it.
    bearer: Option<Bearer>,
    next_path: u32,
    /// The wire that is open.
    wire: Option<OpenWire>,
    next_wire: u32,
    /// Who the work OS is on a LAN, once a gate has told.
    member: Option<LanMember>,
    /// Ports whose MAC is not, or was until now not, their card's.
    guises: BTreeMap<u32, Guise>,
    /// Changes of a MAC since the last wire.
    fruitless: u8,
    /// Ports that a magic packet may wake the laptop through.
    armed: BTreeSet<u32>,
    /// Ports that were such when the laptop went to sleep.
    listening: BTreeSet<u32>,
}

impl Ports {
    /// No port is known yet.
    pub(crate) fn new(endpoints: Endpoints, only: Vec<String>) -> Self {
        Self {
            endpoints,
            only,
            by_index: BTreeMap::new(),
            gate: false,
            asleep: false,
            allowance: Allowance::Full,
            bearer: None,
            next_path: 0,
            wire: None,
            next_wire: 0,
            member: None,
            guises: BTreeMap::new(),
            fruitless: 0,
            armed: BTreeSet::new(),
            listening: BTreeSet::new(),
        }
    }

    /// Takes an event and says what to do.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Link(link) => self.on_link(&link, &mut actions),
            Event::Gone(index) => {
                self.darken(index, &mut actions);
                self.by_index.remove(&index);
                self.guises.remove(&index);
            }
            Event::Bound(index, lease) => self.on_lease(index, lease, &mut actions),
            Event::LeaseLost(index) => self.on_lease_lost(index, &mut actions),
            Event::Portal(index) => {
                // It is not filled in: the person is told that another network is needed.
                actions.extend(
                    self.by_index
                        .get(&index)
                        .map(|p| p.report("captive-portal")),
                );
            }
            Event::Standing(index, standing) => self.on_standing(index, standing, &mut actions),
            Event::GateAttached => {
                self.forget_gate(&mut actions);
                self.gate = true;
                for index in self.indices() {
                    self.serve(index, &mut actions);
                }
            }
            Event::GateLost => {
                self.forget_gate(&mut actions);
                self.gate = false;
            }
            Event::Gate(GateToUplink::ProbeBeacon { port }) => {
                if let Some(index) = self.index_of(&port) {
                    self.probe(index, &mut actions);
                }
            }
            Event::Gate(GateToUplink::Premises { port, proven }) => {
                if let Some(index) = self.index_of(&port) {
                    self.on_premises(index, proven, &mut actions);
                }
            }
            Event::Gate(GateToUplink::AskWire {
                port,
                address,
                mtu,
                member,
            }) => {
                if let Some(index) = self.index_of(&port) {
                    self.ask_wire(index, (address, mtu), member, &mut actions);
                }
            }
            Event::TrialOver(index) => self.trial_over(index, &mut actions),
            Event::Allowance(allowance) => self.on_allowance(allowance, &mut actions),
            Event::Bearer(bearer) => self.on_bearer(bearer, &mut actions),
            Event::Gate(GateToUplink::Dial { id }) => self.dial(id, &mut actions),
            Event::Gate(GateToUplink::HangUp { id }) => {
                if self.stream(id).is_some() {
                    actions.push(Action::CutPath(id));
                }
            }
            Event::Suspend => {
                self.asleep = true;
                self.listening.append(&mut self.armed);
                for index in self.indices() {
                    self.darken(index, &mut actions);
                    actions.push(Action::Down(index));
                    let listens = self.listening.contains(&index);
                    self.lie_down(index, listens, &mut actions);
                }
            }
            Event::Resume => {
                let listening = std::mem::take(&mut self.listening);
                actions.extend(listening.into_iter().map(|port| Action::Wake(port, false)));
                self.get_up(&mut actions);
                self.asleep = false;
                actions.extend(self.by_index.keys().map(|index| Action::Up(*index)));
            }
        }
        actions
    }

    /// Ports that are not among these links any more.
    pub(crate) fn absent_from(&self, links: &[Link]) -> Vec<u32> {
        self.indices()
            .into_iter()
            .filter(|index| links.iter().all(|link| link.index != *index))
            .collect()
    }

    /// Name and kind of a port.
    pub(crate) fn port(&self, index: u32) -> Option<(&str, UplinkKind)> {
        let port = self.by_index.get(&index)?;
        Some((&port.name, port.kind))
    }

    /// Interface indices of all ports.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.by_index.keys().copied().collect()
    }

    /// Whether a port has proven the office.
    pub(crate) fn any_proven(&self) -> bool {
        self.by_index
            .values()
            .any(|port| matches!(port.state, State::Leased { proven: true, .. }))
    }

    /// Whether there is a port of the SIM's.
    pub(crate) fn has_sim(&self) -> bool {
        self.by_index
            .values()
            .any(|port| port.kind == UplinkKind::Sim)
    }

    /// Whether a port is one of the SIM's.
    pub(crate) fn is_sim(&self, index: u32) -> bool {
        self.by_index
            .get(&index)
            .is_some_and(|port| port.kind == UplinkKind::Sim)
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        self.by_index
            .iter()
            .find(|(_, port)| port.name == name)
            .map(|(index, _)| *index)
    }

    fn on_link(&mut self, link: &Link, actions: &mut Vec<Action>) {
        if self.is_stale(link) {
            return;
        }
        if self
            .by_index
            .get(&link.index)
            .is_some_and(|known| known.name != link.name || known.mac != link.mac)
        {
            // Sets and sockets know a port by its name, its leases by its MAC.
            self.darken(link.index, actions);
            self.by_index.remove(&link.index);
            self.guises.remove(&link.index);
        }
        if !self.by_index.contains_key(&link.index) {
            let kind = self.endpoints.kind(&link.name, link.radio);
            if !self.wanted(&link.name, kind) || !self.carries(link, kind) {
                return;
            }
            self.by_index.insert(
                link.index,
                Port {
                    name: link.name.clone(),
                    mac: link.mac,
                    ethernet: link.ethernet,
                    kind,
                    losses: link.losses,
                    carrier: false,
                    standing: None,
                    state: State::Dark,
                },
            );
            // Whatever an earlier process left there.
            actions.push(Action::Flush(link.index));
            if kind == UplinkKind::Wired && link.ethernet {
                actions.push(Action::Wake(link.index, false));
            }
            self.found(link, actions);
            if self.guises.contains_key(&link.index) {
                return;
            }
            if !link.up && !self.asleep {
                actions.push(Action::Up(link.index));
            }
        }

        let port = self
            .by_index
            .get_mut(&link.index)
            .expect("it is there by now");
        let carrier = link.carrier && (link.operational || port.kind != UplinkKind::Wifi);
        port.carrier = carrier;
        let lost = std::mem::replace(&mut port.losses, link.losses) != link.losses;
        if !carrier || lost {
            self.darken(link.index, actions);
            if self.strip(link.index, actions) {
                return;
            }
        }
        if carrier && !self.asleep {
            self.settle(link.index);
            self.light(link.index, actions);
        }
    }

    fn wanted(&self, name: &str, kind: UplinkKind) -> bool {
        (self.only.is_empty() || self.only.iter().any(|only| only == name))
            && self.by_index.len() < MAX_PORTS
            && self.endpoints.rank(name, kind, 0).is_some()
    }

    /// The carrier is there.
    fn light(&mut self, index: u32, actions: &mut Vec<Action>) {
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        if port.kind == UplinkKind::Sim && self.allowance == Allowance::Nothing {
            return;
        }
        if port.kind == UplinkKind::Sim && self.endpoints.mobile.is_some() {
            return self.light_bearer(index, actions);
        }
        if matches!(port.state, State::Dark) {
            port.state = State::Lit;
            actions.push(port.report("carrier"));
            // At the same time, and neither waits for the other: at home nobody answers.
            if self.endpoints.dot1x_for(port.kind).is_some() {
                port.standing = Some(Standing::Asking);
                let name = port.name.clone();
                actions.push(Action::BeginDot1x(At { index, name }));
            }
            actions.push(Action::StartDhcp(index, port.mac));
        }
    }

    /// The carrier is gone. The gate hears of it before anything else is done.
    fn darken(&mut self, index: u32, actions: &mut Vec<Action>) {
        self.shut_wire(index, actions);
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let was = std::mem::replace(&mut port.state, State::Dark);
        if matches!(was, State::Dark) {
            return;
        }
        if self.gate {
            actions.push(Action::Tell(UplinkToGate::CarrierLost {
                port: port.name.clone(),
            }));
        }
        if let State::Leased { lease, paths, .. } = was {
            actions.extend(paths.iter().map(|path| Action::CutPath(path.id)));
            port.shut(index, &lease, actions);
        }
        actions.push(Action::StopDhcp(index));
        if port.standing.take().is_some() {
            actions.push(Action::EndDot1x(index));
        }
        actions.push(port.report("no-carrier"));
    }

    /// A port is authenticated, or is no longer. Behind it may now be another network (a switch
    /// moves it from one to the other), so it starts over as with another cable; and the gate hears
    /// that its proof has ended before anything else is done.
    fn on_standing(&mut self, index: u32, standing: Standing, actions: &mut Vec<Action>) {
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let Some(was) = port.standing.replace(standing) else {
            // It lost its carrier meanwhile.
            port.standing = None;
            return;
        };
        let mac = port.mac;
        if (was == Standing::Authenticated) != (standing == Standing::Authenticated) {
            self.on_lease_lost(index, actions);
            actions.push(Action::StopDhcp(index));
            actions.push(Action::StartDhcp(index, mac));
        }
        if was != standing
            && let Some(port) = self.by_index.get(&index)
        {
            actions.push(port.report(standing.words()));
        }
    }

    fn on_lease(&mut self, index: u32, lease: Lease, actions: &mut Vec<Action>) {
        self.unlease(index, actions);
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        if matches!(port.state, State::Dark) {
            return;
        }
        port.state = State::Leased {
            lease: lease.clone(),
            proven: false,
            paths: Vec::new(),
        };
        actions.push(Action::Configure {
            port: At {
                index,
                name: port.name.clone(),
            },
            destinations: self.endpoints.destinations(port.kind),
            lease,
        });
        if port.kind == UplinkKind::Sim && self.allowance == Allowance::Slow {
            // Before any door of it opens.
            actions.push(Action::Allow(port.name.clone(), PortSet::Slow));
        }
        actions.push(Action::Allow(port.name.clone(), PortSet::Open));
        if self.endpoints.beacon_for(port.kind).is_some() && port.may_prove() {
            actions.push(Action::Allow(port.name.clone(), PortSet::Premises));
        }
        actions.push(port.report("leased"));
        self.serve(index, actions);
    }

    fn on_lease_lost(&mut self, index: u32, actions: &mut Vec<Action>) {
        if self.unlease(index, actions)
            && let Some(port) = self.by_index.get(&index)
        {
            actions.push(port.report("lease-lost"));
        }
    }

    /// Undoes a lease and leaves the carrier. Whether there was one.
    fn unlease(&mut self, index: u32, actions: &mut Vec<Action>) -> bool {
        self.shut_wire(index, actions);
        let gate = self.gate;
        let Some(port) = self.by_index.get_mut(&index) else {
            return false;
        };
        let State::Leased { lease, paths, .. } = &mut port.state else {
            return false;
        };
        let lease = lease.clone();
        let paths = std::mem::take(paths);
        if gate {
            // To the gate another lease is another cable: a proof belongs to the network that it
            // was made on. It hears of it before anything else is done.
            actions.push(Action::Tell(UplinkToGate::CarrierLost {
                port: port.name.clone(),
            }));
        }
        lose(false, paths, actions);
        port.state = State::Lit;
        port.shut(index, &lease, actions);
        true
    }

    /// Opens what a port with a lease has to offer to a gate that is there.
    fn serve(&mut self, index: u32, actions: &mut Vec<Action>) {
        self.open_paths(index, Side::Outside, actions);
        self.probe(index, actions);
    }

    fn open_paths(&mut self, index: u32, side: Side, actions: &mut Vec<Action>) {
        let mut names: Vec<&str> = self.by_index.values().map(|port| &*port.name).collect();
        names.sort_unstable();
        let Some(port) = self.by_index.get(&index).filter(|_| self.gate) else {
            return;
        };
        let order = names.iter().position(|name| *name == port.name);
        let Some(rank) = self
            .endpoints
            .rank(&port.name, port.kind, order.unwrap_or(0))
        else {
            return;
        };
        let (name, kind) = (port.name.clone(), port.kind);
        let Some(Port {
            state: State::Leased { lease, paths, .. },
            ..
        }) = self.by_index.get_mut(&index)
        else {
            return;
        };
        for gateway in &self.endpoints.gateways {
            let peer = match side {
                Side::Outside => Some(gateway.outside),
                Side::Lan => gateway.lan,
            };
            let Some(peer) = peer.filter(|_| gateway.kinds.contains(&kind)) else {
                continue;
            };
            let id = PathId(self.next_path);
            self.next_path = self.next_path.wrapping_add(1);
            let transport = gateway.transport;
            let stream = (transport != Transport::Udp).then_some((transport, peer));
            paths.push(OpenPath { id, side, stream });
            let (port, gateway) = (name.clone(), gateway.name.clone());
            if stream.is_some() {
                actions.push(Action::Tell(UplinkToGate::StreamPath {
                    id,
                    port,
                    kind,
                    rank,
                    gateway,
                    peer,
                }));
                continue;
            }
            actions.push(Action::OpenPath {
                from: Bound {
                    port: name.clone(),
                    address: lease.address,
                },
                path: UplinkToGate::Path {
                    id,
                    port,
                    kind,
                    rank,
                    gateway,
                    side,
                    peer,
                },
            });
        }
    }

    /// Makes a connection over a path, if there is such a path and it is of connections.
    fn dial(&self, id: PathId, actions: &mut Vec<Action>) {
        if let Some((from, (transport, to))) = self.stream(id) {
            actions.push(Action::OpenStream {
                id,
                transport,
                from,
                to,
            });
        }
    }

    fn stream(&self, id: PathId) -> Option<(Bound, (Transport, SocketAddrV4))> {
        self.by_index.values().find_map(|port| {
            let State::Leased { lease, paths, .. } = &port.state else {
                return None;
            };
            let path = paths.iter().find(|path| path.id == id)?;
            let from = Bound {
                port: port.name.clone(),
                address: lease.address,
            };
            Some((from, path.stream?))
        })
    }

    fn probe(&self, index: u32, actions: &mut Vec<Action>) {
        if let Some(port) = self.by_index.get(&index).filter(|_| self.gate)
            && let State::Leased { lease, .. } = &port.state
            && port.may_prove()
            && let Some(beacon) = self.endpoints.beacon_for(port.kind)
        {
            actions.push(Action::OpenBeacon {
                from: Bound {
                    port: port.name.clone(),
                    address: lease.address,
                },
                to: beacon.address,
            });
        }
    }

    fn on_premises(&mut self, index: u32, now_proven: bool, actions: &mut Vec<Action>) {
        if !now_proven {
            self.shut_wire(index, actions);
        }
        let gate = self.gate;
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let may = self.endpoints.beacon_for(port.kind).is_some() && port.may_prove();
        let State::Leased { proven, paths, .. } = &mut port.state else {
            return;
        };
        if *proven == now_proven || !may {
            return;
        }
        *proven = now_proven;
        if now_proven {
            actions.push(Action::Allow(port.name.clone(), PortSet::Proven));
            self.arm(index, actions);
            self.open_paths(index, Side::Lan, actions);
        } else {
            let lan = paths
                .extract_if(.., |path| path.side == Side::Lan)
                .collect();
            lose(gate, lan, actions);
            actions.push(Action::Forbid(port.name.clone(), PortSet::Proven));
        }
    }

    /// The quota of the SIM is spent, or begins anew.
    fn on_allowance(&mut self, allowance: Allowance, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.allowance, allowance) == allowance {
            return;
        }
        let sims: Vec<(u32, bool)> = self
            .by_index
            .iter()
            .filter(|(_, port)| port.kind == UplinkKind::Sim)
            .map(|(index, port)| (*index, port.carrier))
            .collect();
        for (index, carrier) in sims {
            if allowance == Allowance::Nothing {
                self.darken(index, actions);
                continue;
            }
            if let Some(port) = self.by_index.get(&index)
                && matches!(port.state, State::Leased { .. })
            {
                let name = port.name.clone();
                actions.push(match allowance {
                    Allowance::Slow => Action::Allow(name, PortSet::Slow),
                    Allowance::Full | Allowance::Nothing => Action::Forbid(name, PortSet::Slow),
                });
            }
            if carrier && !self.asleep {
                self.light(index, actions);
            }
        }
    }

    /// The gate that the paths were opened for is gone, and its proofs with it.
    fn forget_gate(&mut self, actions: &mut Vec<Action>) {
        // Nobody is left to be told.
        actions.extend(self.wire.take().map(Action::ShutWire));
        self.disarm_all(actions);
        for port in self.by_index.values_mut() {
            if let State::Leased { proven, paths, .. } = &mut port.state {
                lose(false, std::mem::take(paths), actions);
                if std::mem::take(proven) {
                    actions.push(Action::Forbid(port.name.clone(), PortSet::Proven));
                }
            }
        }
    }
}

/// Ends paths whose port lives on.
fn lose(gate: bool, paths: Vec<OpenPath>, actions: &mut Vec<Action>) {
    for path in paths {
        if gate {
            actions.push(Action::Tell(UplinkToGate::PathLost { id: path.id }));
        }
        actions.push(Action::CutPath(path.id));
    }
}

impl Port {
    /// Whether a proof may be made over it: it is authenticated, or need not be.
    fn may_prove(&self) -> bool {
        self.standing
            .is_none_or(|standing| standing == Standing::Authenticated)
    }

    /// Shuts the port in the packet filter and takes its address and routes.
    fn shut(&self, index: u32, lease: &Lease, actions: &mut Vec<Action>) {
        actions.extend(PortSet::ALL.map(|set| Action::Forbid(self.name.clone(), set)));
        for (set, address) in [
            (AddressSet::NextHop, lease.router),
            (AddressSet::Own, lease.address),
        ] {
            actions.push(Action::Forget(self.name.clone(), set, address));
        }
        actions.push(Action::Flush(index));
    }

    fn report(&self, event: &str) -> Action {
        Action::Report(Report::Uplink {
            port: self.name.clone(),
            kind: self.kind,
            event: event.to_owned(),
        })
    }
}

#[cfg(test)]
mod dot1x_tests;
#[cfg(test)]
mod guise_tests;
#[cfg(test)]
mod tests;
