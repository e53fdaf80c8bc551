//! The DHCP client (RFC 2131) of one port: takes an address, a mask and a router, and nothing else.
//!
//! No resolver, no search domain, no time server, no proxy and above all no routes: what a server
//! sends of these is named in a report and forgotten.

mod client;
mod packet;
mod socket;

pub(crate) use client::Lease;
pub(crate) use client::{Client, Step};
pub(crate) use socket::Socket;
