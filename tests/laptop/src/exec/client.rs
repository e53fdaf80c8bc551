//! The asking end: in the test harness.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{CHUNK, Event, LineReader, Request, Start};

/// What can go wrong between a test and a command in the machine.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Nobody answered in time.
    #[error("no answer over the exec channel within {0:?}")]
    Silent(Duration),
    /// The stream ended: the machine is gone.
    #[error("the exec channel closed: the machine is gone")]
    Closed,
    /// The machine began anew while the command ran.
    #[error("the machine restarted and took the command with it")]
    Restarted,
    /// The command did not start.
    #[error("{0}")]
    NotStarted(String),
    /// The command ran longer than allowed; it was killed.
    #[error("the command still ran after {limit:?} and was killed; so far it said:\n{said}")]
    TooSlow {
        /// What was allowed.
        limit: Duration,
        /// Its output so far.
        said: String,
    },
    /// The stream could not be written or set up.
    #[error("the exec channel failed")]
    Io(#[from] io::Error),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Status {
    /// Whether it ended by itself with 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// The number that a shell would show: the exit status, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit status {code}"),
            (None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (None, None) => write!(f, "ended in an unknown way"),
        }
    }
}

/// A command's end and all that it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Both outputs as text, for messages.
    pub fn said(&self) -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr)
        )
    }
}

/// A connection to the exec channel's server. Clones share it.
#[derive(Debug, Clone)]
pub struct ExecClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    out: Mutex<UnixStream>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    closed: bool,
    running: HashMap<u32, Sender<Event>>,
    /// Who waits for a hello.
    greeted: Vec<Sender<Event>>,
    /// The first hello may come before anybody waits.
    hello: Option<Event>,
}

impl ExecClient {
    /// Takes a connected stream. Does not wait: see [`ExecClient::hello`].
    pub fn new(stream: UnixStream) -> Result<Self, ExecError> {
        let reader = stream.try_clone()?;
        let shared = Arc::new(Shared {
            out: Mutex::new(stream),
            state: Mutex::new(State::default()),
        });
        let weak = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("exec-client".into())
            .spawn(move || {
                read_events(reader, |event| match weak.upgrade() {
                    Some(shared) => {
                        shared.take(event);
                        true
                    }
                    None => false,
                });
                if let Some(shared) = weak.upgrade() {
                    shared.close();
                }
            })?;
        Ok(Self { shared })
    }

    /// Waits until the server has said hello; returns the machine's uptime then.
    pub fn hello(&self, limit: Duration) -> Result<Duration, ExecError> {
        let waiting = {
            let mut state = lock(&self.shared.state);
            if let Some(Event::Hello { uptime_ms, .. }) = state.hello {
                return Ok(Duration::from_millis(uptime_ms));
            }
            if state.closed {
                return Err(ExecError::Closed);
            }
            let (sender, receiver) = mpsc::channel();
            state.greeted.push(sender);
            receiver
        };
        wait_hello(&waiting, limit)
    }

    /// Asks for a hello and waits for it: a round trip that proves that the server is alive now.
    pub fn sync(&self, limit: Duration) -> Result<Duration, ExecError> {
        let waiting = {
            let mut state = lock(&self.shared.state);
            let (sender, receiver) = mpsc::channel();
            state.greeted.push(sender);
            receiver
        };
        self.shared.send(&Request::Sync { nonce: 0 })?;
        wait_hello(&waiting, limit)
    }

    /// Starts a command and does not wait for it.
    pub fn spawn(&self, start: Start) -> Result<Running, ExecError> {
        let (sender, events) = mpsc::channel();
        let id = {
            let mut state = lock(&self.shared.state);
            if state.closed {
                return Err(ExecError::Closed);
            }
            state.next += 1;
            let id = state.next;
            state.running.insert(id, sender);
            id
        };
        self.shared.send(&Request::Start { id, start })?;
        Ok(Running {
            id,
            events,
            shared: Arc::clone(&self.shared),
            ended: None,
        })
    }

    /// Runs a command to its end.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Output, ExecError> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.spawn(Start {
            argv,
            ..Start::default()
        })?
        .output(limit)
    }

    /// Asks the machine to switch itself off. The stream's end tells that it did.
    pub fn power_off(&self) -> Result<(), ExecError> {
        self.shared.send(&Request::PowerOff)
    }
}

impl Shared {
    fn send(&self, request: &Request) -> Result<(), ExecError> {
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, request).map_err(io::Error::other)?;
        line.push(b'\n');
        lock(&self.out).write_all(&line)?;
        Ok(())
    }

    fn take(&self, event: Event) {
        let mut state = lock(&self.state);
        let id = match &event {
            Event::Hello { nonce, .. } => {
                if nonce.is_none() && state.hello.is_some() {
                    // A new server: the machine restarted. Dropping the senders ends the waits.
                    state.running.clear();
                }
                for waiting in state.greeted.drain(..) {
                    // Who gave up waiting is not interested any more.
                    let _ = waiting.send(event.clone());
                }
                state.hello = Some(event);
                return;
            }
            Event::Started { id, .. }
            | Event::Failed { id, .. }
            | Event::Stdout { id, .. }
            | Event::Stderr { id, .. }
            | Event::Exited { id, .. } => *id,
        };
        let last = matches!(event, Event::Failed { .. } | Event::Exited { .. });
        if let Some(running) = state.running.get(&id) {
            // A dropped `Running` does not listen.
            let _ = running.send(event);
        }
        if last {
            state.running.remove(&id);
        }
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.running.clear();
        state.greeted.clear();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Wakes the reading thread; the other end may have closed already.
        let stream = self.out.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Something that a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended.
    Ended(Status),
}

/// A command that runs in the machine. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running {
    id: u32,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    ended: Option<Status>,
}

impl Running {
    /// Waits for the next thing that the command does; `None` if it did nothing within `limit`.
    /// After [`Said::Ended`] it answers the same again.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Said>, ExecError> {
        if let Some(status) = self.ended {
            return Ok(Some(Said::Ended(status)));
        }
        let deadline = Instant::now() + limit;
        loop {
            let event = match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    let closed = lock(&self.shared.state).closed;
                    return Err(if closed {
                        ExecError::Closed
                    } else {
                        ExecError::Restarted
                    });
                }
            };
            match event {
                Event::Stdout { data, .. } => return Ok(Some(Said::Stdout(decode(&data)))),
                Event::Stderr { data, .. } => return Ok(Some(Said::Stderr(decode(&data)))),
                Event::Exited { code, signal, .. } => {
                    let status = Status { code, signal };
                    self.ended = Some(status);
                    return Ok(Some(Said::Ended(status)));
                }
                Event::Failed { error, .. } => {
                    self.ended = Some(Status {
                        code: Some(127),
                        signal: None,
                    });
                    return Err(ExecError::NotStarted(error));
                }
                Event::Started { .. } | Event::Hello { .. } => {}
            }
        }
    }

    /// Waits for the command's end and gives all its output. It is killed after `limit`.
    pub fn output(mut self, limit: Duration) -> Result<Output, ExecError> {
        let deadline = Instant::now() + limit;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Some(Said::Stdout(bytes)) => stdout.extend(bytes),
                Some(Said::Stderr(bytes)) => stderr.extend(bytes),
                Some(Said::Ended(status)) => {
                    return Ok(Output {
                        status,
                        stdout,
                        stderr,
                    });
                }
                None => {
                    stdout.extend(stderr);
                    let said = String::from_utf8_lossy(&stdout).into_owned();
                    return Err(ExecError::TooSlow { limit, said });
                }
            }
        }
    }

    /// Waits until the command's standard output holds `needle`; gives what it printed until
    /// then, whole reads. For "the server is listening" and its like.
    pub fn wait_for(&mut self, needle: &str, limit: Duration) -> Result<String, ExecError> {
        let deadline = Instant::now() + limit;
        let mut said = String::new();
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Some(Said::Stdout(bytes) | Said::Stderr(bytes)) => {
                    said.push_str(&String::from_utf8_lossy(&bytes));
                    if said.contains(needle) {
                        return Ok(said);
                    }
                }
                Some(Said::Ended(status)) => {
                    let error = format!("it ended ({status}) before it said {needle:?}:\n{said}");
                    return Err(ExecError::NotStarted(error));
                }
                None => return Err(ExecError::TooSlow { limit, said }),
            }
        }
    }

    /// Sends bytes to its standard input.
    pub fn write(&self, bytes: &[u8]) -> Result<(), ExecError> {
        self.input().write(bytes)
    }

    /// A second hand on its standard input, for another thread.
    pub fn input(&self) -> Input {
        Input {
            id: self.id,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Sends it (and what it started) a signal.
    pub fn signal(&self, signal: i32) -> Result<(), ExecError> {
        self.shared.send(&Request::Signal {
            id: self.id,
            signal,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Best effort: the machine may be gone.
            let _ = self.signal(9);
        }
        lock(&self.shared.state).running.remove(&self.id);
    }
}

/// A command's standard input.
#[derive(Debug)]
pub struct Input {
    id: u32,
    shared: Arc<Shared>,
}

impl Input {
    /// Sends bytes.
    pub fn write(&self, bytes: &[u8]) -> Result<(), ExecError> {
        for chunk in bytes.chunks(CHUNK) {
            self.shared.send(&Request::Stdin {
                id: self.id,
                data: STANDARD.encode(chunk),
            })?;
        }
        Ok(())
    }

    /// Tells the command that no more comes.
    pub fn end(&self) -> Result<(), ExecError> {
        self.shared.send(&Request::StdinEnd { id: self.id })
    }
}

fn read_events(mut stream: UnixStream, mut each: impl FnMut(Event) -> bool) {
    let mut lines = LineReader::default();
    let mut bytes = vec![0; CHUNK];
    let mut go_on = true;
    while go_on {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => lines.push(&bytes[..length], |line| {
                // A line that is no event is the rest of a message that was cut.
                if let Ok(event) = serde_json::from_slice(line) {
                    go_on &= each(event);
                }
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

fn wait_hello(waiting: &Receiver<Event>, limit: Duration) -> Result<Duration, ExecError> {
    match waiting.recv_timeout(limit) {
        Ok(Event::Hello { uptime_ms, .. }) => Ok(Duration::from_millis(uptime_ms)),
        Ok(_) | Err(RecvTimeoutError::Disconnected) => Err(ExecError::Closed),
        Err(RecvTimeoutError::Timeout) => Err(ExecError::Silent(limit)),
    }
}

fn decode(data: &str) -> Vec<u8> {
    STANDARD.decode(data).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
