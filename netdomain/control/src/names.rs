//! Words of the work OS that are said on to a DHCP server: each is checked wherever it comes in.

use serde::{Deserialize, Serialize};

/// Longest name of a host: one label (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 63;
/// Longest class: Windows says eight letters, Linux clients some thirty.
const MAX_CLASS: usize = 48;

/// The name of a host: one label of letters, digits and hyphens (RFC 1123, section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// A vendor class (RFC 2132, section 9.13), such as `MSFT 5.0`: printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VendorClass(String);

impl HostName {
    /// The name, if it is one.
    pub fn new(text: &[u8]) -> Option<Self> {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let fits = (1..=MAX_HOST).contains(&text.len())
            && edge(text.first())
            && edge(text.last())
            && text.iter().all(inner);
        fits.then(|| Self(String::from_utf8_lossy(text).into_owned()))
    }

    /// As it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl VendorClass {
    /// The class, if it is one.
    pub fn new(text: &[u8]) -> Option<Self> {
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        let fits = (1..=MAX_CLASS).contains(&text.len()) && text.iter().all(printable);
        fits.then(|| Self(String::from_utf8_lossy(text).into_owned()))
    }

    /// As it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for HostName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text.as_bytes()).ok_or("not the name of a host")
    }
}

impl TryFrom<String> for VendorClass {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text.as_bytes()).ok_or("not a vendor class")
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl From<VendorClass> for String {
    fn from(class: VendorClass) -> Self {
        class.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_classes_are_printable() {
        for good in ["shimin-017", "A", "0x"] {
            assert!(HostName::new(good.as_bytes()).is_some(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a.b", "a b", "a\0", "役所", &*long] {
            assert!(HostName::new(bad.as_bytes()).is_none(), "{bad}");
            let message = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<HostName>(&message).is_err(), "{bad}");
        }
        assert!(VendorClass::new(b"MSFT 5.0").is_some());
        for bad in [&b""[..], b"a\n", b"\xff", &[b'a'; 49]] {
            assert!(VendorClass::new(bad).is_none(), "{bad:?}");
        }
    }
}
