//! The path: between admission and the sockets.

mod mss;
mod segment;

pub use segment::{Segment, Segments};
