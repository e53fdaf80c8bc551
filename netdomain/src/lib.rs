//! The network domain: the gate, which holds the tunnel keys and decides what passes, and the
//! uplink, which holds the network cards. Two processes of one program that distrust each other.

pub mod fuzzing;
pub mod gate;
pub mod moment;
pub mod papers;
pub mod premises;
pub mod tunnel;
pub mod uplink;
