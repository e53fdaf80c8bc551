//! The serving end: inside the laptop or the work OS.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{CHUNK, Event, LineReader, Request, Start, Terminal};

/// How long output is waited for after its command ended: a background process that it left may
/// hold the pipe for ever.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_secs(1);

/// A console port whose other end is closed reads as end of file at once, and has no event for
/// "open again" but a new try.
const PORT_CLOSED_PAUSE: Duration = Duration::from_millis(50);

/// Called when the other end wants the machine off.
pub type PowerOff<'a> = &'a dyn Fn();

/// Serves one console port until it cannot be read any more.
///
/// The port may be closed and opened again by the other end; what runs goes on meanwhile.
pub fn serve(mut port: File, power_off: PowerOff<'_>) -> io::Result<()> {
    let server = Server {
        out: Out(Arc::new(Mutex::new(port.try_clone()?))),
        running: Arc::default(),
    };
    server.out.send(&Event::Hello {
        nonce: None,
        uptime_ms: uptime_ms(),
    });
    let mut lines = LineReader::default();
    let mut bytes = vec![0; CHUNK];
    loop {
        match port.read(&mut bytes) {
            Ok(0) => thread::sleep(PORT_CLOSED_PAUSE),
            Ok(length) => lines.push(&bytes[..length], |line| {
                // A line that is no request is the rest of a message that was cut.
                if let Ok(request) = serde_json::from_slice(line) {
                    server.take(request, power_off);
                }
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Server {
    out: Out,
    running: Arc<Mutex<HashMap<u32, Live>>>,
}

/// A command that runs: whom signals reach and where its input goes.
struct Live {
    pid: Pid,
    /// Whether it leads a process group, so that a signal reaches what it started too.
    group: bool,
    stdin: Option<Sender<Vec<u8>>>,
}

impl Server {
    fn take(&self, request: Request, power_off: PowerOff<'_>) {
        match request {
            Request::Sync { nonce } => {
                self.out.send(&Event::Hello {
                    nonce: Some(nonce),
                    uptime_ms: uptime_ms(),
                });
            }
            Request::Start { id, start } => {
                if let Err(error) = self.start(id, &start) {
                    let name = start.argv.first().map_or("(nothing)", String::as_str);
                    let error = format!("cannot start {name}: {error}");
                    self.out.send(&Event::Failed { id, error });
                }
            }
            Request::Stdin { id, data } => {
                let Ok(bytes) = STANDARD.decode(data) else {
                    return;
                };
                if let Some(stdin) = lock(&self.running)
                    .get(&id)
                    .and_then(|live| live.stdin.as_ref())
                {
                    // A command that closed its input is not interested in more.
                    let _ = stdin.send(bytes);
                }
            }
            Request::StdinEnd { id } => {
                if let Some(live) = lock(&self.running).get_mut(&id) {
                    live.stdin = None;
                }
            }
            Request::Signal { id, signal } => {
                let Some(signal) = Signal::from_named_raw(signal) else {
                    return;
                };
                if let Some(live) = lock(&self.running).get(&id) {
                    // It may have ended a moment ago.
                    let _ = if live.group {
                        rustix::process::kill_process_group(live.pid, signal)
                    } else {
                        rustix::process::kill_process(live.pid, signal)
                    };
                }
            }
            Request::PowerOff => power_off(),
        }
    }

    fn start(&self, id: u32, start: &Start) -> io::Result<()> {
        let Born {
            mut child,
            stdin,
            outputs,
            group,
        } = match start.terminal {
            Some(terminal) => on_terminal(start, terminal)?,
            None => on_pipes(start)?,
        };
        let pid = Pid::from_child(&child);
        lock(&self.running).insert(id, Live { pid, group, stdin });
        self.out.send(&Event::Started {
            id,
            pid: child.id(),
        });

        let (done, all_done) = mpsc::sync_channel(outputs.len());
        let pumps = outputs.len();
        for (file, event) in outputs {
            let (out, done) = (self.out.clone(), done.clone());
            thread::spawn(move || pump(id, file, event, &out, &done));
        }
        let (out, running) = (self.out.clone(), Arc::clone(&self.running));
        thread::spawn(move || {
            let status = child.wait();
            for _ in 0..pumps {
                let _ = all_done.recv_timeout(OUTPUT_AFTER_EXIT);
            }
            lock(&running).remove(&id);
            let (code, signal) = status.map_or((None, None), |s| (s.code(), s.signal()));
            out.send(&Event::Exited { id, code, signal });
        });
        Ok(())
    }
}

/// A command just started, with its ends of pipes or terminal.
struct Born {
    child: Child,
    stdin: Option<Sender<Vec<u8>>>,
    outputs: Vec<(Box<dyn Read + Send>, Which)>,
    group: bool,
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

fn on_pipes(start: &Start) -> io::Result<Born> {
    let mut command = command(start, &[])?;
    let input = if start.stdin {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().map(feed);
    let mut outputs: Vec<(Box<dyn Read + Send>, Which)> = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        outputs.push((Box::new(stdout), Which::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push((Box::new(stderr), Which::Stderr));
    }
    Ok(Born {
        child,
        stdin,
        outputs,
        group: true,
    })
}

fn on_terminal(start: &Start, size: Terminal) -> io::Result<Born> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    rustix::termios::tcsetwinsize(
        &master,
        Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    let slave = OpenOptions::new().read(true).write(true).open(name)?;
    // setsid makes the terminal the session's own, so that job control works in a shell.
    let mut command = command(start, &["setsid", "--ctty", "--wait"])?;
    command
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave);
    let child = command.spawn()?;
    drop(command);
    let master = File::from(master);
    let stdin = Some(feed(master.try_clone()?));
    Ok(Born {
        child,
        stdin,
        outputs: vec![(Box::new(master), Which::Stdout)],
        group: false,
    })
}

fn command(start: &Start, before: &[&str]) -> io::Result<Command> {
    let mut words = before
        .iter()
        .copied()
        .chain(start.argv.iter().map(String::as_str));
    let program = words
        .next()
        .ok_or_else(|| io::Error::other("the command has no words"))?;
    let mut command = Command::new(program);
    command
        .args(words)
        .envs(&start.env)
        .current_dir(start.cwd.as_deref().unwrap_or_else(|| "/".as_ref()));
    Ok(command)
}

/// A thread that writes to a command's input, so that a command that does not read does not stop
/// the others.
fn feed(mut to: impl Write + Send + 'static) -> Sender<Vec<u8>> {
    let (sender, receiver): (_, Receiver<Vec<u8>>) = mpsc::channel();
    thread::spawn(move || {
        for bytes in receiver {
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    sender
}

/// Sends what a command prints, until its end of file. A terminal whose last user has gone
/// answers with an error instead.
fn pump(id: u32, mut from: Box<dyn Read + Send>, which: Which, out: &Out, done: &SyncSender<()>) {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => {
                let data = STANDARD.encode(&bytes[..length]);
                out.send(&match which {
                    Which::Stdout => Event::Stdout { id, data },
                    Which::Stderr => Event::Stderr { id, data },
                });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // The receiver may have given up waiting.
    let _ = done.try_send(());
}

/// The way out, shared by all threads: one message at a time.
#[derive(Clone)]
struct Out(Arc<Mutex<File>>);

impl Out {
    fn send(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else {
            return;
        };
        line.push(b'\n');
        // A newline first: whatever was cut before cannot spoil this message.
        line.insert(0, b'\n');
        // Nobody to tell if this fails: the port is the only way out.
        let _ = lock(&self.0).write_all(&line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
