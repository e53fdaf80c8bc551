//! Whatever the gate can say has words that a person understands.

use sekisho_netdomain::gate::{admit::Rule, situation::Reason};
use sekisho_status::words::{Lang, knows_reason, knows_rule, reason, refusal};

const RULES: [Rule; Rule::BUILT_IN] = [
    Rule::AntiSpoof,
    Rule::Impostor,
    Rule::Ipv6,
    Rule::EtherType,
    Rule::Malformed,
    Rule::Unusual,
    Rule::TooLong,
    Rule::Closed,
    Rule::FlowTableFull,
    Rule::NoFlow,
    Rule::DnsOutside,
    Rule::DnsRefused,
    Rule::NotServed,
];

/// The one after it; a new reason does not compile without its place here.
const fn after(reason: Reason) -> Option<Reason> {
    match reason {
        Reason::Started => Some(Reason::NoPath),
        Reason::NoPath => Some(Reason::Connecting),
        Reason::Connecting => Some(Reason::GatewaySilent),
        Reason::GatewaySilent => Some(Reason::UplinkGone),
        Reason::UplinkGone => Some(Reason::Suspended),
        Reason::Suspended => Some(Reason::Doubt),
        Reason::Doubt => None,
    }
}

#[test]
fn every_reason_has_words() {
    for known in std::iter::successors(Some(Reason::Started), |reason| after(*reason)) {
        assert!(knows_reason(known.words()), "{}", known.words());
        assert_ne!(reason(known.words(), Lang::Ja), known.words());
    }
    assert!(!knows_reason("a reason that nobody has"));
}

#[test]
fn every_rule_has_words() {
    let indices: Vec<usize> = RULES.iter().map(|rule| rule.index()).collect();
    assert_eq!(indices, (0..Rule::BUILT_IN).collect::<Vec<_>>());
    let policy = ["forbidden", "default-deny"];
    let names = RULES.iter().filter_map(|rule| rule.name()).chain(policy);
    for name in names {
        assert!(knows_rule(name), "{name}");
        assert_ne!(
            refusal(name, Lang::Ja),
            refusal("a flow of the policy", Lang::Ja)
        );
    }
    assert!(!knows_rule("a flow of the policy"));
}
