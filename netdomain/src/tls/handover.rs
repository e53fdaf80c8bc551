//! `sekisho-netdomain handover`: what openconnect starts in place of a script once it is connected.
//!
//! openconnect (`--script-tun`) gives its script one end of a Unix datagram socket that carries one
//! IP packet a message, as descriptor number `VPNFD`, and what the gateway configured in the
//! environment. This passes both on to the keeper, and ends.

use std::env;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::str::FromStr;

use sekisho_control::{Carries, Channel, ChannelError, InheritedError, inherited};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Command line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The channel to the keeper, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    to: String,
}

/// openconnect is connected. One descriptor: the socket for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connected {
    /// The inner address that the gateway gave.
    pub(super) address: Ipv4Addr,
    /// The longest inner packet.
    pub(super) mtu: u16,
}

impl Carries for Connected {
    fn descriptors(&self) -> usize {
        1
    }
}

/// Nothing is said in the other direction.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Silence {}

impl Carries for Silence {
    fn descriptors(&self) -> usize {
        0
    }
}

/// Why the descriptor was not handed over.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// openconnect did not say something, or not in the form that is known.
    #[error("openconnect gave no usable {0}")]
    Missing(&'static str),
    /// A descriptor is not there.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// The keeper does not listen.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Hands over what openconnect gave.
///
/// # Errors
/// [`HandoverError`]; the tunnel then does not come up.
pub fn run(args: &Args) -> Result<(), HandoverError> {
    let keeper: Channel<Connected, Silence> = Channel::from_fd(inherited(&args.to)?)?;
    let packets = inherited(&format!("fd:{}", variable::<u32>("VPNFD")?))?;
    let connected = Connected {
        address: variable("INTERNAL_IP4_ADDRESS")?,
        mtu: variable("INTERNAL_IP4_MTU")?,
    };
    Ok(keeper.send(&connected, &[packets.as_fd()])?)
}

fn variable<T: FromStr>(name: &'static str) -> Result<T, HandoverError> {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(HandoverError::Missing(name))
}
