//! What the engines of tunnels have in common: a program of the distribution that makes the tunnel, and
//! a keeper that the supervisor starts, both closed into one sandbox.
//!
//! The keeper starts the program when the gate wants a tunnel and ends it with that wish, and passes on
//! sockets: the uplink's to the program, the descriptor for packets to the gate. What differs is what
//! the program is told and what its answers mean: an [`Engine`] and its [`Tunnel`] say so, one of
//! them in [`tls`](crate::tls) and one in [`ike`](crate::ike).

mod keeper;
mod place;

use std::io;
use std::path::PathBuf;

use sekisho_control::{
    Channel, ChannelError, Command, EngineToGate, GateToEngine, InheritedError, Report, inherited,
};
use sekisho_policy::{Policy, Verified};
use sekisho_sandbox::{FilterError, SandboxError};
use thiserror::Error;

use crate::papers::{Papers, PapersError};

pub(crate) use keeper::{Engine, Keeper, News, Tunnel};
pub(crate) use place::{close_in, in_network};

/// What every engine is told on its command line.
#[derive(Debug, clap::Args)]
#[group(id = "engine")]
pub struct Args {
    #[command(flatten)]
    papers: Papers,
    /// The certificate of this laptop, in PEM.
    #[arg(long)]
    pub(crate) certificate: PathBuf,
    /// The channel to the gate, an inherited descriptor; it may come later.
    #[arg(long, value_name = "fd:N")]
    gate: Option<String>,
    /// The channel to the supervisor, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    control: String,
    /// The user that the engine becomes.
    #[arg(long, value_name = "UID")]
    pub(crate) user: Option<u32>,
}

/// The two whom an engine listens to.
pub(crate) struct Channels {
    control: Channel<Report, Command>,
    gate: Option<Channel<EngineToGate, GateToEngine>>,
}

impl Args {
    /// The policy, if it may be applied.
    pub(crate) fn policy(&self) -> Result<Verified<Policy>, EngineError> {
        Ok(self.papers.read()?)
    }

    /// The channels that were inherited. Once only: the descriptors are taken.
    pub(crate) fn channels(&self) -> Result<Channels, EngineError> {
        Ok(Channels {
            control: Channel::from_fd(inherited(&self.control)?)?,
            gate: match &self.gate {
                None => None,
                Some(word) => Some(Channel::from_fd(inherited(word)?)?),
            },
        })
    }
}

/// Why an engine ended.
#[derive(Debug, Error)]
pub enum EngineError {
    /// An inherited descriptor is not there.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// There is no policy that may be applied.
    #[error("no policy, no network: {0}")]
    Papers(#[from] PapersError),
    /// The policy names no gateway for this engine.
    #[error(
        "the policy names no gateway of kind `{kind}`: take `[{table}]` out of supervisor.toml"
    )]
    NoGateway {
        /// The kind, as policy calls it.
        kind: &'static str,
        /// The engine, as `supervisor.toml` calls it.
        table: &'static str,
    },
    /// The network of the engine could not be made.
    #[error("the engine's own network cannot be made: {0}; it needs CAP_SYS_ADMIN at start")]
    Network(#[source] io::Error),
    /// A channel is unusable.
    #[error("a channel to another process cannot be used: {0}")]
    Channel(#[from] ChannelError),
    /// The process could not be closed in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The system calls could not be filtered.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Waiting failed.
    #[error("waiting for events failed: {0}")]
    Wait(rustix::io::Errno),
}
