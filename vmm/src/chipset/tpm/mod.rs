//! The TPM 2.0: registers on the board ([`crb`]), and `swtpm`, a process of its own, behind them.
//!
//! [`control`] opens swtpm by its control channel before the sandbox closes; [`courier`] carries
//! commands to it and answers back on a thread of its own, so that a key that takes seconds to make
//! holds no processor; [`command`] is the little of a command that this side reads. The guest and swtpm
//! are both distrusted: each byte of either is bounded and checked, and when swtpm lies, hangs or dies
//! the guest has an error and the log a line.

pub mod command;
pub mod control;
pub mod courier;
pub mod crb;

pub use command::{Command, Response};
pub use control::{Patience, Swtpm, TpmError};
pub use courier::{Courier, Farewell, Tpm};
pub use crb::{Crb, Executor};
