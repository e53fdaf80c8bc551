//! What the supervisor tells: one JSON object a line, through a named pipe, so that it can be
//! awaited.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::{CWD, FileType, Mode, mknodat},
};
use serde_json::Value;

/// Events kept; a test of some minutes makes a few thousand.
const MAX_EVENTS: usize = 100_000;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Milliseconds since the supervisor's start.
    pub at_ms: u64,
    /// When it was read here.
    pub read: Instant,
    /// Who said it: `gate`, `uplink`, `vmm`, `supervisor`.
    pub from: String,
    /// All of it.
    pub said: Value,
}

impl Event {
    /// A field as text; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.said
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A field that is true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.said.get(key).and_then(Value::as_bool)
    }

    /// A field that is a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.said.get(key).and_then(Value::as_u64)
    }

    /// Whether it is this report of this process.
    pub fn is(&self, from: &str, report: &str) -> bool {
        self.from == from && self.text("report") == report
    }
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    raw: Vec<String>,
}

/// All events so far.
#[derive(Debug)]
pub struct Events {
    seen: Arc<(Mutex<Seen>, Condvar)>,
    stop: Arc<OwnedFd>,
}

impl Events {
    /// Makes the named pipe and follows it; a copy goes to `log`.
    pub fn follow(pipe: &Path, log: &Path) -> io::Result<Self> {
        mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Open for writing too, so that it never ends while nobody else writes.
        let pipe = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(pipe)?;
        let log = File::create(log)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let (sink, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        thread::Builder::new()
            .name("lab-events".into())
            .spawn(move || read_events(pipe, log, &stopped, &sink))?;
        Ok(Self { seen, stop })
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        self.seen
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .events
            .clone()
    }

    /// How many there are; for [`Events::wait_after`].
    pub fn mark(&self) -> usize {
        self.seen
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .events
            .len()
    }

    /// Waits for an event after `mark` that `wanted` accepts; `None` when the time is up.
    pub fn wait_after(
        &self,
        mark: usize,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Option<Event> {
        let deadline = Instant::now() + limit;
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = mark;
        loop {
            while let Some(event) = seen.events.get(next) {
                if wanted(event) {
                    return Some(event.clone());
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            seen = self
                .seen
                .1
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The last lines, for messages.
    pub fn tail(&self) -> String {
        let seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = seen.raw.len().saturating_sub(15);
        seen.raw[from..].join("\n")
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
    }
}

fn read_events(mut pipe: File, mut log: File, stop: &OwnedFd, sink: &(Mutex<Seen>, Condvar)) {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut fds = [
            PollFd::new(&pipe, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let stopped = !fds[1].revents().is_empty();
        match pipe.read(&mut buffer) {
            Ok(length) => {
                let _ = log.write_all(&buffer[..length]);
                text.extend_from_slice(&buffer[..length]);
                while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    take(&String::from_utf8_lossy(&line), sink);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if stopped {
            return;
        }
    }
}

fn take(line: &str, (seen, news): &(Mutex<Seen>, Condvar)) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.raw.len() >= MAX_EVENTS {
        return;
    }
    seen.raw.push(line.trim_end().to_owned());
    if let Ok(said) = serde_json::from_str::<Value>(line) {
        let event = Event {
            at_ms: said
                .get("at_ms")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
            read: Instant::now(),
            from: said
                .get("from")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            said,
        };
        seen.events.push(event);
    }
    news.notify_all();
}
