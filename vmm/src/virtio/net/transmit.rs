//! From the guest to the link: chains go to the kernel as they lie in guest memory.

use sekisho_framelink::{
    FrameLink as _, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Rules, Segment,
    SeqPacket,
};
use vm_memory::GuestMemoryBackend as _;

use super::Counters;
use crate::virtio::chain::spans;
use crate::virtio::{Chain, DriverFault, GuestRam, VirtQueue};
use crate::worker::Turn;

/// Frames given to the kernel in one call. More would only lengthen the wait of the first.
const BATCH: usize = 32;
/// Batches in one turn: at most 128 frames, or 8 MiB that the kernel copies, some milliseconds.
const BATCHES: usize = 4;

/// State of the transmit queue.
#[derive(Default)]
pub(super) struct Transmit {
    chain: Chain,
    pending: bool,
    blocked: bool,
}

/// A chain taken from the queue, in order.
#[derive(Clone, Copy)]
struct Taken {
    head: u16,
    /// Its segments in the batch, or `None` where it is dropped.
    segments: Option<(usize, usize)>,
}

impl Transmit {
    pub(super) fn notified(&mut self) {
        self.pending = true;
    }

    /// The link may have room again, or is another one.
    pub(super) fn resume(&mut self) {
        self.pending |= std::mem::take(&mut self.blocked);
    }

    /// Whether frames wait for room in the link.
    pub(super) fn blocked(&self) -> bool {
        self.blocked
    }

    /// Takes frames off the queue. The outer error is the driver's fault, the inner the link's end.
    pub(super) fn turn(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        mut link: Option<&mut SeqPacket>,
        rules: Rules,
        counters: &mut Counters,
    ) -> Result<Result<Turn, LinkError>, DriverFault> {
        if self.blocked || !std::mem::take(&mut self.pending) {
            return Ok(Ok(Turn::Idle));
        }
        for _ in 0..BATCHES {
            let mut batch = Batch::new();
            let collected = self.collect(ram, queue, rules, &mut batch);
            if batch.taken.is_empty() {
                collected?;
                if queue.listen(ram)? {
                    continue;
                }
                return Ok(Ok(Turn::Idle));
            }
            let frames = batch.frames();
            let sent = match link.as_deref_mut() {
                Some(link) => batch.send(link),
                None => Ok(frames),
            };
            let done = *sent.as_ref().unwrap_or(&0);
            if link.is_some() {
                counters.sent += u64::try_from(done).unwrap_or(0);
            } else {
                counters.sent_link_down += u64::try_from(done).unwrap_or(0);
            }
            batch.complete(ram, queue, done, counters)?;
            if let Err(error) = sent {
                self.pending = true;
                return Ok(Err(error));
            }
            if done < frames {
                counters.stalls += 1;
                self.blocked = true;
                return Ok(Ok(Turn::Idle));
            }
            // What came before a broken chain was good.
            collected?;
        }
        self.pending = true;
        Ok(Ok(Turn::More))
    }

    fn collect(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        rules: Rules,
        batch: &mut Batch,
    ) -> Result<(), DriverFault> {
        while batch.taken.len() < BATCH && queue.pop(ram, &mut self.chain)? {
            batch.add(ram, &self.chain, rules);
        }
        Ok(())
    }
}

/// Frames of one call: their checked headers, and where the rest lies in guest memory.
struct Batch {
    headers: Vec<[u8; HEADER_LEN]>,
    /// Pointer and length in bytes; `None` stands for the frame's own header.
    parts: Vec<Option<(*const u8, usize)>>,
    taken: Vec<Taken>,
}

impl Batch {
    fn new() -> Self {
        Self {
            headers: Vec::with_capacity(BATCH),
            parts: Vec::with_capacity(BATCH * 2),
            taken: Vec::with_capacity(BATCH),
        }
    }

    fn frames(&self) -> usize {
        self.headers.len()
    }

    fn add(&mut self, ram: &GuestRam, chain: &Chain, rules: Rules) {
        let segments = checked_header(ram, chain, rules).and_then(|(header, frame_len)| {
            let start = self.parts.len();
            self.parts.push(None);
            for (address, len) in spans(chain.readable(), HEADER_LEN as u64, frame_len) {
                for slice in ram.get_slices(address, len) {
                    let Ok(slice) = slice else {
                        self.parts.truncate(start);
                        return None;
                    };
                    self.parts
                        .push(Some((slice.ptr_guard().as_ptr(), slice.len())));
                }
            }
            self.headers.push(header);
            Some((start, self.parts.len()))
        });
        self.taken.push(Taken {
            head: chain.head(),
            segments,
        });
    }

    /// Gives the frames to the link; returns how many it took.
    fn send(&self, link: &mut SeqPacket) -> Result<usize, LinkError> {
        let mut headers = self.headers.iter();
        let segment = |part: &Option<(*const u8, usize)>| match *part {
            None => Segment::from(headers.next().map_or(&[][..], |header| &header[..])),
            // SAFETY: `get_slices` gave the range as one inside guest memory, which stays mapped
            // while `GuestRam` is borrowed by the turn. The guest may write to it meanwhile: only
            // the kernel reads it, and the gate checks its own copy.
            Some((pointer, len)) => unsafe { Segment::from_raw(pointer, len) },
        };
        let segments: Vec<Segment<'_>> = self.parts.iter().map(segment).collect();
        let mut messages: [Message<'_>; BATCH] = [&[]; BATCH];
        let ranges = self.taken.iter().filter_map(|taken| taken.segments);
        let mut count = 0;
        for (message, (start, end)) in messages.iter_mut().zip(ranges) {
            *message = segments.get(start..end).unwrap_or(&[]);
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        link.send_batch(&messages[..count])
    }

    /// Gives back what was dealt with, `sent` frames and what was dropped between them, and leaves
    /// the rest in the queue, where it is read and checked again.
    fn complete(
        &self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        sent: usize,
        counters: &mut Counters,
    ) -> Result<(), DriverFault> {
        let mut left = sent;
        let mut used = Vec::with_capacity(self.taken.len());
        for taken in &self.taken {
            if taken.segments.is_some() {
                if left == 0 {
                    break;
                }
                left -= 1;
            } else {
                counters.sent_malformed += 1;
            }
            used.push((taken.head, 0));
        }
        for _ in used.len()..self.taken.len() {
            queue.put_back();
        }
        queue.push_all(ram, &used)
    }
}

/// The header as it goes to the gate, and the length of the frame behind it. It is copied out of
/// guest memory once; what was not negotiated or makes no sense is refused here already, so that
/// the gate's check is the second.
fn checked_header(
    ram: &GuestRam,
    chain: &Chain,
    rules: Rules,
) -> Option<([u8; HEADER_LEN], usize)> {
    let length = usize::try_from(chain.readable_len()).ok()?;
    if !(HEADER_LEN + MIN_FRAME..=MAX_MESSAGE).contains(&length) {
        return None;
    }
    let mut header = [0; HEADER_LEN];
    chain.read_at(ram, 0, &mut header);
    let checked = rules.check(&header, length - HEADER_LEN).ok()?;
    Some((checked.emit(), length - HEADER_LEN))
}
