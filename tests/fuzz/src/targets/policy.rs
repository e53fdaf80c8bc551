//! A policy file: it is answered, and what is accepted can be asked.

use sekisho_policy::{Draft, Lang, Place, Probe, UplinkKind};

/// Parses the input as a policy file; runs the tests of one that is accepted, and shows the
/// problems of one that is not.
///
/// # Panics
/// Where a refusal has no problem or no text, or the two ways to ask disagree.
pub fn policy(input: &[u8]) {
    match Draft::parse("policy.toml", input) {
        Ok(draft) => {
            for test in &draft.policy().test {
                for probe in test.accept.iter().chain(&test.deny) {
                    ask(&draft, *probe, test.from.place, test.from.uplink);
                }
            }
            if let Err(error) = draft.run_tests() {
                assert!(!error.problems().is_empty());
            }
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(!error.to_string().is_empty());
            assert!(!error.render(Lang::Ja).is_empty());
        }
    }
}

fn ask(draft: &Draft, probe: Probe, place: Place, uplink: UplinkKind) {
    let answer = draft.explain(&probe.at(place, uplink));
    let forbidden = &draft.policy().forbidden.prefixes;
    if forbidden.iter().any(|prefix| prefix.contains(&probe.peer)) {
        assert!(
            !answer.decision.is_allowed(),
            "{probe} is forbidden and allowed"
        );
        assert_eq!(answer.rule, "forbidden");
    }
    let flow = draft
        .policy()
        .flow
        .iter()
        .any(|flow| flow.id == answer.rule);
    assert_eq!(answer.decision.is_allowed(), flow);
}
