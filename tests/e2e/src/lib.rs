//! The journey from power-on to LGWAN, end to end in the QEMU laptop.
//!
//! [`journey::Journey`] switches the laptop on and takes it through one of
//! [`journey::steps`] after the other; the demo shows them to a person, and the end-to-end tests are the same steps.
#![forbid(unsafe_code)]

#[cfg(feature = "journey")]
pub mod journey;
pub mod probe;
