//! Where the gate stands: [`Situation`], and the machine that moves it.
//!
//! Pure: events and the time go in, actions come out. It begins closed, and every failure, end of
//! file, suspension, jump of a clock and doubt leads back to closed. There is a way out only while
//! a live path leads to a gateway that has proven itself by a handshake.

mod direct;
mod engaged;
mod event;
mod factor;
mod knocks;
mod liveness;
mod machine;
mod paths;
mod premises;
mod standby;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;

use sekisho_control::{PathId, Place, Side, UplinkKind, WireId};

pub use self::event::{Action, Event};
pub use self::factor::{Demanded, max_wrong};
pub use self::machine::Machine;
pub use self::paths::{MAX_PATHS, PathInfo, Proof};
use super::admit::Scope;

/// Names a gateway by its place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(pub u8);

/// Where guest packets may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// Nowhere.
    Closed(Reason),
    /// Through the tunnel.
    Tunnelled {
        /// The gateway at its end.
        gateway: GatewayId,
        /// The path that carries it.
        path: PathId,
        /// What kind of uplink that path uses.
        kind: UplinkKind,
        /// Which side of the gateway it enters.
        side: Side,
        /// Where the laptop has proven to be.
        place: Place,
    },
    /// Onto the office LAN itself, over the port that holds the proof of being there.
    Direct {
        /// The wire of that port.
        wire: WireId,
    },
}

impl Situation {
    /// The circumstances under which policy decides; none while closed.
    pub const fn scope(&self) -> Option<Scope> {
        match *self {
            Self::Closed(_) => None,
            Self::Tunnelled { kind, place, .. } => Some(Scope {
                place,
                uplink: kind,
            }),
            Self::Direct { .. } => Some(Scope {
                place: Place::Office,
                uplink: UplinkKind::Wired,
            }),
        }
    }

    /// The path that the tunnel is on.
    pub const fn path(&self) -> Option<PathId> {
        match *self {
            Self::Tunnelled { path, .. } => Some(path),
            Self::Closed(_) | Self::Direct { .. } => None,
        }
    }
}

/// Why there is no way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The gate has just begun.
    Started,
    /// No uplink leads to a gateway.
    NoPath,
    /// A handshake is under way.
    Connecting,
    /// The gateway does not answer any more.
    GatewaySilent,
    /// The uplink process is gone.
    UplinkGone,
    /// The laptop sleeps.
    Suspended,
    /// A clock jumped, or the laptop slept without telling us.
    Doubt,
    /// A gateway demands a second factor, and the person is being asked.
    SecondFactor,
    /// The second factor was not given, or not taken, and is not asked for at present.
    SecondFactorMissing,
}

impl Reason {
    /// The reason in plain words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::NoPath => "no uplink leads to a gateway",
            Self::Connecting => "waiting for the gateway's handshake",
            Self::GatewaySilent => "the gateway does not answer",
            Self::UplinkGone => "the uplink process is gone",
            Self::Suspended => "suspended",
            Self::Doubt => "the clock jumped or the laptop slept",
            Self::SecondFactor => "waiting for the second factor",
            Self::SecondFactorMissing => "the second factor is missing",
        }
    }
}

/// Times that policy gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// An engine that needs longer than this to bring its tunnel up has failed.
    pub up_within: Duration,
    /// Silence of a gateway after which the gate closes.
    pub dead_after: Duration,
    /// First pause before a failed path is tried again.
    pub retry_first: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// How often the proof of premises is renewed.
    pub recheck: Duration,
    /// An earlier gateway must have been well for so long before a later one, which works, is left for
    /// it.
    pub prefer_first_after: Duration,
    /// An engine that crashes while it serves is begun again at once, but not twice in so long.
    pub healthy_after: Duration,
}
