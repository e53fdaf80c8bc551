//! A virtio disk and a driver by hand, which asks for one thing at a time.

use std::sync::{Arc, Mutex};

use sekisho_vmm::disk::Counters;
use sekisho_vmm::virtio::VirtioPci;
use sekisho_vmm::virtio::block::Block;
use sekisho_vmm::worker::Worker;

use super::hal::{give_pages, take_pages};
use super::ring::{Driver, Ring, VERSION_1, WRITE, get, put};
use super::transport::BarTransport;
use super::{Machine, turn_until};

pub const FLUSH: u64 = 1 << 9;
pub const DISCARD: u64 = 1 << 13;
pub const WRITE_ZEROES: u64 = 1 << 14;

pub const TYPE_IN: u32 = 0;
pub const TYPE_OUT: u32 = 1;
pub const TYPE_FLUSH: u32 = 4;
pub const TYPE_DISCARD: u32 = 11;
pub const TYPE_WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IO_ERROR: u8 = 1;
pub const UNSUPPORTED: u8 = 2;

/// Pages of data that a request may have here.
const PAGES: usize = 256;

pub struct Disk {
    pub device: Arc<Mutex<VirtioPci<Block>>>,
    pub driver: Driver,
    pub worker: Worker,
    pub ring: Ring,
    buffer: u64,
    // Keeps the bus.
    _machine: Machine,
}

/// First sector, sectors, flags.
pub type Segment = (u64, u32, u32);

impl Disk {
    /// Negotiates these features beside version 1.
    pub fn start(block: Block, features: u64) -> Self {
        let mut machine = Machine::new();
        let (slot, device) = machine.add(block);
        let worker = machine.start();
        let mut driver = Driver::start(BarTransport::find(&machine, slot), VERSION_1 | features);
        let ring = driver.ring(0, 64);
        driver.go();
        Self {
            device,
            driver,
            worker,
            ring,
            buffer: take_pages(PAGES + 1),
            _machine: machine,
        }
    }

    pub fn counters(&self) -> Counters {
        self.device.lock().unwrap().device().counters()
    }

    /// Puts a request into the ring whose data the device reads; it is answered later.
    pub fn ask(&mut self, kind: u32, sector: u64, data: &[u8]) {
        put(self.buffer + 4096, data);
        self.offer(kind, sector, data.len(), 0);
    }

    fn offer(&mut self, kind: u32, sector: u64, length: usize, flag: u16) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        put(self.buffer, &header);
        put(self.buffer + 16, &[0xff]);
        let length = u32::try_from(length).unwrap();
        let mut chain = vec![(self.buffer, 16, 0)];
        if length > 0 {
            chain.push((self.buffer + 4096, length, flag));
        }
        chain.push((self.buffer + 16, 1, WRITE));
        self.ring.offer(0, &chain);
        self.driver.kick(&self.ring);
    }

    /// Waits for the answer: the status.
    pub fn answer(&mut self) -> u8 {
        let ring = &mut self.ring;
        turn_until(&mut self.worker, || ring.take_used().is_some());
        get(self.buffer + 16, 1)[0]
    }

    /// A request whose data the device reads.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        self.ask(kind, sector, data);
        self.answer()
    }

    pub fn write(&mut self, sector: u64, data: &[u8]) {
        assert_eq!(self.request(TYPE_OUT, sector, data), OK);
    }

    pub fn read(&mut self, sector: u64, length: usize) -> Vec<u8> {
        self.offer(TYPE_IN, sector, length, WRITE);
        assert_eq!(self.answer(), OK);
        get(self.buffer + 4096, length)
    }

    pub fn flush(&mut self) -> u8 {
        self.request(TYPE_FLUSH, 0, &[])
    }

    pub fn discard(&mut self, segments: &[Segment]) -> u8 {
        self.request(TYPE_DISCARD, 0, &bytes(segments))
    }

    pub fn write_zeroes(&mut self, segments: &[Segment]) -> u8 {
        self.request(TYPE_WRITE_ZEROES, 0, &bytes(segments))
    }
}

impl Drop for Disk {
    /// Guest memory is one for all disks of the program.
    fn drop(&mut self) {
        self.driver.transport.set_common(0x14, &[0]);
        let Self { driver, worker, .. } = self;
        // A test that fails is not to hang here.
        for _ in 0..100 {
            if driver.transport.status() == 0 {
                give_pages(self.buffer, PAGES + 1);
                give_pages(self.ring.table, 2);
                give_pages(self.ring.available, 1);
                give_pages(self.ring.used, 1);
                return;
            }
            let _ = worker.turn(Some(std::time::Duration::from_millis(10)));
        }
    }
}

fn bytes(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (first, count, flags) in segments {
        bytes.extend(first.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    bytes
}
