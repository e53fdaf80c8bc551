//! The gate as the guest's resolver.

use sekisho_control::{PathId, UplinkToGate};
use sekisho_framelink::NetHdr;
use smoltcp::wire::UdpPacket;
use std::net::Ipv4Addr;

use super::frames::{checksums_hold, frame, packet_of, udp};
use super::world::{DNS, GUEST, ROUTER, World};

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const NO_ERROR: u8 = 0;
pub const REFUSED: u8 = 5;

/// A query for an A record of `name`.
fn query(id: u16, name: &str) -> Vec<u8> {
    query_of(id, name, A)
}

pub fn query_of(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// The answer to a query: an address.
fn answer(query: &[u8]) -> Vec<u8> {
    answer_of(query, [10, 12, 10, 5])
}

fn answer_of(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] = 0x81;
    bytes[3] = 0x80;
    bytes[7] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    bytes.extend_from_slice(&address);
    bytes
}

fn asked(world: &mut World, id: u16, name: &str) {
    asked_of(world, id, name, A);
}

fn asked_of(world: &mut World, id: u16, name: &str, kind: u16) {
    let packet = udp((GUEST, 5353), (ROUTER, 53), &query_of(id, name, kind));
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
    let (name, end) = ("groupware.mihon-city.example", own.1.len().min(46));
    assert_eq!(own.1[12..end], query(7, name)[12..], "in lower case");

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
    let spelled = query(7, "groupware.Mihon-City.example");
    let end = spelled.len();
    assert_eq!(
        datagram.payload()[12..end],
        spelled[12..],
        "its own spelling"
    );
    assert_eq!(datagram.payload()[end..], good[end..]);
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

/// What the guest was answered last: response code and number of answers.
fn told(world: &World) -> (u8, u8) {
    let packet = packet_of(&world.frames.last().unwrap().1);
    assert!(checksums_hold(packet));
    let message = UdpPacket::new_checked(&packet[20..]).unwrap().payload();
    (message[3] & 15, message[7])
}

/// Asks for `name` and has the city's server answer with `address`.
fn answered_with(world: &mut World, name: &str, address: [u8; 4]) -> (u8, u8) {
    world.inner.clear();
    world.frames.clear();
    asked(world, 3, name);
    world.until("the question is inside", |world| !world.inner.is_empty());
    let question = UdpPacket::new_checked(&world.inner[0][20..]).unwrap();
    let (port, own) = (question.src_port(), question.payload().to_vec());
    let message = answer_of(&own[..query(3, name).len()], address);
    world.gateway_sends(&udp((DNS, 53), (GUEST, port), &message));
    world.until("there is an answer", |world| !world.frames.is_empty());
    told(world)
}

/// A name of the city that leads elsewhere (rebinding): to a router at home, to the My Number
/// network, to the guest itself.
#[test]
fn an_answer_that_leads_out_of_the_segments_is_refused() {
    let mut world = World::connected();
    let name = "www.mihon-city.example";
    for address in [
        [192, 168, 1, 1],
        [10, 99, 0, 1],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [8, 8, 8, 8],
        [224, 0, 0, 251],
    ] {
        let answer = answered_with(&mut world, name, address);
        assert_eq!(answer, (REFUSED, 0), "{address:?}");
    }
    world.until("it is told", |world| world.refused_by("dns-rebinding"));
    // The control: the same name, the same server, an address inside.
    let answer = answered_with(&mut world, name, [10, 12, 10, 5]);
    assert_eq!(answer, (NO_ERROR, 1));
}

#[test]
fn what_ipv6_would_need_is_answered_with_nothing_at_once() {
    let mut world = World::connected();
    for kind in [AAAA, 64, 65] {
        world.frames.clear();
        asked_of(&mut world, 4, "www.mihon-city.example", kind);
        world.until("an answer", |world| !world.frames.is_empty());
        assert_eq!(told(&world), (NO_ERROR, 0));
    }
    world.settle();
    assert!(world.inner.is_empty(), "nobody was asked");
}

/// Bytes of names that came out at the city's server.
fn carried(world: &World) -> usize {
    let front = |inner: &Vec<u8>| {
        let message = UdpPacket::new_checked(&inner[20..])
            .unwrap()
            .payload()
            .to_vec();
        let domain = query(0, "mihon-city.example").len();
        message.len() - domain
    };
    world.inner.iter().map(front).sum()
}

/// Asks for each name, not faster than a person's programs may, without waiting for answers.
fn ask_all(world: &mut World, names: impl Iterator<Item = String>) {
    for (id, name) in names.enumerate() {
        asked(world, id as u16, &name);
        if id % 8 == 0 {
            world.step();
        }
    }
    world.settle();
}

/// T45: a tunnel made of names, as iodine and dnscat2 make it: long labels that nobody asked for
/// before. What comes out at the city's server is bounded.
#[test]
fn t45_a_tunnel_of_names_is_bounded_and_told() {
    let mut world = World::connected();
    let label = |number: usize| format!("{number:0>60}");
    let names = (0..60).map(|number| {
        let (a, b) = (label(number), label(number + 1000));
        format!("{a}.{b}.t.mihon-city.example")
    });
    ask_all(&mut world, names);
    let carried = carried(&world);
    assert!(carried > 1000, "a few get through: {carried}");
    assert!(carried < 2500, "{carried} bytes got out, of 7,440");
    world.until("it is told", |world| world.refused_by("dns-tunnel"));
    assert_eq!(told(&world).0, REFUSED, "the program is told at once");
}

/// The control to that: a person opens pages of the intranet, each with its own dozen of names, and
/// every program asks twice. All of it goes through.
#[test]
fn t45_ordinary_browsing_passes() {
    let mut world = World::connected();
    let names: Vec<String> = (0..90)
        .map(|number| format!("host{}.app{}.mihon-city.example", number % 45, number % 9))
        .collect();
    ask_all(&mut world, names.iter().cloned());
    assert_eq!(world.inner.len(), names.len());
    assert!(!world.refused_by("dns-tunnel"));
    assert!(!world.refused_by("dns-refused"));
}

/// T45: types that hold free text carry the most; they are asked rarely or not at all.
#[test]
fn t45_questions_for_free_text_are_rare() {
    let mut world = World::connected();
    for number in 0..40 {
        let kind = [TXT, 10, 255, 65_399][number % 4];
        asked_of(&mut world, number as u16, "mihon-city.example", kind);
        world.step();
    }
    asked_of(&mut world, 99, "mihon-city.example", 252);
    world.settle();
    assert!(
        (10..=11).contains(&world.inner.len()),
        "{}",
        world.inner.len()
    );
    assert!(world.refused_by("dns-tunnel"));
    assert!(world.refused_by("dns-refused"), "no zone is transferred");
}
