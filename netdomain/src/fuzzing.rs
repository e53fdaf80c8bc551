//! Entry points for fuzzers: hostile bytes as frames of the guest, as packets out of the tunnel,
//! as DHCP replies off the wire and as a beacon's answer. None of them may panic, whatever the
//! bytes.

use std::net::Ipv4Addr;

use sekisho_framelink::{HEADER_LEN, Offloads, Rules};
use sekisho_policy::Policy;
use smoltcp::wire::EthernetAddress;

use crate::gate::MOST_FROM_GUEST;
use crate::gate::device::Device;
use crate::gate::edge::{Domains, Edge, Heard, Question, Reply, Resolver, Taken};
use crate::gate::packet::{Offload, Packet};
use crate::moment::Moment;

/// The guest of a fuzzed gate, as in the lab.
const DEVICE: Device = Device {
    address: Ipv4Addr::new(10, 250, 7, 23),
    prefix: 24,
    router: Ipv4Addr::new(10, 250, 7, 1),
    mac: EthernetAddress([0x02, 0x53, 0x4b, 0x00, 0x07, 0x17]),
    mtu: 1420,
};

/// Port and id of every question that the fuzzed resolver sends on, and transaction of the DHCP
/// client, so that an answer can be guessed.
const RANDOM: u32 = 0x2000_1234;

/// Reads `data` as one frame of the guest behind its `virtio_net_hdr` and does with it what the
/// gate does until admission. `policy` says which domains have a server.
///
/// # Panics
/// If an answer is longer than the guest's network takes.
pub fn guest_frame(policy: &Policy, data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
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
    let mut edge = Edge::new(DEVICE, true, now);
    let ethernet = edge.ethernet();
    let mut reply = Reply::with_mtu(DEVICE.mtu);
    match edge.take(&header, frame, &mut reply, now) {
        Taken::Question(packet) => {
            resolver(policy).ask(&packet, true, &ethernet, &mut reply, now);
        }
        Taken::Transit(packet) => {
            packet.quoted();
            edge.prohibit(&packet, &mut reply, now);
        }
        Taken::Probe(packet) => edge.serve_probe(&packet, &mut reply),
        Taken::Done | Taken::Refused(_) => {}
    }
    assert!(reply.frame().len() <= 14 + usize::from(DEVICE.mtu));
}

/// Reads `data` as two packets, as they come out of the tunnel: 16 bits of length, the guest's
/// question, and the server's answer.
///
/// # Panics
/// If what was parsed does not hold.
pub fn inner_packet(policy: &Policy, data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (question, answer) = rest.split_at(length);
    let now = Moment::default();
    let ethernet = Edge::new(DEVICE, true, now).ethernet();
    let mut reply = Reply::with_mtu(DEVICE.mtu);
    let mut resolver = resolver(policy);
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

/// Reads `data` as what a message bus sends for `ModemManager`.
///
/// # Panics
/// If what was read breaks what its types promise.
pub fn modem_answer(data: &[u8]) {
    crate::uplink::fuzz_modem(data);
}

/// Reads `data` as a beacon's answer, cut anywhere.
///
/// # Panics
/// If the whole is judged other than its parts allow.
pub fn beacon_answer(data: &[u8]) {
    crate::premises::fuzz_answer(data);
}

fn resolver(policy: &Policy) -> Resolver {
    let random = Box::new(|| RANDOM);
    let domains = Domains::new(policy);
    Resolver::new(domains, DEVICE.address, DEVICE.router, random)
}
