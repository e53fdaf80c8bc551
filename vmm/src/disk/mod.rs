//! A raw image on the host and the requests under way on it, by `io_uring`: what all disk devices have
//! in common.
//!
//! The kernel reads and writes guest memory directly. Nothing here waits: a request is started, the
//! kernel's answer is taken when there is one.

mod clear;
mod flights;
mod host;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{SeekFrom, seek};
use thiserror::Error;
use vm_memory::GuestAddress;

use self::clear::{Clearing, Step, Wanted};
use self::flights::Flights;
use self::host::Host;
use crate::virtio::GuestRam;
use crate::worker::{Interest, Source, Turn};

/// Requests under way at once. An SSD is busy with 32; twice that covers the way to it, and bounds
/// the kernel's memory and the time a reset waits.
const IN_FLIGHT: u16 = 64;
/// Unit of a disk's size, bytes.
pub const SECTOR: u64 = 512;
/// Token of a disk's ring among the sources of its device.
const RING_TOKEN: u32 = 0;

/// Why a disk cannot be offered.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The image's length cannot be had.
    #[error("the length of the disk image cannot be read: {0}; give a regular file or a disk")]
    Length(#[source] io::Error),
    /// The image is shorter than one sector.
    #[error("the disk image has {0} bytes, less than one sector of 512; give a larger one")]
    Empty(u64),
    /// No ring.
    #[error("io_uring cannot be set up: {0}; allow it (kernel.io_uring_disabled = 0)")]
    Ring(#[source] io::Error),
    /// No interrupts or events.
    #[error("the board has no room for the disk's interrupts: {0}; give fewer disks")]
    Board(#[source] io::Error),
}

/// What the kernel is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// From the image into guest memory.
    Read,
    /// From guest memory into the image.
    Write {
        /// Whether it is on the medium when it completes (`RWF_DSYNC`); else after the next flush.
        stable: bool,
    },
    /// What was written is on the medium (`fdatasync`).
    Flush,
    /// Ranges are given up: their room is the host's again, and they read zero. Where the host cannot do
    /// that, they stay what they were.
    Discard,
    /// A range reads zero.
    Zero {
        /// Its room may be given up.
        unmap: bool,
        /// Whether that is on the medium when it completes; else after the next flush.
        stable: bool,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The host has no room.
    Full,
    /// The kernel's error, or a transfer that came short: the image is shorter than it was.
    Medium,
}

/// A request that the kernel has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed<T> {
    /// As it was started with.
    pub tag: T,
    /// What was asked for.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Result<(), Failure>,
}

/// Requests since power-on. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Completed reads.
    pub reads: u64,
    /// Completed writes.
    pub writes: u64,
    /// Completed flushes.
    pub flushes: u64,
    /// Completed discards.
    pub discards: u64,
    /// Completed zeroings.
    pub zeroes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes that completed reads brought.
    pub bytes_read: u64,
    /// Bytes that completed writes took.
    pub bytes_written: u64,
}

/// A ring that can do nothing but what a disk needs: a filter of system calls does not see what is
/// asked for inside a ring, and a ring without bounds opens files and makes sockets.
fn ring() -> io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_r_disabled()
        .build(IN_FLIGHT.into())?;
    let codes = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::SyncFileRange::CODE,
    ];
    let submitter = ring.submitter();
    submitter.register_restrictions(&mut codes.map(Restriction::sqe_op))?;
    submitter.register_enable_rings()?;
    Ok(ring)
}

/// A disk image, and the requests under way on it; `T` tells a device which of its requests an answer
/// belongs to.
pub struct Disk<T> {
    file: File,
    read_only: bool,
    /// Sectors of 512 bytes.
    sectors: u64,
    ring: IoUring,
    flights: Flights<T>,
    counters: Counters,
    host: Host,
    /// Whether the host could give up ranges when the disk was made.
    discards: bool,
    /// Requests that the kernel refused.
    failures: u64,
    /// Keeps guest memory mapped while requests are under way.
    memory: Option<GuestRam>,
}

impl<T: Copy> Disk<T> {
    /// A disk over `file`, which is opened for what `read_only` says; a last part of a sector is not
    /// shown.
    pub fn new(file: File, read_only: bool) -> Result<Self, DiskError> {
        let length =
            seek(&file, SeekFrom::End(0)).map_err(|error| DiskError::Length(error.into()))?;
        if length < SECTOR {
            return Err(DiskError::Empty(length));
        }
        let host = Host::of(&file, length);
        Ok(Self {
            file,
            read_only,
            discards: host.punches && !read_only,
            host,
            sectors: length / SECTOR,
            ring: ring().map_err(DiskError::Ring)?,
            flights: Flights::new(IN_FLIGHT),
            counters: Counters::default(),
            failures: 0,
            memory: None,
        })
    }

    /// Its size in sectors of 512 bytes, one or more.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it takes no writes.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether there is a point in giving up ranges. It never changes, as what a driver was told does
    /// not: a host that says later that it cannot is asked no more.
    pub fn discards(&self) -> bool {
        self.discards
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Counts a request that was refused before the kernel saw it.
    pub fn count_refusal(&mut self) {
        self.counters.errors += 1;
    }

    /// Requests under way.
    pub fn busy(&self) -> usize {
        self.flights.busy()
    }

    /// Whether no further request can be started now.
    pub fn full(&self) -> bool {
        self.flights.full()
    }

    /// Starts a read or a write of `length` bytes at `offset` of the image; `spans` are as many bytes
    /// of guest memory. Not while the disk is [`Disk::full`].
    pub fn transfer(
        &mut self,
        tag: T,
        operation: Operation,
        (offset, length): (u64, u64),
        ram: &GuestRam,
        spans: impl Iterator<Item = (GuestAddress, usize)>,
    ) {
        self.memory.get_or_insert_with(|| ram.clone());
        let Some(mut place) = self.flights.take(tag, operation, length) else {
            return;
        };
        let fd = types::Fd(self.file.as_raw_fd());
        let (vectors, count) = place.vectors(ram, spans);
        let entry = match operation {
            Operation::Write { stable } => opcode::Writev::new(fd, vectors, count)
                .offset(offset)
                .rw_flags(if stable { libc::RWF_DSYNC } else { 0 })
                .build(),
            _ => opcode::Readv::new(fd, vectors, count)
                .offset(offset)
                .build(),
        };
        let entry = entry.user_data(place.index());
        self.push(&entry);
    }

    /// Starts a flush. Not while the disk is [`Disk::full`].
    pub fn flush(&mut self, tag: T) {
        let Some(place) = self.flights.take(tag, Operation::Flush, 0) else {
            return;
        };
        let entry = opcode::Fsync::new(types::Fd(self.file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        let entry = entry.user_data(place.index());
        self.push(&entry);
    }

    /// Starts to give up ranges of the image, in bytes, one after the other; whether there is anything to
    /// do. Not while the disk is [`Disk::full`].
    pub fn discard(&mut self, tag: T, ranges: impl Iterator<Item = Range<u64>>) -> bool {
        let clearing = Clearing::new(Wanted::Discard, ranges);
        self.clear(tag, Operation::Discard, clearing)
    }

    /// Starts to zero a range of the image, in bytes; whether there is anything to do. Not while the disk
    /// is [`Disk::full`].
    pub fn zero(&mut self, tag: T, range: Range<u64>, unmap: bool, stable: bool) -> bool {
        let wanted = Wanted::Zeroes { unmap, stable };
        let clearing = Clearing::new(wanted, std::iter::once(range));
        self.clear(tag, Operation::Zero { unmap, stable }, clearing)
    }

    fn clear(&mut self, tag: T, operation: Operation, mut clearing: Clearing) -> bool {
        let Some(first) = clearing.first(self.host) else {
            return false;
        };
        if let Some(mut place) = self.flights.take(tag, operation, 0) {
            place.keep(clearing);
            let index = place.index();
            self.push_step(index, &first);
        }
        true
    }

    fn push_step(&mut self, index: u64, step: &Step) {
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = match step {
            Step::Settle(range) => {
                // No length means: to the end.
                let length = u32::try_from(range.end - range.start).unwrap_or(0);
                let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
                    | libc::SYNC_FILE_RANGE_WRITE
                    | libc::SYNC_FILE_RANGE_WAIT_AFTER;
                opcode::SyncFileRange::new(fd, length)
                    .offset(range.start)
                    .flags(flags)
                    .build()
            }
            Step::Punch(range) => allocate(fd, range, libc::FALLOC_FL_PUNCH_HOLE),
            Step::Zero(range) => allocate(fd, range, libc::FALLOC_FL_ZERO_RANGE),
            Step::Write(range) => {
                let (vectors, count) = self.flights.zeroes(index, range.end - range.start);
                opcode::Writev::new(fd, vectors, count)
                    .offset(range.start)
                    .build()
            }
            Step::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        };
        self.push(&entry.user_data(index));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: buffers and vectors of the entry live in `flights` and in guest memory until its
        // completion is taken; guest memory outlives them (`memory`, `drop`).
        let pushed = unsafe { self.ring.submission().push(entry) };
        // The ring has as many places as there are flights.
        debug_assert!(pushed.is_ok(), "a flight has a place in the ring");
    }

    /// Hands what was started to the kernel; never waits.
    pub fn submit(&mut self) -> Turn {
        if self.ring.submission().is_empty() {
            return Turn::Idle;
        }
        match self.ring.submit() {
            Ok(_) => Turn::Idle,
            Err(error) => {
                // Short of memory, or a completion queue to be emptied first: both pass.
                tracing::warn!(%error, "disk requests wait for the kernel");
                Turn::More
            }
        }
    }

    /// Takes an answer of the kernel, if there is one. What it leads to is handed over by the next
    /// [`Disk::submit`].
    pub fn reap(&mut self) -> Option<Landed<T>> {
        loop {
            let completion = self.ring.completion().next()?;
            let (index, result) = (completion.user_data(), completion.result());
            let rest = self.flights.clearing(index);
            let result = match rest.map(|it| it.follow(result, &mut self.host)) {
                None => result,
                Some(Ok(Some(step))) => {
                    self.push_step(index, &step);
                    continue;
                }
                Some(Ok(None)) => 0,
                Some(Err(error)) => error,
            };
            let Some(flight) = self.flights.land(index) else {
                continue;
            };
            let outcome = flight.outcome(result);
            if outcome.is_err() {
                self.counters.errors += 1;
                self.failures += 1;
                // Ever more seldom: a guest may try for ever, and the log is the host's.
                if self.failures.is_power_of_two() {
                    let (operation, failures) = (flight.operation, self.failures);
                    tracing::warn!(?operation, result, failures, "a disk request failed");
                }
            } else {
                match flight.operation {
                    Operation::Read => {
                        self.counters.reads += 1;
                        self.counters.bytes_read += flight.length;
                    }
                    Operation::Write { .. } => {
                        self.counters.writes += 1;
                        self.counters.bytes_written += flight.length;
                    }
                    Operation::Flush => self.counters.flushes += 1,
                    Operation::Discard => self.counters.discards += 1,
                    Operation::Zero { .. } => self.counters.zeroes += 1,
                }
            }
            return Some(Landed {
                tag: flight.tag,
                operation: flight.operation,
                outcome,
            });
        }
    }

    /// Nobody waits for the answers any more: takes those that are there, and starts nothing that
    /// would follow from them. Whether nothing is under way.
    pub fn abandon(&mut self) -> bool {
        self.flights.forget_rest();
        while self.reap().is_some() {}
        self.busy() == 0
    }

    /// Becomes readable with an answer.
    pub fn source(&self) -> Source<'_> {
        let number: RawFd = self.ring.as_raw_fd();
        // SAFETY: the ring owns the descriptor and is borrowed as long as the source.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        Source {
            token: RING_TOKEN,
            fd,
            generation: 0,
            interest: Interest {
                read: true,
                ..Interest::default()
            },
        }
    }
}

fn allocate(fd: types::Fd, range: &Range<u64>, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(fd, range.end - range.start)
        .offset(range.start)
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

impl<T> Drop for Disk<T> {
    fn drop(&mut self) {
        // The kernel may still write into guest memory. Waiting for it would be a system call on a
        // thread whose filter has none for disks; so the mapping stays instead, until the process
        // ends.
        if self.flights.busy() > 0 {
            std::mem::forget(self.memory.take());
        }
    }
}
