//! A VMM inside the laptop, ours or QEMU, whose guest speaks on its serial port.

use std::{
    io::{Read as _, Write as _},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::BenchError;

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Ours,
    /// QEMU.
    Peer,
}

impl Vmm {
    /// Both; whoever goes first goes second in the next run.
    pub(crate) fn in_turn(run: usize) -> [Self; 2] {
        if run.is_multiple_of(2) {
            [Self::Ours, Self::Peer]
        } else {
            [Self::Peer, Self::Ours]
        }
    }
}

/// Our VMM at `program`: one processor, `memory` MiB, COM1 on standard input and output.
pub(crate) fn ours(program: &Path, memory: u64) -> Command {
    let mut command = Command::new(program);
    command
        .args(["run", "--serial", "stdio", "--cpus", "1", "--memory"])
        .arg(format!("{memory}M"))
        .env("SEKISHO_LOG", "warn");
    command
}

/// The same by QEMU's `machine`, by KVM.
pub(crate) fn peer(machine: &str, memory: u64) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", machine, "-accel", "kvm"])
        .args(["-cpu", "host,-arch-capabilities", "-smp", "1", "-m"])
        .arg(memory.to_string())
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"]);
    command
}

/// What it starts.
pub(crate) fn kernel(command: &mut Command, vmm: Vmm, kernel: &Path, initrd: &Path, cmdline: &str) {
    let words = match vmm {
        Vmm::Ours => ["--kernel", "--initrd", "--cmdline"],
        Vmm::Peer => ["-kernel", "-initrd", "-append"],
    };
    command
        .args([Path::new(words[0]), kernel])
        .args([Path::new(words[1]), initrd])
        .args([words[2], cmdline]);
}

/// Our firmware, with this machine's own variables.
pub(crate) fn our_firmware(command: &mut Command, code: &Path, variables: &Path) {
    let files = format!("code={},vars={}", code.display(), variables.display());
    command.args(["--firmware", &files]);
}

/// QEMU's firmware, with this machine's own variables.
pub(crate) fn peers_firmware(command: &mut Command, code: &Path, variables: &Path) {
    let flash = |file: &Path, options: &str| {
        format!("if=pflash,format=raw,file={}{options}", file.display())
    };
    command
        .args(["-drive", &flash(code, ",unit=0,readonly=on")])
        .args(["-drive", &flash(variables, ",unit=1")]);
}

/// Copies a file to a place in the laptop, so that the way to the build machine's disk is not measured.
pub(crate) fn copy(from: &str, to: &Path) -> Result<PathBuf, BenchError> {
    std::fs::copy(from, to)
        .map(|_| to.to_owned())
        .map_err(BenchError::system(format!("copy {from}")))
}

/// A VMM that runs; killed when dropped.
pub(crate) struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    started: Instant,
    /// How long anything may take that is waited for.
    limit: Duration,
    said: Vec<u8>,
    /// How much of what it said was looked at and has been answered.
    seen: usize,
}

impl Machine {
    /// Starts it.
    pub(crate) fn start(command: &mut Command, limit: Duration) -> Result<Self, BenchError> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(BenchError::system(format!("start {command:?}")))?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| BenchError::Missing("a VMM has no standard output".to_owned()))?;
        Ok(Self {
            child,
            stdin,
            stdout,
            started,
            limit,
            said: Vec::new(),
            seen: 0,
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Time since its start.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Types a line on the guest's serial port.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<(), BenchError> {
        let Some(stdin) = &mut self.stdin else {
            return Err(self.failed("it has no standard input"));
        };
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .map_err(BenchError::system("type into a guest"))
    }

    /// Waits until the guest has said `mark` and the rest of that line: when that was, since the start,
    /// and the rest.
    pub(crate) fn await_line(&mut self, mark: &str) -> Result<(Duration, String), BenchError> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some((rest, length)) = line_behind(&self.said[self.seen..], mark) {
                self.seen += length;
                return Ok((self.age(), rest));
            }
            if !self.read(deadline)? {
                return Err(self.failed(&format!("its guest never said {mark}")));
            }
        }
    }

    /// When the process was gone, since the start.
    pub(crate) fn await_exit(&mut self) -> Result<Duration, BenchError> {
        let deadline = Instant::now() + self.limit;
        while self.read(deadline)? {}
        let status = self.child.wait().map_err(BenchError::system("wait"))?;
        let total = self.age();
        if status.success() {
            Ok(total)
        } else {
            Err(self.failed(&status.to_string()))
        }
    }

    /// Reads what there is; false at the end.
    fn read(&mut self, deadline: Instant) -> Result<bool, BenchError> {
        self.poll(&self.stdout, deadline)?;
        let mut piece = [0; 4096];
        let length = self
            .stdout
            .read(&mut piece)
            .map_err(BenchError::system("read a VMM's output"))?;
        self.said.extend_from_slice(&piece[..length]);
        Ok(length > 0)
    }

    /// Waits for something that belongs to it.
    pub(crate) fn await_readable(&self, source: &impl AsFd) -> Result<(), BenchError> {
        self.poll(source, Instant::now() + self.limit)
    }

    fn poll(&self, source: &impl AsFd, deadline: Instant) -> Result<(), BenchError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(source, PollFlags::IN)], Some(&timeout)) {
            Ok(1..) => Ok(()),
            Ok(0) => Err(self.failed("it takes too long")),
            Err(error) => Err(BenchError::system("wait for a VMM")(error)),
        }
    }

    /// An error, with what it said.
    pub(crate) fn failed(&self, why: &str) -> BenchError {
        BenchError::Program {
            program: "a VMM in the laptop".to_owned(),
            said: format!("{why}\n{}", String::from_utf8_lossy(&self.said)),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands behind `mark` in a line that is whole, and the length of everything up to its end.
fn line_behind(said: &[u8], mark: &str) -> Option<(String, usize)> {
    let at = said
        .windows(mark.len())
        .position(|window| window == mark.as_bytes())?;
    let rest = said.get(at + mark.len()..)?;
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    let line = String::from_utf8_lossy(&rest[..length]).trim().to_owned();
    Some((line, at + mark.len() + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_once_it_is_whole() {
        let said = b"noise\r\n[1] MARK 1.5 2\r\nMARK 3\r\nMARK";
        let (line, length) = line_behind(said, "MARK ").unwrap();
        assert_eq!(line, "1.5 2");
        let (next, more) = line_behind(&said[length..], "MARK ").unwrap();
        assert_eq!(next, "3");
        assert_eq!(line_behind(&said[length + more..], "MARK"), None);
    }

    #[test]
    fn both_are_first_in_turn() {
        assert_eq!(Vmm::in_turn(0), [Vmm::Ours, Vmm::Peer]);
        assert_eq!(Vmm::in_turn(1), [Vmm::Peer, Vmm::Ours]);
    }
}
