//! The positive control: a way round the network domain, opened on purpose.
//!
//! The work OS gets a second NIC that is joined to the cafe's wire below every rule of the kernel.
//! What the oracle must find then is what it would find if the product itself were broken.

use std::time::Duration;

use sekisho_lab::address as at;
use sekisho_laptop::build;
use sekisho_laptop::exec::{Running, Start};

use super::{Journey, StepError, StepResult};

/// Where the VMM connects its second NIC to.
pub(super) const SOCKET: &str = "/run/leak.sock";

const LIMIT: Duration = Duration::from_secs(30);

/// What malware in the work OS would do once it has found the second NIC.
const USE: &str = "
    set -e
    ip link set eth1 up
    ip addr add 192.168.43.200/24 dev eth1
    ip route add 198.51.100.0/24 via 192.168.43.1 dev eth1
";

impl Journey {
    /// Waits for the VMM's second NIC; before the VMM starts.
    pub(super) fn prepare_leak(&self) -> Result<Running, StepError> {
        let program = build::target_dir().join("debug").join("leak-joint");
        let argv = [
            &*program.to_string_lossy(),
            "--listen",
            SOCKET,
            "--interface",
            at::ETH0,
        ];
        let mut waiting = self.laptop()?.spawn_with(Start {
            argv: argv.map(str::to_owned).to_vec(),
            stdin: true,
            ..Start::default()
        })?;
        waiting.wait_for("listening", LIMIT)?;
        Ok(waiting)
    }

    /// Opens the way round.
    pub(super) fn open_leak(&mut self) -> StepResult {
        let uplink = self.pid("uplink")?;
        let promiscuous = [
            "nsenter",
            "-t",
            &uplink,
            "-n",
            "ip",
            "link",
            "set",
            at::ETH0,
            "promisc",
            "on",
        ];
        self.laptop()?.run(&promiscuous)?;
        let Some(joint) = &mut self.joint else {
            return Err(StepError::Broken("nothing was prepared".to_owned()));
        };
        joint.write(format!("{uplink}\n").as_bytes())?;
        joint.wait_for("open", LIMIT)?;
        let used = self.guest()?.run(&["sh", "-c", USE], LIMIT)?;
        if !used.status.success() {
            return Err(StepError::Broken(format!(
                "cannot use the leak: {}",
                used.said()
            )));
        }
        Ok("a second NIC leads straight to the cafe".to_owned())
    }
}
