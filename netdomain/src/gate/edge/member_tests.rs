//! The edge of a work OS that is a member of an office LAN.

use sekisho_control::{HostName, VendorClass};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpRepr, IpProtocol,
};

use crate::gate::packet::IPV4_HEADER;

use super::reply::{UDP_HEADER, write_ipv4};
use super::*;

const HOME: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
const GATE: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 1);
const MAC: EthernetAddress = EthernetAddress([0x02, 0x53, 0x4b, 0, 7, 0x17]);
const LAN: LanPlace = LanPlace {
    address: Ipv4Addr::new(10, 12, 100, 70),
    prefix: 24,
    router: Ipv4Addr::new(10, 12, 100, 1),
};
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 5);

fn edge() -> Edge {
    let device = Device {
        address: HOME,
        prefix: 24,
        router: GATE,
        v6: None,
        mac: MAC,
        mtu: 1420,
    };
    Edge::new(device, true, Moment::default())
}

fn member() -> Edge {
    let mut edge = edge();
    edge.move_to(LAN);
    edge
}

fn ethernet(ether_type: u16, to: EthernetAddress, body: &[u8]) -> Vec<u8> {
    [&to.0[..], &MAC.0, &ether_type.to_be_bytes(), body].concat()
}

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let len = UDP_HEADER + payload.len();
    let mut packet = vec![0; IPV4_HEADER];
    packet.extend_from_slice(&from.1.to_be_bytes());
    packet.extend_from_slice(&to.1.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    write_ipv4(&mut packet, (from.0, to.0), IpProtocol::Udp);
    packet
}

/// What the edge makes of an IPv4 packet to the gate's MAC.
fn takes(edge: &mut Edge, from: Ipv4Addr, to: Ipv4Addr) -> Result<(), Rule> {
    let frame = ethernet(0x0800, GATE_MAC, &udp((from, 4000), (to, 4000), b"x"));
    let mut reply = Reply::with_mtu(1420);
    match edge.take(&NetHdr::default(), &frame, &mut reply, Moment::default()) {
        Taken::Transit(_) => Ok(()),
        Taken::Refused(refusal) => Err(refusal.rule),
        other => panic!("{other:?}"),
    }
}

#[test]
fn t35_a_member_speaks_from_the_lans_address_alone() {
    let mut edge = edge();
    assert_eq!(takes(&mut edge, HOME, SERVER), Ok(()));
    assert_eq!(takes(&mut edge, LAN.address, SERVER), Err(Rule::AntiSpoof));
    edge.move_to(LAN);
    assert_eq!(takes(&mut edge, LAN.address, SERVER), Ok(()));
    assert_eq!(takes(&mut edge, HOME, SERVER), Err(Rule::AntiSpoof));
    edge.move_to(edge.home());
    assert_eq!(takes(&mut edge, HOME, SERVER), Ok(()));
}

#[test]
fn what_is_for_all_hosts_of_the_lan_ends_at_the_gate() {
    let mut edge = member();
    for all in [[10, 12, 100, 255], [10, 12, 100, 0]] {
        let refused = takes(&mut edge, LAN.address, all.into());
        assert_eq!(refused, Err(Rule::NotServed), "{all:?}");
    }
    // One of its hosts, another LAN's broadcast as far as anybody can tell, and a LAN of two hosts.
    for one in [[10, 12, 100, 20], [10, 12, 101, 255]] {
        assert_eq!(takes(&mut edge, LAN.address, one.into()), Ok(()), "{one:?}");
    }
    edge.move_to(LanPlace { prefix: 31, ..LAN });
    let other = Ipv4Addr::new(10, 12, 100, 71);
    assert_eq!(takes(&mut edge, LAN.address, other), Ok(()));
}

fn asks(kind: DhcpMessageType, wanted: Option<Ipv4Addr>, said: &[DhcpOption<'_>]) -> Vec<u8> {
    let any = Ipv4Addr::UNSPECIFIED;
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: 7,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: any,
        your_ip: any,
        server_ip: any,
        router: None,
        subnet_mask: None,
        relay_agent_ip: any,
        broadcast: false,
        requested_ip: wanted,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: said,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut smoltcp::wire::DhcpPacket::new_unchecked(&mut bytes))
        .unwrap();
    let packet = udp((any, 68), (Ipv4Addr::BROADCAST, 67), &bytes);
    ethernet(0x0800, EthernetAddress::BROADCAST, &packet)
}

/// The answer's kind, address, router and prefix.
fn answered(edge: &mut Edge, frame: &[u8]) -> (DhcpMessageType, Ipv4Addr, Option<LanPlace>) {
    let mut reply = Reply::with_mtu(1420);
    let taken = edge.take(&NetHdr::default(), frame, &mut reply, Moment::default());
    assert!(matches!(taken, Taken::Done), "{taken:?}");
    let at = ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER;
    let packet = smoltcp::wire::DhcpPacket::new_checked(&reply.frame()[at..]).unwrap();
    let said = DhcpRepr::parse(&packet).unwrap();
    let place = said
        .router
        .zip(said.subnet_mask)
        .map(|(router, mask)| LanPlace {
            address: said.your_ip,
            prefix: u8::try_from(u32::from(mask).leading_ones()).unwrap(),
            router,
        });
    assert_eq!(said.server_identifier, Some(GATE));
    (said.message_type, said.your_ip, place)
}

#[test]
fn a_member_gets_the_lans_lease_and_loses_the_other() {
    let mut edge = edge();
    let request = |address| asks(DhcpMessageType::Request, Some(address), &[]);
    assert_eq!(answered(&mut edge, &request(HOME)).0, DhcpMessageType::Ack);
    edge.move_to(LAN);
    assert_eq!(answered(&mut edge, &request(HOME)).0, DhcpMessageType::Nak);
    let discover = asks(DhcpMessageType::Discover, None, &[]);
    let offer = answered(&mut edge, &discover);
    assert_eq!(offer, (DhcpMessageType::Offer, LAN.address, Some(LAN)));
    assert_eq!(
        answered(&mut edge, &request(LAN.address)).0,
        DhcpMessageType::Ack
    );
    edge.move_to(edge.home());
    assert_eq!(
        answered(&mut edge, &request(LAN.address)).0,
        DhcpMessageType::Nak
    );
}

#[test]
fn what_the_guest_calls_itself_is_kept_if_it_is_a_name() {
    let mut edge = edge();
    let hear = |edge: &mut Edge, host: &[u8], class: &[u8]| {
        let said = [(12, host), (60, class)].map(|(kind, data)| DhcpOption { kind, data });
        answered(edge, &asks(DhcpMessageType::Discover, None, &said));
        let member = edge.member().clone();
        (member.host, member.class)
    };
    let names = |host: &[u8], class: &[u8]| (HostName::new(host), VendorClass::new(class));
    let windows = (&b"SHIMIN-017"[..], &b"MSFT 5.0"[..]);
    assert_eq!(
        hear(&mut edge, windows.0, windows.1),
        names(windows.0, windows.1)
    );
    assert_eq!(hear(&mut edge, b"a; reboot", b"\x00\xff"), (None, None));
}

#[test]
fn every_neighbour_is_the_gate_but_the_members_own_address() {
    let edge = member();
    let ask = |sender: Ipv4Addr, target: Ipv4Addr| {
        let mut body = [0; 28];
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: MAC,
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        }
        .emit(&mut ArpPacket::new_unchecked(&mut body));
        let mut reply = Reply::with_mtu(1420);
        match edge.arp(&body, &mut reply) {
            Outcome::Done => Ok(!reply.frame().is_empty()),
            Outcome::Refused(rule) => Err(rule),
        }
    };
    for neighbour in [LAN.router, Ipv4Addr::new(10, 12, 100, 20), GATE] {
        assert_eq!(ask(LAN.address, neighbour), Ok(true), "{neighbour}");
    }
    // RFC 5227: a probe, and an announcement; and the address that it has no more.
    assert_eq!(ask(Ipv4Addr::UNSPECIFIED, LAN.address), Ok(false));
    assert_eq!(ask(LAN.address, LAN.address), Ok(false));
    assert_eq!(ask(HOME, LAN.router), Err(Rule::AntiSpoof));
}
