//! The machine against a model of the kernel and the gate: what is open, and on what grounds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use sekisho_control::{PathId, Side};
use sekisho_policy::Direct;

use super::{
    super::{
        Uplink,
        endpoints::{sample, sample_sim},
    },
    dot1x_tests, *,
};

pub(super) fn link(index: u32, carrier: bool, losses: u32) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        ethernet: true,
        mac: [2, 0, 0, 0, 0, 1],
        own: None,
        up: true,
        carrier,
        operational: carrier,
        radio: false,
        losses,
        bytes: 0,
    }
}

pub(super) fn lease(last: u8) -> Lease {
    Lease {
        address: Ipv4Addr::new(192, 168, 43, last),
        prefix: 24,
        router: Ipv4Addr::new(192, 168, 43, 1),
        server: Ipv4Addr::new(192, 168, 43, 1),
    }
}

/// What the actions have made of the world.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Paths that are open, with port and side.
    pub(super) sockets: BTreeMap<PathId, (String, Side)>,
    /// What the gate believes to have.
    pub(super) gate: BTreeSet<PathId>,
    pub(super) sets: BTreeSet<(String, &'static str)>,
    configured: BTreeSet<u32>,
    pub(super) dot1x: BTreeSet<u32>,
    pub(super) dhcp: BTreeSet<u32>,
    used: BTreeSet<PathId>,
    /// The wire that is open.
    wire: Option<OpenWire>,
}

fn set_name(set: PortSet) -> &'static str {
    match set {
        PortSet::Open => "open",
        PortSet::Premises => "premises",
        PortSet::Asking => "asking",
        PortSet::Proven => "proven",
        PortSet::Slow => "slow",
    }
}

impl World {
    pub(super) fn does(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::StartDhcp(index, _) => assert!(self.dhcp.insert(*index)),
                Action::StopDhcp(index) => assert!(self.dhcp.remove(index)),
                Action::BeginDot1x(port) => assert!(self.dot1x.insert(port.index)),
                Action::EndDot1x(index) => assert!(self.dot1x.remove(index)),
                Action::Configure { port, .. } => assert!(self.configured.insert(port.index)),
                Action::Flush(index) => {
                    self.configured.remove(index);
                }
                Action::Allow(port, set) => {
                    self.sets.insert((port.clone(), set_name(*set)));
                }
                Action::Forbid(port, set) => {
                    self.sets.remove(&(port.clone(), set_name(*set)));
                }
                Action::OpenPath { path, .. } => {
                    let UplinkToGate::Path { id, port, side, .. } = path else {
                        panic!("not a path");
                    };
                    assert!(self.used.insert(*id), "a name is used once");
                    self.sockets.insert(*id, (port.clone(), *side));
                    self.gate.insert(*id);
                }
                Action::CutPath(id) => assert!(self.sockets.remove(id).is_some()),
                Action::OpenWire(wire) => assert!(self.wire.replace(wire.clone()).is_none()),
                Action::ShutWire(wire) => assert_eq!(self.wire.take().as_ref(), Some(wire)),
                Action::Tell(UplinkToGate::PathLost { id }) => assert!(self.gate.remove(id)),
                Action::Tell(UplinkToGate::CarrierLost { port }) => {
                    let sockets = &self.sockets;
                    self.gate
                        .retain(|id| sockets.get(id).is_none_or(|(on, _)| on != port));
                }
                _ => {}
            }
        }
    }
}

fn ready() -> (Ports, World) {
    let mut ports = Ports::new(sample(), Vec::new());
    let mut world = World::default();
    world.does(&ports.on(Event::GateAttached));
    world.does(&ports.on(Event::Link(link(0, true, 0))));
    world.does(&ports.on(Event::Bound(0, lease(50))));
    (ports, world)
}

#[test]
fn a_lease_opens_the_outside_and_the_beacon() {
    let (_, world) = ready();
    assert_eq!(world.sockets.len(), 1);
    assert_eq!(
        world.sets,
        [("eth0".into(), "open"), ("eth0".into(), "premises")].into()
    );
}

#[test]
fn the_gate_hears_of_a_lost_carrier_before_anything_is_done() {
    let (mut ports, _) = ready();
    let actions = ports.on(Event::Link(link(0, false, 1)));
    assert_eq!(
        actions[0],
        Action::Tell(UplinkToGate::CarrierLost {
            port: "eth0".into()
        })
    );
    assert!(matches!(actions[1], Action::CutPath(_)));
}

/// The kernel may tell of a loss and a return in one event: only the count shows it.
#[test]
fn a_flap_that_is_over_already_is_a_loss_all_the_same() {
    let (mut ports, mut world) = ready();
    let actions = ports.on(Event::Link(link(0, true, 1)));
    assert!(matches!(
        actions[0],
        Action::Tell(UplinkToGate::CarrierLost { .. })
    ));
    world.does(&actions);
    assert!(world.sockets.is_empty() && world.configured.is_empty());
    assert_eq!(world.dhcp, [0].into(), "it starts over");
}

#[test]
fn a_proof_does_not_outlive_its_gate() {
    let (mut ports, mut world) = ready();
    let proven = |proven| {
        Event::Gate(GateToUplink::Premises {
            port: "eth0".into(),
            proven,
        })
    };
    world.does(&ports.on(proven(true)));
    assert_eq!(world.sockets.len(), 2);
    world.does(&ports.on(Event::GateLost));
    assert!(world.sockets.is_empty());
    assert!(!world.sets.contains(&("eth0".into(), "proven")));
    world.gate.clear();
    world.does(&ports.on(Event::GateAttached));
    assert_eq!(world.sockets.len(), 1, "the outside alone");
}

/// T17: a radio that is associated and has no keys yet is no network, and a radio is never a cable.
#[test]
fn t17_a_radio_is_used_once_its_keys_are_agreed_and_never_as_a_cable() {
    let radio = |operational| {
        Event::Link(Link {
            radio: true,
            operational,
            ..link(0, true, 0)
        })
    };
    let mut wired = Ports::new(sample(), Vec::new());
    assert_eq!(wired.on(radio(true)), [], "the policy knows no Wi-Fi");

    let mut endpoints = sample();
    endpoints.uplinks.push(Uplink {
        kind: UplinkKind::Wifi,
        rank: 2,
        interfaces: Vec::new(),
        quota: None,
    });
    let mut ports = Ports::new(endpoints, Vec::new());
    let mut world = World::default();
    world.does(&ports.on(Event::GateAttached));
    world.does(&ports.on(radio(false)));
    assert!(world.dhcp.is_empty());
    world.does(&ports.on(radio(true)));
    world.does(&ports.on(Event::Bound(0, lease(50))));
    assert_eq!(world.sockets.len(), 1);
    assert_eq!(
        world.sets,
        [("eth0".into(), "open"), ("eth0".into(), "asking")].into(),
        "no proof over the air"
    );
    world.does(&ports.on(radio(false)));
    assert!(world.sockets.is_empty() && world.dhcp.is_empty());
}

/// The SIM alone is held to its quota: the cable beside it is not touched.
#[test]
fn a_spent_quota_slows_or_shuts_the_sim_and_nothing_else() {
    let mut endpoints = sample();
    endpoints.uplinks.push(Uplink {
        interfaces: vec!["eth2".into()],
        ..sample_sim()
    });
    endpoints.gateways[0].kinds.push(UplinkKind::Sim);
    let mut ports = Ports::new(endpoints, Vec::new());
    let mut world = World::default();
    world.does(&ports.on(Event::GateAttached));
    world.does(&ports.on(Event::Allowance(Allowance::Slow)));
    for index in [0, 2] {
        world.does(&ports.on(Event::Link(link(index, true, 0))));
    }
    assert!(ports.is_sim(2) && !ports.is_sim(0));
    world.does(&ports.on(Event::Bound(0, lease(50))));
    let actions = ports.on(Event::Bound(2, lease(51)));
    let place = |set| {
        let wanted = Action::Allow("eth2".into(), set);
        actions.iter().position(|action| *action == wanted)
    };
    assert!(place(PortSet::Slow).unwrap() < place(PortSet::Open).unwrap());
    world.does(&actions);
    assert_eq!(world.sockets.len(), 2);

    world.does(&ports.on(Event::Allowance(Allowance::Nothing)));
    let on: Vec<&str> = world.sockets.values().map(|(port, _)| &**port).collect();
    assert_eq!(on, ["eth0"]);
    assert_eq!(world.dhcp, [0].into());
    world.does(&ports.on(Event::Link(link(2, true, 0))));
    assert_eq!(
        world.dhcp,
        [0].into(),
        "its carrier alone does not bring it back"
    );

    world.does(&ports.on(Event::Allowance(Allowance::Full)));
    world.does(&ports.on(Event::Bound(2, lease(51))));
    assert_eq!(world.sockets.len(), 2);
    assert!(!world.sets.contains(&("eth2".into(), "slow")));
}

/// T22 without a lost carrier: a small switch is carried home with the laptop on it. What was
/// proven on the old network is not proven on the one that the new lease is from; and a gate that
/// still believed in its proof would never ask for the LAN side again.
#[test]
fn t22_another_lease_ends_the_gates_proof() {
    let (mut ports, mut world) = ready();
    world.does(&ports.on(Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: true,
    })));
    for event in [Event::Bound(0, lease(51)), Event::LeaseLost(0)] {
        let actions = ports.on(event);
        assert_eq!(
            actions[0],
            Action::Tell(UplinkToGate::CarrierLost {
                port: "eth0".into()
            })
        );
        world.does(&actions);
        assert!(!world.sets.contains(&("eth0".into(), "proven")));
    }
    assert!(world.sockets.is_empty() && world.gate.is_empty());
}

#[test]
fn ports_that_nobody_named_stay_down() {
    let mut ports = Ports::new(sample(), vec!["eth1".into()]);
    assert_eq!(ports.on(Event::Link(link(0, true, 0))), []);
    assert_ne!(ports.on(Event::Link(link(1, true, 0))), []);
    let mut none = Ports::new(Endpoints::default(), Vec::new());
    assert_eq!(
        none.on(Event::Link(link(0, true, 0))),
        [],
        "no uplink in policy"
    );
}

#[test]
fn a_laptop_has_no_hundred_cards() {
    let mut ports = Ports::new(sample(), Vec::new());
    let taken = (0..100)
        .filter(|index| !ports.on(Event::Link(link(*index, false, 0))).is_empty())
        .count();
    assert_eq!(taken, MAX_PORTS);
}

fn standing() -> impl Strategy<Value = Standing> {
    prop::sample::select(vec![
        Standing::Asking,
        Standing::Authenticated,
        Standing::Authenticated,
        Standing::Refused,
        Standing::Unanswered,
        Standing::Unable,
    ])
}

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);

pub(super) fn member() -> LanMember {
    LanMember {
        mac: [2, 0x53, 0x4b, 0, 7, 0x17],
        host: None,
        class: None,
    }
}

fn ask_wire(port: &str, address: Ipv4Addr) -> Event {
    Event::Gate(GateToUplink::AskWire {
        port: port.to_owned(),
        address,
        mtu: 1420,
        member: member(),
    })
}

fn premises(proven: bool) -> Event {
    Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven,
    })
}

/// A port with a lease, a gate and a proof, under a policy that knows wires.
fn proven() -> Ports {
    let mut ports = ready().0;
    ports.endpoints.direct = Some(Direct::Routed);
    ports.on(premises(true));
    ports
}

#[test]
fn t22_the_wire_is_shut_before_anybody_is_told() {
    let ends = [
        Event::Link(link(0, false, 1)),
        Event::Link(link(0, true, 1)),
        Event::Gone(0),
        Event::Bound(0, lease(51)),
        Event::LeaseLost(0),
        premises(false),
        Event::GateLost,
        Event::GateAttached,
        Event::Suspend,
    ];
    for end in ends {
        let mut ports = proven();
        let opened = ports.on(ask_wire("eth0", GUEST));
        let [Action::OpenWire(wire)] = &opened[..] else {
            panic!("{opened:?}");
        };
        assert_eq!((wire.address, wire.losses), (GUEST, 0));
        let actions = ports.on(end.clone());
        assert_eq!(actions[0], Action::ShutWire(wire.clone()), "{end:?}");
        // What ended the wire ended the proof, too.
        assert_eq!(ports.on(ask_wire("eth0", GUEST)), [], "{end:?}");
    }
}

#[test]
fn there_is_one_wire_and_who_asks_again_gets_a_fresh_one() {
    let mut ports = proven();
    let opened = ports.on(ask_wire("eth0", GUEST));
    let [Action::OpenWire(first)] = &opened[..] else {
        panic!("{opened:?}");
    };
    let again = ports.on(ask_wire("eth0", GUEST));
    let [Action::ShutWire(shut), Action::OpenWire(second)] = &again[..] else {
        panic!("{again:?}");
    };
    assert_eq!(shut, first);
    assert_ne!(second.id, first.id);
    // Over another port there is none beside it.
    ports.on(Event::Link(link(1, true, 0)));
    ports.on(Event::Bound(1, lease(51)));
    ports.on(Event::Gate(GateToUplink::Premises {
        port: "eth1".into(),
        proven: true,
    }));
    assert_eq!(ports.on(ask_wire("eth1", GUEST)), []);
}

#[test]
fn no_wire_without_policy_proof_or_cable_nor_under_a_false_address() {
    let mut ports = ready().0;
    ports.endpoints.direct = Some(Direct::Routed);
    assert_eq!(ports.on(ask_wire("eth0", GUEST)), [], "nothing proven");
    let mut ports = proven();
    ports.endpoints.direct = None;
    assert_eq!(ports.on(ask_wire("eth0", GUEST)), [], "policy");
    let mut ports = proven();
    assert_eq!(ports.on(ask_wire("eth1", GUEST)), [], "another port");
    for false_one in [
        [192, 168, 43, 50],
        [192, 168, 43, 1],
        [10, 12, 0, 200],
        [203, 0, 113, 10],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
    ] {
        let address = Ipv4Addr::from(false_one);
        assert_eq!(ports.on(ask_wire("eth0", address)), [], "{address}");
    }
    // Wi-Fi, whatever a gate says of it.
    let mut ports = proven();
    ports.by_index.get_mut(&0).unwrap().kind = UplinkKind::Wifi;
    assert_eq!(ports.on(ask_wire("eth0", GUEST)), [], "a radio");
    let mut ports = proven();
    assert_eq!(ports.on(ask_wire("eth0", GUEST)).len(), 1);
}

#[test]
fn a_wire_that_the_kernel_did_not_open_may_be_asked_for_again() {
    let mut ports = proven();
    let opened = ports.on(ask_wire("eth0", GUEST));
    let [Action::OpenWire(wire)] = &opened[..] else {
        panic!("{opened:?}");
    };
    ports.wire_failed(wire.id);
    let again = ports.on(ask_wire("eth0", GUEST));
    assert!(matches!(&again[..], [Action::OpenWire(next)] if next.id != wire.id));
}

fn event() -> impl Strategy<Value = Event> {
    let index = 0u32..3;
    let port = (0u32..4).prop_map(|index| format!("eth{index}"));
    prop_oneof![
        4 => (index.clone(), any::<bool>(), 0u32..3)
            .prop_map(|(index, carrier, losses)| Event::Link(link(index, carrier, losses))),
        1 => index.clone().prop_map(Event::Gone),
        4 => (index.clone(), 50u8..53).prop_map(|(index, last)| Event::Bound(index, lease(last))),
        1 => index.clone().prop_map(Event::LeaseLost),
        3 => (index, standing()).prop_map(|(index, standing)| Event::Standing(index, standing)),
        1 => Just(Event::GateAttached),
        1 => Just(Event::GateLost),
        3 => (port.clone(), any::<bool>())
            .prop_map(|(port, proven)| Event::Gate(GateToUplink::Premises { port, proven })),
        3 => port.clone().prop_map(|port| ask_wire(&port, GUEST)),
        1 => port.prop_map(|port| Event::Gate(GateToUplink::ProbeBeacon { port })),
        2 => prop_oneof![
            Just(Allowance::Full), Just(Allowance::Slow), Just(Allowance::Nothing)
        ].prop_map(Event::Allowance),
        1 => Just(Event::Suspend),
        1 => Just(Event::Resume),
    ]
}

proptest! {
    /// After any history: a socket only where there is a lease and a gate, the LAN side only where
    /// it is proven, the packet filter open exactly there, and the gate believes in no socket that
    /// is not there.
    #[test]
    fn nothing_is_open_without_its_grounds(
        events in prop::collection::vec(event(), 0..80),
        dot1x in any::<bool>(),
    ) {
        let mut endpoints = sample();
        if dot1x {
            dot1x_tests::demand(&mut endpoints);
        }
        endpoints.uplinks.push(Uplink {
            interfaces: vec!["eth2".into()],
            ..sample_sim()
        });
        endpoints.gateways[0].kinds.push(UplinkKind::Sim);
        endpoints.direct = Some(Direct::Routed);
        let mut ports = Ports::new(endpoints, Vec::new());
        let mut world = World::default();
        for event in events {
            if matches!(event, Event::GateAttached | Event::GateLost) {
                // Its successor knows nothing of its paths.
                world.gate.clear();
            }
            world.does(&ports.on(event));

            let leased: BTreeMap<&str, bool> = ports
                .by_index
                .values()
                .filter_map(|port| match port.state {
                    State::Leased { proven, .. } => Some((&*port.name, proven)),
                    State::Dark | State::Lit => None,
                })
                .collect();
            for (port, side) in world.sockets.values() {
                prop_assert!(ports.gate);
                prop_assert!(leased.contains_key(&**port));
                prop_assert!(*side == Side::Outside || leased[&**port]);
            }
            // The last port is the SIM's: slow before it is open, and shut where nothing may pass.
            let sim = leased.contains_key("eth2");
            prop_assert!(!sim || ports.allowance != Allowance::Nothing);
            prop_assert_eq!(
                world.sets.contains(&("eth2".to_owned(), "slow")),
                sim && ports.allowance == Allowance::Slow
            );
            for name in ["eth0", "eth1"] {
                prop_assert!(!world.sets.contains(&(name.to_owned(), "slow")));
            }
            for name in ["eth0", "eth1", "eth2"] {
                let is_in = |set| world.sets.contains(&(name.to_owned(), set));
                prop_assert_eq!(is_in("open"), leased.contains_key(name));
                let may = ports.by_index.values().any(|port| {
                    port.name == name
                        && (!dot1x || port.standing == Some(Standing::Authenticated))
                });
                prop_assert_eq!(
                    is_in("premises"),
                    name != "eth2" && leased.contains_key(name) && may
                );
                prop_assert!(may || leased.get(name) != Some(&true));
                let asks = name == "eth2" && leased.contains_key(name);
                prop_assert!(!is_in("asking") || asks);
                prop_assert_eq!(is_in("proven"), leased.get(name) == Some(&true));
            }
            if let Some(wire) = &world.wire {
                let name = &*wire.port.name;
                prop_assert!(ports.gate && !ports.asleep && name != "eth2");
                prop_assert_eq!(leased.get(name), Some(&true), "a wire without a proof");
            }
            prop_assert_eq!(&world.wire, &ports.wire);
            prop_assert_eq!(world.configured.len(), leased.len());
            let open: BTreeSet<PathId> = world.sockets.keys().copied().collect();
            prop_assert_eq!(&world.gate, &open);
            if ports.asleep {
                prop_assert!(open.is_empty() && world.dhcp.is_empty());
            }
            // It is spoken exactly where a lease is asked for, except over the SIM.
            let mut cables = world.dhcp.clone();
            cables.retain(|index| dot1x && *index != 2);
            prop_assert_eq!(&world.dot1x, &cables);
        }
    }
}
