//! The packet socket that one port's DHCP client talks through.
//!
//! A packet socket, because a client without an address cannot use the kernel's UDP, and because
//! the packet filter then needs no rule for DHCP at all. A socket filter lets in datagrams to UDP
//! port 68 only, so that a flood of other frames costs this process nothing.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use socket2::{SockFilter, SockRef};

use crate::uplink::link_layer::LinkLayerAddress;

/// `ETH_P_IP`.
const IPV4: u16 = 0x0800;

/// Longest frame taken: what fits an Ethernet wire without jumbo frames.
const FRAME: usize = 1514;

/// Passes untagged, unfragmented IPv4 UDP to port 68 and nothing else (classic BPF).
fn dhcp_only() -> [SockFilter; 13] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const LOAD_IP_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: a tag that the card took off.
    const VLAN_PRESENT: u32 = 0xffff_f000 + 48;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, VLAN_PRESENT),
        SockFilter::new(JUMP_EQUAL, 0, 10, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 8, 0x0800),
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(JUMP_EQUAL, 0, 6, 17),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(JUMP_SET, 4, 0, 0x3fff),
        SockFilter::new(LOAD_IP_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 16),
        SockFilter::new(JUMP_EQUAL, 0, 1, 68),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The DHCP client's socket on one port.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens it on the interface with this index, in the caller's network namespace.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0: nothing is received until the filter is in place and the socket bound.
        let fd = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        SockRef::from(&fd).attach_filter(&dhcp_only())?;
        bind(
            &fd,
            &LinkLayerAddress::of(interface, IPV4).map_err(io::Error::other)?,
        )?;
        Ok(Self { fd })
    }

    /// Sends a frame. A full queue or a link that just went down loses it, as a wire would; the
    /// client sends again.
    pub(crate) fn send(&self, frame: &[u8]) {
        if let Err(errno) = send(&self.fd, frame, SendFlags::empty()) {
            tracing::debug!(%errno, "a DHCP frame was not sent");
        }
    }

    /// The next frame, `None` when there is none now.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8; FRAME]) -> Option<&'b [u8]> {
        let (length, whole) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC).ok()?;
        // A frame longer than the buffer is cut; a cut frame does not parse.
        let _ = whole;
        Some(&buffer[..length.min(FRAME)])
    }

    /// A buffer for [`Socket::receive`].
    pub(crate) fn buffer() -> Box<[u8; FRAME]> {
        Box::new([0; FRAME])
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
