//! Any events in any order.

use proptest::prelude::*;

use super::{super::tests::standing, *};

#[derive(Debug, Clone)]
enum Do {
    Plug(bool),
    Read,
    Bound,
    Prove(bool),
    Ask,
    Stand(Standing),
    Trial,
    Gate(bool),
    Sleep(bool),
    /// The process ends, in an orderly way or not, and another one begins.
    End(bool),
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        3 => any::<bool>().prop_map(Do::Plug),
        8 => Just(Do::Read),
        4 => Just(Do::Bound),
        4 => prop::bool::weighted(0.8).prop_map(Do::Prove),
        4 => Just(Do::Ask),
        4 => standing().prop_map(Do::Stand),
        1 => Just(Do::Trial),
        1 => any::<bool>().prop_map(Do::Gate),
        1 => any::<bool>().prop_map(Do::Sleep),
        1 => any::<bool>().prop_map(Do::End),
    ]
}

proptest! {
    /// Whatever happens in whatever order, a wire is open only under the work OS's MAC on a link that
    /// the machine believes proven, and, where policy demands it, that the authenticator let in under that
    /// MAC; and with the cable out and all news read, the card has its own.
    #[test]
    fn a_wire_is_a_members_and_without_a_cable_the_mac_is_the_cards(
        dot1x: bool,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut desk = if dot1x { Desk::with_dot1x() } else { Desk::new() };
        for step in steps {
            match step {
                Do::Plug(cable) if cable != desk.kernel.cable => desk.kernel.plug(cable),
                Do::Read => desk.read(),
                Do::Bound if desk.world.dhcp.contains(&0) => {
                    desk.on(Event::Bound(0, lease(50)));
                }
                Do::Prove(true) => desk.prove(),
                Do::Prove(false) => {
                    desk.on(Event::Gate(GateToUplink::Premises {
                        port: "eth0".into(),
                        proven: false,
                    }));
                }
                Do::Ask => {
                    desk.ask();
                }
                Do::Trial if desk.kernel.trial => {
                    desk.on(Event::TrialOver(0));
                }
                Do::Stand(standing) if let Some(mac) = desk.kernel.asks_as => {
                    desk.kernel.let_in = (standing == Standing::Authenticated).then_some(mac);
                    desk.on(Event::Standing(0, standing));
                }
                Do::Plug(_) | Do::Bound | Do::Trial | Do::Stand(_) => {}
                Do::Gate(there) => {
                    desk.on(if there { Event::GateAttached } else { Event::GateLost });
                }
                Do::End(orderly) => {
                    if orderly {
                        desk.on(Event::End);
                        prop_assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
                        prop_assert!(!desk.kernel.wake && !desk.kernel.up);
                    }
                    desk.begin_anew();
                    prop_assert!(!desk.kernel.wake, "what a killed process left");
                }
                Do::Sleep(asleep) => {
                    if asleep != desk.ports.asleep {
                        desk.on(if asleep { Event::Suspend } else { Event::Resume });
                    }
                }
            }
            prop_assert!(desk.ports.wire.is_none() || desk.ports.gate);
            if desk.ports.wire.is_some() {
                prop_assert_eq!(desk.kernel.mac, MEMBER);
                prop_assert!(desk.ports.any_proven());
                // The loss of a cable is news to the machine once it has read it.
                let unread = !desk.kernel.news.is_empty();
                prop_assert!(!dot1x || unread || desk.kernel.let_in == Some(MEMBER));
            }
            prop_assert!(!desk.kernel.wake || desk.ports.any_proven() || desk.ports.asleep);
        }
        desk.on(Event::Resume);
        if desk.kernel.cable {
            desk.kernel.plug(false);
        }
        desk.read_all();
        // The cable went while the link was down for the change.
        if desk.kernel.trial {
            desk.on(Event::TrialOver(0));
            desk.read_all();
        }
        prop_assert_eq!(desk.kernel.mac, OWN);
        prop_assert!(desk.ports.wire.is_none() && !desk.kernel.wake);
        // And the next cable is used as ever.
        desk.kernel.plug(true);
        desk.read_all();
        prop_assert_eq!(&desk.world.dhcp, &[0].into());
        prop_assert_eq!(desk.ports.member_at(0), None);
    }
}
