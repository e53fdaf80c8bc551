use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Admission, Decision, RuleId, ranges};
use crate::schema::{Flow, Peers, Policy};
use crate::value::{PortRange, every_place, every_uplink};
use crate::{Direction, Draft, Protocol, Query};

const SAMPLE: &[u8] = include_bytes!("../../../tests/lab/policy/policy.toml");

fn sample() -> Policy {
    Draft::parse("policy.toml", SAMPLE).unwrap().into_policy()
}

/// What the tables must agree with: the rules as they are written, one after the other.
fn naive(policy: &Policy, query: &Query<IpAddr>) -> Decision {
    if policy
        .forbidden
        .prefixes
        .iter()
        .any(|prefix| prefix.contains(&query.peer))
    {
        return Decision::Refuse(RuleId::FORBIDDEN);
    }
    let port = if query.protocol == Protocol::Icmp {
        0
    } else {
        query.port
    };
    let matches = |flow: &Flow| {
        flow.direction == query.direction
            && flow.places.contains(&query.place)
            && flow.uplinks.contains(&query.uplink)
            && flow
                .peers
                .hosts
                .iter()
                .any(|host| host.contains(&query.peer))
            && match query.protocol {
                Protocol::Icmp => flow.icmp,
                _ => ranges(flow, query.protocol)
                    .iter()
                    .any(|&(first, last)| (first..=last).contains(&port)),
            }
    };
    match policy.flow.iter().position(matches) {
        Some(index) => Decision::Allow(RuleId::of_flow(index)),
        None => Decision::Refuse(RuleId::DEFAULT_DENY),
    }
}

/// Few distinct bits, so that prefixes nest and touch, at both ends of the address space too.
fn low() -> impl Strategy<Value = u32> {
    select(vec![0_u32, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 254, 255])
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let high = select(vec![0, 0x0a0c_0000, 0x0a0c_ff00, 0xffff_ff00]);
    (high, low()).prop_map(|(high, low)| Ipv4Addr::from_bits(high | low))
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let high = select(vec![
        0_u128,
        // The same bits as an address of IPv4.
        0x0a0c_0000,
        0x2001_0db8 << 96,
        (0x2001_0db8 << 96) | (0xff00 << 64),
        !0xff,
    ]);
    (high, low()).prop_map(|(high, low)| Ipv6Addr::from_bits(high | u128::from(low)))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let v4_len = select(vec![0_u8, 1, 8, 16, 24, 25, 28, 30, 31, 32]);
    let v6_len = select(vec![0_u8, 1, 32, 48, 64, 96, 120, 124, 127, 128]);
    prop_oneof![
        (v4(), v4_len).prop_map(|(address, len)| Ipv4Net::new(address, len).unwrap().into()),
        (v6(), v6_len).prop_map(|(address, len)| Ipv6Net::new(address, len).unwrap().into()),
    ]
    .prop_map(|net: IpNet| net.trunc())
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![
        1, 2, 3, 22, 79, 80, 81, 443, 444, 49151, 49152, 65534, 65535,
    ])
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (port(), port()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    vec(range, 0..4)
}

fn flow() -> impl Strategy<Value = Flow> {
    (
        select(vec![Direction::Out, Direction::In]),
        vec(prefix(), 1..4),
        ports(),
        ports(),
        any::<bool>(),
        subsequence(every_place(), 1..=2),
        subsequence(every_uplink(), 1..=3),
    )
        .prop_map(|(direction, hosts, tcp, udp, icmp, places, uplinks)| Flow {
            id: "flow".into(),
            direction,
            peers: Peers {
                segment: "lgwan".into(),
                hosts,
            },
            tcp,
            udp,
            icmp,
            places,
            uplinks,
            bandwidth: None,
        })
}

fn query() -> impl Strategy<Value = Query<IpAddr>> {
    (
        select(vec![Direction::Out, Direction::In]),
        select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp]),
        prop_oneof![address(), any::<IpAddr>()],
        prop_oneof![port(), any::<u16>()],
        select(every_place()),
        select(every_uplink()),
    )
        .prop_map(|(direction, protocol, peer, port, place, uplink)| Query {
            direction,
            protocol,
            peer,
            port,
            place,
            uplink,
        })
}

proptest! {
    #[test]
    fn tables_decide_as_the_rules_are_written(
        flows in vec(flow(), 0..12),
        forbidden in vec(prefix(), 0..3),
        queries in vec(query(), 200),
    ) {
        let mut policy = sample();
        policy.flow = flows;
        policy.forbidden.prefixes = forbidden;
        let admission = Admission::of_checked(&policy);
        for query in &queries {
            prop_assert_eq!(admission.decide(query), naive(&policy, query), "{:?}", query);
        }
    }
}

#[test]
fn forbidden_wins_over_a_flow_that_names_the_same_host() {
    let mut policy = sample();
    policy.forbidden.prefixes = vec!["10.12.10.0/28".parse().unwrap()];
    let admission = Admission::of_checked(&policy);
    let at = |text: &str| {
        let probe: crate::Probe = text.parse().unwrap();
        admission.decide(&probe.at(crate::Place::Office, crate::UplinkKind::Wired))
    };
    assert_eq!(
        at("tcp 10.12.10.5:443"),
        Decision::Refuse(RuleId::FORBIDDEN)
    );
    let allowed = at("tcp 10.12.10.16:443");
    assert!(allowed.is_allowed());
    assert_eq!(admission.name(allowed.rule()), "groupware-web");
}

#[test]
fn a_lookup_stays_short_for_thousands_of_rules() {
    let mut policy = sample();
    let model = policy.flow[0].clone();
    policy.flow = (0..4000_u32)
        .map(|index| {
            let host = Ipv4Addr::from_bits(0x0a0c_0000 + index * 2);
            let mut flow = model.clone();
            flow.peers.hosts = vec![Ipv4Net::new_assert(host, 32).into()];
            flow
        })
        .collect();
    let admission = Admission::of_checked(&policy);
    // One table for outbound TCP in all places and over all uplinks, one for each protocol where
    // nothing is allowed.
    assert!(
        admission.v4.tables.len() <= 4,
        "{} tables",
        admission.v4.tables.len()
    );
    // 13 steps of binary search in at most 8,003 intervals (two edges are of [forbidden]), then 2 in the ports.
    assert!(
        admission
            .v4
            .tables
            .iter()
            .all(|table| table.starts.len() <= 8003)
    );
    let ports: usize = admission
        .v4
        .tables
        .iter()
        .map(|table| table.ports.len())
        .sum();
    assert!(ports <= 8000, "{ports} port ranges");
}

#[test]
fn the_families_do_not_mix() {
    let mut policy = sample();
    policy.flow[0].peers.hosts = vec!["2001:db8:12::a0c:a05/128".parse().unwrap()];
    let admission = Admission::of_checked(&policy);
    let at = |text: &str| {
        let probe: crate::Probe = text.parse().unwrap();
        admission.decide(&probe.at(crate::Place::Office, crate::UplinkKind::Wired))
    };
    assert!(at("tcp [2001:db8:12::a0c:a05]:443").is_allowed());
    for other in [
        "tcp 10.12.10.5:443",
        "tcp [::ffff:10.12.10.5]:443",
        "tcp [2001:db8:12::a0c:a06]:443",
        "tcp [2002:a0c:a05::1]:443",
        "icmp 2001:db8:12::a0c:a05",
    ] {
        assert!(!at(other).is_allowed(), "{other}");
    }
}

#[test]
fn names_of_unknown_rules_are_refusals() {
    let admission = Admission::of_checked(&sample());
    assert_eq!(admission.name(RuleId(u16::MAX)), "default-deny");
    assert_eq!(admission.name(RuleId::FORBIDDEN), "forbidden");
}
