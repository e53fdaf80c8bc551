//! The keeper: a supplicant for each cable that has a carrier, and what they say, to the uplink.
//!
//! Closed in before it starts anything, and the supplicants with it: no capability but those over
//! this network namespace, no file of ours, no program but those of the distribution. The control
//! interface is a folder that nobody else has: a file system in memory, in a mount namespace of
//! this process and its children.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, mkdir},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    thread::{UnshareFlags, unshare_unsafe},
};
use sekisho_control::{Channel, ChannelError, inherited};
use sekisho_sandbox::{Access, Capabilities, Limits, Network, Sandbox};

use super::{
    Standing,
    message::{Carrier, FromKeeper, ToKeeper},
    status::Verdict,
    supplicant::{Supplicant, Turn},
};

/// Where the new file system is laid: over what the host's services offer, which is not for us.
const FOLDER: &str = "/run";
/// The supplicants' ends of the control interface.
pub(super) const SOCKETS: &str = "/run/dot1x";
/// And the keeper's.
pub(super) const OWN_SOCKETS: &str = "/run/keeper";
/// It holds names of sockets and nothing else.
const FOLDER_OPTIONS: &std::ffi::CStr = c"size=64k,nr_inodes=128,mode=0700";
/// Read by the supplicant: libraries and configuration of TLS; its configuration, which is an open
/// file; random numbers.
const READ: [&str; 4] = ["/etc/ssl", "/etc/ld.so.cache", "/proc", "/dev"];
/// Programs and libraries.
const EXECUTE: &str = "/usr";
/// Pause before another start, none for one that had the port authenticated; doubled up to the longest for one that ends at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that ran this long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);
/// Ports at one time, as many as the uplink knows.
const MAX_PORTS: usize = 16;
/// Messages of the uplink in one turn.
const MESSAGES_PER_TURN: usize = 32;
/// The keeper's own descriptors, three for each port; a supplicant needs some twenty.
const MAX_DESCRIPTORS: u64 = 96;

/// Arguments of `sekisho-netdomain dot1x`. Its standard input is the configuration.
#[derive(Debug, clap::Args)]
pub struct Dot1xArgs {
    /// Process id of the uplink; with its end everything here ends.
    #[arg(long)]
    parent: i32,
    /// Channel to the uplink, `fd:N`.
    #[arg(long)]
    uplink: String,
}

/// Why the keeper ended.
#[derive(Debug, thiserror::Error)]
pub enum Dot1xKeeperError {
    /// The uplink is gone.
    #[error("the uplink is gone")]
    Orphan,
    /// The descriptor on the command line.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// The channel to the uplink.
    #[error("the channel to the uplink ended: {0}")]
    Channel(#[from] ChannelError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    /// Any other system call.
    #[error("the keeper of the wired supplicants failed to {what}: {errno}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
}

fn step<T>(what: &'static str, outcome: Result<T, Errno>) -> Result<T, Dot1xKeeperError> {
    outcome.map_err(|errno| Dot1xKeeperError::Step { what, errno })
}

/// Runs until the uplink ends.
pub fn run(args: &Dot1xArgs) -> Result<(), Dot1xKeeperError> {
    step(
        "bind its end to the uplink's",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    // The uplink may have died before the line above.
    if getppid() != Pid::from_raw(args.parent) {
        return Err(Dot1xKeeperError::Orphan);
    }
    let uplink = Channel::from_fd(inherited(&args.uplink)?)?;
    own_folder()?;
    close_in()?;
    Keeper {
        uplink,
        ports: Vec::new(),
        began: Instant::now(),
    }
    .serve()
}

/// Lays an empty file system over `/run`, for this process and its children alone.
fn own_folder() -> Result<(), Dot1xKeeperError> {
    #[allow(unsafe_code)]
    // SAFETY: the flag touches neither memory nor descriptors; the process has one thread.
    step("make a mount namespace", unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)
    })?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("make its mounts private", mount_change("/", private))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    step(
        "lay a folder for sockets",
        mount("tmpfs", FOLDER, "tmpfs", flags, Some(FOLDER_OPTIONS)),
    )?;
    for folder in [SOCKETS, OWN_SOCKETS] {
        step("make a folder for sockets", mkdir(folder, Mode::RWXU))?;
    }
    Ok(())
}

fn close_in() -> Result<(), Dot1xKeeperError> {
    let mut limits = Limits::default();
    limits.files = MAX_DESCRIPTORS;
    let mut sandbox = Sandbox::closed()
        .network(Network::Keep)
        .keep(Capabilities::NETWORK)
        .keep_root()
        .for_programs()
        .limits(limits)
        .path(FOLDER, Access::ReadWrite)
        .path(EXECUTE, Access::Execute);
    for path in READ {
        sandbox = sandbox.path(path, Access::Read);
    }
    let enforced = sandbox.enter()?;
    tracing::debug!(?enforced, "closed in");
    Ok(())
}

/// A port with a carrier.
struct Port {
    carrier: Carrier,
    name: String,
    verdict: Verdict,
    /// The program could not be started.
    unable: bool,
    supplicant: Option<Supplicant>,
    /// When to start it (again), where it does not run.
    start: Duration,
    pause: Duration,
    told: Standing,
}

struct Keeper {
    uplink: Channel<FromKeeper, ToKeeper>,
    ports: Vec<Port>,
    began: Instant,
}

impl Keeper {
    fn serve(&mut self) -> Result<(), Dot1xKeeperError> {
        loop {
            self.wait()?;
            let now = self.began.elapsed();
            for _ in 0..MESSAGES_PER_TURN {
                match self.uplink.recv()? {
                    Some(received) => self.uplink_says(received.message, now),
                    None => break,
                }
            }
            for port in &mut self.ports {
                if let Some(standing) = port.turn(now) {
                    let carrier = port.carrier;
                    tracing::info!(port = port.name, ?standing, "802.1X");
                    self.uplink.send(&FromKeeper { carrier, standing }, &[])?;
                }
            }
        }
    }

    fn wait(&self) -> Result<(), Dot1xKeeperError> {
        let now = self.began.elapsed();
        let mut fds = vec![PollFd::new(&self.uplink, PollFlags::IN)];
        for port in &self.ports {
            let own = port.supplicant.iter().flat_map(Supplicant::descriptors);
            fds.extend(own.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let due = self.ports.iter().map(|port| port.due(now)).min();
        let wait = due.map(|due| due.saturating_sub(now));
        let wait = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => step("wait", Err(errno)),
        }
    }

    fn uplink_says(&mut self, message: ToKeeper, now: Duration) {
        match message {
            ToKeeper::Begin { carrier, port } => {
                // A name of the kernel's has no slash; one that had would lead out of the folder.
                if self.ports.len() >= MAX_PORTS || port.contains('/') {
                    tracing::warn!(port, "no 802.1X on this port");
                    return;
                }
                self.ports.push(Port {
                    carrier,
                    name: port,
                    verdict: Verdict::new(),
                    unable: false,
                    supplicant: None,
                    start: now,
                    pause: FIRST_PAUSE,
                    told: Standing::Asking,
                });
            }
            ToKeeper::End { carrier } => self.ports.retain(|port| port.carrier != carrier),
        }
    }
}

impl Port {
    /// Does what is to be done; the standing where it changed.
    fn turn(&mut self, now: Duration) -> Option<Standing> {
        match &mut self.supplicant {
            None if self.start <= now => self.begin(now),
            None => {}
            Some(supplicant) => match supplicant.turn(now) {
                Turn::Nothing => {}
                Turn::Saw(look) => {
                    let was = self.verdict.standing();
                    self.verdict.see(look, now);
                    if self.verdict.standing() == Standing::Authenticated {
                        self.pause = Duration::ZERO;
                    }
                    let lost = was == Standing::Authenticated
                        && self.verdict.standing() != Standing::Authenticated;
                    if lost {
                        // Anybody on the wire can forge the failure that did it, after which the
                        // supplicant would wait for half a minute. A new one asks at once.
                        self.end(now);
                    }
                }
                Turn::Gone => {
                    self.verdict.gone();
                    self.end(now);
                }
            },
        }
        let standing = if self.unable {
            Standing::Unable
        } else {
            self.verdict.standing()
        };
        (std::mem::replace(&mut self.told, standing) != standing).then_some(standing)
    }

    fn begin(&mut self, now: Duration) {
        match Supplicant::start(self.carrier, &self.name, now) {
            Ok(supplicant) => {
                self.supplicant = Some(supplicant);
                self.unable = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unable, true) {
                    let hint = if error.kind() == io::ErrorKind::NotFound {
                        "install the package wpasupplicant"
                    } else {
                        "it is tried again"
                    };
                    tracing::error!(%error, "no wpa_supplicant; {hint}");
                }
                self.later(now);
            }
        }
    }

    fn end(&mut self, now: Duration) {
        let ended = self.supplicant.take();
        if ended.is_some_and(|ended| now.saturating_sub(ended.started()) >= HEALTHY) {
            self.pause = FIRST_PAUSE;
        }
        self.later(now);
    }

    fn later(&mut self, now: Duration) {
        self.start = now + self.pause;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }

    fn due(&self, now: Duration) -> Duration {
        match &self.supplicant {
            Some(supplicant) => supplicant.due(now),
            None => self.start,
        }
    }
}
