//! The seat: the one process that owns screen, keyboard and mouse.
//!
//! The VMM shows it pictures, which it copies into a frame of its own, writes the watermark over and
//! presents; what the person types and points at goes the other way. The guest draws into memory
//! that it shares with nobody but the VMM and the seat's copying, and never sees what the seat
//! presents: it can neither read nor remove the watermark.
#![forbid(unsafe_code)]

pub mod font;
pub mod frame;
pub mod notice;
pub mod outbox;
pub mod picture;
pub mod place;
pub mod rfb;
pub mod sandbox;
pub mod seat;
pub mod serve;
pub mod stamp;
pub mod viewers;
pub mod watermark;
