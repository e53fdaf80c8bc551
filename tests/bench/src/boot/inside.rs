//! What runs inside the laptop: starts both VMMs in turn and takes the time.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sekisho_control::{Channel, Report};
use sekisho_lab::hand_over;
use serde::{Deserialize, Serialize};

use super::{START_LIMIT, memory::Resident};
use crate::{BenchError, part};

/// Guest memory in MiB.
const MEMORY: u64 = 256;
/// The kernel's words, for both.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// What the guest's init says, before its uptime in seconds.
const MARK: &str = "UPTIME-AT-INIT ";

/// One start to the end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Boot {
    /// The guest's own time at its init, in seconds.
    pub(super) uptime: f64,
    /// From the start of the process to what init says, in seconds.
    pub(super) to_init: f64,
    /// From the start of the process to its exit, in seconds.
    pub(super) total: f64,
}

/// One start that was looked at and ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Held {
    /// From the start of the process to the guest's first instruction, in seconds, where the VMM
    /// tells.
    pub(super) first_instruction: Option<f64>,
    /// Resident guest memory, in KiB.
    pub(super) guest_kib: f64,
    /// All that is resident beside it, in KiB.
    pub(super) beside_kib: f64,
}

/// What this part prints.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) ours: Vec<Boot>,
    pub(super) peer: Vec<Boot>,
    pub(super) ours_held: Vec<Held>,
    pub(super) peer_held: Vec<Held>,
}

/// The part: `VMM KERNEL INITRD RUNS`, and `CODE VARS` where firmware starts the kernel.
pub fn inside(arguments: &[String]) -> Result<(), BenchError> {
    let (arguments, firmware) = arguments.split_at(arguments.len().min(4));
    let [vmm, kernel, initrd, runs] = arguments else {
        return Err(BenchError::Missing("VMM KERNEL INITRD RUNS".to_owned()));
    };
    let runs: usize = runs
        .parse()
        .map_err(|_| BenchError::Missing("RUNS is a number".to_owned()))?;
    let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
    // Into the laptop's own memory, so that the way to the build machine's disk is not measured.
    let here = |from: &str, name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to)
            .map(|_| to)
            .map_err(BenchError::system(format!("copy {from}")))
    };
    let rig = Rig {
        vmm: here(vmm, "vmm")?,
        kernel: here(kernel, "kernel")?,
        initrd: here(initrd, "initrd")?,
        firmware: match firmware {
            [code, variables] => Some(Firmware {
                code: here(code, "code")?,
                // Each has its own, as each writes to it.
                ours: here(variables, "ours.vars")?,
                peers: here(variables, "peer.vars")?,
            }),
            _ => None,
        },
    };
    let mut measured = Measured::default();
    eprintln!("boot: warming up");
    for vmm in [Vmm::Ours, Vmm::Peer] {
        rig.boot(vmm)?;
    }
    for run in 0..runs {
        eprintln!("boot: run {} of {runs}", run + 1);
        // Whoever goes first goes second in the next run.
        let order = if run % 2 == 0 {
            [Vmm::Ours, Vmm::Peer]
        } else {
            [Vmm::Peer, Vmm::Ours]
        };
        for vmm in order {
            let boot = rig.boot(vmm)?;
            match vmm {
                Vmm::Ours => measured.ours.push(boot),
                Vmm::Peer => measured.peer.push(boot),
            }
        }
    }
    let held = if rig.firmware.is_some() { 0 } else { runs };
    for run in 0..held {
        eprintln!("boot: memory, run {} of {runs}", run + 1);
        measured.ours_held.push(rig.hold(Vmm::Ours)?);
        measured.peer_held.push(rig.hold(Vmm::Peer)?);
    }
    part::tell(&measured)
}

#[derive(Debug, Clone, Copy)]
enum Vmm {
    Ours,
    /// QEMU: `microvm`, or `q35` where firmware starts the kernel.
    Peer,
}

/// Where everything lies in the laptop.
struct Rig {
    vmm: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    firmware: Option<Firmware>,
}

/// The firmware and each VMM's variables.
struct Firmware {
    code: PathBuf,
    ours: PathBuf,
    peers: PathBuf,
}

impl Rig {
    fn command(&self, vmm: Vmm, cmdline: &str) -> Command {
        let mut command;
        match vmm {
            Vmm::Ours => {
                command = Command::new(&self.vmm);
                command
                    .args(["run", "--serial", "stdio", "--cpus", "1", "--memory"])
                    .arg(format!("{MEMORY}M"))
                    .args([Path::new("--kernel"), &self.kernel])
                    .args([Path::new("--initrd"), &self.initrd])
                    .args(["--cmdline", cmdline]);
                if let Some(Firmware { code, ours, .. }) = &self.firmware {
                    let files = format!("code={},vars={}", code.display(), ours.display());
                    command.args(["--firmware", &files]);
                }
            }
            Vmm::Peer => {
                command = Command::new("qemu-system-x86_64");
                command
                    .args([
                        "-M",
                        if self.firmware.is_some() {
                            "q35"
                        } else {
                            "microvm"
                        },
                    ])
                    .args(["-accel", "kvm"])
                    .args(["-cpu", "host,-arch-capabilities", "-smp", "1", "-m"])
                    .arg(MEMORY.to_string())
                    .args(["-nodefaults", "-no-user-config", "-no-reboot"])
                    .args(["-display", "none", "-serial", "stdio"])
                    .args([Path::new("-kernel"), &self.kernel])
                    .args([Path::new("-initrd"), &self.initrd])
                    .args(["-append", cmdline]);
                if let Some(Firmware { code, peers, .. }) = &self.firmware {
                    let flash = |file: &Path, options: &str| {
                        format!("if=pflash,format=raw,file={}{options}", file.display())
                    };
                    command
                        .args(["-drive", &flash(code, ",unit=0,readonly=on")])
                        .args(["-drive", &flash(peers, ",unit=1")]);
                }
            }
        }
        command
            .env("SEKISHO_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    /// From start to exit.
    fn boot(&self, vmm: Vmm) -> Result<Boot, BenchError> {
        let mut machine = Machine::start(self.command(vmm, CMDLINE))?;
        let (to_init, uptime) = machine.await_init()?;
        let total = machine.await_exit()?;
        Ok(Boot {
            uptime,
            to_init: to_init.as_secs_f64(),
            total: total.as_secs_f64(),
        })
    }

    /// From start to init; then the process is looked at and killed.
    fn hold(&self, vmm: Vmm) -> Result<Held, BenchError> {
        let mut command = self.command(vmm, &format!("{CMDLINE} sekisho.hold"));
        let channel = |source| BenchError::Channel {
            process: "the VMM".to_owned(),
            source,
        };
        let mut control = None;
        if matches!(vmm, Vmm::Ours) {
            let (here, there) = sekisho_control::pair().map_err(channel)?;
            let word = hand_over(&mut command, there);
            command.args(["--control", &word]);
            control =
                Some(Channel::<sekisho_control::Command, Report>::from_fd(here).map_err(channel)?);
        }
        let mut machine = Machine::start(command)?;
        let first_instruction = match &control {
            Some(control) => {
                machine.await_readable(control)?;
                let reached = machine.started.elapsed();
                match control.recv().map_err(channel)? {
                    Some(received) if received.message == Report::Ready => {
                        Some(reached.as_secs_f64())
                    }
                    _ => None,
                }
            }
            None => None,
        };
        machine.await_init()?;
        let resident = Resident::of(machine.child.id(), MEMORY)?;
        Ok(Held {
            first_instruction,
            guest_kib: resident.guest_kib,
            beside_kib: resident.beside_kib,
        })
    }
}

/// A VMM that runs; killed when dropped.
struct Machine {
    child: Child,
    stdout: ChildStdout,
    started: Instant,
    said: Vec<u8>,
}

impl Machine {
    fn start(mut command: Command) -> Result<Self, BenchError> {
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(BenchError::system(format!("start {command:?}")))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| BenchError::Missing("a VMM has no standard output".to_owned()))?;
        Ok(Self {
            child,
            stdout,
            started,
            said: Vec::new(),
        })
    }

    /// When init spoke, since the start, and what the guest's clock was.
    fn await_init(&mut self) -> Result<(Duration, f64), BenchError> {
        loop {
            let text = String::from_utf8_lossy(&self.said);
            // A whole line.
            let uptime = text
                .split_once(MARK)
                .and_then(|(_, rest)| rest.split_once('\n'))
                .and_then(|(line, _)| line.split_ascii_whitespace().next()?.parse().ok());
            if let Some(uptime) = uptime {
                return Ok((self.started.elapsed(), uptime));
            }
            if !self.read()? {
                return Err(self.failed("its guest's init never spoke"));
            }
        }
    }

    /// When the process was gone, since the start.
    fn await_exit(&mut self) -> Result<Duration, BenchError> {
        while self.read()? {}
        let status = self.child.wait().map_err(BenchError::system("wait"))?;
        let total = self.started.elapsed();
        if status.success() {
            Ok(total)
        } else {
            Err(self.failed(&status.to_string()))
        }
    }

    /// Reads what there is; false at the end.
    fn read(&mut self) -> Result<bool, BenchError> {
        self.await_readable(&self.stdout)?;
        let mut piece = [0; 4096];
        let length = self
            .stdout
            .read(&mut piece)
            .map_err(BenchError::system("read a VMM's output"))?;
        self.said.extend_from_slice(&piece[..length]);
        Ok(length > 0)
    }

    fn await_readable(&self, source: &impl std::os::fd::AsFd) -> Result<(), BenchError> {
        let left = START_LIMIT.saturating_sub(self.started.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(source, PollFlags::IN)], Some(&timeout)) {
            Ok(1..) => Ok(()),
            Ok(0) => Err(self.failed("it takes too long")),
            Err(error) => Err(BenchError::system("wait for a VMM")(error)),
        }
    }

    fn failed(&self, why: &str) -> BenchError {
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
