//! A malicious driver in the guest: attacks T36 and T38 to T41 on the devices, and what transport
//! and rings refuse beside. The loop is turned by hand, so that its work can be counted.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

#[path = "../virtio_fixture/mod.rs"]
mod virtio_fixture;

mod card;
mod console;
mod disk;
mod net;
mod rings;
mod transport;

/// Turns that any one attack may take.
const TURNS: usize = 64;
