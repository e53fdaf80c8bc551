//! Any events in any order, against a model without any of the machine's cleverness.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PORTS: [&str; 3] = ["eth0", "eth1", "wlan0"];

pub(super) fn any_event() -> impl Strategy<Value = Event> {
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
        4 => id().prop_map(Event::Checked),
        4 => id().prop_map(Event::EngineUp),
        1 => id().prop_map(Event::EngineDown),
        1 => id().prop_map(Event::EngineCrashed),
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
                    let gateway = |id: &PathId| match (self.paths.get(&id.0), event) {
                        (Some(known), _) => Some(known.gateway),
                        (None, Event::PathUp(info)) if info.id == *id => Some(info.gateway),
                        (None, _) => None,
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
            // The way in use is not asked by the second key, nor anything while closed or asleep.
            for action in &actions {
                if let Action::Check(id) = action {
                    let open = bench.machine.situation().scope().is_some();
                    let in_use = bench.way().is_some_and(|(way, _)| way == id.0);
                    prop_assert!(open && !in_use && !model.asleep);
                }
            }
            // Nothing is sent over what is gone.
            let alive: BTreeSet<_> = model.paths.keys().copied().collect();
            for action in &actions {
                if let Action::Initiate(id)
                | Action::Kick(id)
                | Action::Check(id)
                | Action::Engage(id) = action
                {
                    prop_assert!(alive.contains(&id.0), "{:?} over a dead path", action);
                }
            }
        }
    }

    /// A deadline is passed over by nothing but what is done at it: neither by a shell that asks late,
    /// nor by what happens just before.
    #[test]
    fn a_deadline_stays_until_it_is_done(
        events in prop::collection::vec((any_event(), 0u64..5_000), 1..60)
    ) {
        let mut bench = Bench::new();
        let mut now = 1;
        for (event, pause) in events {
            now += pause;
            bench.event(event, now);
            let Some(due) = bench.machine.next_deadline() else {
                continue;
            };
            let before = due - Duration::from_micros(1);
            if before > at(now) {
                let mut actions = Vec::new();
                bench.machine.handle(Event::Tick, before, &mut actions);
                prop_assert_eq!(bench.machine.next_deadline(), Some(due));
                now = u64::try_from(due.since_boot().as_millis()).unwrap() + 1;
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
                let Some(due) = bench.machine.next_deadline() else {
                    break;
                };
                prop_assert!(due > at(now), "due at once after a tick");
                now = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
                bench.event(Event::Tick, now);
            }
        }
    }
}
