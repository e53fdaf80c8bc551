//! What the laptop's own processes report, as the supervisor writes it down.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sekisho_control::Report;
use serde::Deserialize;

use super::StepError;

/// One line of the supervisor's event stream.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Milliseconds since the laptop's kernel started.
    pub at_ms: u64,
    /// Which process said it.
    pub from: String,
    /// What it said.
    #[serde(flatten)]
    pub report: Said,
}

/// What an event tells.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// A process reported.
    Report(Report),
    /// The supervisor started a process.
    Started {
        /// Its role.
        process: String,
        /// Its id in the laptop.
        pid: u32,
    },
    /// Something else of the supervisor's own.
    Other {
        /// What.
        report: String,
    },
}

/// The supervisor's last word.
const ENDED: &str = "ended";

/// All events so far, and those to come.
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    log: PathBuf,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    ended: bool,
}

impl Events {
    /// Reads the supervisor's events from the far end of their console port. `log` is the file that
    /// the words of all processes go to.
    pub fn follow(port: UnixStream, log: PathBuf) -> Self {
        let shared = Arc::new(Shared {
            log,
            ..Shared::default()
        });
        let reader = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(port).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str::<Event>(&line) {
                    let mut state = reader.lock();
                    state.ended |=
                        matches!(&event.report, Said::Other { report } if report == ENDED);
                    state.events.push(event);
                    reader.news.notify_all();
                }
            }
            reader.lock().ended = true;
            reader.news.notify_all();
        });
        Self { shared }
    }

    /// How many events there are: a mark for [`Events::wait`].
    pub fn mark(&self) -> usize {
        self.shared.lock().events.len()
    }

    /// Waits for a report after `mark` that `wanted` accepts; gives its time, in milliseconds
    /// since the laptop's kernel started, too.
    pub fn wait(
        &self,
        mark: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<(u64, Report), StepError> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            let mut events = state.events.iter().skip(mark);
            let found = events.find_map(|event| match &event.report {
                Said::Report(report) if wanted(report) => Some((event.at_ms, report.clone())),
                _ => None,
            });
            if let Some(found) = found {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                let what = what.to_owned();
                return Err(StepError::Missing {
                    what,
                    limit,
                    last: self.shared.tail(&state),
                });
            }
            state = self
                .shared
                .news
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// The id of the running process of that role.
    pub fn pid(&self, role: &str) -> Option<u32> {
        self.shared
            .lock()
            .events
            .iter()
            .rev()
            .find_map(|event| match &event.report {
                Said::Started { process, pid } if process == role => Some(*pid),
                _ => None,
            })
    }

    /// The last events and the end of the log, for messages.
    pub fn tail(&self) -> String {
        self.shared.tail(&self.shared.lock())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self, state: &State) -> String {
        let first = state.events.len().saturating_sub(12);
        let mut text = String::new();
        for event in &state.events[first..] {
            let Event {
                at_ms,
                from,
                report,
            } = event;
            let _ = writeln!(text, "  {at_ms} ms {from}: {report:?}");
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(25)..] {
            let _ = writeln!(text, "  | {line}");
        }
        if state.ended {
            text.push_str("  the supervisor has ended\n");
        }
        text
    }
}
