//! Several gateways: in order, with a second key to know which of them live, and back in time.

use super::*;

/// A path to the second gateway of policy.
fn second(id: u32, port: &str) -> PathInfo {
    PathInfo {
        gateway: GatewayId(1),
        ..path(id, port, Side::Outside)
    }
}

/// Connected to the first gateway over eth0, the second one beside it.
fn two_gateways() -> Bench {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(second(2, "eth0")), 20);
    bench
}

/// Ticks until `until`; `answers` says which handshakes and checks are answered, and after how long it
/// is asked on.
fn live(
    bench: &mut Bench,
    from: u64,
    until: u64,
    lives: impl Fn(u64, u32) -> bool,
) -> Vec<(u64, Action)> {
    let (mut now, mut seen) = (from, Vec::new());
    while now < until {
        now += 10;
        for (when, action) in bench.run(now - 10, now) {
            match &action {
                Action::Initiate(id) if lives(when, id.0) => {
                    bench.heard(id.0, when + 2);
                }
                Action::Check(id) if lives(when, id.0) => {
                    bench.event(Event::Checked(*id), when + 2);
                }
                _ => {}
            }
            seen.push((when, action));
        }
    }
    seen
}

fn checks(seen: &[(u64, Action)], id: u32) -> Vec<u64> {
    let of =
        |(when, action): &(u64, Action)| (*action == Action::Check(PathId(id))).then_some(*when);
    seen.iter().filter_map(of).collect()
}

#[test]
fn paths_that_wait_are_asked_by_the_second_key_and_the_one_in_use_is_not() {
    let mut bench = two_gateways();
    bench.event(Event::PathUp(path(3, "eth1", Side::Outside)), 30);
    let seen = live(&mut bench, 30, 30_000, |_, _| true);
    assert!(checks(&seen, 1).is_empty());
    for id in [2, 3] {
        let asked = checks(&seen, id);
        assert!((5..=7).contains(&asked.len()), "{id}: {asked:?}");
    }
    // Never two at once: the gateway would take the second for a copy of the first.
    let mut all = [checks(&seen, 2), checks(&seen, 3)].concat();
    all.sort_unstable();
    assert!(
        all.windows(2).all(|pair| pair[1] - pair[0] >= 100),
        "{all:?}"
    );
    // And with the laptop's own key nobody else is asked.
    let strange = |(_, action): &&(u64, Action)| matches!(action, Action::Initiate(id) | Action::Kick(id) if id.0 != 1);
    assert_eq!(seen.iter().find(strange), None);
}

#[test]
fn without_a_second_key_nobody_is_asked() {
    let mut bench = two_gateways();
    let machine = std::mem::replace(&mut bench.machine, Machine::new(timings(), 7));
    bench.machine = machine.with_standby(false);
    let seen = live(&mut bench, 30, 30_000, |_, _| true);
    assert!(checks(&seen, 2).is_empty());
}

#[test]
fn a_silent_path_that_waits_is_asked_more_seldom() {
    let mut bench = two_gateways();
    let seen = live(&mut bench, 30, 30_000, |_, id| id == 1);
    // The first time as soon as it was there.
    let asked = checks(&seen, 2);
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [500, 5000, 5000, 5000, 5000, 5000]);
}

/// The gateway falls silent: the next one that lives is tried by handshake, and taken when it answers.
#[test]
fn a_silent_gateway_is_left_for_one_that_lives() {
    let mut bench = two_gateways();
    bench.event(
        Event::PathUp(PathInfo {
            gateway: GatewayId(2),
            ..second(3, "eth0")
        }),
        30,
    );
    // The second of policy is dead, the third lives.
    live(&mut bench, 30, 20_000, |_, id| id != 2);
    let mut now = 20_000;
    while bench.way() == Some((1, Place::Remote)) && now < 30_000 {
        bench.event(Event::Sent, now);
        live(&mut bench, now, now + 10, |_, id| id == 3);
        now += 10;
    }
    assert_eq!(bench.way(), Some((3, Place::Remote)));
    assert!(now < 20_800, "after {} ms", now - 20_000);
}

#[test]
fn without_a_second_key_gateways_are_tried_in_order() {
    let mut bench = Bench::new();
    bench.machine = Machine::new(timings(), 7);
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    bench.event(Event::PathUp(second(2, "eth0")), 0);
    bench.event(
        Event::PathUp(PathInfo {
            gateway: GatewayId(2),
            ..second(3, "eth0")
        }),
        0,
    );
    let seen = live(&mut bench, 0, 10_000, |_, id| id == 3);
    let first = |id| {
        seen.iter()
            .find(|(_, action)| *action == Action::Initiate(PathId(id)))
    };
    let order: Vec<u64> = [1, 2, 3]
        .into_iter()
        .map(|id| first(id).unwrap().0)
        .collect();
    assert!(order.is_sorted() && order[2] < 4000, "{order:?}");
    assert_eq!(bench.way(), Some((3, Place::Remote)));
}

/// The first gateway is back: it is returned to when it has been well for as long as policy says, and
/// not before; a miss begins the time anew.
#[test]
fn the_first_gateway_is_returned_to_when_it_has_been_well_for_long() {
    for misses in [false, true] {
        let mut bench = two_gateways();
        live(&mut bench, 30, 10_000, |_, _| true);
        let dead = |when: u64| when < 60_000 || (misses && (200_000..203_000).contains(&when));
        let lives = |when: u64, id: u32| id == 2 || !dead(when);
        for now in (10_000..12_000).step_by(10) {
            bench.event(Event::Sent, now);
            live(&mut bench, now, now + 10, lives);
        }
        assert_eq!(bench.way(), Some((2, Place::Remote)));
        let seen = live(&mut bench, 12_000, 700_000, lives);
        assert_eq!(bench.way(), Some((1, Place::Remote)));
        let back = seen
            .iter()
            .find(|(_, action)| {
                *action == Action::Kick(PathId(1)) || *action == Action::Initiate(PathId(1))
            })
            .map(|(when, _)| *when)
            .unwrap();
        let since = if misses { 200_000 } else { 60_000 };
        let range = since + 300_000..=since + 311_000;
        assert!(range.contains(&back), "misses {misses}: {back}");
    }
}

#[test]
fn without_a_second_key_the_first_gateway_is_tried_again_after_that_time() {
    let mut bench = Bench::new();
    bench.machine = Machine::new(timings(), 7);
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    bench.event(Event::PathUp(second(2, "eth0")), 0);
    live(&mut bench, 0, 10_000, |_, id| id == 2);
    assert_eq!(bench.way(), Some((2, Place::Remote)));
    let seen = live(&mut bench, 10_000, 320_000, |when, id| {
        id == 2 || when > 30_000
    });
    let tried = seen
        .iter()
        .find(|(_, action)| *action == Action::Initiate(PathId(1)));
    let (tried, _) = tried.unwrap();
    assert!((300_000..=303_000).contains(tried), "{tried}");
    assert_eq!(bench.way(), Some((1, Place::Remote)));
}

/// What a gateway says late, after the tunnel went elsewhere, changes nothing.
#[test]
fn a_late_answer_of_another_gateway_is_no_session() {
    let mut bench = two_gateways();
    bench.heard(2, 1000);
    assert_eq!(bench.way(), Some((1, Place::Remote)));
    // The session with the first one goes on to its other path.
    bench.event(Event::PathUp(path(3, "eth1", Side::Outside)), 1010);
    bench.run(1010, 4000);
    bench.event(Event::CarrierLost("eth0".into()), 5000);
    assert_eq!(bench.way(), Some((3, Place::Remote)));
}

/// Two cables, and a gateway that is dead behind both: the session does not go to and fro between them,
/// which would look like a way out for as long as it lasts.
#[test]
fn a_gateway_that_is_dead_behind_every_path_closes_the_gate() {
    for others in [false, true] {
        let mut bench = Bench::connected();
        bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 20);
        if others {
            bench.event(Event::PathUp(second(3, "eth0")), 30);
        }
        live(&mut bench, 30, 10_000, |_, _| true);
        let (mut now, mut ways) = (10_000, Vec::new());
        while now < 25_000 {
            bench.event(Event::Sent, now);
            live(&mut bench, now, now + 10, |_, id| id == 3);
            now += 10;
            let way = bench.way().map(|(way, _)| way);
            if ways.last() != Some(&way) {
                ways.push(way);
            }
        }
        let end = if others { Some(3) } else { None };
        assert_eq!(ways, [Some(1), Some(2), end]);
    }
}

/// And where it is well again, each path may be gone to anew.
#[test]
fn a_path_that_failed_once_is_gone_to_when_the_gateway_has_answered_since() {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 20);
    live(&mut bench, 30, 10_000, |_, _| true);
    let mut now = 10_000;
    for (silent, next) in [(1, 2), (2, 1), (1, 2)] {
        let start = now;
        while bench.way() == Some((silent, Place::Remote)) {
            assert!(now < start + 800, "{silent} is still in use");
            bench.event(Event::Sent, now);
            live(&mut bench, now, now + 10, |_, id| id != silent);
            now += 10;
        }
        assert_eq!(bench.way(), Some((next, Place::Remote)));
        bench.heard(next, now);
        live(&mut bench, now, now + 8000, |_, _| true);
        now += 8000;
    }
}
