//! The SIM: a process of its own that asks ModemManager over D-Bus for a connection as policy wants
//! it, and tells the uplink what came of it.
//!
//! It holds the bus and nothing else: no network, no file, no key. What it says to the uplink is one
//! small message of a known type, which the uplink checks again; the worst that a lie there can do
//! is to give the SIM's own interface another address or another next hop, over which the same
//! sealed packets go to the same gateway.
//!
//! It sends no code to a SIM, scans for nothing, changes no mode, band or firmware, reads no message
//! and calls nobody: the calls that it can make are those of `turn`, and there are five.
//!
//! | module | what |
//! |---|---|
//! | `session` | what to ask and what follows: the pure machine |
//! | `objects` | what ModemManager says, as types |
//! | `dbus` | the little of D-Bus that this needs |
//! | `place` | the sandbox |
//! | `turn` | the loop that joins them |

mod dbus;
mod objects;
mod place;
mod session;
mod turn;

use std::path::PathBuf;

use sekisho_control::{Channel, inherited};

pub use self::{dbus::bus::BusError, session::Wish};
use super::Endpoints;
use crate::papers::{Papers, PapersError};

/// Arguments of `sekisho-netdomain modem`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy and what is remembered of the last one.
    #[command(flatten)]
    pub papers: Papers,
    /// The socket of the message bus that ModemManager is on.
    #[arg(long, default_value = "/run/dbus/system_bus_socket")]
    pub bus: PathBuf,
    /// Channel to the uplink, `fd:N`; it may come later over the control channel.
    #[arg(long)]
    pub uplink: Option<String>,
    /// Control channel to the supervisor, `fd:N`.
    #[arg(long)]
    pub control: String,
    /// Run as this user (and group of the same number).
    #[arg(long)]
    pub user: Option<u32>,
}

/// Why the process ended. The SIM is not used then.
#[derive(Debug, thiserror::Error)]
pub enum ModemError {
    /// A descriptor on the command line.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// There is no policy that may be applied.
    #[error("no policy, no network: {0}")]
    Papers(#[from] PapersError),
    /// The policy does not say what the SIM must be.
    #[error(
        "the policy names neither `apn` nor `plmn` for a SIM: take `[modem]` out of supervisor.toml"
    )]
    NoWish,
    /// A channel to the supervisor or the uplink.
    #[error("a channel to another process cannot be used: {0}")]
    Channel(#[from] sekisho_control::ChannelError),
    /// The process could not be closed in.
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    /// The filter of system calls could not be set.
    #[error(transparent)]
    Filter(#[from] sekisho_sandbox::FilterError),
    /// The message bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Waiting failed.
    #[error("waiting for events failed: {0}")]
    Wait(rustix::io::Errno),
}

/// Runs until it is told to end, or the bus is gone. The calling thread must be the only one.
///
/// # Errors
/// [`ModemError`]; the uplink shuts the SIM by the end of its channel.
pub fn run(args: &Args) -> Result<(), ModemError> {
    let wish = Endpoints::from(&args.papers.read()?).mobile;
    let wish = wish.ok_or(ModemError::NoWish)?;
    let control = Channel::from_fd(inherited(&args.control)?)?;
    let uplink = match &args.uplink {
        None => None,
        Some(word) => Some(Channel::from_fd(inherited(word)?)?),
    };
    // The first look at the clock finds the vDSO by calls that the sandbox does not allow.
    let _ = super::turn::now();
    let bus = place::close_in(&args.bus, args.user)?;
    turn::Turn::new(bus, session::Session::new(wish), control, uplink).serve()
}

/// Reads `data` as an answer of ModemManager's, in the frame of a message: see [`crate::fuzzing`].
///
/// # Panics
/// If what was read breaks what its types promise.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let Ok(message) = dbus::Message::parse(data) else {
        return;
    };
    let path = || objects::ObjectPath::new("/m").expect("it is a path");
    let call = match which % 4 {
        0 => session::Call::Modems,
        1 => session::Call::Bearer(path()),
        2 => session::Call::Connect(path()),
        _ => session::Call::Disconnect(path()),
    };
    if let Ok(session::Answer::Modems(modems)) = turn::read(&call, &message) {
        assert!(modems.len() * size_of::<objects::Modem>() <= data.len() * 64);
    }
}
