//! Where the engine lives: a network of its own in which the gateways' addresses are its own, and a
//! root with nothing in it but programs.
//!
//! openconnect can only connect by itself. So it is put into a network namespace that has `lo` and
//! nothing else, where each TLS gateway's address from policy stands on `lo` and the keeper listens
//! on its port. Whatever openconnect connects to, it reaches the keeper or nobody; and the keeper
//! has no way out either, but the connections that the uplink made.

use std::fs::File;
use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use sekisho_sandbox::{
    BARE, Demand, EVENTS, Filter, Is, Landlock, MESSAGES, Network, Rule, Sandbox,
};

use super::TlsError;
use crate::program::PROGRAMS;
use crate::uplink::netlink::{NetlinkError, Routing};

/// What the new root holds besides `/usr`.
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const HANDOVER: &str = "sekisho-netdomain";

/// `LOOPBACK_IFINDEX` of Linux: `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// Programs of the distribution, and how it finds their libraries.
const SHOWN: &[&str] = &["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"];

/// Makes the network, and a listener for each gateway in it.
pub(super) fn network(gateways: &[SocketAddrV4]) -> Result<(OwnedFd, Vec<TcpListener>), TlsError> {
    let gateways = gateways.to_vec();
    // A thread of its own, which is gone before the sandbox is entered: only it changes networks.
    thread::spawn(move || {
        #[allow(unsafe_code)]
        // SAFETY: NEWNET does not touch memory or descriptors; the namespace of this thread alone
        // changes, and it ends right after.
        unsafe {
            unshare_unsafe(UnshareFlags::NEWNET)
                .map_err(|errno| TlsError::Network(errno.into()))?;
        }
        let mut routing = Routing::open()?;
        routing.set_up(LOOPBACK, true)?;
        for gateway in &gateways {
            match routing.add_address(LOOPBACK, *gateway.ip()) {
                // Two gateways may share an address.
                Err(error) if error.errno() == rustix::io::Errno::EXIST => {}
                other => other?,
            }
        }
        let listen = |gateway: &SocketAddrV4| {
            let listener = TcpListener::bind(gateway)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners: io::Result<_> = gateways.iter().map(listen).collect();
        let namespace = File::open("/proc/thread-self/ns/net").map_err(TlsError::Network)?;
        Ok((namespace.into(), listeners.map_err(TlsError::Network)?))
    })
    .join()
    .unwrap_or_else(|_| Err(TlsError::Network(io::Error::other("the thread panicked"))))
}

impl From<NetlinkError> for TlsError {
    fn from(error: NetlinkError) -> Self {
        Self::Network(io::Error::other(error))
    }
}

/// Closes the keeper in, and with it every program that it will start.
pub(super) fn close_in(
    network: OwnedFd,
    (certificate, key): (&Path, &Path),
    user: Option<u32>,
) -> Result<(), TlsError> {
    let own = std::env::current_exe().map_err(TlsError::Program)?;
    let filter = Filter::new("tls", &[BARE, EVENTS, MESSAGES, PROGRAMS, SOCKETS])?;
    let mut sandbox = Sandbox::closed()
        .network(Network::Join(network))
        // In a network without a way out; the filter knows no other kind of socket.
        .allow_tcp()
        .landlock(Demand::BestEffort)
        .show(certificate, CERTIFICATE)
        .show(key, KEY)
        .show(own, HANDOVER)
        .show_null();
    for path in SHOWN {
        if Path::new(path).symlink_metadata().is_ok() {
            sandbox = sandbox.show(path, path.trim_start_matches('/'));
        }
    }
    if let Some(user) = user {
        sandbox = sandbox.user(user, user);
    }
    let enforced = sandbox.enter()?;
    if enforced.landlock == Landlock::Absent {
        tracing::warn!("this kernel has no Landlock; the other walls stand alone");
    }
    Ok(filter.install()?)
}

const fn socket(call: i64, family: i32) -> Rule {
    Rule::allow(call).when(0, Is::Int(family.cast_unsigned()))
}

/// The sockets of the keeper, openconnect and a shell: Unix and TCP.
const SOCKETS: &[Rule] = &[
    socket(libc::SYS_socket, libc::AF_INET),
    socket(libc::SYS_socket, libc::AF_UNIX),
    socket(libc::SYS_socketpair, libc::AF_UNIX),
    Rule::allow(libc::SYS_connect),
    Rule::allow(libc::SYS_accept4),
    Rule::allow(libc::SYS_setsockopt),
    Rule::allow(libc::SYS_select),
    Rule::allow(libc::SYS_pselect6),
];
