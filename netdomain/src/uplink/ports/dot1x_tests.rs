//! Ports of which the policy demands 802.1X.

use super::{
    super::endpoints::sample,
    tests::{World, lease, link},
    *,
};

/// Makes the policy demand it.
pub(super) fn demand(endpoints: &mut Endpoints) {
    let radius = serde_json::json!({ "name": "radius.example", "ca_sha256": "00".repeat(32) });
    endpoints.beacon.as_mut().unwrap().dot1x = Some(sekisho_policy::Dot1x {
        radius: serde_json::from_value(radius).unwrap(),
    });
}

/// A port with a lease and a gate, and how it stands.
fn ready(standing: Standing) -> (Ports, World) {
    let mut endpoints = sample();
    demand(&mut endpoints);
    let mut ports = Ports::new(endpoints, Vec::new());
    let mut world = World::default();
    for event in [
        Event::GateAttached,
        Event::Link(link(0, true, 0)),
        Event::Standing(0, standing),
        Event::Bound(0, lease(50)),
    ] {
        world.does(&ports.on(event));
    }
    (ports, world)
}

fn proven() -> Event {
    Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: true,
    })
}

fn probe() -> Event {
    Event::Gate(GateToUplink::ProbeBeacon {
        port: "eth0".into(),
    })
}

#[test]
fn without_an_authenticator_a_cable_is_a_remote_uplink_at_once() {
    for standing in [
        Standing::Asking,
        Standing::Unanswered,
        Standing::Refused,
        Standing::Unable,
    ] {
        let (mut ports, mut world) = ready(standing);
        assert_eq!(world.sockets.len(), 1, "the outside: {standing:?}");
        assert_eq!(world.sets, [("eth0".into(), "open")].into());
        assert_eq!(ports.on(probe()), [], "no connection to the beacon");
        world.does(&ports.on(proven()));
        assert_eq!(
            world.sockets.len(),
            1,
            "no LAN side, whatever the gate says"
        );
    }
}

#[test]
fn an_authenticated_port_may_prove_the_premises() {
    let (mut ports, mut world) = ready(Standing::Authenticated);
    assert!(world.sets.contains(&("eth0".into(), "premises")));
    assert!(matches!(ports.on(probe())[..], [Action::OpenBeacon { .. }]));
    world.does(&ports.on(proven()));
    assert_eq!(world.sockets.len(), 2);
}

#[test]
fn the_loss_of_authentication_ends_the_proof_before_anything_is_done() {
    for standing in [Standing::Asking, Standing::Refused, Standing::Unanswered] {
        let (mut ports, mut world) = ready(Standing::Authenticated);
        world.does(&ports.on(proven()));
        let actions = ports.on(Event::Standing(0, standing));
        let told = Action::Tell(UplinkToGate::CarrierLost {
            port: "eth0".into(),
        });
        assert_eq!(actions[0], told);
        world.does(&actions);
        assert!(world.sockets.is_empty() && world.gate.is_empty() && world.sets.is_empty());
        assert_eq!(world.dhcp, [0].into(), "it starts over");
        world.does(&ports.on(Event::Bound(0, lease(51))));
        assert_eq!(world.sockets.len(), 1, "remote");
    }
}

/// A switch moves a port that it authenticated from one network to another: the lease of the first
/// counts for nothing in the second.
#[test]
fn an_authenticated_port_asks_for_another_lease() {
    let (mut ports, mut world) = ready(Standing::Asking);
    let actions = ports.on(Event::Standing(0, Standing::Authenticated));
    let starts = |action: &Action| matches!(action, Action::StartDhcp(0, _));
    assert!(actions.iter().any(starts), "{actions:?}");
    world.does(&actions);
    assert!(world.sockets.is_empty());
    // Told again, it is no news.
    assert_eq!(ports.on(Event::Standing(0, Standing::Authenticated)), []);
}

#[test]
fn another_carrier_begins_anew() {
    let (mut ports, mut world) = ready(Standing::Authenticated);
    world.does(&ports.on(Event::Link(link(0, false, 1))));
    assert!(world.dot1x.is_empty());
    // What the old carrier's supplicant still had to say.
    assert_eq!(ports.on(Event::Standing(0, Standing::Authenticated)), []);
    world.does(&ports.on(Event::Link(link(0, true, 1))));
    assert_eq!(world.dot1x, [0].into());
    world.does(&ports.on(Event::Bound(0, lease(50))));
    assert!(!world.sets.contains(&("eth0".into(), "premises")));
}
