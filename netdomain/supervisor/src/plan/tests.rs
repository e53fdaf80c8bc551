//! The plan against a model of the world: who runs, and which pair each end of a wire belongs to.

use proptest::prelude::*;

use super::*;

const ALL: [(Role, bool); 5] = [
    (Role::Work, true),
    (Role::Gate, true),
    (Role::Uplink, true),
    (Role::Guest, true),
    (Role::Modem, true),
];

/// What a shell would have done.
#[derive(Debug, Default)]
struct World {
    running: BTreeMap<Role, bool>,
    /// The pair that each process holds on each wire.
    holds: BTreeMap<(Role, Wire), u32>,
    kept: BTreeMap<Wire, u32>,
    /// The pair whose other end is to be attached next.
    fresh: BTreeMap<Wire, u32>,
    pairs: u32,
    over: bool,
    killed: Vec<Role>,
    told: Vec<(Role, Command)>,
}

impl World {
    fn does(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.over, "nothing is done after the end");
            match action {
                Action::Start(role, ends) => {
                    assert_ne!(self.running.insert(role, true), Some(true), "started twice");
                    for (wire, end) in ends {
                        let pair = if end == End::Kept {
                            self.kept.remove(&wire).expect("an end was kept")
                        } else {
                            self.pairs += 1;
                            self.pairs
                        };
                        match end {
                            End::Fresh => {
                                self.fresh.insert(wire, pair);
                            }
                            End::FreshKept => {
                                assert_eq!(self.kept.insert(wire, pair), None);
                            }
                            End::Kept => {}
                        }
                        self.holds.insert((role, wire), pair);
                    }
                }
                Action::Attach(role, wire) => {
                    assert_eq!(self.running.get(&role), Some(&true));
                    let pair = self.fresh.remove(&wire).expect("a pair was just made");
                    self.holds.insert((role, wire), pair);
                }
                Action::Join(wire) => {
                    self.pairs += 1;
                    for role in [wire.ends().0, wire.ends().1] {
                        assert_eq!(self.running.get(&role), Some(&true));
                        self.holds.insert((role, wire), self.pairs);
                    }
                }
                Action::Discard(wire) => assert!(self.kept.remove(&wire).is_some()),
                Action::Kill(role) | Action::Terminate(role) => self.killed.push(role),
                Action::Tell(role, command) => {
                    assert_eq!(self.running.get(&role), Some(&true));
                    self.told.push((role, command));
                }
                Action::MovePorts => {}
                Action::Exit => self.over = true,
            }
        }
        assert!(
            self.fresh.is_empty(),
            "both ends of each pair have an owner"
        );
    }

    fn dies(&mut self, role: Role) {
        self.running.insert(role, false);
        self.holds.retain(|(holder, _), _| *holder != role);
    }

    fn runs(&self, role: Role) -> bool {
        self.running.get(&role) == Some(&true)
    }

    fn joined(&self) -> bool {
        Wire::ALL.into_iter().all(|wire| {
            let (one, other) = wire.ends();
            !(self.runs(one) && self.runs(other))
                || self.holds.get(&(one, wire)) == self.holds.get(&(other, wire))
        })
    }
}

fn started(roles: &[(Role, bool)]) -> (Plan, World) {
    let mut plan = Plan::new(roles, Pace::default());
    let mut world = World::default();
    world.does(plan.on(Duration::ZERO, Event::Time));
    (plan, world)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn all_start_joined_without_an_attach() {
    let mut plan = Plan::new(&ALL, Pace::default());
    let actions = plan.on(Duration::ZERO, Event::Time);
    let starts = actions
        .iter()
        .filter(|action| matches!(action, Action::Start(..)))
        .count();
    assert_eq!(starts, ALL.len());
    assert!(matches!(&actions[0], Action::Start(Role::Work, _)));
    // The guest channel's host starts last and finds the end that was kept when the VMM started.
    assert!(matches!(
        &actions[3..],
        [Action::Attach(..)] | [Action::Start(..), ..]
    ));
    let mut world = World::default();
    world.does(actions);
    assert!(world.joined());
}

#[test]
fn a_dead_gate_is_back_at_once_with_fresh_sockets() {
    let (mut plan, mut world) = started(&ALL);
    world.dies(Role::Gate);
    let actions = plan.on(SECOND, Event::Died(Role::Gate, Death::Crash));
    assert_eq!(
        actions,
        [
            Action::Start(
                Role::Gate,
                vec![(Wire::Link, End::Fresh), (Wire::Path, End::Fresh)]
            ),
            Action::Attach(Role::Work, Wire::Link),
            Action::Attach(Role::Uplink, Wire::Path),
        ]
    );
    world.does(actions);
    assert!(world.joined());
}

#[test]
fn pauses_grow_and_are_forgotten_after_a_healthy_time() {
    let (mut plan, _) = started(&ALL);
    let mut now = SECOND;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let actions = plan.on(now, Event::Died(Role::Gate, Death::Crash));
        let pause = if plan.runs(Role::Gate) {
            assert!(
                actions
                    .iter()
                    .any(|a| matches!(a, Action::Start(Role::Gate, _)))
            );
            Duration::ZERO
        } else {
            plan.due().unwrap().saturating_sub(now)
        };
        pauses.push(pause.as_millis());
        now += pause;
        let _ = plan.on(now, Event::Time);
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // A way out shows that it is healthy, however long it takes.
    let _ = plan.on(now, Event::Open);
    let _ = plan.on(now, Event::Died(Role::Gate, Death::Crash));
    assert!(plan.runs(Role::Gate));
    let _ = plan.on(now, Event::Died(Role::Gate, Death::Crash));
    assert!(!plan.runs(Role::Gate), "once, until the next way out");
    now += Pace::default().first_pause;
    let _ = plan.on(now, Event::Time);
    let _ = plan.on(now, Event::Open);
    let _ = plan.on(now, Event::Died(Role::Gate, Death::Crash));
    assert!(!plan.runs(Role::Gate), "not for a way out after each death");
    now += Pace::default().longest_pause;
    let _ = plan.on(now, Event::Time);
    now += Pace::default().healthy_after;
    let _ = plan.on(now, Event::Died(Role::Gate, Death::Crash));
    assert!(plan.runs(Role::Gate));
}

#[test]
fn the_work_os_shuts_down_and_all_ends_in_order() {
    let (mut plan, mut world) = started(&ALL);
    world.does(plan.on(SECOND, Event::PowerButton));
    assert_eq!(world.told, [(Role::Work, Command::PowerButton)]);
    world.does(plan.on(SECOND, Event::WorkShutDown));
    assert_eq!(
        world.told.len(),
        1,
        "gate and uplink serve until the VMM is gone"
    );
    world.dies(Role::Work);
    world.does(plan.on(2 * SECOND, Event::Died(Role::Work, Death::Clean)));
    assert_eq!(world.told.len(), ALL.len());
    for role in [Role::Gate, Role::Uplink, Role::Guest, Role::Modem] {
        assert!(!world.over);
        world.dies(role);
        world.does(plan.on(2 * SECOND, Event::Died(role, Death::Clean)));
    }
    assert!(world.over);
    assert_eq!(world.killed, []);
}

#[test]
fn a_reset_starts_the_work_os_again_at_once() {
    let (mut plan, mut world) = started(&ALL);
    for _ in 0..5 {
        world.does(plan.on(SECOND, Event::WorkReset));
        world.dies(Role::Work);
        world.does(plan.on(SECOND, Event::Died(Role::Work, Death::Clean)));
        assert!(world.runs(Role::Work));
        assert!(world.joined());
    }
}

#[test]
fn what_does_not_end_is_killed() {
    let (mut plan, mut world) = started(&ALL);
    world.does(plan.on(SECOND, Event::Terminate));
    assert_eq!(world.told, [(Role::Work, Command::Shutdown)]);
    world.does(plan.on(SECOND + WORK_ENDS_WITHIN, Event::Time));
    assert_eq!(world.killed, [Role::Work]);
    let mut now = SECOND + WORK_ENDS_WITHIN;
    world.dies(Role::Work);
    world.does(plan.on(now, Event::Died(Role::Work, Death::Crash)));
    now += REST_ENDS_WITHIN;
    world.does(plan.on(now, Event::Time));
    assert_eq!(world.killed.len(), ALL.len());
}

#[test]
fn work_without_a_control_channel_is_started_anew_for_a_new_gate() {
    let (mut plan, mut world) = started(&[
        (Role::Work, false),
        (Role::Gate, true),
        (Role::Uplink, true),
    ]);
    world.dies(Role::Gate);
    world.does(plan.on(SECOND, Event::Died(Role::Gate, Death::Crash)));
    assert_eq!(world.killed, [Role::Work]);
    world.dies(Role::Work);
    world.does(plan.on(SECOND, Event::Died(Role::Work, Death::Crash)));
    assert!(world.runs(Role::Work) && world.joined());
}

#[test]
fn a_pulled_cable_is_plugged_in_again_after_a_moment_and_once() {
    let (mut plan, mut world) = started(&ALL);
    let before = world.pairs;
    world.does(plan.on(SECOND, Event::Replug));
    let later = SECOND + UNPLUGGED / 2;
    world.does(plan.on(later, Event::Replug));
    assert_eq!(
        (world.pairs, plan.due()),
        (before, Some(SECOND + UNPLUGGED))
    );
    world.does(plan.on(SECOND + UNPLUGGED, Event::Time));
    assert_eq!((world.pairs, plan.due()), (before + 1, None));
    assert!(world.joined());
    // A gate that died meanwhile has a fresh one from its start.
    world.does(plan.on(SECOND * 2, Event::Replug));
    world.dies(Role::Gate);
    world.does(plan.on(SECOND * 2, Event::Died(Role::Gate, Death::Crash)));
    world.does(plan.on(SECOND * 3, Event::Time));
    assert!(world.joined());
}

#[test]
fn t31_gate_and_uplink_are_told_of_sleep_and_of_waking() {
    let (mut plan, mut world) = started(&ALL);
    world.does(plan.on(SECOND, Event::Sleep));
    let suspended = SLEEPERS.map(|role| (role, Command::Suspend));
    assert_eq!(world.told, suspended);
    world.told.clear();
    world.does(plan.on(SECOND, Event::Wake));
    assert_eq!(world.told, SLEEPERS.map(|role| (role, Command::Resume)));
}

#[test]
fn t31_what_starts_while_the_laptop_sleeps_sleeps_before_it_has_a_card() {
    let (mut plan, mut world) = started(&ALL);
    world.does(plan.on(SECOND, Event::Sleep));
    world.dies(Role::Uplink);
    world.does(plan.on(SECOND, Event::Died(Role::Uplink, Death::Crash)));
    assert_eq!(
        plan.on(SECOND, Event::Ready(Role::Uplink)),
        [
            Action::Tell(Role::Uplink, Command::Suspend),
            Action::MovePorts
        ]
    );
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::Work, Role::Gate, Role::Uplink, Role::Guest])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (role(), prop::bool::ANY).prop_map(|(role, clean)| {
            Event::Died(role, if clean { Death::Clean } else { Death::Crash })
        }),
        1 => role().prop_map(Event::Ready),
        4 => Just(Event::Time),
        1 => Just(Event::WorkReset),
        1 => Just(Event::Sleep),
        1 => Just(Event::Wake),
        2 => Just(Event::Replug),
    ]
}

proptest! {
    /// Whatever dies whenever, two processes that run are joined with each other, and after enough
    /// time all run again.
    #[test]
    fn who_runs_is_joined(steps in prop::collection::vec((0u64..3000, event()), 0..60)) {
        let (mut plan, mut world) = started(&ALL);
        let mut now = Duration::ZERO;
        for (later, event) in steps {
            now += Duration::from_millis(later);
            if let Event::Died(role, _) = event {
                if !world.runs(role) {
                    continue;
                }
                world.dies(role);
            }
            world.does(plan.on(now, event));
            prop_assert!(world.joined());
        }
        now += Pace::default().longest_pause;
        world.does(plan.on(now, Event::Time));
        prop_assert!(ALL.iter().all(|(role, _)| world.runs(*role)));
        prop_assert!(world.joined());
    }

    /// Whatever dies whenever: who serves sleeps exactly while the laptop does.
    #[test]
    fn t31_nobody_is_awake_while_the_laptop_sleeps(
        steps in prop::collection::vec((0u64..3000, event()), 0..60),
    ) {
        let (mut plan, mut world) = started(&ALL);
        let (mut now, mut asleep) = (Duration::ZERO, false);
        let mut serves = BTreeMap::new();
        let mut sleeps = BTreeMap::new();
        for (later, event) in steps {
            now += Duration::from_millis(later);
            match event {
                Event::Died(role, _) if !world.runs(role) => continue,
                Event::Died(role, _) => {
                    world.dies(role);
                    serves.insert(role, false);
                    sleeps.insert(role, false);
                }
                Event::Ready(role) if !world.runs(role) => continue,
                Event::Ready(role) => {
                    serves.insert(role, true);
                }
                Event::Sleep | Event::Wake => asleep = event == Event::Sleep,
                _ => {}
            }
            let before = world.told.len();
            world.does(plan.on(now, event));
            for (role, command) in &world.told[before..] {
                sleeps.insert(*role, *command == Command::Suspend);
            }
            for role in SLEEPERS.iter().filter(|role| serves.get(role) == Some(&true)) {
                prop_assert_eq!(sleeps.get(role).copied().unwrap_or(false), asleep);
            }
        }
    }

    /// Once told to end it ends, whoever dies or does not, and starts nobody again after the work.
    #[test]
    fn an_end_is_an_end(
        steps in prop::collection::vec((0u64..3000, event()), 0..20),
        deaf in prop::collection::vec(role(), 0..4),
    ) {
        let (mut plan, mut world) = started(&ALL);
        let mut now = Duration::ZERO;
        for (later, event) in steps {
            now += Duration::from_millis(later);
            if let Event::Died(role, _) = event {
                if !world.runs(role) {
                    continue;
                }
                world.dies(role);
            }
            world.does(plan.on(now, event));
        }
        world.does(plan.on(now, Event::Terminate));
        for _ in 0..100 {
            if world.over {
                break;
            }
            let leaving: Vec<Role> = world.running.iter().filter(|(_, runs)| **runs).map(|(r, _)| *r)
                .filter(|role| {
                    world.killed.contains(role)
                        || (!deaf.contains(role)
                            && world.told.contains(&(*role, Command::Shutdown)))
                })
                .collect();
            for role in leaving {
                world.dies(role);
                world.does(plan.on(now, Event::Died(role, Death::Clean)));
            }
            if let Some(due) = plan.due() {
                now = now.max(due);
            }
            if !world.over {
                world.does(plan.on(now, Event::Time));
            }
        }
        prop_assert!(world.over);
    }
}
