//! What the laptop's own processes report, as the supervisor writes it down.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sekisho_control::Report;
use sekisho_laptop::exec::{Running, Said};
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
    pub report: Report,
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
                let said = supervisor.next(Duration::from_secs(3600));
                let mut state = reader.lock();
                match said {
                    Ok(Some(Said::Stdout(bytes))) => {
                        partial.extend(bytes);
                        while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                            let line: Vec<u8> = partial.drain(..=end).collect();
                            if let Ok(event) = serde_json::from_slice(&line) {
                                state.events.push(event);
                            }
                        }
                    }
                    Ok(Some(Said::Stderr(bytes))) => {
                        state.log.push_str(&String::from_utf8_lossy(&bytes));
                        let excess = state.log.len().saturating_sub(LOG_KEPT);
                        let cut = state.log.ceil_char_boundary(excess);
                        state.log.drain(..cut);
                    }
                    Ok(Some(Said::Ended(status))) => state.ended = Some(status.to_string()),
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

    /// Waits for an event after `mark` that `wanted` accepts.
    pub fn wait(
        &self,
        mark: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<Event, StepError> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            let found = state
                .events
                .iter()
                .skip(mark)
                .find(|event| wanted(&event.report));
            if let Some(event) = found {
                return Ok(event.clone());
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

    /// Whether an event after `mark` was accepted by `wanted`.
    pub fn any(&self, mark: usize, wanted: impl Fn(&Report) -> bool) -> bool {
        self.shared
            .lock()
            .events
            .iter()
            .skip(mark)
            .any(|event| wanted(&event.report))
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
            text.push_str(&format!(
                "  {} ms {}: {:?}\n",
                event.at_ms, event.from, event.report
            ));
        }
        let lines: Vec<&str> = self.log.lines().collect();
        for line in &lines[lines.len().saturating_sub(25)..] {
            text.push_str(&format!("  | {line}\n"));
        }
        if let Some(ended) = &self.ended {
            text.push_str(&format!("  the supervisor ended: {ended}\n"));
        }
        text
    }
}
