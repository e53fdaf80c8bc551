//! Where the cable goes, and what becomes of the MAC.

use super::*;

#[test]
fn the_wire_of_a_member_has_the_lease_of_its_mac() {
    let (desk, wire) = Desk::seated();
    assert_eq!(wire.address, lease(77).address);
    let place = wire.lan.unwrap();
    assert_eq!((place.address, place.prefix), (wire.address, 24));
    assert_eq!(place.router, lease(77).router);
    assert_eq!(desk.ports.member_at(0), Some(&member()));
}

#[test]
fn t22_the_mac_goes_with_the_cable() {
    let (mut desk, wire) = Desk::seated();
    desk.kernel.plug(false);
    let news = desk.kernel.news.remove(0);
    let actions = desk.on(Event::Link(news));
    assert_eq!(actions[0], Action::ShutWire(wire));
    // Before the next cable is looked at.
    desk.read_all();
    assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
    desk.kernel.plug(true);
    desk.read_all();
    assert_eq!(desk.ports.member_at(0), None);
    assert_eq!(
        desk.world.dhcp,
        [0].into(),
        "it looks for a lease of its own"
    );
}

/// The cable was moved in the moment in which the link was down for the change: nobody proves
/// anything there, and the MAC is taken off.
#[test]
fn t22_a_cable_that_moved_during_the_change_costs_a_minute_of_the_mac() {
    let mut desk = Desk::new();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert!(desk.kernel.trial);
    desk.on(Event::Bound(0, lease(9)));
    assert_eq!(desk.ask(), [], "nothing is proven there");
    desk.on(Event::TrialOver(0));
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    assert_eq!(desk.world.dhcp, [0].into());
}

#[test]
fn two_cables_in_one_office_do_not_both_take_on_the_mac() {
    let mut desk = Desk::new();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert_eq!(desk.kernel.mac, MEMBER);
    // Proven while the first one is being proven anew.
    desk.on(Event::Link(link(1, true, 0)));
    desk.on(Event::Bound(1, lease(51)));
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth1".into(),
        proven: true,
    }));
    let asks = Event::Gate(GateToUplink::AskWire {
        port: "eth1".into(),
        address: Ipv4Addr::new(10, 250, 7, 23),
        mtu: 1420,
        member: member(),
    });
    assert_eq!(desk.on(asks.clone()), []);
    // It does once the first one is out of it.
    desk.kernel.plug(false);
    desk.read_all();
    desk.kernel.plug(true);
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    let changes = desk.on(asks);
    let on_the_other =
        |action: &Action| matches!(action, Action::SetMac { port, .. } if port.index == 1);
    assert!(changes.iter().any(on_the_other), "{changes:?}");
}

/// A cable that goes from the laptop's own port into its dock's: the first port has no carrier any more.
#[test]
fn a_port_whose_cable_is_gone_does_not_keep_the_mac_from_another() {
    let (mut desk, _) = Desk::seated();
    desk.kernel.plug(false);
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    desk.on(Event::Link(link(1, true, 0)));
    desk.on(Event::Bound(1, lease(51)));
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth1".into(),
        proven: true,
    }));
    let changes = desk.on(Event::Gate(GateToUplink::AskWire {
        port: "eth1".into(),
        address: Ipv4Addr::new(10, 250, 7, 23),
        mtu: 1420,
        member: member(),
    }));
    let on_the_other =
        |action: &Action| matches!(action, Action::SetMac { port, .. } if port.index == 1);
    assert!(changes.iter().any(on_the_other), "{changes:?}");
}

#[test]
fn a_proof_that_ends_without_the_cable_ends_the_mac() {
    let (mut desk, _) = Desk::seated();
    desk.on(Event::TrialOver(0));
    assert!(desk.ports.is_on_trial(0), "proven: until the next one");
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: false,
    }));
    desk.on(Event::TrialOver(0));
    assert!(!desk.ports.is_on_trial(0));
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
}

#[test]
fn a_lan_that_does_not_take_the_mac_is_not_asked_for_ever() {
    let mut desk = Desk::new();
    let mut changes = 0;
    for _ in 0..10 {
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        changes += u32::from(!desk.ask().is_empty());
        desk.read_all();
        desk.on(Event::TrialOver(0));
        desk.read_all();
        assert_eq!(desk.kernel.mac, OWN);
    }
    assert_eq!(changes, 3);
    // Sleep is a fresh start.
    desk.on(Event::Suspend);
    desk.on(Event::Resume);
    desk.read_all();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert!(!desk.ask().is_empty());
}

#[test]
fn a_card_that_has_the_work_oss_mac_itself_asks_for_the_lease_again_by_name() {
    let mut desk = Desk::new();
    desk.kernel.mac = MEMBER;
    desk.ports.by_index.get_mut(&0).unwrap().mac = MEMBER;
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    let actions = desk.ask();
    assert!(actions.contains(&Action::StartDhcp(0, MEMBER)));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Down(_)))
    );
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
}

/// A gate says when, and not which MAC: a message that named one would be none of the protocol's.
#[test]
fn t36_a_gate_that_has_fallen_names_no_mac() {
    let (desk, _) = Desk::seated();
    assert_eq!(desk.kernel.mac, MEMBER);
    let word = serde_json::to_value(member()).unwrap();
    assert!(serde_json::from_value::<LanMember>(word.clone()).is_ok());
    let mut with_mac = word;
    with_mac["mac"] = serde_json::json!([2, 0, 0, 0, 0, 9]);
    assert!(serde_json::from_value::<LanMember>(with_mac).is_err());
    // And where the supervisor named none, no port changes its own.
    let mut desk = Desk::new();
    desk.ports.member_mac = None;
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert_eq!(desk.ask(), []);
    assert_eq!(desk.kernel.mac, OWN);
}
