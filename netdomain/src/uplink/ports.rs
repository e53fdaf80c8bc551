//! What to do about links, leases and the gate's wishes: a pure machine. Events go in, actions come
//! out in the order in which they must be done.
//!
//! For each port: carrier starts a DHCP client; a lease configures the port and opens one path per
//! gateway and a connection to the beacon; a proof by the gate opens paths to the LAN side. The
//! loss of the carrier is told to the gate first, then everything of the port is undone.

mod bearer;
mod carrier;
mod direct;
#[cfg(test)]
mod dot1x_tests;
mod event;
mod guise;
#[cfg(test)]
mod guise_tests;
#[cfg(test)]
mod knock_tests;
mod paths;
#[cfg(test)]
mod tests;
mod wake;

use std::collections::{BTreeMap, BTreeSet};

use sekisho_control::{Bearer, GateToUplink, LanMember, Report, UplinkKind, UplinkToGate};

use self::guise::Guise;
use self::paths::{OpenPath, lose};
use super::{
    Endpoints,
    dhcp::Lease,
    dot1x::Standing,
    netlink::{AddressSet, Link, PortSet},
    quota::Allowance,
};

pub(crate) use self::direct::OpenWire;
pub(crate) use self::event::{Action, At, Bound, Event};

/// More network cards than this are no laptop's; the rest stays down.
const MAX_PORTS: usize = 16;

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
            Event::Gate(GateToUplink::Knock { port }) => {
                if let Some(index) = self.index_of(&port) {
                    self.knock(index, &mut actions);
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
                self.listening.append(&mut self.armed);
                self.shut_all(&mut actions);
            }
            Event::End => {
                // Whoever comes after this process knows nothing of a proof.
                let listening = std::mem::take(&mut self.listening);
                actions.extend(listening.into_iter().map(|port| Action::Wake(port, false)));
                self.shut_all(&mut actions);
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

    /// Shuts every port. One that listens for whoever wakes the laptop goes on listening.
    fn shut_all(&mut self, actions: &mut Vec<Action>) {
        self.asleep = true;
        for index in self.indices() {
            self.darken(index, actions);
            actions.push(Action::Down(index));
            let listens = self.listening.contains(&index);
            self.lie_down(index, listens, actions);
        }
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
        if self.endpoints.beacon_as_door(port.kind).is_some() {
            actions.push(Action::Allow(port.name.clone(), PortSet::Asking));
        }
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
