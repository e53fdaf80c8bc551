//! Typed messages and file descriptors between Sekisho's own processes.
//!
//! Every process of the laptop is born with one or two `SOCK_SEQPACKET` sockets that the
//! supervisor made; it neither connects to nor names anything. A message is one packet: JSON of a
//! known type, at most [`MAX_MESSAGE`] bytes, with at most [`MAX_FDS`] descriptors beside it.
//! Whatever is longer, carries other descriptors than its type calls for, or does not parse ends
//! the channel: the peer is then treated as crashed.
#![forbid(unsafe_code)]

mod channel;
mod message;

pub use channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE, Received};
pub use message::{
    Command, GateToUplink, PathId, Place, Port, Refused, Report, Side, SituationReport,
    UplinkKind, UplinkToGate,
};
