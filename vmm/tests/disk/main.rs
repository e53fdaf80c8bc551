//! What a disk does with the ranges that a guest gives up or zeroes, and with the images it is made of.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

#[path = "../virtio_fixture/mod.rs"]
mod virtio_fixture;

mod device;
mod hostile;
mod images;
mod losses;
mod ranges;
mod served;
