//! Tunnels that an engine of its own is at.

use super::*;

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
fn an_engine_that_crashed_while_it_served_is_begun_again_soon() {
    let began = |bench: &mut Bench, from| {
        let seen = bench.run(from, from + 5000);
        let engage = |(when, act)| (act == Action::Engage(PathId(2))).then_some(when);
        seen.into_iter().find_map(engage)
    };
    let mut bench = Bench::new();
    let first = bench.event(Event::PathUp(engine_path(2, "eth0")), 0);
    assert!(first.contains(&Action::Engage(PathId(2))), "{first:?}");
    for crash in 0..5 {
        let at = 2000 + crash * 10_000;
        bench.event(Event::EngineUp(PathId(2)), at);
        let actions = bench.event(Event::EngineCrashed(PathId(2)), at + 100);
        assert_eq!(bench.way(), None);
        assert!(actions.contains(&Action::Disengage(PathId(2))));
        let again = began(&mut bench, at + 100).unwrap();
        assert!((at + 300..at + 400).contains(&again), "{again}");
    }
    // Twice in ten seconds it waits as after any failure.
    bench.event(Event::EngineUp(PathId(2)), 43_000);
    bench.event(Event::EngineCrashed(PathId(2)), 43_100);
    let again = began(&mut bench, 43_100).unwrap();
    assert!(again >= 44_100, "{again}");
    // And so does one that never was up.
    bench.event(Event::EngineCrashed(PathId(2)), 60_000);
    let again = began(&mut bench, 60_000).unwrap();
    assert!(again >= 61_000, "{again}");
}

#[test]
fn an_engine_that_crashed_goes_on_where_it_was_and_not_elsewhere() {
    let mut bench = Bench::new();
    bench.event(Event::PathUp(engine_path(2, "eth0")), 0);
    bench.event(Event::EngineUp(PathId(2)), 500);
    bench.event(Event::PathUp(engine_path(3, "wlan0")), 1000);
    let mut seen = vec![(20_000, bench.event(Event::EngineCrashed(PathId(2)), 20_000))];
    seen.extend(
        bench
            .run(20_000, 21_000)
            .into_iter()
            .map(|(when, act)| (when, vec![act])),
    );
    let begun: Vec<_> = seen
        .iter()
        .flat_map(|(when, acts)| acts.iter().map(move |act| (*when, act)))
        .filter(|(_, act)| matches!(act, Action::Engage(_)))
        .collect();
    assert_eq!(begun, [(20_200, &Action::Engage(PathId(2)))]);
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
