//! What the gate is to its guest: router, DHCP server, resolver.

use std::net::Ipv4Addr;

use sekisho_control::{PathId, UplinkToGate};
use sekisho_framelink::NetHdr;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, UdpPacket,
};

use super::frames::{checksums_hold, echo, frame, frame_from, packet_of, udp};
use super::world::{DNS, GATE_MAC, GUEST, GUEST_MAC, ROUTER, World};

const EVERYBODY: [u8; 6] = [0xff; 6];

fn arp(operation: ArpOperation, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    frame_from(GUEST_MAC, EVERYBODY, 0x0806, &bytes)
}

#[test]
fn every_address_is_at_the_gate_but_the_guests_own() {
    let mut world = World::new();
    for target in [
        ROUTER,
        Ipv4Addr::new(10, 250, 7, 99),
        Ipv4Addr::new(192, 0, 2, 1),
    ] {
        world.frames.clear();
        world.send(
            NetHdr::default(),
            &arp(ArpOperation::Request, GUEST, target),
        );
        world.until("an answer", |world| !world.frames.is_empty());
        let answer = EthernetFrame::new_checked(&world.frames[0].1[..]).unwrap();
        assert_eq!(answer.ethertype(), EthernetProtocol::Arp);
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            ..
        } = ArpRepr::parse(&ArpPacket::new_checked(answer.payload()).unwrap()).unwrap()
        else {
            panic!("an ARP answer");
        };
        assert_eq!(operation, ArpOperation::Reply);
        assert_eq!(source_hardware_addr.0, GATE_MAC);
        assert_eq!(source_protocol_addr, target);
    }
    world.frames.clear();
    // A probe for a duplicate of its own address (RFC 5227) must find none.
    world.send(
        NetHdr::default(),
        &arp(ArpOperation::Request, Ipv4Addr::UNSPECIFIED, GUEST),
    );
    world.settle();
    assert!(world.frames.is_empty());
}

fn dhcp(kind: DhcpMessageType, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(GUEST_MAC),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: requested,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6, 26]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes))
        .unwrap();
    let packet = udp(
        (Ipv4Addr::UNSPECIFIED, 68),
        (Ipv4Addr::BROADCAST, 67),
        &bytes,
    );
    frame_from(GUEST_MAC, EVERYBODY, 0x0800, &packet)
}

#[test]
fn dhcp_gives_the_address_of_the_device_file_while_the_gate_is_closed() {
    let mut world = World::new();
    for (asked, requested, answered) in [
        (DhcpMessageType::Discover, None, DhcpMessageType::Offer),
        (DhcpMessageType::Request, Some(GUEST), DhcpMessageType::Ack),
        (DhcpMessageType::Request, Some(ROUTER), DhcpMessageType::Nak),
    ] {
        world.frames.clear();
        world.send(NetHdr::default(), &dhcp(asked, requested));
        world.until("an answer", |world| !world.frames.is_empty());
        let packet = &world.frames[0].1[14..];
        assert!(checksums_hold(packet));
        let datagram = UdpPacket::new_checked(&packet[20..]).unwrap();
        let dhcp = DhcpPacket::new_checked(datagram.payload()).unwrap();
        let mtu = dhcp.options().find(|option| option.kind == 26);
        let answer = DhcpRepr::parse(&dhcp).unwrap();
        assert_eq!(answer.message_type, answered);
        assert_eq!(answer.transaction_id, 0x1234_5678);
        if answered != DhcpMessageType::Nak {
            assert_eq!(answer.your_ip, GUEST);
            assert_eq!(answer.router, Some(ROUTER));
            assert_eq!(answer.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
            assert_eq!(answer.dns_servers.unwrap()[..], [ROUTER]);
            assert_eq!(mtu.unwrap().data, 1420u16.to_be_bytes());
        }
    }
}

#[test]
fn the_router_answers_echo() {
    let mut world = World::new();
    world.send(NetHdr::default(), &frame(&echo(ROUTER, 77)));
    world.until("an echo", |world| !world.frames.is_empty());
    let answer = packet_of(&world.frames[0].1);
    assert_eq!(answer[20], 0, "echo reply");
    assert!(checksums_hold(answer));
    assert!(answer.ends_with(b"sekisho"));
}

/// A query for an A record of `name`.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The answer to a query: an address.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] = 0x81;
    bytes[3] = 0x80;
    bytes[7] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 12, 10, 5]);
    bytes
}

fn asked(world: &mut World, id: u16, name: &str) {
    let packet = udp((GUEST, 5353), (ROUTER, 53), &query(id, name));
    world.send(NetHdr::default(), &frame(&packet));
}

#[test]
fn t12_names_of_the_segments_are_asked_inside_and_no_others() {
    let mut world = World::connected();
    asked(&mut world, 7, "groupware.Mihon-City.example");
    world.until("the question is inside", |world| !world.inner.is_empty());
    let inner = world.inner[0].clone();
    assert_eq!(inner[16..20], DNS.octets());
    let question = UdpPacket::new_checked(&inner[20..]).unwrap();
    assert_eq!(question.dst_port(), 53);
    let own = (question.src_port(), question.payload().to_vec());

    // Forgeries first: wrong id, wrong port, wrong server, wrong question.
    let good = answer(&own.1[..query(7, "groupware.Mihon-City.example").len()]);
    let mut wrong_id = good.clone();
    wrong_id[0] ^= 1;
    let mut wrong_question = good.clone();
    wrong_question[14] ^= 1;
    for forged in [
        udp((DNS, 53), (GUEST, own.0), &wrong_id),
        udp((DNS, 53), (GUEST, own.0), &wrong_question),
        udp((DNS, 53), (GUEST, own.0 ^ 1), &good),
        udp((Ipv4Addr::new(10, 12, 0, 54), 53), (GUEST, own.0), &good),
    ] {
        world.gateway_sends(&forged);
    }
    world.settle();
    assert!(world.frames.is_empty(), "no forgery reaches the guest");

    world.gateway_sends(&udp((DNS, 53), (GUEST, own.0), &good));
    world.until("the answer is out", |world| !world.frames.is_empty());
    let out = packet_of(&world.frames[0].1);
    assert!(checksums_hold(out));
    let datagram = UdpPacket::new_checked(&out[20..]).unwrap();
    assert_eq!((datagram.src_port(), datagram.dst_port()), (53, 5353));
    assert_eq!(datagram.payload()[..2], [0, 7], "the guest's own id");
    assert_eq!(datagram.payload()[2..], good[2..]);
    assert_eq!(out[12..16], ROUTER.octets());

    // The same answer a second time answers nothing.
    world.frames.clear();
    world.gateway_sends(&udp((DNS, 53), (GUEST, own.0), &good));
    world.settle();
    assert!(world.frames.is_empty());
}

#[test]
fn t12_other_names_are_refused_at_once_and_counted() {
    let mut world = World::connected();
    for name in [
        "www.example.com",
        "notmihon-city.example",
        "mihon-city.example.evil.com",
        "a.b.c.d.e",
    ] {
        world.frames.clear();
        asked(&mut world, 9, name);
        world.until("an answer", |world| !world.frames.is_empty());
        let out = packet_of(&world.frames[0].1);
        assert!(checksums_hold(out));
        let datagram = UdpPacket::new_checked(&out[20..]).unwrap();
        assert_eq!(datagram.payload()[..2], [0, 9]);
        assert_eq!(datagram.payload()[3] & 15, 5, "REFUSED");
    }
    world.until("it is reported", |world| world.refused_by("dns-outside"));
    world.settle();
    assert!(world.inner.is_empty(), "nothing of it went inside");
}

#[test]
fn questions_that_are_none_are_dropped() {
    let mut world = World::connected();
    let mut compressed = query(1, "mihon-city.example");
    compressed[12] = 0xc0;
    let mut response = query(1, "mihon-city.example");
    response[2] = 0x80;
    let mut two = query(1, "mihon-city.example");
    two[5] = 2;
    for bad in [vec![], vec![0; 11], compressed, response, two] {
        let packet = udp((GUEST, 5353), (ROUTER, 53), &bad);
        world.send(NetHdr::default(), &frame(&packet));
    }
    world.until("they are counted", |world| world.refused_by("dns-refused"));
    world.settle();
    assert!(world.inner.is_empty() && world.frames.is_empty());
}

/// A path that was lost is read for a while; what comes out of it while the gate is closed is not
/// for the guest, an answer to its own question included.
#[test]
fn no_answer_reaches_the_guest_while_the_gate_is_closed() {
    let mut world = World::connected();
    for closed in [false, true] {
        world.inner.clear();
        world.frames.clear();
        asked(&mut world, 7, "groupware.mihon-city.example");
        world.until("the question is inside", |world| !world.inner.is_empty());
        let question = UdpPacket::new_checked(&world.inner[0][20..]).unwrap();
        let (port, own) = (question.src_port(), question.payload().to_vec());
        if closed {
            let lost = UplinkToGate::PathLost { id: PathId(1) };
            world.uplink.send(&lost, &[]).unwrap();
            world.until("the gate is closed", |world| !world.tunnelled());
        }
        let good = answer(&own[..query(7, "groupware.mihon-city.example").len()]);
        world.gateway_sends(&udp((DNS, 53), (GUEST, port), &good));
        if closed {
            world.until("it is refused", |world| world.refused_by("closed"));
            world.settle();
            assert!(world.frames.is_empty(), "an answer while closed");
        } else {
            world.until("the answer is out", |world| !world.frames.is_empty());
        }
    }
}
