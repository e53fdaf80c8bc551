//! The proof of the office, and the wire that it gives.

use super::*;

#[test]
fn the_office_is_entered_by_proof_and_left_by_the_cable() {
    let mut bench = Bench::connected();
    let actions = bench.event(Event::Proven("eth1".into()), 1000);
    assert!(actions.contains(&Action::Premises("eth1".into(), true)));
    let actions = bench.event(Event::PathUp(path(2, "eth1", Side::Lan)), 1010);
    assert!(actions.contains(&Action::Initiate(PathId(2))));
    assert_eq!(bench.way(), Some((1, Place::Remote)), "make before break");
    bench.heard(2, 1020);
    assert_eq!(bench.way(), Some((2, Place::Office)));
    // T22: the cable is pulled.
    bench.event(Event::CarrierLost("eth1".into()), 5000);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

#[test]
fn a_lan_side_without_proof_is_never_used() {
    let mut bench = Bench::new();
    let actions = bench.event(Event::PathUp(path(1, "eth0", Side::Lan)), 0);
    assert!(!actions.contains(&Action::Initiate(PathId(1))));
    bench.heard(1, 10);
    assert_eq!(bench.way(), None);
    let wireless = bench.event(Event::PathUp(path(2, "wlan0", Side::Lan)), 20);
    assert!(wireless.contains(&Action::Close(PathId(2))));
}

#[test]
fn a_proof_that_is_not_renewed_ends() {
    let mut bench = Bench::connected();
    bench.event(Event::Proven("eth1".into()), 1000);
    bench.event(Event::PathUp(path(2, "eth1", Side::Lan)), 1000);
    bench.heard(2, 1010);
    let seen = bench.run(1010, 42_000);
    let probed = seen
        .iter()
        .any(|(when, action)| *when == 31_000 && *action == Action::Probe("eth1".into()));
    assert!(probed, "asked again when due: {seen:?}");
    assert!(seen.contains(&(41_000, Action::Premises("eth1".into(), false))));
    assert_ne!(bench.way().map(|(_, place)| place), Some(Place::Office));
}

/// Questions to the beacon over eth0 until `until`, none of them answered with a proof.
fn questions(bench: &mut Bench, until: u64, told: bool) -> Vec<u64> {
    let mut asked = Vec::new();
    loop {
        let due = bench.machine.next_deadline().unwrap();
        let now = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
        if now > until {
            return asked;
        }
        let actions = bench.event(Event::Tick, now);
        if actions.contains(&Action::Probe("eth0".into())) {
            asked.push(now);
            if told {
                bench.event(Event::Disproven("eth0".into()), now);
            }
        }
    }
}

/// In a cafe there is no beacon; it is not asked for over and over, and found when it is there.
#[test]
fn a_beacon_that_does_not_answer_is_asked_more_and_more_seldom() {
    // Whether the connection fails, or the uplink cannot even make one.
    for told in [true, false] {
        let mut bench = Bench::new();
        bench.event(Event::Disproven("eth0".into()), 0);
        let asked = questions(&mut bench, 3_600_000, told);
        assert!((30_000..=37_500).contains(&asked[0]), "{asked:?}");
        let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (30_000..=375_000).contains(pause))
        );
        assert!(
            pauses[6..].iter().all(|pause| *pause >= 300_000),
            "{pauses:?}"
        );
        assert!(bench.machine.unproven("eth0"));

        // Another cable begins anew, and a proof is renewed as ever.
        let now = 3_600_000;
        bench.event(Event::CarrierLost("eth0".into()), now);
        assert!(!bench.machine.unproven("eth0"));
        bench.event(Event::Proven("eth0".into()), now);
        assert_eq!(questions(&mut bench, now + 31_000, false), [now + 30_000]);
        // After a doubt it is asked at once.
        bench.event(Event::Disproven("eth0".into()), now + 31_000);
        let doubted = bench.event(Event::Doubt, now + 32_000);
        assert!(doubted.contains(&Action::Probe("eth0".into())));
    }
}

#[test]
fn laptops_do_not_ask_the_beacon_in_step() {
    let ask = |seed| {
        let mut bench = Bench::new();
        bench.machine = Machine::new(timings(), seed);
        bench.event(Event::Disproven("eth0".into()), 0);
        questions(&mut bench, 1_000_000, true)
    };
    assert_ne!(ask(1), ask(2));
    assert_eq!(ask(1), ask(1));
}

/// T19, T22, T28, T31, T32 as far as the machine goes: whatever ends the proof ends the wire with it,
/// and the tunnel takes over where it lives.
#[test]
fn t22_whatever_ends_the_proof_ends_the_wire_at_once() {
    for event in [
        Event::CarrierLost("eth1".into()),
        Event::Disproven("eth1".into()),
        Event::WireLost(WireId(1)),
        Event::UplinkGone,
        Event::Suspend,
        Event::Doubt,
    ] {
        let mut bench = Bench::direct();
        let actions = bench.event(event.clone(), 5000);
        let closed = actions
            .iter()
            .position(|action| *action == Action::CloseWire(WireId(1)));
        let told = actions.iter().position(|action| *action == Action::Report);
        assert!(closed.is_some() && closed < told, "{event:?}: {actions:?}");
        assert_eq!(bench.wire(), None, "{event:?}");
        let lives = matches!(
            event,
            Event::CarrierLost(_) | Event::Disproven(_) | Event::WireLost(_)
        );
        let way = lives.then_some((1, Place::Remote));
        assert_eq!(bench.way(), way, "{event:?}");
        // A wire for the proof that has ended comes late; for one that holds it is asked for anew.
        let late = bench.event(wire_up(2, "eth1"), 5001);
        let holds = matches!(event, Event::WireLost(_));
        assert_eq!(bench.wire(), holds.then_some(2), "{event:?}");
        assert_eq!(!holds, late.contains(&Action::CloseWire(WireId(2))));
    }
}

#[test]
fn a_late_recheck_ends_the_wire() {
    let mut bench = Bench::direct();
    let seen = bench.run(1010, 40_999);
    assert_eq!(bench.wire(), Some(1), "{seen:?}");
    let seen = bench.run(40_999, 41_000);
    assert!(
        seen.contains(&(41_000, Action::CloseWire(WireId(1)))),
        "{seen:?}"
    );
    assert_eq!(bench.wire(), None);
}

#[test]
fn a_proof_that_is_renewed_keeps_its_wire_and_one_without_asks_again() {
    let mut bench = Bench::direct();
    let renewed = bench.event(Event::Proven("eth1".into()), 30_000);
    assert!(!renewed.contains(&Action::AskWire("eth1".into())));
    bench.run(30_000, 69_000);
    assert_eq!(bench.wire(), Some(1));
    bench.event(Event::WireLost(WireId(1)), 69_000);
    let renewed = bench.event(Event::Proven("eth1".into()), 69_500);
    assert!(renewed.contains(&Action::AskWire("eth1".into())));
}

#[test]
fn no_wire_without_proof_nor_off_a_cable_nor_past_policy() {
    let mut bench = Bench::connected();
    let refused = |actions: Vec<Action>, id| actions.contains(&Action::CloseWire(WireId(id)));
    // Nothing proven; another port proven; a radio, whatever it proved.
    assert!(refused(bench.event(wire_up(1, "eth1"), 20), 1));
    bench.event(Event::Proven("eth1".into()), 30);
    assert!(refused(bench.event(wire_up(2, "eth0"), 40), 2));
    bench.event(Event::Proven("wlan0".into()), 50);
    assert!(refused(bench.event(wire_up(3, "wlan0"), 60), 3));
    assert_eq!(bench.wire(), None);
    // A second wire beside the first.
    bench.event(wire_up(4, "eth1"), 70);
    bench.event(Event::Proven("eth0".into()), 80);
    assert!(refused(bench.event(wire_up(5, "eth0"), 90), 5));
    assert_eq!(bench.wire(), Some(4));

    let mut strict = Bench::connected();
    strict.machine = Machine::new(timings(), 7);
    let asked = strict.event(Event::Proven("eth1".into()), 100);
    assert!(!asked.contains(&Action::AskWire("eth1".into())));
    assert!(refused(strict.event(wire_up(1, "eth1"), 110), 1));
}

#[test]
fn the_tunnel_is_kept_beside_the_wire_and_no_engine_is_begun() {
    let mut bench = Bench::direct();
    let mut now = 1010;
    while now < 115_000 {
        bench.event(Event::Proven("eth1".into()), now);
        bench.run(now, now + 20_000);
        now += 20_000;
    }
    bench.event(Event::Proven("eth1".into()), now);
    let seen = bench.run(now, now + 10_000);
    assert!(
        seen.iter()
            .any(|(_, action)| *action == Action::Initiate(PathId(1))),
        "the session is renewed: {seen:?}"
    );
    let mut bench = engaged();
    bench.event(Event::EngineDown(PathId(2)), 1700);
    bench.event(Event::Proven("eth0".into()), 1710);
    bench.event(wire_up(1, "eth0"), 1720);
    let seen = bench.run(1720, 20_000);
    assert!(
        !seen
            .iter()
            .any(|(_, action)| matches!(action, Action::Engage(_))),
        "{seen:?}"
    );
}
