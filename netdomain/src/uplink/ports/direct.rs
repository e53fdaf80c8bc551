//! The wire of a proven port: one at a time, while policy, lease, carrier and proof all hold.

use std::net::Ipv4Addr;

use sekisho_control::{LanMember, LanPlace, UplinkKind, UplinkToGate, WireId};
use sekisho_policy::Direct;

use super::{Action, At, Ports, State};

/// The least MTU that is taken from the gate: what IPv6 asks of every link (RFC 8200, section 5).
const MIN_MTU: u16 = 1280;
/// Ethernet's.
const MAX_MTU: u16 = 1500;

/// A wire that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenWire {
    /// Its name.
    pub(crate) id: WireId,
    /// The proven port.
    pub(crate) port: At,
    /// The next hop of the port's lease.
    pub(crate) router: Ipv4Addr,
    /// The work OS's address.
    pub(crate) address: Ipv4Addr,
    /// The longest packet to and from it.
    pub(crate) mtu: u16,
    /// How often the port's carrier had been lost when the proof was made.
    pub(crate) losses: u32,
    /// The work OS's place on the LAN, where it is a member of it: its address is the port's.
    pub(crate) lan: Option<LanPlace>,
}

impl Ports {
    /// The gate wants the wire of a port that it has proven.
    pub(super) fn ask_wire(
        &mut self,
        index: u32,
        (address, mtu): (Ipv4Addr, u16),
        member: LanMember,
        actions: &mut Vec<Action>,
    ) {
        let Some(port) = self.by_index.get(&index) else {
            return;
        };
        let State::Leased {
            lease,
            proven: true,
            ..
        } = &port.state
        else {
            return;
        };
        let Some(direct) = self.endpoints.direct else {
            return;
        };
        let may = self.gate
            && self
                .wire
                .as_ref()
                .is_none_or(|wire| wire.port.index == index)
            && port.kind == UplinkKind::Wired
            && self.endpoints.beacon_for(port.kind).is_some();
        if !may || !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            return;
        }
        let (address, router) = match direct {
            Direct::Routed => (address, lease.router),
            Direct::Bridged => (lease.address, lease.router),
        };
        let lan = match direct {
            Direct::Routed => {
                // The work OS speaks in its own name: in none of the network's, and in none of ours.
                let fit = is_host(address)
                    && address != lease.address
                    && address != lease.router
                    && !self.endpoints.names(address);
                if !fit {
                    return;
                }
                None
            }
            Direct::Bridged => {
                let place = LanPlace {
                    address,
                    prefix: lease.prefix,
                    router,
                };
                if !self.joins(index, member, actions) {
                    return;
                }
                Some(place)
            }
        };
        let Some(port) = self.by_index.get(&index) else {
            return;
        };
        self.fruitless = 0;
        let wire = OpenWire {
            id: WireId(self.next_wire),
            port: At {
                index,
                name: port.name.clone(),
            },
            router,
            address,
            mtu,
            losses: port.losses,
            lan,
        };
        self.next_wire = self.next_wire.wrapping_add(1);
        // A gate that has one and asks has lost it: it is opened afresh.
        let before = self.wire.replace(wire.clone());
        actions.extend(before.map(Action::ShutWire));
        actions.push(Action::OpenWire(wire));
    }

    /// Whether the port has its lease as the work OS, with its MAC and name. Where it has not, what is
    /// needed for that is begun, and the proof ends; the gate asks again with the next.
    fn joins(&mut self, index: u32, member: LanMember, actions: &mut Vec<Action>) -> bool {
        let Some(mac) = self.member_mac else {
            return false;
        };
        let first = self.take_member(member);
        let has = self.by_index.get(&index).map(|port| port.mac);
        if has != Some(mac) {
            self.don(index, actions);
            return false;
        }
        if first {
            // The card's own MAC is the work OS's: the DHCP server does not know its name yet.
            self.on_lease_lost(index, actions);
            actions.push(Action::StopDhcp(index));
            actions.push(Action::StartDhcp(index, mac));
        }
        !first
    }

    /// Shuts the wire if it is this port's. It comes first of all that is done about the port, and
    /// before the gate hears of anything.
    pub(super) fn shut_wire(&mut self, index: u32, actions: &mut Vec<Action>) {
        if let Some(wire) = self.wire.take_if(|wire| wire.port.index == index) {
            let id = wire.id;
            actions.push(Action::ShutWire(wire));
            if self.gate {
                actions.push(Action::Tell(UplinkToGate::WireLost { id }));
            }
        }
        self.disarm(index, actions);
    }

    /// The kernel did not open it. Another may be asked for.
    pub(crate) fn wire_failed(&mut self, id: WireId) {
        self.wire.take_if(|wire| wire.id == id);
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_link_local()
        || address.octets()[0] >= 240)
}
