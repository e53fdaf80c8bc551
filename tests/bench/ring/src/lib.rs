//! A frame link through memory: one ring a direction, in memory that its producer made and sealed.
//!
//! No part of the product: the frame link is measured against it (`cargo xtask bench link`), and
//! `docs/src/frame-link.md` says why the socket stays. It is whole and attacked like the real one,
//! because a ring without its checks would be measured faster than any that could be used.
//!
//! | memory | maker and only writer | holds |
//! |---|---|---|
//! | ring | producer | its index, from which index of the consumer on it wants to be woken, the records |
//! | index | consumer | its index, from which index of the producer on it wants to be woken |
//!
//! Each end maps the other's memory read-only, after it has seen that the size is right and sealed
//! ([`Offer`]), so that nothing which the peer does to it can be a fault here. A record is a length
//! and a message; it starts a cache line. The length is loaded once and bounded, the message is
//! copied to the [`FrameArena`](sekisho_framelink::FrameArena), and only the copy is looked at. An index or a
//! length that no healthy peer has ends the link ([`Broken`]), for what follows cannot be found any
//! more; a message that breaks the [`Rules`](sekisho_framelink::Rules) is dropped and counted, as by a
//! [`SeqPacket`](sekisho_framelink::SeqPacket).
//!
//! The socket over which the memory came stays: its end of file tells that the peer is gone, and a
//! byte on it is the doorbell, which is rung only for a peer that wrote down that it sleeps. An
//! eventfd would be cheaper but is not safe here: whether it blocks is a flag of the open file,
//! which the peer shares, and a peer that takes the flag off and fills the counter stops whoever
//! rings next. A socket's flag can be given with each call.
//!
//! What is other than with a socket, for whoever waits: only *readable* has a meaning, for room as
//! for frames. After a batch that came back full, or a send that came back short, nothing is
//! readable until the peer moves: receive again until a batch is not full, then wait, then receive
//! and send again.

#![deny(unsafe_code)]

mod hello;
mod index;
mod link;
#[expect(unsafe_code, reason = "memory that another process writes")]
mod memory;
#[cfg(test)]
mod model;

pub use hello::{Handshake, Offer, Refused};
pub use index::Broken;
pub use link::Ring;

/// Bytes of records in one direction: about 15 super-frames, which is what a socket with
/// [`SEND_BUFFER`](sekisho_framelink::SEND_BUFFER) holds, and little enough to stay in a core's cache.
pub const CAPACITY: usize = 1 << 20;
