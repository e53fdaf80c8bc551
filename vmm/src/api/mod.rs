//! The control socket: Varlink's `jp.sekisho.Machine`, by which a person, or who watches over machines,
//! looks at one and asks it for something.
//!
//! Its connections, their number, size, rate and patience, are [`sekisho_varlink`]'s; a client that hangs
//! or floods costs the main thread some system calls a second. What is asked for is done by a [`Machine`].

pub mod client;
pub mod fuzzing;
mod metrics;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use sekisho_varlink::{About, Answer, Call, Listening, Reply, Service, takes_nothing};
use serde::Serialize;
use serde_json::json;

pub use metrics::open_metrics;

use crate::board::pause::Holder;
use crate::cpu::Count;
use crate::{disk, virtio::net};

/// The interface.
pub const INTERFACE: &str = "jp.sekisho.Machine";

const ABOUT: About = About {
    product: "Sekisho machine",
    version: env!("CARGO_PKG_VERSION"),
    interface: INTERFACE,
    description: include_str!("jp.sekisho.Machine.varlink"),
};

/// The user who may do everything.
const ROOT: u32 = 0;

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// For whom it stands still; nobody: it runs.
    pub held_by: Vec<Holder>,
    /// Time since the VMM started.
    pub age: Duration,
    /// Its processors.
    pub cpus: u8,
    /// Its memory, MiB.
    pub memory_mib: u64,
}

/// What has happened to a machine since the VMM started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What its processors left the guest for.
    pub exits: Vec<Count>,
    /// Its disks.
    pub disks: Vec<disk::Counters>,
    /// Its network cards.
    pub nics: Vec<net::Counters>,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A processor does not come out of the guest.
    DoesNotStop,
    /// There is no such button.
    NoButton,
}

/// What is looked at and asked.
pub trait Machine {
    /// How it is.
    fn state(&self) -> State;
    /// What has happened to it.
    fn statistics(&self) -> Statistics;
    /// Stops every processor.
    fn pause(&mut self) -> Result<(), Refusal>;
    /// Lets it go on.
    fn resume(&mut self);
    /// Presses the power button.
    fn press_power_button(&mut self);
    /// Presses the sleep button.
    fn press_sleep_button(&mut self) -> Result<(), Refusal>;
    /// Resets it.
    fn reset(&mut self);
}

/// The socket.
pub struct ApiSocket {
    listening: Listening,
    /// The VMM's own user once it is closed in.
    user: u32,
}

impl ApiSocket {
    /// Listens at `path`, for a VMM that will be `user`.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn open(path: &Path, user: u32, now: Duration) -> io::Result<Self> {
        // From inside the sandbox the file cannot be removed: the next VMM replaces it.
        let listening = Listening::open(path, None, now)?.left_behind();
        Ok(Self { listening, user })
    }

    /// When [`ApiSocket::turn`] is wanted though the descriptor is silent; a time as given to it.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.listening.due(0, now)
    }

    /// Answers what is asked now, and never waits but for a pause.
    pub fn turn(&mut self, machine: &mut impl Machine, now: Duration) {
        let user = self.user;
        self.listening.turn(&mut Desk { machine, user }, now);
    }
}

impl AsFd for ApiSocket {
    /// Readable when somebody wants something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listening.as_fd()
    }
}

/// What answers calls.
pub struct Desk<'m, M> {
    /// The machine.
    pub machine: &'m mut M,
    /// Who is answered beside root.
    pub user: u32,
}

impl<M: Machine> Service for Desk<'_, M> {
    fn call(&mut self, call: Call, user: u32, _now: Duration) -> Answer {
        Answer::Reply(match ABOUT.method(&call) {
            Err(reply) => reply,
            Ok(_) if user != ROOT && user != self.user => ABOUT.refusal("NotAllowed"),
            Ok(method) => match takes_nothing(&call) {
                Err(reply) => reply,
                Ok(()) => self.perform(method, &call),
            },
        })
    }
}

impl<M: Machine> Desk<'_, M> {
    fn perform(&mut self, method: &str, call: &Call) -> Reply {
        let done = match method {
            "GetState" => return Reply::of(json!({ "state": Told::of(&self.machine.state()) })),
            "GetStatistics" => return statistics(&self.machine.statistics()),
            "GetMetrics" => {
                let text = open_metrics(&self.machine.state(), &self.machine.statistics());
                return Reply::of(json!({ "text": text }));
            }
            "Pause" => self.machine.pause(),
            "Resume" => {
                self.machine.resume();
                Ok(())
            }
            "PowerButton" => {
                self.machine.press_power_button();
                Ok(())
            }
            "SleepButton" => self.machine.press_sleep_button(),
            "Reset" => {
                self.machine.reset();
                Ok(())
            }
            _ => return ABOUT.no_method(call),
        };
        match done {
            Ok(()) => {
                tracing::info!("asked by the control socket: {method}");
                Reply::of(json!({}))
            }
            Err(Refusal::DoesNotStop) => ABOUT.refusal("DoesNotStop"),
            Err(Refusal::NoButton) => ABOUT.refusal("NoButton"),
        }
    }
}

#[derive(Serialize)]
struct Told {
    state: &'static str,
    held_by: Vec<&'static str>,
    age_ms: u64,
    cpus: u8,
    memory_mib: u64,
}

impl Told {
    fn of(state: &State) -> Self {
        let name = |holder: &Holder| match holder {
            Holder::Host => "host",
            Holder::Person => "person",
        };
        Self {
            state: if state.held_by.is_empty() {
                "running"
            } else {
                "paused"
            },
            held_by: state.held_by.iter().map(name).collect(),
            age_ms: u64::try_from(state.age.as_millis()).unwrap_or(u64::MAX),
            cpus: state.cpus,
            memory_mib: state.memory_mib,
        }
    }
}

fn statistics(all: &Statistics) -> Reply {
    let exits: serde_json::Map<_, _> = (all.exits.iter())
        .map(|count| (count.kind.to_owned(), count.exits.into()))
        .collect();
    let disk = |disk: &disk::Counters| {
        json!({
            "reads": disk.reads,
            "writes": disk.writes,
            "flushes": disk.flushes,
            "discards": disk.discards,
            "zeroes": disk.zeroes,
            "errors": disk.errors,
            "bytes_read": disk.bytes_read,
            "bytes_written": disk.bytes_written,
        })
    };
    let nic = |nic: &net::Counters| {
        json!({
            "sent": nic.sent,
            "received": nic.received,
            "dropped_link_down": nic.sent_link_down,
            "dropped_malformed": nic.sent_malformed,
            "dropped_no_room": nic.received_no_room,
            "stalls": nic.stalls,
            "link_losses": nic.link_losses,
            "refused_commands": nic.refused_commands,
        })
    };
    Reply::of(json!({
        "exits": exits,
        "disks": all.disks.iter().map(disk).collect::<Vec<_>>(),
        "nics": all.nics.iter().map(nic).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests;
