//! One packet, one message: JSON of a known type with its descriptors beside it.

use std::{
    io::{IoSlice, IoSliceMut},
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    cmsg_space,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, FdFlags, fcntl_setfd},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
        recvmsg, sendmsg, shutdown, socketpair,
        sockopt::{socket_domain, socket_type},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroize as _;

use crate::Carries;

/// Longest message, in bytes of JSON. The longest that our own processes say is a notice in two
/// languages, under 2 KiB; 16 KiB leaves room and still fits on the stack.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Most descriptors beside one message. No type calls for more than one today.
pub const MAX_FDS: usize = 4;

/// Why a channel did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket's buffer has no room now; wait until it is writable.
    #[error("the peer does not read its messages: no room for another one now")]
    Full,
    /// The peer is gone, or it broke a rule before and the channel was ended.
    #[error("the peer closed the channel")]
    Closed,
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not JSON of the type that this channel carries.
    #[error("a message is not of the type that this channel carries: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Another number of descriptors than the message's type calls for.
    #[error("a message calls for {expected} descriptors and has {found}")]
    UnexpectedFds {
        /// What its type calls for; for a message that could not be read, [`MAX_FDS`] at most.
        expected: usize,
        /// What came or was given.
        found: usize,
    },
    /// The descriptor is no Unix `SOCK_SEQPACKET` socket.
    #[error("the descriptor is not a Unix socket of type SOCK_SEQPACKET")]
    NotSeqPacket,
    /// The kernel refused.
    #[error("the channel's socket failed: {0}")]
    Socket(#[from] Errno),
}

impl ChannelError {
    /// Whether the channel is of no use any more.
    pub fn ends(&self) -> bool {
        !matches!(self, Self::Full)
    }
}

/// A message with the descriptors that came beside it, in the order that its type documents.
#[derive(Debug)]
pub struct Received<Rx> {
    /// The message.
    pub message: Rx,
    /// Exactly [`Carries::descriptors`] of them, each close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// One end of a connection between two processes of Sekisho, of which neither trusts the other.
///
/// It never blocks. Wait for it with `epoll` by its [`AsFd`].
#[derive(Debug)]
pub struct Channel<Tx, Rx> {
    socket: OwnedFd,
    /// The peer broke a rule; nothing more is read from it, though it may have queued more.
    ended: AtomicBool,
    carries: PhantomData<fn(Tx) -> Rx>,
}

/// Room for a message, which may hold an answer of the person's: erased whatever becomes of it.
struct Erased([u8; MAX_MESSAGE]);

impl Drop for Erased {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Makes the two ends of a channel: `SOCK_SEQPACKET`, non-blocking, close-on-exec.
///
/// # Errors
/// What `socketpair(2)` refuses.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ChannelError> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

impl<Tx, Rx> Channel<Tx, Rx>
where
    Tx: Serialize + Carries,
    Rx: DeserializeOwned + Carries,
{
    /// Takes one end, and makes it non-blocking and close-on-exec whatever it was before.
    ///
    /// # Errors
    /// [`ChannelError::NotSeqPacket`] when it is another kind of descriptor.
    pub fn from_fd(socket: OwnedFd) -> Result<Self, ChannelError> {
        match (socket_domain(&socket), socket_type(&socket)) {
            (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) => {}
            (Ok(_), Ok(_)) | (Err(Errno::NOTSOCK), _) => return Err(ChannelError::NotSeqPacket),
            (Err(errno), _) | (_, Err(errno)) => return Err(errno.into()),
        }
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            ended: AtomicBool::new(false),
            carries: PhantomData,
        })
    }

    /// Sends one message; it goes whole or not at all.
    ///
    /// # Errors
    /// [`ChannelError::Full`] leaves the channel as it was: try again when it is writable.
    /// [`ChannelError::TooLong`] and [`ChannelError::UnexpectedFds`] are mistakes of the caller and
    /// send nothing.
    pub fn send(&self, message: &Tx, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let expected = message.descriptors();
        if fds.len() != expected || expected > MAX_FDS {
            return Err(ChannelError::UnexpectedFds {
                expected,
                found: fds.len(),
            });
        }
        // A buffer that never grows leaves no copy behind of what it held.
        let mut bytes = Erased([0; MAX_MESSAGE]);
        let mut room = &mut bytes.0[..];
        serde_json::to_writer(&mut room, message).map_err(|error| {
            if error.is_io() {
                ChannelError::TooLong
            } else {
                ChannelError::Malformed(error)
            }
        })?;
        let length = MAX_MESSAGE - room.len();
        self.put(&bytes.0[..length], fds)
    }

    fn put(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "the space is made for MAX_FDS");
        }
        let iov = [IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &iov, &mut ancillary, flags))
            .map(drop)
            .map_err(|errno| match errno {
                // ETOOMANYREFS: too many of our descriptors lie unread in the peer's queue.
                Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS => ChannelError::Full,
                Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ChannelError::Closed,
                other => ChannelError::Socket(other),
            })
    }

    /// Takes the next message, if there is one now.
    ///
    /// # Errors
    /// Every error ends the channel: the peer sees end of file, and this end only says
    /// [`ChannelError::Closed`] from then on. Descriptors of a refused message are closed.
    pub fn recv(&self) -> Result<Option<Received<Rx>>, ChannelError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(ChannelError::Closed);
        }
        self.take().inspect_err(|_| {
            self.ended.store(true, Ordering::Release);
            // The peer may be gone already; there is nothing to do about an error.
            let _ = shutdown(&self.socket, Shutdown::Both);
        })
    }

    fn take(&self) -> Result<Option<Received<Rx>>, ChannelError> {
        let mut bytes = Erased([0; MAX_MESSAGE]);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut read = || {
            let mut iov = [IoSliceMut::new(&mut bytes.0)];
            recvmsg(&self.socket, &mut iov, &mut ancillary, flags)
        };
        // A peer that died with unread messages of ours leaves ECONNRESET once; what it had said
        // before is still in the queue and is read after it.
        let outcome = match rustix::io::retry_on_intr(&mut read) {
            Err(Errno::CONNRESET) => rustix::io::retry_on_intr(&mut read),
            other => other,
        };
        let received = match outcome {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(errno.into()),
        };

        // Taken out of the buffer at once, so that every early return below closes them.
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::UnexpectedFds {
                expected: MAX_FDS,
                found: fds.len() + 1,
            });
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong);
        }
        // End of file, or an empty packet, which no type calls for.
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        let text = bytes.0.get(..received.bytes).ok_or(ChannelError::TooLong)?;
        let message: Rx = serde_json::from_slice(text).map_err(ChannelError::Malformed)?;
        let expected = message.descriptors();
        if fds.len() != expected {
            return Err(ChannelError::UnexpectedFds {
                expected,
                found: fds.len(),
            });
        }
        Ok(Some(Received { message, fds }))
    }
}

impl<Tx, Rx> AsFd for Channel<Tx, Rx> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
