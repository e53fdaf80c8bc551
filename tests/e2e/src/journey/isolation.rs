//! What the processes of a running laptop hold, read from outside through `/proc`.

use sekisho_lab::address as at;

use super::{Journey, StepError, StepResult};

/// One process of the product.
struct Onlooker<'a> {
    journey: &'a Journey,
    program: &'static str,
    pid: String,
}

impl<'a> Onlooker<'a> {
    fn find(journey: &'a Journey, program: &'static str) -> Result<Self, StepError> {
        let pid = journey.pid(program)?;
        Ok(Self {
            journey,
            program,
            pid,
        })
    }

    fn read(&self, file: &str) -> Result<String, StepError> {
        let path = format!("/proc/{}/{file}", self.pid);
        Ok(self.journey.laptop()?.run(&["cat", &path])?.text())
    }

    /// Interfaces in its network namespace beside the loopback.
    fn interfaces(&self) -> Result<Vec<String>, StepError> {
        let table = self.read("net/dev")?;
        let names = table.lines().filter_map(|line| line.split_once(':'));
        Ok(names
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| name != "lo")
            .collect())
    }

    /// Whether the kernel knows a way to the gateway there.
    fn has_route(&self) -> Result<bool, StepError> {
        let target = at::GATEWAY_OUTSIDE.ip().to_string();
        let argv = [
            "nsenter", "-t", &self.pid, "-n", "ip", "route", "get", &target,
        ];
        Ok(self.journey.laptop()?.run(&argv)?.status.success())
    }

    /// The size of its largest mapping, in MiB, and whether it maps a shared memory file.
    fn mappings(&self) -> Result<(u64, bool), StepError> {
        let maps = self.read("maps")?;
        let sizes = maps.lines().filter_map(|line| {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
        });
        let shared = maps.contains("/memfd:") || maps.contains("/dev/kvm");
        Ok((sizes.max().unwrap_or(0) >> 20, shared))
    }

    /// The thread's locks: no capability, seccomp on, no new privileges.
    fn is_locked(&self) -> Result<bool, StepError> {
        let status = self.read("status")?;
        let has = |name: &str, value: &str| {
            status
                .lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(key, found)| key == name && found.trim() == value)
        };
        Ok(has("CapEff", "0000000000000000")
            && has("CapPrm", "0000000000000000")
            && has("Seccomp", "2")
            && has("NoNewPrivs", "1"))
    }

    fn expect(&self, holds: bool, what: &str) -> Result<(), StepError> {
        if holds {
            return Ok(());
        }
        Err(StepError::Broken(format!(
            "{} (pid {}): {what}",
            self.program, self.pid
        )))
    }
}

/// Guest memory is one mapping of hundreds of MiB; the gate's arenas are a few.
const GUEST_SIZED: u64 = 64;

impl Journey {
    /// The gate maps no guest memory and has no interface; the VMM has no network at all.
    pub(super) fn isolation(&mut self) -> StepResult {
        let gate = Onlooker::find(self, "gate")?;
        let uplink = Onlooker::find(self, "uplink")?;
        let vmm = Onlooker::find(self, "vmm")?;

        for process in [&gate, &vmm] {
            process.expect(
                process.interfaces()?.is_empty(),
                "it sees a network interface",
            )?;
            process.expect(!process.has_route()?, "it has a way to the gateway")?;
            process.expect(process.is_locked()?, "its sandbox is open")?;
        }
        let (largest, shared) = gate.mappings()?;
        gate.expect(
            largest < GUEST_SIZED && !shared,
            "it maps what may be guest memory",
        )?;

        // The same looks at processes that do have these things, or they would prove nothing.
        let (guest_memory, _) = vmm.mappings()?;
        vmm.expect(
            guest_memory >= GUEST_SIZED,
            "no guest memory found, so the look proves nothing",
        )?;
        let sees = uplink.interfaces()?;
        uplink.expect(
            sees.iter().any(|name| name == at::ETH0),
            "it does not see eth0",
        )?;
        uplink.expect(
            uplink.has_route()?,
            "it has no way to the gateway, so the look proves nothing",
        )?;
        Ok(format!(
            "gate: largest mapping {largest} MiB, no interface; VMM: {guest_memory} MiB of guest, no \
             network; uplink: {}",
            sees.join(" ")
        ))
    }
}
