//! The thread between the registers and swtpm.
//!
//! A processor leaves its command with the [`Tpm`] and goes on; the courier sends it, waits for the
//! answer as long as a command may take, and puts it into the buffer. It waits on three descriptors: its
//! bell, the data channel and the control channel, the last for the answer to a cancel only. Once swtpm
//! has lied, hung or died it is not spoken to again: the device says that the TPM has failed, until the
//! next start of the machine.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::command::{Command, Incoming, SHUTDOWN};
use super::control::{Swtpm, TpmError, receive};
use super::crb::{BUFFER_LEN, Crb, Executor};

/// How long the end of the machine waits for the TPM: for a command that was cancelled, for the TPM's own
/// shutdown and for swtpm's word that the power is off.
const FAREWELL: Duration = Duration::from_secs(3);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It may start again soon: swtpm stays.
    Reset,
    /// It is switched off: swtpm ends too.
    Off,
}

/// What the courier is to do.
#[derive(Default)]
struct Errands {
    command: Option<Command>,
    cancel: bool,
    farewell: Option<Farewell>,
}

/// Where errands are left.
struct Counter {
    errands: Mutex<Errands>,
    bell: OwnedFd,
}

impl Counter {
    fn leave(&self, leave: impl FnOnce(&mut Errands)) {
        leave(&mut lock(&self.errands));
        // A counter that is full has rung already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn take(&self) -> Errands {
        let mut count = [0; 8];
        // Nothing is there when somebody rang twice.
        let _ = rustix::io::read(&self.bell, &mut count);
        std::mem::take(&mut *lock(&self.errands))
    }
}

/// The device's way to the courier.
struct Leave(Arc<Counter>);

impl Executor for Leave {
    fn execute(&mut self, command: Command) {
        self.0.leave(|errands| {
            // A cancel that came too late for the last command is not one of this.
            errands.cancel = false;
            errands.command = Some(command);
        });
    }

    fn cancel(&mut self) {
        self.0.leave(|errands| errands.cancel = true);
    }
}

/// The TPM as the board and the main thread have it.
pub struct Tpm {
    counter: Arc<Counter>,
    device: Arc<Mutex<Crb>>,
    done: Receiver<()>,
}

impl Tpm {
    /// The registers, for the bus.
    pub fn device(&self) -> Arc<Mutex<Crb>> {
        Arc::clone(&self.device)
    }

    /// Takes the power from the TPM in good order: it waits a few seconds at most. What of a command is
    /// under way is cancelled, and a TPM that was not shut down by the guest is now, so that it does
    /// not take this for a power cut, which it counts against who guesses passwords.
    pub fn farewell(&self, farewell: Farewell) {
        self.counter
            .leave(|errands| errands.farewell = Some(farewell));
        // Where the courier has ended there is nobody to wait for.
        if self.done.recv_timeout(3 * FAREWELL) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the TPM is switched off while it works");
        }
    }
}

/// What was sent and has no answer yet.
struct Running {
    incoming: Incoming,
    deadline: Instant,
}

/// What is to be run on a thread.
pub struct Courier {
    swtpm: Swtpm,
    counter: Arc<Counter>,
    device: Arc<Mutex<Crb>>,
    /// Dropped at the end, also by a panic.
    _done: Sender<()>,
    running: Option<Running>,
    /// The result of a cancel, which is on its way.
    cancelling: Option<Vec<u8>>,
    /// Whether the last command told the TPM that the power goes.
    told: bool,
    /// The guest has started the TPM up, so that there is something to shut down.
    used: bool,
}

impl Courier {
    /// Puts registers before an swtpm.
    pub fn new(swtpm: Swtpm) -> io::Result<(Tpm, Self)> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let counter = Arc::new(Counter {
            errands: Mutex::default(),
            bell,
        });
        let leave = Box::new(Leave(Arc::clone(&counter)));
        let device = Arc::new(Mutex::new(Crb::new(leave, swtpm.established)));
        let (sender, done) = mpsc::channel();
        let tpm = Tpm {
            counter: Arc::clone(&counter),
            device: Arc::clone(&device),
            done,
        };
        let courier = Self {
            swtpm,
            counter,
            device,
            _done: sender,
            running: None,
            cancelling: None,
            told: false,
            used: false,
        };
        Ok((tpm, courier))
    }

    /// Carries until the machine ends or swtpm fails.
    pub fn run(mut self) {
        let _failed = Failed(Arc::clone(&self.device));
        if let Err(error) = self.carry() {
            tracing::error!("the work OS has no TPM any more, until it is started again: {error}");
        }
    }

    fn carry(&mut self) -> Result<(), TpmError> {
        loop {
            self.turn(None, true)?;
            let errands = self.counter.take();
            if let Some(command) = errands.command {
                self.send(&command)?;
            }
            if errands.cancel {
                self.cancel()?;
            }
            if let Some(farewell) = errands.farewell {
                return self.farewell(farewell);
            }
        }
    }

    /// Waits for something to do, `until` then at the latest and also for the bell where `bell` is set,
    /// and takes in what swtpm has sent.
    fn turn(&mut self, until: Option<Instant>, bell: bool) -> Result<(), TpmError> {
        let command = self.running.as_ref().map(|running| running.deadline);
        let end = [command, until].into_iter().flatten().min();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let (data, control) = {
            let mut fds = [
                PollFd::new(
                    &self.counter.bell,
                    if bell {
                        PollFlags::IN
                    } else {
                        PollFlags::empty()
                    },
                ),
                PollFd::new(&self.swtpm.data, PollFlags::IN),
                PollFd::new(&self.swtpm.control.socket, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(()),
                Err(error) => {
                    return Err(TpmError::Socket {
                        what: "waiting",
                        source: error.into(),
                    });
                }
            }
            (!fds[1].revents().is_empty(), !fds[2].revents().is_empty())
        };
        if data {
            self.receive()?;
        }
        if control {
            self.take_result()?;
        }
        let late = |running: &Running| running.deadline <= Instant::now();
        if self.running.as_ref().is_some_and(late) {
            return Err(TpmError::Silent {
                what: "a command",
                limit: self.swtpm.patience.command,
            });
        }
        Ok(())
    }

    fn send(&mut self, command: &Command) -> Result<(), TpmError> {
        const NAME: &str = "data channel";
        // What was asked for the last one must not meet this one.
        self.settle(self.swtpm.patience.control)?;
        let sent = rustix::net::send(&self.swtpm.data, command.bytes(), SendFlags::NOSIGNAL);
        match sent {
            Ok(count) if count == command.bytes().len() => {}
            // Its socket holds many times the longest command, and is empty: it has answered all.
            Ok(_) | Err(Errno::AGAIN) => return Err(TpmError::Unasked(NAME)),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(TpmError::Gone(NAME)),
            Err(error) => {
                return Err(TpmError::Socket {
                    what: NAME,
                    source: error.into(),
                });
            }
        }
        self.told = command.code() == SHUTDOWN;
        self.used = true;
        self.running = Some(Running {
            incoming: Incoming::default(),
            deadline: Instant::now() + self.swtpm.patience.command,
        });
        Ok(())
    }

    fn receive(&mut self) -> Result<(), TpmError> {
        const NAME: &str = "data channel";
        // One byte more than a response has, so that what is behind it is seen.
        let mut piece = [0; BUFFER_LEN + 1];
        let count = receive(&self.swtpm.data, NAME, &mut piece)?;
        let Some(running) = &mut self.running else {
            return if count == 0 {
                Ok(())
            } else {
                Err(TpmError::Unasked(NAME))
            };
        };
        if let Some(response) = running.incoming.take(&piece[..count])? {
            self.running = None;
            lock(&self.device).complete(&response);
        }
        Ok(())
    }

    /// Asks swtpm to give the command up, unless it is being asked.
    fn cancel(&mut self) -> Result<(), TpmError> {
        if self.running.is_some() && self.cancelling.is_none() {
            self.swtpm.control.request_cancel()?;
            self.cancelling = Some(Vec::new());
        }
        Ok(())
    }

    fn take_result(&mut self) -> Result<(), TpmError> {
        let Some(result) = &mut self.cancelling else {
            // Either its end or what nobody asked for.
            receive(&self.swtpm.control.socket, "control channel", &mut [0])?;
            return Err(TpmError::Unasked("control channel"));
        };
        if self.swtpm.control.take_result(result)? {
            self.cancelling = None;
        }
        Ok(())
    }

    fn farewell(&mut self, farewell: Farewell) -> Result<(), TpmError> {
        self.cancel()?;
        self.settle(FAREWELL)?;
        if self.used && !self.told {
            self.send(&Command::shutdown())?;
            self.settle(FAREWELL)?;
        }
        self.swtpm.control.limit(FAREWELL);
        self.swtpm.control.power_off(farewell == Farewell::Off)
    }

    /// Waits for what is under way, at most so long.
    fn settle(&mut self, limit: Duration) -> Result<(), TpmError> {
        let end = Instant::now() + limit;
        while self.running.is_some() || self.cancelling.is_some() {
            if Instant::now() >= end {
                let what = "what it was busy with";
                return Err(TpmError::Silent { what, limit });
            }
            self.turn(Some(end), false)?;
        }
        Ok(())
    }
}

/// Fails the device when dropped, also by a panic.
struct Failed(Arc<Mutex<Crb>>);

impl Drop for Failed {
    fn drop(&mut self) {
        lock(&self.0).fail();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
