//! Places for requests that the kernel works on, each with the vectors it reads its addresses from.

use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::clear::Clearing;
use super::{Failure, Operation};
use crate::virtio::GuestRam;

/// What is needed to understand the kernel's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight<T> {
    pub(super) tag: T,
    pub(super) operation: Operation,
    /// Bytes that a complete transfer moves.
    pub(super) length: u64,
}

impl<T> Flight<T> {
    /// What the kernel's result means. A transfer that came short is an error: the image is shorter
    /// than it was, or the disk under it is full.
    pub(super) fn outcome(&self, result: i32) -> Result<(), Failure> {
        let moved = match self.operation {
            Operation::Read | Operation::Write { .. } => self.length,
            Operation::Flush | Operation::Discard | Operation::Zero { .. } => 0,
        };
        match result {
            _ if u64::try_from(result) == Ok(moved) => Ok(()),
            error if error == -libc::ENOSPC || error == -libc::EDQUOT => Err(Failure::Full),
            _ => Err(Failure::Medium),
        }
    }
}

struct Slot<T> {
    flight: Option<Flight<T>>,
    vectors: Vec<libc::iovec>,
    /// What follows the call that is under way, where a request is made of several.
    clearing: Option<Clearing>,
}

/// What is written where the host has no call for zeroes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// All places for requests under way.
pub(super) struct Flights<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
}

// SAFETY: the vectors point into the mapping of guest memory, which all threads share; they are
// touched only through `&mut self` and by the kernel.
unsafe impl<T: Send> Send for Flights<T> {}

/// A place that was taken and is being filled.
pub(super) struct Place<'a, T> {
    index: u16,
    slot: &'a mut Slot<T>,
}

impl<T> Flights<T> {
    pub(super) fn new(count: u16) -> Self {
        let slot = |_| Slot {
            flight: None,
            vectors: Vec::new(),
            clearing: None,
        };
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).collect(),
        }
    }

    pub(super) fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a place for a request; `None` where all are taken.
    pub(super) fn take(
        &mut self,
        tag: T,
        operation: Operation,
        length: u64,
    ) -> Option<Place<'_, T>> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.flight = Some(Flight {
            tag,
            operation,
            length,
        });
        Some(Place { index, slot })
    }

    /// Frees the place of a completed request.
    pub(super) fn land(&mut self, user_data: u64) -> Option<Flight<T>> {
        let index = u16::try_from(user_data).ok()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        let flight = slot.flight.take()?;
        slot.clearing = None;
        self.free.push(index);
        Some(flight)
    }

    /// What the request in this place goes on with, if it is made of several calls.
    pub(super) fn clearing(&mut self, user_data: u64) -> Option<&mut Clearing> {
        let slot = self.slots.get_mut(usize::try_from(user_data).ok()?)?;
        slot.clearing.as_mut()
    }

    /// Vectors for `length` zeroes, and how many.
    pub(super) fn zeroes(&mut self, user_data: u64, length: u64) -> (*const libc::iovec, u32) {
        let index = usize::try_from(user_data).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(index) else {
            return (std::ptr::null(), 0);
        };
        slot.vectors.clear();
        let mut left = usize::try_from(length).unwrap_or(0);
        while left > 0 {
            let part = left.min(ZEROES.len());
            slot.vectors.push(libc::iovec {
                // A write only reads from there.
                iov_base: ZEROES.as_ptr().cast_mut().cast(),
                iov_len: part,
            });
            left -= part;
        }
        let count = u32::try_from(slot.vectors.len()).unwrap_or(0);
        (slot.vectors.as_ptr(), count)
    }

    /// No request goes on after what is under way.
    pub(super) fn forget_rest(&mut self) {
        for slot in &mut self.slots {
            slot.clearing = None;
        }
    }
}

impl<T> Place<'_, T> {
    /// The place's number, as the kernel gives it back.
    pub(super) fn index(&self) -> u64 {
        self.index.into()
    }

    /// Vectors for these spans of guest memory, and how many.
    pub(super) fn vectors(
        &mut self,
        ram: &GuestRam,
        spans: impl Iterator<Item = (GuestAddress, usize)>,
    ) -> (*const libc::iovec, u32) {
        let vectors = &mut self.slot.vectors;
        vectors.clear();
        for (address, length) in spans {
            // The spans were checked to lie in guest memory, so no slice is an error; were one
            // missing, the transfer would come short and be answered as an error.
            for slice in ram.get_slices(address, length).flatten() {
                vectors.push(libc::iovec {
                    iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                    iov_len: slice.len(),
                });
            }
        }
        // A request has at most some hundred spans, and memory few regions.
        let count = u32::try_from(vectors.len()).unwrap_or(0);
        (vectors.as_ptr(), count)
    }

    /// Keeps what the request goes on with.
    pub(super) fn keep(&mut self, clearing: Clearing) {
        self.slot.clearing = Some(clearing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clear::{PIECE, Wanted};

    #[test]
    fn a_short_transfer_and_an_errno_are_errors() {
        let flight = |operation| Flight {
            tag: (),
            operation,
            length: 1024,
        };
        let write = flight(Operation::Write { stable: false });
        assert_eq!(write.outcome(1024), Ok(()));
        assert_eq!(write.outcome(512), Err(Failure::Medium));
        assert_eq!(write.outcome(-libc::ENOSPC), Err(Failure::Full));
        assert_eq!(flight(Operation::Read).outcome(0), Err(Failure::Medium));
        assert_eq!(flight(Operation::Flush).outcome(0), Ok(()));
        let broken = flight(Operation::Flush).outcome(-libc::EIO);
        assert_eq!(broken, Err(Failure::Medium));
        let discard = flight(Operation::Discard);
        assert_eq!(discard.outcome(0), Ok(()));
        assert_eq!(discard.outcome(-libc::EIO), Err(Failure::Medium));
    }

    #[test]
    fn what_follows_goes_with_its_place() {
        let mut flights = Flights::new(1);
        let mut place = flights.take((), Operation::Discard, 0).unwrap();
        let index = place.index();
        place.keep(Clearing::new(Wanted::Discard, [0..1, 4..8].into_iter()));
        assert!(flights.take((), Operation::Flush, 0).is_none());
        assert!(flights.clearing(index).is_some());
        assert!(flights.land(index).is_some());
        assert!(flights.clearing(index).is_none());
        assert!(flights.clearing(7).is_none());
    }

    #[test]
    fn zeroes_are_as_many_as_are_asked_for() {
        let mut flights = Flights::<()>::new(1);
        for length in [512, 64 << 10, PIECE, PIECE - 512] {
            let (first, count) = flights.zeroes(0, length);
            // SAFETY: they live in `flights`, which is borrowed no more.
            let vectors = unsafe { std::slice::from_raw_parts(first, count as usize) };
            let sum: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            assert_eq!(sum as u64, length);
            assert!(vectors.iter().all(|vector| vector.iov_len <= ZEROES.len()));
        }
    }
}
