//! What is done once, before anything from the wire is looked at: into the namespace, IPv6 off,
//! packet filter loaded, the process closed in, and only then is any link touched.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sekisho_sandbox::{
    BARE, Capabilities, EVENTS, Filter, Is, Limits, MESSAGES, Network, Rule, Sandbox,
};

use super::UplinkError;

/// Enters a network namespace with the calling thread, which must be the only one.
pub(super) fn enter(namespace: &OwnedFd) -> Result<(), UplinkError> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| UplinkError::Namespace(errno.into()))
}

/// Settings for every interface, now and later. Interfaces that are moved in take on `default`;
/// `all` weighs in where the kernel takes the stronger of the two.
const PER_INTERFACE: &[(&str, &str)] = &[
    // No address, no neighbour discovery, no router advertisement is ever looked at.
    ("ipv6/conf/{}/disable_ipv6", "1"),
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/autoconf", "0"),
    // ARP: answer only for the address of the very port, speak only from it, learn nothing unasked.
    ("ipv4/conf/{}/arp_ignore", "1"),
    ("ipv4/conf/{}/arp_announce", "2"),
    ("ipv4/conf/{}/arp_accept", "0"),
    ("ipv4/conf/{}/arp_evict_nocarrier", "1"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/secure_redirects", "0"),
    ("ipv4/conf/{}/send_redirects", "0"),
    ("ipv4/conf/{}/accept_source_route", "0"),
    ("ipv4/conf/{}/forwarding", "0"),
    // Two ports may each have a route to the same gateway, so the strict check (1) would drop what
    // comes over the one that is not preferred.
    ("ipv4/conf/{}/rp_filter", "2"),
    ("ipv4/conf/{}/drop_unicast_in_l2_multicast", "1"),
    // For the address of the work OS on a proven port ARP is answered at once, like any other.
    ("ipv4/neigh/{}/proxy_delay", "0"),
];

/// Settings of the whole namespace.
const GLOBAL: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "0"),
    ("ipv4/icmp_echo_ignore_all", "1"),
    // One-sided timestamps would tell the wire how long the laptop has been running.
    ("ipv4/tcp_timestamps", "0"),
];

/// Writes the settings for the namespace and for the interfaces that are already there.
///
/// `/proc/sys/net` shows the namespace of the thread that opens it. A setting that this kernel does
/// not know is passed over, all others must hold.
pub(super) fn harden(interfaces: &[String]) -> Result<(), UplinkError> {
    // First, because a change of `ip_forward` resets settings of the interfaces.
    for (key, value) in GLOBAL {
        set(key, value)?;
    }
    let all_and_default = ["all".to_owned(), "default".to_owned()];
    for (key, value) in PER_INTERFACE {
        for interface in all_and_default.iter().chain(interfaces) {
            set(&key.replace("{}", interface), value)?;
        }
    }
    Ok(())
}

fn set(key: &str, value: &str) -> Result<(), UplinkError> {
    let path = Path::new("/proc/sys/net").join(key);
    match fs::write(&path, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(UplinkError::Setting {
            path,
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Descriptors that the uplink may hold: a few of its own, and for each of at most 16 ports a DHCP
/// socket and two paths per gateway, or four connections where the gateway is spoken to by TCP.
const MAX_DESCRIPTORS: u64 = 256;

const fn socket(family: i32) -> Rule {
    Rule::allow(libc::SYS_socket).when(0, Is::Int(family.cast_unsigned()))
}

/// What the running uplink does besides moving messages: it opens sockets for DHCP, for paths and
/// to the beacon, and writes to a file that is open. No other file, no program, no netlink socket but those that are open.
const SOCKETS: &[Rule] = &[
    socket(libc::AF_INET),
    socket(libc::AF_PACKET),
    Rule::allow(libc::SYS_bind),
    Rule::allow(libc::SYS_connect),
    Rule::allow(libc::SYS_setsockopt),
    // The SIM's usage, in the one file that is open.
    Rule::allow(libc::SYS_pwrite64),
    Rule::allow(libc::SYS_fdatasync),
];

/// Closes the process in, with what it needs of its namespace: interfaces, addresses, routes and
/// packet sockets.
pub(super) fn close_in(user: Option<u32>) -> Result<(), UplinkError> {
    let mut limits = Limits::default();
    limits.files = MAX_DESCRIPTORS;
    let mut sandbox = Sandbox::closed()
        .network(Network::Keep)
        .keep(Capabilities::NETWORK)
        .limits(limits)
        .allow_tcp();
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    let filter = Filter::new("uplink", &[BARE, EVENTS, MESSAGES, SOCKETS])?;
    let enforced = sandbox.enter()?;
    tracing::debug!(?enforced, "closed in");
    Ok(filter.install()?)
}
