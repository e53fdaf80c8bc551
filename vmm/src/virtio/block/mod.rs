//! Block device (virtio 1.2, section 5.2) over a raw image, by `io_uring`.
//!
//! The kernel reads and writes guest memory directly; the device sees only the request header. A
//! flush is an `fdatasync`; without `VIRTIO_BLK_F_FLUSH` each write is stable before it completes.

mod flight;
mod request;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{SeekFrom, seek};
use thiserror::Error;

use self::flight::{Flight, Flights};
use self::request::{Operation, Request, SECTOR, Status};
use super::{
    Chain, Device, DriverFault, GuestRam, Interest, Io, Kind, Progress, QUEUE_SIZE, Source, Turn,
    VirtQueue,
};

/// Requests under way at once. An SSD is busy with 32; twice that covers the way to it, and bounds
/// the kernel's memory and the time a reset waits.
const IN_FLIGHT: u16 = 64;
/// Requests taken off the queue in one turn.
const BUDGET: usize = 128;
/// Data buffers of a request: the queue's longest chain, less header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
const RING_TOKEN: u32 = 0;

/// `VIRTIO_BLK_F_SEG_MAX`.
const F_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
const F_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
const F_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
const F_FLUSH: u64 = 1 << 9;

/// Length of the device's name, in bytes.
pub const ID_LEN: usize = 20;

/// Why a disk cannot be offered.
#[derive(Debug, Error)]
pub enum BlockError {
    /// The image's length cannot be had.
    #[error("the length of the disk image cannot be read: {0}; give a regular file or a disk")]
    Length(#[source] io::Error),
    /// The image is shorter than one sector.
    #[error("the disk image has {0} bytes, less than one sector of 512; give a larger one")]
    Empty(u64),
    /// No ring.
    #[error("io_uring cannot be set up: {0}; allow it (kernel.io_uring_disabled = 0)")]
    Ring(#[source] io::Error),
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
    /// Requests answered with an error.
    pub errors: u64,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caching {
    /// When the host has it: the driver flushes.
    WriteBack,
    /// When it is stable: the driver knows no flush.
    WriteThrough,
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
    ];
    let submitter = ring.submitter();
    submitter.register_restrictions(&mut codes.map(Restriction::sqe_op))?;
    submitter.register_enable_rings()?;
    Ok(ring)
}

/// The device.
pub struct Block {
    file: File,
    read_only: bool,
    id: [u8; ID_LEN],
    /// Sectors of 512 bytes.
    capacity: u64,
    ring: IoUring,
    flights: Flights,
    /// How the running driver wants its writes.
    driver: Option<Caching>,
    notified: bool,
    /// The queue may hold requests that wait for a place in flight.
    full: bool,
    chain: Chain,
    counters: Counters,
    /// Keeps guest memory mapped while requests are under way.
    memory: Option<GuestRam>,
}

impl Block {
    /// A disk over `file`, which is opened for what `read_only` says; a last part of a sector is
    /// not shown. `id` is cut to 20 bytes.
    pub fn new(file: File, read_only: bool, id: &str) -> Result<Self, BlockError> {
        let length =
            seek(&file, SeekFrom::End(0)).map_err(|error| BlockError::Length(error.into()))?;
        if length < SECTOR {
            return Err(BlockError::Empty(length));
        }
        let mut name = [0; ID_LEN];
        for (slot, byte) in name.iter_mut().zip(id.bytes()) {
            *slot = byte;
        }
        Ok(Self {
            file,
            read_only,
            id: name,
            capacity: length / SECTOR,
            ring: ring().map_err(BlockError::Ring)?,
            flights: Flights::new(IN_FLIGHT),
            driver: None,
            notified: false,
            full: false,
            chain: Chain::default(),
            counters: Counters::default(),
            memory: None,
        })
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.flights.busy()
    }

    /// Takes requests off the queue and starts them; whether the budget ended it.
    fn take(&mut self, ram: &GuestRam, queue: &mut VirtQueue) -> Result<Turn, DriverFault> {
        for _ in 0..BUDGET {
            if self.flights.full() {
                self.full = true;
                return Ok(Turn::Idle);
            }
            let mut chain = std::mem::take(&mut self.chain);
            let popped = queue.pop(ram, &mut chain);
            self.chain = chain;
            if !popped? {
                if !queue.listen(ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            let request = Request::parse(ram, &self.chain)?;
            match self.plan(&request) {
                Ok(Some(operation)) => self.start(ram, &request, operation),
                Ok(None) => {
                    let id = self.id;
                    let given = if request.operation == Some(Operation::Id) {
                        self.chain.write_at(ram, 0, &id[..request.id_len()])
                    } else {
                        0
                    };
                    let given = u32::try_from(given).unwrap_or(0);
                    request.answer(ram, queue, Status::Ok, given)?;
                }
                Err(status) => {
                    self.counters.errors += 1;
                    request.answer(ram, queue, status, 0)?;
                }
            }
        }
        Ok(Turn::More)
    }

    /// What to ask of the kernel; nothing for what is answered at once.
    fn plan(&self, request: &Request) -> Result<Option<Operation>, Status> {
        let operation = request.operation.ok_or(Status::Unsupported)?;
        match operation {
            Operation::Id => Ok(None),
            Operation::Flush if self.read_only => Ok(None),
            Operation::Flush => Ok(Some(operation)),
            Operation::Write if self.read_only => Err(Status::Error),
            Operation::Read | Operation::Write => {
                request.check_range(self.capacity)?;
                Ok((request.data_len > 0).then_some(operation))
            }
        }
    }

    fn start(&mut self, ram: &GuestRam, request: &Request, operation: Operation) {
        let fd = types::Fd(self.file.as_raw_fd());
        let flags = match self.driver {
            Some(Caching::WriteBack) => 0,
            Some(Caching::WriteThrough) | None => libc::RWF_DSYNC,
        };
        let flight = Flight {
            head: request.head,
            status_at: request.status_at,
            operation,
            expected: request.data_len,
        };
        let Some(entry) =
            self.flights
                .launch(flight, fd, request.offset(), flags, ram, &self.chain)
        else {
            return;
        };
        self.push(&entry);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: buffers and vectors of the entry live in `flights` and in guest memory until its
        // completion is taken; guest memory outlives them (`memory`, `drop`).
        let pushed = unsafe { self.ring.submission().push(entry) };
        // The ring has as many places as there are flights.
        debug_assert!(pushed.is_ok(), "a flight has a place in the ring");
    }

    /// Hands new requests to the kernel; never waits.
    fn submit(&mut self) -> Turn {
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

    /// Takes completions and answers their requests; those of a driver that is gone are dropped.
    fn reap(&mut self, mut io: Option<&mut Io<'_>>) -> Result<(), DriverFault> {
        loop {
            let next = self.ring.completion().next();
            let Some(completion) = next else {
                return Ok(());
            };
            let Some(flight) = self.flights.land(completion.user_data()) else {
                continue;
            };
            let result = completion.result();
            let status = flight.status(result);
            if status == Status::Ok {
                match flight.operation {
                    Operation::Read => self.counters.reads += 1,
                    Operation::Write => self.counters.writes += 1,
                    Operation::Flush | Operation::Id => self.counters.flushes += 1,
                }
            } else {
                self.counters.errors += 1;
                tracing::warn!(operation = ?flight.operation, result, "a disk request failed");
            }
            let Some(io) = io.as_mut() else {
                continue;
            };
            if let Some(queue) = io.queues.first_mut() {
                let written = flight.written(status);
                request::answer_at(
                    io.ram,
                    queue,
                    flight.head,
                    flight.status_at,
                    status,
                    written,
                )?;
            }
            // There is a place in flight for what waited.
            self.notified |= std::mem::take(&mut self.full);
        }
    }
}

impl Device for Block {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only { F_RO } else { 0 };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | read_only
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 24];
        config[..8].copy_from_slice(&self.capacity.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&512_u32.to_le_bytes());
        for (at, byte) in (offset..).zip(data) {
            *byte = config.get(at).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, features: u64) {
        self.driver = Some(if features & F_FLUSH == 0 {
            Caching::WriteThrough
        } else {
            Caching::WriteBack
        });
    }

    fn reset(&mut self) -> Progress {
        self.driver = None;
        self.notified = false;
        self.full = false;
        // Without queues there is nothing that could fail.
        let _ = self.reap(None);
        if self.flights.busy() == 0 {
            Progress::Done
        } else {
            Progress::Waiting
        }
    }

    fn drain(&mut self) {
        self.submit();
    }

    fn notified(&mut self, _index: usize) {
        self.notified = true;
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        if self.driver.is_none() {
            return Ok(Turn::Idle);
        }
        self.memory.get_or_insert_with(|| io.ram.clone());
        self.reap(Some(io))?;
        let mut taken = Ok(Turn::Idle);
        if std::mem::take(&mut self.notified)
            && let Some(queue) = io.queues.first_mut()
        {
            taken = self.take(io.ram, queue);
        }
        // Also before a fault is told: what was taken is under way.
        let mut turn = self.submit();
        self.notified |= taken? == Turn::More;
        // What the page cache had is complete by now.
        self.reap(Some(io))?;
        if self.notified {
            turn = Turn::More;
        }
        Ok(turn)
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        let number: RawFd = self.ring.as_raw_fd();
        // SAFETY: the ring owns the descriptor and is borrowed as long as the list.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        list.push(Source {
            token: RING_TOKEN,
            fd,
            generation: 0,
            interest: Interest {
                read: true,
                ..Interest::default()
            },
        });
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // The kernel may still write into guest memory. Waiting for it would be a system call on a
        // thread whose filter has none for disks; so the mapping stays instead, until the process
        // ends.
        if self.flights.busy() > 0 {
            std::mem::forget(self.memory.take());
        }
    }
}
