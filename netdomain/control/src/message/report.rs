//! Any process to the supervisor.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Carries, Place, Side, UplinkKind};
use crate::Demand;

/// Any process to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub enum Report {
    /// Everything is open and the sandbox is closed; the process now serves.
    Ready,
    /// The policy that the gate is about to apply; it comes before the gate's [`Report::Ready`].
    Policy {
        /// Its name.
        id: String,
        /// Its number, which only grows.
        version: u64,
    },
    /// The gate's situation changed.
    Situation(SituationReport),
    /// What the gate found at a gateway over one port; told when it changes.
    Gateway {
        /// The gateway's name in the policy.
        gateway: String,
        /// Interface that the question went out of.
        port: String,
        /// Which address of the gateway was asked.
        side: Side,
        /// What was found.
        found: GatewayFound,
    },
    /// What a tunnel demands of the person, or that none does any more; told when it changes (gate).
    Demand {
        /// What, if anything.
        demand: Option<Demand>,
    },
    /// Over this port somebody answered in place of the beacon or of a gateway who does not speak TLS at
    /// all (gate). A network that leads every connection to a page of its own does so.
    Stranger {
        /// Interface name.
        port: String,
    },
    /// How far the work OS has come; told when it changes.
    Work {
        /// How far.
        found: WorkFound,
    },
    /// The work OS has another address from now on, and its cable was pulled so that it asks for it:
    /// it is to be plugged in again in a moment (gate).
    Replug,
    /// The gate refused something of the guest's; sampled, `count` since the last report.
    Refused(Refused),
    /// The link of the guest's NIC changed (VMM).
    Link {
        /// Carrier as the guest sees it.
        up: bool,
    },
    /// An uplink got or lost its address, or its carrier (uplink).
    Uplink {
        /// Interface name.
        port: String,
        /// What kind of uplink it is.
        kind: UplinkKind,
        /// What happened, in a few plain words (`carrier`, `no-carrier`, `leased`, `lease-lost`,
        /// `router` when the router of the lease answers ARP, `router-silent` when it does not,
        /// `captive-portal`).
        event: String,
    },
    /// The SIM's monthly quota: another whole percent of it is used, or something follows (uplink).
    Quota {
        /// Bytes used this month, both ways together.
        used: u64,
        /// The quota in bytes.
        monthly: u64,
        /// Whole percent used, at most 100.
        percent: u8,
        /// What follows.
        state: QuotaState,
    },
    /// What became of the SIM's modem; told when it changes (modem).
    Modem {
        /// How far it is.
        found: ModemFound,
        /// The mobile network that serves it, as it calls itself; empty if none.
        operator: String,
        /// Quality of its signal in percent, where it is known.
        signal: Option<u8>,
    },
    /// Something on the network was ignored on purpose (a DHCP route option, a spoofed answer).
    Ignored {
        /// What it was, in the field's own words.
        what: String,
    },
    /// The agent in the work OS said something (guest channel).
    Guest {
        /// `hello`, `heartbeat`, `silent`, `shutdown-accepted`, …
        event: String,
        /// Free text, bounded by the guest channel.
        detail: String,
    },
    /// The work OS is gone and the VMM will exit (VMM).
    WorkEnded {
        /// `shutdown`, `reset` or `crash`.
        cause: String,
    },
}

impl Carries for Report {
    fn descriptors(&self) -> usize {
        0
    }
}

/// The gate's situation, as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "situation")]
pub enum SituationReport {
    /// No way out.
    Closed {
        /// Why, in a few plain words.
        reason: String,
    },
    /// Guest packets leave through the tunnel.
    Tunnelled {
        /// The gateway's name in the policy.
        gateway: String,
        /// Interface that carries the tunnel.
        port: String,
        /// Which side of the gateway the tunnel enters.
        side: Side,
        /// Where the laptop has proven to be.
        place: Place,
    },
    /// Guest packets leave onto the office LAN, without a tunnel.
    Direct {
        /// The proven interface.
        port: String,
        /// The work OS's address there.
        address: Ipv4Addr,
    },
}

/// What was found at a gateway. In the order in which one says more than the other, the proof last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayFound {
    /// A handshake was begun.
    Asked,
    /// Nothing came back, again and again.
    Silent,
    /// A host on the way, or at the address, says that nothing can be reached there. Anybody on the
    /// way can say so; it is told, and nothing is decided by it.
    Unreachable,
    /// Something came from the gateway's address that does not prove to be the gateway, or does not
    /// take this laptop for one of its own.
    Unproven,
    /// The handshake is complete.
    Answered,
}

/// How far the work OS has come, as the gate sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkFound {
    /// It uses its address.
    Address,
    /// A resolver of the closed network answered it.
    NameAnswered,
    /// No resolver of the closed network answered it.
    NameSilent,
    /// A server of the closed network answered it.
    ServerAnswered,
    /// The server that it asked did not answer.
    ServerSilent,
}

/// A refusal, sampled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The rule that decided: `forbidden`, `default-deny`, a flow id, `anti-spoof`, `ipv6`, …
    pub rule: String,
    /// The packet in one line: `tcp 10.99.0.1:443`.
    pub packet: String,
    /// Refusals by this rule since it was last reported.
    pub count: u64,
}

/// What follows from the use of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaState {
    /// Nothing.
    Within,
    /// A part at which the person is to be told was reached.
    Warned,
    /// It is spent: the uplink is slow until it begins anew.
    Throttled,
    /// It is spent: the uplink is not used until it begins anew.
    Refused,
}

/// How far the SIM's modem is, or why it goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModemFound {
    /// Policy says what the SIM must be, and there is no process that asks ModemManager for it.
    Unasked,
    /// ModemManager does not run, or does not answer.
    Absent,
    /// It knows no modem.
    NoModem,
    /// The modem is broken.
    Failed,
    /// It has no SIM, or one that it cannot read.
    SimMissing,
    /// Its SIM asks for a code.
    SimLocked,
    /// It is being switched on.
    Starting,
    /// It is looking for a network.
    Searching,
    /// It is served by a network that policy does not name.
    WrongNetwork,
    /// It is outside its own network, and policy does not allow that.
    Roaming,
    /// It is registered, and being connected.
    Connecting,
    /// The network, or the modem, refused the connection.
    Refused,
    /// It is connected in a way that is not used: by PPP, without an IPv4 address, without a next
    /// hop, or by another access point than policy's.
    Unusable,
    /// It is connected over an interface that policy does not name.
    OtherInterface,
    /// It is connected.
    Connected,
}
