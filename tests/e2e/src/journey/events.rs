//! What the laptop's own processes report, as the supervisor writes it down.

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sekisho_control::Report;
use sekisho_laptop::exec::{self, Running};
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
    Other {},
}

/// All events so far, and those to come.
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    log: String,
    ended: Option<String>,
}

/// A read that ends without news; then the next one begins.
const QUIET: Duration = Duration::from_mins(1);

/// How much of the processes' own words is kept for messages.
const LOG_KEPT: usize = 64 * 1024;

impl Events {
    /// Reads the supervisor's standard output (events) and standard error (its log).
    pub fn follow(mut supervisor: Running) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        thread::spawn(move || {
            let mut partial = Vec::new();
            loop {
                let said = supervisor.next(QUIET);
                let mut state = reader.lock();
                match said {
                    Ok(Some(exec::Said::Stdout(bytes))) => {
                        partial.extend(bytes);
                        while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                            let line: Vec<u8> = partial.drain(..=end).collect();
                            if let Ok(event) = serde_json::from_slice(&line) {
                                state.events.push(event);
                            }
                        }
                    }
                    Ok(Some(exec::Said::Stderr(bytes))) => {
                        state.log.push_str(&String::from_utf8_lossy(&bytes));
                        let excess = state.log.len().saturating_sub(LOG_KEPT);
                        let cut = state.log.ceil_char_boundary(excess);
                        state.log.drain(..cut);
                    }
                    Ok(Some(exec::Said::Ended(status))) => state.ended = Some(status.to_string()),
                    Ok(None) => {}
                    Err(error) => state.ended = Some(error.to_string()),
                }
                reader.news.notify_all();
                if state.ended.is_some() {
                    break;
                }
            }
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
            if left.is_zero() || state.ended.is_some() {
                let what = what.to_owned();
                return Err(StepError::Missing {
                    what,
                    limit,
                    last: state.tail(),
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

    /// Waits until the supervisor has ended; gives how.
    pub fn wait_end(&self, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while state.ended.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self
                .shared
                .news
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        state.ended.clone()
    }

    /// The last events and the end of the log, for messages.
    pub fn tail(&self) -> String {
        self.shared.lock().tail()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tail(&self) -> String {
        let first = self.events.len().saturating_sub(12);
        let mut text = String::new();
        for event in &self.events[first..] {
            let Event {
                at_ms,
                from,
                report,
            } = event;
            let _ = writeln!(text, "  {at_ms} ms {from}: {report:?}");
        }
        let lines: Vec<&str> = self.log.lines().collect();
        for line in &lines[lines.len().saturating_sub(25)..] {
            let _ = writeln!(text, "  | {line}");
        }
        if let Some(ended) = &self.ended {
            let _ = writeln!(text, "  the supervisor ended: {ended}");
        }
        text
    }
}
