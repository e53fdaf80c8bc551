//! A work OS that plays the attacker (T35, T36, T38, T39, T40): whatever it sends, nothing that is
//! not its own packet to an allowed place reaches the gateway, and the gate goes on.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sekisho_framelink::{GsoType, NetHdr};
use smoltcp::wire::{IpProtocol, TcpControl};

use super::frames::{frame, frame_from, ipv4, tcp, udp};
use super::world::{GATE_MAC, GROUPWARE, GUEST, GUEST_MAC, ROUTER, World};

const EVERYBODY: [u8; 6] = [0xff; 6];

/// The gate still serves: an honest packet gets through, and nothing else has.
fn only_the_honest_packet_arrives(world: &mut World) {
    let honest = udp((GUEST, 4000), (GROUPWARE, 7000), b"honest");
    world.send(NetHdr::default(), &frame(&honest));
    world.until("the honest packet is inside", |world| {
        !world.inner.is_empty()
    });
    world.settle();
    for inner in &world.inner {
        assert_eq!(inner[..honest.len()], honest, "only the honest packet");
    }
}

#[test]
fn t35_forged_sources_go_nowhere() {
    let mut world = World::connected();
    for source in [
        Ipv4Addr::new(10, 250, 7, 24),
        Ipv4Addr::new(10, 12, 10, 6),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        ROUTER,
        GROUPWARE,
    ] {
        let packet = udp((source, 4000), (GROUPWARE, 7000), b"forged");
        world.send(NetHdr::default(), &frame(&packet));
    }
    only_the_honest_packet_arrives(&mut world);
    assert!(world.refused_by("anti-spoof"));
}

#[test]
fn t36_other_mac_addresses_go_nowhere() {
    let mut world = World::connected();
    let packet = udp((GUEST, 4000), (GROUPWARE, 7000), b"other");
    for number in 0..50 {
        let source = [2, 0, 0, 0, 0, number];
        world.send(
            NetHdr::default(),
            &frame_from(source, GATE_MAC, 0x0800, &packet),
        );
    }
    only_the_honest_packet_arrives(&mut world);
    assert!(world.refused_by("anti-spoof"));
}

#[test]
fn t38_a_guest_that_plays_router_or_dhcp_server_is_ignored() {
    let mut world = World::connected();
    // A DHCP server's offer, and an ARP answer that says the groupware server is here.
    let offer = udp((GUEST, 67), (Ipv4Addr::BROADCAST, 68), &[2; 300]);
    world.send(
        NetHdr::default(),
        &frame_from(GUEST_MAC, EVERYBODY, 0x0800, &offer),
    );
    let mut poison = vec![0, 1, 8, 0, 6, 4, 0, 2];
    poison.extend_from_slice(&GUEST_MAC);
    poison.extend_from_slice(&GUEST.octets());
    poison.extend_from_slice(&GATE_MAC);
    poison.extend_from_slice(&ROUTER.octets());
    world.send(
        NetHdr::default(),
        &frame_from(GUEST_MAC, GATE_MAC, 0x0806, &poison),
    );
    // A router advertisement.
    let mut advertisement = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
    advertisement.extend_from_slice(&[0xfe; 16]);
    advertisement.extend_from_slice(&[0xff; 16]);
    advertisement.extend_from_slice(&[134; 16]);
    world.send(
        NetHdr::default(),
        &frame_from(GUEST_MAC, EVERYBODY, 0x86dd, &advertisement),
    );
    only_the_honest_packet_arrives(&mut world);
    assert!(world.frames.is_empty(), "none of it was answered");
    assert!(world.refused_by("impostor"));
    assert!(world.refused_by("ipv6"));
}

#[test]
fn t39_frames_of_odd_lengths_are_dropped_and_counted() {
    let mut world = World::connected();
    let long = udp((GUEST, 4000), (GROUPWARE, 7000), &[0; 1420 - 28 + 1]);
    let header = NetHdr::default();
    for frame in [
        vec![],
        vec![0; 13],
        vec![0; 14],
        frame(&long),
        vec![0xff; 65_000],
        frame(&[0x45]),
        frame(&[0x45; 19]),
    ] {
        world.send(header, &frame);
    }
    only_the_honest_packet_arrives(&mut world);
    assert!(world.refused_by("malformed"));
}

#[test]
fn t40_headers_that_lie_are_dropped() {
    let mut world = World::connected();
    let packet = frame(&tcp(
        (GUEST, 4000),
        (GROUPWARE, 443),
        1,
        TcpControl::None,
        &[1; 1000],
    ));
    let honest = NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1000, 54);
    let lies = [
        NetHdr {
            gso_type: 3,
            ..honest
        },
        NetHdr {
            gso_type: 0x81,
            ..honest
        },
        NetHdr {
            gso_type: 4,
            ..honest
        },
        NetHdr {
            gso_type: 5,
            ..honest
        },
        NetHdr {
            gso_size: 0,
            ..honest
        },
        NetHdr {
            gso_size: 65_535,
            ..honest
        },
        NetHdr {
            hdr_len: 65_535,
            ..honest
        },
        NetHdr {
            csum_start: 65_535,
            ..honest
        },
        NetHdr {
            csum_offset: 65_535,
            ..honest
        },
        NetHdr {
            csum_start: 20,
            ..honest
        },
        NetHdr {
            csum_start: 36,
            ..honest
        },
        NetHdr {
            csum_offset: 6,
            ..honest
        },
        NetHdr {
            flags: 0xff,
            ..honest
        },
        NetHdr { flags: 0, ..honest },
    ];
    for lie in lies {
        world.send(lie, &packet);
    }
    // Segmentation of what is not TCP.
    let datagram = frame(&udp((GUEST, 4000), (GROUPWARE, 7001), &[1; 1000]));
    world.send(honest, &datagram);
    only_the_honest_packet_arrives(&mut world);
}

#[test]
fn fragments_options_and_other_protocols_are_dropped() {
    let mut world = World::connected();
    let whole = udp((GUEST, 4000), (GROUPWARE, 7000), b"fragment");
    let mut first = whole.clone();
    first[6] = 0x20;
    let mut later = whole.clone();
    later[7] = 1;
    let mut options = whole.clone();
    options[0] = 0x46;
    let sctp = ipv4(GUEST, GROUPWARE, IpProtocol::Unknown(132), &[0; 20]);
    for packet in [first, later, options, sctp] {
        world.send(NetHdr::default(), &frame(&packet));
    }
    only_the_honest_packet_arrives(&mut world);
    assert!(world.refused_by("fragment"));
}

#[test]
fn what_policy_forbids_is_refused_at_once_by_name() {
    let mut world = World::connected();
    for (packet, rule) in [
        (
            udp((GUEST, 4000), (Ipv4Addr::new(10, 99, 0, 1), 443), b"x"),
            "forbidden",
        ),
        (
            udp((GUEST, 4000), (Ipv4Addr::new(8, 8, 8, 8), 53), b"x"),
            "default-deny",
        ),
        (
            tcp(
                (GUEST, 4000),
                (Ipv4Addr::new(10, 12, 30, 4), 445),
                1,
                TcpControl::Syn,
                b"",
            ),
            "default-deny",
        ),
    ] {
        world.frames.clear();
        world.send(NetHdr::default(), &frame(&packet));
        world.until("a refusal is reported", |world| world.refused_by(rule));
        world.until("the guest is told", |world| !world.frames.is_empty());
        let answer = &world.frames[0].1[14..];
        assert_eq!(answer[9], 1, "ICMP");
        assert_eq!(answer[20..22], [3, 13], "administratively prohibited");
        assert_eq!(answer[28..48], packet[..20], "it quotes the packet");
    }
    world.settle();
    assert!(world.inner.is_empty());
}

/// The gateway is not trusted with the guest either: only answers and what policy lets in.
#[test]
fn what_the_gateway_sends_unasked_stays_outside() {
    let mut world = World::connected();
    for packet in [
        udp((GROUPWARE, 7000), (GUEST, 4000), b"unasked"),
        tcp((GROUPWARE, 443), (GUEST, 22), 1, TcpControl::Syn, b""),
        udp(
            (GROUPWARE, 7000),
            (Ipv4Addr::new(10, 250, 7, 99), 4000),
            b"astray",
        ),
        vec![0x45; 40],
        vec![0x60; 80],
    ] {
        world.gateway_sends(&packet);
    }
    let inventory = Ipv4Addr::new(10, 12, 0, 70);
    world.gateway_sends(&tcp(
        (inventory, 5000),
        (GUEST, 135),
        1,
        TcpControl::Syn,
        b"",
    ));
    world.until("what policy lets in is in", |world| {
        !world.frames.is_empty()
    });
    world.settle();
    assert_eq!(world.frames.len(), 1);
    assert!(world.refused_by("default-deny"));
}

/// Bytes that come close to frames, thousands of them: nothing gets out, nothing breaks.
#[test]
fn random_frames_reach_nobody() {
    let world = RefCell::new(World::connected());
    let mut runner = TestRunner::new(Config::with_cases(3000));
    let base = udp(
        (GUEST, 4000),
        (Ipv4Addr::new(198, 51, 100, 53), 53),
        &[7; 60],
    );
    let strategy = (
        prop::collection::vec((0usize..74, any::<u8>()), 0..8),
        prop::collection::vec((0usize..12, any::<u8>()), 0..4),
        0usize..120,
    );
    runner
        .run(&strategy, |(changes, header_changes, len)| {
            let mut bytes = frame(&base);
            bytes.resize(len.max(1), 0);
            for (at, byte) in changes {
                // Not the destination: by chance it would be an allowed one.
                if !(30..34).contains(&at)
                    && let Some(field) = bytes.get_mut(at)
                {
                    *field = byte;
                }
            }
            let mut header = NetHdr::default().emit();
            for (at, byte) in header_changes {
                header[at] = byte;
            }
            let mut world = world.borrow_mut();
            world.send_raw(&header, &bytes);
            world.step();
            Ok(())
        })
        .unwrap();
    let mut world = world.into_inner();
    world.settle();
    world.frames.clear();
    only_the_honest_packet_arrives(&mut world);
}
