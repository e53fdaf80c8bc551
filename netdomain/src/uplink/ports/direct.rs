//! The wire of a proven port: one at a time, while policy, lease, carrier and proof all hold.

use std::net::Ipv4Addr;

use sekisho_control::{UplinkKind, UplinkToGate, WireId};

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
}

impl Ports {
    /// The gate wants the wire of a port that it has proven.
    pub(super) fn ask_wire(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        mtu: u16,
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
        let may = self.gate
            && self.endpoints.direct
            && self
                .wire
                .as_ref()
                .is_none_or(|wire| wire.port.index == index)
            && port.kind == UplinkKind::Wired
            && self.endpoints.beacon_for(port.kind).is_some();
        // The work OS speaks in its own name: in none of the network's, and in none of ours.
        let fit = is_host(address)
            && address != lease.address
            && address != lease.router
            && !self.endpoints.names(address)
            && (MIN_MTU..=MAX_MTU).contains(&mtu);
        if !may || !fit {
            return;
        }
        let wire = OpenWire {
            id: WireId(self.next_wire),
            port: At {
                index,
                name: port.name.clone(),
            },
            router: lease.router,
            address,
            mtu,
            losses: port.losses,
        };
        self.next_wire = self.next_wire.wrapping_add(1);
        // A gate that has one and asks has lost it: it is opened afresh.
        let before = self.wire.replace(wire.clone());
        actions.extend(before.map(Action::ShutWire));
        actions.push(Action::OpenWire(wire));
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
