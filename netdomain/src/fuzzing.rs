//! Entry points for fuzzers: hostile bytes as frames of the guest, as packets out of the tunnel,
//! as DHCP replies off the wire, as a beacon's answer and as charon's words. None of them may panic, whatever the
//! bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use sekisho_control::{LanMember, LanPlace};
use sekisho_framelink::{HEADER_LEN, Offloads, Rules};
use sekisho_policy::Policy;
use smoltcp::wire::{EthernetAddress, Icmpv6Packet, IpProtocol, Ipv6Packet, UdpPacket};

use crate::gate::MOST_FROM_GUEST;
use crate::gate::device::Device;
use crate::gate::edge::{
    Domains, ETHERNET_HEADER, Edge, Heard, Question, Reply, Resolver, Taken, write_ipv4,
};
use crate::gate::packet::{IPV6_HEADER, Offload, Packet};
use crate::moment::Moment;

/// The guest of a fuzzed gate, as in the lab.
const DEVICE: Device = Device {
    address: Ipv4Addr::new(10, 250, 7, 23),
    prefix: 24,
    router: Ipv4Addr::new(10, 250, 7, 1),
    v6: None,
    mac: EthernetAddress([0x02, 0x53, 0x4b, 0x00, 0x07, 0x17]),
    mtu: 1420,
};

/// And the LAN that it may be a member of.
const LAN: LanPlace = LanPlace {
    address: Ipv4Addr::new(10, 12, 100, 70),
    prefix: 24,
    router: Ipv4Addr::new(10, 12, 100, 1),
};

/// The same with IPv6.
const DEVICE_V6: Device = Device {
    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0x250, 7, 0, 0, 0, 0x23)),
    ..DEVICE
};

/// Port and id of every question that the fuzzed resolver sends on, and transaction of the DHCP
/// client, so that an answer can be guessed.
const RANDOM: u32 = 0x2000_1234;

/// Reads `data` as one frame of the guest behind its `virtio_net_hdr` and does with it what the
/// gate does until admission. `policy` says which domains have a server.
///
/// # Panics
/// If an answer is longer than the guest's network takes, or the guest calls itself what is no name.
pub fn guest_frame(policy: &Policy, data: &[u8]) {
    if let Some((header, frame)) = data.split_first_chunk() {
        frame_of_guest(policy, DEVICE, header, frame);
    }
}

/// The same for a guest that has IPv6. Checksums of `ICMPv6` and UDP are filled in where there is room,
/// because nobody guesses them.
///
/// # Panics
/// If an answer is longer than the guest's network takes, or an address but the guest's own passes.
pub fn guest_frame_v6(policy: &Policy, data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk() else {
        return;
    };
    let mut frame = frame.to_vec();
    if let Some(packet) = frame.get_mut(ETHERNET_HEADER..) {
        fill_checksum(packet);
    }
    frame_of_guest(policy, DEVICE_V6, header, &frame);
}

/// Writes the checksum that an IPv6 packet should have over the one that it has.
fn fill_checksum(bytes: &mut [u8]) {
    let Ok(mut packet) = Ipv6Packet::new_checked(bytes) else {
        return;
    };
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let next = packet.next_header();
    let body = packet.payload_mut();
    match next {
        IpProtocol::Icmpv6 if body.len() >= 4 => {
            Icmpv6Packet::new_unchecked(body).fill_checksum(&source, &destination);
        }
        IpProtocol::Udp => {
            if let Ok(mut udp) = UdpPacket::new_checked(body) {
                udp.fill_checksum(&source.into(), &destination.into());
            }
        }
        _ => {}
    }
}

fn frame_of_guest(policy: &Policy, device: Device, header: &[u8; HEADER_LEN], frame: &[u8]) {
    let rules = Rules {
        offloads: Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            uso: true,
        },
        mtu: MOST_FROM_GUEST,
    };
    let Ok(header) = rules.check(header, frame.len()) else {
        return;
    };
    let now = Moment::default();
    let mut edge = Edge::new(device, true, now);
    // The same frame for a member of a LAN, and then what it calls itself.
    edge.move_to(LAN);
    let mut reply = Reply::with_mtu(DEVICE.mtu);
    edge.take(&header, frame, &mut reply, now);
    let said = serde_json::to_vec(edge.member()).expect("words are bytes");
    assert_eq!(
        serde_json::from_slice::<LanMember>(&said).ok().as_ref(),
        Some(edge.member())
    );
    edge.move_to(edge.home());
    let ethernet = edge.ethernet();
    let mut reply = Reply::with_mtu(DEVICE.mtu);
    match edge.take(&header, frame, &mut reply, now) {
        Taken::Question(packet) => {
            resolver(policy, &device).ask(&packet, true, &ethernet, &mut reply, now);
        }
        Taken::Transit(packet) => {
            packet.quoted();
            edge.prohibit(&packet, &mut reply, now);
        }
        Taken::Transit6(packet) => {
            assert_eq!(Some(packet.flow().source), device.v6, "a forged source");
            packet.quoted();
            edge.prohibit_v6(&packet, &mut reply, now);
        }
        Taken::Segment(packet) => {
            let mut resolver = resolver(policy, &device);
            resolver.segment(&packet, now);
            while resolver
                .ask_next(true, &ethernet, &mut reply, now)
                .is_some()
            {}
            while resolver.segment_for_guest(&ethernet, &mut reply) {}
        }
        Taken::Probe(packet) => edge.serve_probe(&packet, &mut reply),
        Taken::Done | Taken::Refused(_) => {}
    }
    assert!(reply.frame().len() <= 14 + usize::from(DEVICE.mtu));
}

/// Reads `data` as segments of connections to the resolver, 16 bits of length before each, and a
/// byte of time behind that. Where a segment acknowledges, it acknowledges what the gate sent last,
/// so that a connection can be had without guessing.
///
/// # Panics
/// If more comes out than a bounded number of segments of a bounded length.
pub fn resolver_segments(policy: &Policy, data: &[u8]) {
    // Where in a TCP header they stand (RFC 9293, section 3.1).
    const PORT: usize = 2;
    const ACKNOWLEDGED: usize = 8;
    const FLAGS: usize = 13;
    let mut now = Moment::default();
    let ethernet = Edge::new(DEVICE, true, now).ethernet();
    let (mut resolver, mut reply) = (resolver(policy, &DEVICE), Reply::with_mtu(DEVICE.mtu));
    let mut next = [0; 4];
    let mut rest = data;
    while let Some(([high, low, time], tail)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (segment, tail) = tail.split_at(length);
        rest = tail;
        now = now + std::time::Duration::from_millis(u64::from(*time) * 20);
        let mut frame = vec![0; 20 + segment.len()];
        frame[20..].copy_from_slice(segment);
        if segment.len() > FLAGS {
            frame[20 + PORT..][..2].copy_from_slice(&53u16.to_be_bytes());
            if segment[FLAGS] & 0x10 != 0 {
                frame[20 + ACKNOWLEDGED..][..4].copy_from_slice(&next);
            }
        }
        write_ipv4(&mut frame, (DEVICE.address, DEVICE.router), IpProtocol::Tcp);
        let Ok(packet) = Packet::parse(&frame, Offload::None) else {
            continue;
        };
        resolver.segment(&packet, now);
        resolver.tick(now);
        for _ in 0..16 {
            if resolver
                .ask_next(true, &ethernet, &mut reply, now)
                .is_none()
            {
                break;
            }
        }
        let mut count = 0;
        while resolver.segment_for_guest(&ethernet, &mut reply) {
            count += 1;
            let out = reply.frame();
            assert!(out.len() <= 14 + usize::from(DEVICE.mtu));
            let tcp = &out[14 + 20..];
            let sent = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            // A greeting takes one number; so does all else that is not yet acknowledged.
            next = sent.wrapping_add(1).to_be_bytes();
        }
        assert!(count <= 64, "one segment is answered by a few");
    }
}

/// Reads `data` as two packets, as they come out of the tunnel: 16 bits of length, the guest's
/// question, and the server's answer.
///
/// # Panics
/// If what was parsed does not hold.
pub fn inner_packet(policy: &Policy, data: &[u8]) {
    question_and_answer(policy, &DEVICE, data);
}

/// Reads `data` as a packet of IPv6 as it comes out of the tunnel, and as a question and an answer of a
/// guest that has IPv6.
///
/// # Panics
/// If what was parsed does not hold.
pub fn inner_packet_v6(policy: &Policy, data: &[u8]) {
    if let Ok(packet) = Packet::parse_v6(data, Offload::None) {
        let bytes = packet.bytes();
        assert_eq!(bytes[0] >> 4, 6);
        // Nothing stands between the header and the transport.
        assert!([6, 17, 58].contains(&bytes[6]));
        let len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        assert_eq!(bytes.len(), IPV6_HEADER + len);
        assert!(packet.header_len() <= bytes.len());
        if let Some(quoted) = packet.quoted() {
            assert_eq!(quoted.source.octets(), bytes[IPV6_HEADER + 8 + 8..][..16]);
        }
        let _ = packet.told_mtu();
    }
    question_and_answer(policy, &DEVICE_V6, data);
}

fn question_and_answer(policy: &Policy, device: &Device, data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (question, answer) = rest.split_at(length);
    let now = Moment::default();
    let ethernet = Edge::new(DEVICE, true, now).ethernet();
    let mut reply = Reply::with_mtu(DEVICE.mtu);
    let mut resolver = resolver(policy, device);
    if let Ok(packet) = Packet::parse(question, Offload::None) {
        assert!(packet.header_len() <= packet.bytes().len());
        let body = packet.body().get(8..).unwrap_or(&[]);
        if let Some(question) = Question::parse(body) {
            assert!(!question.name().starts_with(b"."));
        }
        resolver.ask(&packet, true, &ethernet, &mut reply, now);
    }
    reply.clear();
    if let Ok(packet) = Packet::parse(answer, Offload::None) {
        packet.quoted();
        let heard = resolver.answer(&packet, &ethernet, &mut reply, now);
        let told = !reply.frame().is_empty();
        assert_eq!(
            told,
            heard != Heard::Nothing,
            "the guest hears what we heard"
        );
        assert!(reply.frame().len() <= 14 + usize::from(DEVICE.mtu));
    }
}

/// Reads `data` as frames of a DHCP server, 16 bits of length before each, with the client's turns
/// between them.
pub fn dhcp_reply(data: &[u8]) {
    crate::uplink::fuzz_dhcp(DEVICE.mac.0, || RANDOM, data);
}

/// Reads `data` as frames of a LAN whose stations may have the port's address, a byte of time and 16 bits of
/// length before each.
///
/// # Panics
/// If the address is used although somebody had it before, or more is said than a LAN bears.
pub fn arp_duplicate(data: &[u8]) {
    crate::uplink::fuzz_duplicate(DEVICE.mac.0, LAN.address, || RANDOM, data);
}

/// Reads `data` as what a message bus sends for `ModemManager`.
///
/// # Panics
/// If what was read breaks what its types promise.
pub fn modem_answer(data: &[u8]) {
    crate::uplink::fuzz_modem(data);
}

/// Reads `data` as what a wired supplicant answers, or as what its keeper and the uplink say.
///
/// # Panics
/// When less than was agreed authenticates a port.
pub fn dot1x_status(data: &[u8]) {
    crate::uplink::fuzz_dot1x(data);
}

/// Reads `data` as what a TLS gateway configured, or as what is told of it.
///
/// # Panics
/// When what was read does not survive being said again.
pub fn handover(data: &[u8]) {
    crate::tls::fuzz_handover(data);
}

/// Reads `data` as a datagram of rtnetlink.
///
/// # Panics
/// When what was read breaks what its types promise.
pub fn netlink(data: &[u8]) {
    crate::uplink::fuzz_netlink(data);
}

/// Reads `data` as a record of the SIM's usage.
///
/// # Panics
/// When a record does not say the same once it is written again.
pub fn sim_usage(data: &[u8]) {
    crate::uplink::fuzz_sim_usage(data);
}

/// Reads `data` as the person's file of Wi-Fi networks.
///
/// # Panics
/// When a network writes a line of its own into the supplicant's configuration.
pub fn wifi_networks(data: &[u8]) {
    crate::uplink::fuzz_wifi_networks(data);
}

/// A message between processes of ours, that means the same when it is said again.
pub(crate) fn said_again<M>(text: &[u8])
where
    M: serde::Serialize + serde::de::DeserializeOwned,
{
    let Ok(message) = serde_json::from_slice::<M>(text) else {
        return;
    };
    let again = serde_json::to_vec(&message).expect("it was read");
    let message: M = serde_json::from_slice(&again).expect("it was written");
    let twice = serde_json::to_vec(&message).expect("it was read");
    assert_eq!(again, twice);
}

/// Reads `data` as what charon says over its socket, in pieces.
///
/// # Panics
/// If a tunnel is up that was not asked for, or one comes up after its end.
pub fn vici(data: &[u8]) {
    crate::ike::fuzz_vici(data);
}

/// Reads `data` as a beacon's answer, cut anywhere.
///
/// # Panics
/// If the whole is judged other than its parts allow.
pub fn beacon_answer(data: &[u8]) {
    crate::premises::fuzz_answer(data);
}

fn resolver(policy: &Policy, device: &Device) -> Resolver {
    let random = Box::new(|| RANDOM);
    let domains = Domains::new(policy);
    Resolver::new(domains, device, random, Moment::default())
}
