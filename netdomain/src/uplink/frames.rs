//! Packet sockets: whole frames of one protocol over one port, past the kernel's own tables.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    bind, recv, send, sendto, socket_with,
};
use socket2::{SockFilter, SockRef};

/// Longest frame taken: what fits an Ethernet wire without jumbo frames.
pub(super) const FRAME: usize = 1514;

/// `struct sockaddr_ll` (packet(7)), which rustix does not know.
#[repr(C)]
struct LinkLayerAddress {
    family: u16,
    /// In network byte order.
    protocol: u16,
    interface: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkLayerAddress {
    fn new(interface: u32, ether_type: u16) -> io::Result<Self> {
        Ok(Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: ether_type.to_be(),
            interface: i32::try_from(interface).map_err(io::Error::other)?,
            hardware: 0,
            packet: 0,
            length: 0,
            address: [0; 8],
        })
    }
}

#[allow(unsafe_code)]
// SAFETY: the pointer is to a whole `LinkLayerAddress` that lives through the call of `f`, with its
// exact size, and the type has the layout of `struct sockaddr_ll` (20 bytes, no padding).
unsafe impl SocketAddrArg for LinkLayerAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        const { assert!(size_of::<LinkLayerAddress>() == 20) };
        f(std::ptr::from_ref(self).cast(), 20)
    }
}

/// Protocol 0: nothing is received until a filter is in place and the socket bound.
fn packet_socket(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, kind, flags, None)?)
}

/// Frames of one protocol over one port.
#[derive(Debug)]
pub(super) struct FrameSocket {
    fd: OwnedFd,
}

impl FrameSocket {
    /// Opens it on the interface with this index, in the caller's network namespace, for what has this
    /// Ethernet type and passes the filter (classic BPF).
    pub(super) fn open(interface: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let fd = packet_socket(SocketType::RAW)?;
        SockRef::from(&fd).attach_filter(filter)?;
        bind(&fd, &LinkLayerAddress::new(interface, ether_type)?)?;
        Ok(Self { fd })
    }

    /// Sends a frame. A full queue or a link that just went down loses it, as a wire would; whoever
    /// needs it to arrive sends again.
    pub(super) fn send(&self, frame: &[u8]) {
        if let Err(errno) = send(&self.fd, frame, SendFlags::empty()) {
            tracing::debug!(%errno, "a frame was not sent");
        }
    }

    /// The next frame, `None` when there is none now.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8; FRAME]) -> Option<&'b [u8]> {
        let (length, whole) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC).ok()?;
        // A frame longer than the buffer is cut; a cut frame does not parse.
        let _ = whole;
        Some(&buffer[..length.min(FRAME)])
    }

    /// A buffer for [`FrameSocket::receive`].
    pub(super) fn buffer() -> Box<[u8; FRAME]> {
        Box::new([0; FRAME])
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends one payload from an interface's own MAC, which the kernel writes, to a MAC.
pub(super) fn send_once(
    interface: u32,
    ether_type: u16,
    to: [u8; 6],
    payload: &[u8],
) -> io::Result<()> {
    let fd = packet_socket(SocketType::DGRAM)?;
    let mut address = LinkLayerAddress::new(interface, ether_type)?;
    address.length = 6;
    address.address[..6].copy_from_slice(&to);
    sendto(&fd, payload, SendFlags::empty(), &address)?;
    Ok(())
}
