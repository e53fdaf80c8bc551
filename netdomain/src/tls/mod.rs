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
//! | `sign_in` | a person's one-time password, before the tunnel |
//! | `tunnel` | one tunnel: what is done when |

mod client;
mod handover;
mod place;
mod relay;
mod sign_in;
mod tunnel;

use std::io;
use std::path::PathBuf;

use sekisho_policy::GatewayProtocol;
use thiserror::Error;

use self::client::Gateway;
use self::tunnel::OpenConnect;
use crate::engine::{self, EngineError, Keeper};

pub(crate) use handover::fuzz as fuzz_handover;
pub use handover::{Args as HandoverArgs, HandoverError, run as hand_over};

/// Command line of `sekisho-netdomain tls`.
#[derive(Debug, clap::Args)]
#[group(id = "tls")]
pub struct Args {
    #[command(flatten)]
    engine: engine::Args,
    /// The private key of this laptop, in PEM.
    #[arg(long)]
    key: PathBuf,
    /// The name under which gateways that demand a one-time password know the person.
    #[arg(long = "as", value_name = "NAME")]
    person: Option<String>,
}

/// Why the engine ended.
#[derive(Debug, Error)]
pub enum TlsError {
    /// As any engine may.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nobody is named to sign in.
    #[error(
        "gateway `{0}` demands a one-time password: write `user` of `[tls]` into supervisor.toml, as \
         the gateway knows the person"
    )]
    Nobody(String),
    /// This program was not found.
    #[error("the path of this program is not known: {0}")]
    Program(#[source] io::Error),
}

/// Runs the engine until it is told to end.
///
/// # Errors
/// [`TlsError`]; the tunnel is down then, and the gate knows by the end of its channel.
pub fn run(args: &Args) -> Result<(), TlsError> {
    let policy = args.engine.policy()?;
    let silence = policy.vpn.dead_after;
    let gateways = policy.vpn.gateway.iter();
    let gateways: Vec<Gateway> = gateways
        .filter_map(|gateway| match gateway.protocol {
            GatewayProtocol::Tls { spki_sha256 } => Some((gateway, spki_sha256.0)),
            GatewayProtocol::Wireguard { .. } | GatewayProtocol::Ikev2 { .. } => None,
        })
        .map(|(gateway, pin)| {
            let person = match (gateway.second_factor, &args.person) {
                (None, _) => None,
                (Some(_), Some(person)) => Some(person.clone()),
                (Some(_), None) => return Err(TlsError::Nobody(gateway.name.clone())),
            };
            Ok(Gateway {
                name: gateway.name.clone(),
                address: gateway.address,
                pin,
                person,
            })
        })
        .collect::<Result<_, _>>()?;
    drop(policy);
    if gateways.is_empty() {
        let (kind, table) = ("tls", "tls");
        return Err(EngineError::NoGateway { kind, table }.into());
    }
    let channels = args.engine.channels()?;
    let addresses = gateways.iter().map(|gateway| gateway.address).collect();
    let (network, listeners) = place::network(addresses)?;
    place::close_in(network, args)?;
    let places = gateways.into_iter().zip(listeners).collect();
    Ok(Keeper::new(OpenConnect::new(places, silence), channels).serve()?)
}
