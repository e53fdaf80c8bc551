//! A real swtpm with its state in a folder.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// Where a TPM's state outlives its process.
pub(crate) struct Place(TempDir);

impl Place {
    /// A new one; `None` where there is no swtpm, which it says.
    pub(crate) fn new() -> Option<Self> {
        let known = Command::new("swtpm").arg("--version").output().is_ok();
        if sekisho_skip::skip_unless(known, "swtpm is not installed (Debian package swtpm)") {
            return None;
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("control")
    }

    /// Starts it, closed in by its own filter of system calls.
    pub(crate) fn start(&self) -> Process {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--seccomp", "action=kill"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.0.path().display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process { child, socket };
        drop(process.connect());
        process
    }
}

/// A running swtpm.
pub(crate) struct Process {
    child: Child,
    socket: PathBuf,
}

impl Process {
    pub(crate) fn connect(&self) -> OwnedFd {
        let end = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return stream.into(),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end that it comes to by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        while self.running() {
            assert!(Instant::now() < end, "swtpm goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
