//! The packet socket that one port's DHCP client talks through.
//!
//! A packet socket, because a client without an address cannot use the kernel's UDP, and because
//! the packet filter then needs no rule for DHCP at all. A socket filter lets in datagrams to UDP
//! port 68 only, so that a flood of other frames costs this process nothing.

use std::io;

use socket2::SockFilter;

use crate::uplink::frames::FrameSocket;

const IPV4: u16 = 0x0800;

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

/// Opens the DHCP client's socket on the interface with this index, in the caller's network namespace.
pub(crate) fn open(interface: u32) -> io::Result<FrameSocket> {
    FrameSocket::open(interface, IPV4, &dhcp_only())
}
