//! The virtual machine monitor that runs the work OS.

pub mod pci;
pub mod virtio;
