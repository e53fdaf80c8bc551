//! What the world outside the laptop is made of, as plain data: the same value is laid out in
//! namespaces ([`crate::Lab::start`]) and drawn ([`crate::draw()`]).

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use crate::address as at;

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

/// One network namespace.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in code, logs and pictures.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Column and row in the picture.
    pub place: (u8, u8),
    /// Ethernet switches inside (bridges).
    pub switches: Vec<&'static str>,
    /// Interface and address with its prefix.
    pub addresses: Vec<(&'static str, Ipv4Net)>,
    /// Destination and next hop.
    pub routes: Vec<(Ipv4Net, Hop)>,
    /// Whether it forwards packets.
    pub forwards: bool,
    /// nftables rules.
    pub rules: Option<&'static str>,
    /// What it serves.
    pub services: Vec<Service>,
}

/// Next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Another router.
    Via(Ipv4Addr),
    /// The node answers itself for every address of the prefix.
    Myself,
}

/// A cable between two nodes.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Name of the capture.
    pub name: &'static str,
    /// Node and interface; the capture is taken here.
    pub a: (&'static str, &'static str),
    /// Node and interface.
    pub b: (&'static str, &'static str),
    /// Switch of node `a` that the cable is plugged into.
    pub switch: Option<&'static str>,
    /// Capture point of the attack catalogue.
    pub point: Point,
}

/// Where a capture stands, as the attack catalogue names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Outside the laptop: what a stranger sees.
    P1,
    /// Inside the tunnel, at the gateway.
    P2,
    /// Beyond the gateway.
    P3,
}

/// One of the laptop's cables.
#[derive(Debug, Clone, Copy)]
pub struct Cable {
    /// The laptop's interface.
    pub interface: &'static str,
    /// The switch it is plugged into at first.
    pub wall: Wall,
}

/// A socket in the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wall {
    /// The cafe's LAN.
    Cafe,
    /// The office LAN.
    Office,
}

impl Wall {
    /// The switch behind it.
    pub fn switch(self) -> &'static str {
        match self {
            Self::Cafe => "cafe-lan",
            Self::Office => "office-lan",
        }
    }
}

/// Something that a node serves.
#[derive(Debug, Clone)]
pub enum Service {
    /// Debian's dnsmasq with these configuration lines.
    Dnsmasq(Vec<String>),
    /// Debian's nginx with these lines inside `http { … }`; `@DIR@` stands for the lab's folder.
    Nginx(&'static str),
    /// A `WireGuard` peer that nobody here wrote, listening on this UDP port.
    WireGuard {
        /// Its address inside the tunnel, with the tunnel's prefix.
        inner: Ipv4Net,
        /// UDP port, on all addresses of the node.
        port: u16,
    },
    /// A small answering machine of the lab.
    Answer(Answer),
}

/// The lab's own answering machines, for what needs no real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Answers every TCP and UDP packet that nobody else does, and notes who asked.
    Sink,
    /// A time server (RFC 5905, mode 4) that tells the machine's clock.
    Ntp(SocketAddrV4),
    /// Sends a greeting to whoever connects by TCP, and notes who.
    Greeting(SocketAddrV4, &'static str),
    /// Takes what is sent by TCP and throws it away.
    Discard(SocketAddrV4),
}

/// The TCP and UDP port on which [`Answer::Sink`] waits for what the node's rules redirect to it.
pub const SINK_PORT: u16 = 9;

/// The cafe's LAN, as its owner (or an attacker) has set it up.
#[derive(Debug, Clone)]
pub struct Cafe {
    /// The router's address with the LAN's prefix.
    pub router: Ipv4Net,
    /// First and last address that DHCP lends.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Further lines for dnsmasq: an attacker's DHCP options and false names.
    pub extra: Vec<String>,
    /// The router forwards no UDP: a network that carries the web and nothing else.
    pub blocks_udp: bool,
    /// The router forwards no datagrams to `WireGuard`'s port.
    pub blocks_wireguard: bool,
}

impl Default for Cafe {
    fn default() -> Self {
        Self {
            router: net(at::CAFE_ROUTER, 24),
            pool: (
                Ipv4Addr::new(192, 168, 43, 100),
                Ipv4Addr::new(192, 168, 43, 150),
            ),
            extra: Vec::new(),
            blocks_udp: false,
            blocks_wireguard: false,
        }
    }
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
                cafe_node(cafe),
                attacker(cafe),
                internet(),
                gateway(),
                lgwan(),
                my_number(),
                office(),
            ],
            wires: wires(),
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

fn wires() -> Vec<Wire> {
    let wire = |name, a, b, switch, point| Wire {
        name,
        a,
        b,
        switch,
        point,
    };
    vec![
        wire(
            "cafe-router",
            ("walls", "cafe"),
            ("cafe", "lan"),
            Some("cafe-lan"),
            Point::P1,
        ),
        wire(
            "cafe-attacker",
            ("walls", "seat"),
            ("attacker", "lan"),
            Some("cafe-lan"),
            Point::P1,
        ),
        wire(
            "office-router",
            ("walls", "office"),
            ("office", "lan"),
            Some("office-lan"),
            Point::P1,
        ),
        wire(
            "internet-cafe",
            ("internet", "cafe"),
            ("cafe", "wan"),
            Some("exchange"),
            Point::P1,
        ),
        wire(
            "internet-gateway",
            ("internet", "gateway"),
            ("gateway", "wan"),
            Some("exchange"),
            Point::P1,
        ),
        wire(
            "gateway-lgwan",
            ("gateway", "lgwan"),
            ("lgwan", "core"),
            None,
            Point::P3,
        ),
        wire(
            "gateway-my-number",
            ("gateway", "mynumber"),
            ("mynumber", "core"),
            None,
            Point::P3,
        ),
        wire(
            "gateway-office",
            ("gateway", "office"),
            ("office", "core"),
            None,
            Point::P1,
        ),
    ]
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

fn cafe_node(cafe: &Cafe) -> Node {
    let router = cafe.router.addr();
    let mut dnsmasq = vec![
        "interface=lan".to_owned(),
        format!(
            "dhcp-range={},{},{},1h",
            cafe.pool.0,
            cafe.pool.1,
            cafe.router.netmask()
        ),
        format!("dhcp-option=option:router,{router}"),
        format!("dhcp-option=option:dns-server,{router}"),
        "dhcp-option=option:domain-name,cafe.example".to_owned(),
        format!("server={}", at::DECOY_DNS),
    ];
    dnsmasq.extend(cafe.extra.iter().cloned());
    Node {
        addresses: vec![("lan", cafe.router), ("wan", net(at::CAFE_OUTSIDE, 24))],
        routes: vec![(net(ANY, 0), Hop::Via(at::INTERNET_ROUTER))],
        forwards: true,
        rules: Some(if cafe.blocks_udp {
            "table ip cafe {
                chain through {
                    type filter hook forward priority filter
                    meta l4proto udp drop
                }
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        } else if cafe.blocks_wireguard {
            "table ip cafe {
                chain through {
                    type filter hook forward priority filter
                    udp dport 51820 drop
                }
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        } else {
            "table ip cafe {
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        }),
        services: vec![Service::Dnsmasq(dnsmasq)],
        ..node("cafe", "router of a stranger's LAN", (1, 0))
    }
}

fn attacker(cafe: &Cafe) -> Node {
    // The seat keeps its place in the LAN even where the LAN's prefix is itself the attack.
    let address = if cafe.router.contains(&at::ATTACKER) {
        net(at::ATTACKER, cafe.router.prefix_len())
    } else {
        net(
            Ipv4Addr::from(u32::from(cafe.router.addr()) + 1),
            cafe.router.prefix_len(),
        )
    };
    Node {
        addresses: vec![("lan", address)],
        routes: vec![(net(ANY, 0), Hop::Via(cafe.router.addr()))],
        ..node("attacker", "a stranger's laptop in the cafe", (0, 0))
    }
}

fn internet() -> Node {
    Node {
        switches: vec!["exchange"],
        addresses: vec![
            ("exchange", net(at::INTERNET_ROUTER, 24)),
            ("lo", net(at::DECOY_DNS, 32)),
            ("lo", net(at::DECOY_WEB, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Myself)],
        rules: Some(
            "table ip sink {
                chain in {
                    type nat hook prerouting priority dstnat
                    ip daddr 203.0.113.0/24 accept
                    ip daddr 198.51.100.53 meta l4proto { tcp, udp } th dport 53 accept
                    ip daddr 198.51.100.53 tcp dport { 443, 853 } accept
                    ip daddr 198.51.100.80 tcp dport { 80, 443 } accept
                    meta l4proto { tcp, udp } redirect to :9
                }
            }",
        ),
        services: vec![
            Service::Dnsmasq(vec![
                format!("listen-address={}", at::DECOY_DNS),
                format!("address=/#/{}", at::DECOY_WEB),
            ]),
            Service::Nginx(DECOYS),
            Service::Answer(Answer::Sink),
        ],
        ..node(
            "internet",
            "decoys, and a sink for every other address",
            (2, 0),
        )
    }
}

/// Rules for the cafe's router. The lab's internet answers for every address; one like any other carries
/// no private ones (RFC 1918).
pub const PUBLIC_ONLY: &str = "table ip public {
    chain pass {
        type filter hook forward priority filter;
        iifname lan ip daddr 10.0.0.0/8 drop
    };
}";

/// The public resolver is one by name only: that TLS is answered at all is what a test looks for.
const DECOYS: &str = "
    ssl_certificate @DIR@/decoy.pem;
    ssl_certificate_key @DIR@/decoy.key;
    server {
        listen 198.51.100.53:443 ssl;
        listen 198.51.100.53:853 ssl;
        listen 198.51.100.80:443 ssl;
        listen 198.51.100.80:80;
        location / { default_type text/plain; return 200 'a public server: you should not be here\\n'; }
    }";

fn gateway() -> Node {
    Node {
        addresses: vec![
            ("wan", net(*at::GATEWAY_OUTSIDE.ip(), 24)),
            ("office", net(*at::GATEWAY_LAN.ip(), 30)),
            ("lgwan", net(Ipv4Addr::new(10, 12, 255, 1), 30)),
            ("mynumber", net(Ipv4Addr::new(10, 99, 255, 1), 30)),
        ],
        routes: vec![
            (net(ANY, 0), Hop::Via(at::INTERNET_ROUTER)),
            (
                net(Ipv4Addr::new(10, 12, 0, 0), 16),
                Hop::Via(Ipv4Addr::new(10, 12, 255, 2)),
            ),
            (
                net(Ipv4Addr::new(10, 12, 100, 0), 24),
                Hop::Via(Ipv4Addr::new(10, 12, 0, 1)),
            ),
            (
                net(*at::BEACON.ip(), 32),
                Hop::Via(Ipv4Addr::new(10, 12, 0, 1)),
            ),
            (
                net(Ipv4Addr::new(10, 99, 0, 0), 16),
                Hop::Via(Ipv4Addr::new(10, 99, 255, 2)),
            ),
        ],
        forwards: true,
        services: vec![Service::WireGuard {
            inner: net(at::GATEWAY_INNER, 24),
            port: at::GATEWAY_OUTSIDE.port(),
        }],
        ..node("gateway", "the municipality's WireGuard peer", (2, 1))
    }
}

fn lgwan() -> Node {
    let answer = Service::Answer;
    Node {
        addresses: vec![
            ("core", net(Ipv4Addr::new(10, 12, 255, 2), 30)),
            ("lo", net(at::LGWAN_DNS, 32)),
            ("lo", net(at::LGWAN_NTP, 32)),
            ("lo", net(at::GROUPWARE, 32)),
            ("lo", net(at::COLLECTOR, 32)),
            ("lo", net(at::FILES, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(Ipv4Addr::new(10, 12, 255, 1)))],
        services: vec![
            Service::Dnsmasq(vec![
                format!("listen-address={}", at::LGWAN_DNS),
                format!("host-record={},{}", at::GROUPWARE_NAME, at::GROUPWARE),
                format!("host-record={},{}", at::GROUPWARE_V6_NAME, at::GROUPWARE_V6),
                format!("host-record=files.mihon-city.example,{}", at::FILES),
                "local=/mihon-city.example/".to_owned(),
                "local=/lgwan.example/".to_owned(),
            ]),
            Service::Nginx(GROUPWARE),
            answer(Answer::Ntp(SocketAddrV4::new(at::LGWAN_NTP, 123))),
            answer(Answer::Greeting(
                SocketAddrV4::new(at::FILES, 445),
                "files: office only\r\n",
            )),
            answer(Answer::Discard(SocketAddrV4::new(at::COLLECTOR, 80))),
        ],
        ..node("lgwan", "groupware, DNS, time, files", (3, 0))
    }
}

const GROUPWARE: &str = "
    server {
        listen 10.12.10.5:80;
        root @DIR@/groupware;
        default_type text/plain;
        set $pace 0;
        if ($arg_rate) { set $pace $arg_rate; }
        location = /download { limit_rate $pace; }
        location / { index page.txt; }
    }";

fn my_number() -> Node {
    let web = |port| {
        let page = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nMy Number: you must not be here\r\n";
        Service::Answer(Answer::Greeting(
            SocketAddrV4::new(at::MY_NUMBER, port),
            page,
        ))
    };
    Node {
        addresses: vec![
            ("core", net(Ipv4Addr::new(10, 99, 255, 2), 30)),
            ("lo", net(at::MY_NUMBER, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(Ipv4Addr::new(10, 99, 255, 1)))],
        services: vec![web(80), web(443)],
        ..node("mynumber", "the network that must never be reached", (3, 1))
    }
}

fn office() -> Node {
    let pool = (
        Ipv4Addr::new(10, 12, 100, 100),
        Ipv4Addr::new(10, 12, 100, 150),
    );
    Node {
        addresses: vec![
            ("lan", net(at::OFFICE_ROUTER, 24)),
            ("core", net(Ipv4Addr::new(10, 12, 0, 1), 30)),
            ("lo", net(*at::BEACON.ip(), 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(*at::GATEWAY_LAN.ip()))],
        forwards: true,
        services: vec![
            Service::Dnsmasq(vec![
                "interface=lan".to_owned(),
                format!("dhcp-range={},{},255.255.255.0,1h", pool.0, pool.1),
                format!(
                    "dhcp-host={},{}",
                    at::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":"),
                    at::GUEST_IN_OFFICE
                ),
                format!("dhcp-option=option:router,{}", at::OFFICE_ROUTER),
                format!("dhcp-option=option:dns-server,{}", at::LGWAN_DNS),
            ]),
            Service::Nginx(BEACON),
        ],
        ..node("office", "wired LAN of the city hall", (1, 1))
    }
}

const BEACON: &str = "
    server {
        listen 10.12.0.200:8443 ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate @DIR@/beacon.pem;
        ssl_certificate_key @DIR@/beacon.key;
        location = /sekisho-beacon { default_type text/plain; return 200 $arg_nonce; }
    }";

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
