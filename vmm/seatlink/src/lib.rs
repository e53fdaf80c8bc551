//! What the VMM and the seat say to each other: pictures go one way, keys and pointers the other.
//!
//! The two distrust each other, and each of them has the guest behind it: so every message is one
//! packet of a `SOCK_SEQPACKET` socket, of a fixed form and length, parsed once. Pixels never travel:
//! the VMM hands over a memory file that is sealed against shrinking, which the seat reads and never
//! writes.
//!
//! Pace: after a [`Picture::Damage`] the VMM says nothing more of that scan-out until the seat has
//! answered [`Input::Presented`]. A seat that stalls costs the VMM nothing, a guest that draws without
//! end costs the seat one frame at a time.

mod link;
mod message;

pub use link::{Link, LinkError};
pub use message::{
    AXIS_MAX, CURSOR_SIDE, Input, MAX_SCANOUTS, MAX_SIDE, MessageError, Mode, Picture, Rect,
    Scanout, ScanoutId,
};
