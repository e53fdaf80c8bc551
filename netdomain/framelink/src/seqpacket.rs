//! A frame link over a `SOCK_SEQPACKET` pair: one packet, one message.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, FdFlags, fcntl_setfd},
    net::{
        AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair,
        sockopt::{
            set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_domain,
            socket_type,
        },
    },
};

use crate::{
    FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Rules, Stats,
};

/// Most messages that one system call moves. Beyond 32 the benchmark of the design pages shows no
/// gain, and 64 full frames are one turn's budget.
pub const BATCH: usize = 64;

/// What one end may have in flight, in bytes as `SO_SNDBUF` counts them (the kernel doubles it for
/// its own overhead): about 14 super-frames or 450 full frames. The kernel's default queues only 4
/// super-frames; more than this would only add delay, 4 ms at 1 Gbit/s.
pub const SEND_BUFFER: usize = 512 * 1024;

/// Most pieces of one message (`UIO_MAXIOV`).
const MAX_SEGMENTS: usize = 1024;

/// The end of a link, and everything it needs to move a batch without allocating.
#[derive(Debug)]
pub struct SeqPacket {
    socket: OwnedFd,
    rules: Rules,
    stats: Stats,
    /// The peer is gone; kept because an empty packet says so only once.
    closed: bool,
    calls: Calls,
}

/// The arguments of `sendmmsg` and `recvmmsg`. The pointers are filled anew for each call; all else
/// stays zero, as there are no names and no ancillary data. The kernel writes only `msg_len` and
/// `msg_flags`.
struct Calls {
    sends: Box<[libc::mmsghdr; BATCH]>,
    receives: Box<[libc::mmsghdr; BATCH]>,
    pieces: Box<[libc::iovec; BATCH]>,
}

// SAFETY: the pointers within are written before each system call and read by nobody after it, so
// it makes no difference which thread holds them in between.
unsafe impl Send for Calls {}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

const NO_PIECE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

const NO_HEADER: libc::mmsghdr = {
    // SAFETY: all-zero is a valid `mmsghdr`: null pointers and zero lengths. It cannot be written
    // out because some C libraries pad it with private fields.
    unsafe { std::mem::zeroed() }
};

/// Makes the two ends of a link: non-blocking, close-on-exec, with [`SEND_BUFFER`] in each
/// direction where the caller may raise it, and as much as the system allows where not.
///
/// # Errors
/// What `socketpair(2)` refuses.
pub fn pair() -> Result<(OwnedFd, OwnedFd), LinkError> {
    let (one, other) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    for end in [&one, &other] {
        if set_socket_send_buffer_size_force(end, SEND_BUFFER).is_err() {
            set_socket_send_buffer_size(end, SEND_BUFFER)?;
        }
    }
    Ok((one, other))
}

impl SeqPacket {
    /// Takes one end, and makes it non-blocking and close-on-exec whatever it was before. `rules`
    /// say what the peer may send.
    ///
    /// # Errors
    /// [`LinkError::NotSeqPacket`] when it is another kind of descriptor.
    pub fn from_fd(socket: OwnedFd, rules: Rules) -> Result<Self, LinkError> {
        match (socket_domain(&socket), socket_type(&socket)) {
            (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) => {}
            (Ok(_), Ok(_)) | (Err(Errno::NOTSOCK), _) => return Err(LinkError::NotSeqPacket),
            (Err(errno), _) | (_, Err(errno)) => return Err(errno.into()),
        }
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            rules,
            stats: Stats::default(),
            closed: false,
            calls: Calls {
                sends: Box::new([NO_HEADER; BATCH]),
                receives: Box::new([NO_HEADER; BATCH]),
                pieces: Box::new([NO_PIECE; BATCH]),
            },
        })
    }

    /// What the peer may send.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Sets what the peer may send from now on, after a new negotiation with the guest.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Gives up to [`BATCH`] messages, each of which can be sent, to the kernel.
    fn send_run(&mut self, run: &[Message<'_>]) -> Result<usize, Errno> {
        let mut count: libc::c_uint = 0;
        for (header, message) in self.calls.sends.iter_mut().zip(run) {
            // `Segment` is `repr(transparent)` over `iovec`. The kernel does not write to it.
            header.msg_hdr.msg_iov = message.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = message.len() as _;
            count += 1;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `count` headers are filled, each with the segments of a message that is borrowed
        // for this call; by the contract of `Segment` what they point to is mapped and readable,
        // and the kernel only reads it. There are no names and no ancillary data.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                self.calls.sends.as_mut_ptr(),
                count,
                flags,
            )
        };
        usize::try_from(sent).map_err(|_| last_errno())
    }

    /// Lets the kernel write up to [`BATCH`] messages into the arena's first slots.
    fn recv_run(&mut self, arena: &mut FrameArena) -> Result<usize, Errno> {
        let mut count: libc::c_uint = 0;
        let calls = &mut self.calls;
        for ((header, piece), slot) in calls
            .receives
            .iter_mut()
            .zip(calls.pieces.iter_mut())
            .zip(arena.slots_mut())
        {
            piece.iov_base = slot.as_mut_ptr().cast();
            piece.iov_len = slot.len();
            // No room for ancillary data: the kernel closes whatever came, and says so by
            // MSG_CTRUNC.
            header.msg_hdr.msg_iov = std::ptr::from_mut(piece);
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: `count` headers are filled, each with one piece that points to its own slot of
        // the arena, which is borrowed mutably for this call and as long as the piece says.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.calls.receives.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| last_errno())
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The bytes of a message that a receiver may take; `None` for one that no receiver takes.
fn sendable(message: Message<'_>) -> Option<usize> {
    if message.len() > MAX_SEGMENTS {
        return None;
    }
    message
        .iter()
        .try_fold(0_usize, |sum, segment| sum.checked_add(segment.len()))
        .filter(|total| (HEADER_LEN + MIN_FRAME..=MAX_MESSAGE).contains(total))
}

impl FrameLink for SeqPacket {
    fn send_batch(&mut self, messages: &[Message<'_>]) -> Result<usize, LinkError> {
        if self.closed {
            return Err(LinkError::Closed);
        }
        let mut rest = messages;
        while !rest.is_empty() {
            let run = rest
                .iter()
                .take(BATCH)
                .take_while(|message| sendable(message).is_some())
                .count();
            let (run, _) = rest.split_at(run);
            let dealt_with = if run.is_empty() {
                self.stats.unsendable += 1;
                1
            } else {
                match self.send_run(run) {
                    Ok(sent) => {
                        let headers = self.calls.sends.iter().take(sent);
                        let bytes: u64 = headers.map(|header| u64::from(header.msg_len)).sum();
                        self.stats.sent += sent as u64;
                        self.stats.sent_bytes += bytes;
                        sent
                    }
                    Err(Errno::INTR) => 0,
                    Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => break,
                    // The first message of the run is the one that the kernel refused: memory that
                    // is not mapped, or a socket buffer that never holds it.
                    Err(Errno::FAULT | Errno::MSGSIZE) => {
                        self.stats.unsendable += 1;
                        1
                    }
                    Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED | Errno::NOTCONN) => {
                        return Err(LinkError::Closed);
                    }
                    Err(errno) => return Err(LinkError::Socket(errno)),
                }
            };
            rest = rest.get(dealt_with..).unwrap_or_default();
        }
        Ok(messages.len() - rest.len())
    }

    fn recv_batch(&mut self, arena: &mut FrameArena) -> Result<usize, LinkError> {
        arena.clear();
        if self.closed {
            return Err(LinkError::Closed);
        }
        let count = match self.recv_run(arena) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(errno) => return Err(LinkError::Socket(errno)),
        };
        for (slot, header) in self.calls.receives.iter().take(count).enumerate() {
            let len = header.msg_len as usize;
            let flags = header.msg_hdr.msg_flags;
            if flags & libc::MSG_CTRUNC != 0 {
                self.stats.descriptors += 1;
                continue;
            }
            if flags & libc::MSG_TRUNC != 0 {
                self.stats.truncated += 1;
                continue;
            }
            // End of file, which fills the rest of the batch with empty messages; or an empty
            // packet, which no healthy peer sends. After the latter only `shutdown` makes the
            // socket readable for good, so that whoever waits for it hears of the end.
            if len == 0 {
                self.closed = true;
                let _ = shutdown(&self.socket, Shutdown::Both);
                break;
            }
            let checked = arena.message(slot, len).and_then(|(header, frame)| {
                let hdr = self.rules.check(header, frame.len()).ok()?;
                Some((hdr, frame.len()))
            });
            match checked {
                Some((hdr, frame_len)) => {
                    self.stats.received += 1;
                    self.stats.received_bytes += len as u64;
                    arena.take(slot, frame_len, hdr);
                }
                None => self.stats.flawed += 1,
            }
        }
        if self.closed && arena.is_empty() {
            return Err(LinkError::Closed);
        }
        Ok(arena.len())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
