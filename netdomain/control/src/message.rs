//! What the processes say to each other. Descriptors travel beside a message, in the order that
//! its documentation names.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::{Demand, DemandId, HostName, Secret, TokenFault, VendorClass};

/// Where a process can be given a fresh socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// The frame link between VMM and gate.
    Link,
    /// The channel to the uplink process: the gate's ([`GateToUplink`]) or the modem's
    /// ([`ModemToUplink`]).
    Uplink,
    /// The uplink's channel to the process that asks for the SIM ([`UplinkToModem`]).
    Modem,
    /// The channel to the gate process: the uplink's ([`UplinkToGate`]) or the engine's
    /// ([`EngineToGate`]).
    Gate,
    /// The gate's channel to the engine of its TLS tunnel ([`GateToEngine`]).
    Tls,
    /// The gate's channel to the engine of its `IPsec` tunnel ([`GateToEngine`]).
    Ike,
    /// The host end of the guest channel: a stream socket to the virtio-console port.
    GuestChannel,
}

/// Supervisor to any process. An answer cannot be copied, so neither can a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// A fresh peer is there. One descriptor: the socket. Whatever the process held on that port
    /// is closed first.
    Attach {
        /// The port that the socket belongs to.
        port: Port,
    },
    /// The laptop is about to sleep: close everything, prove again after [`Command::Resume`].
    Suspend,
    /// The laptop woke up.
    Resume,
    /// Somebody pressed the power button (VMM only): ask the work OS to shut down.
    PowerButton,
    /// What the person answered (gate only).
    Answer {
        /// To which asking.
        demand: DemandId,
        /// The answer.
        answer: Secret,
    },
    /// The person is there: what nobody answered may be asked again (gate only).
    AskAgain,
    /// Show a notice to the person (guest channel only).
    Notice {
        /// Japanese text.
        ja: String,
        /// English text.
        en: String,
    },
    /// End in an orderly way.
    Shutdown,
}

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
    /// Over this port somebody answered in place of the beacon who does not speak TLS at all (gate). A
    /// network that leads every connection to a page of its own does so.
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

/// A connection of the modem that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    /// Interface that carries it.
    pub interface: String,
    /// Where its address comes from.
    pub address: BearerAddress,
    /// Longest packet that the mobile network says that it carries, in bytes.
    pub mtu: Option<u16>,
}

/// Where the address of a bearer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum BearerAddress {
    /// The modem was told it.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Length of its prefix.
        prefix: u8,
        /// The next hop.
        router: Ipv4Addr,
    },
    /// It is asked for over the interface.
    Dhcp,
}

/// Modem to uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "modem")]
pub enum ModemToUplink {
    /// This is the bearer, in place of any other.
    Bearer(Bearer),
    /// There is none.
    NoBearer,
}

/// Uplink to modem: nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UplinkToModem {}

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

/// Names one path; never used again while the uplink process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathId(pub u32);

/// Names one wire of a proven port; never used again while the uplink process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WireId(pub u32);

/// Where the laptop is, as far as it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// Not proven to be in the office.
    #[serde(rename = "remote")]
    Remote,
    /// Proven by the premises beacon.
    #[serde(rename = "onprem")]
    Office,
}

/// Which address of a gateway a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The address on the internet side.
    Outside,
    /// The address on the office LAN.
    Lan,
}

/// Kinds of uplink, as policy names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkKind {
    /// Ethernet.
    Wired,
    /// Wi-Fi.
    Wifi,
    /// A mobile modem.
    Sim,
}

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

/// Gate to the engine of a tunnel. An answer cannot be copied, so neither can a message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gate")]
pub enum GateToEngine {
    /// Begin a tunnel. Whatever was begun before has ended.
    Begin {
        /// Names this attempt in all that follows.
        attempt: u32,
        /// The gateway's name in the policy.
        gateway: String,
    },
    /// A connection that [`EngineToGate::Dial`] asked for, or for `IPsec` another path that the tunnel
    /// is to go by from now on. One descriptor, non-blocking: a TCP socket, connecting or connected
    /// to the gateway, or for `IPsec` a UDP one.
    Stream {
        /// For which attempt.
        attempt: u32,
    },
    /// What the person answered to [`EngineToGate::Ask`]. It is for this attempt alone.
    Answer {
        /// For which attempt.
        attempt: u32,
        /// The answer.
        answer: Secret,
    },
    /// End the tunnel, whether it is up or not.
    End {
        /// Which one.
        attempt: u32,
    },
    /// Erase what the person answered, if it is kept: they are to be asked again.
    Forget,
}

/// Engine of a tunnel to gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "engine")]
pub enum EngineToGate {
    /// The engine wants another connection to the gateway.
    Dial {
        /// For which attempt.
        attempt: u32,
    },
    /// The gateway has proven itself and the tunnel is up. One descriptor: a Unix datagram socket
    /// that carries one IP packet a message, or a TUN device's.
    Up {
        /// Which attempt.
        attempt: u32,
        /// The inner address that the gateway gave; it must be this laptop's own.
        address: Ipv4Addr,
        /// The longest inner packet that the tunnel carries, in bytes.
        mtu: u16,
    },
    /// The second factor that policy names for this gateway is needed now; once in an attempt. The
    /// engine waits for [`GateToEngine::Answer`].
    Ask {
        /// Which attempt.
        attempt: u32,
    },
    /// The token opened with the person's PIN: the answer of this attempt, or the one that the engine
    /// keeps since an earlier one. What comes now is the gateway's to decide.
    Opened {
        /// Which attempt.
        attempt: u32,
    },
    /// The tunnel has ended, or could not be begun; after [`GateToEngine::Answer`] most often because
    /// the answer was not taken.
    Down {
        /// Which attempt.
        attempt: u32,
        /// Why, in a few plain words of the engine's own.
        why: String,
        /// What it says about the gateway and the way to it.
        cause: DownCause,
    },
}

/// Why an engine's tunnel is down, as far as it matters for what is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownCause {
    /// By the gateway, the way to it, or anything else.
    Any,
    /// Its program was killed by a signal, which says nothing about the gateway.
    Crashed,
    /// By the laptop's own token.
    Token(TokenFault),
}

/// How many descriptors travel beside a message. A channel sends and accepts exactly as many.
pub trait Carries {
    /// The number of descriptors, at most [`MAX_FDS`](crate::MAX_FDS).
    fn descriptors(&self) -> usize;
}

impl Carries for Command {
    fn descriptors(&self) -> usize {
        match self {
            Self::Attach { .. } => 1,
            Self::Suspend
            | Self::Resume
            | Self::PowerButton
            | Self::Answer { .. }
            | Self::AskAgain
            | Self::Notice { .. }
            | Self::Shutdown => 0,
        }
    }
}

impl Carries for Report {
    fn descriptors(&self) -> usize {
        0
    }
}

impl Carries for ModemToUplink {
    fn descriptors(&self) -> usize {
        0
    }
}

impl Carries for UplinkToModem {
    fn descriptors(&self) -> usize {
        match *self {}
    }
}

impl Carries for UplinkToGate {
    fn descriptors(&self) -> usize {
        match self {
            Self::Wire { .. } => 2,
            Self::Path { .. } | Self::Beacon { .. } | Self::Stream { .. } => 1,
            Self::StreamPath { .. }
            | Self::PathLost { .. }
            | Self::WireLost { .. }
            | Self::CarrierLost { .. } => 0,
        }
    }
}

impl Carries for GateToEngine {
    fn descriptors(&self) -> usize {
        match self {
            Self::Stream { .. } => 1,
            Self::Begin { .. } | Self::Answer { .. } | Self::End { .. } | Self::Forget => 0,
        }
    }
}

impl Carries for EngineToGate {
    fn descriptors(&self) -> usize {
        match self {
            Self::Up { .. } => 1,
            Self::Dial { .. } | Self::Ask { .. } | Self::Opened { .. } | Self::Down { .. } => 0,
        }
    }
}

impl Carries for GateToUplink {
    fn descriptors(&self) -> usize {
        0
    }
}
