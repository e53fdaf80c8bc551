//! What the processes say to each other, a file a channel. Descriptors travel beside a message, in the
//! order that its documentation names.

mod command;
mod engine;
mod modem;
mod report;
mod uplink;

use serde::{Deserialize, Serialize};

pub use command::{Command, Port};
pub use engine::{DownCause, EngineToGate, GateToEngine};
pub use modem::{Bearer, BearerAddress, ModemToUplink, UplinkToModem};
pub use report::{
    GatewayFound, ModemFound, QuotaState, Refused, Report, SituationReport, WorkFound,
};
pub use uplink::{GateToUplink, LanMember, LanPlace, UplinkToGate};

/// How many descriptors travel beside a message. A channel sends and accepts exactly as many.
pub trait Carries {
    /// The number of descriptors, at most [`MAX_FDS`](crate::MAX_FDS).
    fn descriptors(&self) -> usize;
}

/// Names one path; never used again while the uplink process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathId(pub u32);

/// Names one wire of a proven port; never used again while the uplink process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WireId(pub u32);

/// Where the laptop is, as far as it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// Not proven to be in the office.
    #[serde(rename = "remote")]
    Remote,
    /// Proven by the premises beacon.
    #[serde(rename = "onprem")]
    Office,
}

/// Which address of a gateway a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The address on the internet side.
    Outside,
    /// The address on the office LAN.
    Lan,
}

/// Kinds of uplink, as policy names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkKind {
    /// Ethernet.
    Wired,
    /// Wi-Fi.
    Wifi,
    /// A mobile modem.
    Sim,
}
