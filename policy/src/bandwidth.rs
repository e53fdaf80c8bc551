//! `[bandwidth]`: how much of the way may be used, by everything together and by named classes of
//! flows.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The name under which the limit of everything together stands; no class can have it.
pub(crate) const TOTAL: &str = "total";
/// Most classes. The example of a whole city has one; the bound keeps the gate's counters a small
/// fixed table.
pub const MAX_CLASSES: usize = 8;
/// Slowest rate, in bit/s. Below it a single full packet takes longer than a second, and TCP takes
/// that for a loss.
const MIN_RATE: u64 = 16_000;
/// Fastest rate, in bit/s: more than any laptop's NIC, and far from overflow in nanoseconds.
const MAX_RATE: u64 = 100_000_000_000;

/// A rate in bits a second; never zero.
///
/// ```
/// let rate: sekisho_policy::Rate = "10Mbit/s".parse().unwrap();
/// assert_eq!(rate.bits_per_second().get(), 10_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// Bits a second, in IP packets of the work OS; what the tunnel adds is not counted.
    pub const fn bits_per_second(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let scale = match unit {
            "bit/s" => Some(1),
            "kbit/s" => Some(1_000),
            "Mbit/s" => Some(1_000_000),
            "Gbit/s" => Some(1_000_000_000),
            _ => None,
        };
        let count: Option<u64> = count.parse().ok();
        count
            .zip(scale)
            .and_then(|(count, scale)| count.checked_mul(scale))
            .filter(|rate| (MIN_RATE..=MAX_RATE).contains(rate))
            .and_then(NonZeroU64::new)
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a rate such as \"256kbit/s\" or \"10Mbit/s\" (16kbit/s to 100Gbit/s; leave the key out for no limit)"
                )
            })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.0.get();
        for (scale, unit) in [
            (1_000_000_000, "Gbit/s"),
            (1_000_000, "Mbit/s"),
            (1_000, "kbit/s"),
        ] {
            if rate.is_multiple_of(scale) {
                return write!(f, "{}{unit}", rate / scale);
            }
        }
        write!(f, "{rate}bit/s")
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `{ up = "2Mbit/s", down = "4Mbit/s" }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// From the work OS.
    pub up: Rate,
    /// To the work OS.
    pub down: Rate,
}

/// `[bandwidth]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Everything together.
    pub total: Option<Rates>,
    /// Classes by name; a flow names the one that it belongs to.
    pub classes: BTreeMap<String, Rates>,
}

/// A class, by its place in [`Bandwidth::classes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub u8);

impl Bandwidth {
    /// The class of this name.
    pub(crate) fn class(&self, name: &str) -> Option<ClassId> {
        let place = self.classes.keys().position(|class| class == name)?;
        u8::try_from(place).ok().map(ClassId)
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut classes = BTreeMap::<String, Rates>::deserialize(deserializer)?;
        let total = classes.remove(TOTAL);
        Ok(Self { total, classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown_in_the_same_words() {
        for text in ["16kbit/s", "256kbit/s", "10Mbit/s", "1Gbit/s", "16001bit/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "0Mbit/s",
            "10",
            "10MB/s",
            "10 Mbit/s",
            "-1Mbit/s",
            "1.5Mbit/s",
            "15kbit/s",
            "101Gbit/s",
            "99999999999999999999bit/s",
            "18446744073709551615Gbit/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
