//! The network domain: the gate, which holds the tunnel keys and decides what passes, the uplink,
//! which holds the network cards, and the engines of TLS and `IPsec` tunnels where policy has them.
//! Processes of one program that distrust each other.

pub mod engine;
pub mod fuzzing;
pub mod gate;
pub mod ike;
pub mod moment;
pub mod papers;
pub mod portal;
pub mod premises;
mod program;
pub mod recycle;
pub mod tls;
mod tun;
pub mod tunnel;
pub mod uplink;
