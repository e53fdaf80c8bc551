//! Names that mobile and Wi-Fi networks go by.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// An access point name: labels of letters, digits and hyphens (3GPP TS 23.003, section 9.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Apn(String);

/// Longest access point name, in octets (3GPP TS 23.003, section 9.1).
const MAX_APN: usize = 100;

impl Apn {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Apn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= MAX_APN && text.split('.').all(label) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(format_args!(
                "`{text}` is not an access point name such as \"mihon.closed.example\""
            )))
        }
    }
}

/// A mobile network: country code and network code, 5 or 6 digits (ITU-T E.212).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plmn(String);

impl Plmn {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Plmn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Plmn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if (5..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(format_args!(
                "`{text}` is not a mobile network: 5 or 6 digits such as \"44010\""
            )))
        }
    }
}

/// A pattern for names of Wi-Fi networks: `*` is any run of bytes, `?` one byte, and a letter stands
/// for its other case too. A pattern that refuses must not be got round by a capital.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SsidGlob(String);

/// Longest pattern: twice the longest SSID, for stars between its bytes.
const MAX_GLOB: usize = 64;

impl SsidGlob {
    /// Whether the pattern covers this SSID.
    pub fn matches(&self, ssid: &[u8]) -> bool {
        let glob = self.0.as_bytes();
        let (mut at, mut read) = (0, 0);
        // Where the last star stands, and how far of the SSID it has eaten: enough to go back to,
        // so the work is at most the product of both lengths.
        let mut star = None;
        while read < ssid.len() {
            match glob.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&ssid[read]) => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((back, eaten)) = star else {
                        return false;
                    };
                    star = Some((back, eaten + 1));
                    (at, read) = (back + 1, eaten + 1);
                }
            }
        }
        glob[at..].iter().all(|byte| *byte == b'*')
    }
}

impl<'de> Deserialize<'de> for SsidGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if (1..=MAX_GLOB).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(
                "a pattern for SSIDs has 1 to 64 bytes, such as \"*-Free-*\"",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> SsidGlob {
        SsidGlob(text.to_owned())
    }

    #[test]
    fn patterns_cover_what_they_name() {
        let free = glob("*-Free-*");
        assert!(free.matches(b"Cafe-Free-WiFi") && free.matches(b"-free-"));
        assert!(!free.matches(b"CafeFreeWiFi") && !free.matches(b""));
        assert!(glob("a?c").matches(b"a\0c") && !glob("a?c").matches(b"ac"));
        assert!(glob("*").matches(b"") && glob("*").matches(&[0xff; 32]));
        assert!(!glob("abc").matches(b"abcd") && !glob("abcd").matches(b"abc"));
    }

    /// The definition, word for word.
    fn naive(glob: &[u8], ssid: &[u8]) -> bool {
        match glob.split_first() {
            None => ssid.is_empty(),
            Some((b'*', rest)) => (0..=ssid.len()).any(|cut| naive(rest, &ssid[cut..])),
            Some((byte, rest)) => ssid.split_first().is_some_and(|(first, ssid)| {
                (*byte == b'?' || byte.eq_ignore_ascii_case(first)) && naive(rest, ssid)
            }),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_what_its_definition_says(
            pattern in "[ab?*]{1,8}",
            ssid in "[abAB]{0,10}",
        ) {
            prop_assert_eq!(
                glob(&pattern).matches(ssid.as_bytes()),
                naive(pattern.as_bytes(), ssid.as_bytes())
            );
        }
    }
}
