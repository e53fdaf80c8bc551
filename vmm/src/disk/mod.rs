//! An image on the host and the requests under way on it: what all disk devices have in common.
//!
//! A raw image is the kernel's work, by `io_uring`; any other one ([`image`]) that of a thread of its own.
//! Nothing here waits: a request is started, the answer is taken when there is one.

mod clear;
mod flights;
mod host;
pub mod image;
mod ring;

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use thiserror::Error;
use vm_memory::GuestAddress;

use self::clear::{Clearing, Step, Wanted};
use self::flights::Flights;
use self::image::requests::{Requests, Work};
use self::ring::Ring;
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

/// Where a disk's bytes are.
pub enum Store {
    /// In a file or a block device, one to one.
    Raw(File),
    /// Behind the thread of an image.
    Image(Requests),
}

impl From<File> for Store {
    fn from(file: File) -> Self {
        Self::Raw(file)
    }
}

impl From<Requests> for Store {
    fn from(requests: Requests) -> Self {
        Self::Image(requests)
    }
}

enum Backend {
    Ring(Box<Ring>),
    Image(Requests),
}

/// A disk image, and the requests under way on it; `T` tells a device which of its requests an answer
/// belongs to.
pub struct Disk<T> {
    backend: Backend,
    read_only: bool,
    /// Sectors of 512 bytes.
    sectors: u64,
    flights: Flights<T>,
    counters: Counters,
    /// Whether the host could give up ranges when the disk was made.
    discards: bool,
    /// Requests that the kernel refused.
    failures: u64,
    /// Keeps guest memory mapped while requests are under way.
    memory: Option<GuestRam>,
}

impl<T: Copy> Disk<T> {
    /// A disk over a store that is open for what `read_only` says; a last part of a sector is not
    /// shown.
    pub fn new(store: impl Into<Store>, read_only: bool) -> Result<Self, DiskError> {
        let store = store.into();
        let length = match &store {
            Store::Raw(file) => {
                seek(file, SeekFrom::End(0)).map_err(|error| DiskError::Length(error.into()))?
            }
            Store::Image(requests) => requests.length(),
        };
        if length < SECTOR {
            return Err(DiskError::Empty(length));
        }
        let (backend, discards) = match store {
            Store::Raw(file) => {
                let ring = Ring::new(file, length).map_err(DiskError::Ring)?;
                let punches = ring.host.punches;
                (Backend::Ring(Box::new(ring)), punches)
            }
            Store::Image(requests) => (Backend::Image(requests), true),
        };
        Ok(Self {
            backend,
            read_only,
            discards: discards && !read_only,
            sectors: length / SECTOR,
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

    /// Bytes of the smallest range that is worth giving up.
    pub fn granularity(&self) -> u64 {
        match &self.backend {
            // The block of most file systems.
            Backend::Ring(_) => clear::PAGE,
            Backend::Image(_) => image::CLUSTER,
        }
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
        let index = place.index();
        match (&mut self.backend, operation) {
            (Backend::Ring(ring), Operation::Write { stable }) => {
                let vectors = place.vectors(ram, spans);
                ring.write(index, offset, stable, vectors);
            }
            (Backend::Ring(ring), _) => {
                let vectors = place.vectors(ram, spans);
                ring.read(index, offset, vectors);
            }
            (Backend::Image(requests), operation) => {
                let (ram, spans) = (ram.clone(), spans.collect());
                let work = match operation {
                    Operation::Write { stable } => Work::Write {
                        offset,
                        stable,
                        ram,
                        spans,
                    },
                    _ => Work::Read { offset, ram, spans },
                };
                requests.ask(index, work);
            }
        }
    }

    /// Starts a flush. Not while the disk is [`Disk::full`].
    pub fn flush(&mut self, tag: T) {
        let Some(place) = self.flights.take(tag, Operation::Flush, 0) else {
            return;
        };
        match &mut self.backend {
            Backend::Ring(ring) => ring.flush(place.index()),
            Backend::Image(requests) => requests.ask(place.index(), Work::Flush),
        }
    }

    /// Starts to give up ranges of the image, in bytes, one after the other; whether there is anything to
    /// do. Not while the disk is [`Disk::full`].
    pub fn discard(&mut self, tag: T, ranges: impl Iterator<Item = Range<u64>>) -> bool {
        self.clear(tag, Operation::Discard, Wanted::Discard, ranges)
    }

    /// Starts to zero a range of the image, in bytes; whether there is anything to do. Not while the disk
    /// is [`Disk::full`].
    pub fn zero(&mut self, tag: T, range: Range<u64>, unmap: bool, stable: bool) -> bool {
        let wanted = Wanted::Zeroes { unmap, stable };
        let operation = Operation::Zero { unmap, stable };
        self.clear(tag, operation, wanted, std::iter::once(range))
    }

    fn clear(
        &mut self,
        tag: T,
        operation: Operation,
        wanted: Wanted,
        ranges: impl Iterator<Item = Range<u64>>,
    ) -> bool {
        match &mut self.backend {
            Backend::Ring(ring) => {
                let mut clearing = Clearing::new(wanted, ranges);
                let Some(first) = clearing.first(ring.host) else {
                    return false;
                };
                if let Some(mut place) = self.flights.take(tag, operation, 0) {
                    place.keep(clearing);
                    let index = place.index();
                    self.step(index, &first);
                }
            }
            Backend::Image(requests) => {
                let ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
                if ranges.is_empty() {
                    return false;
                }
                if let Some(place) = self.flights.take(tag, operation, 0) {
                    requests.ask(place.index(), Work::Clear { wanted, ranges });
                }
            }
        }
        true
    }

    fn step(&mut self, index: u64, step: &Step) {
        let zeroes = match step {
            Step::Write(range) => self.flights.zeroes(index, range.end - range.start),
            _ => (std::ptr::null(), 0),
        };
        if let Backend::Ring(ring) = &mut self.backend {
            ring.step(index, step, zeroes);
        }
    }

    /// Hands over what was started; never waits.
    pub fn submit(&mut self) -> Turn {
        match &mut self.backend {
            Backend::Ring(ring) => ring.submit(),
            Backend::Image(requests) => {
                requests.submit();
                Turn::Idle
            }
        }
    }

    /// Takes an answer, if there is one. What it leads to is handed over by the next
    /// [`Disk::submit`].
    pub fn reap(&mut self) -> Option<Landed<T>> {
        loop {
            let (index, result) = match &mut self.backend {
                Backend::Image(requests) => requests.completion()?,
                Backend::Ring(ring) => {
                    let (index, result) = ring.completion()?;
                    let rest = self.flights.clearing(index);
                    match rest.map(|it| it.follow(result, &mut ring.host)) {
                        None => (index, result),
                        Some(Ok(Some(step))) => {
                            self.step(index, &step);
                            continue;
                        }
                        Some(Ok(None)) => (index, 0),
                        Some(Err(error)) => (index, error),
                    }
                }
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
        if let Backend::Image(requests) = &mut self.backend {
            for index in requests.forget() {
                self.flights.land(index);
            }
        }
        while self.reap().is_some() {}
        self.busy() == 0
    }

    /// Becomes readable with an answer.
    pub fn source(&self) -> Source<'_> {
        let (fd, edge) = match &self.backend {
            Backend::Ring(ring) => (ring.event(), false),
            // Nobody takes its count: a vCPU's thread could not.
            Backend::Image(requests) => (requests.event(), true),
        };
        Source {
            token: RING_TOKEN,
            fd,
            generation: 0,
            interest: Interest {
                read: true,
                edge,
                ..Interest::default()
            },
        }
    }
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
