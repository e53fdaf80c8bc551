//! Amounts and speeds: `"5GiB"`, `"256kbit/s"`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Largest amount, 1 PiB: beyond it is a slip of the pen, and sums stay far from overflow.
const MAX_BYTES: u64 = 1 << 50;
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
    /// Bits a second.
    pub const fn bits_per_second(self) -> NonZeroU64 {
        self.0
    }

    /// Whole bytes a second; never 0.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get() / 8
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Decimal units, as carriers and network cards count.
        let units = [
            ("bit/s", 1),
            ("kbit/s", 1_000),
            ("Mbit/s", 1_000_000),
            ("Gbit/s", 1_000_000_000),
        ];
        scaled(text, &units)
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
            .map_err(D::Error::custom)
    }
}

/// An amount of data, where the key is there.
pub(crate) fn optional_bytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    scaled(&text, &units)
        .filter(|bytes| (1..=MAX_BYTES).contains(bytes))
        .map(Some)
        .ok_or_else(|| {
            D::Error::custom(format_args!(
                "`{text}` is not an amount such as \"500MiB\" or \"5GiB\" (at most 1024TiB)"
            ))
        })
}

/// Digits and a unit, nothing between them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    count.parse::<u64>().ok()?.checked_mul(*scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_told_in_the_same_words() {
        for text in ["16kbit/s", "256kbit/s", "10Mbit/s", "16001bit/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!(
            "256kbit/s".parse::<Rate>().unwrap().bytes_per_second(),
            32_000
        );
        for wrong in [
            "",
            "kbit/s",
            "256",
            "256 kbit/s",
            "-1Mbit/s",
            "8kbit/s",
            "0Mbit/s",
            "200Gbit/s",
            "256kB/s",
            "99999999999999999999bit/s",
            "18446744073709551615Gbit/s",
            "１Mbit/s",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
