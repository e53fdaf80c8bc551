//! Submission and completion queues in guest memory (NVMe, section 4.1).

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use super::command::{COMMAND_LEN, Command, Status};
use super::controller::Fatal;
use super::regs::MAX_ADMIN_ENTRIES;
use crate::virtio::GuestRam;

/// Bytes of a completion queue entry.
const COMPLETION_LEN: usize = 16;
/// A queue starts on a page.
const PAGE: u64 = 4096;

/// A queue that cannot be: what to answer to who wants to create it.
fn check(ram: &GuestRam, base: u64, size: u16, entry: usize) -> Result<(), Status> {
    // What a driver can ask for is bounded before: in AQA by its width, in a command by `CAP.MQES`.
    if !(2..=MAX_ADMIN_ENTRIES).contains(&size) {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    if !base.is_multiple_of(PAGE) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    if !ram.check_range(GuestAddress(base), usize::from(size) * entry) {
        return Err(Status::INVALID_FIELD);
    }
    Ok(())
}

/// A submission queue.
#[derive(Debug)]
pub(super) struct Submission {
    base: u64,
    size: u16,
    head: u16,
    tail: u16,
    /// The completion queue that it uses.
    pub(super) completion: u16,
    /// Commands taken and not yet answered.
    pub(super) under_way: u16,
    /// The command that deletes the queue, which waits for those under way.
    pub(super) deleted_by: Option<u16>,
}

impl Submission {
    /// A queue of `size` entries at `base`, both checked.
    pub(super) fn new(
        ram: &GuestRam,
        base: u64,
        size: u16,
        completion: u16,
    ) -> Result<Self, Status> {
        check(ram, base, size, COMMAND_LEN)?;
        Ok(Self {
            base,
            size,
            head: 0,
            tail: 0,
            completion,
            under_way: 0,
            deleted_by: None,
        })
    }

    /// Takes over the tail that the driver wrote; whether it is one.
    pub(super) fn set_tail(&mut self, tail: u16) -> bool {
        let valid = tail < self.size;
        if valid {
            self.tail = tail;
        }
        valid
    }

    /// Where the next command is taken from, as completions tell it.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// Whether there is a command to take.
    pub(super) fn has_some(&self) -> bool {
        self.head != self.tail && self.deleted_by.is_none()
    }

    /// Takes the next command.
    pub(super) fn pop(&mut self, ram: &GuestRam) -> Result<Option<Command>, Fatal> {
        if !self.has_some() {
            return Ok(None);
        }
        let mut entry = [0; COMMAND_LEN];
        let at = self.base + u64::from(self.head) * COMMAND_LEN as u64;
        ram.read_slice(&mut entry, GuestAddress(at))
            .map_err(|_| Fatal)?;
        self.head = (self.head + 1) % self.size;
        self.under_way += 1;
        Ok(Some(Command::parse(&entry)))
    }
}

/// The end of a command, before it has a place in its queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) queue: u16,
    pub(super) head: u16,
    pub(super) command: u16,
    pub(super) status: Status,
    /// Dword 0, which commands use as they like.
    pub(super) result: u32,
}

/// A completion queue. A command is taken only where its completion has room.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    base: u64,
    size: u16,
    head: u16,
    tail: u16,
    phase: bool,
    /// The MSI-X vector, where the driver wants interrupts.
    vector: Option<u16>,
    /// Places that belong to commands under way.
    reserved: u16,
    /// Submission queues that use it.
    pub(super) users: u16,
    /// There is news since the last interrupt.
    news: bool,
    /// Commands wait for room.
    pub(super) starved: bool,
}

impl CompletionQueue {
    /// A queue of `size` entries at `base`, both checked.
    pub(super) fn new(
        ram: &GuestRam,
        base: u64,
        size: u16,
        vector: Option<u16>,
    ) -> Result<Self, Status> {
        check(ram, base, size, COMPLETION_LEN)?;
        Ok(Self {
            base,
            size,
            head: 0,
            tail: 0,
            // Entries are new where their phase is not what the driver's zeroes say.
            phase: true,
            vector,
            reserved: 0,
            users: 0,
            news: false,
            starved: false,
        })
    }

    /// Takes over the head that the driver wrote; whether it is one: only what was posted can be
    /// consumed.
    pub(super) fn set_head(&mut self, head: u16) -> bool {
        if head >= self.size {
            return false;
        }
        let consumed = (head + self.size - self.head) % self.size;
        let valid = consumed <= self.filled();
        if valid {
            self.head = head;
        }
        valid
    }

    fn filled(&self) -> u16 {
        (self.tail + self.size - self.head) % self.size
    }

    /// Keeps a place for a command that is about to be taken; whether there was one.
    pub(super) fn reserve(&mut self) -> bool {
        let free = self.size - 1 - self.filled();
        let room = free > self.reserved;
        self.reserved += u16::from(room);
        self.starved |= !room;
        room
    }

    /// Gives a place back.
    pub(super) fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Posts a completion into a place that was reserved.
    pub(super) fn post(&mut self, ram: &GuestRam, completion: &Completion) -> Result<(), Fatal> {
        self.release();
        let status = completion.status.0 << 1 | u16::from(self.phase);
        let mut entry = [0; COMPLETION_LEN];
        entry[..4].copy_from_slice(&completion.result.to_le_bytes());
        entry[8..10].copy_from_slice(&completion.head.to_le_bytes());
        entry[10..12].copy_from_slice(&completion.queue.to_le_bytes());
        entry[12..14].copy_from_slice(&completion.command.to_le_bytes());
        entry[14..].copy_from_slice(&status.to_le_bytes());
        let at = GuestAddress(self.base + u64::from(self.tail) * COMPLETION_LEN as u64);
        let (body, last) = entry.split_at(12);
        ram.write_slice(body, at).map_err(|_| Fatal)?;
        // Id, status and phase in one piece and after the rest: the driver looks for the phase.
        let last = u32::from_le_bytes([last[0], last[1], last[2], last[3]]);
        ram.store(
            last,
            GuestAddress(at.0 + 12),
            std::sync::atomic::Ordering::Release,
        )
        .map_err(|_| Fatal)?;
        self.tail += 1;
        if self.tail == self.size {
            self.tail = 0;
            self.phase = !self.phase;
        }
        self.news = true;
        Ok(())
    }

    /// The vector to signal, once for all that came since the last time.
    pub(super) fn interrupt(&mut self) -> Option<u16> {
        self.vector.filter(|_| std::mem::take(&mut self.news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> GuestRam {
        GuestRam::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    #[test]
    fn queues_outside_memory_or_of_no_size_are_none() {
        let ram = ram();
        for (base, size, status) in [
            (0x1000, 1, Status::INVALID_QUEUE_SIZE),
            (0x1000, MAX_ADMIN_ENTRIES + 1, Status::INVALID_QUEUE_SIZE),
            (0x1010, 2, Status::INVALID_PRP_OFFSET),
            (0xf000, 65, Status::INVALID_FIELD),
            (!0xfff, 2, Status::INVALID_FIELD),
        ] {
            assert_eq!(Submission::new(&ram, base, size, 0).unwrap_err(), status);
        }
        assert!(Submission::new(&ram, 0xf000, 64, 0).is_ok());
    }

    #[test]
    fn no_more_is_taken_than_can_be_answered_and_the_phase_turns() {
        let ram = ram();
        let mut queue = CompletionQueue::new(&ram, 0x1000, 3, Some(1)).unwrap();
        let completion = |command| Completion {
            queue: 1,
            head: 0,
            command,
            status: Status::SUCCESS,
            result: 0,
        };
        let phase = |index: u64| {
            let status: u16 = ram
                .read_obj(GuestAddress(0x1000 + index * 16 + 14))
                .unwrap();
            status & 1
        };
        assert_eq!(
            [queue.reserve(), queue.reserve(), queue.reserve()],
            [true, true, false]
        );
        assert!(queue.starved);
        assert!(!queue.set_head(1), "nothing was posted");
        queue.post(&ram, &completion(7)).unwrap();
        queue.post(&ram, &completion(8)).unwrap();
        assert_eq!((queue.interrupt(), queue.interrupt()), (Some(1), None));
        assert_eq!([phase(0), phase(1), phase(2)], [1, 1, 0]);
        assert!(!queue.reserve());
        assert!(!queue.set_head(3) && !queue.set_head(u16::MAX));
        assert!(queue.set_head(2));
        assert!(queue.reserve() && queue.reserve());
        queue.post(&ram, &completion(9)).unwrap();
        queue.post(&ram, &completion(10)).unwrap();
        assert_eq!([phase(0), phase(1), phase(2)], [0, 1, 1]);
    }
}
