//! The gate from the guest's frame to the gateway's packet and back, with a real link, real UDP
//! sockets and a real `WireGuard` session, in one thread.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a test reports a failure by panicking; its numbers are small, its modules its own"
)]

mod bandwidth;
mod direct;
mod engine;
mod failover;
#[path = "../fixture/mod.rs"]
mod fixture;
mod frames;
mod hostile;
mod ipv6;
mod ipv6_hostile;
mod knocking;
mod lengths;
mod names;
mod names_tcp;
mod ncsi;
mod services;
#[path = "../fixture/tun.rs"]
mod tun;
mod world;

use sekisho_framelink::{GsoType, NetHdr};
use smoltcp::wire::{Ipv4Packet, TcpControl, TcpPacket};

use frames::{checksums_hold, frame, packet_of, tcp, udp};
use world::{GROUPWARE, GUEST, World};

#[test]
fn a_packet_goes_to_the_gateway_and_its_answer_comes_back() {
    let mut world = World::connected();
    let packet = udp((GUEST, 4000), (GROUPWARE, 7000), b"question");
    world.send(NetHdr::default(), &frame(&packet));
    world.until("the packet is inside", |world| !world.inner.is_empty());
    let seen = &world.inner[0][..packet.len()];
    assert_eq!(seen, packet, "padding aside, the packet is the guest's");

    world.gateway_sends(&udp((GROUPWARE, 7000), (GUEST, 4000), b"answer"));
    world.until("the answer is out", |world| !world.frames.is_empty());
    let answer = packet_of(&world.frames[0].1);
    assert!(answer.ends_with(b"answer"));
    assert!(checksums_hold(answer));
}

/// Payload that differs everywhere.
fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A super-frame as a guest's kernel leaves it: checksum field with the pseudo-header only.
fn super_frame(payload: &[u8], mss: u16) -> (NetHdr, Vec<u8>) {
    let packet = tcp(
        (GUEST, 4000),
        (GROUPWARE, 443),
        1000,
        TcpControl::Psh,
        payload,
    );
    let header = NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, mss, 54);
    (header, frame(&packet))
}

#[test]
fn a_super_frame_is_cut_sealed_and_leaves_whole() {
    let mut world = World::connected();
    let payload = noise(60_000);
    let (header, bytes) = super_frame(&payload, 1380);
    world.send(header, &bytes);
    world.until("all segments are inside", |world| world.inner.len() == 44);

    let mut assembled = Vec::new();
    for (index, inner) in world.inner.iter().enumerate() {
        let len = usize::from(Ipv4Packet::new_checked(&inner[..]).unwrap().total_len());
        let inner = &inner[..len];
        assert!(len <= 1420);
        assert!(checksums_hold(inner), "segment {index}");
        let segment = TcpPacket::new_checked(&inner[20..]).unwrap();
        assert_eq!(segment.seq_number().0, 1000 + assembled.len() as i32);
        assert_eq!(segment.psh(), index == 43, "PSH on the last segment only");
        assembled.extend_from_slice(segment.payload());
    }
    assert_eq!(assembled, payload);
}

#[test]
fn a_stream_from_the_gateway_arrives_as_super_frames() {
    let mut world = World::connected();
    let (_, opening) = super_frame(&noise(100), 1380);
    world.send(NetHdr::default(), &opening);
    world.until("the connection is known", |world| !world.inner.is_empty());

    let payload = noise(1380 * 40 + 100);
    for (index, piece) in payload.chunks(1380).enumerate() {
        let sequence = 1 + (index * 1380) as u32;
        let control = TcpControl::None;
        world.gateway_sends(&tcp(
            (GROUPWARE, 443),
            (GUEST, 4000),
            sequence,
            control,
            piece,
        ));
    }
    let mut assembled = Vec::new();
    world.until("the stream is out", |world| {
        for (header, bytes) in world.frames.drain(..) {
            let packet = packet_of(&bytes);
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum());
            let segment = TcpPacket::new_checked(ip.payload()).unwrap();
            assert_eq!(segment.seq_number().0, 1 + assembled.len() as i32);
            if segment.payload().len() > 1380 {
                assert_eq!(header.gso(), Some(GsoType::TcpV4));
                assert_eq!(header.gso_size, 1380);
                assert!(header.needs_csum());
            }
            assembled.extend_from_slice(segment.payload());
        }
        assembled.len() == payload.len()
    });
    assert_eq!(assembled, payload);
}
