//! The way between a disk and the thread of its image.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Image;
use crate::disk::clear::Wanted;
use crate::virtio::GuestRam;
use crate::worker::event_fd;

/// Bytes copied at once: long enough for the disk's speed, and all that an image's thread holds.
const PIECE: usize = 1 << 20;

/// Bytes given up or zeroed before it is asked whether anybody still waits for it: some thousand clusters.
/// The place of a piece is a multiple of it, and so of a cluster.
const CLEARED: u64 = 64 << 20;

/// Parts of guest memory.
type Spans = Vec<(GuestAddress, usize)>;

/// What is asked of an image.
pub(in crate::disk) enum Work {
    Read {
        offset: u64,
        ram: GuestRam,
        spans: Spans,
    },
    Write {
        offset: u64,
        /// In the file and on the medium when it is answered.
        stable: bool,
        ram: GuestRam,
        spans: Spans,
    },
    Flush,
    Clear {
        wanted: Wanted,
        ranges: Vec<Range<u64>>,
    },
}

#[derive(Default)]
struct State {
    /// With the disk's number for each; never more than it has places.
    asked: VecDeque<(u64, Work)>,
    /// With the result, as the kernel would give it.
    answered: VecDeque<(u64, i32)>,
    /// Nobody waits for what is under way.
    forgotten: bool,
    /// No more will be asked.
    closing: bool,
    /// The thread has ended.
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something was asked, or the end has come.
    called: Condvar,
    /// The thread has ended.
    ended: Condvar,
    /// Readable with an answer.
    event: EventFd,
}

impl Shared {
    /// What is here is whole after each line: a panic elsewhere breaks nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for what is under way.
    fn gone(&self) -> bool {
        let state = self.lock();
        state.forgotten || state.closing
    }
}

/// The disk's end.
pub struct Requests {
    shared: Arc<Shared>,
    length: u64,
    asked: bool,
}

/// The thread's end.
pub struct Service {
    shared: Arc<Shared>,
    image: Image,
    buffer: Vec<u8>,
    failures: u64,
}

/// Closes an image when the guest has ended.
pub struct Closer(Arc<Shared>);

impl Image {
    /// The two ends of the way to this image.
    pub fn split(self) -> io::Result<(Requests, Service)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            called: Condvar::new(),
            ended: Condvar::new(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        });
        let requests = Requests {
            shared: shared.clone(),
            length: self.length(),
            asked: false,
        };
        let service = Service {
            shared,
            image: self,
            buffer: vec![0; PIECE],
            failures: 0,
        };
        Ok((requests, service))
    }
}

impl Requests {
    pub(in crate::disk) fn length(&self) -> u64 {
        self.length
    }

    /// Asks for something; the thread hears of it at the next [`Requests::submit`].
    pub(in crate::disk) fn ask(&mut self, index: u64, work: Work) {
        self.shared.lock().asked.push_back((index, work));
        self.asked = true;
    }

    pub(in crate::disk) fn submit(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.shared.called.notify_one();
        }
    }

    pub(in crate::disk) fn completion(&mut self) -> Option<(u64, i32)> {
        self.shared.lock().answered.pop_front()
    }

    /// Takes back what the thread has not begun with; what it is at may end early.
    pub(in crate::disk) fn forget(&mut self) -> Vec<u64> {
        let mut state = self.shared.lock();
        state.forgotten = true;
        let asked = std::mem::take(&mut state.asked);
        asked.into_iter().map(|(index, _)| index).collect()
    }

    pub(in crate::disk) fn event(&self) -> BorrowedFd<'_> {
        event_fd(&self.shared.event)
    }
}

impl Service {
    /// What closes the image.
    pub fn closer(&self) -> Closer {
        Closer(self.shared.clone())
    }

    /// Serves until the image is closed, and leaves all of it in the file.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        // Also after a panic, so that nobody waits for ever.
        let _ended = Ended(shared.clone());
        while let Some((index, work)) = next(&shared) {
            let answer = self.answer(work);
            shared.lock().answered.push_back((index, answer));
            // A full counter is signalled already.
            let _ = shared.event.write(1);
        }
        if let Err(error) = self.image.flush() {
            tracing::error!(%error, "what a disk image has last taken is not all in its file");
        }
    }

    /// The result as the kernel would give it: bytes moved, or an error's negative number.
    fn answer(&mut self, work: Work) -> i32 {
        match self.work(work) {
            Ok(moved) => i32::try_from(moved).unwrap_or(i32::MAX),
            Err(error) => {
                self.failures += 1;
                // Ever more seldom: a guest may try for ever, and the log is the host's.
                if self.failures.is_power_of_two() {
                    let failures = self.failures;
                    tracing::warn!(%error, failures, "a disk image refuses a request");
                }
                -number(&error)
            }
        }
    }

    fn work(&mut self, work: Work) -> io::Result<usize> {
        let mut moved = 0;
        match work {
            Work::Read { offset, ram, spans } => {
                for (address, length, at) in pieces(&spans, offset) {
                    let piece = &mut self.buffer[..length];
                    self.image.read(piece, at)?;
                    ram.write_slice(piece, address).map_err(io::Error::other)?;
                    moved += length;
                }
            }
            Work::Write {
                offset,
                stable,
                ram,
                spans,
            } => {
                for (address, length, at) in pieces(&spans, offset) {
                    let piece = &mut self.buffer[..length];
                    ram.read_slice(piece, address).map_err(io::Error::other)?;
                    self.image.write(piece, at)?;
                    moved += length;
                }
                if stable {
                    self.image.flush()?;
                }
            }
            Work::Flush => self.image.flush()?,
            Work::Clear { wanted, ranges } => {
                for piece in ranges.iter().flat_map(cleared) {
                    if self.shared.gone() {
                        break;
                    }
                    match wanted {
                        Wanted::Discard => self.image.discard(&piece)?,
                        Wanted::Zeroes { unmap, .. } => self.image.zero(&piece, unmap)?,
                    }
                }
                if matches!(wanted, Wanted::Zeroes { stable: true, .. }) {
                    self.image.flush()?;
                }
            }
        }
        Ok(moved)
    }
}

impl Closer {
    /// Has the image closed; whether that was so within `limit`.
    pub fn close(&self, limit: Duration) -> bool {
        let mut state = self.0.lock();
        state.closing = true;
        self.0.called.notify_one();
        let ended = self
            .0
            .ended
            .wait_timeout_while(state, limit, |it| !it.closed);
        let (state, _) = ended.unwrap_or_else(PoisonError::into_inner);
        state.closed
    }
}

/// Tells the thread's end when dropped.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.ended.notify_all();
    }
}

/// Waits for something to do; `None` when the image is closed: what was not begun was not answered, and
/// a guest that asks without end is not to keep the VMM from its own.
fn next(shared: &Shared) -> Option<(u64, Work)> {
    let mut state = shared.lock();
    loop {
        if state.closing {
            return None;
        }
        if let Some(work) = state.asked.pop_front() {
            state.forgotten = false;
            return Some(work);
        }
        let woken = shared.called.wait(state);
        state = woken.unwrap_or_else(PoisonError::into_inner);
    }
}

/// The spans in pieces that fit the buffer, each with its place in the image.
fn pieces(spans: &Spans, offset: u64) -> impl Iterator<Item = (GuestAddress, usize, u64)> {
    let mut at = offset;
    let cut = |(address, length): (GuestAddress, usize)| {
        (0..length).step_by(PIECE).map(move |from| {
            let part = PIECE.min(length - from);
            (GuestAddress(address.0 + from as u64), part)
        })
    };
    spans
        .clone()
        .into_iter()
        .flat_map(cut)
        .map(move |(address, length)| {
            let here = at;
            at += length as u64;
            (address, length, here)
        })
}

/// A range in pieces.
fn cleared(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { mut start, end } = *range;
    std::iter::from_fn(move || {
        let from = start;
        let next = (from / CLEARED + 1).saturating_mul(CLEARED);
        start = next.min(end);
        (from < end).then_some(from..start)
    })
}

/// The number of an error, which may be wrapped in words.
fn number(error: &io::Error) -> i32 {
    match error.kind() {
        io::ErrorKind::StorageFull => libc::ENOSPC,
        io::ErrorKind::QuotaExceeded => libc::EDQUOT,
        _ => error
            .raw_os_error()
            .filter(|it| *it > 0)
            .unwrap_or(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_where_clusters_end() {
        let cut = |range: Range<u64>| cleared(&range).collect::<Vec<_>>();
        assert_eq!(cut(512..1024), vec![512..1024]);
        let far = CLEARED * 2 + 512;
        let parts = [512..CLEARED, CLEARED..CLEARED * 2, CLEARED * 2..far];
        assert_eq!(cut(512..far), parts);
        assert_eq!(cut(7..7), vec![]);
        let end = u64::MAX - 3..u64::MAX;
        assert_eq!(cut(end.clone()), [end]);
    }

    #[test]
    fn spans_are_cut_to_the_buffer() {
        let spans = vec![(GuestAddress(0x1000), PIECE + 512), (GuestAddress(0), 512)];
        let cut: Vec<_> = pieces(&spans, 4096).collect();
        let piece = PIECE as u64;
        let expected = [
            (GuestAddress(0x1000), PIECE, 4096),
            (GuestAddress(0x1000 + piece), 512, 4096 + piece),
            (GuestAddress(0), 512, 4608 + piece),
        ];
        assert_eq!(cut, expected);
    }

    #[test]
    fn an_errors_number_survives_its_words() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(number(&full), libc::ENOSPC);
        let wrapped = io::Error::new(full.kind(), format!("qcow2: {full}"));
        assert_eq!(number(&wrapped), libc::ENOSPC);
        assert_eq!(number(&io::Error::other("words")), libc::EIO);
    }
}
