//! `[bandwidth]`: how much of the way may be used, by everything together and by named classes of
//! flows.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::quantity::Rate;

/// The name under which the limit of everything together stands; no class can have it.
pub(crate) const TOTAL: &str = "total";
/// Most classes. The example of a whole city has one; the bound keeps the gate's counters a small
/// fixed table.
pub const MAX_CLASSES: usize = 8;

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
