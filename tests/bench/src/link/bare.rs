//! The bare loop: `sendmmsg` and `recvmmsg` with arguments that are filled once.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_setfl};
use sekisho_framelink::MAX_MESSAGE;

use super::{End, Size};
use crate::BenchError;

/// One end.
pub(super) struct Bare {
    socket: OwnedFd,
    sends: Vec<libc::mmsghdr>,
    takes: Vec<libc::mmsghdr>,
    /// What the headers point to, kept alive; never touched after `new`.
    _pieces: Vec<libc::iovec>,
    _memory: Vec<Vec<u8>>,
}

impl Bare {
    pub(super) fn new(socket: OwnedFd, size: Size) -> Result<Self, BenchError> {
        fcntl_setfl(&socket, OFlags::empty())
            .map_err(BenchError::system("let the socket block"))?;
        let batch = size.batch();
        let mut memory = vec![size.header().to_vec(), vec![0; size.bytes()]];
        memory.extend((0..batch).map(|_| vec![0; MAX_MESSAGE]));
        let mut pieces: Vec<_> = memory
            .iter_mut()
            .map(|bytes| libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            })
            .collect();
        let (message, slots) = pieces.split_at_mut(2);
        let message = message.as_mut_ptr();
        let sends = (0..batch).map(|_| header(message, 2)).collect();
        let takes = slots.iter_mut().map(|slot| header(slot, 1)).collect();
        Ok(Self {
            socket,
            sends,
            takes,
            _pieces: pieces,
            _memory: memory,
        })
    }
}

fn header(pieces: *mut libc::iovec, count: usize) -> libc::mmsghdr {
    // SAFETY: all-zero is a valid `mmsghdr`.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = pieces;
    header.msg_hdr.msg_iovlen = count as _;
    header
}

impl End for Bare {
    fn send(&mut self, frames: usize) -> Result<usize, BenchError> {
        let count = frames.min(self.sends.len());
        // SAFETY: `count` headers are filled, and what they point to lives as long as `self`.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                self.sends.as_mut_ptr(),
                libc::c_uint::try_from(count).unwrap_or(1),
                libc::MSG_NOSIGNAL,
            )
        };
        moved(sent, "send")
    }

    fn take(&mut self) -> Result<usize, BenchError> {
        // SAFETY: all headers are filled, each with a slot of its own that lives as long as `self`
        // and that nobody else looks at.
        let taken = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.takes.as_mut_ptr(),
                libc::c_uint::try_from(self.takes.len()).unwrap_or(1),
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let taken = moved(taken, "take")?;
        // End of file fills the rest of a batch with empty messages.
        Ok(self
            .takes
            .iter()
            .take(taken)
            .take_while(|header| header.msg_len > 0)
            .count())
    }
}

fn moved(count: i32, what: &str) -> Result<usize, BenchError> {
    usize::try_from(count)
        .map_err(|_| std::io::Error::last_os_error())
        .map_err(BenchError::system(format!("{what} by the bare loop")))
}
