//! Every way has its turn: whatever their number and the pauses that policy gives, none keeps another
//! from being tried.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Three handshakes in vain.
const TURN: u64 = 1500;
const UP_WITHIN: u64 = 20_000;

/// Ways that lead nowhere: their times of being tried, of so many for handshakes and for engines.
fn tried(
    (handshakes, engines): (u32, u32),
    (first, max): (u64, u64),
    engine_lives: u64,
    until: u64,
) -> BTreeMap<u32, Vec<u64>> {
    let mut bench = Bench::new();
    bench.machine.timings = Timings {
        up_within: Duration::from_millis(UP_WITHIN),
        retry_first: Duration::from_millis(first),
        retry_max: Duration::from_millis(max),
        ..timings()
    };
    let mut tried: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    // When the engine says that it did not get through.
    let mut ends: Option<(u64, PathId)> = None;
    let mut note = |actions: Vec<Action>, now: u64, ends: &mut Option<(u64, PathId)>| {
        for action in actions {
            match action {
                Action::Initiate(path) => tried.entry(path.0).or_default().push(now),
                Action::Engage(path) => {
                    tried.entry(path.0).or_default().push(now);
                    *ends = Some((now + engine_lives, path));
                }
                Action::Disengage(_) => *ends = None,
                _ => {}
            }
        }
    };
    for id in 1..=handshakes + engines {
        let info = if id <= handshakes {
            path(id, "eth0", Side::Outside)
        } else {
            engine_path(id, "eth0")
        };
        let gateway = GatewayId(u8::try_from(id).unwrap());
        let event = Event::PathUp(PathInfo { gateway, ..info });
        note(bench.event(event, 0), 0, &mut ends);
    }
    let mut now = 0;
    loop {
        let due = bench.machine.next_deadline().map_or(until, |due| {
            u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap()
        });
        let due = due.max(now + 1);
        let (event, at) = match ends.take_if(|(end, _)| *end <= due) {
            Some((end, path)) => (Event::EngineDown(path), end),
            None => (Event::Tick, due),
        };
        if at > until {
            return tried;
        }
        now = at;
        note(bench.event(event, now), now, &mut ends);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No way waits longer than its own longest pause and a turn of each of the others.
    #[test]
    fn every_way_is_tried_in_bounded_time(
        handshakes in 0u32..=12,
        engines in 0u32..=4,
        first in 1u64..20_000,
        longer in 0u64..60_000,
        engine_lives in 1u64..30_000,
    ) {
        let max = first + longer;
        let all = u64::from(handshakes) * TURN;
        let engine = UP_WITHIN.min(engine_lives);
        // Between two engines each handshake has its turn.
        let bound = max + all + u64::from(engines) * (engine + all) + TURN + 100;
        let until = 4 * bound;
        let tried = tried((handshakes, engines), (first, max), engine_lives, until);
        for id in 1..=handshakes + engines {
            let mut last = 0;
            for time in tried.get(&id).into_iter().flatten().copied().chain([until]) {
                prop_assert!(
                    time - last <= bound,
                    "way {id} was not tried from {last} to {time}; the bound is {bound}"
                );
                last = time;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The same of ways that are better than the one in use and lead nowhere.
    #[test]
    fn every_better_way_is_tried_in_bounded_time(
        better in 1u32..=12,
        first in 1u64..20_000,
        longer in 0u64..60_000,
    ) {
        let mut bench = Bench::new();
        let max = first + longer;
        bench.machine.timings = Timings {
            retry_first: Duration::from_millis(first),
            retry_max: Duration::from_millis(max),
            ..timings()
        };
        for id in 1..=better + 1 {
            let rank = id;
            let info = path(id, "eth0", Side::Outside);
            bench.event(Event::PathUp(PathInfo { rank, ..info }), 0);
        }
        let used = better + 1;
        let bound = max + u64::from(better) * TURN + TURN + 100;
        // Before the first handshake is answered, each has its turn.
        let mut last: BTreeMap<u32, u64> = (1..=better).map(|id| (id, 0)).collect();
        let (mut now, mut open) = (0, false);
        while now < 5 * bound {
            for (when, action) in bench.run(now, now + 100) {
                match action {
                    Action::Initiate(PathId(id)) if id == used => {
                        bench.heard(used, when + 1);
                        open = true;
                    }
                    Action::Initiate(PathId(id)) => drop(last.insert(id, when)),
                    _ => {}
                }
            }
            now += 100;
            for (id, last) in &last {
                prop_assert!(now - last <= bound + 100, "way {id}: from {last} to {now}");
            }
        }
        prop_assert!(open && bench.way() == Some((used, Place::Remote)));
    }
}

/// Five gateways that do not answer and a pause of no more than five seconds: the engine is begun all the
/// same, once each of them has been tried.
#[test]
fn many_gateways_and_short_pauses_do_not_keep_the_engine_from_beginning() {
    let tried = tried((5, 1), (1000, 5000), UP_WITHIN, 60_000);
    assert_eq!(tried[&6].first(), Some(&(5 * TURN)), "{tried:?}");
    assert!(tried[&6].len() >= 2, "and again: {tried:?}");
}
