//! Entry point for fuzzers: arbitrary bytes as queues in guest memory and as accesses to the
//! controller. None of them may panic or keep the controller at work without end.

use std::fs::File;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes as _, GuestAddress};

use super::Nvme;
use crate::disk::Counters;
use crate::pci::{Nowhere, PciDevice as _};
use crate::virtio::GuestRam;
use crate::worker::{Serve as _, Turn};

const RAM_LEN: usize = 128 * 1024;
/// Bytes of the image.
const DISK_LEN: u64 = 64 * 1024;
/// Where the admin queues are, and their entries.
const SUBMISSION: u64 = 0x1000;
const COMPLETION: u64 = 0x2000;
const ENTRIES: u32 = 8;
/// Bytes from one pair of queues to the next.
const NEXT_QUEUE: u64 = 0x4000;
/// Bytes of a command in the input: opcode, flags, namespace, and what the rest is made of.
const COMMAND: usize = 16;
/// More turns than any input may cause.
const TURNS: usize = 256;
/// Longest wait for the kernel, which always answers.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Brings a controller up as a driver does, then reads `data` as steps: commands for any queue,
/// register accesses, changes of guest memory.
///
/// # Panics
/// If the controller finds no end: what a fuzzer is to find.
pub fn nvme(data: &[u8]) {
    drive(data);
}

/// What the controller has done in the end.
fn drive(data: &[u8]) -> Counters {
    let none = Counters::default();
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]);
    let (Ok(ram), Ok(image)) = (ram, memfd_create("disk", MemfdFlags::CLOEXEC)) else {
        return none;
    };
    let Some((first, steps)) = data.split_first() else {
        return none;
    };
    if rustix::fs::ftruncate(&image, DISK_LEN).is_err() {
        return none;
    }
    let made = Nvme::new(
        File::from(image),
        first & 1 != 0,
        ("fuzz", 0),
        ram.clone(),
        Arc::new(Nowhere),
    );
    let Ok(mut nvme) = made else {
        return none;
    };
    // Wherever ranges to give up are read from, there is one.
    let range = [0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
    if ram
        .write_slice(&range.repeat(RAM_LEN / range.len()), GuestAddress(0))
        .is_err()
    {
        return none;
    }
    let mut tails = [2, 0, 0, 0];
    if bring_up(&mut nvme, &ram).is_none() {
        return none;
    }
    for step in steps.chunks_exact(COMMAND) {
        let [kind, rest @ ..] = step else {
            return none;
        };
        match kind & 7 {
            0..=3 => {
                let queue = usize::from(kind & 3);
                let tail = &mut tails[queue];
                let at = SUBMISSION + queue as u64 * NEXT_QUEUE + u64::from(*tail) * 64;
                if ram.write_slice(&command(rest), GuestAddress(at)).is_err() {
                    return none;
                }
                *tail = (*tail + 1) % ENTRIES;
                let doorbell = 0x1000 + queue as u64 * 8;
                nvme.write_bar(0, doorbell, &tail.to_le_bytes());
            }
            4 => {
                // What the driver has seen of completions.
                let queue = u64::from(rest[0] & 3);
                let head = u32::from(u16::from_le_bytes([rest[1], rest[2]]));
                nvme.write_bar(0, 0x1004 + queue * 8, &head.to_le_bytes());
            }
            5 => {
                let offset = u64::from(u16::from_le_bytes([rest[0], rest[1]]));
                let length = 1_usize << (rest[2] & 3);
                nvme.write_bar(0, offset, &rest[3..3 + length]);
            }
            6 => {
                let offset = u64::from(u16::from_le_bytes([rest[0], rest[1]]));
                nvme.read_bar(0, offset, &mut [0; 8][..1 << (rest[2] & 3)]);
            }
            _ => {
                let at = u64::from(u16::from_le_bytes([rest[0], rest[1]]));
                if ram.write_slice(&rest[2..10], GuestAddress(at)).is_err() {
                    return none;
                }
            }
        }
        if kind & 8 == 0 {
            run(&mut nvme);
        }
    }
    run(&mut nvme);
    // However it was left, it can be had back.
    nvme.reset();
    run(&mut nvme);
    assert!(nvme.quiet(), "the controller does not come to rest");
    nvme.counters()
}

/// Admin queues, and one pair for I/O, as a driver sets them up.
fn bring_up(nvme: &mut Nvme, ram: &GuestRam) -> Option<()> {
    nvme.write_config(4, &[6, 0]);
    let size = ENTRIES - 1;
    nvme.write_bar(0, 0x24, &(size << 16 | size).to_le_bytes());
    nvme.write_bar(0, 0x28, &SUBMISSION.to_le_bytes());
    nvme.write_bar(0, 0x30, &COMPLETION.to_le_bytes());
    nvme.write_bar(0, 0x14, &0x0046_0001_u32.to_le_bytes());
    for (opcode, queue, flags, at) in [
        (5, COMPLETION + NEXT_QUEUE, 0x0001_0003_u32, SUBMISSION),
        (1, SUBMISSION + NEXT_QUEUE, 0x0001_0001, SUBMISSION + 64),
    ] {
        let mut entry = [0; 64];
        entry[0] = opcode;
        entry[24..32].copy_from_slice(&queue.to_le_bytes());
        entry[40..44].copy_from_slice(&(size << 16 | 1).to_le_bytes());
        entry[44..48].copy_from_slice(&flags.to_le_bytes());
        ram.write_slice(&entry, GuestAddress(at)).ok()?;
    }
    nvme.write_bar(0, 0x1000, &2_u32.to_le_bytes());
    run(nvme);
    nvme.write_bar(0, 0x1004, &2_u32.to_le_bytes());
    Some(())
}

/// A command of few bytes: small addresses, small numbers, now and then wild ones.
fn command(bytes: &[u8]) -> [u8; 64] {
    let [opcode, flags, first, second, id, wild, rest @ ..] = bytes else {
        return [0; 64];
    };
    // One in four is odd, in one way or in several.
    let odd = |way: u8| *wild >= 0xc0 && wild & way != 0;
    let mut entry = [0; 64];
    entry[0] = opcode & 0x0f;
    entry[1] = if odd(0x20) { *flags } else { 0 };
    entry[2] = *id;
    entry[4] = if odd(0x01) { *id } else { 1 };
    for (at, page) in [(24, first), (32, second)] {
        entry[at] = if odd(0x02) { *id } else { 0 };
        entry[at + 1] = page << 4;
        entry[at + 2] = page >> 4 & 1;
        entry[at + 7] = if odd(0x04) { 0xff } else { 0 };
    }
    let [block, number, high, size, options, blocks, ..] = rest else {
        return entry;
    };
    entry[40] = *block;
    entry[41] = if odd(0x08) { *high } else { 0 };
    entry[48] = blocks & 0x1f;
    // Force unit access, deallocate.
    entry[51] = options & 0x42;
    // For reads, writes and zeroes these are the high half of the first block.
    if !matches!(entry[0], 1 | 2 | 8) || odd(0x10) {
        entry[42] = *size;
        entry[44] = *options;
        entry[46] = *number;
    }
    entry
}

/// Serves until there is nothing to do and nothing under way.
fn run(nvme: &mut Nvme) {
    for _ in 0..TURNS {
        let more = nvme.serve() == Turn::More;
        if more {
            continue;
        }
        if nvme.in_flight() == 0 {
            return;
        }
        let mut sources = Vec::new();
        nvme.sources(&mut sources);
        let mut waits: Vec<_> = sources
            .iter()
            .map(|source| PollFd::from_borrowed_fd(source.fd, PollFlags::IN))
            .collect();
        if waits.is_empty() || poll(&mut waits, Some(&PATIENCE)) == Ok(0) {
            break;
        }
    }
    panic!("the controller works without end");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    #[test]
    fn noise_neither_panics_nor_runs_without_end() {
        let mut done = Counters::default();
        for seed in 1..200 {
            let counters = drive(&noise(seed, 1 + COMMAND * 60));
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
