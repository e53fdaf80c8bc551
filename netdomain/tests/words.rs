//! Whatever the gate can say has words that a person understands.

use sekisho_netdomain::gate::{admit::Rule, situation::Reason};
use sekisho_status::words::{Lang, knows_reason, knows_rule, reason, refusal};

/// The one after it; a new reason does not compile without its place here.
const fn after(reason: Reason) -> Option<Reason> {
    match reason {
        Reason::Started => Some(Reason::NoPath),
        Reason::NoPath => Some(Reason::Connecting),
        Reason::Connecting => Some(Reason::GatewaySilent),
        Reason::GatewaySilent => Some(Reason::UplinkGone),
        Reason::UplinkGone => Some(Reason::Suspended),
        Reason::Suspended => Some(Reason::Doubt),
        Reason::Doubt => Some(Reason::SecondFactor),
        Reason::SecondFactor => Some(Reason::SecondFactorMissing),
        Reason::SecondFactorMissing => None,
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
    let limits = [
        "forbidden",
        "default-deny",
        "bandwidth.total",
        "bandwidth.bulk",
    ];
    let named = Rule::NAMED.iter().filter_map(|rule| rule.name());
    for name in named.chain(limits) {
        assert!(knows_rule(name), "{name}");
        assert!(!refusal(name, Lang::Ja).is_empty());
    }
    assert!(!knows_rule("a flow of the policy"));
}
