//! Packet sockets: whole frames of one protocol over one port, past the kernel's own tables.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use socket2::{SockFilter, SockRef};

use super::link_layer::LinkLayerAddress;

/// Longest frame taken: what fits an Ethernet wire without jumbo frames.
pub(super) const FRAME: usize = 1514;

/// Frames of one protocol over one port.
#[derive(Debug)]
pub(super) struct FrameSocket {
    fd: OwnedFd,
}

impl FrameSocket {
    /// Opens it on the interface with this index, in the caller's network namespace, for what has this
    /// Ethernet type and passes the filter (classic BPF).
    pub(super) fn open(interface: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        // Protocol 0: nothing is received until the filter is in place and the socket bound.
        let fd = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        SockRef::from(&fd).attach_filter(filter)?;
        let address = LinkLayerAddress::of(interface, ether_type).map_err(io::Error::other)?;
        bind(&fd, &address)?;
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
