//! The virtual machine monitor that runs the work OS.
//!
//! [`start::run`] takes a [`machine::Machine`] from its file to its end; [`board`] says what is
//! where, [`pci`] and [`virtio`] are what the guest works with, [`sandbox`] what is left to the
//! process when the guest starts.

pub mod acpi;
pub mod api;
pub mod board;
pub mod boot;
pub mod bus;
pub mod chipset;
pub mod control;
pub mod cpu;
pub mod devices;
pub mod disk;
pub mod display;
pub mod hda;
pub mod input;
pub mod irq;
pub mod machine;
pub mod nvme;
pub mod pci;
pub mod sandbox;
pub mod screenshot;
pub mod serve;
pub mod smbios;
pub mod start;
pub mod supply;
pub mod terminal;
pub mod virtio;
pub mod waking;
pub mod wire;
pub mod worker;

#[cfg(test)]
mod noise;
