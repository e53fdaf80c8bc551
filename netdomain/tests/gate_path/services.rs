//! What the gate is to its guest: router and DHCP server.

use std::net::Ipv4Addr;

use sekisho_framelink::NetHdr;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, UdpPacket,
};

use super::frames::{checksums_hold, echo, frame, frame_from, packet_of, udp};
use super::world::{GATE_MAC, GUEST, GUEST_MAC, ROUTER, World};

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
