//! Packets that are too long, in pieces, or for many.

use std::net::Ipv4Addr;

use sekisho_framelink::NetHdr;
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpControl};

use super::frames::{checksums_hold, frame, frame_from, ipv4, packet_of, tcp, udp};
use super::world::{GATE_MAC, GROUPWARE, GUEST, GUEST_MAC, MTU, World};

/// The same packet with DF as said, checksum corrected.
fn fragmentable(mut packet: Vec<u8>, may_be_cut: bool) -> Vec<u8> {
    let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
    ip.set_dont_frag(!may_be_cut);
    ip.fill_checksum();
    packet
}

#[test]
fn a_packet_that_is_too_long_is_told_how_much_fits() {
    let mut world = World::connected();
    let long = udp((GUEST, 4000), (GROUPWARE, 7000), &[7; 1420 - 28 + 1]);
    let fits = udp((GUEST, 4000), (GROUPWARE, 7000), &[7; 1420 - 28]);
    let long = fragmentable(long, false);
    world.send(NetHdr::default(), &frame(&long));
    world.until("the guest is told", |world| !world.frames.is_empty());
    let told = packet_of(&world.frames[0].1);
    assert!(checksums_hold(told));
    assert_eq!(told[20..22], [3, 4], "fragmentation needed");
    assert_eq!(told[26..28], MTU.to_be_bytes());
    assert_eq!(told[28..48], long[..20], "it quotes the packet");
    world.until("it is counted", |world| world.refused_by("too-long"));

    // One that may be cut is dropped without a word; one that fits passes.
    world.frames.clear();
    world.send(NetHdr::default(), &frame(&fragmentable(long, true)));
    world.send(NetHdr::default(), &frame(&fits));
    world.until("what fits is inside", |world| !world.inner.is_empty());
    world.settle();
    assert_eq!(world.inner.len(), 1);
    assert!(world.frames.is_empty());
}

#[test]
fn fragments_stay_outside_on_both_sides_and_are_counted() {
    let whole = udp((GROUPWARE, 7000), (GUEST, 4000), &[7; 64]);
    for (more, offset) in [(true, 0), (false, 8), (true, 8)] {
        let mut world = World::connected();
        let request = udp((GUEST, 4000), (GROUPWARE, 7000), b"go");
        world.send(NetHdr::default(), &frame(&request));
        world.until("the connection is known", |world| !world.inner.is_empty());
        let piece = |packet: &[u8]| {
            let mut packet = packet.to_vec();
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_dont_frag(false);
            ip.set_more_frags(more);
            ip.set_frag_offset(offset);
            ip.fill_checksum();
            packet
        };
        // The gateway's first, so that the report can only be about that one.
        world.gateway_sends(&piece(&whole));
        world.until("it is counted", |world| world.refused_by("fragment"));
        world.reports.clear();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        world.send(NetHdr::default(), &frame(&piece(&request)));
        world.until("it is counted", |world| world.refused_by("fragment"));
        // The control: the same packet in one piece.
        world.gateway_sends(&whole);
        world.until("the whole is out", |world| !world.frames.is_empty());
        world.settle();
        assert_eq!((world.frames.len(), world.inner.len()), (1, 1));
    }
}

/// The MSS option of a SYN, if its checksum holds.
fn mss(packet: &[u8]) -> u16 {
    assert!(checksums_hold(packet));
    assert_eq!(packet[40..42], [2, 4], "the option");
    u16::from_be_bytes([packet[42], packet[43]])
}

#[test]
fn segments_that_the_tunnel_cannot_carry_are_not_agreed_on_either_way() {
    let mut world = World::connected();
    let syn = |from, to| tcp(from, to, 1, TcpControl::Syn, b"");
    let out = syn((GUEST, 4000), (GROUPWARE, 443));
    assert_eq!(mss(&out), 1460);
    world.send(NetHdr::default(), &frame(&out));
    world.until("the SYN is inside", |world| !world.inner.is_empty());
    assert_eq!(mss(&world.inner[0][..44]), MTU - 40);
    let inventory = Ipv4Addr::new(10, 12, 0, 70);
    world.gateway_sends(&syn((inventory, 5000), (GUEST, 135)));
    world.until("the other is out", |world| !world.frames.is_empty());
    assert_eq!(mss(packet_of(&world.frames[0].1)), MTU - 40);
}

/// Multicast and broadcast, by the addresses that the guest's own programs use, sent as Ethernet
/// says and straight at the gate: nothing passes, nothing is answered (RFC 1122, section 3.2.2).
#[test]
fn what_is_meant_for_many_ends_at_the_gate() {
    let mut world = World::connected();
    for to in [
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(224, 0, 0, 252),
        Ipv4Addr::new(239, 255, 255, 250),
        Ipv4Addr::new(10, 250, 7, 255),
        Ipv4Addr::BROADCAST,
    ] {
        let [_, b, c, d] = to.octets();
        let group = if to.is_multicast() {
            [1, 0, 0x5e, b & 0x7f, c, d]
        } else {
            [0xff; 6]
        };
        let packet = udp((GUEST, 4000), (to, 1900), b"many");
        let member = ipv4(
            GUEST,
            to,
            IpProtocol::Igmp,
            &[0x16, 0, 0, 0, 224, 0, 0, 251],
        );
        for destination in [group, GATE_MAC] {
            for packet in [&packet, &member] {
                let frame = frame_from(GUEST_MAC, destination, 0x0800, packet);
                world.send(NetHdr::default(), &frame);
            }
        }
    }
    let honest = udp((GUEST, 4000), (GROUPWARE, 7000), b"honest");
    world.send(NetHdr::default(), &frame(&honest));
    world.until("the honest packet is inside", |world| {
        !world.inner.is_empty()
    });
    world.gateway_sends(&udp(
        (GROUPWARE, 7000),
        (Ipv4Addr::BROADCAST, 4000),
        b"many",
    ));
    world.settle();
    assert_eq!(world.inner.len(), 1, "only the honest packet");
    assert!(world.frames.is_empty(), "no answer, nothing from outside");
    assert!(world.refused_by("not-served"));
}
