//! A policy that is well formed but not (yet) verified: what IT works on.

use std::sync::Arc;

use crate::address::Peer;
use crate::admission::{Admission, Decision, RuleId};
use crate::check;
use crate::fault::{Fault, PolicyError, Problem};
use crate::query::Query;
use crate::schema::Policy;
use crate::source::{Source, Step};

/// A policy file that has been parsed and checked. It can be asked, but not applied: the network
/// domain takes only [`Verified`](crate::Verified).
#[derive(Debug)]
pub struct Draft {
    policy: Policy,
    admission: Admission,
    source: Source,
}

/// Why a connection may be opened or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The answer.
    pub decision: Decision,
    /// Name of the rule.
    pub rule: String,
    /// Line of the rule in the file; `None` for `default-deny`, which is written nowhere.
    pub line: Option<usize>,
    /// What the person is told, where `[forbidden]` decided.
    pub reason: Option<String>,
}

impl Draft {
    /// Parses a policy file and checks what it says. Its `[[test]]` entries are run by
    /// [`Draft::run_tests`]. `name` is the file's name in errors.
    ///
    /// # Errors
    /// [`PolicyError`] with the first error of syntax or type, or with every problem of meaning,
    /// each with its place in the file.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Box<PolicyError>> {
        let (source, policy) = Source::parse(name, bytes)?;
        let problems = check::problems(&policy, &source);
        if !problems.is_empty() {
            return Err(Box::new(source.error(problems)));
        }
        let admission = Admission::of_checked(&policy);
        Ok(Self {
            policy,
            admission,
            source,
        })
    }

    /// What the file says.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn into_policy(self) -> Policy {
        self.policy
    }

    /// Decides one connection and names the rule and its line.
    pub fn explain<A: Peer>(&self, query: &Query<A>) -> Explanation {
        let decision = self.admission.decide(query);
        let rule = decision.rule();
        let line = match (rule, rule.flow()) {
            (RuleId::FORBIDDEN, _) => Some(self.source.line(&[Step::Key("forbidden")])),
            (_, Some(index)) => Some(self.source.line(&[Step::Key("flow"), Step::Index(index)])),
            (_, None) => None,
        };
        Explanation {
            decision,
            rule: self.admission.name(rule).to_owned(),
            line,
            reason: (rule == RuleId::FORBIDDEN).then(|| self.policy.forbidden.reason.clone()),
        }
    }

    /// Runs the policy's own tests; gives their number.
    ///
    /// # Errors
    /// [`PolicyError`] with every expectation that does not hold.
    pub fn run_tests(&self) -> Result<usize, Box<PolicyError>> {
        let mut problems = Vec::new();
        for (number, test) in self.policy.test.iter().enumerate() {
            for (key, probes, allowed) in
                [("accept", &test.accept, true), ("deny", &test.deny, false)]
            {
                for (index, probe) in probes.iter().enumerate() {
                    let decision = self
                        .admission
                        .decide(&probe.at(test.from.place, test.from.uplink));
                    if decision.is_allowed() != allowed && problems.len() < check::MAX_PROBLEMS {
                        let path = [
                            Step::Key("test"),
                            Step::Index(number),
                            Step::Key(key),
                            Step::Index(index),
                        ];
                        problems.push(Problem {
                            fault: Fault::TestFails {
                                test: test.name.clone(),
                                probe: Arc::from(probe.to_string()),
                                allowed: decision.is_allowed(),
                                rule: self.admission.name(decision.rule()).to_owned(),
                            },
                            at: self.source.span(&path),
                        });
                    }
                }
            }
        }
        if problems.is_empty() {
            Ok(self.policy.test.len())
        } else {
            Err(Box::new(self.source.error(problems)))
        }
    }
}
