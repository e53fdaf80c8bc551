//! The machine against a plain model of what the events mean, and against the clock.

mod engine;
mod gateways;
mod knocks;
mod model;
mod moves;
mod office;
mod turns;
mod ways;

use super::*;
use crate::moment::Moment;

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

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

fn path(id: u32, port: &str, side: Side) -> PathInfo {
    PathInfo {
        id: PathId(id),
        port: port.to_owned(),
        kind: if port == "wlan0" {
            UplinkKind::Wifi
        } else {
            UplinkKind::Wired
        },
        rank: if port == "wlan0" { 2 } else { 1 },
        gateway: GatewayId(0),
        side,
        proof: Proof::Handshake,
    }
}

/// A path whose gateway only an engine can speak to.
fn engine_path(id: u32, port: &str) -> PathInfo {
    PathInfo {
        gateway: GatewayId(2),
        proof: Proof::Engine,
        ..path(id, port, Side::Outside)
    }
}

fn wire_up(id: u32, port: &str) -> Event {
    let kind = path(0, port, Side::Outside).kind;
    Event::WireUp(WireId(id), port.to_owned(), kind)
}

/// A machine and the actions that it took.
struct Bench {
    machine: Machine,
    actions: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(timings(), 7)
                .with_direct(true)
                .with_standby(true),
            actions: Vec::new(),
        }
    }

    fn event(&mut self, event: Event, millis: u64) -> Vec<Action> {
        self.machine.handle(event, at(millis), &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    /// Ticks whenever the machine wants to, until `millis`.
    fn run(&mut self, mut from: u64, until: u64) -> Vec<(u64, Action)> {
        let mut seen = Vec::new();
        for _ in 0..100_000 {
            let Some(due) = self.machine.next_deadline() else {
                return seen;
            };
            let due = u64::try_from(due.since_boot().as_micros().div_ceil(1000)).unwrap();
            from = due.max(from + 1);
            if from > until {
                return seen;
            }
            let actions = self.event(Event::Tick, from);
            seen.extend(actions.into_iter().map(|action| (from, action)));
        }
        panic!("the machine never rests");
    }

    fn heard(&mut self, id: u32, millis: u64) -> Vec<Action> {
        let event = Event::Heard {
            path: PathId(id),
            handshake: true,
        };
        self.event(event, millis)
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
        bench.heard(1, 10);
        assert_eq!(bench.way(), Some((1, Place::Remote)));
        bench
    }

    fn way(&self) -> Option<(u32, Place)> {
        match self.machine.situation() {
            Situation::Closed(_) | Situation::Direct { .. } => None,
            Situation::Tunnelled { path, place, .. } => Some((path.0, place)),
        }
    }

    fn wire(&self) -> Option<u32> {
        match self.machine.situation() {
            Situation::Direct { wire } => Some(wire.0),
            Situation::Closed(_) | Situation::Tunnelled { .. } => None,
        }
    }

    /// Connected from a cafe's cable eth0, and on the office's wire by eth1.
    fn direct() -> Self {
        let mut bench = Self::connected();
        let actions = bench.event(Event::Proven("eth1".into()), 1000);
        assert!(actions.contains(&Action::AskWire("eth1".into())));
        assert_eq!(bench.way(), Some((1, Place::Remote)), "not yet");
        bench.event(wire_up(1, "eth1"), 1010);
        assert_eq!(bench.wire(), Some(1));
        bench
    }

    fn reason(&self) -> Option<Reason> {
        match self.machine.situation() {
            Situation::Closed(reason) => Some(reason),
            Situation::Tunnelled { .. } | Situation::Direct { .. } => None,
        }
    }
}

/// A laptop in a network that carries no datagrams: handshakes over path 1 are never answered.
fn engaged() -> Bench {
    let mut bench = Bench::new();
    bench.event(Event::PathUp(path(1, "eth0", Side::Outside)), 0);
    bench.event(Event::PathUp(engine_path(2, "eth0")), 0);
    let seen = bench.run(0, 1600);
    let at_last = seen.last().cloned();
    assert_eq!(at_last, Some((1500, Action::Engage(PathId(2)))), "{seen:?}");
    bench
}
