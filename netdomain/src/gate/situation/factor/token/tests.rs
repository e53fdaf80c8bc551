//! A token, whatever its engine says of it.

use sekisho_control::DemandStage;

use super::super::super::{Event, Reason};
use super::super::tests::{Bench, DEMANDING, path};
use super::*;

const PATH: PathId = PathId(1);

/// A machine whose token has opened with the person's answer, and the tunnel is up.
fn up() -> Bench {
    let mut bench = Bench::asked(Factor::Pin);
    assert!(bench.answer().contains(&Action::HandOver(PATH)));
    bench.event(Event::TokenOpened(PATH));
    assert_eq!(bench.stage(), Some(DemandStage::Judged));
    assert!(!bench.up(), "the gateway has not spoken");
    bench.event(Event::EngineUp(PATH));
    assert!(bench.up());
    assert_eq!(bench.stage(), None);
    bench
}

/// Ends the tunnel by itself, and waits until the next attempt begins; what was done until then.
fn again(bench: &mut Bench) -> Vec<Action> {
    let mut seen = bench.event(Event::EngineDown(PATH));
    assert!(!bench.up());
    seen.extend(bench.wait(2_000));
    assert!(seen.contains(&Action::Engage(PATH)), "{seen:?}");
    seen
}

#[test]
fn a_pin_that_opened_the_token_may_be_used_again_and_nobody_is_asked() {
    let mut bench = up();
    assert!(!again(&mut bench).contains(&Action::Forget));
    bench.event(Event::TokenOpened(PATH));
    bench.event(Event::EngineUp(PATH));
    assert!(bench.up());
}

#[test]
fn a_kept_pin_that_the_card_refuses_counts_as_a_wrong_one() {
    let mut bench = up();
    again(&mut bench);
    bench.event(Event::TokenFailed(PATH, TokenFault::Refused));
    assert_eq!(bench.stage(), Some(DemandStage::Refused));
    let seen = bench.wait(3_000);
    assert!(seen.contains(&Action::Engage(PATH)), "{seen:?}");
    bench.event(Event::EngineAsks(PATH));
    bench.answer();
    bench.event(Event::TokenFailed(PATH, TokenFault::Refused));
    assert_eq!(bench.stage(), Some(DemandStage::Stopped), "two in all");
}

#[test]
fn after_sleep_and_doubt_the_person_is_asked_again() {
    for event in [Event::Suspend, Event::Doubt] {
        let mut bench = up();
        let actions = bench.event(event.clone());
        let at = |wanted: &Action| actions.iter().position(|action| action == wanted);
        let (forgotten, ended) = (at(&Action::Forget), at(&Action::Disengage(PATH)));
        assert!(forgotten.is_some() && ended.is_some(), "{actions:?}");
        // Before a goodbye to the gateway, for which the laptop may have no time any more.
        assert!(event != Event::Suspend || forgotten < ended, "{actions:?}");
        bench.event(Event::Resume);
        bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
        // An engine that kept it all the same is not believed.
        bench.event(Event::TokenOpened(PATH));
        bench.event(Event::EngineUp(PATH));
        assert!(!bench.up(), "{event:?}");
        let seen = bench.wait(2_000);
        assert!(seen.contains(&Action::Engage(PATH)), "{seen:?}");
        bench.event(Event::EngineAsks(PATH));
        assert_eq!(bench.stage(), Some(DemandStage::Asked));
    }
}

/// While the person is what is waited for nobody else is asked who he is; the control is the same gateway
/// without a demand.
#[test]
fn nobody_knocks_while_the_person_is_waited_for() {
    let knocks = |seen: &[Action]| seen.iter().any(|act| matches!(act, Action::Knock(_)));
    let mut bench = Bench::asked(Factor::Pin);
    assert!(!knocks(&bench.wait(60_000)));
    assert_eq!(bench.stage(), Some(DemandStage::Asked));
    bench.event(Event::TokenFailed(PATH, TokenFault::Spent));
    assert!(!knocks(&bench.wait(60_000)));
    let mut bench = Bench::with([]);
    bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
    assert!(knocks(&bench.wait(60_000)));
}

#[test]
fn a_tunnel_is_not_up_before_the_token_has_opened() {
    let mut bench = Bench::asked(Factor::Pin);
    bench.answer();
    bench.event(Event::EngineUp(PATH));
    assert!(!bench.up(), "the token has not said so");
    // Nor does it open for nobody.
    let mut bench = Bench::new(Factor::Pin);
    bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
    let actions = bench.event(Event::TokenOpened(PATH));
    assert!(actions.contains(&Action::Disengage(PATH)));
    // Nor is there a token where a password is demanded.
    let mut bench = Bench::asked(Factor::Otp);
    bench.answer();
    bench.event(Event::TokenOpened(PATH));
    bench.event(Event::EngineUp(PATH));
    assert!(!bench.up());
}

#[test]
fn a_gateway_that_is_silent_after_the_token_opened_costs_no_try() {
    let mut bench = Bench::asked(Factor::Pin);
    for _ in 0..5 {
        bench.answer();
        bench.event(Event::TokenOpened(PATH));
        bench.event(Event::EngineDown(PATH));
        // A gateway that fails is left alone for longer and longer.
        let begins = |bench: &mut Bench| bench.wait(500).contains(&Action::Engage(PATH));
        assert!((0..200).any(|_| begins(&mut bench)));
        bench.event(Event::EngineAsks(PATH));
        assert_eq!(bench.machine.demanded().unwrap().tries, 2);
    }
}

#[test]
fn a_token_that_is_not_there_is_looked_for_until_it_is() {
    let mut bench = Bench::new(Factor::Pin);
    bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
    for _ in 0..100 {
        let absent = Event::TokenFailed(PATH, TokenFault::Absent);
        assert!(bench.event(absent).contains(&Action::Disengage(PATH)));
        assert_eq!(bench.stage(), Some(DemandStage::Absent));
        assert_eq!(bench.reason(), Some(Reason::SecondFactorMissing));
        let brake = bench.wait(4_900);
        assert!(!brake.contains(&Action::Engage(PATH)), "no brake");
        assert!(bench.wait(200).contains(&Action::Engage(PATH)));
    }
    bench.event(Event::EngineAsks(PATH));
    assert_eq!(bench.machine.demanded().unwrap().tries, 2);
    // Pulled while the person typed: it was not tried.
    bench.answer();
    bench.event(Event::TokenFailed(PATH, TokenFault::Absent));
    assert_eq!(bench.machine.demanded().unwrap().tries, 2);
    // Whoever says that they are there has put it in.
    assert!(bench.event(Event::AskAgain).contains(&Action::Engage(PATH)));
}

#[test]
fn a_token_that_is_spent_is_left_alone_and_so_is_each_gateway_that_needs_it() {
    let other = GatewayId(1);
    let mut bench = Bench::with([(DEMANDING, Factor::Pin), (other, Factor::Pin)]);
    bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
    bench.event(Event::PathUp(path(2, "eth0", other)));
    bench.event(Event::TokenFailed(PATH, TokenFault::Spent));
    assert_eq!(bench.stage(), Some(DemandStage::Stopped));
    bench.event(Event::AskAgain);
    let day = bench.wait(86_400_000);
    assert!(!day.iter().any(|action| matches!(action, Action::Engage(_))));
}

#[test]
fn wrong_pins_are_counted_for_the_token_and_not_for_the_gateway() {
    let other = GatewayId(1);
    let mut bench = Bench::with([(DEMANDING, Factor::Pin), (other, Factor::Pin)]);
    let mut path_of = path(1, "eth0", DEMANDING);
    for tries in [2, 1] {
        bench.event(Event::PathUp(path_of));
        let engaged = PathId(3 - u32::from(tries));
        bench.wait(5_000);
        bench.event(Event::EngineAsks(engaged));
        assert_eq!(bench.machine.demanded().unwrap().tries, tries);
        assert!(bench.answer().contains(&Action::HandOver(engaged)));
        bench.event(Event::EngineDown(engaged));
        bench.event(Event::CarrierLost("eth0".into()));
        path_of = path(2, "eth0", other);
    }
    assert_eq!(bench.stage(), Some(DemandStage::Stopped));
    bench.event(Event::PathUp(path(3, "eth0", DEMANDING)));
    let day = bench.wait(86_400_000);
    assert!(!day.iter().any(|action| matches!(action, Action::Engage(_))));
}
