//! Switches that let in each MAC, or do not.

use super::*;

/// A switch that lets the work OS's MAC in and bounces the port as soon as it sees it.
#[test]
fn a_port_that_is_bounced_at_each_change_keeps_its_own_mac_in_the_end() {
    let mut desk = Desk::new();
    let bounced = |desk: &mut Desk| {
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        let changes = !desk.ask().is_empty();
        desk.read_all();
        if changes {
            desk.on(Event::Bound(0, lease(77)));
            desk.prove();
            assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
        }
        desk.kernel.plug(false);
        desk.read_all();
        desk.kernel.plug(true);
        desk.read_all();
        assert_eq!(desk.kernel.mac, OWN);
        changes
    };
    let changes = (0..40).filter(|_| bounced(&mut desk)).count();
    assert_eq!(changes, 16);
    // A wire that is there at the end of the minute begins the count anew.
    let (mut desk, _) = Desk::seated();
    desk.on(Event::TrialOver(0));
    assert_eq!(desk.ports.hasty, 0);
}

#[test]
fn a_member_is_authenticated_anew_under_its_own_mac() {
    let mut desk = Desk::with_dot1x();
    desk.on(Event::Standing(0, Standing::Authenticated));
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert_eq!(desk.kernel.mac, MEMBER);
    // Nothing that was agreed under the card's own MAC counts, whatever the gate says.
    desk.on(Event::Bound(0, lease(77)));
    desk.prove();
    assert_eq!(desk.ask(), []);
    desk.on(Event::Standing(0, Standing::Authenticated));
    desk.prove();
    assert_eq!(desk.ask(), [], "another lease than the one before");
    desk.on(Event::Bound(0, lease(77)));
    desk.prove();
    assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
    // A refusal once it was authenticated ends the wire; the supplicant asks anew, without a change.
    let wire = desk.ports.wire.clone().unwrap();
    let actions = desk.on(Event::Standing(0, Standing::Refused));
    assert_eq!(actions[0], Action::ShutWire(wire));
    assert_eq!(desk.kernel.mac, MEMBER);
}

#[test]
fn a_switch_that_refuses_the_work_oss_mac_has_the_cards_own_again_at_once() {
    let mut desk = Desk::with_dot1x();
    let mut changes = 0;
    loop {
        desk.on(Event::Standing(0, Standing::Authenticated));
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        if desk.ask().is_empty() {
            break;
        }
        changes += 1;
        desk.read_all();
        assert_eq!(desk.kernel.mac, MEMBER);
        desk.on(Event::Standing(0, Standing::Refused));
        desk.read_all();
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        assert!(desk.world.dot1x.contains(&0), "it is asked anew");
    }
    assert_eq!(changes, 3);
}
