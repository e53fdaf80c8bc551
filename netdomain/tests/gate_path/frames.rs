//! Frames and packets, built by smoltcp.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::world::{GATE_MAC, GUEST, GUEST_MAC};

pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol, body: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: protocol,
        payload_len: body.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; repr.buffer_len() + body.len()];
    repr.emit(
        &mut Ipv4Packet::new_unchecked(&mut bytes),
        &ChecksumCapabilities::default(),
    );
    bytes[repr.buffer_len()..].copy_from_slice(body);
    bytes
}

pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let mut body = vec![0; repr.header_len() + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut body),
        &from.0.into(),
        &to.0.into(),
        payload.len(),
        |out| out.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ipv4(from.0, to.0, IpProtocol::Udp, &body)
}

pub fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    control: TcpControl,
    payload: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.1,
        dst_port: to.1,
        control,
        seq_number: TcpSeqNumber(sequence.cast_signed()),
        ack_number: (control != TcpControl::Syn).then_some(TcpSeqNumber(1)),
        window_len: 65_000,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut body),
        &from.0.into(),
        &to.0.into(),
        &ChecksumCapabilities::default(),
    );
    ipv4(from.0, to.0, IpProtocol::Tcp, &body)
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
