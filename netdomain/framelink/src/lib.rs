//! Moves Ethernet frames between two processes that distrust each other: the VMM and the gate.
//!
//! A message is a 12-byte `virtio_net_hdr_v1` (virtio 1.2, section 5.1.6) followed by one Ethernet
//! frame of up to 64 KiB, so that a super-frame (TCP segmentation offload) crosses whole. Either
//! side may crash, stall, lie or be replaced by an attacker; the other side keeps its memory safe
//! and its work bounded, and comes back when a healthy peer connects.
//!
//! - The kernel makes the one copy. A sender may point at memory that somebody else writes to
//!   ([`Segment::from_raw`]); what the receiver checks is its own copy.
//! - A message that breaks the [`Rules`] is dropped and counted; the link stays. End of file is
//!   [`LinkError::Closed`]: the link is down until somebody hands over a fresh socket.
//! - Back-pressure is a short count of [`FrameLink::send_batch`]; nothing is queued here.
//!
//! ```
//! use sekisho_framelink::{FrameArena, FrameLink, NetHdr, Rules, Segment, SeqPacket, pair};
//!
//! # fn main() -> Result<(), sekisho_framelink::LinkError> {
//! let (vmm, gate) = pair()?;
//! let mut vmm = SeqPacket::from_fd(vmm, Rules::plain(1420))?;
//! let mut gate = SeqPacket::from_fd(gate, Rules::plain(1420))?;
//!
//! let header = NetHdr::default().emit();
//! let frame = [0xff_u8; 60];
//! let sent = vmm.send_batch(&[&[Segment::from(&header[..]), Segment::from(&frame[..])]])?;
//! assert_eq!(sent, 1);
//!
//! let mut arena = FrameArena::new(8);
//! assert_eq!(gate.recv_batch(&mut arena)?, 1);
//! let received = arena.frames().next().expect("one was counted");
//! assert_eq!(received.frame, frame);
//! # Ok(())
//! # }
//! ```

mod arena;
mod header;
mod link;
mod seqpacket;

pub use arena::{Frame, FrameArena, FrameMut};
pub use header::{Flaw, GsoType, NetHdr, Offloads, Rules};
pub use link::{FrameLink, LinkError, Message, Segment, Stats};
pub use seqpacket::{BATCH, SEND_BUFFER, SeqPacket, pair};

/// Length of the header before each frame: `virtio_net_hdr_v1` with `num_buffers`.
pub const HEADER_LEN: usize = 12;

/// Shortest frame: two MAC addresses and the type. Padding to 60 bytes is the wire's affair.
pub const MIN_FRAME: usize = 14;

/// Longest message, header included: 64 KiB of Ethernet frame as the offloads of the guests' own
/// kernels make them (Linux 65 535 bytes, Windows 63 488 bytes).
pub const MAX_MESSAGE: usize = 65_550;
