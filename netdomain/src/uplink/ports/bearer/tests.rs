use std::{collections::BTreeSet, net::Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::uplink::{
    Wish,
    endpoints::{sample, sample_sim},
    ports::Event,
    quota::Allowance,
};

fn ports() -> Ports {
    let mut endpoints = sample();
    endpoints.uplinks.push(sample_sim());
    endpoints.gateways[0].kinds.push(UplinkKind::Sim);
    endpoints.mobile = Some(Wish {
        apn: Some("mihon.closed.example".into()),
        networks: vec!["44010".into()],
        roaming: false,
        interfaces: vec!["wwan9".into()],
    });
    let mut ports = Ports::new(endpoints, Vec::new());
    ports.on(Event::GateAttached);
    ports
}

fn link(name: &str, ethernet: bool, carrier: bool) -> Event {
    Event::Link(Link {
        index: if name == "wwan9" { 9 } else { 1 },
        name: name.into(),
        mac: [2, 0, 0, 0, 0, 9],
        own: None,
        ethernet,
        up: true,
        carrier,
        operational: carrier,
        radio: false,
        losses: 0,
        bytes: 0,
    })
}

fn fixed(last: u8) -> Bearer {
    Bearer {
        interface: "wwan9".into(),
        address: BearerAddress::Static {
            address: Ipv4Addr::new(100, 64, 7, last),
            prefix: 30,
            router: Ipv4Addr::new(100, 64, 7, 1),
        },
        mtu: Some(1430),
    }
}

fn opens(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::OpenPath { from, .. } if from.port == "wwan9"))
}

#[test]
fn a_modems_link_without_frames_is_used_as_its_bearer_says() {
    let mut ports = ports();
    assert!(!opens(&ports.on(link("wwan9", false, true))));
    let actions = ports.on(Event::Bearer(Some(fixed(2))));
    assert!(opens(&actions));
    let short = |action: &Action| matches!(action, Action::Report(Report::Ignored { what }) if what.contains("MTU 1430"));
    assert!(actions.iter().any(short), "{actions:?}");
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::StartDhcp(..)))
    );
    // What carries no frames and is no SIM's is nobody's.
    assert_eq!(ports.on(link("tun0", false, true)), []);
}

#[test]
fn dhcp_is_spoken_only_where_there_are_frames() {
    for ethernet in [true, false] {
        let mut ports = ports();
        ports.on(link("wwan9", ethernet, true));
        let bearer = Bearer {
            address: BearerAddress::Dhcp,
            ..fixed(2)
        };
        let actions = ports.on(Event::Bearer(Some(bearer)));
        assert_eq!(
            actions.contains(&Action::StartDhcp(9, [2, 0, 0, 0, 0, 9])),
            ethernet
        );
    }
}

/// What the modem's process says is checked again: it may be anybody's by then.
#[test]
fn a_bearer_that_cannot_be_is_refused_and_told() {
    let told = |address: [u8; 4], router: [u8; 4]| BearerAddress::Static {
        address: address.into(),
        prefix: 200,
        router: router.into(),
    };
    for address in [
        // A gateway's, the beacon's, loopback, multicast, no router, its own router.
        told([203, 0, 113, 10], [100, 64, 7, 1]),
        told([10, 12, 0, 200], [100, 64, 7, 1]),
        told([127, 0, 0, 1], [100, 64, 7, 1]),
        told([224, 0, 0, 1], [100, 64, 7, 1]),
        told([100, 64, 7, 2], [0, 0, 0, 0]),
        told([100, 64, 7, 2], [100, 64, 7, 2]),
    ] {
        let mut ports = ports();
        ports.on(link("wwan9", false, true));
        let actions = ports.on(Event::Bearer(Some(Bearer {
            address,
            ..fixed(2)
        })));
        assert!(
            matches!(&actions[..], [Action::Report(Report::Ignored { .. })]),
            "{actions:?}"
        );
    }
    // The cable is not the SIM's, whatever is said of it.
    let mut ports = ports();
    ports.on(link("eth0", true, true));
    let stray = Bearer {
        interface: "eth0".into(),
        ..fixed(2)
    };
    assert_eq!(ports.on(Event::Bearer(Some(stray))), []);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(ethernet, carrier)| {
            link("wwan9", ethernet, carrier)
        }),
        1 => any::<bool>().prop_map(|carrier| link("eth0", true, carrier)),
        1 => Just(Event::Gone(9)),
        6 => prop_oneof![
            Just(None),
            (2u8..4).prop_map(|last| Some(fixed(last))),
            Just(Some(Bearer { address: BearerAddress::Dhcp, ..fixed(2) })),
            Just(Some(Bearer { interface: "eth0".into(), ..fixed(2) })),
        ].prop_map(Event::Bearer),
        2 => Just(Event::Bound(9, Lease {
            address: Ipv4Addr::new(100, 64, 7, 9),
            prefix: 30,
            router: Ipv4Addr::new(100, 64, 7, 1),
            server: Ipv4Addr::new(100, 64, 7, 1),
        })),
        1 => Just(Event::LeaseLost(9)),
        1 => Just(Event::GateAttached),
        1 => Just(Event::GateLost),
        1 => prop_oneof![
            Just(Allowance::Full), Just(Allowance::Slow), Just(Allowance::Nothing)
        ].prop_map(Event::Allowance),
        1 => Just(Event::Suspend),
        1 => Just(Event::Resume),
    ]
}

proptest! {
    /// After any history the SIM's port is open only while a bearer vouches for it, with the very
    /// address that the bearer says.
    #[test]
    fn the_sim_is_open_only_while_its_bearer_is(events in prop::collection::vec(event(), 0..80)) {
        let mut ports = ports();
        let (mut bearer, mut open, mut dhcp) = (None, BTreeSet::new(), false);
        for event in events {
            if let Event::Bearer(now) = &event {
                bearer.clone_from(now);
            }
            if matches!(event, Event::Bound(..) | Event::LeaseLost(_)) && !dhcp {
                // Nobody asks, so nobody is answered.
                continue;
            }
            for action in ports.on(event) {
                match action {
                    Action::Allow(port, set) => {
                        open.insert((port, format!("{set:?}")));
                    }
                    Action::Forbid(port, set) => {
                        open.remove(&(port, format!("{set:?}")));
                    }
                    Action::StartDhcp(9, _) => dhcp = true,
                    Action::StopDhcp(9) => dhcp = false,
                    _ => {}
                }
            }
            let own = bearer.as_ref().filter(|bearer: &&Bearer| bearer.interface == "wwan9");
            let leased = ports.by_index.get(&9).and_then(|port| match &port.state {
                State::Leased { lease, .. } => Some(lease.address),
                State::Dark | State::Lit => None,
            });
            prop_assert_eq!(open.contains(&("wwan9".into(), "Open".into())), leased.is_some());
            prop_assert!(!open.contains(&("wwan9".into(), "Premises".into())));
            prop_assert!(!dhcp || own.is_some_and(|own| own.address == BearerAddress::Dhcp));
            if let Some(address) = leased {
                match own.map(|own| own.address) {
                    Some(BearerAddress::Static { address: said, .. }) => {
                        prop_assert_eq!(address, said);
                    }
                    Some(BearerAddress::Dhcp) => prop_assert!(dhcp),
                    None => prop_assert!(false, "no bearer"),
                }
            }
            prop_assert!(!ports.asleep || leased.is_none());
        }
    }
}
