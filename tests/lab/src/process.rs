//! Children of the lab. One thread starts them all and lives as long as the lab, because Linux ties
//! a child's death signal to the *thread* that made it; their output goes to a file and can be
//! awaited line by line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::CWD,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::LabError;

/// How long after its end what a program said is waited for: a grandchild may keep the pipe open, and what
/// came until then is enough.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Threads named of a command whose time was up.
const MOST_TASKS: usize = 8;
/// Lines kept in memory for [`Process::wait_line`]; the file has them all.
const KEPT_LINES: usize = 20_000;

/// Where `wireguard-go` puts its control socket; each lab sees its own.
const WIREGUARD_RUN: &str = "/run/wireguard";

struct Order {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// The thread that starts children; it ends with the last of its handles.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    orders: Sender<Order>,
    logs: PathBuf,
}

impl Launcher {
    /// Starts the thread in a mount namespace of its own, so that programs with fixed socket paths
    /// can run in several labs at once. Output of the children goes to files in `logs`.
    pub(crate) fn start(logs: &Path) -> Result<Self, LabError> {
        let (orders, inbox) = channel();
        let (ready, started) = sync_channel(1);
        thread::Builder::new()
            .name("lab-launcher".into())
            .spawn(move || {
                let result = own_mounts();
                let failed = result.is_err();
                let _ = ready.send(result);
                if !failed {
                    launch(&inbox);
                }
            })
            .map_err(LabError::io("start the launcher thread"))?;
        started
            .recv()
            .map_err(|_| LabError::Lost {
                what: "the launcher thread".into(),
            })?
            .map_err(LabError::io("give the lab its own mounts"))?;
        Ok(Self {
            orders,
            logs: logs.to_path_buf(),
        })
    }

    fn child(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = sync_channel(1);
        let gone = || io::Error::other("the launcher thread is gone");
        self.orders
            .send(Order { command, reply })
            .map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Starts `command` as a child that lives on; both its outputs go to `logs/NAME.log`.
    pub(crate) fn spawn(&self, name: &str, mut command: Command) -> Result<Process, LabError> {
        let failed = |source| LabError::Start {
            program: name.to_owned(),
            command: format!("{command:?}"),
            source,
        };
        let path = self.logs.join(format!("{name}.log"));
        let (reader, writer) = io::pipe().map_err(failed)?;
        let second = writer.try_clone().map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(second).stderr(writer);
        let child = self.child(command).map_err(|source| LabError::Start {
            program: name.to_owned(),
            command: shown,
            source,
        })?;
        let log = Arc::new(Log::default());
        let sink = Arc::clone(&log);
        thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || sink.follow(reader, file))
            .map_err(LabError::io("start a log thread"))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|source| {
            LabError::Io {
                doing: "watch a child".into(),
                source: source.into(),
            }
        })?;
        Ok(Process {
            name: name.to_owned(),
            child,
            pidfd,
            log,
            path,
        })
    }

    /// Runs `command` to its end, at most for `limit`.
    pub(crate) fn run(&self, mut command: Command, limit: Duration) -> Result<Output, LabError> {
        let shown = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.child(command).map_err(|source| LabError::Start {
            program: "a command".into(),
            command: shown.clone(),
            source,
        })?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|source| {
            LabError::Io {
                doing: "watch a child".into(),
                source: source.into(),
            }
        })?;
        let status = wait_until(&mut child, pidfd.as_fd(), Instant::now() + limit)
            .map_err(LabError::io("wait for a command"))?;
        let mut timed_out = None;
        let status = if let Some(status) = status {
            status
        } else {
            timed_out = Some(whereabouts(child.id()));
            let _ = child.kill();
            child.wait().map_err(LabError::io("wait for a command"))?
        };
        let text = |from: Receiver<Vec<u8>>| {
            from.recv_timeout(LAST_WORDS)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        Ok(Output {
            command: shown,
            status,
            timed_out,
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (done, text) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = done.send(bytes);
    });
    text
}

fn own_mounts() -> io::Result<()> {
    std::fs::create_dir_all(WIREGUARD_RUN)?;
    // SAFETY: only this thread's view of the file system and its mounts change; its descriptor
    // table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS)? };
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("lab", WIREGUARD_RUN, "tmpfs", MountFlags::empty(), None)?;
    Ok(())
}

fn launch(inbox: &Receiver<Order>) {
    while let Ok(mut order) = inbox.recv() {
        let _ = order.reply.send(order.command.spawn());
    }
}

/// What the threads of a process are at: `NAME in FUNCTION OF THE KERNEL (state)`.
fn whereabouts(process: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten().map(|task| {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        // The name, in brackets, may have spaces; the state is the first word behind it.
        let state = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().next());
        let (name, function) = (read("comm"), read("wchan"));
        format!(
            "{} in {function} ({})",
            name.trim_end(),
            state.unwrap_or("gone")
        )
    });
    let tasks: Vec<_> = tasks.take(MOST_TASKS).collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{}; load {}", tasks.join(", "), load.trim_end())
}

fn wait_until(
    child: &mut Child,
    pidfd: impl AsFd,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// It was killed because its time was up, and what each of its threads was at.
    pub timed_out: Option<String>,
    /// Standard output, lossy UTF-8.
    pub stdout: String,
    /// Standard error, lossy UTF-8.
    pub stderr: String,
}

impl Output {
    /// Whether the command ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.timed_out.is_none() && self.status.success()
    }

    /// The output if the command succeeded, else an error that shows all it said.
    pub fn ok(self) -> Result<Self, LabError> {
        if self.success() {
            Ok(self)
        } else {
            Err(LabError::Command(Box::new(self)))
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if let Some(at) = &self.timed_out {
            format!("timed out, at {at}")
        } else {
            self.status.to_string()
        };
        write!(
            f,
            "{} ({how})\n{}{}",
            self.command, self.stdout, self.stderr
        )
    }
}

#[derive(Debug, Default)]
struct Lines {
    seen: Vec<String>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    news: Condvar,
}

impl Log {
    /// Waits until nobody can say anything any more.
    fn wait_ended(&self, limit: Duration) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _ended = self
            .news
            .wait_timeout_while(lines, limit, |lines| !lines.ended)
            .unwrap_or_else(PoisonError::into_inner);
    }

    fn follow(&self, from: impl Read, mut file: File) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let _ = file.write_all(&line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.seen.len() < KEPT_LINES {
                lines.seen.push(text);
            }
            self.news.notify_all();
        }
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.news.notify_all();
    }
}

/// A child that lives on; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    log: Arc<Log>,
    path: PathBuf,
}

impl Process {
    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that both outputs go to.
    pub fn log(&self) -> &Path {
        &self.path
    }

    /// All lines of output so far.
    pub fn lines(&self) -> Vec<String> {
        self.log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seen
            .clone()
    }

    /// Waits until a line of output (an old one too) makes `found` give a value.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, LabError> {
        self.wait_after(0, what, limit, found)
    }

    /// How many lines of output there are; for [`Process::wait_after`].
    pub fn mark(&self) -> usize {
        self.log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seen
            .len()
    }

    /// Like [`Process::wait_for`], for the lines after `mark`.
    pub fn wait_after<T>(
        &self,
        mark: usize,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, LabError> {
        let deadline = Instant::now() + limit;
        let mut next = mark;
        let mut lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            while next < lines.seen.len() {
                if let Some(value) = found(&lines.seen[next]) {
                    return Ok(value);
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                let from = lines.seen.len().saturating_sub(12);
                return Err(LabError::NotReady {
                    program: self.name.clone(),
                    waited_for: what.to_owned(),
                    log: self.path.clone(),
                    last: lines.seen[from..].join("\n"),
                });
            }
            lines = self
                .log
                .news
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for a line of output that contains `needle`.
    pub fn wait_line(&self, needle: &str, limit: Duration) -> Result<String, LabError> {
        self.wait_for(needle, limit, |line| {
            line.contains(needle).then(|| line.to_owned())
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Waits for the end, at most for `limit`; after it, its last lines are there.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let ended = match self.child.try_wait()? {
            Some(status) => Some(status),
            None => wait_until(&mut self.child, &self.pidfd, Instant::now() + limit)?,
        };
        if ended.is_some() {
            self.log.wait_ended(LAST_WORDS);
        }
        Ok(ended)
    }

    /// Asks the process to end, waits, and kills it if it does not.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> io::Result<()> {
        let _ = self.signal(signal);
        if self.wait(limit)?.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `program` can be found on the search path, `/usr/sbin` and `/sbin` included.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| {
            rustix::fs::accessat(
                CWD,
                file,
                rustix::fs::Access::EXEC_OK,
                rustix::fs::AtFlags::empty(),
            )
            .is_ok()
        })
}
