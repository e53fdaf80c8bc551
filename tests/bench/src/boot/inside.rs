//! What runs inside the laptop: starts both VMMs in turn and takes the time.

use std::{path::PathBuf, process::Command};

use sekisho_control::{Channel, Report};
use sekisho_lab::hand_over;
use serde::{Deserialize, Serialize};

use super::{START_LIMIT, memory::Resident};
use crate::{
    BenchError,
    machine::{self, Machine, Vmm, copy},
    part,
    process::{Exits, show_machines},
};

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

/// One start by firmware, to init's first word.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Started {
    /// From the start of the process, in seconds.
    pub(super) to_init: f64,
    /// Exits.
    pub(super) exits: u64,
    /// Of them, for a port or an address that a device answers.
    pub(super) accesses: u64,
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
    /// Ours and the peer's.
    pub(super) by_firmware: Vec<[Started; 2]>,
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
    let here = |from: &str, name: &str| copy(from, &folder.path().join(name));
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
    let measured = if rig.firmware.is_some() {
        rig.measure_firmware(runs)?
    } else {
        rig.measure(runs)?
    };
    part::tell(&measured)
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
    fn measure(&self, runs: usize) -> Result<Measured, BenchError> {
        let mut measured = Measured::default();
        eprintln!("boot: warming up");
        for vmm in [Vmm::Ours, Vmm::Peer] {
            self.boot(vmm)?;
        }
        for run in 0..runs {
            eprintln!("boot: run {} of {runs}", run + 1);
            for vmm in Vmm::in_turn(run) {
                let boot = self.boot(vmm)?;
                match vmm {
                    Vmm::Ours => measured.ours.push(boot),
                    Vmm::Peer => measured.peer.push(boot),
                }
            }
        }
        for run in 0..runs {
            eprintln!("boot: memory, run {} of {runs}", run + 1);
            measured.ours_held.push(self.hold(Vmm::Ours)?);
            measured.peer_held.push(self.hold(Vmm::Peer)?);
        }
        Ok(measured)
    }

    fn measure_firmware(&self, runs: usize) -> Result<Measured, BenchError> {
        show_machines()?;
        let mut measured = Measured::default();
        for run in 0..=runs {
            eprintln!("firmware: run {run} of {runs}");
            let mut pair = [Started::default(); 2];
            for vmm in Vmm::in_turn(run) {
                let place = match vmm {
                    Vmm::Ours => &mut pair[0],
                    Vmm::Peer => &mut pair[1],
                };
                *place = self.start(vmm)?;
            }
            // In the first one the firmware makes its variables.
            if run > 0 {
                measured.by_firmware.push(pair);
            }
        }
        Ok(measured)
    }

    fn command(&self, vmm: Vmm, cmdline: &str) -> Command {
        let firmware = self.firmware.as_ref();
        let mut command = match vmm {
            Vmm::Ours => machine::ours(&self.vmm, MEMORY),
            Vmm::Peer if firmware.is_some() => machine::peer("q35", MEMORY),
            Vmm::Peer => machine::peer("microvm", MEMORY),
        };
        machine::kernel(&mut command, vmm, &self.kernel, &self.initrd, cmdline);
        match (firmware, vmm) {
            (None, _) => {}
            (Some(Firmware { code, ours, .. }), Vmm::Ours) => {
                machine::our_firmware(&mut command, code, ours);
            }
            (Some(Firmware { code, peers, .. }), Vmm::Peer) => {
                machine::peers_firmware(&mut command, code, peers);
            }
        }
        command
    }

    /// From start to init; then its exits are counted and it is killed.
    fn start(&self, vmm: Vmm) -> Result<Started, BenchError> {
        let cmdline = format!("{CMDLINE} sekisho.hold");
        let mut machine = Machine::start(&mut self.command(vmm, &cmdline), START_LIMIT)?;
        let (to_init, _) = machine.await_line(MARK)?;
        let exits = Exits::of(machine.id())?;
        Ok(Started {
            to_init: to_init.as_secs_f64(),
            exits: exits.all,
            accesses: exits.accesses,
        })
    }

    /// From start to exit.
    fn boot(&self, vmm: Vmm) -> Result<Boot, BenchError> {
        let mut machine = Machine::start(&mut self.command(vmm, CMDLINE), START_LIMIT)?;
        let (to_init, line) = machine.await_line(MARK)?;
        let uptime = line.split_ascii_whitespace().next();
        let uptime = uptime.and_then(|word| word.parse().ok());
        let uptime = uptime.ok_or_else(|| machine.failed("its guest's init has no clock"))?;
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
        let mut machine = Machine::start(&mut command, START_LIMIT)?;
        let first_instruction = match &control {
            Some(control) => {
                machine.await_readable(control)?;
                let reached = machine.age();
                match control.recv().map_err(channel)? {
                    Some(received) if received.message == Report::Ready => {
                        Some(reached.as_secs_f64())
                    }
                    _ => None,
                }
            }
            None => None,
        };
        machine.await_line(MARK)?;
        let resident = Resident::of(machine.id(), MEMORY)?;
        Ok(Held {
            first_instruction,
            guest_kib: resident.guest_kib,
            beside_kib: resident.beside_kib,
        })
    }
}
