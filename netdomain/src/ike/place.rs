//! Where the engine lives: a network of its own with two TUN devices, and a root with nothing in it
//! but programs.
//!
//! ```text
//! gate ══ inner ══▶ kernel: ESP ══▶ outer ══ keeper ══ the uplink's socket ══▶ gateway
//! ```
//!
//! Packets of the gate come in by `inner` and are forwarded; on the way charon's policies turn them
//! into ESP in UDP to the gateway, the only destination that has a route by `outer`. The keeper reads
//! that device and passes the payloads on. There is no other interface but `lo`: what is not sealed
//! has no way to `outer` by route, is dropped by the packet filter if it had, and is no datagram to
//! the gateway for the keeper if it came through.
//!
//! The inner address stands on `lo`, because charon wants to see it, and yet what comes for it out of
//! the tunnel is forwarded to `inner`: rules about the incoming interface come before the table of
//! local addresses.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::netlink::{SocketAddrNetlink, XFRM};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use sekisho_sandbox::{BARE, Capabilities, EVENTS, Is, MESSAGES, Rule, Sandbox};

use super::Esp;
use super::encapsulation::{NAT_T, OUTER_MTU};
use super::outer::{self, OUTERS, Outer};
use super::tun::{self, TUNSETIFF};
use crate::engine::{self, EngineError};
use crate::program::PROGRAMS;
use crate::uplink::load;

/// The folder that can be written to; the place of the lock is compiled into charon.
pub(super) const RUN: &str = "var/run";

/// charon's configuration.
pub(super) fn configuration() -> PathBuf {
    Path::new("/").join(RUN).join("strongswan.conf")
}

/// charon's socket.
pub(super) fn socket() -> PathBuf {
    Path::new("/").join(RUN).join("charon.vici")
}

/// What AES-GCM in a tunnel in UDP leaves of [`OUTER_MTU`]: less IP (20), UDP (8), SPI and sequence
/// number (8), IV (8), ICV (16), padding length and next header (2), rounded down to four bytes
/// (RFC 4303, section 2.4; RFC 4106).
pub(super) const INNER_MTU: u16 = (OUTER_MTU - 20 - 8 - 8 - 8 - 16) / 4 * 4 - 2;

/// The device that charon makes where it seals by itself; the name is charon's.
const SEALER: &str = "ipsec0";

/// The routing table that charon makes a rule for, whoever a packet is from (`charon.routing_table`).
const CHARONS_TABLE: u32 = 220;

/// The engine's network, seen from outside.
#[derive(Debug)]
pub(super) struct Place {
    /// The namespace.
    pub(super) namespace: OwnedFd,
    /// Where charon's datagrams come out.
    pub(super) outer: Outer,
    /// Where inner packets go in and come out.
    pub(super) inner: OwnedFd,
    /// How the kernel is told to forget tunnels; none where it has none.
    pub(super) xfrm: Option<OwnedFd>,
}

/// Makes the network.
pub(super) fn network(
    address: Ipv4Addr,
    gateways: BTreeSet<Ipv4Addr>,
    esp: Esp,
) -> Result<Place, EngineError> {
    let (namespace, (outer, inner, xfrm)) =
        engine::in_network(move || furnish(address, &gateways, esp))?;
    Ok(Place {
        namespace,
        outer,
        inner,
        xfrm,
    })
}

/// The two devices, and where the kernel is told to forget tunnels.
type Devices = (Outer, OwnedFd, Option<OwnedFd>);

fn furnish(address: Ipv4Addr, gateways: &BTreeSet<Ipv4Addr>, esp: Esp) -> io::Result<Devices> {
    // Before there is anything to send by.
    load(&filter(gateways, esp)).map_err(io::Error::other)?;
    for (name, value) in SETTINGS {
        fs::write(format!("/proc/sys/net/{name}"), value)?;
    }
    let (outer, inner) = (tun::create(outer::NAME)?, tun::create("inner")?);
    ip(&addresses(address, esp))?;
    let outer = Outer::new(outer, gateways.iter().copied().collect())?;
    // An interface that is there already does not take the default.
    fs::write("/proc/sys/net/ipv4/conf/inner/accept_local", "1")?;
    let xfrm = match esp {
        Esp::Kernel => Some(socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(XFRM),
        )?),
        Esp::User => None,
    };
    Ok((outer, inner, xfrm))
}

/// IPv4 is forwarded and comes from where no route leads back; nobody is told of shorter ways.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
];

/// Addresses, routes and rules, as lines for `ip -batch`.
fn addresses(address: Ipv4Addr, esp: Esp) -> String {
    // Where what the tunnel opens comes from, and where what is to be sealed goes. The kernel turns a
    // packet aside by charon's policies whatever its route: so it is back to where it is from, where
    // the packet filter drops what no policy took. A charon that seals by itself makes routes to its
    // own device in its own table, which is everybody's beside.
    let (opened, sealing, way_back) = match esp {
        Esp::Kernel => ("outer", 21, "route add default dev inner table 21\n"),
        Esp::User => (SEALER, CHARONS_TABLE, ""),
    };
    format!(
        "link set lo up\n\
         addr add {address}/32 dev lo\n\
         link set outer mtu {OUTER_MTU} up\n\
         link set inner mtu {INNER_MTU} up\n\
         route add default dev inner table 20\n\
         rule add pref 20 iif {opened} to {address} lookup 20\n\
         rule add pref 21 iif inner lookup {sealing}\n\
         rule add pref 30 lookup local\n\
         rule del pref 0\n\
         {way_back}"
    )
}

/// The packet filter: IKE and ESP in UDP with the gateways, and between the two sides only what is
/// or was sealed.
fn filter(gateways: &BTreeSet<Ipv4Addr>, esp: Esp) -> String {
    let list: Vec<String> = gateways.iter().map(ToString::to_string).collect();
    let gateways = list.join(", ");
    let outers = OUTERS.map(|outer| outer.to_string()).join(", ");
    let (out, back) = match esp {
        Esp::Kernel => (
            "iifname inner rt ipsec exists accept".to_owned(),
            "iifname outer meta secpath exists oifname inner accept".to_owned(),
        ),
        Esp::User => (
            format!("iifname inner oifname {SEALER} accept"),
            format!("iifname {SEALER} oifname inner accept"),
        ),
    };
    format!(
        "table inet engine {{\n\
         set gateways {{ type ipv4_addr; elements = {{ {gateways} }} }}\n\
         set outers {{ type ipv4_addr; elements = {{ {outers} }} }}\n\
         chain input {{ type filter hook input priority filter; policy drop;\n\
         iifname outer ip saddr @gateways ip daddr @outers udp sport {NAT_T} udp dport {NAT_T} accept\n}}\n\
         chain output {{ type filter hook output priority filter; policy drop;\n\
         oifname outer ip saddr @outers ip daddr @gateways udp sport {NAT_T} udp dport {NAT_T} accept\n}}\n\
         chain forward {{ type filter hook forward priority filter; policy drop;\n\
         {out}\n{back}\n}}\n}}\n"
    )
}

fn ip(lines: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe shows as the program's own exit status.
        let _ = stdin.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`ip` refused: {}", said.trim())))
}

/// `XFRM_MSG_FLUSHSA` with any protocol, and `XFRM_MSG_FLUSHPOLICY` (linux/xfrm.h).
const FLUSH_STATES: u16 = 0x1c;
const FLUSH_POLICIES: u16 = 0x1d;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// Makes the kernel forget every tunnel of the engine's network: keys and policies outlive a charon
/// that was killed.
pub(super) fn forget(xfrm: &OwnedFd) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    for (kind, body) in [(FLUSH_STATES, &[0; 4][..]), (FLUSH_POLICIES, &[])] {
        let length = u32::try_from(16 + body.len()).unwrap_or(16);
        let message = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &REQUEST.to_ne_bytes(),
            &[0; 8],
            body,
        ]
        .concat();
        sendto(xfrm, &message, SendFlags::empty(), &kernel)?;
    }
    Ok(())
}

/// Closes the keeper in, and with it charon, which sees each of `shown` besides: what, and where.
pub(super) fn close_in(
    namespace: OwnedFd,
    esp: Esp,
    user: Option<u32>,
    shown: &[(PathBuf, PathBuf)],
) -> Result<(), EngineError> {
    let calls = ("ike", &[BARE, EVENTS, MESSAGES, PROGRAMS, CHARON][..]);
    engine::close_in(namespace, user, calls, |sandbox: Sandbox| {
        let sandbox = sandbox
            // Of a network that has nothing but our two devices.
            .keep(Capabilities::TUNNELS)
            .for_programs()
            .scratch(RUN);
        let sandbox = shown.iter().fold(sandbox, |sandbox, (what, place)| {
            sandbox.show(what, place.strip_prefix("/").unwrap_or(place))
        });
        match esp {
            Esp::Kernel => sandbox,
            Esp::User => sandbox.show_device("/dev/net/tun"),
        }
    })
}

const fn socket_of(family: i32) -> Rule {
    Rule::allow(libc::SYS_socket).when(0, Is::Int(family.cast_unsigned()))
}

const fn ioctl(request: u32) -> Rule {
    Rule::allow(libc::SYS_ioctl).when(1, Is::Int(request))
}

/// What charon does beside: sockets of its network and of the kernel, files of its folder, and where
/// it seals by itself a TUN device.
const CHARON: &[Rule] = &[
    socket_of(libc::AF_UNIX),
    socket_of(libc::AF_INET),
    socket_of(libc::AF_NETLINK),
    Rule::allow(libc::SYS_socketpair).when(0, Is::Int(libc::AF_UNIX.cast_unsigned())),
    Rule::allow(libc::SYS_connect),
    Rule::allow(libc::SYS_bind),
    Rule::allow(libc::SYS_listen),
    Rule::allow(libc::SYS_accept),
    Rule::allow(libc::SYS_accept4),
    Rule::allow(libc::SYS_setsockopt),
    Rule::allow(libc::SYS_pselect6),
    Rule::allow(libc::SYS_rt_sigtimedwait),
    Rule::allow(libc::SYS_capget),
    Rule::allow(libc::SYS_capset),
    Rule::allow(libc::SYS_unlink),
    Rule::allow(libc::SYS_fstatfs),
    Rule::allow(libc::SYS_ftruncate),
    Rule::allow(libc::SYS_chown),
    Rule::allow(libc::SYS_fchown),
    Rule::allow(libc::SYS_readlinkat),
    ioctl(TUNSETIFF),
    // Whether `lo` seals in hardware (`SIOCETHTOOL`).
    ioctl(0x8946),
    // Flags (read, set) and MTU of a device.
    ioctl(0x8913),
    ioctl(0x8914),
    ioctl(0x8922),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_packets_of_the_longest_kind_fit_the_outer_device() {
        let sealed = |inner: u16| 20 + 8 + 8 + 8 + (inner + 2).next_multiple_of(4) + 16;
        assert!(sealed(INNER_MTU) <= OUTER_MTU);
        assert!(sealed(INNER_MTU + 1) > OUTER_MTU);
    }
}
