//! Canaries: random bytes that the guest's traffic carries and that nobody may see in clear.

use memchr::memmem::Finder;

use crate::{LabError, papers::hex};

/// Sixteen random bytes of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    bytes: [u8; 16],
}

impl Canary {
    /// A fresh canary.
    pub fn random() -> Result<Self, LabError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| LabError::Papers {
            what: error.to_string(),
        })?;
        Ok(Self { bytes })
    }

    /// A canary of known bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    /// The bytes, for binary payloads.
    pub fn bytes(&self) -> [u8; 16] {
        self.bytes
    }

    /// Lower-case hex, for text payloads and names.
    pub fn hex(&self) -> String {
        hex(&self.bytes)
    }
}

/// The canaries of a run, ready to be searched for as bytes and as hex of either case.
#[derive(Debug, Clone)]
pub struct Canaries {
    patterns: Vec<(String, Finder<'static>)>,
}

impl Canaries {
    /// Prepares a search.
    pub fn new<'c>(canaries: impl IntoIterator<Item = &'c Canary>) -> Self {
        let mut patterns = Vec::new();
        for canary in canaries {
            let hex = canary.hex();
            let mut add = |form: &str, pattern: &[u8]| {
                let name = format!("{}… as {form}", &hex[..8]);
                patterns.push((name, Finder::new(pattern).into_owned()));
            };
            add("bytes", &canary.bytes());
            add("hex", hex.as_bytes());
            add("hex", hex.to_uppercase().as_bytes());
        }
        Self { patterns }
    }

    /// Which canary is in `bytes`, if any.
    pub fn find(&self, bytes: &[u8]) -> Option<&str> {
        self.patterns
            .iter()
            .find(|(_, finder)| finder.find(bytes).is_some())
            .map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_as_bytes_and_as_hex() {
        let canary = Canary::from_bytes(*b"0123456789abcde\xff");
        let canaries = Canaries::new([&canary]);
        let wrap = |inner: &[u8]| [b"before", inner, b"after"].concat();
        assert!(canaries.find(&wrap(&canary.bytes())).is_some());
        assert!(canaries.find(&wrap(canary.hex().as_bytes())).is_some());
        assert!(
            canaries
                .find(&wrap(canary.hex().to_uppercase().as_bytes()))
                .is_some()
        );
        assert!(canaries.find(&wrap(&canary.bytes()[1..])).is_none());
    }
}
