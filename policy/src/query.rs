//! Questions to a policy, and the one-line form in which people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::{Direction, Place, UplinkKind};

/// Longest text of a probe: `from tcp` with the longest address of IPv6 in brackets and a port is 56
/// bytes; the rest is room for spaces.
const MAX_PROBE: usize = 64;

/// Protocols that a flow can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo.
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// May this connection be opened, here and now? The peer is of the family of `A`, or with [`IpAddr`]
/// of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Query<A = Ipv4Addr> {
    /// Who opens it.
    pub direction: Direction,
    /// Protocol.
    pub protocol: Protocol,
    /// The other side's address.
    pub peer: A,
    /// Destination port: the peer's for [`Direction::Out`], the laptop's for [`Direction::In`]; 0
    /// for ICMP.
    pub port: u16,
    /// Where the laptop is.
    pub place: Place,
    /// What carries the tunnel.
    pub uplink: UplinkKind,
}

/// A connection as people write it: `tcp 10.12.10.5:443`, `icmp 10.12.0.1`, and for one that is
/// opened towards the laptop `from tcp 10.12.0.70:135` (135 is the laptop's port). An address of IPv6
/// with a port stands in brackets: `tcp [2001:db8:12:10::5]:443`.
///
/// ```
/// let probe: sekisho_policy::Probe = "tcp 10.12.10.5:443".parse()?;
/// assert_eq!(probe.port, 443);
/// # Ok::<(), sekisho_policy::ProbeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Who opens it.
    pub direction: Direction,
    /// Protocol.
    pub protocol: Protocol,
    /// The other side's address.
    pub peer: IpAddr,
    /// Destination port; 0 for ICMP.
    pub port: u16,
}

impl Probe {
    /// The question that this probe asks at a place, over an uplink.
    pub fn at(self, place: Place, uplink: UplinkKind) -> Query<IpAddr> {
        Query {
            direction: self.direction,
            protocol: self.protocol,
            peer: self.peer,
            port: self.port,
            place,
            uplink,
        }
    }
}

/// The text is not a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a connection: write \"tcp 10.12.10.5:443\", \"udp 10.12.0.53:53\", \"tcp [2001:db8:12::5]:443\", \"icmp 10.12.0.1\", or \"from tcp 10.12.0.70:135\" for one that is opened towards the laptop"
)]
pub struct ProbeError(String);

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let parse = || {
            if text.len() > MAX_PROBE {
                return None;
            }
            let mut words = text.split_ascii_whitespace();
            let mut word = words.next()?;
            let direction = if word == "from" {
                word = words.next()?;
                Direction::In
            } else {
                Direction::Out
            };
            let target = words.next()?;
            if words.next().is_some() {
                return None;
            }
            let (protocol, peer, port) = match word {
                "icmp" => (Protocol::Icmp, target.parse().ok()?, 0),
                "tcp" | "udp" => {
                    let (peer, port) = target.rsplit_once(':')?;
                    let peer = match peer.strip_prefix('[') {
                        Some(peer) => {
                            let peer: Ipv6Addr = peer.strip_suffix(']')?.parse().ok()?;
                            IpAddr::V6(peer)
                        }
                        None => IpAddr::V4(peer.parse().ok()?),
                    };
                    let port = port
                        .bytes()
                        .all(|byte| byte.is_ascii_digit())
                        .then_some(port)?;
                    let protocol = if word == "tcp" {
                        Protocol::Tcp
                    } else {
                        Protocol::Udp
                    };
                    (protocol, peer, port.parse().ok().filter(|port| *port != 0)?)
                }
                _ => return None,
            };
            Some(Self {
                direction,
                protocol,
                peer,
                port,
            })
        };
        parse().ok_or_else(|| ProbeError(text.chars().take(MAX_PROBE).collect()))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.direction == Direction::In {
            f.write_str("from ")?;
        }
        match (self.protocol, self.peer) {
            (Protocol::Icmp, peer) => write!(f, "icmp {peer}"),
            (protocol, peer) => write!(f, "{protocol} {}", SocketAddr::new(peer, self.port)),
        }
    }
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
