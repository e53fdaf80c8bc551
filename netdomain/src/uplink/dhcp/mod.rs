//! The DHCP client (RFC 2131) of one port: takes an address, a mask and a router, and nothing else.
//!
//! No resolver, no search domain, no time server, no proxy and above all no routes: what a server
//! sends of these is named in a report and forgotten.

mod client;
mod packet;
mod socket;

pub(crate) use client::Lease;
pub(crate) use client::{Client, Step};
pub(crate) use socket::open;

/// Drives a client with `data` as frames, 16 bits of length before each: see [`crate::fuzzing`].
pub(crate) fn fuzz(mac: [u8; 6], random: fn() -> u32, data: &[u8]) {
    let mut client = Client::new(mac, std::time::Duration::ZERO, random);
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        let now = client.due();
        client.on_time(now);
        client.on_frame(now, frame, &|_| false);
        rest = tail;
    }
}
