//! Which way is in use, how it is left, and what ends all of them.

use super::*;

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

/// What becomes due while the gate is busy with packets is done when it looks again: it is not passed
/// over until something else is due, which was the slowest change of thirty.
#[test]
fn what_became_due_while_the_gate_was_busy_is_done_at_once() {
    let mut bench = Bench::connected();
    bench.event(Event::PathUp(path(2, "eth1", Side::Outside)), 100);
    bench.run(100, 10_000);
    bench.event(Event::Sent, 10_000);
    let mut now = 10_000;
    while bench.way() == Some((1, Place::Remote)) {
        // Until just before it, then something else took a while.
        let due = bench.machine.next_deadline().expect("it is asked about");
        let due = u64::try_from(due.since_boot().as_millis()).unwrap();
        bench.event(Event::Tick, due - 1);
        bench.event(Event::Sent, due + 9);
        assert_eq!(bench.machine.next_deadline(), Some(at(due)), "passed over");
        now = due + 10;
        bench.event(Event::Tick, now);
    }
    assert!(now < 10_800, "left after {} ms", now - 10_000);
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
