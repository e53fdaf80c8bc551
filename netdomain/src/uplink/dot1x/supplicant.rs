//! One running `wpa_supplicant` on one cable, and the conversation with it.
//!
//! Two sockets lead to its control interface. On one it tells what happens; those messages carry
//! words of the network's (subjects of certificates, identities), so they are thrown away unread and
//! only say that it is time to ask. On the other it is asked, and its answers are read.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};

use super::{
    call::call,
    keeper::{OWN_SOCKETS, SOCKETS},
    message::Carrier,
    status::Look,
};

/// Where the distribution puts it.
const PROGRAM: &str = "/usr/sbin/wpa_supplicant";
/// The configuration is the keeper's standard input, and the supplicant's.
const CONFIG: &str = "/proc/self/fd/0";
/// It makes its control interface within some 100 ms of its start.
const OPENS_WITHIN: Duration = Duration::from_secs(5);
/// How often its control interface is looked for.
const OPENS_LOOK: Duration = Duration::from_millis(20);
/// How often it is asked though nothing happened: one that hangs must be noticed.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is asked until it calls or hears somebody: it says nothing of that, and the keeper is to
/// call at once.
const BEGINS: Duration = Duration::from_millis(20);
/// Shortest pause between two questions, however much happens: a neighbour's flood of EAPOL makes
/// twenty questions a second, and the loss of a port is seen this much later at most.
const PAUSE: Duration = Duration::from_millis(50);
/// It answers within a millisecond, unless it checks a signature just then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Messages that are thrown away in one turn.
const EVENTS_PER_TURN: usize = 64;
/// Its longest answer is of some 600 bytes.
const ANSWER: usize = 4096;
/// Seconds after a failure until it begins again, in place of 60: a server that was being restarted
/// must not cost a person a minute, and three attempts a minute cost a server nothing.
const HELD: &str = "SET EAPOL::heldPeriod 20";

/// What became of it in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Nothing,
    /// It answered.
    Saw(Look),
    /// It ended, or hangs.
    Gone,
}

enum Talk {
    /// Its control interface is not there yet.
    Opening,
    Open {
        events: UnixDatagram,
        questions: UnixDatagram,
        /// Since when an answer is awaited.
        asked: Option<Duration>,
        /// When to ask next.
        next: Duration,
        /// Something happened since the last question.
        happened: bool,
    },
}

/// The process; ended with this value.
pub(super) struct Supplicant {
    child: Child,
    pidfd: OwnedFd,
    carrier: Carrier,
    port: String,
    started: Duration,
    talk: Talk,
    /// It was seen to call or to hear somebody.
    began: bool,
}

impl Supplicant {
    /// Starts it on a port.
    pub(super) fn start(carrier: Carrier, port: &str, now: Duration) -> io::Result<Self> {
        let socket = Path::new(SOCKETS).join(port);
        // One that was killed leaves its socket behind.
        let _ = fs::remove_file(socket);
        let mut command = Command::new(PROGRAM);
        command
            .args(["-q", "-D", "wired", "-i", port, "-c", CONFIG])
            .env_clear()
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit());
        let keeper = getpid();
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec the closure only makes two system calls (prctl, getppid);
        // it takes no lock and does not allocate.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() != Some(keeper) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let pidfd = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .inspect_err(|_| end(&mut child))?;
        Ok(Self {
            child,
            pidfd,
            carrier,
            port: port.to_owned(),
            started: now,
            talk: Talk::Opening,
            began: false,
        })
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.pidfd.as_fd()];
        if let Talk::Open {
            events, questions, ..
        } = &self.talk
        {
            fds.extend([events.as_fd(), questions.as_fd()]);
        }
        fds
    }

    /// When [`Supplicant::turn`] is wanted at the latest.
    pub(super) fn due(&self, now: Duration) -> Duration {
        match &self.talk {
            Talk::Opening => now + OPENS_LOOK,
            Talk::Open {
                asked: Some(asked), ..
            } => *asked + ANSWERS_WITHIN,
            Talk::Open { next, .. } => *next,
        }
    }

    /// Since when it runs.
    pub(super) const fn started(&self) -> Duration {
        self.started
    }

    /// Does what is to be done; cheap where nothing is.
    pub(super) fn turn(&mut self, now: Duration) -> Turn {
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                tracing::warn!(port = self.port, %status, "wpa_supplicant ended");
                return Turn::Gone;
            }
            Err(error) => {
                tracing::warn!(port = self.port, %error, "wpa_supplicant is lost");
                return Turn::Gone;
            }
        }
        let outcome = match self.talk {
            Talk::Opening => self.open(now),
            Talk::Open { .. } => self.talk(now),
        };
        outcome.unwrap_or_else(|error| {
            tracing::warn!(port = self.port, %error, "wpa_supplicant does not answer");
            Turn::Gone
        })
    }

    fn open(&mut self, now: Duration) -> io::Result<Turn> {
        let server = Path::new(SOCKETS).join(&self.port);
        let socket = |what: &str| {
            let own = format!("{OWN_SOCKETS}/{}-{what}", self.carrier.0);
            let _ = fs::remove_file(&own);
            let socket = UnixDatagram::bind(own)?;
            socket.set_nonblocking(true)?;
            socket.connect(&server)?;
            io::Result::Ok(socket)
        };
        let (Ok(events), Ok(questions)) = (socket("events"), socket("questions")) else {
            return if now.saturating_sub(self.started) < OPENS_WITHIN {
                Ok(Turn::Nothing)
            } else {
                Err(io::ErrorKind::TimedOut.into())
            };
        };
        // Their answers come where what happens is told, and are thrown away with it.
        events.send(b"ATTACH")?;
        events.send(HELD.as_bytes())?;
        self.talk = Talk::Open {
            events,
            questions,
            asked: None,
            next: now,
            happened: true,
        };
        self.talk(now)
    }

    fn talk(&mut self, now: Duration) -> io::Result<Turn> {
        let Talk::Open {
            events,
            questions,
            asked,
            next,
            happened,
        } = &mut self.talk
        else {
            return Ok(Turn::Nothing);
        };
        for _ in 0..EVENTS_PER_TURN {
            // Too short for any of them: what does not fit is dropped by the kernel.
            if receive(events, &mut [0; 1])?.is_none() {
                break;
            }
            *happened = true;
        }
        let mut turn = Turn::Nothing;
        if let Some(since) = *asked {
            let mut answer = [0; ANSWER];
            match receive(questions, &mut answer)? {
                Some(length) => {
                    let text = std::str::from_utf8(&answer[..length]).unwrap_or_default();
                    let look = Look::read(text);
                    turn = Turn::Saw(look);
                    *asked = None;
                    *next = since + QUIET;
                    if !self.began {
                        match look {
                            Look::Unclear => *next = since + BEGINS,
                            Look::Calling => {
                                if let Err(error) = call(&self.port) {
                                    tracing::debug!(port = self.port, %error, "no call");
                                }
                                self.began = true;
                            }
                            _ => self.began = true,
                        }
                    }
                }
                None if now.saturating_sub(since) >= ANSWERS_WITHIN => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                None => {}
            }
        }
        if *happened && self.began {
            // `next` is one quiet time after the last question.
            let soonest = (*next).saturating_sub(QUIET) + PAUSE;
            *next = (*next).min(soonest.max(now));
        }
        if asked.is_none() && *next <= now {
            questions.send(b"STATUS")?;
            *asked = Some(now);
            *happened = false;
        }
        Ok(turn)
    }
}

impl Drop for Supplicant {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match socket.recv(buffer) {
            Ok(length) => return Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
