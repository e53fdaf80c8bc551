//! Who answers over a port where no gateway does: which connections are made, and which doors open.

use super::{
    super::{Transport, Uplink, endpoints::sample},
    tests::{World, lease, link},
    *,
};

/// A radio and a cable, both with a lease.
fn ports() -> (Ports, World) {
    let mut endpoints = sample();
    endpoints.uplinks.push(Uplink {
        kind: UplinkKind::Wifi,
        rank: 2,
        interfaces: Vec::new(),
        quota: None,
    });
    let mut ports = Ports::new(endpoints, Vec::new());
    let mut world = World::default();
    let radio = Link {
        radio: true,
        name: "wlan1".into(),
        ..link(1, true, 0)
    };
    for event in [
        Event::GateAttached,
        Event::Link(link(0, true, 0)),
        Event::Link(radio),
        Event::Bound(0, lease(50)),
        Event::Bound(1, lease(51)),
    ] {
        world.does(&ports.on(event));
    }
    (ports, world)
}

fn knock(ports: &mut Ports, port: &str) -> Vec<Action> {
    let port = port.to_owned();
    ports.on(Event::Gate(GateToUplink::Knock { port }))
}

#[test]
fn a_radio_is_asked_at_the_beacon_and_a_cable_asks_it_anyway() {
    let (mut ports, world) = ports();
    let may_ask = |port: &str| world.sets.contains(&(port.into(), "asking"));
    assert!(may_ask("wlan1") && !may_ask("eth0"));
    let asked = knock(&mut ports, "wlan1");
    let [Action::OpenKnock { from, to }] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((&*from.port, from.address), ("wlan1", lease(51).address));
    assert_eq!(to.to_string(), "10.12.0.200:8443");
    assert_eq!(knock(&mut ports, "eth0"), []);
    assert_eq!(knock(&mut ports, "eth9"), []);
    // A gateway that takes connections is asked over both.
    ports.endpoints.gateways[0].transport = Transport::Tcp;
    for port in ["eth0", "wlan1"] {
        let asked = knock(&mut ports, port);
        let [Action::OpenKnock { from, to }] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!((&*from.port, *to), (port, sample().gateways[0].outside));
    }
}

/// What comes of it is no proof: a radio opens nothing of the office's, whatever the gate says.
#[test]
fn a_radio_proves_nothing_for_all_that() {
    let (mut ports, mut world) = ports();
    let port = "wlan1".to_owned();
    assert_eq!(
        ports.on(Event::Gate(GateToUplink::ProbeBeacon {
            port: port.clone()
        })),
        []
    );
    let proven = true;
    world.does(&ports.on(Event::Gate(GateToUplink::Premises { port, proven })));
    for set in ["premises", "proven"] {
        assert!(!world.sets.contains(&("wlan1".into(), set)), "{set}");
    }
}

#[test]
fn nothing_is_asked_without_a_lease_or_a_gate() {
    for event in [Event::LeaseLost(1), Event::GateLost, Event::Suspend] {
        let (mut ports, mut world) = ports();
        world.does(&ports.on(event.clone()));
        assert_eq!(knock(&mut ports, "wlan1"), [], "{event:?}");
        let open = world.sets.contains(&("wlan1".into(), "asking"));
        assert_eq!(open, matches!(event, Event::GateLost), "{event:?}");
    }
}
