//! PCI root bus 0: the bus itself, the configuration space of a type 0 function, MSI-X, and the
//! traits between devices and the board.
//!
//! A [`PciDevice`] is plain data: it answers configuration and BAR accesses and knows nothing of
//! KVM. What it needs of the board (an interrupt vector, a doorbell) it asks of a [`Platform`].

mod bus;
mod config;
mod host_bridge;
mod msi;
mod msix;
mod nowhere;

use std::io;

use vmm_sys_util::eventfd::EventFd;

pub use self::bus::{BusError, CONFIG_ADDRESS_PORT, CONFIG_DATA_PORT, PciBus, Windows};
pub use self::config::{Class, ConfigSpace, Identity};
pub use self::host_bridge::HostBridge;
pub use self::msi::Msi;
pub use self::msix::Msix;
pub use self::nowhere::Nowhere;

/// Base address registers of a type 0 function (PCI Local Bus 3.0, section 6.1).
pub const BAR_COUNT: usize = 6;

/// Place of a function on bus 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Slot {
    /// The function at `device`.`function` of bus 0; the numbers are cut to 5 and 3 bits.
    pub const fn new(device: u8, function: u8) -> Self {
        Self {
            device: device & 0x1f,
            function: function & 0x7,
        }
    }

    /// Device and function as one byte, as configuration addresses carry them.
    pub const fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }
}

/// What a memory BAR asks of the address map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarShape {
    /// Index of the BAR, 0 to 5; a 64-bit BAR also occupies the next one.
    pub index: u8,
    /// Size in bytes: a power of two, 16 or more.
    pub size: u64,
    /// Whether it is a 64-bit BAR; such a one is placed in the 64-bit window.
    pub wide: bool,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

/// A memory BAR and where it answers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// What it asks.
    pub shape: BarShape,
    /// Guest physical address while memory decoding is on, else `None`.
    pub address: Option<u64>,
}

/// One PCI function on bus 0.
pub trait PciDevice: Send {
    /// Reads configuration space at byte `offset` (0 to 4095); `data` is 1, 2 or 4 bytes and does
    /// not cross a dword. Bytes of no register read zero.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);

    /// Writes configuration space, in the shapes of [`PciDevice::read_config`].
    fn write_config(&mut self, offset: u16, data: &[u8]);

    /// The memory BARs and where they answer now.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }

    /// Reads `data.len()` bytes (1 to 8) at `offset` inside BAR `bar`.
    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        let _ = (bar, offset);
        data.fill(0xff);
    }

    /// Writes `data` (1 to 8 bytes) at `offset` inside BAR `bar`.
    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        let _ = (bar, offset, data);
    }

    /// Tells that BAR `bar` now answers at `address`, or no longer answers. The bus calls it after
    /// each change, so that the device can move its doorbells.
    fn bar_moved(&mut self, bar: u8, address: Option<u64>) {
        let _ = (bar, address);
    }

    /// Returns to the state of power-on: registers, BARs, interrupts. The bus follows with
    /// [`PciDevice::bar_moved`].
    fn reset(&mut self);

    /// Whether a reset is complete. A device with operations under way on guest memory ends them
    /// first, on the I/O thread.
    fn quiet(&self) -> bool {
        true
    }
}

/// An MSI message as the guest wrote it into an MSI-X table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Address of the write, 64 bits.
    pub address: u64,
    /// Value of the write.
    pub data: u32,
}

/// A vector of the board, as [`Platform::allocate_vectors`] gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vector(pub u32);

/// What a device needs of the board.
///
/// The board implements it with irqfd and ioeventfd; tests with plain memory. Every method may be
/// called from a vCPU thread as well as from the I/O thread, under the lock of a device and
/// possibly of the bus: it must not call back into either.
pub trait Platform: Send + Sync {
    /// Reserves `count` interrupt vectors for the lifetime of the board.
    fn allocate_vectors(&self, count: u16) -> io::Result<Vec<Vector>>;

    /// Sets the message that a vector sends, or takes it away. Called only on a change.
    fn route(&self, vector: Vector, message: Option<MsiMessage>) -> io::Result<()>;

    /// Sends the vector's message once. With irqfd: one write to its eventfd.
    fn signal(&self, vector: Vector) -> io::Result<()>;

    /// Makes each guest write to `address`, of whatever length and value, signal `event` without
    /// leaving the kernel. Where this fails the write still reaches [`PciDevice::write_bar`].
    fn map_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Undoes [`Platform::map_doorbell`].
    fn unmap_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;
}
