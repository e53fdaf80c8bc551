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
    let number: u32 = parsed("VPNFD", env::var("VPNFD").ok())?;
    let packets = inherited(&format!("fd:{number}"))?;
    let connected = Connected::read(|name| env::var(name).ok())?;
    Ok(keeper.send(&connected, &[packets.as_fd()])?)
}

impl Connected {
    /// Reads openconnect's environment. The gateway chose the values.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HandoverError> {
        let (address, mtu) = ("INTERNAL_IP4_ADDRESS", "INTERNAL_IP4_MTU");
        Ok(Self {
            address: parsed(address, variable(address))?,
            mtu: parsed(mtu, variable(mtu))?,
        })
    }
}

fn parsed<T: FromStr>(name: &'static str, text: Option<String>) -> Result<T, HandoverError> {
    text.and_then(|text| text.parse().ok())
        .ok_or(HandoverError::Missing(name))
}

/// Reads `data` as what a gateway put into openconnect's environment, one value behind the other with
/// a zero byte between, or as what the script says to the keeper: see [`crate::fuzzing`].
///
/// # Panics
/// When what was read does not survive being said again.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        crate::fuzzing::said_again::<Connected>(rest);
        return;
    }
    let text = String::from_utf8_lossy(rest);
    let (address, mtu) = text.split_once('\0').unwrap_or((&text, ""));
    let variable = |name: &str| Some(if name.ends_with("MTU") { mtu } else { address }.to_owned());
    if let Ok(connected) = Connected::read(variable) {
        let said = serde_json::to_vec(&connected).expect("it is plain");
        crate::fuzzing::said_again::<Connected>(&said);
    }
}
