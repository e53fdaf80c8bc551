//! The gate's end of the frame link, and the frames that wait while it is full.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

use sekisho_framelink::{
    FrameArena, FrameLink, HEADER_LEN, LinkError, NetHdr, Offloads, Rules, Segment, SeqPacket,
    Stats,
};

use super::path::Deliver;

/// Bytes that may wait for the guest: sixteen super-frames. While anything waits, no datagram is
/// read, so what waits is at most what one batch of datagrams became.
const BACKLOG: usize = 16 * 65_550;
/// Frames that may wait: a batch of sixteen receive-offloaded datagrams of small packets.
const BACKLOG_FRAMES: usize = 1024;
/// Pieces of one frame: the headers and the payloads of a super-frame's segments.
const MAX_PIECES: usize = 65;

/// Longest IP packet that is taken from the guest. A guest that knows nothing of its MTU sends what
/// Ethernet carries; it is told how much fits rather than left in the dark.
pub const MOST_FROM_GUEST: u16 = 1500;

/// What the guest may leave to the gate: checksums and TCP segmentation.
fn rules(mtu: u16) -> Rules {
    Rules {
        offloads: Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            uso: false,
        },
        mtu: mtu.max(MOST_FROM_GUEST),
    }
}

/// The guest's side.
#[derive(Debug)]
pub struct Guest {
    link: Option<SeqPacket>,
    mtu: u16,
    bytes: Vec<u8>,
    frames: VecDeque<(usize, usize)>,
    /// Frames that were dropped for want of a link or of room.
    pub dropped: u64,
}

impl Guest {
    /// Without a link yet.
    pub fn new(mtu: u16) -> Self {
        Self {
            link: None,
            mtu,
            bytes: Vec::with_capacity(BACKLOG),
            frames: VecDeque::with_capacity(BACKLOG_FRAMES),
            dropped: 0,
        }
    }

    /// Takes a fresh socket in place of whatever was there.
    pub fn attach(&mut self, socket: OwnedFd) -> Result<(), LinkError> {
        self.detach();
        self.link = Some(SeqPacket::from_fd(socket, rules(self.mtu))?);
        Ok(())
    }

    /// Drops the link and what waits for it.
    pub fn detach(&mut self) {
        self.link = None;
        self.forget();
    }

    /// The link's descriptor, if there is one.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(FrameLink::as_fd)
    }

    /// Whether frames wait for the link to have room.
    pub fn is_full(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The link's counters.
    pub fn stats(&self) -> Stats {
        self.link.as_ref().map(FrameLink::stats).unwrap_or_default()
    }

    /// Reads a batch of frames. False: the link is gone, or there is none.
    pub fn receive(&mut self, arena: &mut FrameArena) -> bool {
        let Some(link) = &mut self.link else {
            arena.clear();
            return false;
        };
        match link.recv_batch(arena) {
            Ok(_) => true,
            Err(error) => {
                tracing::info!("the frame link is down: {error}");
                arena.clear();
                self.detach();
                false
            }
        }
    }

    /// Sends a whole frame without offloads, Ethernet header first.
    pub fn send(&mut self, frame: &[u8]) {
        self.deliver(&NetHdr::default().emit(), &[frame]);
    }

    /// Gives waiting frames to the link as far as it takes them.
    pub fn drain(&mut self) {
        while let Some(&(start, len)) = self.frames.front() {
            let Some(link) = &mut self.link else {
                return self.forget();
            };
            let (header, frame) = self.bytes[start..start + len].split_at(HEADER_LEN);
            match link.send_batch(&[&[Segment::from(header), Segment::from(frame)]]) {
                Ok(0) => return,
                Ok(_) => {
                    self.frames.pop_front();
                }
                Err(_) => return self.detach(),
            }
        }
        self.bytes.clear();
    }

    fn forget(&mut self) {
        self.dropped += self.frames.len() as u64;
        self.frames.clear();
        self.bytes.clear();
    }

    fn keep(&mut self, prefix: &[u8], payload: &[&[u8]]) {
        let len = prefix.len() + payload.iter().map(|piece| piece.len()).sum::<usize>();
        let start = self.bytes.len();
        if start + len > BACKLOG || self.frames.len() == BACKLOG_FRAMES {
            self.dropped += 1;
            return;
        }
        self.bytes.extend_from_slice(prefix);
        for piece in payload {
            self.bytes.extend_from_slice(piece);
        }
        self.frames.push_back((start, len));
    }
}

impl Deliver for Guest {
    fn deliver(&mut self, prefix: &[u8], payload: &[&[u8]]) {
        let Some(link) = &mut self.link else {
            self.dropped += 1;
            return;
        };
        if !self.frames.is_empty() {
            return self.keep(prefix, payload);
        }
        let mut pieces = [Segment::from(prefix); MAX_PIECES];
        let count = (1 + payload.len()).min(MAX_PIECES);
        for (piece, bytes) in pieces[1..].iter_mut().zip(payload) {
            *piece = Segment::from(*bytes);
        }
        match link.send_batch(&[&pieces[..count]]) {
            Ok(0) => self.keep(prefix, payload),
            Ok(_) => {}
            Err(_) => self.detach(),
        }
    }
}
