//! The uplink: holds the network cards and hands connected sockets to the gate.
//!
//! One process, one thread, in a network namespace of its own that holds the physical interfaces
//! and nothing else. It loads the packet filter before any link comes up, keeps leases, and for
//! each port with a lease opens one socket per gateway, bound to the port and connected to the
//! literal address of the policy. It never sees a tunnel key or a packet of the work OS.
//!
//! What it takes from the wire is an address, a mask and a router. It sets no default route and no
//! on-link prefix: a port has a /32 address, a route to its router, and one route for each gateway
//! (and for the premises beacon). So no lease, however wide, can draw traffic to the wire.
//!
//! | module | what |
//! |---|---|
//! | `endpoints` | what of the policy is needed |
//! | `setup`, `rules` | namespace, sysctls, packet filter: before any link is up |
//! | `ports` | the pure machine of carriers, leases, paths and proofs |
//! | `quota`, `meter` | what the SIM may move in a month, and what it moved |
//! | `modem` | the process that asks ModemManager for the SIM's connection |
//! | `wifi` | the supplicant, and the process that keeps it |
//! | `dot1x` | 802.1X on cables: the supplicants, and the process that keeps them |
//! | `dhcp` | the DHCP client of one port |
//! | `duplicate` | whether somebody else has the address that is the work OS's |
//! | `frames` | packet sockets |
//! | `uninvited` | what comes to a proven port unasked: told, not used |
//! | `wire` | the work OS's way onto the office LAN, where policy knows one |
//! | `routers` | whether the routers answer ARP: told, not used |
//! | `netlink`, `sockets` | the kernel's tables, and the sockets for the gate |
//! | `turn` | the loop that joins them |

mod dhcp;
mod dot1x;
mod duplicate;
mod endpoints;
mod frames;
mod link_layer;
mod meter;
mod modem;
pub(crate) mod netlink;
mod ports;
mod quota;
mod routers;
mod rules;
mod setup;
mod shortage;
mod sockets;
mod turn;
mod uninvited;
mod wifi;
mod wire;

use std::{io, path::PathBuf};

use sekisho_control::{Channel, ChannelError, inherited};

use sekisho_policy::Direct;

use crate::{
    gate::device::parse_mac,
    papers::{Papers, PapersError},
};

pub(crate) use dhcp::fuzz as fuzz_dhcp;
pub(crate) use dot1x::fuzz as fuzz_dot1x;
pub use dot1x::{Dot1xArgs, Dot1xError, Dot1xKeeperError, keep as keep_dot1x};
pub(crate) use duplicate::fuzz as fuzz_duplicate;
pub use endpoints::{Beacon, Endpoints, Gateway, Transport, Uplink, Wifi};
pub(crate) use modem::fuzz as fuzz_modem;
pub use modem::{Args as ModemArgs, BusError, ModemError, Wish, run as ask_modem};
pub use netlink::NetlinkError;
pub(crate) use netlink::fuzz as fuzz_netlink;
pub(crate) use quota::fuzz as fuzz_sim_usage;
pub use rules::{RulesError, load, ruleset};
pub(crate) use wifi::fuzz as fuzz_wifi_networks;
pub use wifi::{KeeperArgs, KeeperError, WifiError, keep};

/// Arguments of `sekisho-netdomain uplink`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy and what is remembered of the last one.
    #[command(flatten)]
    pub papers: Papers,
    /// The network namespace that holds the interfaces, as an inherited descriptor `fd:N`.
    #[arg(
        long,
        required_unless_present = "netns_here",
        conflicts_with = "netns_here"
    )]
    pub netns: Option<String>,
    /// The namespace that this process was started in holds the interfaces. Its packet filter is
    /// replaced.
    #[arg(long)]
    pub netns_here: bool,
    /// Channel to the gate, `fd:N`; it may come later over the control channel.
    #[arg(long)]
    pub gate: Option<String>,
    /// Channel to the process that asks ModemManager for the SIM, `fd:N`.
    #[arg(long)]
    pub modem: Option<String>,
    /// Control channel to the supervisor, `fd:N`.
    #[arg(long)]
    pub control: String,
    /// Interfaces to use, separated by commas. Without it, each Ethernet interface of the namespace.
    #[arg(long, value_delimiter = ',')]
    pub ports: Vec<String>,
    /// The uplink's own folder: it remembers what the SIM moved this month.
    #[arg(long, value_name = "DIR")]
    pub usage: Option<PathBuf>,
    /// The Wi-Fi networks of the person and of IT.
    #[arg(long)]
    pub wifi: Option<PathBuf>,
    /// The laptop's papers for 802.1X on cables.
    #[arg(long)]
    pub dot1x: Option<PathBuf>,
    /// The work OS's MAC, which a port takes on where policy says `bridged`.
    #[arg(long, value_parser = unicast_mac)]
    pub member_mac: Option<[u8; 6]>,
    /// Run as this user (and group of the same number) once everything is open.
    #[arg(long)]
    pub user: Option<u32>,
}

/// Why the uplink could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// There is no policy that may be applied.
    #[error("no policy, no network: {0}")]
    Papers(#[from] PapersError),
    /// A descriptor on the command line.
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    /// A channel to the supervisor or the gate.
    #[error("the channel to the {peer} ended: {source}")]
    Channel {
        /// `supervisor` or `gate`.
        peer: &'static str,
        /// Why.
        source: ChannelError,
    },
    /// The namespace could not be entered.
    #[error(
        "the network namespace cannot be entered: {0}; the uplink needs CAP_SYS_ADMIN at start"
    )]
    Namespace(#[source] io::Error),
    /// A kernel setting could not be made.
    #[error("{path} cannot be set: {source}")]
    Setting {
        /// The file under `/proc/sys`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The packet filter.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The packet filter is not the one that was loaded.
    #[error("somebody changed the packet filter; the uplink ends and loads it at its next start")]
    RulesChanged,
    /// The process that keeps the supplicant.
    #[error("the keeper of wpa_supplicant ended; the uplink ends and starts it with itself")]
    KeeperEnded,
    /// The process that keeps the wired supplicants.
    #[error(
        "the keeper of the wired supplicants ended ({0}); the uplink ends and starts it with itself"
    )]
    Dot1xEnded(#[source] ChannelError),
    /// The process could not be closed in.
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    /// The filter of system calls could not be set.
    #[error(transparent)]
    Filter(#[from] sekisho_sandbox::FilterError),
    /// The kernel's network tables.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Any other call of the loop.
    #[error("the uplink's loop failed to {what}: {source}")]
    Loop {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs the uplink until it is told to end. The calling thread must be the only one.
pub fn run(args: &Args) -> Result<(), UplinkError> {
    let endpoints = Endpoints::from(&args.papers.read()?);
    let control = Channel::from_fd(inherited(&args.control)?).map_err(supervisor)?;
    let gate = match &args.gate {
        None => None,
        Some(word) => Some(Channel::from_fd(inherited(word)?).map_err(gate_ended)?),
    };
    let modem = match &args.modem {
        None => None,
        Some(word) => Some(inherited(word)?),
    };
    if let Some(word) = &args.netns {
        setup::enter(&inherited(word)?)?;
    }

    // The order is the promise: nothing passes before a link can come up.
    load(&ruleset(&endpoints))?;
    let mut routing = netlink::Routing::open()?;
    let present: Vec<String> = routing.links()?.into_iter().map(|link| link.name).collect();
    setup::harden(&present)?;

    if endpoints.direct == Some(Direct::Bridged) && args.member_mac.is_none() {
        tracing::warn!("no place on the office LAN: the supervisor names no `--member-mac`");
    }
    let ports =
        ports::Ports::new(endpoints.clone(), args.ports.clone()).for_member(args.member_mac);
    let meter = endpoints
        .quota()
        .map(|quota| meter::Meter::open(quota, args.usage.as_deref(), turn::now()));
    let keeper = args.wifi.as_deref().and_then(|file| {
        // Without Wi-Fi there still is a cable.
        wifi::start(&endpoints, file)
            .inspect_err(|error| tracing::error!(%error, "no Wi-Fi"))
            .ok()
            .flatten()
    });
    let dot1x = endpoints
        .beacon
        .as_ref()
        .and_then(|beacon| beacon.dot1x.as_ref())
        .and_then(|wanted| {
            // Without it no port proves the office, and each carries the tunnel as before.
            dot1x::start(wanted, args.dot1x.as_deref())
                .inspect_err(|error| tracing::error!("{error}"))
                .ok()
        });
    let wire = endpoints.direct.map(|direct| {
        // Without it the tunnel still is there.
        wire::Wire::open(&mut routing, direct)
            .inspect_err(|error| tracing::error!(%error, "no way onto the office LAN"))
            .ok()
    });
    let mut turn = turn::Turn::open(endpoints, ports, routing, control, meter)?;
    if let Some(wire) = wire.flatten() {
        turn.lay(wire);
    }
    if let Some(keeper) = keeper {
        turn.watch_keeper(keeper)?;
    }
    if let Some(dot1x) = dot1x {
        turn.watch_dot1x(dot1x)?;
    }
    if let Some(modem) = modem {
        turn.attach_modem(modem)?;
    }
    setup::close_in(args.user)?;
    turn.ready()?;
    if let Some(gate) = gate {
        turn.attach_gate(gate)?;
    }
    turn.run()
}

/// A MAC that one station can have, from the command line.
fn unicast_mac(text: &str) -> Result<[u8; 6], &'static str> {
    parse_mac(text)
        .filter(|mac| mac.is_unicast() && mac.0 != [0; 6])
        .map(|mac| mac.0)
        .ok_or("not a unicast MAC address like 02:53:4b:00:07:17")
}

fn supervisor(source: ChannelError) -> UplinkError {
    UplinkError::Channel {
        peer: "supervisor",
        source,
    }
}

fn gate_ended(source: ChannelError) -> UplinkError {
    UplinkError::Channel {
        peer: "gate",
        source,
    }
}
