//! The wire behind COM1: a backlog that the guest fills and a thread of its own that empties it, so
//! that neither a processor nor the main loop ever waits for whoever reads.
//!
//! What the guest writes is bounded twice: by [`BACKLOG`] in memory while nobody reads, and by
//! [`FILE_LIMIT`] on the disk. What goes beyond is lost, as on a wire with nobody at its end, and
//! one line of the log says so.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

/// Bytes that wait for a slow reader: several times the kernel's messages of a boot (some 60 KiB
/// with all of them), so that a reader that is merely slow misses nothing, and little beside the
/// guest's memory.
pub const BACKLOG: usize = 256 << 10;

/// Bytes that `--serial file=` takes from one start of the guest. Hundreds of boots' messages fit,
/// and a guest that prints without end takes no more of the host's disk. What stays is the
/// beginning: the file is made anew at each start, it is what a boot that fails is looked up in, and
/// nothing that was in it once goes away again.
pub const FILE_LIMIT: u64 = 16 << 20;

/// How long the end of the guest waits for the reader to take the last lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// What writer and thread share.
#[derive(Default)]
struct State {
    /// Not yet taken by the thread.
    waiting: Vec<u8>,
    /// Whether the thread is busy with what it took.
    busy: bool,
    /// Whether nothing is carried any more: the other end is gone, or full.
    dead: bool,
    /// Whether the loss of bytes was told.
    told: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guest's end: takes any number of bytes at once and never waits.
#[derive(Clone, Default)]
pub struct Wire(Arc<Shared>);

impl Wire {
    /// Waits until everything is carried, for as long as a reader may take for the last lines.
    pub fn settle(&self) {
        let state = self.0.lock();
        let pending = |state: &mut State| !state.dead && (state.busy || !state.waiting.is_empty());
        drop(self.0.changed.wait_timeout_while(state, FAREWELL, pending));
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.dead {
            return Ok(bytes.len());
        }
        let room = BACKLOG - state.waiting.len();
        let (taken, lost) = bytes.split_at(room.min(bytes.len()));
        state.waiting.extend_from_slice(taken);
        let tell = !lost.is_empty() && !std::mem::replace(&mut state.told, true);
        let idle = !state.busy;
        drop(state);
        if idle {
            self.0.changed.notify_all();
        }
        if tell {
            tracing::warn!(
                "nobody reads the serial port's output: what goes beyond {BACKLOG} bytes is lost"
            );
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host's end, for the thread that carries.
pub struct Carrier {
    wire: Wire,
    out: File,
    /// Bytes that still may go out.
    left: u64,
}

impl Carrier {
    /// Carries what comes over `wire` into `out`, at most `limit` bytes.
    pub fn new(wire: &Wire, out: File, limit: u64) -> Self {
        Self {
            wire: wire.clone(),
            out,
            left: limit,
        }
    }

    /// Carries until `out` takes no more, which one line of the log says.
    pub fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            self.take(&mut taken);
            let fits = usize::try_from(self.left).unwrap_or(usize::MAX);
            let (bytes, beyond) = taken.split_at(fits.min(taken.len()));
            if let Err(error) = write_all(&mut self.out, bytes) {
                tracing::warn!("the serial port's output ends: it cannot be written: {error}");
                break;
            }
            self.left -= bytes.len() as u64;
            if !beyond.is_empty() {
                tracing::warn!("the serial port's file is full: what the guest prints is lost");
                break;
            }
        }
        let mut state = self.wire.0.lock();
        state.dead = true;
        state.waiting = Vec::new();
        drop(state);
        self.wire.0.changed.notify_all();
    }

    /// Waits for bytes and takes all that wait; `taken` gives its buffer in exchange.
    fn take(&self, taken: &mut Vec<u8>) {
        let shared = &self.wire.0;
        let mut state = shared.lock();
        state.busy = false;
        if state.waiting.is_empty() {
            // Someone may wait for the end of the work.
            shared.changed.notify_all();
        }
        state = shared
            .changed
            .wait_while(state, |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        taken.clear();
        std::mem::swap(&mut state.waiting, taken);
        state.busy = true;
    }
}

/// As [`Write::write_all`], also where someone made the open file non-blocking.
fn write_all(out: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::OUT)];
                poll(&mut fds, None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use super::*;

    fn carry(out: File, limit: u64) -> Wire {
        let wire = Wire::default();
        let carrier = Carrier::new(&wire, out, limit);
        thread::spawn(|| carrier.run());
        wire
    }

    /// A pipe: the end to read, and the end to write.
    fn pipe() -> (File, File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn what_is_written_arrives_before_the_end() {
        let (mut read, write) = pipe();
        let mut wire = carry(write, u64::MAX);
        for byte in b"ready\n" {
            wire.write_all(&[*byte]).unwrap();
        }
        wire.settle();
        let mut text = [0; 6];
        read.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ready\n");
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_costs_bounded_memory() {
        let (mut read, write) = pipe();
        let mut wire = carry(write, u64::MAX);
        for _ in 0..BACKLOG / 64 {
            wire.write_all(&[b'a'; 1024]).unwrap();
        }
        assert!(wire.0.lock().waiting.len() <= BACKLOG);
        assert!(wire.0.lock().told);
        // The reader comes back, and so does the wire.
        let mut got = vec![0; 1 << 16];
        while wire.0.lock().waiting.len() + 3 > BACKLOG {
            assert_ne!(read.read(&mut got).unwrap(), 0);
        }
        wire.write_all(b"end").unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"end") {
            let count = read.read(&mut got).unwrap();
            text.extend(&got[..count]);
        }
    }

    #[test]
    fn a_file_takes_its_limit_and_no_more() {
        let out = tempfile::tempfile().unwrap();
        let mut wire = carry(out.try_clone().unwrap(), 1000);
        for _ in 0..100 {
            wire.write_all(&[b'x'; 64]).unwrap();
        }
        wire.settle();
        assert_eq!(out.metadata().unwrap().len(), 1000);
        assert!(wire.0.lock().dead);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_wire() {
        let (read, write) = pipe();
        drop(read);
        let mut wire = carry(write, u64::MAX);
        wire.write_all(b"x").unwrap();
        wire.settle();
        wire.write_all(b"y").unwrap();
        let state = wire.0.lock();
        assert!(state.dead && state.waiting.is_empty());
    }
}
