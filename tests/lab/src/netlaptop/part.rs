//! The laptop's processes: who they are, and how they are killed.

use rustix::process::{Pid, Signal, kill_process};

use super::NetLaptop;
use crate::LabError;

/// A process of the laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The gate.
    Gate,
    /// The uplink.
    Uplink,
    /// The keeper of the TLS tunnel's engine.
    Tls,
    /// The keeper of the wired supplicants.
    Dot1x,
    /// Who asks ModemManager for the SIM.
    Modem,
    /// The keeper of the `IPsec` tunnel's engine.
    Ike,
    /// What joins the guest to the gate: here the tap joint, in the place of the VMM.
    Vmm,
}

impl Part {
    /// What the supervisor calls it.
    pub(super) fn process(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Uplink => "uplink",
            Self::Tls => "tls",
            Self::Dot1x => "dot1x",
            Self::Modem => "modem",
            Self::Ike => "ike",
            Self::Vmm => "vmm",
        }
    }

    fn is(self, pid: u32) -> bool {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        let mut words = line.split(|&byte| byte == 0);
        let program = words.next().unwrap_or_default();
        match self {
            Self::Vmm => program.ends_with(b"sekisho-tapjoint"),
            _ => words.next() == Some(self.process().as_bytes()),
        }
    }
}

/// Living children of a process (proc(5): `children` of each task).
fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

impl NetLaptop<'_> {
    /// Process id of a part, as long as it runs.
    pub fn pid(&self, part: Part) -> Result<u32, LabError> {
        let own = children(self.supervisor.id());
        // A keeper is a child of the process that it keeps something for.
        let all = own.iter().copied().flat_map(children).chain(own.clone());
        all.into_iter()
            .find(|pid| part.is(*pid))
            .ok_or_else(|| LabError::Lost {
                what: format!("the process of {part:?}"),
            })
    }

    /// Process id of openconnect, as long as it runs: a child of its keeper.
    pub fn openconnect(&self) -> Result<u32, LabError> {
        self.child_of(Part::Tls)
    }

    /// Process id of charon, as long as it runs: a child of its keeper.
    pub fn charon(&self) -> Result<u32, LabError> {
        self.child_of(Part::Ike)
    }

    fn child_of(&self, part: Part) -> Result<u32, LabError> {
        children(self.pid(part)?)
            .into_iter()
            .next()
            .ok_or_else(|| LabError::Lost {
                what: format!("the program of {part:?}"),
            })
    }

    /// Process id of the wired supplicant, as long as one runs: a child of its keeper.
    pub fn supplicant(&self) -> Result<u32, LabError> {
        children(self.pid(Part::Dot1x)?)
            .into_iter()
            .next()
            .ok_or_else(|| LabError::Lost {
                what: "the process of wpa_supplicant".into(),
            })
    }

    /// Kills the wired supplicant.
    pub fn kill_supplicant(&self) -> Result<u32, LabError> {
        kill(self.supplicant()?)
    }

    /// Stops it where it is: it lives, and does nothing more.
    pub fn stop_supplicant(&self) -> Result<u32, LabError> {
        signal(self.supplicant()?, Signal::STOP)
    }

    /// Kills a part with SIGKILL and gives its process id.
    pub fn kill(&self, part: Part) -> Result<u32, LabError> {
        kill(self.pid(part)?)
    }

    /// The same for openconnect.
    pub fn kill_openconnect(&self) -> Result<u32, LabError> {
        kill(self.openconnect()?)
    }

    /// The same for charon.
    pub fn kill_charon(&self) -> Result<u32, LabError> {
        kill(self.charon()?)
    }
}

fn kill(pid: u32) -> Result<u32, LabError> {
    signal(pid, Signal::KILL)
}

fn signal(pid: u32, signal: Signal) -> Result<u32, LabError> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .map(|pid| kill_process(pid, signal))
        .transpose()
        .map_err(|error| LabError::Io {
            doing: "kill a part".into(),
            source: error.into(),
        })?;
    Ok(pid)
}
