//! The sockets that are handed to the gate: bound to one port, connected to one address.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use socket2::{Domain, Protocol, Socket, Type};

/// Room for what arrives while the gate is busy elsewhere: about 5 ms at 10 Gbit/s, and some
/// hundred of the kernel's 64 KiB aggregates.
const BUFFER: usize = 8 << 20;

/// A UDP socket to a gateway: non-blocking, on this port alone, from this address alone.
pub(crate) fn open_path(port: &str, source: Ipv4Addr, peer: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    // Without CAP_NET_ADMIN over the first user namespace the kernel's limit holds; slower, not
    // wrong.
    let _ = set_socket_recv_buffer_size_force(&socket, BUFFER).or_else(|_| {
        socket
            .set_recv_buffer_size(BUFFER)
            .map_err(|_| rustix::io::Errno::PERM)
    });
    let _ = set_socket_send_buffer_size_force(&socket, BUFFER).or_else(|_| {
        socket
            .set_send_buffer_size(BUFFER)
            .map_err(|_| rustix::io::Errno::PERM)
    });
    socket.bind_device(Some(port.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// A TCP socket that is connecting to the beacon or to a gateway: non-blocking, on this port alone,
/// from this address alone.
pub(crate) fn open_stream(port: &str, source: Ipv4Addr, peer: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // The beacon's proof is bounded in time, and a tunnel waits for no further packet: what is sent
    // must leave at once.
    socket.set_tcp_nodelay(true)?;
    socket.bind_device(Some(port.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    match socket.connect(&peer.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}
