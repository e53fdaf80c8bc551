//! A driver by hand, after NVMe 1.4.

use std::sync::{Arc, Mutex};

use sekisho_vmm::disk::Store;
use sekisho_vmm::nvme::Nvme;
use sekisho_vmm::pci::Slot;
use sekisho_vmm::worker::Worker;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::put;
use crate::virtio_fixture::{ECAM, Machine, mmio_read, mmio_write, ram, turn_until};

pub(crate) const CC: u64 = 0x14;
pub(crate) const CSTS: u64 = 0x1c;
pub(crate) const ENABLE: u32 = 0x0046_0001;
pub(crate) const SHUT_DOWN: u32 = 1 << 14;
pub(crate) const READY: u32 = 1;
pub(crate) const FATAL: u32 = 2;

pub(crate) const DELETE_SUBMISSION: u8 = 0;
pub(crate) const CREATE_SUBMISSION: u8 = 1;
pub(crate) const GET_LOG: u8 = 2;
pub(crate) const DELETE_COMPLETION: u8 = 4;
pub(crate) const CREATE_COMPLETION: u8 = 5;
pub(crate) const IDENTIFY: u8 = 6;
pub(crate) const SET_FEATURES: u8 = 9;
pub(crate) const GET_FEATURES: u8 = 10;
pub(crate) const EVENT_REQUEST: u8 = 12;
pub(crate) const FLUSH: u8 = 0;
pub(crate) const WRITE: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const WRITE_ZEROES: u8 = 8;
pub(crate) const MANAGE: u8 = 9;

/// What a command is made of; the rest is zero.
#[derive(Clone, Copy, Default)]
pub(crate) struct Command {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) namespace: u32,
    pub(crate) prp1: u64,
    pub(crate) prp2: u64,
    pub(crate) dw10: u32,
    pub(crate) dw11: u32,
    pub(crate) dw12: u32,
}

/// A completion as the driver reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) result: u32,
    pub(crate) command: u16,
    pub(crate) status: u16,
}

/// A queue pair of the driver's.
pub(crate) struct Pair {
    pub(crate) number: u16,
    pub(crate) submission: u64,
    pub(crate) completion: u64,
    pub(crate) entries: u16,
    pub(crate) tail: u16,
    pub(crate) head: u16,
    pub(crate) phase: bool,
}

impl Pair {
    pub(crate) fn new(number: u16, entries: u16) -> Self {
        Self {
            number,
            submission: take_pages(1),
            completion: take_pages(1),
            entries,
            tail: 0,
            head: 0,
            phase: true,
        }
    }
}

pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) worker: Worker,
    pub(crate) device: Arc<Mutex<Nvme>>,
    pub(crate) bar: u64,
    slot: Slot,
    pub(crate) admin: Pair,
    pub(crate) next_id: u16,
}

impl Driver {
    /// Puts a disk on the bus and brings it up to the admin queues.
    pub(crate) fn start(store: impl Into<Store>, read_only: bool) -> Self {
        let mut machine = Machine::new();
        let platform = machine.platform.clone();
        let nvme = Nvme::new(store, read_only, ("sekisho-0", 0), ram().clone(), platform).unwrap();
        let (slot, device) = machine.insert(nvme);
        let worker = machine.start();
        let bar = bar(&machine, slot);
        let mut driver = Self {
            machine,
            worker,
            device,
            bar,
            slot,
            admin: Pair::new(0, 16),
            next_id: 0,
        };
        // MSI-X: vector n sends 0x40 + n.
        driver.config(slot, 4, &[6, 0]);
        for vector in 0..4_u8 {
            let entry = [
                0,
                0,
                0xe0,
                0xfe,
                0,
                0,
                0,
                0,
                0x40 + vector,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            for (part, at) in entry.chunks(4).zip((0..).step_by(4)) {
                driver.write(0x2000 + u64::from(vector) * 16 + at, part);
            }
        }
        driver.config(slot, 0x42, &[0, 0x80]);
        driver.enable();
        driver
    }

    pub(crate) fn config(&self, slot: Slot, offset: u64, data: &[u8]) {
        let at = ECAM + u64::from(slot.devfn()) * 4096 + offset;
        assert!(self.machine.bus.mmio_write(at, data));
    }

    /// Whether the function may touch memory.
    pub(crate) fn set_bus_master(&self, on: bool) {
        self.config(self.slot, 4, &[2 | u8::from(on) << 2, 0]);
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let (platform, bus) = (&self.machine.platform, &self.machine.bus);
        mmio_write(platform, bus, self.bar + offset, data);
    }

    pub(crate) fn register(&self, offset: u64) -> u32 {
        u32::from_le_bytes(mmio_read(&self.machine.bus, self.bar + offset))
    }

    /// Tells the admin queues and sets CC.EN.
    pub(crate) fn enable(&mut self) {
        self.admin = Pair::new(0, 16);
        let size = u32::from(self.admin.entries - 1);
        self.write(0x24, &(size << 16 | size).to_le_bytes());
        self.write(0x28, &self.admin.submission.to_le_bytes());
        self.write(0x30, &self.admin.completion.to_le_bytes());
        self.write(CC, &ENABLE.to_le_bytes());
        assert_eq!(self.register(CSTS), READY);
    }

    pub(crate) fn disable(&mut self) {
        self.write(CC, &0_u32.to_le_bytes());
        let (bus, bar) = (self.machine.bus.clone(), self.bar);
        turn_until(&mut self.worker, || {
            mmio_read::<4>(&bus, bar + CSTS) == [0; 4]
        });
    }

    /// Puts a command into a queue, without the doorbell; its id.
    pub(crate) fn put(&mut self, pair: &mut Pair, command: &Command) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        let mut entry = [0; 64];
        entry[0] = command.opcode;
        entry[1] = command.flags;
        entry[2..4].copy_from_slice(&id.to_le_bytes());
        entry[4..8].copy_from_slice(&command.namespace.to_le_bytes());
        entry[24..32].copy_from_slice(&command.prp1.to_le_bytes());
        entry[32..40].copy_from_slice(&command.prp2.to_le_bytes());
        entry[40..44].copy_from_slice(&command.dw10.to_le_bytes());
        entry[44..48].copy_from_slice(&command.dw11.to_le_bytes());
        entry[48..52].copy_from_slice(&command.dw12.to_le_bytes());
        put(pair.submission + u64::from(pair.tail) * 64, &entry);
        pair.tail = (pair.tail + 1) % pair.entries;
        id
    }

    pub(crate) fn ring(&self, pair: &Pair) {
        let doorbell = 0x1000 + u64::from(pair.number) * 8;
        self.write(doorbell, &u32::from(pair.tail).to_le_bytes());
    }

    /// The next completion, if there is one, without the doorbell.
    pub(crate) fn peek(pair: &mut Pair) -> Option<Completion> {
        let entry: [u8; 16] = get(pair.completion + u64::from(pair.head) * 16);
        let status = u16::from_le_bytes([entry[14], entry[15]]);
        if (status & 1 != 0) != pair.phase {
            return None;
        }
        pair.head += 1;
        if pair.head == pair.entries {
            pair.head = 0;
            pair.phase = !pair.phase;
        }
        assert_eq!(u16::from_le_bytes([entry[10], entry[11]]), pair.number);
        Some(Completion {
            result: u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]),
            command: u16::from_le_bytes([entry[12], entry[13]]),
            status: status >> 1 & 0x7ff,
        })
    }

    pub(crate) fn consumed(&self, pair: &Pair) {
        let doorbell = 0x1004 + u64::from(pair.number) * 8;
        self.write(doorbell, &u32::from(pair.head).to_le_bytes());
    }

    /// Waits for a completion and consumes it.
    pub(crate) fn next(&mut self, pair: &mut Pair) -> Completion {
        let mut completion = None;
        turn_until(&mut self.worker, || {
            completion = Self::peek(pair);
            completion.is_some()
        });
        self.consumed(pair);
        completion.unwrap()
    }

    /// Does a command on this queue.
    pub(crate) fn run(&mut self, pair: &mut Pair, command: Command) -> Completion {
        let id = self.put(pair, &command);
        self.ring(pair);
        let completion = self.next(pair);
        assert_eq!(completion.command, id);
        completion
    }

    /// Does an admin command.
    pub(crate) fn admin(&mut self, command: Command) -> Completion {
        let mut admin = std::mem::replace(&mut self.admin, Pair::new(0, 2));
        let completion = self.run(&mut admin, command);
        self.admin = admin;
        completion
    }

    /// Creates an I/O queue pair with its own vector.
    pub(crate) fn pair(&mut self, number: u16, entries: u16) -> Pair {
        let pair = Pair::new(number, entries);
        let place = u32::from(number) | u32::from(entries - 1) << 16;
        let vector = u32::from(number) << 16;
        for (opcode, prp1, dw11) in [
            (CREATE_COMPLETION, pair.completion, vector | 3),
            (CREATE_SUBMISSION, pair.submission, vector | 1),
        ] {
            let created = self.admin(Command {
                opcode,
                prp1,
                dw10: place,
                dw11,
                ..Command::default()
            });
            assert_eq!(created.status, 0, "{opcode}");
        }
        pair
    }

    /// Identify with this CNS; the page.
    pub(crate) fn identify(&mut self, what: u32, namespace: u32) -> (u16, [u8; 4096]) {
        let page = take_pages(1);
        let done = self.admin(Command {
            opcode: IDENTIFY,
            namespace,
            prp1: page,
            dw10: what,
            ..Command::default()
        });
        (done.status, get(page))
    }
}

/// Bytes of guest memory.
pub(crate) fn get<const N: usize>(at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram().read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn bar(machine: &Machine, slot: Slot) -> u64 {
    let bars = machine.bus.bars();
    let found = bars.iter().find(|(at, _)| *at == slot);
    found.and_then(|(_, bar)| bar.address).unwrap()
}

/// The first address behind guest memory.
pub(crate) fn ram_end() -> u64 {
    ram().last_addr().0 + 1
}
