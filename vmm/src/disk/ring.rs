//! A raw image by `io_uring`: the kernel reads and writes guest memory directly.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};

use super::IN_FLIGHT;
use super::clear::Step;
use super::host::Host;
use crate::worker::Turn;

type Vectors = (*const libc::iovec, u32);

/// The file and its ring.
pub(super) struct Ring {
    file: File,
    uring: IoUring,
    pub(super) host: Host,
}

/// A ring that can do nothing but what a disk needs: a filter of system calls does not see what is
/// asked for inside a ring, and a ring without bounds opens files and makes sockets.
fn bounded_ring() -> io::Result<IoUring> {
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

impl Ring {
    pub(super) fn new(file: File, length: u64) -> io::Result<Self> {
        let host = Host::of(&file, length);
        Ok(Self {
            file,
            uring: bounded_ring()?,
            host,
        })
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }

    pub(super) fn read(&mut self, index: u64, offset: u64, (vectors, count): Vectors) {
        let entry = opcode::Readv::new(self.fd(), vectors, count).offset(offset);
        self.push(&entry.build().user_data(index));
    }

    pub(super) fn write(&mut self, index: u64, offset: u64, stable: bool, vectors: Vectors) {
        let entry = opcode::Writev::new(self.fd(), vectors.0, vectors.1)
            .offset(offset)
            .rw_flags(if stable { libc::RWF_DSYNC } else { 0 });
        self.push(&entry.build().user_data(index));
    }

    pub(super) fn flush(&mut self, index: u64) {
        let entry = opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC);
        self.push(&entry.build().user_data(index));
    }

    /// One step of a request for ranges; `zeroes` are what a step that writes takes.
    pub(super) fn step(&mut self, index: u64, step: &Step, zeroes: Vectors) {
        let fd = self.fd();
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
            Step::Write(range) => return self.write(index, range.start, false, zeroes),
            Step::Sync => return self.flush(index),
        };
        self.push(&entry.user_data(index));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: buffers and vectors of the entry live in the disk's flights and in guest memory until
        // its completion is taken; guest memory outlives them (`memory`, `drop` of the disk).
        let pushed = unsafe { self.uring.submission().push(entry) };
        // The ring has as many places as there are flights.
        debug_assert!(pushed.is_ok(), "a flight has a place in the ring");
    }

    /// Hands what was started to the kernel; never waits.
    pub(super) fn submit(&mut self) -> Turn {
        if self.uring.submission().is_empty() {
            return Turn::Idle;
        }
        match self.uring.submit() {
            Ok(_) => Turn::Idle,
            Err(error) => {
                // Short of memory, or a completion queue to be emptied first: both pass.
                tracing::warn!(%error, "disk requests wait for the kernel");
                Turn::More
            }
        }
    }

    /// An answer of the kernel's: which request, and its result.
    pub(super) fn completion(&mut self) -> Option<(u64, i32)> {
        let completion = self.uring.completion().next()?;
        Some((completion.user_data(), completion.result()))
    }

    /// Readable with an answer.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        let number: RawFd = self.uring.as_raw_fd();
        // SAFETY: the ring owns the descriptor and is borrowed as long as the result.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}

fn allocate(fd: types::Fd, range: &Range<u64>, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(fd, range.end - range.start)
        .offset(range.start)
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}
