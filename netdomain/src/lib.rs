//! The network domain: the gate, which holds the tunnel keys and decides what passes, the uplink,
//! which holds the network cards, and the engine of a TLS tunnel where policy has one. Processes of
//! one program that distrust each other.

pub mod fuzzing;
pub mod gate;
pub mod moment;
pub mod papers;
pub mod premises;
pub mod tls;
mod tun;
pub mod tunnel;
pub mod uplink;
