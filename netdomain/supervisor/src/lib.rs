//! Starts the domains of a laptop, restarts what dies, passes fresh sockets.
//!
//! The supervisor is the only process that starts others. It makes every socket pair between them,
//! so that no process connects to or names anything, and it holds the uplink's network namespace,
//! so that the network cards do not come back to the host when the uplink dies.
//!
//! What to do when something dies is a pure machine ([`plan`]); the rest of the crate does what it
//! says. Every process sees the end of its peer as end of file, and a fresh peer as an
//! [`Attach`](sekisho_control::Command::Attach) with a descriptor. Nobody else is restarted for it.
//!
//! It hears every report, and so it is also who tells: the person in the work OS of changes that
//! last, and whoever may connect to its status socket of everything (`sekisho status`).
#![deny(unsafe_code)]

mod asking;
mod child;
mod config;
mod events;
mod host;
mod netns;
mod notices;
pub mod plan;
mod power;
mod run;
mod serving;

pub use config::{Config, ConfigError};
pub use run::{SuperviseError, run};
