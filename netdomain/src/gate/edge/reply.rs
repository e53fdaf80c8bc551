//! One frame for the guest, built in memory that is used again and again.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket, checksum};

use crate::gate::packet::IPV4_HEADER;
use crate::gate::path::Ethernet;

/// Length of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
/// Length of a UDP header.
pub(super) const UDP_HEADER: usize = 8;
const TTL: u8 = 64;

/// The frame that answers another one. Empty: there is no answer.
#[derive(Debug, Default)]
pub struct Reply {
    frame: Vec<u8>,
}

impl Reply {
    /// An empty one with room for a frame of `mtu`.
    pub fn with_mtu(mtu: u16) -> Self {
        Self {
            frame: Vec::with_capacity(ETHERNET_HEADER + usize::from(mtu)),
        }
    }

    /// The frame, Ethernet header first; empty if there is none.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Forgets the frame.
    pub fn clear(&mut self) {
        self.frame.clear();
    }

    /// Begins a frame of this type with `len` zero bytes behind its Ethernet header, and gives
    /// those.
    pub fn ethernet(&mut self, ethernet: &Ethernet, ether_type: u16, len: usize) -> &mut [u8] {
        self.frame.clear();
        self.frame.extend_from_slice(&ethernet.to_guest(ether_type));
        self.frame.resize(ETHERNET_HEADER + len, 0);
        &mut self.frame[ETHERNET_HEADER..]
    }

    /// An IPv4 frame whose body of `len` bytes `fill` writes; it starts as zeros.
    pub fn ipv4(
        &mut self,
        ethernet: &Ethernet,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        protocol: IpProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let packet = self.ethernet(ethernet, 0x0800, IPV4_HEADER + len);
        write_ipv4(packet, (source, destination), protocol);
        fill(&mut packet[IPV4_HEADER..]);
    }

    /// A UDP datagram with this payload.
    pub fn udp(
        &mut self,
        ethernet: &Ethernet,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        payload: &[u8],
    ) {
        let len = UDP_HEADER + payload.len();
        self.ipv4(ethernet, (from.0, to.0), IpProtocol::Udp, len, |body| {
            write_udp(body, from, to, payload);
        });
    }

    /// Sends the frame to everybody instead of the guest's own address.
    pub fn broadcast(&mut self) {
        self.address_to([0xff; 6]);
    }

    /// Sends the frame to this MAC address instead of the guest's own.
    pub(super) fn address_to(&mut self, mac: [u8; 6]) {
        if let Some(destination) = self.frame.get_mut(..6) {
            destination.copy_from_slice(&mac);
        }
    }
}

/// Writes an IPv4 header over the start of `packet`, for the whole of `packet`.
pub(crate) fn write_ipv4(
    packet: &mut [u8],
    (source, destination): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
) {
    let total = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(total);
    ip.set_dont_frag(true);
    ip.set_hop_limit(TTL);
    ip.set_next_header(protocol);
    ip.set_src_addr(source);
    ip.set_dst_addr(destination);
    ip.fill_checksum();
}

/// Writes a UDP header and `payload` over `body`, which is exactly as long as both.
pub(super) fn write_udp(
    body: &mut [u8],
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    payload: &[u8],
) {
    let total = u16::try_from(body.len()).unwrap_or(u16::MAX);
    body[UDP_HEADER..].copy_from_slice(payload);
    let mut udp = UdpPacket::new_unchecked(body);
    udp.set_src_port(from.1);
    udp.set_dst_port(to.1);
    udp.set_len(total);
    udp.fill_checksum(&from.0.into(), &to.0.into());
}

/// Writes the ICMP checksum over `body`, whose checksum field is zero.
pub(super) fn fill_icmp_checksum(body: &mut [u8]) {
    let sum = !checksum::data(body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
}
