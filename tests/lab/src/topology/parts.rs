//! What a world is made of: nodes, wires, walls and services.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

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
