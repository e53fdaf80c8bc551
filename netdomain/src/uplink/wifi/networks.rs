//! The networks that the person or IT entered: names and secrets, as types that can say nothing
//! else.
//!
//! ```toml
//! [[network]]
//! ssid = "mihon-home"
//! passphrase = "correct horse battery"
//!
//! [[network]]                        # a name that is no text: its bytes
//! ssid_hex = "83658358836783ff"
//! passphrase = "correct horse battery"
//!
//! [[network]]                        # 802.1X with a certificate (EAP-TLS)
//! ssid = "mihon-office"
//! [network.certificate]
//! identity = "mihon-0001@mihon-city.example"
//! server = "radius.mihon-city.example"
//! authorities = "/etc/sekisho/wifi-ca.pem"
//! certificate = "/etc/sekisho/wifi.pem"
//! key = "/etc/sekisho/wifi.key"
//! ```

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error};

/// Longest SSID (IEEE 802.11-2020, 9.4.2.2).
const MAX_SSID: usize = 32;
/// Lengths of a passphrase (IEEE 802.11-2020, J.4.1).
const PASSPHRASE: std::ops::RangeInclusive<usize> = 8..=63;
/// Longest word of a certificate's entry: a path of Linux.
const MAX_WORD: usize = 4095;
/// Networks in one file. The supplicant compares each with each scan result.
const MAX_NETWORKS: usize = 64;
/// Longest file, in bytes: [`MAX_NETWORKS`] with long paths.
pub(crate) const MAX_FILE: usize = 256 * 1024;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Networks {
    #[serde(default, rename = "network", deserialize_with = "not_too_many")]
    pub(crate) networks: Vec<Network>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) ssid: Ssid,
    pub(crate) secret: Secret,
}

/// How the laptop proves itself to a network, and the network to the laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// Both know it.
    Passphrase(Passphrase),
    /// EAP-TLS.
    Certificate(Certificate),
}

/// The name of a network: any 1 to 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ssid(Vec<u8>);

impl Ssid {
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=MAX_SSID).contains(&bytes.len()).then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ssid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// 8 to 63 printable ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Passphrase(String);

impl Passphrase {
    pub(crate) fn new(text: String) -> Option<Self> {
        let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        (PASSPHRASE.contains(&text.len()) && printable).then_some(Self(text))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What EAP-TLS needs. The server's name is not optional: without it any server with a certificate
/// of the same authority could play the office's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of the file's keys")]
pub(crate) struct Certificate {
    /// Whom we say that we are.
    pub(crate) identity: Word,
    /// The name in the server's certificate.
    pub(crate) server: Word,
    /// File of the authorities that may have signed it (PEM).
    pub(crate) authorities: Word,
    /// File of our certificate (PEM).
    pub(crate) certificate: Word,
    /// File of its key (PEM).
    pub(crate) key: Word,
}

/// A word without controls and quotes, so that it is one word everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word(String);

impl Word {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
        if (1..=MAX_WORD).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(
                "1 to 4095 bytes without quotes, backslashes and controls",
            ))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    ssid: Option<String>,
    ssid_hex: Option<String>,
    passphrase: Option<String>,
    certificate: Option<Certificate>,
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        let bytes = match (table.ssid, table.ssid_hex) {
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(digits)) => unhex(&digits),
            _ => {
                return Err(D::Error::custom(
                    "one of `ssid` and `ssid_hex`, and not both",
                ));
            }
        };
        let ssid = bytes
            .and_then(Ssid::new)
            .ok_or_else(|| D::Error::custom("an SSID has 1 to 32 bytes"))?;
        let secret = match (table.passphrase, table.certificate) {
            (Some(text), None) => Secret::Passphrase(Passphrase::new(text).ok_or_else(|| {
                D::Error::custom("a passphrase has 8 to 63 printable ASCII characters")
            })?),
            (None, Some(certificate)) => Secret::Certificate(certificate),
            // A network without either is an open one.
            _ => {
                return Err(D::Error::custom(
                    "a network needs one of `passphrase` and `certificate`, and not both",
                ));
            }
        };
        Ok(Self { ssid, secret })
    }
}

fn not_too_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    let networks = Vec::<Network>::deserialize(deserializer)?;
    if networks.len() > MAX_NETWORKS {
        return Err(D::Error::custom(format_args!(
            "more than {MAX_NETWORKS} networks"
        )));
    }
    Ok(networks)
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    (digits.len().is_multiple_of(2) && digits.len() <= 2 * MAX_SSID).then_some(())?;
    digits
        .chunks_exact(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}
