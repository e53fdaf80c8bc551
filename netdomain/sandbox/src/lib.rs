//! Closes a process in: namespaces, an empty root, capabilities, limits, Landlock, seccomp.
//!
//! A process opens everything it needs, calls [`Sandbox::enter`] while it has one thread, starts
//! its threads, and each thread installs its [`Filter`] as the last thing before it serves. The
//! thread that starts the others installs its own last, because a filter is inherited.
//!
//! ```no_run
//! use sekisho_sandbox::{BARE, EVENTS, Capabilities, Filter, MESSAGES, Network, Sandbox};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // … open files and sockets …
//! let enforced = Sandbox::closed().user(64_017, 64_017).enter()?;
//! let filter = Filter::new("gate", &[BARE, EVENTS, MESSAGES])?;
//! filter.install()?;
//! // … serve …
//! # let _ = (enforced, Network::Keep, Capabilities::NONE);
//! # Ok(())
//! # }
//! ```

mod credentials;
mod filter;
mod paths;
mod root;
mod sandbox;
mod sets;

pub use credentials::Capabilities;
pub use filter::{Filter, FilterError, Is, Rule};
pub use paths::{Access, Demand, Landlock};
pub use root::Root;
pub use sandbox::{Enforced, Limits, Network, Sandbox, SandboxError};
pub use sets::{BARE, EVENTS, FILES, MESSAGES, THREADS};
