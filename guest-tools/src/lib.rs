//! The channel into the work OS: protocol, guest agent, host end.
//!
//! A byte stream (a virtio-console port named [`PORT_NAME`]) joins two programs that do not trust
//! each other: the agent in the work OS, and the host end, which is a sandboxed process of its
//! own. What can be said is in [`message`], and it is all there is: a notice to the person, a
//! clean shutdown, signs of life. There is no command execution and no access to files, and no
//! message for them to be added to by an attacker.
//!
//! The protocol is pure: [`frame`] cuts the stream, [`HostSession`] and [`AgentSession`] take
//! bytes and injected time and give what is to be done. Sockets and clocks are in [`port`] and in
//! the two programs.
#![forbid(unsafe_code)]

pub mod frame;
pub mod fuzz;
pub mod message;
pub mod port;

mod agent;
mod bucket;
mod host;
mod sequence;
mod text;

pub use agent::{AgentOutput, AgentSession};
pub use host::{HostOutput, HostSession};
pub use text::clean;

use std::time::Duration;

/// The console port's name.
pub const PORT_NAME: &str = "jp.sekisho.agent.0";

/// Each side says that it lives this often.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// A peer that said nothing for so long is silent: two heartbeats lost and some delay.
pub const SILENCE: Duration = Duration::from_secs(25);
