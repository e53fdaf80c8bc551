//! Where the engine lives: a network of its own in which the gateways' addresses are its own, and a
//! root with nothing in it but programs.
//!
//! openconnect can only connect by itself. So it is put into a network namespace that has `lo` and
//! nothing else, where each TLS gateway's address from policy stands on `lo` and the keeper listens
//! on its port. Whatever openconnect connects to, it reaches the keeper or nobody; and the keeper
//! has no way out either, but the connections that the uplink made.

use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

use sekisho_sandbox::{BARE, EVENTS, Is, MESSAGES, Rule, Sandbox};

use super::{Args, TlsError};
use crate::engine::{self, EngineError};
use crate::program::PROGRAMS;
use crate::uplink::netlink::Routing;

/// What the new root holds besides `/usr`.
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const HANDOVER: &str = "sekisho-netdomain";

/// `LOOPBACK_IFINDEX` of Linux: `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// Makes the network, and a listener for each gateway in it.
pub(super) fn network(
    gateways: Vec<SocketAddrV4>,
) -> Result<(OwnedFd, Vec<TcpListener>), EngineError> {
    engine::in_network(move || {
        let mut routing = Routing::open().map_err(io::Error::other)?;
        routing.set_up(LOOPBACK, true).map_err(io::Error::other)?;
        for gateway in &gateways {
            match routing.add_address(LOOPBACK, *gateway.ip()) {
                // Two gateways may share an address.
                Err(error) if error.errno() == rustix::io::Errno::EXIST => {}
                other => other.map_err(io::Error::other)?,
            }
        }
        let listen = |gateway: &SocketAddrV4| {
            let listener = TcpListener::bind(gateway)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        gateways.iter().map(listen).collect()
    })
}

/// Closes the keeper in, and with it every program that it will start.
pub(super) fn close_in(network: OwnedFd, args: &Args) -> Result<(), TlsError> {
    let own = std::env::current_exe().map_err(TlsError::Program)?;
    let calls = ("tls", &[BARE, EVENTS, MESSAGES, PROGRAMS, SOCKETS][..]);
    let furnish = |sandbox: Sandbox| {
        sandbox
            // In a network without a way out; the filter knows no other kind of socket.
            .allow_tcp()
            .show(&args.engine.certificate, CERTIFICATE)
            .show(&args.key, KEY)
            .show(own, HANDOVER)
    };
    Ok(engine::close_in(network, args.engine.user, calls, furnish)?)
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
