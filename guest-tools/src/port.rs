//! A non-blocking byte stream with a bounded amount of unsent bytes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// Bytes that may wait for a peer that does not read. Both sides say a few hundred bytes in ten
/// seconds; a peer that let this fill up is stuck or hostile.
pub const MAX_UNSENT: usize = 128 * 1024;

/// Bytes that are taken in one turn, so that a peer that never stops cannot keep us from the rest
/// of our work.
const TURN: usize = 64 * 1024;

/// What came of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// These bytes; none if nothing is there now.
    Bytes(Vec<u8>),
    /// The other end is closed.
    Closed,
}

/// One end of the channel.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
    unsent: VecDeque<u8>,
    dropped: u64,
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port {
    /// Takes a stream socket or a console port and makes it non-blocking.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            fd,
            unsent: VecDeque::new(),
            dropped: 0,
        })
    }

    /// Reads what is there, up to a turn's worth.
    pub fn read(&mut self) -> Result<Arrived, Errno> {
        let mut bytes = vec![0; TURN];
        match rustix::io::read(&self.fd, &mut bytes) {
            Ok(length @ 1..) => {
                bytes.truncate(length);
                Ok(Arrived::Bytes(bytes))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Arrived::Bytes(Vec::new())),
            Ok(0) | Err(Errno::CONNRESET | Errno::PIPE | Errno::NODEV) => Ok(Arrived::Closed),
            Err(error) => Err(error),
        }
    }

    /// Sends a message, or keeps what does not fit now. A message for which there is no room is
    /// dropped whole and counted.
    pub fn send(&mut self, message: &[u8]) -> Result<(), Errno> {
        if self.unsent.len() + message.len() > MAX_UNSENT {
            self.dropped = self.dropped.saturating_add(1);
            return Ok(());
        }
        self.unsent.extend(message);
        self.flush()
    }

    /// Sends what was kept, as far as it fits.
    pub fn flush(&mut self) -> Result<(), Errno> {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match rustix::io::write(&self.fd, front) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Messages that were dropped because the peer does not read.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        if self.has_unsent() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        }
    }
}

/// Time since the machine started, also while it slept (`CLOCK_BOOTTIME`).
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits for any of `fds`, or until `until`.
pub fn wait(fds: &mut [PollFd<'_>], until: Option<Duration>) -> Result<(), Errno> {
    let left = until.map(|until| {
        // A millisecond more: not to wake just before the moment and find nothing to do.
        let left = until.saturating_sub(now()) + Duration::from_millis(1);
        Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    match poll(fds, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A random number for a session.
pub fn random() -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if length == bytes.len() {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(Errno::IO)
    }
}
