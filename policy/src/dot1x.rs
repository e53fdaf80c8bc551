//! 802.1X on the office's cables: `dot1x` and `radius` of `[onprem]`.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error};

use crate::value::Pin;

/// Longest name in DNS (RFC 1035, 2.3.4), without the final dot.
const MAX_NAME: usize = 253;
/// Longest label of one (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// What a port must have agreed on before anything over it proves the office. There is one method:
/// EAP-TLS (RFC 5216), in which both sides hold a certificate and no password exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dot1x {
    /// The server that the laptop's certificate may be shown to.
    pub radius: Radius,
}

/// `radius = { name, ca_sha256 }`: who the authentication server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radius {
    /// The name in its certificate, whole.
    pub name: ServerName,
    /// SHA-256 of the certificate (DER) of the authority that issued it, in hex.
    pub ca_sha256: Pin,
}

/// A host's name as a certificate has it: letters, digits, hyphens and dots.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerName(String);

impl ServerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ServerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= MAX_NAME && text.split('.').all(label) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(format_args!(
                "`{text}` is not the name of a server such as \"radius.mihon-city.example\""
            )))
        }
    }
}

/// `dot1x`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    EapTls,
}

impl Dot1x {
    /// From the two keys, which stand or fall together.
    pub(crate) fn of(
        method: Option<Method>,
        radius: Option<Radius>,
    ) -> Result<Option<Self>, &'static str> {
        match (method, radius) {
            (Some(Method::EapTls), Some(radius)) => Ok(Some(Self { radius })),
            (None, None) => Ok(None),
            (Some(Method::EapTls), None) => Err(
                "`dot1x` needs `radius = { name, ca_sha256 }`: without it any switch could ask for the laptop's certificate",
            ),
            (None, Some(_)) => Err("`radius` needs `dot1x = \"eap-tls\"`"),
        }
    }
}
