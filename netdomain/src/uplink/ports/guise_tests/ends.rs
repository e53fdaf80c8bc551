//! What is left when a process ends or the laptop sleeps.

use super::*;

#[test]
fn a_new_process_gives_back_what_the_last_one_left_on() {
    let mut desk = Desk::new();
    (desk.kernel.mac, desk.kernel.own) = (MEMBER, Some(OWN));
    desk.begin_anew();
    assert_eq!(desk.world.dhcp, [].into(), "nothing is sent under it");
    desk.read_all();
    assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
    assert_eq!(desk.world.dhcp, [0].into());
}

/// A process that ends at the desk, awake or asleep, leaves a card that is deaf and has its own MAC.
#[test]
fn a_process_that_ends_leaves_no_card_that_listens() {
    for sleeps in [false, true] {
        let (mut desk, _) = Desk::seated();
        if sleeps {
            desk.on(Event::Suspend);
        }
        assert!(desk.kernel.wake);
        assert_eq!(desk.kernel.mac, MEMBER);
        desk.on(Event::End);
        assert!(!desk.kernel.wake && !desk.kernel.up, "asleep: {sleeps}");
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        // One that was killed leaves it as it was, and the next one takes it off.
        let (mut desk, _) = Desk::seated();
        if sleeps {
            desk.on(Event::Suspend);
        }
        desk.begin_anew();
        desk.read_all();
        assert!(!desk.kernel.wake, "asleep: {sleeps}");
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        assert_eq!(desk.world.dhcp, [0].into());
    }
}

/// E19: a magic packet wakes the laptop at the desk that it was proven at, and nowhere else.
#[test]
fn a_magic_packet_wakes_at_the_proven_desk_and_nowhere_else() {
    let (mut desk, _) = Desk::seated();
    assert!(desk.kernel.wake);
    desk.on(Event::Suspend);
    desk.read_all();
    assert!(desk.kernel.wake && !desk.kernel.up);
    assert_eq!(desk.kernel.mac, MEMBER, "by the MAC that the LAN knows");
    desk.on(Event::Resume);
    desk.read_all();
    assert!(!desk.kernel.wake && desk.kernel.up);
    assert_eq!(desk.kernel.mac, OWN);

    // Whatever ends the proof ends it.
    let ends = [
        Event::LeaseLost(0),
        Event::Gate(GateToUplink::Premises {
            port: "eth0".into(),
            proven: false,
        }),
        Event::GateLost,
    ];
    for end in ends {
        let (mut desk, _) = Desk::seated();
        desk.on(end.clone());
        assert!(!desk.kernel.wake, "{end:?}");
        desk.on(Event::Suspend);
        assert!(!desk.kernel.wake, "{end:?}");
        assert_eq!(desk.kernel.mac, OWN, "{end:?}");
    }
    let (mut desk, _) = Desk::seated();
    desk.kernel.plug(false);
    desk.read_all();
    assert!(!desk.kernel.wake);
    // And where policy does not say so, it is switched off and never on.
    let mut ports = Ports::new(sample(), Vec::new());
    ports.on(Event::GateAttached);
    let actions = ports.on(Event::Link(link(0, true, 0)));
    assert!(actions.contains(&Action::Wake(0, false)));
    ports.on(Event::Bound(0, lease(50)));
    let proven = ports.on(Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: true,
    }));
    assert!(!proven.contains(&Action::Wake(0, true)));
}
