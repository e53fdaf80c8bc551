//! The positive control: a way round the network domain, opened on purpose.
//!
//! The work OS gets a second NIC whose other end is a tap in the uplink's own namespace, where the
//! packet filter is taken away and the kernel forwards to the cafe. What the oracle must find then
//! is what it would find if the product itself were broken.

use std::time::Duration;

use sekisho_laptop::build;
use sekisho_laptop::exec::Running;

use super::{Journey, StepError, StepResult};

/// Where the VMM connects its second NIC to.
pub(super) const SOCKET: &str = "/run/leak.sock";

const LIMIT: Duration = Duration::from_secs(30);

/// Joins the tap to the uplink's namespace and opens everything there.
const OPEN: &str = "
    set -e
    pid=$1
    ip link set leak0 netns $pid
    in=\"nsenter -t $pid -n\"
    $in nft flush ruleset
    $in sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    $in ip addr add 192.168.77.1/24 dev leak0
    $in ip link set leak0 up
    router=$($in ip -4 route show dev eth0 | grep -oE '192\\.168\\.43\\.1' | head -n 1)
    $in ip route replace default via ${router:-192.168.43.1} dev eth0 onlink
    $in nft 'table ip leak { chain out { type nat hook postrouting priority srcnat; oifname eth0 masquerade; } }'
";

/// What malware in the work OS would do once it has found the second NIC.
const USE: &str = "
    set -e
    ip link set eth1 up
    ip addr add 192.168.77.2/24 dev eth1
    ip route add 198.51.100.0/24 via 192.168.77.1 dev eth1
";

impl Journey {
    /// Waits for the VMM's second NIC; before the VMM starts.
    pub(super) fn prepare_leak(&self) -> Result<Running, StepError> {
        let programs = build::target_dir().join("debug");
        let program = programs.join("leak-joint");
        let joint = programs.join("sekisho-tapjoint");
        let (program, joint) = (program.to_string_lossy(), joint.to_string_lossy());
        let argv = [
            &*program, "--listen", SOCKET, "--tap", "leak0", "--joint", &joint,
        ];
        let mut waiting = self.laptop()?.spawn(&argv)?;
        waiting.wait_for("listening", LIMIT)?;
        Ok(waiting)
    }

    /// Opens the way round.
    pub(super) fn open_leak(&mut self) -> StepResult {
        let uplink = self.pid("uplink")?;
        let opened = self.laptop()?.run(&["sh", "-c", OPEN, "open", &uplink])?;
        if !opened.status.success() {
            return Err(StepError::Broken(format!(
                "cannot open the leak: {}",
                opened.said()
            )));
        }
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
