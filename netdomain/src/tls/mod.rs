//! The engine of a TLS tunnel: openconnect and its keeper, for networks that carry TCP 443 and
//! nothing else.
//!
//! One process that the supervisor starts, and openconnect as its child, both in one sandbox. The
//! keeper tells openconnect to begin and to end, joins each connection that it makes to one that the
//! uplink made, and passes the socket for packets on to the gate once openconnect is connected.
//! Between gate and keeper there is a channel ([`sekisho_control::GateToEngine`]); packets do not
//! pass through the keeper.
//!
//! | module | what |
//! |---|---|
//! | `place` | network namespace, root, filter of system calls |
//! | `client` | openconnect: its words and its life |
//! | `handover` | what openconnect runs in place of a script |
//! | `relay` | bytes of TLS between openconnect and the uplink's connection |
//! | `keeper` | the loop that joins them |

mod client;
mod handover;
mod keeper;
mod place;
mod relay;

use std::io;
use std::path::PathBuf;

use sekisho_control::{Channel, ChannelError, InheritedError, inherited};
use sekisho_policy::GatewayProtocol;
use sekisho_sandbox::{FilterError, SandboxError};
use thiserror::Error;

use self::client::Gateway;
use self::keeper::Keeper;
use crate::papers::{Papers, PapersError};

pub(crate) use handover::fuzz as fuzz_handover;
pub use handover::{Args as HandoverArgs, HandoverError, run as hand_over};

/// Command line of `sekisho-netdomain tls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    papers: Papers,
    /// The certificate of this laptop, in PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its private key, in PEM.
    #[arg(long)]
    key: PathBuf,
    /// The channel to the gate, an inherited descriptor; it may come later.
    #[arg(long, value_name = "fd:N")]
    gate: Option<String>,
    /// The channel to the supervisor, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    control: String,
    /// The user that the engine becomes.
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

/// Why the engine ended.
#[derive(Debug, Error)]
pub enum TlsError {
    /// An inherited descriptor is not there.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// There is no policy that may be applied.
    #[error("no policy, no network: {0}")]
    Papers(#[from] PapersError),
    /// The policy names no gateway of kind `tls`.
    #[error("the policy names no gateway of kind `tls`: take `[tls]` out of supervisor.toml")]
    NoGateway,
    /// The network of the engine could not be made.
    #[error("the engine's own network cannot be made: {0}; it needs CAP_SYS_ADMIN at start")]
    Network(#[source] io::Error),
    /// This program was not found.
    #[error("the path of this program is not known: {0}")]
    Program(#[source] io::Error),
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

/// Runs the engine until it is told to end.
///
/// # Errors
/// [`TlsError`]; the tunnel is down then, and the gate knows by the end of its channel.
pub fn run(args: &Args) -> Result<(), TlsError> {
    let policy = args.papers.read()?;
    let silence = policy.vpn.dead_after;
    let gateways: Vec<Gateway> = policy
        .vpn
        .gateway
        .iter()
        .filter_map(|gateway| match gateway.protocol {
            GatewayProtocol::Tls { spki_sha256 } => Some(Gateway {
                name: gateway.name.clone(),
                address: gateway.address,
                pin: spki_sha256.0,
            }),
            GatewayProtocol::Wireguard { .. } | GatewayProtocol::Ikev2 { .. } => None,
        })
        .collect();
    drop(policy);
    if gateways.is_empty() {
        return Err(TlsError::NoGateway);
    }
    let control = Channel::from_fd(inherited(&args.control)?)?;
    let gate = match &args.gate {
        None => None,
        Some(word) => Some(Channel::from_fd(inherited(word)?)?),
    };
    let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address).collect();
    let (network, listeners) = place::network(&addresses)?;
    place::close_in(network, (&args.certificate, &args.key), args.user)?;
    let places = gateways.into_iter().zip(listeners).collect();
    Keeper::new(places, silence, control, gate).serve()
}
