//! The gate as a process: arguments, files, sandbox, loop.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use sekisho_control::{ChannelError, InheritedError, inherited};
use sekisho_framelink::LinkError;
use thiserror::Error;

use sekisho_sandbox::{
    BARE, Demand, EVENTS, Filter, FilterError, Is, Landlock, MESSAGES, Rule, Sandbox, SandboxError,
};

use super::device::{DeviceError, DeviceFile};
use super::engine::{Gate, Parts};
use crate::papers::{Papers, PapersError};
use crate::tunnel::StampError;

/// Command line of `sekisho-netdomain gate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    papers: Papers,
    /// The device file of this laptop.
    #[arg(long)]
    device: PathBuf,
    /// The frame link, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    link: Option<String>,
    /// The channel to the uplink, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    uplink: Option<String>,
    /// The channel to the engine of the TLS tunnel, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    tls: Option<String>,
    /// The channel to the engine of the `IPsec` tunnel, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    ike: Option<String>,
    /// The channel to the supervisor, an inherited descriptor.
    #[arg(long, value_name = "fd:N")]
    control: String,
    /// An engine that crashes while it serves is begun again at once, but not twice in so many
    /// milliseconds: whoever can make it crash by a packet is not to try at the speed of its start.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    healthy_after_ms: u64,
    /// The user that the gate becomes.
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

/// Why the gate ended.
#[derive(Debug, Error)]
pub enum GateError {
    /// An inherited descriptor is not there.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// There is no policy that may be applied.
    #[error("no policy, no network: {0}")]
    Papers(#[from] PapersError),
    /// The policy expired while the gate served.
    #[error("the policy has expired; the gate ends, so that nothing passes without one")]
    PolicyExpired,
    /// The device file is of no use.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The handshake timestamp cannot be kept.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// TLS cannot be set up.
    #[error("the client of the premises beacon cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A channel is unusable.
    #[error("a channel to another process cannot be used: {0}")]
    Channel(#[from] ChannelError),
    /// The frame link is unusable.
    #[error("the frame link cannot be used: {0}")]
    Link(#[from] LinkError),
    /// The process could not be closed in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The system calls could not be filtered.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Waiting failed.
    #[error("waiting for events failed: {0}")]
    Wait(Errno),
}

/// Runs the gate until it is told to end.
pub fn run(args: &Args) -> Result<(), GateError> {
    let policy = args.papers.read()?;
    let mut gate = Gate::open(Parts {
        policy: &policy,
        device: DeviceFile::read(&args.device)?,
        state: &args.papers.state,
        control: inherited(&args.control)?,
        link: optional(args.link.as_deref())?,
        uplink: optional(args.uplink.as_deref())?,
        tls: optional(args.tls.as_deref())?,
        ike: optional(args.ike.as_deref())?,
        healthy_after: Duration::from_millis(args.healthy_after_ms),
    })?;
    // Before it decides about anything, and only now: with what cannot be served, nothing newer
    // than the last policy has been applied.
    args.papers.remember(&policy)?;
    drop(policy);
    close_in(args.user)?;
    gate.ready()?;
    gate.serve()
}

/// What the gate calls besides the sets that every process has: it keeps a timestamp in an open
/// file, looks at the descriptors that it is handed and tunes the sockets.
const GATE: &[Rule] = &[
    Rule::allow(libc::SYS_pwrite64),
    Rule::allow(libc::SYS_fdatasync),
    // Whether what the uplink hands over as a wire is one.
    question(crate::tun::GET_INTERFACE),
    question(crate::tun::GET_HEADER_SIZE),
    // What a descriptor of an engine's is. By descriptor; the root is empty.
    Rule::allow(libc::SYS_fstat),
    option(libc::SOL_UDP, libc::UDP_GRO),
    option(libc::SOL_SOCKET, libc::SO_RCVBUF),
    option(libc::SOL_SOCKET, libc::SO_SNDBUF),
];

const fn question(request: u32) -> Rule {
    Rule::allow(libc::SYS_ioctl).when(1, Is::Int(request))
}

const fn option(level: i32, name: i32) -> Rule {
    Rule::allow(libc::SYS_setsockopt)
        .when(1, Is::Int(level.cast_unsigned()))
        .when(2, Is::Int(name.cast_unsigned()))
}

/// Takes everything away that serving does not need: the network, the file system, capabilities,
/// the user, and all system calls but some seventy.
fn close_in(user: Option<u32>) -> Result<(), GateError> {
    let filter = Filter::new("gate", &[BARE, EVENTS, MESSAGES, GATE])?;
    // The root is empty and no path is ever used, so Landlock is a second lock on a door that is
    // walled up; a kernel without it will do.
    let mut sandbox = Sandbox::closed().landlock(Demand::BestEffort);
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    let enforced = sandbox.enter()?;
    if enforced.landlock == Landlock::Absent {
        tracing::warn!("this kernel has no Landlock; the other walls stand alone");
    }
    filter.install()?;
    Ok(())
}

fn optional(word: Option<&str>) -> Result<Option<OwnedFd>, InheritedError> {
    word.map(inherited).transpose()
}
