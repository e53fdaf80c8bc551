//! An engine that can take its tunnel from path to path.

use super::*;

/// Gateway 2's engine can; it is up over path 1 of `eth0`, and path 2 of `eth1` is there.
fn moving() -> Bench {
    let mut bench = Bench::new();
    bench.machine = Machine::new(timings(), 7)
        .with_direct(true)
        .with_roaming([GatewayId(2)]);
    bench.event(Event::PathUp(engine_path(1, "eth0")), 0);
    bench.event(Event::EngineUp(PathId(1)), 100);
    bench.event(Event::PathUp(engine_path(2, "eth1")), 200);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
    bench
}

const fn moved(from: u32, to: u32) -> Action {
    Action::Move {
        from: PathId(from),
        to: PathId(to),
    }
}

#[test]
fn a_tunnel_goes_on_over_another_path_when_its_own_is_lost() {
    for event in [
        Event::CarrierLost("eth0".into()),
        Event::PathLost(PathId(1)),
    ] {
        let mut bench = moving();
        let actions = bench.event(event.clone(), 5000);
        // First of all: what its packets come by would be closed with the path.
        assert_eq!(actions[0], moved(1, 2), "{event:?}: {actions:?}");
        assert!(!actions.contains(&Action::Disengage(PathId(1))));
        assert_eq!(bench.way(), Some((2, Place::Remote)));
        // From there the engine's word counts.
        bench.event(Event::EngineDown(PathId(2)), 6000);
        assert_eq!(bench.way(), None);
    }
}

#[test]
fn a_tunnel_that_works_is_not_risked_for_a_path_that_is_only_preferred() {
    let mut bench = moving();
    let better = PathInfo {
        rank: 0,
        ..engine_path(3, "eth1")
    };
    bench.event(Event::PathUp(better), 300);
    let seen = bench.run(300, 60_000);
    assert_eq!(seen, []);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

#[test]
fn a_tunnel_enters_from_the_lan_while_the_office_is_proven() {
    let mut bench = moving();
    bench.event(Event::Proven("eth1".into()), 1000);
    let lan = PathInfo {
        side: Side::Lan,
        ..engine_path(3, "eth1")
    };
    let actions = bench.event(Event::PathUp(lan), 1100);
    assert!(actions.contains(&moved(1, 3)), "{actions:?}");
    assert_eq!(bench.way(), Some((3, Place::Office)));
    // And goes back with the proof.
    let actions = bench.event(Event::Disproven("eth1".into()), 5000);
    assert!(actions.contains(&moved(3, 1)), "{actions:?}");
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

#[test]
fn nothing_moves_to_another_gateway_before_it_is_up_or_by_an_engine_that_cannot() {
    // Another gateway.
    let mut bench = moving();
    bench.event(Event::PathLost(PathId(2)), 1000);
    let other = PathInfo {
        gateway: GatewayId(3),
        ..engine_path(4, "eth1")
    };
    bench.event(Event::PathUp(other), 1100);
    let actions = bench.event(Event::CarrierLost("eth0".into()), 2000);
    assert_eq!(actions[0], Action::Disengage(PathId(1)));
    assert_eq!(bench.way(), None);

    // Not up yet.
    let mut bench = moving();
    bench.event(Event::EngineDown(PathId(1)), 1000);
    let begun = bench.event(Event::Tick, 1001);
    assert_eq!(
        begun,
        [] as [Action; 0],
        "it was begun at once, over path 2"
    );
    let actions = bench.event(Event::CarrierLost("eth1".into()), 1500);
    assert!(
        actions.contains(&Action::Disengage(PathId(2))),
        "{actions:?}"
    );

    // Cannot.
    let mut bench = moving();
    bench.machine.roaming.clear();
    let actions = bench.event(Event::CarrierLost("eth0".into()), 2000);
    assert_eq!(actions[0], Action::Disengage(PathId(1)));
    assert_eq!(bench.way(), None);
}
