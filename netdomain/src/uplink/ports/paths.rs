//! What a port with a lease offers to the gate: paths to gateways, connections to the beacon.

use std::net::SocketAddrV4;

use sekisho_control::{PathId, Side, UplinkToGate};

use super::{Action, Bound, Port, Ports, State};
use crate::uplink::{Transport, netlink::PortSet};

#[derive(Debug)]
pub(super) struct OpenPath {
    pub(super) id: PathId,
    pub(super) side: Side,
    /// Where the sockets lead that an engine asks for, and of which kind, if it is an engine's.
    pub(super) stream: Option<(Transport, SocketAddrV4)>,
}

impl Ports {
    /// Opens what a port with a lease has to offer to a gate that is there.
    pub(super) fn serve(&mut self, index: u32, actions: &mut Vec<Action>) {
        self.open_paths(index, Side::Outside, actions);
        self.probe(index, actions);
    }

    pub(super) fn open_paths(&mut self, index: u32, side: Side, actions: &mut Vec<Action>) {
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
                    side,
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
    pub(super) fn dial(&self, id: PathId, actions: &mut Vec<Action>) {
        if let Some((from, (transport, to))) = self.stream(id) {
            actions.push(Action::OpenStream {
                id,
                transport,
                from,
                to,
            });
        }
    }

    pub(super) fn stream(&self, id: PathId) -> Option<(Bound, (Transport, SocketAddrV4))> {
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

    pub(super) fn probe(&self, index: u32, actions: &mut Vec<Action>) {
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

    /// Asks who answers over a port.
    pub(super) fn knock(&self, index: u32, actions: &mut Vec<Action>) {
        if let Some(port) = self.by_index.get(&index).filter(|_| self.gate)
            && let State::Leased { lease, .. } = &port.state
            && let Some(to) = self.endpoints.door_for(port.kind)
        {
            actions.push(Action::OpenKnock {
                from: Bound {
                    port: port.name.clone(),
                    address: lease.address,
                },
                to,
            });
        }
    }

    pub(super) fn on_premises(&mut self, index: u32, now_proven: bool, actions: &mut Vec<Action>) {
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

    /// The gate that the paths were opened for is gone, and its proofs with it.
    pub(super) fn forget_gate(&mut self, actions: &mut Vec<Action>) {
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
pub(super) fn lose(gate: bool, paths: Vec<OpenPath>, actions: &mut Vec<Action>) {
    for path in paths {
        if gate {
            actions.push(Action::Tell(UplinkToGate::PathLost { id: path.id }));
        }
        actions.push(Action::CutPath(path.id));
    }
}
