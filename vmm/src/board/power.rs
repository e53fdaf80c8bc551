//! How the guest ends: one value, written once by whoever sees it first, read by all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

/// Why the guest is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It switched itself off (ACPI S5).
    Shutdown,
    /// It asked for a reset.
    Reset,
    /// It, or what runs it, broke.
    Crash(Crash),
    /// The supervisor ended it.
    Stopped,
}

impl Ending {
    /// The word for it in reports: `shutdown`, `reset` or `crash`.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Shutdown | Self::Stopped => "shutdown",
            Self::Reset => "reset",
            Self::Crash(_) => "crash",
        }
    }

    /// The exit status of the VMM: 0 shut down, 3 reset, 4 crash (1 and 2 are errors before the
    /// guest started).
    pub fn status(&self) -> u8 {
        match self {
            Self::Shutdown | Self::Stopped => 0,
            Self::Reset => 3,
            Self::Crash(_) => 4,
        }
    }
}

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Crash {
    /// The guest's processor gave up.
    #[error("triple fault")]
    TripleFault,
    /// The hardware refused the guest's state.
    #[error("the processor refuses to enter the guest (reason {0:#x})")]
    Entry(u64),
    /// KVM could not emulate an instruction.
    #[error("KVM cannot emulate an instruction of the guest")]
    Internal,
    /// KVM gave an exit that was never enabled.
    #[error("KVM stopped the guest for an unknown reason")]
    Unexpected,
    /// The thread that serves the devices ended.
    #[error("the thread that serves the devices ended")]
    Devices,
    /// The host refused to run the guest.
    #[error("the host refuses to run the guest (error {0})")]
    Host(i32),
}

impl Crash {
    /// Its name in the state and in logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TripleFault => "triple_fault",
            Self::Entry(_) => "entry_refused",
            Self::Internal => "kvm_internal_error",
            Self::Unexpected => "unexpected_exit",
            Self::Devices => "devices_ended",
            Self::Host(_) => "host_error",
        }
    }

    /// What a person can do.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::TripleFault => {
                "the work OS or its firmware broke down by itself: start it again; if it happens at \
                 each start, look at its console and give it another kernel or firmware"
            }
            Self::Entry(_) | Self::Internal => {
                "this host's KVM cannot run the work OS: update the host's kernel and the laptop's \
                 firmware; if it happens again, report it with the log"
            }
            Self::Unexpected | Self::Devices => {
                "this is a mistake of Sekisho: start the work OS again and report it with the log"
            }
            Self::Host(_) => {
                "the host is short of memory or withdrew /dev/kvm: see the host's kernel log"
            }
        }
    }
}

/// The power supply: tells the main thread that the guest has ended.
#[derive(Debug)]
pub struct Power {
    ending: OnceLock<Ending>,
    event: OwnedFd,
}

impl Power {
    /// Power that is on. Fails when the host gives no event descriptor.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            ending: OnceLock::new(),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Ends the guest; only the first reason counts.
    pub fn end(&self, ending: Ending) {
        if self.ending.set(ending).is_ok() {
            // The counter starts at 0 and is written once: it cannot be full.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Ends the guest because something broke.
    pub fn crash(&self, crash: Crash) {
        self.end(Ending::Crash(crash));
    }

    /// Whether the guest has ended.
    pub fn ended(&self) -> bool {
        self.ending.get().is_some()
    }

    /// How the guest ended, if it did.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }
}

impl AsFd for Power {
    /// Readable once the guest has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let power = Power::new().unwrap();
        assert!(!power.ended());
        power.end(Ending::Reset);
        power.crash(Crash::TripleFault);
        assert_eq!(power.ending(), Some(&Ending::Reset));
        let mut count = [0; 8];
        rustix::io::read(&power.event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn each_ending_has_its_status() {
        assert_eq!(Ending::Shutdown.status(), 0);
        assert_eq!(Ending::Reset.status(), 3);
        assert_eq!(Ending::Crash(Crash::Internal).status(), 4);
    }
}
