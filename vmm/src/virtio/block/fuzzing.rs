//! Entry point for fuzzers: arbitrary bytes as requests to a disk, and as changes of the memory they
//! are in. None of them may panic or keep the disk at work without end.

use std::fs::File;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes as _, GuestAddress};

use super::{Block, F_DISCARD, F_FLUSH, F_WRITE_ZEROES};
use crate::disk::Counters;
use crate::virtio::regs::QueuePlace;
use crate::virtio::{Device as _, GuestRam, Io, Progress, VirtQueue};
use crate::worker::Turn;

const RAM_LEN: usize = 128 * 1024;
/// Bytes of the image.
const DISK_LEN: u64 = 64 * 1024;
const SIZE: u16 = 16;
const TABLE: u64 = 0x100;
const AVAILABLE: u64 = 0x200;
const USED: u64 = 0x300;
/// Headers and status bytes of the requests.
const HEADERS: u64 = 0x1000;
/// Where data comes from and goes to.
const DATA: u64 = 0x4000;
/// Bytes of a step in the input.
const STEP: usize = 16;
/// Descriptors of a request: header, two of data, status.
const CHAIN: u16 = 4;
/// More turns than any input may cause.
const TURNS: usize = 256;
/// Longest wait for the kernel, which always answers.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Brings a disk up as a driver does, then reads `data` as steps: requests, changes of guest memory,
/// resets. The first byte chooses features.
///
/// # Panics
/// If the disk finds no end: what a fuzzer is to find.
pub fn block(data: &[u8]) {
    drive(data);
}

/// What the disk has done in the end.
fn drive(data: &[u8]) -> Counters {
    let Some((choice, steps)) = data.split_first() else {
        return Counters::default();
    };
    let Some(mut guest) = Guest::new(*choice) else {
        return Counters::default();
    };
    for step in steps.as_chunks::<STEP>().0 {
        let [kind, rest @ ..] = step;
        let done = match kind & 7 {
            0..=4 => guest.offer(rest),
            5 => guest.change(rest),
            6 => guest.restart(),
            _ => Some(()),
        };
        if done.is_none() {
            break;
        }
        if kind & 8 == 0 {
            guest.run();
        }
    }
    guest.run();
    // However it was left, it can be had back.
    guest.restart();
    guest.run();
    assert_eq!(guest.device.in_flight(), 0);
    guest.device.counters()
}

/// A disk and the driver's side of its queue.
struct Guest {
    ram: GuestRam,
    device: Block,
    features: u64,
    queues: Vec<VirtQueue>,
    next: u16,
    /// The rings were broken.
    faulty: bool,
}

impl Guest {
    fn new(choice: u8) -> Option<Self> {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]).ok()?;
        let image = memfd_create("disk", MemfdFlags::CLOEXEC).ok()?;
        rustix::fs::ftruncate(&image, DISK_LEN).ok()?;
        let device = Block::new(File::from(image), choice & 1 != 0, "fuzz").ok()?;
        let mut features = device.features();
        for (bit, feature) in [(2, F_FLUSH), (4, F_DISCARD), (8, F_WRITE_ZEROES)] {
            if choice & bit != 0 {
                features &= !feature;
            }
        }
        // Wherever a segment is read from, there is one.
        let segment = [8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        let data = segment.repeat((RAM_LEN - 0x4000) / segment.len());
        ram.write_slice(&data, GuestAddress(DATA)).ok()?;
        let mut guest = Self {
            ram,
            device,
            features,
            queues: Vec::new(),
            next: 0,
            faulty: false,
        };
        guest.start()?;
        Some(guest)
    }

    fn start(&mut self) -> Option<()> {
        let place = QueuePlace {
            size: SIZE,
            descriptors: TABLE,
            driver: AVAILABLE,
            device: USED,
        };
        self.ram
            .write_slice(&[0; 0x400], GuestAddress(TABLE))
            .ok()?;
        let mut queue = VirtQueue::new(SIZE).ok()?;
        queue.enable(&self.ram, &place, false).ok()?;
        self.queues = vec![queue];
        self.next = 0;
        self.faulty = false;
        self.device.activate(self.features);
        Some(())
    }

    fn restart(&mut self) -> Option<()> {
        let mut progress = self.device.reset();
        while progress == Progress::Waiting {
            self.device.drain();
            self.wait();
            progress = self.device.reset();
        }
        self.start()
    }

    /// A request of few bytes: mostly right, now and then wild.
    fn offer(&mut self, bytes: &[u8]) -> Option<()> {
        let [kind, sector, high, wild, pages, offset, count, flags, ..] = bytes else {
            return None;
        };
        // One in four is odd, in one way or in several.
        let odd = |way: u8| *wild >= 0xc0 && wild & way != 0;
        let slot = self.next % (SIZE / CHAIN);
        let header_at = HEADERS + u64::from(slot) * 64;
        let mut header = [0; 16];
        header[0] = kind & 0x0f;
        header[8] = sector & 0x7f;
        header[15] = if odd(1) { *high } else { 0 };
        self.ram
            .write_slice(&header, GuestAddress(header_at))
            .ok()?;
        // Reads and names are written by the device.
        let writable = u16::from(matches!(header[0], 0 | 8) != odd(2)) << 1;
        let data = DATA + u64::from(offset & 0x0f) * 0x1000;
        let length = match header[0] {
            11 | 13 => u32::from(count & 3) * 16,
            _ => u32::from(pages & 7) * 1024,
        } + u32::from(odd(4));
        if matches!(header[0], 11 | 13) {
            let segment = [
                sector & 0x7f,
                0,
                0,
                0,
                0,
                0,
                0,
                header[15],
                *pages,
                0,
                0,
                0,
                flags & 1,
                0,
                0,
                0,
            ];
            self.ram.write_slice(&segment, GuestAddress(data)).ok()?;
        }
        let far = if odd(8) { RAM_LEN as u64 } else { 0 };
        let first = slot * CHAIN;
        let header_len = if odd(16) { u32::from(*high & 31) } else { 16 };
        let chain = [
            (header_at, header_len, 0),
            (data, length / 2, writable),
            (
                data + u64::from(length / 2) + far,
                length - length / 2,
                writable,
            ),
            (header_at + 32, 1, u16::from(!odd(32)) << 1),
        ];
        for ((address, length, flags), index) in chain.into_iter().zip(first..) {
            let next = u16::from(index + 1 < first + CHAIN);
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&u64::to_le_bytes(address));
            descriptor[8..12].copy_from_slice(&u32::to_le_bytes(length));
            descriptor[12..14].copy_from_slice(&(flags | next).to_le_bytes());
            descriptor[14..].copy_from_slice(&(index + 1).to_le_bytes());
            let at = TABLE + u64::from(index) * 16;
            self.ram.write_slice(&descriptor, GuestAddress(at)).ok()?;
        }
        let entry = AVAILABLE + 4 + u64::from(self.next % SIZE) * 2;
        self.next = self.next.wrapping_add(1);
        for (at, value) in [(entry, first), (AVAILABLE + 2, self.next)] {
            self.ram
                .write_slice(&value.to_le_bytes(), GuestAddress(at))
                .ok()?;
        }
        self.device.notified(0);
        Some(())
    }

    /// Changes memory, with whatever is in it.
    fn change(&mut self, bytes: &[u8]) -> Option<()> {
        let [low, high, rest @ ..] = bytes else {
            return None;
        };
        let at = u16::from_le_bytes([*low, *high]);
        self.ram
            .write_slice(rest.get(..8)?, GuestAddress(at.into()))
            .ok()?;
        self.device.notified(0);
        Some(())
    }

    /// Serves until there is nothing to do and nothing under way.
    fn run(&mut self) {
        for _ in 0..TURNS {
            if self.faulty && self.restart().is_none() {
                return;
            }
            let mut io = Io {
                ram: &self.ram,
                queues: &mut self.queues,
            };
            match self.device.turn(&mut io) {
                Ok(Turn::More) => continue,
                Ok(Turn::Idle) => {}
                Err(_) => {
                    self.faulty = true;
                    continue;
                }
            }
            if self.device.in_flight() == 0 {
                return;
            }
            self.wait();
        }
        panic!("the disk works without end");
    }

    fn wait(&self) {
        let mut sources = Vec::new();
        self.device.sources(&mut sources);
        let mut waits: Vec<_> = sources
            .iter()
            .map(|source| PollFd::from_borrowed_fd(source.fd, PollFlags::IN))
            .collect();
        let answered = poll(&mut waits, Some(&PATIENCE));
        assert_ne!(answered, Ok(0), "the kernel does not answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    #[test]
    fn noise_neither_panics_nor_runs_without_end() {
        let mut done = Counters::default();
        for seed in 1..200 {
            let counters = drive(&noise(seed, 1 + STEP * 60));
            done.reads += counters.reads;
            done.writes += counters.writes;
            done.flushes += counters.flushes;
            done.discards += counters.discards;
            done.zeroes += counters.zeroes;
            done.errors += counters.errors;
        }
        // The noise reaches what it is meant to.
        let Counters {
            reads,
            writes,
            flushes,
            discards,
            zeroes,
            errors,
            ..
        } = done;
        for count in [reads, writes, flushes, discards, zeroes, errors] {
            assert!(count > 0, "{done:?}");
        }
    }
}
