//! Being told that the host slept, or that its clock was set: a timer that never ends, which the kernel
//! cancels then.
//!
//! Source: `timerfd_create(2)`, `TFD_TIMER_CANCEL_ON_SET`; the kernel does so on waking up, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// A hundred years, in seconds.
const NEVER: i64 = 100 * 365 * 86_400;

/// The timer.
pub struct Waking(OwnedFd);

impl Waking {
    /// Starts it.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = Self(timerfd_create(TimerfdClockId::Realtime, flags)?);
        timer.arm()?;
        Ok(timer)
    }

    fn arm(&self) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let end = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: clock_gettime(ClockId::Realtime).tv_sec + NEVER,
                ..zero
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.0, flags, &end)?;
        Ok(())
    }

    /// It was cancelled: waits for the next time.
    ///
    /// # Errors
    /// The host refuses, and will not tell again.
    pub fn again(&self) -> io::Result<()> {
        // Fails with ECANCELED, which takes the news away.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
        self.arm()
    }
}

impl AsFd for Waking {
    /// Readable once the host slept or its clock was set.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// It wakes nobody as long as nothing happens, and a second time neither: a host's clock that is set is
    /// not for a test to bring about.
    #[test]
    fn nothing_is_told_while_nothing_happens() {
        let waking = Waking::new().unwrap();
        for _ in 0..2 {
            let mut fds = [PollFd::new(&waking, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            assert_eq!(poll(&mut fds, Some(&moment)).unwrap(), 0);
            waking.again().unwrap();
        }
    }
}
