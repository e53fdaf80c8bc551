//! Where received frames lie: slots that are made once and used again by every batch.

use crate::{HEADER_LEN, MAX_MESSAGE, NetHdr, Rules};

/// Each frame starts a cache line. That is also what keeps the kernel's copy fast: on AMD's Zen
/// cores `rep movsb` slows down by a third and more when the target lies 1 to 63 bytes behind the
/// source within their pages, which a full super-frame did from wherever the allocator put it.
const LINE: usize = 64;

/// From a slot's start to its message.
const LEAD: usize = LINE - HEADER_LEN;

/// From one slot to the next. It is no multiple of a page, so that the starts of the slots do not
/// fall into the same few sets of the cache.
const STRIDE: usize = (LEAD + MAX_MESSAGE).next_multiple_of(LINE);

/// A checked frame in its slot. Only a link makes one.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Frame<'a> {
    /// The header, checked against the link's rules.
    pub hdr: NetHdr,
    /// The Ethernet frame, at least [`MIN_FRAME`](crate::MIN_FRAME) bytes.
    pub frame: &'a [u8],
}

/// A checked frame that may be worked on in place.
#[derive(Debug)]
#[non_exhaustive]
pub struct FrameMut<'a> {
    /// The header, checked against the link's rules.
    pub hdr: NetHdr,
    /// The Ethernet frame, at least [`MIN_FRAME`](crate::MIN_FRAME) bytes.
    pub frame: &'a mut [u8],
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    slot: usize,
    frame_len: usize,
    hdr: NetHdr,
}

/// Preallocated memory for one batch of received frames: private to this process, so that what
/// was checked stays as it was.
///
/// A slot is [`MAX_MESSAGE`] bytes of address space, but only the pages that frames have touched
/// take memory.
#[derive(Debug)]
pub struct FrameArena {
    storage: Box<[u8]>,
    /// Where the first slot starts: at the storage's first cache line.
    first: usize,
    slots: usize,
    /// The slots that hold a checked frame, ascending. Its capacity is `slots`.
    taken: Vec<Taken>,
}

impl FrameArena {
    /// An arena for batches of up to `slots` frames. All memory is reserved here.
    pub fn new(slots: usize) -> Self {
        let storage = vec![0; LINE + slots * STRIDE].into_boxed_slice();
        // The memory of a box stays where it is.
        let first = storage.as_ptr().align_offset(LINE).min(LINE);
        Self {
            storage,
            first,
            slots,
            taken: Vec::with_capacity(slots),
        }
    }

    /// How many frames a batch can have.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How many frames the last batch has.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether the last batch has none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Forgets the frames of the last batch.
    pub fn clear(&mut self) {
        self.taken.clear();
    }

    /// The frame number `index` of the last batch.
    pub fn get(&self, index: usize) -> Option<Frame<'_>> {
        let taken = self.taken.get(index)?;
        let start = self.first + taken.slot * STRIDE + LINE;
        Some(Frame {
            hdr: taken.hdr,
            frame: self.storage.get(start..start + taken.frame_len)?,
        })
    }

    /// The same, to be worked on in place.
    pub fn get_mut(&mut self, index: usize) -> Option<FrameMut<'_>> {
        let taken = self.taken.get(index)?;
        let start = self.first + taken.slot * STRIDE + LINE;
        Some(FrameMut {
            hdr: taken.hdr,
            frame: self.storage.get_mut(start..start + taken.frame_len)?,
        })
    }

    /// The frames of the last batch, in the order in which they were sent.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..self.taken.len()).filter_map(|index| self.get(index))
    }

    /// The same, to be worked on in place.
    pub fn frames_mut(&mut self) -> impl Iterator<Item = FrameMut<'_>> {
        let storage = self.storage.get_mut(self.first..).unwrap_or_default();
        let mut slots = storage.chunks_exact_mut(STRIDE).enumerate();
        self.taken.iter().filter_map(move |taken| {
            let (_, slot) = slots.find(|(number, _)| *number == taken.slot)?;
            Some(FrameMut {
                hdr: taken.hdr,
                frame: slot.get_mut(LINE..LINE + taken.frame_len)?,
            })
        })
    }

    /// The whole messages' room, slot by slot, for a link to write into.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let storage = self.storage.get_mut(self.first..).unwrap_or_default();
        storage
            .chunks_exact_mut(STRIDE)
            .filter_map(|slot| slot.get_mut(LEAD..LEAD + MAX_MESSAGE))
    }

    /// The message of `len` bytes that a link wrote into a slot: its header and its frame.
    pub(crate) fn message(&self, slot: usize, len: usize) -> Option<(&[u8; HEADER_LEN], &[u8])> {
        let start = self.first + slot * STRIDE + LEAD;
        self.storage
            .get(start..start + len)?
            .split_first_chunk::<HEADER_LEN>()
    }

    /// Lets `copy` fill the next slot with a message of `len` bytes, header and frame, and takes it
    /// into the batch if it holds the rules and there is room: for a link whose messages come from
    /// elsewhere than a socket. What is checked is the copy.
    pub fn put(&mut self, len: usize, rules: &Rules, copy: impl FnOnce(&mut [u8])) -> bool {
        let slot = self.taken.last().map_or(0, |taken| taken.slot + 1);
        let start = self.first + slot * STRIDE + LEAD;
        if slot >= self.slots || len > MAX_MESSAGE {
            return false;
        }
        let Some(room) = self.storage.get_mut(start..start + len) else {
            return false;
        };
        copy(room);
        let checked = self.message(slot, len).and_then(|(header, frame)| {
            let hdr = rules.check(header, frame.len()).ok()?;
            Some((frame.len(), hdr))
        });
        match checked {
            Some((frame_len, hdr)) => {
                self.take(slot, frame_len, hdr);
                true
            }
            None => false,
        }
    }

    /// Takes a checked message into the batch. Slots come in ascending order.
    pub(crate) fn take(&mut self, slot: usize, frame_len: usize, hdr: NetHdr) {
        debug_assert!(self.taken.len() < self.slots, "one entry a slot");
        self.taken.push(Taken {
            slot,
            frame_len,
            hdr,
        });
    }
}
