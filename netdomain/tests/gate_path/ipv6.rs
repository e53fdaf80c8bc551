//! IPv6 where policy names networks of it: neighbour discovery, the lease, packets both ways.

use std::net::{Ipv4Addr, Ipv6Addr};

use sekisho_framelink::{GsoType, NetHdr};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, NdiscNeighborFlags, NdiscRepr, NdiscRouterFlags, RawHardwareAddress, TcpPacket,
    UdpPacket,
};

use super::fixture::packets_v6::{icmp, icmp_raw, tcp, udp};
use super::fixture::papers::{GROUPWARE_V6, GUEST_V6, WITH_IPV6};
use super::frames::{self, frame_from};
use super::names::query_of;
use super::world::{DNS, GATE_MAC, GUEST, GUEST_MAC, MTU, ROUTER, World};

pub const GATE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x53, 0x4b);
/// A link-local address as a guest makes one.
pub const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x1234, 0x5678, 0x9abc, 0xdef0);
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A frame from the guest; multicast goes to its own MAC (RFC 2464, section 7).
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let to = Ipv6Packet::new_unchecked(packet).dst_addr();
    let [.., a, b, c, d] = to.octets();
    let mac = if to.is_multicast() {
        [0x33, 0x33, a, b, c, d]
    } else {
        GATE_MAC
    };
    frame_from(GUEST_MAC, mac, 0x86dd, packet)
}

/// The IPv6 packet in a frame for the guest.
fn packet_of(frame: &[u8]) -> Ipv6Packet<&[u8]> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.src_addr().0, GATE_MAC);
    assert_eq!(frame.ethertype(), EthernetProtocol::Ipv6);
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    let mac = frame.dst_addr();
    assert!(mac.0 == GUEST_MAC || (mac.is_multicast() && packet.dst_addr().is_multicast()));
    packet
}

pub fn world() -> World {
    let mut world = World::connected_under(WITH_IPV6);
    world.frames.clear();
    world
}

/// What the gate answers to a packet of the guest's: the first frame that is no advertisement sent
/// unasked.
pub fn answer(world: &mut World, packet: &[u8]) -> Vec<u8> {
    world.frames.clear();
    world.send(NetHdr::default(), &frame(packet));
    world.until("an answer", |world| !world.frames.is_empty());
    world.frames[0].1.clone()
}

fn discovery(frame: &[u8]) -> (Ipv6Packet<&[u8]>, NdiscRepr<'_>) {
    let packet = packet_of(frame);
    assert_eq!(packet.hop_limit(), 255);
    let message = Icmpv6Packet::new_checked(&frame[14 + 40..]).unwrap();
    assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    let repr = NdiscRepr::parse(&message).unwrap();
    (packet, repr)
}

#[test]
fn a_guest_that_asks_for_a_router_gets_one_and_no_prefix() {
    let mut world = world();
    for (source, lladdr, to) in [
        (
            LOCAL,
            Some(RawHardwareAddress::from_bytes(&GUEST_MAC)),
            LOCAL,
        ),
        (Ipv6Addr::UNSPECIFIED, None, ALL_NODES),
    ] {
        let asked = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        let frame = answer(&mut world, &icmp((source, ALL_ROUTERS), 255, &asked));
        let (packet, repr) = discovery(&frame);
        assert_eq!((packet.src_addr(), packet.dst_addr()), (GATE, to));
        let NdiscRepr::RouterAdvert {
            flags,
            router_lifetime,
            lladdr,
            mtu,
            prefix_info,
            ..
        } = repr
        else {
            panic!("{repr:?}");
        };
        assert_eq!(flags, NdiscRouterFlags::MANAGED);
        assert_eq!(router_lifetime.secs(), 1800);
        assert_eq!(lladdr.unwrap().as_bytes(), GATE_MAC);
        assert_eq!(mtu, Some(u32::from(MTU)));
        assert!(prefix_info.is_none(), "an address of its own");
    }
}

#[test]
fn the_gate_answers_for_itself_and_for_nobody_else() {
    let mut world = world();
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff53, 0x4b);
    let lladdr = Some(RawHardwareAddress::from_bytes(&GUEST_MAC));
    let ask = |target, lladdr| {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr,
        })
    };
    for (source, destination, to, lladdr) in [
        (LOCAL, solicited, LOCAL, lladdr),
        (LOCAL, GATE, LOCAL, None),
        (GUEST_V6, GATE, GUEST_V6, lladdr),
        // A probe for a duplicate of the gate's address: it is taken.
        (Ipv6Addr::UNSPECIFIED, solicited, ALL_NODES, None),
    ] {
        let asked = icmp((source, destination), 255, &ask(GATE, lladdr));
        let frame = answer(&mut world, &asked);
        let (packet, repr) = discovery(&frame);
        assert_eq!((packet.src_addr(), packet.dst_addr()), (GATE, to));
        let NdiscRepr::NeighborAdvert {
            flags,
            target_addr,
            lladdr,
        } = repr
        else {
            panic!("{repr:?}");
        };
        assert_eq!(target_addr, GATE);
        assert_eq!(lladdr.unwrap().as_bytes(), GATE_MAC);
        assert!(flags.contains(NdiscNeighborFlags::ROUTER));
        assert_eq!(
            flags.contains(NdiscNeighborFlags::SOLICITED),
            !source.is_unspecified()
        );
    }
    // Its own addresses are free, and nobody else is on this wire.
    world.frames.clear();
    let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 0x250, 7, 0, 0, 0, 0x24);
    for target in [LOCAL, GUEST_V6, neighbour, GROUPWARE_V6] {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
        let asked = icmp((Ipv6Addr::UNSPECIFIED, group), 255, &ask(target, None));
        world.send(NetHdr::default(), &frame(&asked));
    }
    world.settle();
    assert!(world.frames.is_empty(), "{:?}", world.frames);
}

/// Options of a `DHCPv6` message, in order.
pub fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let code = u16::from_be_bytes([bytes[0], bytes[1]]);
        let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        found.push((code, bytes[4..4 + len].to_vec()));
        bytes = &bytes[4 + len..];
    }
    found
}

pub fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = code.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

pub const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0x53, 0x4b, 0, 7, 0x17];

/// A client's message with these options behind its own identifier.
pub fn dhcp(kind: u8, more: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![kind, 0xa, 0xb, 0xc];
    message.extend_from_slice(&option(1, &CLIENT));
    message.extend_from_slice(&more.concat());
    udp((LOCAL, 546), (SERVERS, 547), &message)
}

pub fn association(id: u8, inner: &[Vec<u8>]) -> Vec<u8> {
    let data = [&[0, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0], &inner.concat()[..]].concat();
    option(3, &data)
}

fn address(address: Ipv6Addr) -> Vec<u8> {
    option(5, &[&address.octets()[..], &[0; 8]].concat())
}

/// Type and options of what the gate answers.
fn told(world: &mut World, packet: &[u8]) -> (u8, Vec<(u16, Vec<u8>)>) {
    let frame = answer(world, packet);
    let packet = packet_of(&frame);
    assert_eq!((packet.src_addr(), packet.dst_addr()), (GATE, LOCAL));
    let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
    assert!(datagram.verify_checksum(&GATE.into(), &LOCAL.into()));
    assert_eq!((datagram.src_port(), datagram.dst_port()), (547, 546));
    let message = datagram.payload();
    assert_eq!(message[1..4], [0xa, 0xb, 0xc]);
    (message[0], options(&message[4..]))
}

#[test]
fn there_is_one_lease_and_everybody_who_asks_gets_it() {
    let mut world = world();
    let server = [0, 3, 0, 1, 2, 0x53, 0x4b, 0xff, 0xff, 1];
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0x250, 7, 0, 0, 0, 0x99);
    let (solicit, request, renew, rebind) = (1, 3, 5, 6);
    let (advertise, reply) = (2, 7);
    let plain = association(1, &[]);
    let wants_other = association(1, &[address(other)]);
    for (kind, more, answered) in [
        (solicit, vec![plain.clone()], advertise),
        (solicit, vec![wants_other.clone()], advertise),
        (solicit, vec![option(14, &[]), plain.clone()], reply),
        (request, vec![option(2, &server), plain.clone()], reply),
        (renew, vec![option(2, &server), wants_other.clone()], reply),
        (rebind, vec![plain.clone(), association(2, &[])], reply),
    ] {
        let (number, all) = told(&mut world, &dhcp(kind, &more));
        assert_eq!(number, answered, "message {kind}");
        assert_eq!(all[0], (1, CLIENT.to_vec()));
        assert_eq!(all[1], (2, server.to_vec()));
        let lease = &all.iter().find(|(code, _)| *code == 3).unwrap().1;
        assert_eq!(lease[..4], [0, 0, 0, 1]);
        let inner = options(&lease[12..]);
        assert_eq!(inner[0].1[..16], GUEST_V6.octets());
        assert_eq!(inner[0].1[16..20], 604_800u32.to_be_bytes());
        if kind == renew {
            // What the device file does not say any more is over.
            assert_eq!(inner[1].1[..16], other.octets());
            assert_eq!(inner[1].1[16..], [0; 8]);
        }
        if kind == rebind {
            let second = &all.iter().rfind(|(code, _)| *code == 3).unwrap().1;
            assert_eq!(options(&second[12..]), [(13, vec![0, 2])]);
        }
    }
    // Confirm: what it holds is right, or it is not.
    for (held, status) in [(GUEST_V6, 0), (other, 4)] {
        let (number, all) = told(&mut world, &dhcp(4, &[association(1, &[address(held)])]));
        assert_eq!((number, &all[2]), (reply, &(13, vec![0, status])));
    }
}

#[test]
fn the_guest_hears_of_its_router_before_it_asks() {
    let mut world = World::under(WITH_IPV6);
    world.until("an advertisement", |world| !world.frames.is_empty());
    let frame = world.frames[0].1.clone();
    let (packet, repr) = discovery(&frame);
    assert_eq!(packet.dst_addr(), ALL_NODES);
    assert!(matches!(repr, NdiscRepr::RouterAdvert { .. }), "{repr:?}");
    assert_eq!(
        EthernetFrame::new_checked(&frame[..]).unwrap().dst_addr(),
        EthernetAddress([0x33, 0x33, 0, 0, 0, 1])
    );
    let count = world.frames.len();
    world.settle();
    assert_eq!(world.frames.len(), count, "once, for now");
}

#[test]
fn a_packet_goes_to_the_gateway_and_its_answer_comes_back() {
    let mut world = world();
    for (packet, back) in [
        (
            udp((GUEST_V6, 4000), (GROUPWARE_V6, 7000), b"question"),
            udp((GROUPWARE_V6, 7000), (GUEST_V6, 4000), b"answer"),
        ),
        (
            icmp_raw(
                (GUEST_V6, GROUPWARE_V6),
                64,
                &[128, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3],
            ),
            icmp_raw(
                (GROUPWARE_V6, GUEST_V6),
                64,
                &[129, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3],
            ),
        ),
    ] {
        world.inner.clear();
        world.frames.clear();
        world.send(NetHdr::default(), &frame(&packet));
        world.until("the packet is inside", |world| !world.inner.is_empty());
        assert_eq!(world.inner[0][..packet.len()], packet);
        world.gateway_sends(&back);
        world.until("the answer is out", |world| !world.frames.is_empty());
        assert_eq!(world.frames[0].1[14..], back);
    }
}

#[test]
fn a_server_reaches_the_guest_where_policy_says_so() {
    let mut world = world();
    let inventory = Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 0x70);
    let syn = tcp((inventory, 5000), (GUEST_V6, 135), (1, 0), SYN, &[], &[]);
    world.gateway_sends(&syn);
    world.until("the SYN is out", |world| !world.frames.is_empty());
    assert_eq!(world.frames[0].1[14..], syn);
    world.frames.clear();
    let syn = tcp((inventory, 5000), (GUEST_V6, 136), (1, 0), SYN, &[], &[]);
    world.gateway_sends(&syn);
    world.until("a refusal", |world| world.refused_by("default-deny"));
    assert!(world.frames.is_empty());
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A super-frame crosses both ways: cut on the way out, joined on the way in.
#[test]
fn super_frames_cross_whole() {
    let mut world = world();
    let payload = noise(20_000);
    let ends = ((GUEST_V6, 4000), (GROUPWARE_V6, 443));
    let whole = tcp(ends.0, ends.1, (1, 1), ACK | PSH, &[], &payload);
    let header = NetHdr::partial_csum(54, 16).with_gso(GsoType::TcpV6, 1360, 74);
    world.send(header, &frame(&whole));
    let segments = payload.len().div_ceil(1360);
    world.until("all segments", |world| world.inner.len() == segments);
    for (packet, piece) in world.inner.iter().zip(payload.chunks(1360)) {
        let ip = Ipv6Packet::new_checked(&packet[..]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&GUEST_V6.into(), &GROUPWARE_V6.into()));
        assert_eq!(tcp.payload(), piece);
        assert!(ip.total_len() <= usize::from(MTU));
    }

    let mut came = Vec::new();
    for (index, piece) in payload.chunks(1360).enumerate() {
        let sequence = u32::try_from(1 + index * 1360).unwrap();
        let segment = tcp(ends.1, ends.0, (sequence, 20_001), ACK, &[], piece);
        world.gateway_sends(&segment);
    }
    world.frames.clear();
    world.until("all of it", |world| {
        came = world
            .frames
            .iter()
            .flat_map(|(_, f)| f[74..].to_vec())
            .collect();
        came.len() == payload.len()
    });
    assert_eq!(came, payload);
    assert!(
        world
            .frames
            .iter()
            .any(|(header, _)| header.gso() == Some(GsoType::TcpV6)),
        "nothing was joined"
    );
    for (header, frame) in &world.frames {
        let packet = packet_of(frame);
        assert_eq!(packet.next_header(), IpProtocol::Tcp);
        if header.gso() == Some(GsoType::TcpV6) {
            assert_eq!((header.csum_start, header.csum_offset), (54, 16));
            assert_eq!((header.gso_size, header.hdr_len), (1360, 74));
        }
    }
}

/// What does not fit is told (RFC 8201), and what TCP agrees on does fit.
#[test]
fn sizes_are_the_tunnels() {
    let mut world = world();
    let long = udp((GUEST_V6, 4000), (GROUPWARE_V6, 7000), &noise(1400));
    let frame_in = answer(&mut world, &long);
    let packet = packet_of(&frame_in);
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    let Ok(Icmpv6Repr::PktTooBig { mtu, header, .. }) = Icmpv6Repr::parse(
        &packet.src_addr(),
        &packet.dst_addr(),
        &message,
        &smoltcp::phy::ChecksumCapabilities::ignored(),
    ) else {
        panic!("packet too big");
    };
    assert_eq!((mtu, header.src_addr), (u32::from(MTU), GUEST_V6));

    let options = [2, 4, 5, 180];
    let ends = ((GUEST_V6, 4000), (GROUPWARE_V6, 443));
    let syn = tcp(ends.0, ends.1, (1, 0), SYN, &options, &[]);
    world.send(NetHdr::default(), &frame(&syn));
    world.until("the SYN is inside", |world| !world.inner.is_empty());
    let ip = Ipv6Packet::new_checked(&world.inner[0][..]).unwrap();
    let segment = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(segment.verify_checksum(&GUEST_V6.into(), &GROUPWARE_V6.into()));
    assert_eq!(segment.options()[..4], [2, 4, 5, 80], "1360");
}

#[test]
fn an_echo_to_the_router_is_answered() {
    let mut world = world();
    let ping = [128, 0, 0, 0, 0, 9, 0, 1, b'h', b'i'];
    let frame = answer(&mut world, &icmp_raw((LOCAL, GATE), 64, &ping));
    let packet = packet_of(&frame);
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    assert!(message.verify_checksum(&GATE, &LOCAL));
    assert_eq!(packet.payload()[..2], [129, 0]);
    assert_eq!(packet.payload()[4..], ping[4..]);
}

/// Names have their addresses of IPv6 where that is carried, and an answer that leads elsewhere is
/// refused as one of IPv4 is.
#[test]
fn a_name_leads_to_addresses_of_ipv6_inside_the_segments_only() {
    const AAAA: u16 = 28;
    let outside = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);
    let mapped = Ipv4Addr::new(10, 12, 10, 5).to_ipv6_mapped();
    let mut world = world();
    for (id, address, passes) in [
        (7, GROUPWARE_V6, true),
        (8, outside, false),
        (9, mapped, false),
    ] {
        world.inner.clear();
        world.frames.clear();
        let query = query_of(id, "six.mihon-city.example", AAAA);
        let packet = frames::udp((GUEST, 5353), (ROUTER, 53), &query);
        world.send(NetHdr::default(), &frames::frame(&packet));
        world.until("the question is inside", |world| !world.inner.is_empty());
        let inner = world.inner[0].clone();
        let question = UdpPacket::new_checked(&inner[20..]).unwrap();
        let mut answer = question.payload()[..query.len()].to_vec();
        answer[2] = 0x81;
        answer[3] = 0x80;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
        answer.extend_from_slice(&address.octets());
        let back = frames::udp((DNS, 53), (GUEST, question.src_port()), &answer);
        world.gateway_sends(&back);
        world.until("an answer", |world| !world.frames.is_empty());
        let told = &world.frames[0].1;
        assert_eq!(told.ends_with(&address.octets()), passes, "{address}");
        assert_eq!(world.refused_by("dns-rebinding"), !passes, "{address}");
    }
}
