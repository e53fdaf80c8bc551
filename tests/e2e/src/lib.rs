//! The journey from power-on to LGWAN, end to end in the QEMU laptop.
#![forbid(unsafe_code)]

pub mod probe;
