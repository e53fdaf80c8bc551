//! What the world outside the laptop is made of, as plain data: the same value is laid out in
//! namespaces ([`crate::Lab::start`]) and drawn ([`crate::draw()`]).
//!
//! | module | what |
//! |---|---|
//! | `parts` | nodes, wires, walls and services |
//! | `cafe` | a stranger's LAN, and the stranger |
//! | `internet` | decoys, and a sink for all else |
//! | `city` | the gateway and what is behind it |
//! | `wires` | the cables between them |

mod cafe;
mod city;
mod internet;
mod parts;
mod wires;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address as at;

pub use cafe::{Cafe, PUBLIC_ONLY};
pub use parts::{Answer, Cable, Hop, Node, Point, SINK_PORT, Service, Wall, Wire};

/// The world: nodes, the wires between them, and the walls that the laptop's cables go to.
#[derive(Debug, Clone)]
pub struct Topology {
    /// One network namespace each.
    pub nodes: Vec<Node>,
    /// Cables between two nodes.
    pub wires: Vec<Wire>,
    /// The laptop's own cables, in the order of its interfaces.
    pub cables: Vec<Cable>,
}

/// An address with its prefix length.
///
/// # Panics
/// With a prefix longer than 32.
pub(crate) fn net(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new(address, prefix).expect("a prefix length of at most 32")
}

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

impl Topology {
    /// The world of the demo and of the attack tests.
    pub fn new(cafe: &Cafe) -> Self {
        Self {
            nodes: vec![
                switches(),
                cafe::router(cafe),
                cafe::attacker(cafe),
                internet::node(),
                city::gateway(),
                city::lgwan(),
                city::my_number(),
                city::office(),
            ],
            wires: wires::all(),
            cables: vec![
                Cable {
                    interface: at::ETH0,
                    wall: Wall::Cafe,
                },
                Cable {
                    interface: at::ETH1,
                    wall: Wall::Office,
                },
            ],
        }
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

fn node(name: &'static str, about: &'static str, place: (u8, u8)) -> Node {
    Node {
        name,
        about,
        place,
        switches: Vec::new(),
        addresses: Vec::new(),
        routes: Vec::new(),
        forwards: false,
        rules: None,
        services: Vec::new(),
    }
}

/// The switches that the laptop's cables and the routers are plugged into. No address lives here,
/// so nothing here answers or routes.
fn switches() -> Node {
    Node {
        switches: vec!["cafe-lan", "office-lan"],
        ..node("walls", "sockets in the walls", (0, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_wire_is_a_node_and_each_address_has_its_interface() {
        let world = Topology::new(&Cafe::default());
        for wire in &world.wires {
            assert!(
                world.node(wire.a.0).is_some() && world.node(wire.b.0).is_some(),
                "{}",
                wire.name
            );
            if let Some(switch) = wire.switch {
                assert!(
                    world.node(wire.a.0).unwrap().switches.contains(&switch),
                    "{}",
                    wire.name
                );
            }
        }
        for node in &world.nodes {
            for (interface, address) in &node.addresses {
                let has = *interface == "lo"
                    || node.switches.contains(interface)
                    || world
                        .wires
                        .iter()
                        .any(|wire| [wire.a, wire.b].contains(&(node.name, *interface)));
                assert!(
                    has,
                    "{}: {address} is on {interface}, which does not exist",
                    node.name
                );
            }
        }
    }

    #[test]
    fn only_private_and_documentation_addresses() {
        let world = Topology::new(&Cafe::default());
        for (_, address) in world.nodes.iter().flat_map(|node| &node.addresses) {
            let address = address.addr();
            assert!(
                address.is_private() || address.is_documentation(),
                "{address}"
            );
        }
    }
}
