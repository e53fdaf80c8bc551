//! What the nodes serve: stock servers started as children, and the lab's small answering machines.

mod answer;
mod ipsec;
mod server;

pub use answer::{Guestbook, Visit};
pub(crate) use answer::{Machine, answer};
pub(crate) use ipsec::strongswan;
pub use ipsec::{Esp, esp};
pub(crate) use server::{
    START_LIMIT, WIREGUARD_INTERFACE, dnsmasq, end_wireguard, nginx, ocserv, wireguard,
};
