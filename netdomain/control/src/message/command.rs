//! Supervisor to any process.

use serde::{Deserialize, Serialize};

use super::Carries;
use crate::{DemandId, Secret};

/// Where a process can be given a fresh socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// The frame link between VMM and gate.
    Link,
    /// The channel to the uplink process: the gate's ([`GateToUplink`](crate::GateToUplink)) or the modem's
    /// ([`ModemToUplink`](crate::ModemToUplink)).
    Uplink,
    /// The uplink's channel to the process that asks for the SIM ([`UplinkToModem`](crate::UplinkToModem)).
    Modem,
    /// The channel to the gate process: the uplink's ([`UplinkToGate`](crate::UplinkToGate)) or the engine's
    /// ([`EngineToGate`](crate::EngineToGate)).
    Gate,
    /// The gate's channel to the engine of its TLS tunnel ([`GateToEngine`](crate::GateToEngine)).
    Tls,
    /// The gate's channel to the engine of its `IPsec` tunnel ([`GateToEngine`](crate::GateToEngine)).
    Ike,
    /// The host end of the guest channel: a stream socket to the virtio-console port.
    GuestChannel,
    /// The link between the VMM's screen and the seat that shows it.
    Seat,
}

/// Supervisor to any process. An answer cannot be copied, so neither can a command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// A fresh peer is there. One descriptor: the socket. Whatever the process held on that port
    /// is closed first.
    Attach {
        /// The port that the socket belongs to.
        port: Port,
    },
    /// The laptop is about to sleep: close everything, prove again after [`Command::Resume`].
    Suspend,
    /// The laptop woke up.
    Resume,
    /// Somebody pressed the power button (VMM only): ask the work OS to shut down.
    PowerButton,
    /// What the person answered (gate only).
    Answer {
        /// To which asking.
        demand: DemandId,
        /// The answer.
        answer: Secret,
    },
    /// The person is there: what nobody answered may be asked again (gate only).
    AskAgain,
    /// Show a notice to the person (guest channel only).
    Notice {
        /// Japanese text.
        ja: String,
        /// English text.
        en: String,
    },
    /// End in an orderly way.
    Shutdown,
}

impl Carries for Command {
    fn descriptors(&self) -> usize {
        match self {
            Self::Attach { .. } => 1,
            Self::Suspend
            | Self::Resume
            | Self::PowerButton
            | Self::Answer { .. }
            | Self::AskAgain
            | Self::Notice { .. }
            | Self::Shutdown => 0,
        }
    }
}
