//! What happens to the ports, and what is to be done about it.

use std::net::{Ipv4Addr, SocketAddrV4};

use sekisho_control::{Bearer, GateToUplink, PathId, Report, UplinkToGate};

use super::OpenWire;
use crate::uplink::{
    Transport,
    dhcp::Lease,
    dot1x::Standing,
    netlink::{AddressSet, Link, PortSet},
    quota::Allowance,
};

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
    /// Shut everything for good: the process ends, and leaves nothing on a card that is not the card's.
    End,
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
    /// Connect to where policy lets connections go and send [`UplinkToGate::Knock`] with the socket.
    OpenKnock {
        /// Where the socket is bound to.
        from: Bound,
        /// Where it leads.
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
