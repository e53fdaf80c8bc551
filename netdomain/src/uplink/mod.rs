//! The uplink: holds the network cards and hands connected sockets to the gate.
//!
//! One process, one thread, in a network namespace of its own that holds the physical interfaces
//! and nothing else. It loads the packet filter before any link comes up, keeps leases, and for
//! each port with a lease opens one socket per gateway, bound to the port and connected to the
//! literal address of the policy. It never sees a tunnel key or a packet of the work OS.
//!
//! What it takes from the wire is an address, a mask and a router. It sets no default route and no
//! on-link prefix: a port has a /32 address, a route to its router, and one route for each gateway
//! (and for the premises beacon). So no lease, however wide, can draw traffic to the wire.

mod endpoints;

use std::path::PathBuf;

pub use endpoints::Endpoints;

/// Arguments of `sekisho-netdomain uplink`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy.
    #[arg(long)]
    pub policy: PathBuf,
    /// Its signature.
    #[arg(long)]
    pub signature: PathBuf,
    /// The public keys that may sign a policy.
    #[arg(long)]
    pub trust: PathBuf,
    /// The network namespace that holds the interfaces, as an inherited descriptor `fd:N`.
    #[arg(
        long,
        required_unless_present = "netns_here",
        conflicts_with = "netns_here"
    )]
    pub netns: Option<String>,
    /// The namespace that this process was started in holds the interfaces.
    #[arg(long)]
    pub netns_here: bool,
    /// Channel to the gate, `fd:N`; it may come later over the control channel.
    #[arg(long)]
    pub gate: Option<String>,
    /// Control channel to the supervisor, `fd:N`.
    #[arg(long)]
    pub control: String,
    /// Interfaces to use, separated by commas. Without it, each Ethernet interface of the namespace.
    #[arg(long, value_delimiter = ',')]
    pub ports: Vec<String>,
    /// Drop to this user id after set-up.
    #[arg(long)]
    pub user: Option<u32>,
}

/// Why the uplink could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {}

/// Runs the uplink until it is told to end.
pub fn run(_args: &Args) -> Result<(), UplinkError> {
    Ok(())
}
