//! Requests that the kernel works on, each with the vectors it reads its addresses from.

use io_uring::{opcode, squeue, types};
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::request::{Operation, Status};
use crate::virtio::chain::spans;
use crate::virtio::{Chain, GuestRam};

/// Bytes before a write's data: the request header.
const HEADER_LEN: u64 = 16;

/// What is needed to answer a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) head: u16,
    pub(super) status_at: GuestAddress,
    pub(super) operation: Operation,
    /// Bytes that a complete transfer moves.
    pub(super) expected: u64,
}

impl Flight {
    /// What the kernel's result means. A transfer that came short is an error: the image is shorter
    /// than it was, or the disk under it is full.
    pub(super) fn status(&self, result: i32) -> Status {
        let moved = match self.operation {
            Operation::Read | Operation::Write => self.expected,
            Operation::Flush | Operation::Id => 0,
        };
        if u64::try_from(result) == Ok(moved) {
            Status::Ok
        } else {
            Status::Error
        }
    }

    /// Bytes that the device wrote into the chain, status included.
    pub(super) fn written(&self, status: Status) -> u32 {
        match (self.operation, status) {
            (Operation::Read, Status::Ok) => u32::try_from(self.expected + 1).unwrap_or(1),
            _ => 1,
        }
    }
}

#[derive(Default)]
struct Place {
    flight: Option<Flight>,
    vectors: Vec<libc::iovec>,
}

/// All places for requests under way.
pub(super) struct Flights {
    places: Vec<Place>,
    free: Vec<u16>,
}

// SAFETY: the vectors point into the mapping of guest memory, which all threads share; they are
// touched only through `&mut self` and by the kernel.
unsafe impl Send for Flights {}

impl Flights {
    pub(super) fn new(count: u16) -> Self {
        Self {
            places: (0..count).map(|_| Place::default()).collect(),
            free: (0..count).collect(),
        }
    }

    pub(super) fn busy(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a place for the request in `chain` and makes the kernel's entry for it; `None` where
    /// all are taken.
    pub(super) fn launch(
        &mut self,
        flight: Flight,
        fd: types::Fd,
        offset: u64,
        write_flags: i32,
        ram: &GuestRam,
        chain: &Chain,
    ) -> Option<squeue::Entry> {
        let index = self.free.pop()?;
        let place = self.places.get_mut(usize::from(index))?;
        let length = usize::try_from(flight.expected).unwrap_or(0);
        let vectors = &mut place.vectors;
        vectors.clear();
        match flight.operation {
            Operation::Write => {
                add_vectors(vectors, ram, spans(chain.readable(), HEADER_LEN, length));
            }
            Operation::Read => add_vectors(vectors, ram, spans(chain.writable(), 0, length)),
            Operation::Flush | Operation::Id => {}
        }
        place.flight = Some(flight);
        // A chain has at most as many buffers as the queue, and memory few regions.
        let count = u32::try_from(vectors.len()).unwrap_or(0);
        let vectors = vectors.as_ptr();
        let entry = match flight.operation {
            Operation::Read => opcode::Readv::new(fd, vectors, count)
                .offset(offset)
                .build(),
            Operation::Write => opcode::Writev::new(fd, vectors, count)
                .offset(offset)
                .rw_flags(write_flags)
                .build(),
            Operation::Flush | Operation::Id => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        };
        Some(entry.user_data(index.into()))
    }

    /// Frees the place of a completed request.
    pub(super) fn land(&mut self, user_data: u64) -> Option<Flight> {
        let index = u16::try_from(user_data).ok()?;
        let flight = self.places.get_mut(usize::from(index))?.flight.take()?;
        self.free.push(index);
        Some(flight)
    }
}

fn add_vectors(
    vectors: &mut Vec<libc::iovec>,
    ram: &GuestRam,
    ranges: impl Iterator<Item = (GuestAddress, usize)>,
) {
    for (address, length) in ranges {
        // The chain's ranges were checked to lie in guest memory, so no slice is an error; were one
        // missing, the transfer would come short and be answered as an error.
        for slice in ram.get_slices(address, length).flatten() {
            vectors.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_transfer_and_an_errno_are_errors() {
        let flight = |operation| Flight {
            head: 0,
            status_at: GuestAddress(0),
            operation,
            expected: 1024,
        };
        let write = flight(Operation::Write);
        assert_eq!(write.status(1024), Status::Ok);
        assert_eq!(write.status(512), Status::Error);
        assert_eq!(write.status(-libc::ENOSPC), Status::Error);
        assert_eq!(flight(Operation::Flush).status(0), Status::Ok);
        assert_eq!(flight(Operation::Flush).status(-libc::EIO), Status::Error);
    }
}
