//! What a frame link is, whatever carries it.

use std::{marker::PhantomData, os::fd::BorrowedFd};

use rustix::io::Errno;

use crate::FrameArena;

/// One piece of a message to send: a pointer and a length that the kernel copies from.
///
/// From a slice it is safe. Over memory that others write to, such as a guest's, it is made by
/// [`Segment::from_raw`], and no Rust reference to that memory ever exists.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Segment<'a> {
    /// The layout is the kernel's, so that a slice of segments is the iovec array of a message.
    iov: libc::iovec,
    memory: PhantomData<&'a [u8]>,
}

impl Segment<'_> {
    /// A piece of memory that others may write to meanwhile.
    ///
    /// # Safety
    /// `ptr` must point to `len` bytes that stay mapped and readable for the segment's lifetime.
    /// They may change at any time: they are only ever copied, by the kernel or by raw pointers,
    /// and what is looked at is the copy.
    pub unsafe fn from_raw(ptr: *const u8, len: usize) -> Self {
        Self {
            iov: libc::iovec {
                iov_base: ptr.cast_mut().cast(),
                iov_len: len,
            },
            memory: PhantomData,
        }
    }

    /// Where it starts: for a link that makes the copy itself.
    pub fn as_ptr(&self) -> *const u8 {
        self.iov.iov_base.cast_const().cast()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.iov.iov_len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.iov.iov_len == 0
    }
}

impl<'a> From<&'a [u8]> for Segment<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        // SAFETY: the slice is borrowed, and so mapped and readable, for the segment's lifetime.
        unsafe { Self::from_raw(bytes.as_ptr(), bytes.len()) }
    }
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({:p}, {} B)", self.iov.iov_base, self.len())
    }
}

/// Header and frame of one message, scattered.
pub type Message<'a> = &'a [Segment<'a>];

/// Why a link does nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer is gone. Show the link as down until a fresh socket comes.
    #[error("the other end of the frame link is closed")]
    Closed,
    /// The descriptor is no Unix `SOCK_SEQPACKET` socket.
    #[error("the frame link needs a Unix socket of type SOCK_SEQPACKET")]
    NotSeqPacket,
    /// The kernel refused.
    #[error("the frame link's socket failed: {0}")]
    Socket(#[from] Errno),
}

/// Counters of one link since it was made. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Messages that the kernel took.
    pub sent: u64,
    /// Their bytes, headers included.
    pub sent_bytes: u64,
    /// Messages that held the rules.
    pub received: u64,
    /// Their bytes, headers included.
    pub received_bytes: u64,
    /// Dropped here instead of sent: of a length that no receiver takes, of too many segments, or
    /// from memory that cannot be read.
    pub unsendable: u64,
    /// Received and dropped: the header broke the rules, or the frame was too long or short.
    pub flawed: u64,
    /// Received and dropped: longer than any message may be.
    pub truncated: u64,
    /// Received and dropped: descriptors came along; the kernel closed them.
    pub descriptors: u64,
}

impl Stats {
    /// Messages of the peer that were dropped, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.flawed + self.truncated + self.descriptors
    }
}

/// Moves batches of frames to a peer that is not trusted and back. Never blocks.
pub trait FrameLink {
    /// Sends the messages in order and returns how many are dealt with. Fewer than were given
    /// means that the peer's queue is full: keep the rest, wait until the link is writable. A
    /// message that can never be sent is dropped, counted ([`Stats::unsendable`]) and dealt with.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the peer is gone.
    fn send_batch(&mut self, messages: &[Message<'_>]) -> Result<usize, LinkError>;

    /// Empties the arena, fills it with frames that hold the rules, and returns how many. 0 means
    /// that there is none now; wait until the link is readable, *level-triggered*, because a call
    /// whose messages were all refused returns 0 too.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the peer is gone and its last frames were read.
    fn recv_batch(&mut self, arena: &mut FrameArena) -> Result<usize, LinkError>;

    /// What to wait on.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// The counters.
    fn stats(&self) -> Stats;
}
