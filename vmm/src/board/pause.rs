//! Pausing a guest, and its clock afterwards: for the host's sleep, and for whoever asks for a pause.
//!
//! A guest that does not run must not find out by a clock that is wrong. So its clock (KVM's, from which
//! kvm-clock, Hyper-V's reference counter and reference TSC page are made) goes on as the host's
//! `CLOCK_BOOTTIME` does, which counts the time of a sleep: a wall clock that is built on it is right again
//! before the first instruction, and the guest need not take part. It is set before any processor runs:
//! Windows that sees the old time first hangs for minutes. To the guest a pause is time in which it was given
//! no processor; kvm-clock's "stopped" flag keeps its watchdogs quiet.
//!
//! Who can tell ahead that the host is going to sleep calls [`Pauses::pause`] and [`Pauses::resume`]. Who was
//! told nothing finds out by [`Pauses::woke`], after some instructions of the guest perhaps.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::kvm_clock_data;
use kvm_ioctls::VmFd;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::cpu::{Gate, Stuck};

/// A host that slept shows it by more than this: both clocks are not read at the same instant.
const JITTER: Duration = Duration::from_millis(100);

/// Why a guest does not stop.
#[derive(Debug, Error)]
pub enum PauseError {
    /// A processor does not come out.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// KVM does not tell the time.
    #[error("KVM does not tell the guest's time: {0}")]
    Clock(io::Error),
}

/// For whom a guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Holder {
    /// The host is about to sleep, or asleep.
    Host = 1,
    /// Somebody asked for it.
    Person = 2,
}

/// The host's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `CLOCK_BOOTTIME`: goes on while the host sleeps.
    pub boottime: Duration,
    /// `CLOCK_MONOTONIC`: does not.
    pub monotonic: Duration,
}

impl Times {
    /// Now.
    pub fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            Duration::try_from(time).unwrap_or_default()
        };
        Self {
            monotonic: read(ClockId::Monotonic),
            boottime: read(ClockId::Boottime),
        }
    }

    /// How long the host has slept since it started.
    fn slept(self) -> Duration {
        self.boottime.saturating_sub(self.monotonic)
    }
}

/// What is paused.
pub trait Guest {
    /// Stops all processors.
    fn stop(&mut self) -> Result<(), Stuck>;
    /// Lets them run.
    fn go(&mut self);
    /// Reads its clock.
    fn clock(&self) -> io::Result<Reading>;
    /// Sets its clock to what [`Reading::goes_on`] gives now.
    fn set_clock(&mut self, reading: Reading) -> io::Result<()>;
}

/// What the guest's clock showed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The guest's clock, in ns.
    pub clock: u64,
    /// `CLOCK_BOOTTIME` at the same moment: what lies between both would be the guest's clock's error.
    pub boottime: Duration,
}

impl Reading {
    /// What the guest's clock is to show at `boottime`, in ns.
    pub fn goes_on(self, boottime: Duration) -> u64 {
        let passed = boottime.saturating_sub(self.boottime).as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.clock.saturating_add(passed)
    }
}

/// The pauses of one guest.
pub struct Pauses<G> {
    guest: G,
    holders: u8,
    still: Option<Reading>,
    slept: Duration,
}

impl<G: Guest> Pauses<G> {
    /// Of a guest that may run; `now` it has not slept unnoticed.
    pub fn new(guest: G, now: Times) -> Self {
        Self {
            guest,
            holders: 0,
            still: None,
            slept: now.slept(),
        }
    }

    /// Whether the guest stands still.
    pub fn paused(&self) -> bool {
        self.still.is_some()
    }

    /// For whom it stands still.
    pub fn held_by(&self) -> impl Iterator<Item = Holder> {
        let held = |holder: &Holder| self.holders & *holder as u8 != 0;
        [Holder::Host, Holder::Person].into_iter().filter(held)
    }

    /// Stops the guest for `holder`. When this returns no instruction of it runs.
    ///
    /// # Errors
    /// It does not stop, and runs on.
    pub fn pause(&mut self, holder: Holder, now: Times) -> Result<(), PauseError> {
        if self.still.is_none() {
            self.guest.stop()?;
            match self.guest.clock() {
                Ok(reading) => {
                    self.still = Some(reading);
                    // A sleep that nobody told of until now is mended with this pause.
                    self.slept = now.slept();
                }
                Err(error) => {
                    self.guest.go();
                    return Err(PauseError::Clock(error));
                }
            }
        }
        self.holders |= holder as u8;
        Ok(())
    }

    /// `holder` wants the guest to run; it does once nobody holds it any more, with its clock right. Tells
    /// whether it runs.
    pub fn resume(&mut self, holder: Holder, now: Times) -> bool {
        self.holders &= !(holder as u8);
        if self.holders == 0
            && let Some(reading) = self.still.take()
        {
            if let Err(error) = self.guest.set_clock(reading) {
                tracing::error!("KVM does not set the guest's clock: {error}");
            }
            self.slept = now.slept();
            self.guest.go();
        }
        self.still.is_none()
    }

    /// Nobody holds it any more: its end is near.
    pub fn release(&mut self, now: Times) {
        self.resume(Holder::Host, now);
        self.resume(Holder::Person, now);
    }

    /// The host's clocks have changed. Tells how long the host has slept unnoticed, if it has; then the guest,
    /// which runs already, was stopped for an instant and given its clock anew: KVM's goes by
    /// `CLOCK_BOOTTIME` too, and each processor takes it over at once.
    pub fn woke(&mut self, now: Times) -> Option<Duration> {
        let slept = now.slept().saturating_sub(self.slept);
        if slept < JITTER {
            return None;
        }
        self.slept = now.slept();
        if self.still.is_some() {
            // Whoever had it stopped lets it run.
            return None;
        }
        match self.pause(Holder::Host, now) {
            Ok(()) => {
                self.resume(Holder::Host, now);
            }
            Err(error) => tracing::error!("the guest's clock is not set after a sleep: {error}"),
        }
        Some(slept)
    }
}

/// A guest of KVM's.
pub struct KvmGuest {
    vm: Arc<VmFd>,
    gate: Arc<Gate>,
}

impl KvmGuest {
    pub(super) fn new(vm: Arc<VmFd>, gate: Arc<Gate>) -> Self {
        Self { vm, gate }
    }
}

impl Guest for KvmGuest {
    fn stop(&mut self) -> Result<(), Stuck> {
        self.gate.shut()
    }

    fn go(&mut self) {
        self.gate.open();
    }

    fn clock(&self) -> io::Result<Reading> {
        let clock = self.vm.get_clock()?.clock;
        let boottime = Times::now().boottime;
        Ok(Reading { clock, boottime })
    }

    fn set_clock(&mut self, reading: Reading) -> io::Result<()> {
        let clock = kvm_clock_data {
            clock: reading.goes_on(Times::now().boottime),
            ..kvm_clock_data::default()
        };
        Ok(self.vm.set_clock(&clock)?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Done {
        Stop,
        Go,
        Set(u64),
    }

    /// A guest whose clock is what the test says.
    #[derive(Default)]
    struct Fake {
        clock: u64,
        stuck: bool,
        broken: bool,
        done: Vec<Done>,
    }

    impl Guest for Fake {
        fn stop(&mut self) -> Result<(), Stuck> {
            if self.stuck {
                return Err(Stuck(1));
            }
            self.done.push(Done::Stop);
            Ok(())
        }

        fn go(&mut self) {
            self.done.push(Done::Go);
        }

        fn clock(&self) -> io::Result<Reading> {
            if self.broken {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(Reading {
                clock: self.clock,
                boottime: BOOTTIME.get(),
            })
        }

        fn set_clock(&mut self, reading: Reading) -> io::Result<()> {
            self.done.push(Done::Set(reading.goes_on(BOOTTIME.get())));
            Ok(())
        }
    }

    thread_local! {
        /// The host's clock, which goes as [`at`] says.
        static BOOTTIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// A host that has been awake for so long, and has slept for so long.
    fn at(awake: u64, slept: u64) -> Times {
        BOOTTIME.set(Duration::from_secs(awake + slept));
        Times {
            boottime: Duration::from_secs(awake + slept),
            monotonic: Duration::from_secs(awake),
        }
    }

    fn pauses(clock: u64) -> Pauses<Fake> {
        let guest = Fake {
            clock,
            ..Fake::default()
        };
        Pauses::new(guest, at(100, 7))
    }

    fn done(pauses: &mut Pauses<Fake>) -> Vec<Done> {
        std::mem::take(&mut pauses.guest.done)
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn after_a_sleep_the_clock_is_right_before_anything_runs() {
        let mut pauses = pauses(50 * SECOND);
        pauses.pause(Holder::Host, at(200, 7)).unwrap();
        assert_eq!(done(&mut pauses), [Done::Stop]);
        assert!(pauses.paused());
        // Awake for three more seconds, an hour asleep.
        assert!(pauses.resume(Holder::Host, at(203, 3607)));
        let expected = (50 + 3 + 3600) * SECOND;
        assert_eq!(done(&mut pauses), [Done::Set(expected), Done::Go]);
        assert_eq!(pauses.woke(at(204, 3607)), None, "it was no surprise");
        assert_eq!(done(&mut pauses), []);
    }

    #[test]
    fn it_runs_when_nobody_holds_it() {
        let mut pauses = pauses(SECOND);
        pauses.pause(Holder::Person, at(100, 7)).unwrap();
        pauses.pause(Holder::Host, at(110, 7)).unwrap();
        assert_eq!(done(&mut pauses), [Done::Stop]);
        assert!(!pauses.resume(Holder::Host, at(120, 17)));
        assert_eq!((done(&mut pauses), pauses.paused()), (vec![], true));
        // The whole time counts, not only that of the last holder.
        assert!(pauses.resume(Holder::Person, at(130, 17)));
        let expected = (1 + 30 + 10) * SECOND;
        assert_eq!(done(&mut pauses), [Done::Set(expected), Done::Go]);
        assert!(pauses.resume(Holder::Person, at(131, 17)), "twice is once");
        assert_eq!(done(&mut pauses), []);
        pauses.pause(Holder::Host, at(140, 17)).unwrap();
        pauses.pause(Holder::Person, at(140, 17)).unwrap();
        pauses.release(at(141, 17));
        assert!(!pauses.paused());
    }

    #[test]
    fn a_sleep_that_nobody_told_of_is_found_out_once() {
        let mut pauses = pauses(90 * SECOND);
        // Somebody set the clock, or both were read a moment apart.
        let apart = Times {
            boottime: Duration::from_millis(207_020),
            monotonic: Duration::from_secs(200),
        };
        assert_eq!(pauses.woke(apart), None);
        assert_eq!(done(&mut pauses), []);
        let slept = pauses.woke(at(200, 67)).unwrap();
        assert_eq!(slept, Duration::from_mins(1));
        let expected = [Done::Stop, Done::Set(90 * SECOND), Done::Go];
        assert_eq!(done(&mut pauses), expected);
        assert_eq!(pauses.woke(at(201, 67)), None);
        // Paused by a person, through a sleep: the end of the pause sets it right.
        pauses.pause(Holder::Person, at(210, 67)).unwrap();
        assert_eq!(pauses.woke(at(210, 167)), None);
        assert_eq!(done(&mut pauses), [Done::Stop]);
        pauses.resume(Holder::Person, at(210, 167));
        let expected = [Done::Set(190 * SECOND), Done::Go];
        assert_eq!(done(&mut pauses), expected);
    }

    #[test]
    fn what_does_not_stop_runs_on() {
        let mut pauses = pauses(0);
        pauses.guest.stuck = true;
        assert!(pauses.pause(Holder::Host, at(100, 7)).is_err());
        assert_eq!((pauses.paused(), done(&mut pauses)), (false, vec![]));
        pauses.guest = Fake {
            broken: true,
            ..Fake::default()
        };
        assert!(pauses.pause(Holder::Host, at(100, 7)).is_err());
        assert!(!pauses.paused());
        assert_eq!(done(&mut pauses), [Done::Stop, Done::Go]);
        // And is not held by who failed to stop it.
        pauses.guest.broken = false;
        pauses.pause(Holder::Person, at(100, 7)).unwrap();
        assert!(pauses.resume(Holder::Person, at(100, 7)));
    }
}
