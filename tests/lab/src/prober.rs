//! A stream of questions that shows how long a way is not there, and what it loses.

use std::{
    net::{SocketAddrV4, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{LabError, NetLaptop, address as at};

/// A question each so often.
const PACE: Duration = Duration::from_millis(5);
/// Where an NTP question carries its number: its own time stamp, which the answer repeats (RFC 5905,
/// section 7.3).
const NUMBER: std::ops::Range<usize> = 40..48;
const REPEATED: std::ops::Range<usize> = 24..32;
/// Where the canary follows.
const CANARY: usize = 48;

/// Asks the time server behind the gateway each five milliseconds, from the guest, with the
/// laptop's canary in every question.
#[derive(Debug)]
pub struct Prober {
    socket: UdpSocket,
    canary: [u8; 16],
    /// When each question was asked, and answered.
    questions: Mutex<Vec<(Instant, Option<Instant>)>>,
    stop: AtomicBool,
}

impl Prober {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When no socket can be had in the guest's namespace.
    pub fn open(laptop: &NetLaptop<'_>) -> Result<Self, LabError> {
        let open = || {
            let socket = UdpSocket::bind(SocketAddrV4::new(at::GUEST, 0))?;
            socket.connect(SocketAddrV4::new(at::LGWAN_NTP, 123))?;
            socket.set_read_timeout(Some(PACE))?;
            Ok(socket)
        };
        let socket = laptop.guest_space().enter(open).and_then(|socket| socket);
        Ok(Self {
            socket: socket.map_err(LabError::io("open the guest's socket"))?,
            canary: laptop.canary().bytes(),
            questions: Mutex::default(),
            stop: AtomicBool::new(false),
        })
    }

    /// Asks while `work` runs, and gives what `work` gave.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Also where the work fails.
        struct AtEnd<'p>(&'p AtomicBool);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        thread::scope(|threads| {
            threads.spawn(|| self.run());
            let _end = AtEnd(&self.stop);
            work()
        })
    }

    fn run(&self) {
        let mut question = [0; CANARY + 16];
        question[0] = 0x23;
        question[CANARY..].copy_from_slice(&self.canary);
        let mut answer = [0; 512];
        while !self.stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let number = self.questions().len() as u64;
            question[NUMBER].copy_from_slice(&number.to_be_bytes());
            self.questions().push((asked, None));
            let _ = self.socket.send(&question);
            // Until it is time for the next question; the socket waits as long at most.
            while let Ok(length) = self.socket.recv(&mut answer) {
                self.answered(&answer[..length]);
                if asked.elapsed() >= PACE {
                    break;
                }
            }
        }
    }

    fn answered(&self, answer: &[u8]) {
        let number = answer.get(REPEATED).and_then(|bytes| bytes.try_into().ok());
        let number = number.map(u64::from_be_bytes).map(usize::try_from);
        if let Some(Ok(number)) = number
            && let Some((_, when)) = self.questions().get_mut(number)
        {
            when.get_or_insert_with(Instant::now);
        }
    }

    fn questions(&self) -> MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a question that was asked after `since` is answered.
    pub fn wait(&self, since: Instant, limit: Duration) -> bool {
        while since.elapsed() < limit {
            let back = |(asked, answered): &(Instant, Option<Instant>)| {
                *asked > since && answered.is_some()
            };
            if self.questions().iter().rev().any(back) {
                return true;
            }
            // The pace of the questions; there is no news of answers to wait for.
            thread::sleep(PACE);
        }
        false
    }

    /// The longest time without an answer that ended between the two.
    pub fn outage(&self, from: Instant, to: Instant) -> Duration {
        let mut answers: Vec<_> = self
            .questions()
            .iter()
            .filter_map(|(_, answered)| *answered)
            .collect();
        answers.sort_unstable();
        answers
            .windows(2)
            .filter(|pair| pair[1] > from && pair[1] <= to)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(to - from)
    }

    /// Questions asked between the two that were never answered.
    pub fn lost(&self, from: Instant, to: Instant) -> usize {
        self.questions()
            .iter()
            .filter(|(asked, answered)| (from..to).contains(asked) && answered.is_none())
            .count()
    }
}
