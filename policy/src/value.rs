//! Single values of the file: prefixes, ports, durations, keys. Each refuses what it does not
//! understand with a sentence that names the right form.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Place, UplinkKind};

/// Longest duration that a policy can name. Ten years: longer is a slip of the pen, and the bound
/// keeps every sum of two durations far from overflow.
const MAX_DURATION: Duration = Duration::from_hours(10 * 366 * 24);

/// Ports, from first to last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Ports `first..=last`; `None` where they are out of order or contain port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| -> Option<u16> {
            (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| text.parse().ok())
                .flatten()
        };
        let range = match text.split_once('-') {
            Some((first, last)) => port(first).zip(port(last)),
            None => port(text).map(|port| (port, port)),
        };
        range
            .and_then(|(first, last)| Self::new(first, last))
            .ok_or_else(|| {
                format!("`{text}` is not a port (1 to 65535) or a range such as \"49152-65535\"")
            })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ports;
        impl Visitor<'_> for Ports {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port (1 to 65535) or a range such as \"49152-65535\"")
            }

            fn visit_i64<E: Error>(self, port: i64) -> Result<PortRange, E> {
                u16::try_from(port)
                    .ok()
                    .and_then(|port| PortRange::new(port, port))
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(port), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Ports)
    }
}

/// A `WireGuard` public key (X25519, RFC 7748).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(&text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a WireGuard public key: 32 bytes in base64, 44 characters, as `wg pubkey` prints it"))
    }
}

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a SHA-256: 64 hexadecimal digits"))
    }
}

/// The longest name of RFC 1035, section 2.3.4, as it is written.
const MAX_NAME: usize = 253;
/// And its longest label.
const MAX_LABEL: usize = 63;

/// The name of an IKE peer: a DNS name (`ID_FQDN`, RFC 7296, section 3.5). A name and nothing else,
/// because what an engine takes for patterns, or for other kinds of identity, must not come from here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteId(String);

impl RemoteId {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for RemoteId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= MAX_NAME && text.contains('.') && text.split('.').all(label) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(
                "not a name such as \"vpn1.mihon-city.example\", as the gateway's certificate holds it",
            ))
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// 64 hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

/// `"30s"`, `"1500ms"`, `"5m"`, `"60h"`, `"3d"`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(count.checked_mul(milliseconds)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// A duration.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        D::Error::custom(format_args!(
            "`{text}` is not a duration such as \"500ms\", \"30s\", \"15m\", \"12h\" or \"3d\" (10 years at most)"
        ))
    })
}

/// An instant (RFC 3339, with its offset from UTC).
pub(crate) fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format_args!(
            "`{text}` is not an instant such as \"2026-11-20T09:00:00+09:00\""
        ))
    })
}

/// One prefix in canonical form.
struct Prefix(IpNet);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let prefix: IpNet = text.parse().map_err(|_| {
            D::Error::custom(format_args!(
                "`{text}` is not a prefix such as \"10.12.10.0/24\" or \"2001:db8:12::/48\" (one host: \"10.12.10.5/32\")"
            ))
        })?;
        if prefix.trunc() != prefix {
            return Err(D::Error::custom(format_args!(
                "`{text}` has bits set after its {} bits of prefix: write \"{}\" or \"{}/{}\"",
                prefix.prefix_len(),
                prefix.trunc(),
                prefix.addr(),
                prefix.max_prefix_len()
            )));
        }
        Ok(Self(prefix))
    }
}

/// Prefixes in canonical form.
pub(crate) fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let prefixes = Vec::<Prefix>::deserialize(deserializer)?;
    Ok(prefixes.into_iter().map(|prefix| prefix.0).collect())
}

struct Address(Ipv4Addr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            D::Error::custom(format_args!(
                "`{text}` is not an IPv4 address such as \"10.12.0.53\"; names are not looked up"
            ))
        })
    }
}

/// Addresses.
pub(crate) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Ipv4Addr>, D::Error> {
    let addresses = Vec::<Address>::deserialize(deserializer)?;
    Ok(addresses.into_iter().map(|address| address.0).collect())
}

/// An address with a port.
pub(crate) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddrV4, D::Error> {
    parse_socket_address(&String::deserialize(deserializer)?)
}

/// The address of a gateway: with a port, or without one where its kind has none.
pub(crate) fn gateway_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.parse::<Ipv4Addr>().is_err() {
        parse_socket_address::<D::Error>(&text)?;
    }
    Ok(text)
}

/// The same of a text that was read already.
pub(crate) fn parse_socket_address<E: Error>(text: &str) -> Result<SocketAddrV4, E> {
    text.parse().ok().filter(|address: &SocketAddrV4| address.port() != 0).ok_or_else(|| {
        E::custom(format_args!(
            "`{text}` is not an IPv4 address with a port such as \"203.0.113.10:51820\"; names are not looked up"
        ))
    })
}

/// An address with a port, where the key is there.
pub(crate) fn optional_socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddrV4>, D::Error> {
    socket_address(deserializer).map(Some)
}

pub(crate) fn default_up_within() -> Duration {
    Duration::from_secs(20)
}

/// Somebody who is there reads a number off a telephone in this time. Below the four minutes that
/// ocserv waits (`auth-timeout`).
pub(crate) fn default_answer_within() -> Duration {
    Duration::from_mins(3)
}

pub(crate) fn default_dead_after() -> Duration {
    Duration::from_secs(10)
}

pub(crate) fn default_prefer_first_after() -> Duration {
    Duration::from_mins(5)
}

pub(crate) fn default_recheck() -> Duration {
    Duration::from_secs(30)
}

pub(crate) fn default_round_trip() -> Duration {
    Duration::from_millis(50)
}

pub(crate) fn every_place() -> Vec<Place> {
    vec![Place::Remote, Place::Office]
}

pub(crate) fn every_uplink() -> Vec<UplinkKind> {
    vec![UplinkKind::Wired, UplinkKind::Wifi, UplinkKind::Sim]
}
