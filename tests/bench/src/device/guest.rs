//! A guest's driver for one network card: rings in guest memory, registers through the PCI bus.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use sekisho_vmm::pci::{
    CONFIG_ADDRESS_PORT, CONFIG_DATA_PORT, HostBridge, Nowhere, PciBus, PciDevice, Slot, Windows,
};
use sekisho_vmm::virtio::net::{Net, Settings};
use sekisho_vmm::virtio::{GuestRam, VirtioPci};
use sekisho_vmm::worker::Worker;
use vm_memory::{Bytes, GuestAddress};

use crate::BenchError;

const RAM_LEN: usize = 8 << 20;
/// Where the card's BAR is.
const BAR: u64 = 0x40_0000_0000;
const NOTIFY: u64 = 0x3000;
const SIZE: u16 = 256;
/// Entries of the transmit ring's table are laid out in pages, as Linux's fragments are.
const PAGE: usize = 4096;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: this driver polls.
const NO_INTERRUPT: u16 = 1;
/// Version 1; mergeable buffers; checksums and segmentation both ways.
const FEATURES: u64 = 1 << 32 | 1 << 15 | 0b11 | 1 << 7 | 1 << 11;
/// Pages of the rings, three a queue.
const RINGS: u64 = 0x1_0000;
const TRANSMIT_BUFFERS: u64 = 0x10_0000;
const RECEIVE_BUFFERS: u64 = 0x40_0000;
/// Configuration address of the card's command register, and bits for memory and bus mastering.
const COMMAND: u32 = 1 << 31 | 1 << 11 | 4;
const MEMORY_AND_MASTER: u16 = 6;
/// Turns that one batch may take.
const TURNS: usize = 100;

/// The driver.
pub(super) struct Guest {
    bus: PciBus,
    worker: Worker,
    ram: GuestRam,
    /// Available index and used index seen, of receive and transmit queue.
    available: [u16; 2],
    seen: [u16; 2],
}

impl Guest {
    /// A card on this link, its driver ready.
    pub(super) fn new(link: OwnedFd, mtu: u16) -> Result<Self, BenchError> {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)])
            .map_err(io::Error::other)
            .map_err(BenchError::system("map guest memory"))?;
        let mut net = Net::new(Settings::new([2, 0, 0, 0, 0, 1], mtu));
        net.attach(link)?;
        let card = VirtioPci::new(net, ram.clone(), Arc::new(Nowhere))
            .map_err(BenchError::system("make the card"))?;
        let card = Arc::new(Mutex::new(card));
        let windows = Windows {
            mmio32: 0xc000_0000..0xe000_0000,
            mmio64: BAR..BAR + 0x10_0000,
        };
        let bus = PciBus::new(HostBridge::new(None), windows);
        let function: Arc<Mutex<dyn PciDevice>> = card.clone();
        bus.attach(Slot::new(1, 0), function)
            .and_then(|()| bus.place_bars())
            .map_err(io::Error::other)
            .map_err(BenchError::system("place the card"))?;
        let worker = Worker::new(vec![card]).map_err(BenchError::system("make the event loop"))?;
        let mut guest = Self {
            bus,
            worker,
            ram,
            available: [0; 2],
            seen: [0; 2],
        };
        guest.negotiate()?;
        Ok(guest)
    }

    fn negotiate(&mut self) -> Result<(), BenchError> {
        self.bus
            .port_write(CONFIG_ADDRESS_PORT, &COMMAND.to_le_bytes());
        self.bus
            .port_write(CONFIG_DATA_PORT, &MEMORY_AND_MASTER.to_le_bytes());
        self.set(0x14, &[3]);
        let features = FEATURES.to_le_bytes();
        for (select, half) in (0_u32..).zip([&features[..4], &features[4..]]) {
            self.set(0x08, &select.to_le_bytes());
            self.set(0x0c, half);
        }
        self.set(0x14, &[0xb]);
        for queue in 0..3_u16 {
            self.set(0x16, &queue.to_le_bytes());
            for (page, field) in (0..).zip([0x20, 0x28, 0x30]) {
                self.set(field, &(ring(queue) + page * 0x1000).to_le_bytes());
            }
            self.write(ring(queue) + 0x1000, &NO_INTERRUPT.to_le_bytes())?;
            self.set(0x1c, &[1, 0]);
        }
        self.set(0x14, &[0xf]);
        let mut status = [0];
        self.bus.mmio_read(BAR + 0x14, &mut status);
        if status != [0xf] {
            return Err(BenchError::Missing(
                "the card refused its driver".to_owned(),
            ));
        }
        Ok(())
    }

    /// Puts the same message `frames` times into the transmit queue, in pages.
    pub(super) fn offer_frames(&mut self, message: &[u8], frames: usize) -> Result<(), BenchError> {
        let mut next: u16 = 0;
        for (place, page) in (TRANSMIT_BUFFERS..).step_by(PAGE).zip(message.chunks(PAGE)) {
            self.write(place, page)?;
        }
        for _ in 0..frames {
            let head = next;
            let mut left = message.len();
            for place in (TRANSMIT_BUFFERS..).step_by(PAGE) {
                let part = left.min(PAGE);
                left -= part;
                let flags = if left == 0 { 0 } else { NEXT };
                self.describe(1, next, place, part, flags)?;
                next += 1;
                if left == 0 {
                    break;
                }
            }
            self.make_available(1, head)?;
        }
        self.publish(1)
    }

    /// Fills the receive queue with pages.
    pub(super) fn offer_buffers(&mut self) -> Result<(), BenchError> {
        let posted = self.available[0].wrapping_sub(self.seen[0]);
        for _ in posted..SIZE {
            let index = self.available[0] % SIZE;
            let place = RECEIVE_BUFFERS + u64::from(index) * PAGE as u64;
            self.describe(0, index, place, PAGE, WRITE)?;
            self.make_available(0, index)?;
        }
        self.publish(0)
    }

    /// Notifies, and lets the card work until `frames` chains of the transmit queue are used.
    pub(super) fn run_transmit(&mut self, frames: usize) -> Result<usize, BenchError> {
        self.run(1, frames)?;
        Ok(frames)
    }

    /// Notifies, and lets the card work until `frames` messages are in the receive buffers.
    pub(super) fn run_receive(
        &mut self,
        message: &[u8],
        frames: usize,
    ) -> Result<usize, BenchError> {
        self.run(0, frames * message.len().div_ceil(PAGE))?;
        Ok(frames)
    }

    fn run(&mut self, queue: u16, chains: usize) -> Result<(), BenchError> {
        let side = usize::from(queue);
        self.bus
            .mmio_write(BAR + NOTIFY + u64::from(queue) * 4, &queue.to_le_bytes());
        for _ in 0..TURNS {
            self.worker
                .turn(Some(Duration::ZERO))
                .map_err(BenchError::system("turn the event loop"))?;
            let used = self.used(queue)?;
            if usize::from(used.wrapping_sub(self.seen[side])) >= chains {
                self.seen[side] = used;
                return Ok(());
            }
        }
        Err(BenchError::Missing(format!(
            "the card did not use {chains} chains of queue {queue}"
        )))
    }

    fn describe(
        &self,
        queue: u16,
        index: u16,
        address: u64,
        length: usize,
        flags: u16,
    ) -> Result<(), BenchError> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.write(ring(queue) + u64::from(index) * 16, &bytes)
    }

    fn make_available(&mut self, queue: u16, head: u16) -> Result<(), BenchError> {
        let index = &mut self.available[usize::from(queue)];
        let slot = ring(queue) + 0x1000 + 4 + u64::from(*index % SIZE) * 2;
        *index = index.wrapping_add(1);
        self.write(slot, &head.to_le_bytes())
    }

    fn publish(&self, queue: u16) -> Result<(), BenchError> {
        let index = self.available[usize::from(queue)];
        self.write(ring(queue) + 0x1000 + 2, &index.to_le_bytes())
    }

    fn used(&self, queue: u16) -> Result<u16, BenchError> {
        let mut index = [0; 2];
        self.ram
            .read_slice(&mut index, GuestAddress(ring(queue) + 0x2000 + 2))
            .map_err(io::Error::other)
            .map_err(BenchError::system("read guest memory"))?;
        Ok(u16::from_le_bytes(index))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BenchError> {
        self.ram
            .write_slice(bytes, GuestAddress(address))
            .map_err(io::Error::other)
            .map_err(BenchError::system("write guest memory"))
    }

    fn set(&self, register: u64, value: &[u8]) {
        self.bus.mmio_write(BAR + register, value);
    }
}

/// Where the rings of a queue are: table, available ring and used ring, a page each.
fn ring(queue: u16) -> u64 {
    RINGS + u64::from(queue) * 0x3000
}
