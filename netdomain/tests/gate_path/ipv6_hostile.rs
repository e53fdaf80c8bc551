//! A work OS, and a network behind the gateway, that attack by IPv6 where policy names networks of it
//! (T05, T35, T38 and what the RFCs imply): nothing passes but an honest packet to an allowed place.

use std::net::{Ipv4Addr, Ipv6Addr};

use sekisho_framelink::{GsoType, NetHdr};
use smoltcp::wire::IpProtocol;

use super::fixture::packets_v6::{extended, icmp_raw, ipv6, tcp, udp};
use super::fixture::papers::{GROUPWARE_V6, GUEST_V6};
use super::frames::{frame as frame_v4, frame_from, ipv4};
use super::ipv6::{
    ALL_NODES, ALL_ROUTERS, CLIENT, GATE, LOCAL, SERVERS, association, dhcp, frame, option, world,
};
use super::world::{GROUPWARE, GUEST, GUEST_MAC, World};

const SYN: u8 = 0x02;
const NO_OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn honest() -> Vec<u8> {
    udp((GUEST_V6, 4000), (GROUPWARE_V6, 7000), b"honest")
}

/// The guest sends `packets`, each of which this rule refuses; an honest one gets through, nothing
/// else does, and none of them is answered unless `answered`.
#[track_caller]
fn go_nowhere(world: &mut World, rule: &str, packets: &[Vec<u8>], answered: bool) {
    world.inner.clear();
    world.frames.clear();
    let before = refused(world, rule);
    for packet in packets {
        world.send(NetHdr::default(), &frame(packet));
    }
    world.until(rule, |world| {
        refused(world, rule) >= before + packets.len() as u64
    });
    only_the_honest_packet_arrives(world);
    assert!(answered || world.frames.is_empty(), "{:?}", world.frames);
}

#[track_caller]
fn only_the_honest_packet_arrives(world: &mut World) {
    world.send(NetHdr::default(), &frame(&honest()));
    world.until("the honest packet is inside", |world| {
        !world.inner.is_empty()
    });
    world.settle();
    for inner in &world.inner {
        assert_eq!(inner[..honest().len()], honest(), "only the honest packet");
    }
}

fn refused(world: &World, rule: &str) -> u64 {
    world
        .reports
        .iter()
        .filter_map(|report| match report {
            sekisho_control::Report::Refused(refused) if refused.rule == rule => {
                Some(refused.count)
            }
            _ => None,
        })
        .sum()
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn t35_forged_sources_of_ipv6_go_nowhere() {
    let mut world = world();
    let forged: Vec<_> = [
        "2001:db8:250:7::24",
        "2001:db8:12:10::6",
        "fe80::1234:5678:9abc:def0",
        "fe80::53:4b",
        "::",
        "::1",
        "ff02::1",
        "ff0e::1",
        // Addresses of IPv4 in those of IPv6: mapped, compatible, 6to4, Teredo, ISATAP, NAT64.
        "::ffff:10.250.7.23",
        "::10.250.7.23",
        "2002:afa:717::1",
        "2001:0:afa:717::1",
        "2001:db8:250:7:0:5efe:10.250.7.23",
        "64:ff9b::10.250.7.23",
    ]
    .into_iter()
    .map(|source| udp((address(source), 4000), (GROUPWARE_V6, 7000), b"forged"))
    .collect();
    go_nowhere(&mut world, "anti-spoof", &forged, false);
}

#[test]
fn destinations_that_policy_does_not_name_are_refused_and_told() {
    let mut world = world();
    let elsewhere: Vec<_> = [
        "2001:db8:12:11::5",
        "2001:db8::80",
        "::1",
        "::",
        "fe80::1",
        "::ffff:10.12.10.5",
        "::10.12.10.5",
        "2002:a0c:a05::1",
        "2001:0:a0c:a05::1",
        "64:ff9b::10.12.10.5",
        "fec0:0:0:ffff::1",
    ]
    .into_iter()
    .map(|to| udp((GUEST_V6, 4000), (address(to), 7000), b"elsewhere"))
    .collect();
    go_nowhere(&mut world, "default-deny", &elsewhere, true);
    assert!(!world.frames.is_empty(), "the guest is told");
}

#[test]
fn extension_headers_and_fragments_are_refused_whatever_they_hold() {
    let mut world = world();
    let plain = honest();
    let mut odd: Vec<_> = [0, 43, 60, 51, 135, 139, 140, 253, 254]
        .into_iter()
        .map(|number| extended(&plain, number, &NO_OPTIONS))
        .collect();
    // A routing header of type 0 by way of a host that is allowed (RFC 5095).
    let mut routing = vec![0, 2, 0, 1, 0, 0, 0, 0];
    routing.extend_from_slice(&address("2001:db8:12:99::1").octets());
    odd.push(extended(&plain, 43, &routing));
    // Fragments: first, later, last, and one that is whole ("atomic", RFC 6946).
    for word in [0x0001u16, 0x0009, 0x0008, 0x0000] {
        let [high, low] = word.to_be_bytes();
        odd.push(extended(&plain, 44, &[0, 0, high, low, 0, 0, 0, 1]));
    }
    // Long chains, and one that only says that another follows.
    let mut chain = plain.clone();
    for _ in 0..100 {
        chain = extended(&chain, 60, &NO_OPTIONS);
    }
    odd.push(chain);
    let mut empty = ipv6((GUEST_V6, GROUPWARE_V6), IpProtocol::HopByHop, 64, &[]);
    empty[6] = 0;
    odd.push(empty);
    go_nowhere(&mut world, "fragment", &odd, false);

    // The same out of the tunnel.
    let before = refused(&world, "fragment");
    let back = udp((GROUPWARE_V6, 7000), (GUEST_V6, 4000), b"back");
    for number in [0, 43, 44, 60] {
        world.gateway_sends(&extended(&back, number, &NO_OPTIONS));
    }
    world.until("refusals", |world| refused(world, "fragment") >= before + 4);
    assert!(world.frames.is_empty());
    world.gateway_sends(&back);
    world.until("the answer", |world| !world.frames.is_empty());
}

#[test]
fn other_protocols_are_not_carried_nor_ipv6_within_ipv4() {
    let mut world = world();
    let inner = honest();
    let within: Vec<_> = [4, 41, 47, 50, 59, 132]
        .into_iter()
        .map(|number| {
            ipv6(
                (GUEST_V6, GROUPWARE_V6),
                IpProtocol::from(number),
                64,
                &inner,
            )
        })
        .collect();
    go_nowhere(&mut world, "not-served", &within, true);

    let before = refused(&world, "not-served");
    world.inner.clear();
    for to in [GROUPWARE, Ipv4Addr::new(192, 88, 99, 1)] {
        let packet = ipv4(GUEST, to, IpProtocol::from(41), &inner);
        world.send(NetHdr::default(), &frame_v4(&packet));
    }
    world.until("refusals", |world| {
        refused(world, "not-served") >= before + 2
    });
    only_the_honest_packet_arrives(&mut world);
}

#[test]
fn t38_a_guest_that_plays_a_router_of_ipv6_is_ignored() {
    let mut world = world();
    let mut advertisement = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    advertisement.extend_from_slice(&[1, 1]);
    advertisement.extend_from_slice(&GUEST_MAC);
    let redirect = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 32]].concat();
    let neighbour = |target: Ipv6Addr| {
        [
            &[136, 0, 0, 0, 0xe0, 0, 0, 0][..],
            &target.octets(),
            &[2, 1],
            &GUEST_MAC,
        ]
        .concat()
    };
    let offer = [&[7, 0xa, 0xb, 0xc][..], &option(1, &CLIENT)].concat();
    let played = [
        icmp_raw((LOCAL, ALL_NODES), 255, &advertisement),
        icmp_raw((GUEST_V6, GATE), 255, &advertisement),
        icmp_raw((LOCAL, GATE), 255, &redirect),
        icmp_raw((LOCAL, ALL_NODES), 255, &neighbour(GATE)),
        icmp_raw((LOCAL, ALL_NODES), 255, &neighbour(GROUPWARE_V6)),
        udp((LOCAL, 547), (ALL_NODES, 546), &offer),
    ];
    go_nowhere(&mut world, "impostor", &played, false);
    // The gate's own address is not the guest's to speak from.
    let as_gate = [icmp_raw((GATE, ALL_NODES), 255, &advertisement)];
    go_nowhere(&mut world, "anti-spoof", &as_gate, false);
}

/// RFC 4861, sections 6.1.1 and 7.1.1: what was forwarded, or is not in form, is no discovery.
#[test]
fn discovery_that_is_not_in_form_is_not_answered() {
    let mut world = world();
    let solicit = |target: Ipv6Addr, options: &[u8]| {
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
    };
    let mac = [&[1, 1][..], &GUEST_MAC].concat();
    let good = solicit(GATE, &mac);
    let solicited = address("ff02::1:ff53:4b");
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let router = [133, 0, 0, 0, 0, 0, 0, 0];
    let mut coded = good.clone();
    coded[1] = 1;
    let mut broken = icmp_raw((LOCAL, GATE), 255, &good);
    *broken.last_mut().unwrap() ^= 1;
    let odd = [
        icmp_raw((LOCAL, GATE), 254, &good),
        icmp_raw((LOCAL, GATE), 1, &good),
        icmp_raw((LOCAL, GATE), 255, &coded),
        broken,
        icmp_raw((LOCAL, GATE), 255, &good[..20]),
        icmp_raw((LOCAL, GATE), 255, &solicit(ALL_NODES, &mac)),
        icmp_raw(
            (LOCAL, GATE),
            255,
            &solicit(GATE, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ),
        icmp_raw(
            (LOCAL, GATE),
            255,
            &solicit(GATE, &[1, 2, 0, 0, 0, 0, 0, 0]),
        ),
        icmp_raw((LOCAL, GATE), 255, &solicit(GATE, &[1])),
        icmp_raw((LOCAL, ALL_NODES), 255, &good),
        icmp_raw((unspecified, solicited), 255, &good),
        icmp_raw((unspecified, GATE), 255, &solicit(GATE, &[])),
        icmp_raw((LOCAL, ALL_ROUTERS), 64, &router),
        icmp_raw((LOCAL, ALL_ROUTERS), 255, &router[..6]),
        icmp_raw(
            (unspecified, ALL_ROUTERS),
            255,
            &[&router[..], &mac].concat(),
        ),
    ];
    go_nowhere(&mut world, "malformed", &odd, false);
}

#[test]
fn messages_of_dhcpv6_that_are_not_in_form_are_not_answered() {
    let mut world = world();
    let datagram = |message: &[u8]| udp((LOCAL, 546), (SERVERS, 547), message);
    let server = option(2, &[0, 3, 0, 1, 2, 0x53, 0x4b, 0xff, 0xff, 1]);
    let lease = association(1, &[]);
    let mut broken = dhcp(1, std::slice::from_ref(&lease));
    *broken.last_mut().unwrap() ^= 1;
    let mut without_sum = dhcp(1, std::slice::from_ref(&lease));
    without_sum[46..48].fill(0);
    let odd = [
        datagram(&[]),
        datagram(&[1, 0, 0]),
        datagram(&[1, 0xa, 0xb, 0xc]),
        datagram(&[&[99, 0xa, 0xb, 0xc][..], &option(1, &CLIENT)].concat()),
        datagram(&[&[1, 0xa, 0xb, 0xc][..], &option(1, &[0; 131])].concat()),
        dhcp(1, &[option(1, &CLIENT)]),
        // With a server where there must be none, and the other way about.
        dhcp(1, &[server.clone(), lease.clone()]),
        dhcp(3, std::slice::from_ref(&lease)),
        dhcp(1, &[vec![0, 3, 0, 200, 0]]),
        dhcp(1, &[option(3, &[0; 11])]),
        broken,
        without_sum,
    ];
    go_nowhere(&mut world, "malformed", &odd, false);
    // For another server: no answer, and no fault.
    world.frames.clear();
    let elsewhere = dhcp(3, &[option(2, &[9; 10]), lease.clone()]);
    world.send(NetHdr::default(), &frame(&elsewhere));
    only_the_honest_packet_arrives(&mut world);
    assert!(world.frames.is_empty());
    // From an address that is none of the guest's on this wire.
    let message = [&[1, 0xa, 0xb, 0xc][..], &option(1, &CLIENT), &lease].concat();
    let from = Ipv6Addr::UNSPECIFIED;
    let odd = [udp((from, 546), (SERVERS, 547), &message)];
    go_nowhere(&mut world, "not-served", &odd, false);
}

#[test]
fn multicast_ends_here() {
    let mut world = world();
    let report = [143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
    let mut groups: Vec<_> = [
        "ff01::1",
        "ff02::1",
        "ff02::fb",
        "ff02::1:3",
        "ff05::1:3",
        "ff08::1",
        "ff0e::1",
        "ff00::1",
        "ff3e:20:2001:db8::1",
    ]
    .into_iter()
    .map(|group| udp((GUEST_V6, 5353), (address(group), 5353), b"group"))
    .collect();
    let router_alert = [0, 0, 5, 2, 0, 0, 1, 0];
    let plain = icmp_raw((LOCAL, address("ff02::16")), 1, &report);
    groups.push(extended(&plain, 0, &router_alert));
    groups.push(plain);
    go_nowhere(&mut world, "not-served", &groups, false);
}

/// An error passes only where it quotes a packet of a known conversation, and no path is narrower than
/// 1280 (RFC 8200, section 5; RFC 8201, section 4).
#[test]
fn errors_of_icmpv6_pass_for_known_conversations_only() {
    let mut world = world();
    let sent = honest();
    world.send(NetHdr::default(), &frame(&sent));
    world.until("the packet is inside", |world| !world.inner.is_empty());
    world.frames.clear();
    let router = address("2001:db8:12::1");
    let error = |kind: u8, code: u8, word: u32, quote: &[u8]| {
        let message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), quote].concat();
        icmp_raw((router, GUEST_V6), 64, &message)
    };
    let unknown = udp((GUEST_V6, 4001), (GROUPWARE_V6, 7000), b"never sent");
    let other = udp((GROUPWARE_V6, 4000), (GROUPWARE_V6, 7000), b"not ours");
    let chained = extended(&sent, 60, &NO_OPTIONS);
    for (bad, rule) in [
        (error(1, 4, 0, &unknown), "no-flow"),
        (error(1, 4, 0, &other), "no-flow"),
        (error(1, 4, 0, &sent[..47]), "no-flow"),
        (error(1, 4, 0, &chained), "no-flow"),
        (error(2, 0, 1279, &sent), "low-mtu"),
        (error(2, 0, 0, &sent), "low-mtu"),
        // Redirects and advertisements do not come from afar.
        (error(137, 0, 0, &sent), "not-served"),
        (error(134, 0, 0, &sent), "not-served"),
        (error(100, 0, 0, &sent), "not-served"),
    ] {
        let before = refused(&world, rule);
        world.gateway_sends(&bad);
        world.until(rule, |world| refused(world, rule) > before);
        assert!(world.frames.is_empty(), "{bad:x?}");
    }
    for good in [
        error(1, 4, 0, &sent),
        error(2, 0, 1280, &sent),
        error(2, 0, 70_000, &sent),
        error(3, 0, 0, &sent),
        error(4, 1, 6, &sent),
    ] {
        world.frames.clear();
        world.gateway_sends(&good);
        world.until("the error is out", |world| !world.frames.is_empty());
        assert_eq!(world.frames[0].1[14..], good);
    }
}

#[test]
fn offloads_of_the_other_family_are_no_offloads() {
    let mut world = world();
    let segment = tcp(
        (GUEST_V6, 4000),
        (GROUPWARE_V6, 443),
        (1, 1),
        0x10,
        &[],
        &[7; 3000],
    );
    for header in [
        NetHdr::partial_csum(54, 16).with_gso(GsoType::TcpV4, 1360, 74),
        // The sum of another header, as in IPv4, or of nothing.
        NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV6, 1360, 74),
        NetHdr::partial_csum(54, 6),
    ] {
        world.send(header, &frame(&segment));
    }
    // An address probe that leaves its sum to the gate.
    let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &GATE.octets()].concat();
    let asked = icmp_raw((LOCAL, GATE), 255, &solicit);
    world.send(NetHdr::partial_csum(54, 2), &frame(&asked));
    only_the_honest_packet_arrives(&mut world);
    assert!(world.frames.is_empty());
    assert!(world.refused_by("malformed"));
}

/// Without networks of IPv6 in its policy the gate is what it was, though the device has an address.
#[test]
fn nothing_of_ipv6_without_a_policy_that_names_it() {
    let mut world = World::connected();
    let solicit = icmp_raw((LOCAL, ALL_ROUTERS), 255, &[133, 0, 0, 0, 0, 0, 0, 0]);
    let syn = tcp((GUEST_V6, 4000), (GROUPWARE_V6, 443), (1, 0), SYN, &[], &[]);
    let lease = dhcp(1, &[association(1, &[])]);
    for packet in [&solicit, &lease] {
        world.send(NetHdr::default(), &frame(packet));
    }
    world.settle();
    assert!(world.frames.is_empty(), "{:?}", world.frames);
    world.send(NetHdr::default(), &frame(&syn));
    world.until("the guest is told", |world| !world.frames.is_empty());
    assert_eq!(world.frames[0].1[14 + 40..][..2], [1, 1], "prohibited");
    world.gateway_sends(&udp((GROUPWARE_V6, 7000), (GUEST_V6, 4000), b"in"));
    world.settle();
    assert_eq!(world.frames.len(), 1);
    assert!(world.inner.is_empty());
    assert_eq!(refused(&world, "ipv6"), 4);
    // The same frame to nobody's MAC is not answered either.
    world.send(
        NetHdr::default(),
        &frame_from(GUEST_MAC, [2; 6], 0x86dd, &syn),
    );
    world.settle();
    assert_eq!(world.frames.len(), 1);
}
