//! The gate: the one process that decides about every frame of the work OS.

pub mod admit;
mod bucket;
pub mod counters;
pub mod device;
mod direct;
pub mod edge;
mod engine;
mod engines;
mod expiry;
mod factor;
pub mod family;
mod findings;
#[cfg(test)]
mod fixture;
mod guest;
mod inward;
mod knocking;
mod messages;
mod names;
mod outward;
pub mod packet;
pub mod path;
pub mod plan;
mod room;
mod run;
pub mod situation;
pub mod sockets;
mod standby;
mod turn;

pub use engine::{Gate, Parts};
pub use guest::{Guest, MOST_FROM_GUEST};
pub use run::{Args, GateError, run};
