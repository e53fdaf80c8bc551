//! Typed messages and file descriptors between Sekisho's own processes.
//!
//! Every process of the laptop is born with one or two `SOCK_SEQPACKET` sockets that the
//! supervisor made; it neither connects to nor names anything. A message is one packet: JSON of a
//! known type, at most [`MAX_MESSAGE`] bytes, with at most [`MAX_FDS`] descriptors beside it.
//! Whatever is longer, carries other descriptors than its type calls for, or does not parse ends
//! the channel: the peer is then treated as crashed.
//!
//! ```
//! use sekisho_control::{Channel, Command, Report, pair};
//!
//! # fn main() -> Result<(), sekisho_control::ChannelError> {
//! let (supervisor, process) = pair()?;
//! let supervisor = Channel::<Command, Report>::from_fd(supervisor)?;
//! let process = Channel::<Report, Command>::from_fd(process)?;
//! supervisor.send(&Command::Resume, &[])?;
//! let received = process.recv()?.expect("it was sent");
//! assert_eq!(received.message, Command::Resume);
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod channel;
mod demand;
mod inherited;
mod message;
mod names;
mod secret;

pub use channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE, Received, pair};
pub use demand::{Demand, DemandId, DemandStage, Factor, TokenFault};
pub use inherited::{InheritedError, inherited};
pub use message::{
    Bearer, BearerAddress, Carries, Command, DownCause, EngineToGate, GateToEngine, GateToUplink,
    GatewayFound, LanMember, LanPlace, ModemFound, ModemToUplink, PathId, Place, Port, QuotaState,
    Refused, Report, Side, SituationReport, UplinkKind, UplinkToGate, UplinkToModem, WireId,
    WorkFound,
};
pub use names::{HostName, VendorClass};
pub use secret::{MAX_ANSWER, NoAnswer, Secret};
