//! Proof that the laptop is in the office: the gate's side of the beacon.
//!
//! The uplink connects TCP to the beacon over one wired port and hands the socket over; TLS 1.3
//! with a pinned key, a fresh nonce and a bound on the round trip make the proof. Names, addresses
//! and certificates' dates prove nothing and are not looked at.

mod answer;
mod beacon;
mod pin;

pub use beacon::{BeaconClient, Probe, Progress};
