//! A driver by hand, which can write any nonsense into its rings.

use virtio_drivers::transport::Transport as _;
use vm_memory::{Bytes, GuestAddress};

use super::hal::take_pages;
use super::ram;
use super::transport::BarTransport;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const NEEDS_RESET: u8 = 64;

/// One descriptor: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

pub struct Ring {
    pub index: u16,
    pub size: u16,
    pub table: u64,
    pub available: u64,
    pub used: u64,
    pub next: u16,
    seen: u16,
}

impl Ring {
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        write_descriptor(self.table + u64::from(index) * 16, descriptor);
    }

    /// Puts a chain at these descriptors (`NEXT` is added) from `first` on, and makes it
    /// available.
    pub fn offer(&mut self, first: u16, buffers: &[(u64, u32, u16)]) {
        let last = buffers.len() - 1;
        for (number, (address, len, flags)) in buffers.iter().enumerate() {
            let index = first + u16::try_from(number).unwrap();
            let flags = if number == last { *flags } else { flags | NEXT };
            self.set_descriptor(index, (*address, *len, flags, index + 1));
        }
        self.offer_head(first);
    }

    pub fn offer_head(&mut self, head: u16) {
        let slot = self.available + 4 + u64::from(self.next % self.size) * 2;
        put_u16(slot, head);
        self.next = self.next.wrapping_add(1);
        self.set_available(self.next);
    }

    pub fn set_available(&self, index: u16) {
        put_u16(self.available + 2, index);
    }

    pub fn used_index(&self) -> u16 {
        get_u16(self.used + 2)
    }

    /// The next used element: head and bytes written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.seen {
            return None;
        }
        let slot = self.used + 4 + u64::from(self.seen % self.size) * 8;
        self.seen = self.seen.wrapping_add(1);
        Some((get_u32(slot), get_u32(slot + 4)))
    }
}

/// The driver of one device.
pub struct Driver {
    pub transport: BarTransport,
}

impl Driver {
    /// Resets the device and negotiates these features; the device has to take them.
    pub fn start(mut transport: BarTransport, features: u64) -> Self {
        transport.set_common(0x14, &[0]);
        assert_eq!(transport.status(), 0);
        transport.set_common(0x14, &[3]);
        transport.write_driver_features(features);
        transport.set_common(0x14, &[0xb]);
        assert_eq!(transport.status(), 0xb, "the features were refused");
        Self { transport }
    }

    pub fn ring(&mut self, index: u16, size: u16) -> Ring {
        let ring = Ring {
            index,
            size,
            table: take_pages(2),
            available: take_pages(1),
            used: take_pages(1),
            next: 0,
            seen: 0,
        };
        self.transport
            .queue_set(index, size.into(), ring.table, ring.available, ring.used);
        ring
    }

    pub fn go(&self) {
        self.transport.set_common(0x14, &[0xf]);
        assert_eq!(self.transport.status(), 0xf);
    }

    pub fn kick(&mut self, ring: &Ring) {
        self.transport.notify(ring.index);
    }

    pub fn needs_reset(&self) -> bool {
        self.transport.status() & NEEDS_RESET != 0
    }
}

pub fn write_descriptor(at: u64, (address, len, flags, next): Descriptor) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    ram().write_slice(&bytes, GuestAddress(at)).unwrap();
}

pub fn put(at: u64, bytes: &[u8]) {
    ram().write_slice(bytes, GuestAddress(at)).unwrap();
}

pub fn get(at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram().read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

pub fn put_u16(at: u64, value: u16) {
    ram().write_obj(value.to_le(), GuestAddress(at)).unwrap();
}

pub fn get_u16(at: u64) -> u16 {
    u16::from_le(ram().read_obj(GuestAddress(at)).unwrap())
}

pub fn get_u32(at: u64) -> u32 {
    u32::from_le(ram().read_obj(GuestAddress(at)).unwrap())
}
