//! From the link to the guest: frames are checked in private memory, then copied once.

use std::collections::VecDeque;

use sekisho_framelink::{FrameArena, FrameLink as _, HEADER_LEN, LinkError, NetHdr, SeqPacket};

use super::Counters;
use super::features::ReceiveStyle;
use crate::virtio::{Chain, DriverFault, GuestRam, VirtQueue};
use crate::worker::Turn;

/// Frames received in one call, and slots for them: at most 1 MiB of super-frames beside the
/// guest's memory. A batch of 16 has nine tenths of what the largest would save.
const BATCH: usize = 16;
/// Batches in one turn: at most 64 frames, or 4 MiB copied.
const BATCHES: usize = 4;

/// State of the receive queue.
pub(super) struct Receive {
    arena: FrameArena,
    /// Next frame of the arena to deliver.
    next: usize,
    /// Buffers that the driver posted and no frame took yet; at most the queue's size.
    posted: VecDeque<Chain>,
    /// Room in them, bytes.
    room: u64,
    /// Chains to fill again.
    spare: Vec<Chain>,
    used: Vec<(u16, u32)>,
    /// There may be something to do.
    pending: bool,
    /// A frame waits for buffers of the driver.
    starved: bool,
}

impl Receive {
    pub(super) fn new() -> Self {
        Self {
            arena: FrameArena::new(BATCH),
            next: 0,
            posted: VecDeque::new(),
            room: 0,
            spare: Vec::new(),
            used: Vec::new(),
            pending: false,
            starved: false,
        }
    }

    /// The driver posted buffers, or the link is another one.
    pub(super) fn resume(&mut self) {
        self.pending = true;
        self.starved = false;
    }

    pub(super) fn link_ready(&mut self) {
        self.pending |= !self.starved;
    }

    /// Whether to wait for frames of the link.
    pub(super) fn wants_link(&self) -> bool {
        !self.starved
    }

    /// Forgets the driver's buffers and the frames that were for it.
    pub(super) fn reset(&mut self) {
        self.arena.clear();
        self.next = 0;
        self.spare.extend(self.posted.drain(..));
        self.room = 0;
        self.pending = false;
        self.starved = false;
    }

    /// Fills the driver's buffers. The outer error is the driver's fault, the inner the link's end.
    pub(super) fn turn(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        mut link: Option<&mut SeqPacket>,
        style: ReceiveStyle,
        counters: &mut Counters,
    ) -> Result<Result<Turn, LinkError>, DriverFault> {
        if !std::mem::take(&mut self.pending) {
            return Ok(Ok(Turn::Idle));
        }
        for _ in 0..BATCHES {
            while self.next < self.arena.len() {
                if !self.deliver(ram, queue, style, counters)? {
                    self.starved = true;
                    return Ok(Ok(Turn::Idle));
                }
                self.next += 1;
            }
            self.next = 0;
            self.arena.clear();
            let Some(link) = link.as_deref_mut() else {
                return Ok(Ok(Turn::Idle));
            };
            match link.recv_batch(&mut self.arena) {
                Ok(0) => return Ok(Ok(Turn::Idle)),
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        self.pending = true;
        Ok(Ok(Turn::More))
    }

    /// Copies one frame into buffers; `false` where the driver has to post more of them first.
    fn deliver(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        style: ReceiveStyle,
        counters: &mut Counters,
    ) -> Result<bool, DriverFault> {
        let Some(length) = self.arena.get(self.next).map(|frame| frame.frame.len()) else {
            return Ok(true);
        };
        match self.gather(ram, queue, HEADER_LEN + length, style)? {
            Gathered::Enough => {}
            Gathered::Never => {
                counters.received_no_room += 1;
                return Ok(true);
            }
            Gathered::Wait => return Ok(false),
        }
        let Some(frame) = self.arena.get_mut(self.next) else {
            return Ok(true);
        };
        let mut header = frame.hdr;
        if !style.csum {
            complete_checksum(&mut header, frame.frame);
        }
        self.fill(ram, header)?;
        queue.push_all(ram, &self.used)?;
        counters.received += 1;
        Ok(true)
    }

    /// Takes buffers off the queue until the front ones have room for `length` bytes.
    fn gather(
        &mut self,
        ram: &GuestRam,
        queue: &mut VirtQueue,
        length: usize,
        style: ReceiveStyle,
    ) -> Result<Gathered, DriverFault> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        loop {
            let front = self.posted.front().map_or(0, Chain::writable_len);
            if style.mergeable && self.room >= length || front >= length {
                return Ok(Gathered::Enough);
            }
            let full = self.posted.len() >= queue.size().into();
            if full || !style.mergeable && front > 0 {
                return Ok(Gathered::Never);
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            if queue.pop(ram, &mut chain)? {
                let room = chain.writable_len();
                // Section 5.1.6.3.1: a buffer holds the header at least.
                if room < HEADER_LEN as u64 {
                    return Err(DriverFault::Direction);
                }
                self.room = self.room.saturating_add(room);
                self.posted.push_back(chain);
                continue;
            }
            self.spare.push(chain);
            if !queue.listen(ram)? {
                return Ok(Gathered::Wait);
            }
        }
    }

    /// Copies header and frame into the front buffers and lists them as used.
    fn fill(&mut self, ram: &GuestRam, mut header: NetHdr) -> Result<(), DriverFault> {
        self.used.clear();
        let Some(frame) = self.arena.get(self.next) else {
            return Ok(());
        };
        let total = (HEADER_LEN + frame.frame.len()) as u64;
        header.num_buffers = count_buffers(&self.posted, total);
        let head = header.emit();
        let mut rest = frame.frame;
        let mut first = true;
        while let Some(chain) = self.posted.pop_front() {
            let room = chain.writable_len();
            self.room = self.room.saturating_sub(room);
            let mut written = 0;
            if std::mem::take(&mut first) {
                written = chain.write_at(ram, 0, &head);
            }
            let offset = u64::try_from(written).unwrap_or(0);
            let copied = chain.write_at(ram, offset, rest);
            rest = rest.get(copied..).unwrap_or(&[]);
            written += copied;
            self.used
                .push((chain.head(), u32::try_from(written).unwrap_or(0)));
            self.spare.push(chain);
            if rest.is_empty() {
                return Ok(());
            }
            if copied == 0 {
                // Memory that was there when the chain was read is always there.
                return Err(DriverFault::Outside);
            }
        }
        Err(DriverFault::Outside)
    }
}

enum Gathered {
    /// The front buffers have room.
    Enough,
    /// The driver has to post more.
    Wait,
    /// No buffers of this driver will ever do.
    Never,
}

fn count_buffers(posted: &VecDeque<Chain>, total: u64) -> u16 {
    let mut left = total;
    let mut count = 0;
    for chain in posted {
        count += 1;
        left = left.saturating_sub(chain.writable_len());
        if left == 0 {
            break;
        }
    }
    count
}

/// Computes the checksum that the header leaves open, and takes the flag off. The link has checked
/// that start and field lie inside the frame.
fn complete_checksum(header: &mut NetHdr, frame: &mut [u8]) {
    if header.needs_csum() {
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        // The field holds the pseudo-header's sum, which belongs into the total.
        let sum = frame.get(start..).map_or(0, ones_complement_sum);
        if let Some(place) = frame.get_mut(field..field + 2) {
            // Zero stands for "no checksum" in UDP; both zeros are the same number.
            let value = if sum == 0xffff { 0xffff } else { !sum };
            place.copy_from_slice(&value.to_be_bytes());
        }
    }
    *header = NetHdr::default();
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u64::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_left_open_is_completed_as_rfc_1071_has_it() {
        // RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        let mut frame = vec![0xee; 14];
        frame.extend([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0]);
        let mut header = NetHdr::partial_csum(14, 8);
        complete_checksum(&mut header, &mut frame);
        assert_eq!(frame[22..], (!0xddf2_u16).to_be_bytes());
        assert!(!header.needs_csum());
    }
}
