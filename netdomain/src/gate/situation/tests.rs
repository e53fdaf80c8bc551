//! The machine against a plain model of what the events mean, and against the clock.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod moves;

const PORTS: [&str; 3] = ["eth0", "eth1", "wlan0"];

fn timings() -> Timings {
    Timings {
        up_within: Duration::from_secs(20),
        dead_after: Duration::from_secs(10),
        retry_first: Duration::from_secs(1),
        retry_max: Duration::from_mins(1),
        recheck: Duration::from_secs(30),
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

fn path(id: u32, port: &str, side: Side) -> PathInfo {
    PathInfo {
        id: PathId(id),
        port: port.to_owned(),
        kind: if port == "wlan0" {
            UplinkKind::Wifi
        } else {
            UplinkKind::Wired
        },
        rank: if port == "wlan0" { 2 } else { 1 },
        gateway: GatewayId(0),
        side,
        proof: Proof::Handshake,
    }
}

/// A path whose gateway only an engine can speak to.
fn engine_path(id: u32, port: &str) -> PathInfo {
    PathInfo {
        gateway: GatewayId(2),
        proof: Proof::Engine,
        ..path(id, port, Side::Outside)
    }
}

fn wire_up(id: u32, port: &str) -> Event {
    let kind = path(0, port, Side::Outside).kind;
    Event::WireUp(WireId(id), port.to_owned(), kind)
}

/// A machine and the actions that it took.
struct Bench {
    machine: Machine,
    actions: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(timings(), 7).with_direct(true),
            actions: Vec::new(),
        }
    }

    fn event(&mut self, event: Event, millis: u64) -> Vec<Action> {
        self.machine.handle(event, at(millis), &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    /// Ticks whenever the machine wants to, until `millis`.
    fn run(&mut self, mut from: u64, until: u64) -> Vec<(u64, Action)> {
        let mut seen = Vec::new();
        for _ in 0..100_000 {
            let Some(due) = self.machine.next_deadline(at(from)) else {
                return seen;
            };
            let due = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
            from = due.max(from + 1);
            if from > until {
                return seen;
            }
            let actions = self.event(Event::Tick, from);
            seen.extend(actions.into_iter().map(|action| (from, action)));
        }
        panic!("the machine never rests");
    }

    fn heard(&mut self, id: u32, millis: u64) -> Vec<Action> {
        let event = Event::Heard {
            path: PathId(id),
            handshake: true,
        };
        self.event(event, millis)
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
        bench.heard(1, 10);
        assert_eq!(bench.way(), Some((1, Place::Remote)));
        bench
    }

    fn way(&self) -> Option<(u32, Place)> {
        match self.machine.situation() {
            Situation::Closed(_) | Situation::Direct { .. } => None,
            Situation::Tunnelled { path, place, .. } => Some((path.0, place)),
        }
    }

    fn wire(&self) -> Option<u32> {
        match self.machine.situation() {
            Situation::Direct { wire } => Some(wire.0),
            Situation::Closed(_) | Situation::Tunnelled { .. } => None,
        }
    }

    /// Connected from a cafe's cable eth0, and on the office's wire by eth1.
    fn direct() -> Self {
        let mut bench = Self::connected();
        let actions = bench.event(Event::Proven("eth1".into()), 1000);
        assert!(actions.contains(&Action::AskWire("eth1".into())));
        assert_eq!(bench.way(), Some((1, Place::Remote)), "not yet");
        bench.event(wire_up(1, "eth1"), 1010);
        assert_eq!(bench.wire(), Some(1));
        bench
    }

    fn reason(&self) -> Option<Reason> {
        match self.machine.situation() {
            Situation::Closed(reason) => Some(reason),
            Situation::Tunnelled { .. } | Situation::Direct { .. } => None,
        }
    }
}

#[test]
fn a_path_alone_is_no_way_out() {
    let mut bench = Bench::new();
    let actions = bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    assert!(actions.contains(&Action::Initiate(PathId(1))));
    assert_eq!(bench.reason(), Some(Reason::Connecting));
    let actions = bench.heard(1, 20);
    assert!(actions.contains(&Action::Report));
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

#[test]
fn a_change_of_path_is_followed_by_three_kicks() {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 100);
    bench.run(100, 1000);
    let now = bench.event(Event::CarrierLost("eth0".into()), 1000);
    assert!(now.contains(&Action::Close(PathId(1))));
    assert!(now.contains(&Action::Kick(PathId(2))));
    assert_eq!(bench.way(), Some((2, Place::Remote)));
    let kicks: Vec<_> = bench
        .run(1000, 1200)
        .into_iter()
        .filter(|(_, action)| *action == Action::Kick(PathId(2)))
        .map(|(when, _)| when)
        .collect();
    assert_eq!(kicks, [1020, 1060]);
}

#[test]
fn a_new_path_that_brings_nothing_is_asked_and_given_up() {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 100);
    bench.event(Event::CarrierLost("eth0".into()), 1000);
    let asked: Vec<_> = bench
        .run(1000, 2400)
        .into_iter()
        .filter(|(_, action)| *action == Action::Initiate(PathId(2)))
        .map(|(when, _)| when)
        .collect();
    assert_eq!(asked, [1300, 1500, 2000]);
    bench.run(2400, 11_500);
    assert_eq!(bench.reason(), Some(Reason::GatewaySilent));
}

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
fn questions(bench: &mut Bench, from: u64, until: u64, told: bool) -> Vec<u64> {
    let (mut asked, mut now) = (Vec::new(), from);
    loop {
        let due = bench.machine.next_deadline(at(now)).unwrap();
        now = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
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
        let asked = questions(&mut bench, 0, 3_600_000, told);
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
        assert_eq!(
            questions(&mut bench, now, now + 31_000, false),
            [now + 30_000]
        );
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
        questions(&mut bench, 0, 1_000_000, true)
    };
    assert_ne!(ask(1), ask(2));
    assert_eq!(ask(1), ask(1));
}

#[test]
fn data_without_answer_is_asked_about_and_closes_the_gate_in_the_end() {
    let mut bench = Bench::connected();
    bench.run(10, 1000);
    bench.event(Event::Sent, 1000);
    let first = bench
        .run(1000, 20_000)
        .into_iter()
        .find(|(_, action)| matches!(action, Action::Initiate(_)));
    assert_eq!(first, Some((1300, Action::Initiate(PathId(1)))));
    assert_eq!(bench.reason(), Some(Reason::GatewaySilent));
    // And it comes back by itself.
    bench.heard(1, 30_000);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

/// A path that fell silent is left within a second for another one, and only because a question went
/// unanswered: traffic that goes one way is no reason to leave.
#[test]
fn a_silent_path_is_left_within_a_second() {
    for (answers, left) in [(false, true), (true, false)] {
        let mut bench = Bench::connected();
        bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 100);
        bench.run(100, 10_000);
        bench.event(Event::Sent, 10_000);
        let mut now = 10_000;
        while now < 10_900 {
            for (when, action) in bench.run(now, now + 10) {
                if action == Action::Initiate(PathId(1)) && answers {
                    bench.heard(1, when + 5);
                    bench.event(Event::Sent, when + 6);
                }
            }
            now += 10;
        }
        let way = if left { 2 } else { 1 };
        assert_eq!(
            bench.way(),
            Some((way, Place::Remote)),
            "answers: {answers}"
        );
    }
}

#[test]
fn one_way_traffic_that_is_answered_when_asked_is_not_asked_about_often() {
    let mut bench = Bench::connected();
    let mut asked = 0;
    let mut now = 1000;
    while now < 31_000 {
        bench.event(Event::Sent, now);
        for (when, action) in bench.run(now, now + 100) {
            if matches!(action, Action::Initiate(_)) {
                asked += 1;
                bench.heard(1, when + 1);
            }
        }
        now += 100;
    }
    assert!((4..=8).contains(&asked), "asked {asked} times in 30 s");
}

#[test]
fn an_idle_session_is_renewed_before_it_dies() {
    let mut bench = Bench::connected();
    let seen = bench.run(10, 130_000);
    assert!(
        seen.contains(&(120_010, Action::Initiate(PathId(1)))),
        "{seen:?}"
    );
    bench.heard(1, 130_000);
    bench.run(130_000, 200_000);
    assert!(bench.way().is_some());
}

#[test]
fn a_session_that_is_not_renewed_closes_the_gate() {
    let mut bench = Bench::connected();
    bench.run(10, 181_000);
    assert_eq!(bench.way(), None);
}

#[test]
fn sleep_and_the_end_of_the_uplink_forget_everything() {
    for event in [Event::Suspend, Event::UplinkGone] {
        let mut bench = Bench::connected();
        bench.event(Event::Proven("eth0".into()), 50);
        let actions = bench.event(event, 100);
        assert!(actions.contains(&Action::Close(PathId(1))));
        assert!(actions.contains(&Action::ResetTunnels));
        assert_eq!(bench.way(), None);
        bench.heard(1, 110);
        assert_eq!(bench.way(), None, "words from the past prove nothing");
    }
}

#[test]
fn nothing_is_taken_up_while_asleep() {
    let mut bench = Bench::connected();
    bench.event(Event::Suspend, 100);
    let actions = bench.event(Event::PathUp(path(2, "eth0", Side::Outside)), 110);
    assert_eq!(actions, [Action::Close(PathId(2))]);
    bench.event(Event::Resume, 200);
    bench.event(Event::PathUp(path(3, "eth0", Side::Outside)), 210);
    bench.heard(3, 220);
    assert_eq!(bench.way(), Some((3, Place::Remote)));
}

/// T31, T32: the laptop slept or its clock jumped without a word.
#[test]
fn t31_doubt_ends_proof_and_session_and_keeps_the_paths() {
    let mut bench = Bench::connected();
    bench.event(Event::Proven("eth0".into()), 50);
    let actions = bench.event(Event::Doubt, 100);
    assert!(actions.contains(&Action::ResetTunnels));
    assert!(actions.contains(&Action::Premises("eth0".into(), false)));
    assert!(actions.contains(&Action::Initiate(PathId(1))));
    assert_eq!(bench.way(), None);
    bench.heard(1, 120);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

#[test]
fn a_path_that_fails_is_tried_again_later_and_later() {
    let mut bench = Bench::new();
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    let initiations = bench
        .run(0, 600_000)
        .into_iter()
        .filter(|(_, action)| matches!(action, Action::Initiate(_)))
        .count();
    // Three a try, and a minute between tries at last.
    assert!((30..=60).contains(&initiations), "{initiations}");
}

/// A laptop in a network that carries no datagrams: handshakes over path 1 are never answered.
fn engaged() -> Bench {
    let mut bench = Bench::new();
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    bench.event(Event::PathUp(engine_path(2, "eth0")), 0);
    let seen = bench.run(0, 1600);
    let at_last = seen.last().cloned();
    assert_eq!(at_last, Some((1500, Action::Engage(PathId(2)))), "{seen:?}");
    bench
}

#[test]
fn an_engine_is_the_last_resort_and_opens_only_when_it_is_up() {
    let mut bench = engaged();
    assert_eq!(bench.reason(), Some(Reason::Connecting));
    // Bytes that come by an engine's path prove nothing.
    bench.heard(2, 1600);
    assert_eq!(bench.way(), None);
    bench.event(Event::EngineUp(PathId(2)), 1700);
    assert_eq!(bench.way(), Some((2, Place::Remote)));
    // Handshakes go on being tried; silence is the engine's business, not ours.
    bench.event(Event::Sent, 1800);
    let seen = bench.run(1800, 400_000);
    assert!(
        seen.iter()
            .any(|(_, act)| *act == Action::Initiate(PathId(1)))
    );
    assert!(
        !seen
            .iter()
            .any(|(_, act)| matches!(act, Action::Kick(_) | Action::Initiate(PathId(2))))
    );
    assert_eq!(bench.way(), Some((2, Place::Remote)));
    // The first that is answered takes over, and the engine ends.
    let mut now = 400_000;
    let asked = |seen: &[(u64, Action)]| {
        let is = |(_, action): &(u64, Action)| *action == Action::Initiate(PathId(1));
        seen.iter().any(is)
    };
    while !asked(&bench.run(now, now + 100)) {
        now += 100;
    }
    let actions = bench.heard(1, now + 100);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
    assert!(
        actions.contains(&Action::Disengage(PathId(2))),
        "{actions:?}"
    );
}

#[test]
fn an_engine_that_is_down_closes_the_gate_and_is_begun_again() {
    let mut bench = engaged();
    bench.event(Event::EngineUp(PathId(2)), 1700);
    let actions = bench.event(Event::EngineDown(PathId(2)), 5000);
    assert_eq!(bench.way(), None);
    assert!(actions.contains(&Action::Disengage(PathId(2))));
    // Its last words come late.
    bench.event(Event::EngineUp(PathId(2)), 5001);
    assert_eq!(bench.way(), None, "nobody asked for it");
    let again = bench
        .run(5001, 9000)
        .into_iter()
        .find(|(_, act)| *act == Action::Engage(PathId(2)));
    assert!(
        again.as_ref().is_some_and(|(when, _)| *when >= 6000),
        "after a pause: {again:?}"
    );
}

#[test]
fn an_engine_that_takes_too_long_is_told_to_end() {
    let mut bench = engaged();
    let seen = bench.run(1600, 21_600);
    assert!(
        seen.contains(&(21_500, Action::Disengage(PathId(2)))),
        "{seen:?}"
    );
    bench.event(Event::EngineUp(PathId(2)), 21_600);
    assert_eq!(bench.way(), None);
}

#[test]
fn an_engine_ends_with_its_cable_with_sleep_and_with_doubt() {
    for event in [
        Event::CarrierLost("eth0".into()),
        Event::PathLost(PathId(2)),
        Event::SendFailed(PathId(2)),
        Event::SessionGone,
        Event::Suspend,
        Event::UplinkGone,
        Event::Doubt,
    ] {
        let mut bench = engaged();
        bench.event(Event::EngineUp(PathId(2)), 1700);
        let actions = bench.event(event.clone(), 3000);
        assert!(actions.contains(&Action::Disengage(PathId(2))), "{event:?}");
        assert_eq!(bench.way(), None, "{event:?}");
    }
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

fn any_event() -> impl Strategy<Value = Event> {
    let port = || prop::sample::select(PORTS.to_vec()).prop_map(str::to_owned);
    let id = || (0u32..12).prop_map(PathId);
    prop_oneof![
        4 => (0u32..12, prop::sample::select(PORTS.to_vec()), any::<bool>(), 0u8..2).prop_map(
            |(id, port, lan, gateway)| {
                let side = if lan { Side::Lan } else { Side::Outside };
                Event::PathUp(PathInfo { gateway: GatewayId(gateway), ..path(id, port, side) })
            }
        ),
        4 => (0u32..12, prop::sample::select(PORTS.to_vec()), any::<bool>()).prop_map(
            |(id, port, lan)| {
                let side = if lan { Side::Lan } else { Side::Outside };
                Event::PathUp(PathInfo { side, ..engine_path(id, port) })
            }
        ),
        4 => id().prop_map(Event::EngineUp),
        1 => id().prop_map(Event::EngineDown),
        1 => id().prop_map(Event::PathLost),
        1 => port().prop_map(Event::CarrierLost),
        6 => (id(), any::<bool>()).prop_map(|(path, handshake)| Event::Heard { path, handshake }),
        2 => Just(Event::Sent),
        1 => id().prop_map(Event::SendFailed),
        1 => Just(Event::SessionGone),
        3 => port().prop_map(Event::Proven),
        1 => port().prop_map(Event::Disproven),
        3 => port().prop_map(|port| wire_up(0, &port)),
        1 => Just(Event::WireLost(WireId(0))),
        1 => Just(Event::UplinkGone),
        1 => Just(Event::Suspend),
        2 => Just(Event::Resume),
        1 => Just(Event::Doubt),
        3 => Just(Event::Tick),
    ]
}

/// What the events mean, without any of the machine's cleverness.
#[derive(Default)]
struct Model {
    paths: BTreeMap<u32, PathInfo>,
    /// Gateways that were heard since the last reset, and when.
    heard: BTreeMap<u8, u64>,
    proven: BTreeMap<String, u64>,
    /// What the engine was told to begin, and whether it said that it is up.
    engaged: Option<(u32, bool)>,
    /// Wires that were taken and for which the proof has held without a break since, with their
    /// ports; and those that were not closed yet.
    wires: BTreeMap<u32, String>,
    unclosed: BTreeSet<u32>,
    asleep: bool,
}

impl Model {
    /// The proofs that were not renewed in time have ended, and their wires with them.
    fn pass(&mut self, now: u64) {
        self.proven.retain(|_, since| now < *since + 40_000);
        self.wires.retain(|_, port| self.proven.contains_key(port));
    }

    fn event(&mut self, event: &Event, actions: &[Action], now: u64) {
        self.pass(now);
        if let Event::EngineUp(path) = event
            && let Some((engaged, up)) = &mut self.engaged
            && *engaged == path.0
        {
            *up = true;
        }
        for action in actions {
            match action {
                Action::Engage(path) => self.engaged = Some((path.0, false)),
                Action::Disengage(_) => self.engaged = None,
                Action::Move { from, to } => {
                    assert_eq!(self.engaged, Some((from.0, true)), "moved what is not up");
                    let gateway = |id: &PathId| match event {
                        Event::PathUp(info) if info.id == *id => Some(info.gateway),
                        _ => self.paths.get(&id.0).map(|info| info.gateway),
                    };
                    assert_eq!(gateway(from), gateway(to), "moved to another gateway");
                    self.engaged = Some((to.0, true));
                }
                Action::CloseWire(wire) => {
                    self.unclosed.remove(&wire.0);
                }
                _ => {}
            }
        }
        match event {
            Event::PathUp(info) if !actions.contains(&Action::Close(info.id)) => {
                self.paths.entry(info.id.0).or_insert_with(|| info.clone());
            }
            Event::PathLost(id) => {
                self.paths.remove(&id.0);
            }
            Event::CarrierLost(port) => {
                self.paths.retain(|_, info| info.port != *port);
                self.proven.remove(port);
            }
            Event::Heard { path, .. } => {
                if let Some(info) = self.paths.get(&path.0) {
                    self.heard.insert(info.gateway.0, now);
                }
            }
            Event::Proven(port) if !self.asleep => {
                self.proven.insert(port.clone(), now);
            }
            Event::Disproven(port) => {
                self.proven.remove(port);
            }
            Event::UplinkGone | Event::Suspend => {
                self.asleep |= *event == Event::Suspend;
                self.paths.clear();
                self.heard.clear();
                self.proven.clear();
            }
            Event::Doubt => {
                self.heard.clear();
                self.proven.clear();
            }
            Event::Resume => self.asleep = false,
            Event::WireUp(wire, port, _) if !actions.contains(&Action::CloseWire(*wire)) => {
                self.wires.insert(wire.0, port.clone());
                self.unclosed.insert(wire.0);
            }
            Event::WireLost(wire) => {
                self.wires.remove(&wire.0);
            }
            _ => {}
        }
        self.pass(now);
    }

    fn check(&self, situation: Situation, now: u64) -> Result<(), TestCaseError> {
        prop_assert!(
            self.unclosed
                .iter()
                .all(|wire| self.wires.contains_key(wire)),
            "a wire is open whose proof has ended"
        );
        if let Situation::Direct { wire } = situation {
            let port = self.wires.get(&wire.0);
            prop_assert!(port.is_some(), "direct over a wire that is not there");
            prop_assert!(!self.asleep, "direct while asleep");
            prop_assert!(
                port.is_some_and(|port| port != "wlan0"),
                "direct over a radio"
            );
        }
        let Situation::Tunnelled {
            gateway,
            path,
            kind,
            side,
            place,
        } = situation
        else {
            return Ok(());
        };
        let info = self.paths.get(&path.0);
        prop_assert!(info.is_some(), "tunnelled over a path that is not there");
        let info = info.unwrap();
        prop_assert_eq!((info.gateway, info.kind, info.side), (gateway, kind, side));
        let up = match info.proof {
            Proof::Handshake => self.heard.contains_key(&gateway.0),
            Proof::Engine => self.engaged == Some((path.0, true)),
        };
        prop_assert!(up, "tunnelled to a gateway that proved nothing");
        prop_assert!(!self.asleep, "tunnelled while asleep");
        let proven = self.proven.get(&info.port);
        let holds = proven.is_some_and(|since| now < since + 40_000);
        prop_assert_eq!(place == Place::Office, side == Side::Lan);
        if side == Side::Lan {
            prop_assert!(holds && kind == UplinkKind::Wired, "office without proof");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order: no way out without a live path and a gateway that proved
    /// itself, no office without a proof that holds on a port with a carrier.
    #[test]
    fn there_is_no_way_out_but_the_proven_one(
        roams in any::<bool>(),
        events in prop::collection::vec((any_event(), 0u64..20_000), 1..120)
    ) {
        let mut bench = Bench::new();
        bench.machine = bench.machine.with_roaming(roams.then_some(GatewayId(2)));
        let mut model = Model::default();
        let (mut now, mut wires) = (0, 0);
        for (event, pause) in events {
            now += pause;
            let event = match event {
                Event::WireUp(_, port, kind) => {
                    wires += 1;
                    Event::WireUp(WireId(wires), port, kind)
                }
                Event::WireLost(_) => Event::WireLost(WireId(wires)),
                event => event,
            };
            // As the loop does: what is due comes before a frame.
            if event == Event::Sent {
                let actions = bench.event(Event::Tick, now);
                model.event(&Event::Tick, &actions, now);
            }
            let actions = bench.event(event.clone(), now);
            model.event(&event, &actions, now);
            let situation = bench.machine.situation();
            model.check(situation, now)?;
            // Nothing is sent over what is gone.
            let alive: BTreeSet<_> = model.paths.keys().copied().collect();
            for action in &actions {
                if let Action::Initiate(id) | Action::Kick(id) | Action::Engage(id) = action {
                    prop_assert!(alive.contains(&id.0), "{:?} over a dead path", action);
                }
            }
        }
    }

    /// The machine always comes to rest, and asks to be woken in the future only.
    #[test]
    fn deadlines_lie_ahead(
        events in prop::collection::vec((any_event(), 0u64..5_000), 1..60)
    ) {
        let mut bench = Bench::new();
        let mut now = 0;
        for (event, pause) in events {
            now += pause;
            bench.event(event, now);
            bench.event(Event::Tick, now);
            bench.event(Event::Tick, now);
            for _ in 0..50 {
                let Some(due) = bench.machine.next_deadline(at(now)) else {
                    break;
                };
                prop_assert!(due > at(now), "due at once after a tick");
                now = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
                bench.event(Event::Tick, now);
            }
        }
    }
}
