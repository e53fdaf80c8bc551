//! Virtio 1.2 devices behind modern virtio-pci.
//!
//! A device ([`Device`]) is registers and queues as plain data: no KVM, no threads. [`VirtioPci`]
//! gives it configuration space, BAR and interrupts; the [`crate::worker`] serves queue notifications and
//! back ends of all devices on one thread. Everything the guest wrote is hostile: a chain that
//! breaks the rules of the rings puts its device into the error state `DEVICE_NEEDS_RESET`, a
//! request that breaks those of its device is refused or dropped and counted.

mod chain;
mod device;
mod queue;
mod regs;
mod transport;

pub mod block;
pub mod console;
pub mod fuzzing;
pub mod gpu;
pub mod input;
pub mod net;
pub mod rng;

pub use self::chain::{Chain, Piece};
pub use self::device::{Device, Io, Kind, Progress};
pub use self::queue::{DriverFault, VirtQueue};
pub use self::transport::VirtioPci;

/// Guest memory as all devices see it. Cloning shares the mapping.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;

/// Entries of a virtqueue. Linux asks for 256 on virtio-net and at most this many elsewhere; it is
/// also the longest chain, and so bounds the work and the memory of one request.
pub const QUEUE_SIZE: u16 = 256;
