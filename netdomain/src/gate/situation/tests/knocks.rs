//! Who answers where no gateway does: asked seldom, and only while there is no way out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::any_event;
use super::*;

fn knocks(seen: &[(u64, Action)], port: &str) -> Vec<u64> {
    let of = |action: &Action| matches!(action, Action::Knock(on) if on == port);
    let seen = seen.iter().filter(|(_, action)| of(action));
    seen.map(|(when, _)| *when).collect()
}

#[test]
fn where_no_gateway_answers_it_is_asked_who_does_more_and_more_seldom() {
    let mut bench = Bench::new();
    bench.event(Event::PathUp(path(1, "wlan0", Side::Outside)), 0);
    let seen = bench.run(0, 1_300_000);
    let pauses: Vec<u64> = knocks(&seen, "wlan0")
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 1000)
        .collect();
    assert_eq!(knocks(&seen, "wlan0")[0], 3000);
    assert_eq!(pauses, [15, 30, 60, 120, 240, 300, 300]);
    // Another network is asked about afresh.
    bench.event(Event::CarrierLost("wlan0".into()), 1_300_000);
    bench.event(Event::PathUp(path(2, "wlan0", Side::Outside)), 1_301_000);
    let seen = bench.run(1_301_000, 1_305_000);
    assert_eq!(knocks(&seen, "wlan0"), [1_304_000]);
}

/// The control: nothing is asked where a gateway answers, and nothing any more once it does.
#[test]
fn where_a_gateway_answers_nothing_is_asked() {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(path(2, "wlan0", Side::Outside)), 20);
    assert_eq!(knocks(&bench.run(20, 100_000), "wlan0"), [0; 0]);

    let mut bench = Bench::new();
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    assert_eq!(knocks(&bench.run(0, 11_550), "eth0"), [3000]);
    bench.heard(1, 11_600);
    assert!(bench.way().is_some());
    assert_eq!(knocks(&bench.run(11_600, 100_000), "eth0"), [0; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens: over one network it is asked no more often than every 15 s, only while there is no
    /// way out, awake, and over ports that have paths.
    #[test]
    fn knocks_are_few_and_never_beside_a_way_out(
        events in prop::collection::vec((any_event(), 0u64..8_000), 1..120)
    ) {
        let mut bench = Bench::new();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        let (mut now, mut asleep) = (0, false);
        for (event, pause) in events {
            let mut asked = |when: u64, port: String| {
                let before = last.insert(port, when);
                prop_assert!(before.is_none_or(|before| when - before >= 15_000), "{before:?} and {when}");
                Ok(())
            };
            // Time alone takes a way out, and brings none.
            let seen = bench.run(now, now + pause);
            let out = bench.machine.situation().scope().is_some();
            for (when, action) in seen {
                if let Action::Knock(port) = action {
                    prop_assert!(!out && !asleep);
                    asked(when, port)?;
                }
            }
            now += pause;
            match &event {
                Event::Suspend => asleep = true,
                Event::Resume => asleep = false,
                _ => {}
            }
            for action in bench.event(event.clone(), now) {
                if let Action::Knock(port) = action {
                    prop_assert!(!bench.machine.paths.on_port(&port).is_empty());
                    prop_assert!(bench.machine.situation().scope().is_none() && !asleep);
                    asked(now, port)?;
                }
            }
            match &event {
                Event::CarrierLost(port) => drop(last.remove(port)),
                Event::UplinkGone | Event::Suspend => last.clear(),
                _ => {}
            }
        }
    }
}
