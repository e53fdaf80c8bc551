//! Frames and packets, built by smoltcp.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, TcpControl, TcpPacket,
    UdpPacket,
};

use super::fixture::packets;
pub use super::fixture::packets::{ipv4, udp};
use super::world::{GATE_MAC, GUEST, GUEST_MAC};

pub fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    control: TcpControl,
    payload: &[u8],
) -> Vec<u8> {
    const SYN: u8 = 0x02;
    const PSH_ACK: u8 = 0x18;
    const ACK: u8 = 0x10;
    let (flags, acknowledgement) = match control {
        TcpControl::Syn => (SYN, 0),
        TcpControl::Psh => (PSH_ACK, 1),
        _ => (ACK, 1),
    };
    let options: &[u8] = if flags == SYN { &[2, 4, 5, 180] } else { &[] };
    packets::tcp(
        from,
        to,
        (sequence, acknowledgement),
        flags,
        options,
        payload,
    )
}

pub fn echo(to: Ipv4Addr, ident: u16) -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest {
        ident,
        seq_no: 1,
        data: b"sekisho",
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(
        &mut Icmpv4Packet::new_unchecked(&mut body),
        &ChecksumCapabilities::default(),
    );
    ipv4(GUEST, to, IpProtocol::Icmp, &body)
}

/// A frame from the guest to the gate.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    frame_from(GUEST_MAC, GATE_MAC, 0x0800, packet)
}

pub fn frame_from(source: [u8; 6], destination: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(14 + body.len());
    bytes.extend_from_slice(&destination);
    bytes.extend_from_slice(&source);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The IPv4 packet in a frame for the guest.
pub fn packet_of(frame: &[u8]) -> &[u8] {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.dst_addr().0, GUEST_MAC);
    assert_eq!(frame.src_addr().0, GATE_MAC);
    frame.payload()
}

/// Whether header and transport checksums of a complete packet hold.
pub fn checksums_hold(packet: &[u8]) -> bool {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    ip.verify_checksum()
        && match ip.next_header() {
            IpProtocol::Tcp => TcpPacket::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(&source, &destination),
            IpProtocol::Udp => UdpPacket::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(&source, &destination),
            IpProtocol::Icmp => Icmpv4Packet::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(),
            other => panic!("unexpected protocol {other}"),
        }
}
