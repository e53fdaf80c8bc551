//! The policy's shape: one struct a TOML table, in the order in which a person writes them.
//!
//! Names are those of the file. Keys that are not named here are refused; what would be unsafe has
//! no spelling (no `kill_switch = "off"`, no WEP, no open Wi-Fi). Rules that tie several values
//! together are in [`check`](crate::check).

mod written;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;

use crate::bandwidth::Bandwidth;
use crate::dot1x::Dot1x;
use crate::network::{Apn, Plmn, SsidGlob};
use crate::quantity::{self, Rate};
use crate::query::Probe;
use crate::value::{self, Pin, PortRange, PublicKey, RemoteId};
use crate::{Place, UplinkKind};

pub(crate) use written::NAT_T;

/// The number in `schema =` that this version of the product understands.
pub const SCHEMA: u32 = 1;

/// A whole policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Number of the schema; always [`SCHEMA`].
    pub schema: u32,
    /// Whose policy it is and how long it holds.
    pub policy: Meta,
    /// Networks behind the gateways, by name.
    pub segments: BTreeMap<String, Segment>,
    /// What nobody reaches, whatever a flow says.
    #[serde(default)]
    pub forbidden: Forbidden,
    /// What may be reached; everything else is refused.
    #[serde(default)]
    pub flow: Vec<Flow>,
    /// The laptop's own ways out, towards a gateway only.
    pub uplink: Vec<Uplink>,
    /// The tunnel and its gateways.
    pub vpn: Vpn,
    /// How the laptop proves that it is in the office. Absent: it never is.
    pub onprem: Option<Onprem>,
    /// How much of the way may be used. Absent: all of it.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// What the work OS is told when it asks whether it has a network.
    #[serde(default)]
    pub ncsi: Ncsi,
    /// What the laptop records.
    #[serde(default)]
    pub logging: Logging,
    /// What this policy must and must not allow; a policy that fails one is never applied.
    #[serde(default)]
    pub test: Vec<Test>,
}

impl Policy {
    /// Whether it names networks of IPv6: without any, the work OS has none.
    pub fn names_ipv6(&self) -> bool {
        let mut segments = self.segments.values();
        segments.any(|segment| {
            segment
                .prefixes
                .iter()
                .any(|net| matches!(net, IpNet::V6(_)))
        })
    }
}

/// `[policy]`: identity and validity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Whose policy: `jp.mihon-city`.
    pub id: String,
    /// Grows with each change; a laptop never goes back.
    pub version: u64,
    /// When it was signed.
    #[serde(deserialize_with = "value::instant")]
    pub issued: Timestamp,
    /// From this instant on it is not applied any more.
    #[serde(deserialize_with = "value::instant")]
    pub expires: Timestamp,
    /// What changed, for people.
    #[serde(default)]
    pub change: String,
}

/// `[segments.NAME]`: a network behind the gateways.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Its addresses, of either family.
    #[serde(deserialize_with = "value::prefixes")]
    pub prefixes: Vec<IpNet>,
    /// Its resolvers, inside its prefixes. They are asked over IPv4, for addresses of either family.
    #[serde(default, deserialize_with = "value::addresses")]
    pub dns: Vec<Ipv4Addr>,
    /// Domains (and all names under them) that its resolvers answer.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Its time servers, inside its prefixes.
    #[serde(default, deserialize_with = "value::addresses")]
    pub ntp: Vec<Ipv4Addr>,
}

/// `[forbidden]`: tested before every flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbidden {
    /// Addresses that nobody reaches and that reach nobody.
    #[serde(deserialize_with = "value::prefixes")]
    pub prefixes: Vec<IpNet>,
    /// What the person is told.
    pub reason: String,
}

/// `[[flow]]`: connections that may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Name of the rule, as it is told to people.
    pub id: String,
    /// Who opens the connection: `to` is [`Direction::Out`], `from` is [`Direction::In`].
    pub direction: Direction,
    /// The other side.
    pub peers: Peers,
    /// TCP ports: of the peer for `to`, of the laptop for `from`.
    pub tcp: Vec<PortRange>,
    /// UDP ports, likewise.
    pub udp: Vec<PortRange>,
    /// ICMP echo.
    pub icmp: bool,
    /// Where the laptop must be; never empty.
    pub places: Vec<Place>,
    /// What must carry the tunnel; never empty.
    pub uplinks: Vec<UplinkKind>,
    /// The class of bandwidth that its connections share, by name.
    pub bandwidth: Option<String>,
}

/// Who opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The laptop's work OS.
    Out,
    /// A host of the segment, towards the laptop.
    In,
}

/// Hosts of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Name of the segment.
    pub segment: String,
    /// Prefixes inside the segment.
    #[serde(deserialize_with = "value::prefixes")]
    pub hosts: Vec<IpNet>,
}

/// `[[uplink]]`: one kind of way out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// What it is.
    pub kind: UplinkKind,
    /// Lower is preferred.
    pub rank: u32,
    /// Names of the interfaces; empty: every interface of the kind.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Which protection a Wi-Fi network must have (Wi-Fi only, then never empty).
    #[serde(default)]
    pub security: Vec<WifiSecurity>,
    /// Networks that are never joined, whoever entered them (Wi-Fi only).
    #[serde(default)]
    pub deny_ssids: Vec<SsidGlob>,
    /// What happens where a network wants a page filled in first. There is no other value.
    #[serde(default)]
    pub captive_portal: CaptivePortal,
    /// Access point name (SIM only).
    pub apn: Option<Apn>,
    /// Mobile networks that may be used (SIM only); empty: whichever the modem is served by.
    #[serde(default)]
    pub plmn: Vec<Plmn>,
    /// Whether the SIM may be used outside its own network (SIM only).
    #[serde(default)]
    pub roaming: bool,
    /// Bytes a month, both ways together (SIM only).
    #[serde(default, deserialize_with = "quantity::optional_bytes")]
    pub monthly_quota: Option<u64>,
    /// Day of the month on which the quota begins anew, at midnight in Japan; in a month that has
    /// no such day, its last.
    pub quota_resets: Option<u8>,
    /// Parts of the quota at which the person is told, in percent, rising.
    #[serde(default)]
    pub warn_percent: Vec<u8>,
    /// What happens beyond the quota.
    pub over_quota: Option<OverQuota>,
}

impl Uplink {
    /// The quota, where there is one.
    pub fn quota(&self) -> Option<Quota> {
        Some(Quota {
            monthly: self.monthly_quota?,
            resets: self.quota_resets.unwrap_or(1),
            warn_percent: self.warn_percent.clone(),
            over: self.over_quota?,
        })
    }
}

/// The monthly quota of an uplink, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Bytes a month.
    pub monthly: u64,
    /// Day of the month, from 1.
    pub resets: u8,
    /// Percents at which the person is told, rising.
    pub warn_percent: Vec<u8>,
    /// What happens beyond it.
    pub over: OverQuota,
}

/// `over_quota = { action = "throttle", rate = "256kbit/s" }` or `{ action = "refuse" }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverQuota {
    /// The uplink stays, this slow in each direction.
    Throttle {
        /// How slow.
        rate: Rate,
    },
    /// The uplink is not used until the quota begins anew.
    Refuse,
}

/// Captive portals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptivePortal {
    /// Not filled in; the person is told.
    #[default]
    Refuse,
}

/// Protection of a Wi-Fi network. WEP, WPA, TKIP and open networks have no name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum WifiSecurity {
    /// WPA3 with a passphrase.
    #[serde(rename = "wpa3-sae")]
    Wpa3Sae,
    /// WPA3 with 802.1X.
    #[serde(rename = "wpa3-enterprise")]
    Wpa3Enterprise,
    /// WPA2 (CCMP) with a passphrase.
    #[serde(rename = "wpa2-personal")]
    Wpa2Personal,
    /// WPA2 (CCMP) with 802.1X.
    #[serde(rename = "wpa2-enterprise")]
    Wpa2Enterprise,
}

/// `[vpn]`: the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpn {
    /// What happens without a tunnel: nothing gets out. There is no other value.
    pub kill_switch: KillSwitch,
    /// A handshake that takes longer than this has failed.
    #[serde(
        default = "value::default_up_within",
        deserialize_with = "value::duration"
    )]
    pub up_within: Duration,
    /// A path that is silent for this long while packets wait is dead.
    #[serde(
        default = "value::default_dead_after",
        deserialize_with = "value::duration"
    )]
    pub dead_after: Duration,
    /// A second factor that the person has not given after this long is not waited for any more.
    #[serde(
        default = "value::default_answer_within",
        deserialize_with = "value::duration"
    )]
    pub answer_within: Duration,
    /// An earlier gateway must have been well for this long before a later one, which works, is left
    /// for it.
    #[serde(
        default = "value::default_prefer_first_after",
        deserialize_with = "value::duration"
    )]
    pub prefer_first_after: Duration,
    /// Waits between attempts.
    #[serde(default)]
    pub retry: Retry,
    /// Gateways, the preferred first.
    pub gateway: Vec<Gateway>,
}

/// The kill switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillSwitch {
    /// Always on.
    Always,
}

/// `retry = { first = "1s", max = "60s" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Wait before the second attempt.
    #[serde(deserialize_with = "value::duration")]
    pub first: Duration,
    /// Longest wait between two attempts.
    #[serde(deserialize_with = "value::duration")]
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_mins(1),
        }
    }
}

/// `[[vpn.gateway]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its name, as it is told to people.
    pub name: String,
    /// Which protocol it speaks, and what proves that it is the gateway.
    pub protocol: GatewayProtocol,
    /// Where it listens on the internet side. A literal: the wire's DNS is never asked.
    pub address: SocketAddrV4,
    /// Where it listens on the office LAN.
    pub lan_address: Option<SocketAddrV4>,
    /// Uplinks that may carry its tunnel; never empty.
    pub uplinks: Vec<UplinkKind>,
    /// What the person must give at each connection before the tunnel counts as up.
    pub second_factor: Option<SecondFactor>,
}

/// `second_factor` of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondFactor {
    /// A one-time password that the gateway judges.
    Otp,
    /// The PIN of the token that holds the laptop's key, which the token judges.
    Pin,
}

/// Protocols of a gateway, each with what the gateway must prove.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GatewayProtocol {
    /// `WireGuard` over UDP.
    Wireguard {
        /// Its X25519 public key (base64, 32 bytes).
        public_key: PublicKey,
    },
    /// TLS 1.3 over TCP, as `AnyConnect` speaks it (ocserv): for networks that carry nothing else.
    Tls {
        /// SHA-256 of the server's `SubjectPublicKeyInfo` (DER), in hex: what RFC 7469 pins.
        spki_sha256: Pin,
    },
    /// `IKEv2` with certificates and ESP in UDP (RFC 7296, RFC 3948): `IPsec` gateways that cities have.
    Ikev2 {
        /// The name that the gateway proves to have, by a certificate that holds it.
        remote_id: RemoteId,
        /// SHA-256 of the certificate (DER) of the authority that must have issued it, in hex.
        ca_sha256: Pin,
        /// How the laptop proves itself.
        auth: IkeAuth,
        /// What is asked about the gateway's certificate.
        revocation: Revocation,
    },
}

/// `auth`: how a laptop proves itself to an `ikev2` gateway. In both cases by its certificate; there is
/// no password and no shared key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IkeAuth {
    /// By a signature of `IKEv2` itself (RFC 7296, section 2.15).
    #[default]
    Certificate,
    /// By TLS in EAP (RFC 7296, section 2.16; RFC 5216), for gateways that leave it to a RADIUS server.
    EapTls,
}

/// `revocation`: whether an `ikev2` gateway's certificate may be without a list of revoked ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// One that the laptop's list names is refused; without a list it is believed.
    #[default]
    Relaxed,
    /// Without a list of its authority's that is in force it is refused.
    Strict,
}

/// `[onprem]`: the proof of being in the office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onprem {
    /// Kinds of uplink that the proof can be made over: `["wired"]`.
    pub uplinks: Vec<UplinkKind>,
    /// What the port must have agreed on first, where the office has 802.1X.
    pub dot1x: Option<Dot1x>,
    /// The beacon.
    pub beacon: Beacon,
    /// How often the proof is made again.
    pub recheck: Duration,
    /// Whether, and how, the work OS's packets go onto the proven wire itself, without a tunnel.
    pub direct: Option<Direct>,
    /// Whether a magic packet may wake the laptop at the cable that was proven.
    pub wake_on_lan: bool,
}

/// How packets go onto the office LAN without a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direct {
    /// With the laptop's fixed address: the office's router takes its prefix to be on this LAN.
    Routed,
    /// With the work OS's MAC, which the port takes on, and an address of the LAN's DHCP.
    Bridged,
}

/// The premises beacon: a TLS 1.3 server in the office.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// Where it listens on the office LAN.
    #[serde(deserialize_with = "value::socket_address")]
    pub address: SocketAddrV4,
    /// SHA-256 of its `SubjectPublicKeyInfo` (DER), in hex: what RFC 7469 pins.
    pub spki_sha256: Pin,
    /// Longest time from the request to the whole answer.
    #[serde(
        default = "value::default_round_trip",
        deserialize_with = "value::duration"
    )]
    pub round_trip: Duration,
}

/// `[ncsi]`: Windows' network connectivity status indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ncsi {
    /// Whether the gate says, while the tunnel is up, what Microsoft's test servers would say.
    pub answer: bool,
}

impl Default for Ncsi {
    /// Answered: without it Windows warns of a network without internet, and programs that ask
    /// Windows first do not even try.
    fn default() -> Self {
        Self { answer: true }
    }
}

/// `[logging]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// The whole of what is recorded.
    #[serde(default)]
    pub record: Vec<Record>,
}

/// What can be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// Tunnel and place: from when to when.
    Connection,
    /// Refusals, with the rule that decided.
    DeniedFlow,
    /// Which policy was applied when.
    Policy,
}

/// `[[test]]`: what must and must not be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What it is about.
    pub name: String,
    /// From where.
    pub from: TestFrom,
    /// Connections that must be allowed.
    #[serde(default)]
    pub accept: Vec<Probe>,
    /// Connections that must be refused.
    #[serde(default)]
    pub deny: Vec<Probe>,
}

/// Where a test stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFrom {
    /// Place of the laptop.
    pub place: Place,
    /// What carries the tunnel.
    pub uplink: UplinkKind,
}
