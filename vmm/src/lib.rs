//! The virtual machine monitor that runs the work OS.

pub mod acpi;
pub mod board;
pub mod boot;
pub mod bus;
pub mod chipset;
pub mod cpu;
pub mod irq;
pub mod machine;
pub mod pci;
pub mod virtio;
