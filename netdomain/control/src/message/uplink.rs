//! Uplink and gate.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::{Carries, PathId, Side, UplinkKind, WireId};
use crate::{HostName, VendorClass};

/// Uplink to gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "uplink")]
pub enum UplinkToGate {
    /// A path to a gateway exists. One descriptor: a UDP socket, non-blocking, bound to the port
    /// and connected to the gateway's address.
    Path {
        /// Its name from now on.
        id: PathId,
        /// Interface.
        port: String,
        /// Kind of the interface.
        kind: UplinkKind,
        /// Rank of the uplink in policy: lower is preferred.
        rank: u32,
        /// The gateway's name in the policy.
        gateway: String,
        /// Which of its addresses.
        side: Side,
        /// Where the socket is connected to; the gate checks it against policy.
        peer: SocketAddrV4,
    },
    /// A path to a gateway that an engine speaks to exists. No descriptor: a socket is made when
    /// [`GateToUplink::Dial`] asks for it.
    StreamPath {
        /// Its name from now on.
        id: PathId,
        /// Interface.
        port: String,
        /// Kind of the interface.
        kind: UplinkKind,
        /// Rank of the uplink in policy: lower is preferred.
        rank: u32,
        /// The gateway's name in the policy.
        gateway: String,
        /// Which of its addresses.
        side: Side,
        /// Where its connections lead; the gate checks it against policy.
        peer: SocketAddrV4,
    },
    /// A socket for a [`UplinkToGate::StreamPath`]. One descriptor, non-blocking, bound to the path's
    /// port: TCP, connecting or connected to its peer, or UDP, connected to it, as the gateway's kind
    /// needs.
    Stream {
        /// The path.
        id: PathId,
    },
    /// The path is gone; its socket is of no use any more.
    PathLost {
        /// The path.
        id: PathId,
    },
    /// A connection to the premises beacon over one wired port. One descriptor: a TCP socket,
    /// non-blocking, bound to the port, connecting or connected.
    Beacon {
        /// Interface.
        port: String,
    },
    /// A connection that [`GateToUplink::Knock`] asked for. One descriptor: a TCP socket, non-blocking,
    /// bound to the port, connecting or connected.
    Knock {
        /// Interface.
        port: String,
    },
    /// The wire of a proven port, which [`GateToUplink::AskWire`] asked for. Two descriptors: a TUN
    /// device with a `virtio_net_hdr` before each IPv4 packet; and a netlink socket to ask the
    /// kernel for the port's carrier. What is written to the first leaves over this port if it
    /// comes from the address that was asked for, and nowhere else.
    Wire {
        /// Its name from now on.
        id: WireId,
        /// Interface.
        port: String,
        /// Kind of the interface.
        kind: UplinkKind,
        /// Its index, by which the kernel is asked.
        index: u32,
        /// How often it had lost its carrier when the proof was made.
        losses: u32,
        /// Where policy says `bridged`: the work OS's place on the LAN.
        lan: Option<LanPlace>,
    },
    /// The wire is shut; its descriptor is of no use any more.
    WireLost {
        /// The wire.
        id: WireId,
    },
    /// The port lost its carrier, or the lease that it was used with: every path on it is lost and
    /// every proof over it has ended.
    CarrierLost {
        /// Interface.
        port: String,
    },
}

impl Carries for UplinkToGate {
    fn descriptors(&self) -> usize {
        match self {
            Self::Wire { .. } => 2,
            Self::Path { .. } | Self::Beacon { .. } | Self::Knock { .. } | Self::Stream { .. } => 1,
            Self::StreamPath { .. }
            | Self::PathLost { .. }
            | Self::WireLost { .. }
            | Self::CarrierLost { .. } => 0,
        }
    }
}

/// Who the work OS is on a LAN: what an office PC tells a DHCP server of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanMember {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its name, if it told one.
    pub host: Option<HostName>,
    /// What kind of client it says that it is, if it told.
    pub class: Option<VendorClass>,
}

/// What a LAN's DHCP server gave to the work OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanPlace {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the LAN's prefix, 32 if the server told none.
    pub prefix: u8,
    /// The LAN's router.
    pub router: Ipv4Addr,
}

/// Gate to uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gate")]
pub enum GateToUplink {
    /// Connect to the beacon over this port (again) and hand over the socket.
    ProbeBeacon {
        /// Interface.
        port: String,
    },
    /// No gateway answers over this port: connect to where policy lets connections go and hand over the
    /// socket, so that the gate hears who does. None comes where that would be the beacon, and it is asked
    /// for its proof anyway.
    Knock {
        /// Interface.
        port: String,
    },
    /// The beacon was proven (or is no longer) over this port: LAN-side paths are wanted or not.
    Premises {
        /// Interface.
        port: String,
        /// Whether the proof holds.
        proven: bool,
    },
    /// The port is proven and policy lets packets onto it without a tunnel: open it for those of
    /// this address, and hand over its wire.
    AskWire {
        /// Interface.
        port: String,
        /// The work OS's address.
        address: Ipv4Addr,
        /// The longest packet to and from it, in bytes.
        mtu: u16,
        /// Who it is, for a LAN that it is to be a member of.
        member: LanMember,
    },
    /// Make another connection over this path and hand it over.
    Dial {
        /// The path.
        id: PathId,
    },
    /// The connections over this path have served; cut them.
    HangUp {
        /// The path.
        id: PathId,
    },
}

impl Carries for GateToUplink {
    fn descriptors(&self) -> usize {
        0
    }
}
