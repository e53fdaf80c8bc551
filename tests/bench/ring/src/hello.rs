//! How two ends of a socket exchange their memory.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, FdFlags, fcntl_setfd},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg,
        sockopt::{socket_domain, socket_type},
    },
};
use sekisho_framelink::Rules;

use crate::{
    CAPACITY, Ring,
    link::{Inward, Outward},
    memory::{HEAD, Own, Theirs},
};

/// Name, version and capacity. Both ends must have the same.
const HELLO: [u8; 16] = {
    let [a, b, c, d] = 1_u32.to_le_bytes();
    let [e, f, g, h, ..] = (CAPACITY as u64).to_le_bytes();
    [
        b's', b'e', b'k', b'i', b'r', b'i', b'n', b'g', a, b, c, d, e, f, g, h,
    ]
};

/// Descriptors of a hello: the ring that the sender fills, and the memory of its consumer's index.
const DESCRIPTORS: usize = 2;

/// Why there is no ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The descriptor is no Unix `SOCK_SEQPACKET` socket.
    #[error("the ring needs a Unix socket of type SOCK_SEQPACKET")]
    NotSeqPacket,
    /// The peer left before it had said anything.
    #[error("the other end of the ring's socket is closed")]
    Left,
    /// Its first message is no hello, or of another version or capacity.
    #[error("the peer's first message is not the ring's hello")]
    Hello,
    /// Its hello brings more or fewer descriptors than two.
    #[error("the peer's hello does not bring two descriptors")]
    Descriptors,
    /// Its memory may still shrink, grow or be written by others, or is no sealed memory at all.
    #[error("the peer's memory is not sealed")]
    Seals,
    /// Its memory is of another size.
    #[error("the peer's memory is of the wrong size")]
    Size,
    /// The kernel refused.
    #[error("the ring could not be made: {0}")]
    System(#[from] Errno),
}

/// This end has said hello and shown its memory; the peer's is still to come.
#[derive(Debug)]
pub struct Offer {
    socket: OwnedFd,
    rules: Rules,
    ring: Own,
    index: Own,
}

/// Where the exchange stands.
#[derive(Debug)]
pub enum Handshake {
    /// The peer has said nothing yet: wait until the socket is readable.
    Waiting(Offer),
    /// Both have the other's memory.
    Ready(Box<Ring>),
}

impl Offer {
    /// Makes this end's memory and sends it. `rules` say what the peer may send later. The socket
    /// is made non-blocking and close-on-exec.
    ///
    /// # Errors
    /// [`Refused::NotSeqPacket`], [`Refused::Left`], or what the kernel refuses.
    pub fn new(socket: OwnedFd, rules: Rules) -> Result<Self, Refused> {
        match (socket_domain(&socket), socket_type(&socket)) {
            (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) => {}
            (Ok(_), Ok(_)) | (Err(Errno::NOTSOCK), _) => return Err(Refused::NotSeqPacket),
            (Err(errno), _) | (_, Err(errno)) => return Err(errno.into()),
        }
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        let (ring, ring_fd) = Own::new("sekisho-ring", HEAD + CAPACITY)?;
        let (index, index_fd) = Own::new("sekisho-ring-index", HEAD)?;
        let fds: [BorrowedFd<'_>; DESCRIPTORS] = [ring_fd.as_fd(), index_fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&socket, &[IoSlice::new(&HELLO)], &mut ancillary, flags) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(Refused::Left),
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self {
            socket,
            rules,
            ring,
            index,
        })
    }

    /// What to wait on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the peer's hello, if it is there. Never blocks.
    ///
    /// # Errors
    /// Why the peer is not to be dealt with; this end's memory and socket are gone then.
    pub fn finish(self) -> Result<Handshake, Refused> {
        let mut hello = [0; HELLO.len() + 1];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let pieces = &mut [IoSliceMut::new(&mut hello)];
        let received = match recvmsg(&self.socket, pieces, &mut ancillary, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Handshake::Waiting(self)),
            Err(Errno::CONNRESET) => return Err(Refused::Left),
            Err(errno) => return Err(errno.into()),
        };
        // What is not used is closed when it is dropped; what found no room the kernel closed.
        let mut fds = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds).into_iter().flatten(),
            _ => None.into_iter().flatten(),
        });
        let fds: [Option<OwnedFd>; DESCRIPTORS + 1] = std::array::from_fn(|_| fds.next());
        if received.bytes == 0 {
            return Err(Refused::Left);
        }
        if hello.get(..received.bytes) != Some(&HELLO[..])
            || received.flags.contains(ReturnFlags::TRUNC)
        {
            return Err(Refused::Hello);
        }
        let [Some(ring), Some(index), None] = fds else {
            return Err(Refused::Descriptors);
        };
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Refused::Descriptors);
        }
        let ring = Theirs::new(ring.as_fd(), HEAD + CAPACITY)?;
        let index = Theirs::new(index.as_fd(), HEAD)?;
        Ok(Handshake::Ready(Box::new(Ring::new(
            self.socket,
            self.rules,
            Outward::new(self.ring, index),
            Inward::new(ring, self.index),
        ))))
    }
}
