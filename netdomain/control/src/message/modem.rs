//! Modem and uplink.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Carries;

/// Modem to uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "modem")]
pub enum ModemToUplink {
    /// This is the bearer, in place of any other.
    Bearer(Bearer),
    /// There is none.
    NoBearer,
}

impl Carries for ModemToUplink {
    fn descriptors(&self) -> usize {
        0
    }
}

/// A connection of the modem that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    /// Interface that carries it.
    pub interface: String,
    /// Where its address comes from.
    pub address: BearerAddress,
    /// Longest packet that the mobile network says that it carries, in bytes.
    pub mtu: Option<u16>,
}

/// Where the address of a bearer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum BearerAddress {
    /// The modem was told it.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Length of its prefix.
        prefix: u8,
        /// The next hop.
        router: Ipv4Addr,
    },
    /// It is asked for over the interface.
    Dhcp,
}

/// Uplink to modem: nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UplinkToModem {}

impl Carries for UplinkToModem {
    fn descriptors(&self) -> usize {
        match *self {}
    }
}
