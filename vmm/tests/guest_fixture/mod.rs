//! Guests of a few instructions, and the program that runs them.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(
    clippy::unwrap_used,
    reason = "part of tests, where a surprise ends the test"
)]

pub mod code;
pub mod kernel;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use sekisho_control::{Channel, Command as Order, Report};
use tempfile::TempDir;

use code::Code;

/// A guest of a few instructions takes milliseconds; a loaded machine that interprets it takes a
/// second or two.
const LIMIT: Duration = Duration::from_secs(30);

/// A folder with a kernel in it.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    /// A folder with `code` as a bzImage; `None` where guests cannot run, which it says.
    pub fn new(code: &Code) -> Option<Self> {
        Self::with_kernel(&kernel::bz_image(&code.0))
    }

    /// As [`Bench::new`], with this file as the kernel.
    pub fn with_kernel(file: &[u8]) -> Option<Self> {
        let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
        if let Err(error) = &kvm {
            sekisho_skip::skip(format!("/dev/kvm cannot be opened: {error}"));
            return None;
        }
        let root = rustix::process::geteuid().is_root();
        if sekisho_skip::skip_unless(root, "the sandbox needs root") {
            return None;
        }
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(bench.path("kernel"), file).unwrap();
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that runs the kernel, with COM1 into a file.
    pub fn command(&self) -> Command {
        let mut command = self.command_without_serial();
        command
            .arg("--serial")
            .arg(format!("file={}", self.path("serial").display()));
        command
    }

    pub fn command_without_serial(&self) -> Command {
        let mut command = vmm();
        command
            .args(["run", "--memory", "32M", "--kernel"])
            .arg(self.path("kernel"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// What the guest wrote to COM1.
    pub fn serial(&self) -> Vec<u8> {
        fs::read(self.path("serial")).unwrap_or_default()
    }

    /// Runs the guest to its end: exit status and what it wrote to COM1.
    pub fn run(&self, command: &mut Command) -> (i32, Vec<u8>) {
        let output = wait(command.spawn().unwrap());
        let code = output.status.code().unwrap_or(-1);
        if code == 1 {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        (code, self.serial())
    }
}

pub fn vmm() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sekisho-vmm"))
}

/// Waits for the end, and brings it about where it does not come.
pub fn wait(mut child: Child) -> Output {
    let end = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A guest with the supervisor's channel.
pub struct Watched {
    pub bench: Bench,
    pub child: Child,
    pub supervisor: Channel<Order, Report>,
}

impl Watched {
    /// Starts a guest of this code, with `more` options, up to its first instruction; `None` where
    /// guests cannot run.
    pub fn start(code: &Code, more: &[&str]) -> Option<Self> {
        let bench = Bench::new(code)?;
        let (ours, theirs) = sekisho_control::pair().unwrap();
        let child = inheriting(bench.command().args(more), &theirs, "--control");
        drop(theirs);
        let guest = Self {
            bench,
            child,
            supervisor: Channel::from_fd(ours).unwrap(),
        };
        assert_eq!(guest.next(), Report::Ready);
        Some(guest)
    }

    /// Starts a guest that waits for the power button and then switches itself off.
    pub fn patient(more: &[&str]) -> Option<Self> {
        let code = Code::default()
            .wait_for(code::PM1_STATUS, code::POWER_BUTTON)
            .switch_off();
        Self::start(&code, more)
    }

    pub fn next(&self) -> Report {
        let mut fd = [rustix::event::PollFd::new(
            &self.supervisor,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec::try_from(LIMIT).unwrap();
        assert_ne!(rustix::event::poll(&mut fd, Some(&limit)).unwrap(), 0);
        self.supervisor.recv().unwrap().unwrap().message
    }

    pub fn assert_shut_down(&self) {
        let cause = "shutdown".to_owned();
        assert_eq!(self.next(), Report::WorkEnded { cause });
    }
}

/// Starts `command` with `option fd:N` for a descriptor that it inherits.
fn inheriting(command: &mut Command, fd: &OwnedFd, option: &str) -> Child {
    // A duplicate without close-on-exec; other tests' children may inherit it too, which is no
    // harm: it closes with them.
    let copy = rustix::io::dup(fd).unwrap();
    rustix::io::fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    let word = format!("fd:{}", copy.as_raw_fd());
    command.args([option, &word]).spawn().unwrap()
}
