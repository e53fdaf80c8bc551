//! Starts `wpa_supplicant` on the radio, and starts it again when it ends.
//!
//! Closed in before it starts anything, and the supplicant with it: no capability but those over
//! this network namespace, no file to write, no program but those of the distribution.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use sekisho_sandbox::{Access, Capabilities, Limits, Network, Sandbox};

use super::super::netlink::{NetlinkError, Routing, Wireless};

/// Where the distribution puts it.
const SUPPLICANT: &str = "/usr/sbin/wpa_supplicant";
/// The configuration is our standard input, and the supplicant's.
const CONFIG: &str = "/proc/self/fd/0";
/// Read by the supplicant: its libraries and configuration of TLS; the radio's name in the kernel;
/// random numbers and the radio's switch.
const READ: [&str; 4] = ["/etc", "/proc", "/sys", "/dev"];
/// Programs and libraries.
const EXECUTE: &str = "/usr";
/// How often a radio that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before another start; doubled up to the longest for one that ends at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that ran this long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);
/// The supplicant's own descriptors: some netlink and packet sockets an interface.
const MAX_DESCRIPTORS: u64 = 64;

/// Arguments of `sekisho-netdomain supplicant`. Its standard input is the configuration.
#[derive(Debug, clap::Args)]
pub struct KeeperArgs {
    /// Process id of the uplink; with its end everything here ends.
    #[arg(long)]
    parent: i32,
    /// Names of radios, separated by commas; without it, any.
    #[arg(long, value_delimiter = ',')]
    interfaces: Vec<String>,
}

/// Why the keeper ended.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The uplink is gone.
    #[error("the uplink is gone")]
    Orphan,
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    /// The kernel's tables.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The keeper's end cannot be bound to the uplink's.
    #[error("the keeper cannot be bound to the uplink: {0}")]
    Bind(#[from] rustix::io::Errno),
}

/// Runs until the uplink ends.
pub fn run(args: &KeeperArgs) -> Result<(), KeeperError> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The uplink may have died before the line above.
    if getppid() != Pid::from_raw(args.parent) {
        return Err(KeeperError::Orphan);
    }
    let (mut routing, mut wireless) = (Routing::open()?, Wireless::open()?);
    close_in()?;
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(radio) = radio(&args.interfaces, &mut routing, &mut wireless)? else {
            sleep(LOOK);
            continue;
        };
        let started = Instant::now();
        // Without the program there is no Wi-Fi, and everything else goes on.
        match start(&radio).and_then(|mut child| child.wait()) {
            Ok(status) => tracing::warn!(radio, %status, "wpa_supplicant ended"),
            Err(error) => {
                tracing::error!(%error, "no wpa_supplicant; install the package wpasupplicant");
            }
        }
        if started.elapsed() >= HEALTHY {
            pause = FIRST_PAUSE;
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The first radio that may be used; a laptop has one.
fn radio(
    wanted: &[String],
    routing: &mut Routing,
    wireless: &mut Wireless,
) -> Result<Option<String>, NetlinkError> {
    for link in routing.links()? {
        let named = wanted.is_empty() || wanted.contains(&link.name);
        if named && wireless.has(link.index)? {
            return Ok(Some(link.name));
        }
    }
    Ok(None)
}

fn start(radio: &str) -> io::Result<Child> {
    let mut command = Command::new(SUPPLICANT);
    command
        .args(["-q", "-D", "nl80211", "-i", radio, "-c", CONFIG])
        .env_clear()
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit());
    let keeper = rustix::process::getpid();
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec the closure only makes two system calls (prctl, getppid); it
    // takes no lock and does not allocate.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(keeper) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        });
    }
    command.spawn()
}

fn close_in() -> Result<(), KeeperError> {
    let mut limits = Limits::default();
    limits.files = MAX_DESCRIPTORS;
    let mut sandbox = Sandbox::closed()
        .network(Network::Keep)
        .keep(Capabilities::NETWORK)
        .keep_root()
        .for_programs()
        .limits(limits)
        .path(EXECUTE, Access::Execute);
    for path in READ {
        sandbox = sandbox.path(path, Access::Read);
    }
    let enforced = sandbox.enter()?;
    tracing::debug!(?enforced, "closed in");
    Ok(())
}
