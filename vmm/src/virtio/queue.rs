//! A split virtqueue (virtio 1.2, section 2.7), walked by `virtio-queue`, with every rule that the
//! driver can break turned into a value.

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes, GuestAddress};

use super::{Chain, GuestRam};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: the driver polls.
const NO_INTERRUPT: u16 = 1;
const AVAIL_HEADER_LEN: u64 = 4;
const USED_HEADER_LEN: u64 = 4;
const USED_ELEMENT_LEN: usize = 8;
/// Vector number that stands for none (virtio 1.2, section 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// How a driver broke the rules of the rings; the device then needs a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DriverFault {
    /// More new chains than the queue has entries.
    #[error("the available index jumped by more than the queue's size")]
    IndexJump,
    /// More descriptors than the queue has entries.
    #[error("a descriptor chain is longer than the queue")]
    TooLong,
    /// A loop, a link past the table, an indirect table inside another or outside memory.
    #[error("a descriptor chain does not end")]
    Broken,
    /// A buffer to read behind one to write, or too few of one kind for the request.
    #[error("a descriptor chain has its buffers in the wrong direction")]
    Direction,
    /// A buffer that is not wholly in guest memory.
    #[error("a descriptor points outside guest memory")]
    Outside,
    /// The ring is not in guest memory, or not aligned.
    #[error("a virtqueue lies outside guest memory or is not aligned")]
    Ring,
}

/// One queue of a device.
pub struct VirtQueue {
    ring: Queue,
    /// MSI-X vector of its interrupts, or [`NO_VECTOR`].
    pub(super) vector: u16,
    /// Used index at the last look at whether the driver wants to know.
    told: u16,
}

impl VirtQueue {
    /// A queue of at most `max_size` entries, a power of two up to 32768.
    pub(super) fn new(max_size: u16) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            ring: Queue::new(max_size)?,
            vector: NO_VECTOR,
            told: 0,
        })
    }

    /// Whether the driver enabled it.
    pub fn ready(&self) -> bool {
        self.ring.ready()
    }

    /// Entries, as the driver chose.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Takes the next chain that the driver made available into `chain`; whether there was one.
    pub fn pop(&mut self, ram: &GuestRam, chain: &mut Chain) -> Result<bool, DriverFault> {
        if !self.ring.ready() {
            return Ok(false);
        }
        let size = self.ring.size();
        let mut available = self.ring.iter(ram).map_err(|error| match error {
            virtio_queue::Error::InvalidAvailRingIndex => DriverFault::IndexJump,
            _ => DriverFault::Ring,
        })?;
        let Some(descriptors) = available.next() else {
            return Ok(false);
        };
        chain.fill(ram, descriptors, size)?;
        Ok(true)
    }

    /// Puts the chain that was popped last back, to be popped again.
    pub fn put_back(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Gives a chain back to the driver with `written` bytes in its writable buffers.
    pub fn push(&mut self, ram: &GuestRam, head: u16, written: u32) -> Result<(), DriverFault> {
        self.push_all(ram, &[(head, written)])
    }

    /// Gives several chains back at once: heads, and bytes written. The driver sees none of them or
    /// all, which a frame in mergeable buffers needs (virtio 1.2, section 5.1.6.4.1).
    pub fn push_all(&mut self, ram: &GuestRam, used: &[(u16, u32)]) -> Result<(), DriverFault> {
        let size = self.ring.size();
        let mut next = self.ring.next_used();
        for (head, written) in used {
            let mut element = [0; USED_ELEMENT_LEN];
            element[..2].copy_from_slice(&head.to_le_bytes());
            element[4..].copy_from_slice(&written.to_le_bytes());
            let slot = u64::from(next.checked_rem(size).unwrap_or(0));
            let place = self.ring.used_ring() + USED_HEADER_LEN + slot * 8;
            ram.write_slice(&element, GuestAddress(place))
                .map_err(|_| DriverFault::Ring)?;
            next = next.wrapping_add(1);
        }
        self.ring.set_next_used(next);
        let index = GuestAddress(self.ring.used_ring() + 2);
        // Release: the elements are in memory before the index that covers them.
        ram.store(next.to_le(), index, Ordering::Release)
            .map_err(|_| DriverFault::Ring)
    }

    /// Asks the driver to notify of the next chain; whether one came meanwhile, which the caller
    /// then has to take, for nobody will notify of it.
    pub fn listen(&mut self, ram: &GuestRam) -> Result<bool, DriverFault> {
        if !self.ring.ready() {
            return Ok(false);
        }
        self.ring
            .enable_notification(ram)
            .map_err(|_| DriverFault::Ring)
    }

    /// Whether the driver is to be interrupted for what was pushed since the last call (virtio
    /// 1.2, section 2.7.7).
    pub(super) fn wants_interrupt(&mut self, ram: &GuestRam) -> bool {
        let new = self.ring.next_used();
        let old = std::mem::replace(&mut self.told, new);
        if new == old {
            return false;
        }
        // The used index is visible before the driver's wish is read: else a driver that goes to
        // sleep between the two would never be woken.
        fence(Ordering::SeqCst);
        let read = |offset: u64| {
            let place = GuestAddress(self.ring.avail_ring() + offset);
            ram.load(place, Ordering::Relaxed).map(u16::from_le)
        };
        if self.ring.event_idx_enabled() {
            let event = read(AVAIL_HEADER_LEN + 2 * u64::from(self.ring.size()));
            let since_event = |event: u16| new.wrapping_sub(event).wrapping_sub(1);
            return event.is_ok_and(|event| since_event(event) < new.wrapping_sub(old));
        }
        read(0).is_ok_and(|flags| flags & NO_INTERRUPT == 0)
    }

    /// Enables the queue with these addresses and this size.
    pub(super) fn enable(
        &mut self,
        ram: &GuestRam,
        place: &super::regs::QueuePlace,
        event_idx: bool,
    ) -> Result<(), DriverFault> {
        let ring = &mut self.ring;
        let set = ring
            .try_set_size(place.size)
            .and_then(|()| ring.try_set_desc_table_address(GuestAddress(place.descriptors)))
            .and_then(|()| ring.try_set_avail_ring_address(GuestAddress(place.driver)))
            .and_then(|()| ring.try_set_used_ring_address(GuestAddress(place.device)));
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        // Address zero is `virtio-queue`'s mark of a ring that was never set.
        if set.is_err() || place.driver == 0 || !ring.is_valid(ram) {
            ring.set_ready(false);
            return Err(DriverFault::Ring);
        }
        Ok(())
    }

    /// Back to power-on.
    pub(super) fn reset(&mut self) {
        self.ring.reset();
        self.vector = NO_VECTOR;
        self.told = 0;
    }
}
