//! What a virtio device is, apart from its transport.

use super::{DriverFault, GuestRam, VirtQueue};
use crate::pci::Class;
use crate::worker::{Source, Turn};

/// Device type (virtio 1.2, section 5) and the PCI class that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Network card.
    Net,
    /// Block device.
    Block,
    /// Console.
    Console,
    /// Entropy source.
    Entropy,
    /// Graphics card.
    Gpu,
    /// Keyboard, mouse or tablet.
    Input,
}

impl Kind {
    /// Device id of virtio; the PCI device id is this plus 0x1040.
    pub const fn id(self) -> u16 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Console => 3,
            Self::Entropy => 4,
            Self::Gpu => 16,
            Self::Input => 18,
        }
    }

    /// PCI class code.
    pub const fn class(self) -> Class {
        let (base, sub) = match self {
            Self::Net => (0x02, 0x00),
            Self::Block => (0x01, 0x00),
            Self::Console => (0x07, 0x80),
            Self::Entropy => (0x00, 0xff),
            Self::Gpu => (0x03, 0x80),
            Self::Input => (0x09, 0x80),
        };
        Class {
            base,
            sub,
            interface: 0,
        }
    }
}

/// Whether something that was asked for is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is.
    Done,
    /// It waits for operations that still use guest memory; ask again after the next wake-up.
    Waiting,
}

/// The queues and the memory that a turn works on.
pub struct Io<'a> {
    /// Guest memory.
    pub ram: &'a GuestRam,
    /// The queues, by index.
    pub queues: &'a mut [VirtQueue],
}

/// A virtio device. All methods are called under its transport's lock and never block.
pub trait Device: Send {
    /// Its type.
    fn kind(&self) -> Kind;

    /// Device-specific feature bits that it offers (0 to 23 and 50 to 63). The transport adds those
    /// of rings and transport.
    fn features(&self) -> u64;

    /// Whether this subset of the offered features makes sense (virtio 1.2, section 2.2: the
    /// requirements between features).
    fn accepts(&self, features: u64) -> bool {
        let _ = features;
        true
    }

    /// Largest size of each queue; a power of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// MSI-X vectors to offer; at most 256.
    fn vectors(&self) -> u16 {
        u16::try_from(self.queue_sizes().len() + 1).unwrap_or(u16::MAX)
    }

    /// Reads device configuration; bytes past its end read zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes device configuration. Most devices have nothing to write.
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver is ready with these features; all queues count as notified.
    fn activate(&mut self, features: u64);

    /// Forgets the driver. Where operations on guest memory are still under way it says `Waiting`
    /// and is asked again; it no longer touches queues or memory of its own accord. Called on a
    /// vCPU's thread, whose seccomp filter allows no system call of a back end.
    fn reset(&mut self) -> Progress;

    /// Lets the operations that a reset waits for go on; called on the I/O thread.
    fn drain(&mut self) -> Turn {
        Turn::Idle
    }

    /// The driver notified queue `index`.
    fn notified(&mut self, index: usize);

    /// The source with this token is readable, writable or broken.
    fn ready(&mut self, token: u32) {
        let _ = token;
    }

    /// Does what there is to do, within the device's budget for one turn.
    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault>;

    /// Whether the configuration changed since the last call, so that the driver is told.
    fn take_config_change(&mut self) -> bool {
        false
    }

    /// What to wait for now, one entry a descriptor.
    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        let _ = list;
    }
}
