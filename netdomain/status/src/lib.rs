//! The window through which the person with the laptop, and IT, look in: what the laptop says of
//! itself, why it is not connected, and the Varlink interface `jp.sekisho.Laptop` that says both.
//!
//! The supervisor hears every report of every process. It keeps a [`Ledger`] of them and answers
//! with it on a Unix socket through a [`Window`]; both are values without sockets and clocks. Nothing
//! can be asked for that changes anything, but that the person's answer may be given to a gateway that
//! demands one, by those who may give it ([`Wish`]). [`diagnose`] derives
//! what is wrong from what the processes have reported: it sends nothing to any network.
//!
//! | module | what |
//! |---|---|
//! | `status` | what is told, as it goes over the wire |
//! | `ledger` | keeps what was reported, bounded |
//! | `doctor` | the checked list from carrier to page |
//! | `varlink` | what calls ask for, and the description |
//! | `window` | what answers them |
//! | `client` | the other end, for `sekisho` |
//! | `words` | what it means, in Japanese and English |
#![forbid(unsafe_code)]

pub mod client;
mod doctor;
pub mod fuzz;
mod ledger;
mod status;
mod text;
pub mod varlink;
mod window;
pub mod words;

pub use doctor::{Cause, Check, Outcome, Step, diagnose};
pub use ledger::Ledger;
pub use status::{
    Agent, Answers, Demand, Dot1x, Gateway, Ignored, Policy, Process, ProcessState, Refusal, Sim,
    Situation, Standing, Status, Uplink, UplinkState, Work,
};
pub use window::{View, Window, Wish};

/// Where the supervisor listens unless its configuration says otherwise.
pub const SOCKET: &str = "/run/sekisho/laptop";
