//! The second factor against what it promises, whatever happens around it.

use proptest::prelude::*;
use sekisho_control::{Side, TokenFault, UplinkKind};

use super::super::{Event, PathInfo, Proof, Situation, Timings};
use super::*;

fn timings() -> Timings {
    Timings {
        up_within: Duration::from_secs(20),
        dead_after: Duration::from_secs(10),
        retry_first: Duration::from_secs(1),
        retry_max: Duration::from_mins(1),
        recheck: Duration::from_secs(30),
        prefer_first_after: Duration::from_mins(5),
        healthy_after: Duration::from_secs(10),
    }
}

fn in_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

const ANSWER_WITHIN: Duration = Duration::from_mins(3);
pub(super) const DEMANDING: GatewayId = GatewayId(0);

pub(super) fn path(id: u32, port: &str, gateway: GatewayId) -> PathInfo {
    PathInfo {
        id: PathId(id),
        port: port.to_owned(),
        kind: UplinkKind::Wired,
        rank: 1,
        gateway,
        side: Side::Outside,
        proof: Proof::Engine,
    }
}

/// A machine with one gateway that demands a factor, and the time.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) now: u64,
}

impl Bench {
    pub(super) fn new(factor: Factor) -> Self {
        Self::with([(DEMANDING, factor)])
    }

    pub(super) fn with(factors: impl IntoIterator<Item = (GatewayId, Factor)>) -> Self {
        let machine = Machine::new(timings(), 7).with_factors(factors, ANSWER_WITHIN, 41);
        Self { machine, now: 0 }
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.machine.handle(event, at(self.now), &mut actions);
        actions
    }

    /// Lets time pass as the loop would, from deadline to deadline.
    pub(super) fn wait(&mut self, millis: u64) -> Vec<Action> {
        let end = self.now + millis;
        let mut seen = Vec::new();
        for _ in 0..100_000 {
            let due = self.machine.next_deadline();
            let due = due.map(|due| in_millis(due.since_boot()));
            self.now = due.unwrap_or(end).max(self.now + 1).min(end);
            seen.extend(self.event(Event::Tick));
            if self.now == end {
                return seen;
            }
        }
        panic!("the machine never rests");
    }

    pub(super) fn stage(&self) -> Option<DemandStage> {
        self.machine.demanded().map(|demanded| demanded.stage)
    }

    fn id(&self) -> DemandId {
        self.machine.demanded().unwrap().id
    }

    pub(super) fn up(&self) -> bool {
        matches!(self.machine.situation(), Situation::Tunnelled { .. })
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        match self.machine.situation() {
            Situation::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// With a path, over which the engine has asked.
    pub(super) fn asked(factor: Factor) -> Self {
        let mut bench = Self::new(factor);
        let actions = bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
        assert!(actions.contains(&Action::Engage(PathId(1))));
        bench.now += 500;
        bench.event(Event::EngineAsks(PathId(1)));
        assert_eq!(bench.stage(), Some(DemandStage::Asked));
        assert_eq!(bench.reason(), Some(Reason::SecondFactor));
        bench
    }

    pub(super) fn answer(&mut self) -> Vec<Action> {
        let id = self.id();
        self.event(Event::Answered(id))
    }
}

#[test]
fn a_person_may_take_longer_than_an_engine_and_is_then_connected() {
    let mut bench = Bench::asked(Factor::Otp);
    let before = bench.wait(170_000);
    assert!(
        !before
            .iter()
            .any(|action| matches!(action, Action::Disengage(_)))
    );
    assert!(bench.answer().contains(&Action::HandOver(PathId(1))));
    assert_eq!(bench.stage(), Some(DemandStage::Judged));
    assert!(!bench.up());
    bench.now += 300;
    bench.event(Event::EngineUp(PathId(1)));
    assert!(bench.up());
    assert_eq!(bench.stage(), None);
}

#[test]
fn an_answer_is_good_for_one_asking_and_once() {
    let mut bench = Bench::asked(Factor::Otp);
    let id = bench.id();
    for other in [id.0.wrapping_add(1), id.0.wrapping_sub(1), 0] {
        assert_eq!(bench.event(Event::Answered(DemandId(other))), []);
    }
    assert!(bench.answer().contains(&Action::HandOver(PathId(1))));
    assert_eq!(bench.event(Event::Answered(id)), [], "a replay");
    bench.event(Event::EngineDown(PathId(1)));
    assert_eq!(bench.event(Event::Answered(id)), [], "a replay");
    bench.wait(3_000);
    bench.event(Event::EngineAsks(PathId(1)));
    assert_ne!(bench.id(), id);
    assert_eq!(bench.event(Event::Answered(id)), [], "a replay");
}

#[test]
fn a_tunnel_that_came_up_without_the_answer_does_not_count() {
    let mut bench = Bench::new(Factor::Otp);
    bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
    assert!(
        bench
            .event(Event::EngineUp(PathId(1)))
            .contains(&Action::Disengage(PathId(1)))
    );
    assert!(!bench.up());
    let mut bench = Bench::asked(Factor::Otp);
    bench.event(Event::EngineUp(PathId(1)));
    assert!(!bench.up());
    // Of another gateway nothing is demanded.
    let mut bench = Bench::new(Factor::Otp);
    bench.event(Event::PathUp(path(1, "eth0", GatewayId(1))));
    bench.event(Event::EngineUp(PathId(1)));
    assert!(bench.up());
}

#[test]
fn an_engine_that_asks_where_policy_names_nothing_has_failed() {
    let mut bench = Bench::new(Factor::Otp);
    bench.event(Event::PathUp(path(1, "eth0", GatewayId(1))));
    let actions = bench.event(Event::EngineAsks(PathId(1)));
    assert!(actions.contains(&Action::Disengage(PathId(1))));
    assert_eq!(bench.stage(), None);
}

#[test]
fn where_nobody_answers_nobody_is_asked_again_until_somebody_is_there() {
    let mut bench = Bench::asked(Factor::Otp);
    let actions = bench.wait(in_millis(ANSWER_WITHIN) + 1);
    assert!(actions.contains(&Action::Disengage(PathId(1))));
    assert_eq!(bench.stage(), Some(DemandStage::Lapsed));
    assert_eq!(bench.reason(), Some(Reason::SecondFactorMissing));
    let day = bench.wait(86_400_000);
    assert!(!day.iter().any(|action| matches!(action, Action::Engage(_))));
    let actions = bench.event(Event::AskAgain);
    assert!(
        actions.contains(&Action::Engage(PathId(1))),
        "at once, without a pause"
    );
}

#[test]
fn a_gateway_that_gives_up_waiting_is_not_asked_again_and_again() {
    let mut bench = Bench::asked(Factor::Otp);
    bench.event(Event::EngineDown(PathId(1)));
    assert_eq!(bench.stage(), Some(DemandStage::Lapsed));
    let day = bench.wait(86_400_000);
    assert!(!day.iter().any(|action| matches!(action, Action::Engage(_))));
    // Elsewhere, it is.
    bench.event(Event::CarrierLost("eth0".into()));
    assert_eq!(bench.reason(), Some(Reason::NoPath));
    let actions = bench.event(Event::PathUp(path(2, "eth0", DEMANDING)));
    assert!(actions.contains(&Action::Engage(PathId(2))));
}

#[test]
fn wrong_answers_are_few_whatever_the_factor() {
    for (factor, most) in [(Factor::Otp, 3), (Factor::Pin, 2)] {
        let mut bench = Bench::asked(factor);
        for wrong in 1..=most {
            assert_eq!(bench.machine.demanded().unwrap().tries, most + 1 - wrong);
            bench.answer();
            bench.event(Event::EngineDown(PathId(1)));
            if wrong < most {
                assert_eq!(bench.stage(), Some(DemandStage::Refused));
                let actions = bench.wait(5_000);
                assert!(actions.contains(&Action::Engage(PathId(1))));
                bench.event(Event::EngineAsks(PathId(1)));
            }
        }
        assert_eq!(bench.stage(), Some(DemandStage::Stopped));
        // Neither the person nor another network changes that.
        bench.event(Event::AskAgain);
        bench.event(Event::CarrierLost("eth0".into()));
        bench.event(Event::PathUp(path(1, "eth0", DEMANDING)));
        let hour = bench.wait(3_600_000);
        let again = hour.contains(&Action::Engage(PathId(1)));
        assert_eq!(again, factor == Factor::Otp);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    PathUp(u32),
    PathLost(u32),
    Carrier,
    Asks(u32),
    Answer,
    Stale(u32),
    Up(u32),
    Opened(u32),
    Fault(u32, TokenFault),
    Down(u32),
    AskAgain,
    Suspend,
    Resume,
    Doubt,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1u32..4;
    prop_oneof![
        (0u64..400_000).prop_map(Step::Wait),
        (0u64..3_000).prop_map(Step::Wait),
        id.clone().prop_map(Step::PathUp),
        id.clone().prop_map(Step::PathLost),
        Just(Step::Carrier),
        id.clone().prop_map(Step::Asks),
        id.clone().prop_map(Step::Asks),
        Just(Step::Answer),
        Just(Step::Answer),
        (40u32..60).prop_map(Step::Stale),
        id.clone().prop_map(Step::Up),
        id.clone().prop_map(Step::Up),
        id.clone().prop_map(Step::Opened),
        id.clone().prop_map(Step::Opened),
        id.clone()
            .prop_map(|id| Step::Fault(id, TokenFault::Absent)),
        id.clone().prop_map(|id| Step::Fault(id, TokenFault::Spent)),
        id.clone()
            .prop_map(|id| Step::Fault(id, TokenFault::Refused)),
        id.prop_map(Step::Down),
        Just(Step::AskAgain),
        Just(Step::Suspend),
        Just(Step::Resume),
        Just(Step::Doubt),
    ]
}

proptest! {
    /// Whatever happens: an answer is handed over once for an asking; the tunnel is up only after
    /// an answer to this very attempt, or to an earlier one that opened the token and was not to be
    /// forgotten since; and of wrong answers no more come through than are allowed, then none for the
    /// long pause, and then one at a time.
    #[test]
    fn answers_are_few_and_nothing_is_up_without_one(
        pin in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let factor = if pin { Factor::Pin } else { Factor::Otp };
        let most = usize::from(max_wrong(factor));
        let mut bench = Bench::new(factor);
        let (mut engaged, mut answered) = (None, false);
        // Whether the token opened for this attempt; may open without an answer; is never asked again.
        let (mut opened, mut kept, mut spent) = (false, false, false);
        // When answers were handed over since the last that was right.
        let mut given: Vec<u64> = Vec::new();
        let mut used = Vec::new();
        for step in steps {
            let going = !bench.up();
            let actions = match step.clone() {
                Step::Wait(millis) => bench.wait(millis),
                Step::PathUp(id) => bench.event(Event::PathUp(path(id, "eth0", DEMANDING))),
                Step::PathLost(id) => bench.event(Event::PathLost(PathId(id))),
                Step::Carrier => bench.event(Event::CarrierLost("eth0".into())),
                Step::Asks(id) => bench.event(Event::EngineAsks(PathId(id))),
                Step::Answer => {
                    let id = bench.machine.demanded().map_or(DemandId(0), |demanded| demanded.id);
                    let actions = bench.event(Event::Answered(id));
                    if actions.iter().any(|action| matches!(action, Action::HandOver(_))) {
                        prop_assert!(!used.contains(&id), "{id:?} was answered twice");
                        used.push(id);
                    }
                    actions
                }
                Step::Stale(id) => {
                    if bench.machine.demanded().is_some_and(|demanded| demanded.id.0 == id) {
                        continue;
                    }
                    let actions = bench.event(Event::Answered(DemandId(id)));
                    prop_assert!(!actions.iter().any(|action| matches!(action, Action::HandOver(_))));
                    actions
                }
                Step::Up(id) => bench.event(Event::EngineUp(PathId(id))),
                Step::Opened(id) => {
                    if pin && going && engaged == Some(PathId(id)) {
                        let quiet = bench.stage().is_none();
                        let entitled = answered || (kept && quiet);
                        (opened, kept) = (opened || entitled, kept || entitled);
                        if entitled {
                            given.clear();
                        }
                    }
                    bench.event(Event::TokenOpened(PathId(id)))
                }
                Step::Fault(id, fault) => {
                    if pin && going && engaged == Some(PathId(id)) {
                        kept = false;
                        spent |= fault == TokenFault::Spent;
                        // What was not tried is not counted.
                        if fault == TokenFault::Absent && answered && !opened {
                            given.pop();
                        }
                    }
                    bench.event(Event::TokenFailed(PathId(id), fault))
                }
                Step::Down(id) => bench.event(Event::EngineDown(PathId(id))),
                Step::AskAgain => bench.event(Event::AskAgain),
                Step::Suspend => bench.event(Event::Suspend),
                Step::Resume => bench.event(Event::Resume),
                Step::Doubt => bench.event(Event::Doubt),
            };
            if matches!(step, Step::Suspend | Step::Doubt) {
                kept = false;
                prop_assert!(!pin || actions.contains(&Action::Forget), "{step:?}");
            }
            if bench.stage() == Some(DemandStage::Asked) {
                kept = false;
            }
            let mut forgotten = false;
            for action in actions {
                match action {
                    Action::Forget => forgotten = true,
                    Action::Engage(id) => {
                        prop_assert!(!spent, "a token that is spent is asked again");
                        prop_assert!(!pin || kept || forgotten, "a PIN may be used again");
                        (engaged, answered, opened) = (Some(id), false, false);
                    }
                    Action::HandOver(id) => {
                        prop_assert_eq!(Some(id), engaged, "to another engine than that which asked");
                        answered = true;
                        given.push(bench.now);
                    }
                    Action::Disengage(_) => (engaged, answered, opened) = (None, false, false),
                    _ => {}
                }
            }
            if bench.up() {
                prop_assert!(if pin { opened } else { answered }, "up without an answer");
                given.clear();
            }
            // More than `most` without a right one between: only with the long pause before each.
            if given.len() > most {
                prop_assert!(!pin, "a token was asked once too often");
                let last = given.len() - 1;
                let pause = in_millis(STOP);
                prop_assert!(given[last] - given[last - 1] >= pause);
            }
        }
    }
}
