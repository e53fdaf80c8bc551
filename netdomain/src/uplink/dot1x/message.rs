//! What the uplink and the keeper of the wired supplicants say to each other.

use sekisho_control::Carries;
use serde::{Deserialize, Serialize};

use super::Standing;

/// Names one carrier of one port: another cable is another one, and what is said of an old one
/// counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Carrier(pub(crate) u64);

/// Uplink to keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "uplink")]
pub(crate) enum ToKeeper {
    /// A port has a carrier: speak 802.1X over it.
    Begin {
        /// Its name from now on.
        carrier: Carrier,
        /// Interface.
        port: String,
    },
    /// The carrier is gone.
    End {
        /// Which one.
        carrier: Carrier,
    },
}

/// Keeper to uplink, whenever it changes. A carrier begins as [`Standing::Asking`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FromKeeper {
    /// Of which carrier.
    pub(crate) carrier: Carrier,
    /// How its port stands.
    pub(crate) standing: Standing,
}

impl Carries for ToKeeper {
    fn descriptors(&self) -> usize {
        0
    }
}

impl Carries for FromKeeper {
    fn descriptors(&self) -> usize {
        0
    }
}
