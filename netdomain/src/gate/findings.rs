//! What the gate has found on the ways to the gateways, and how far the work OS has come: what
//! `sekisho doctor` tells a person. Nothing is decided by it.
//!
//! Facts, not events: each has one value, and what changed is told until the supervisor has it. So
//! neither a full channel nor a neighbour who forges answers makes more of it than a few lines.

use std::time::Duration;

use sekisho_control::{GatewayFound, PathId, Report, WorkFound};

use super::engine::Gate;
use super::situation::MAX_PATHS;
use crate::moment::Moment;

/// A gateway that was asked so often without an answer is silent: a lost datagram or two are no news.
const TRIES: u8 = 3;
/// What a stub resolver, and a person, wait before they think that nobody answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found at the far end of one path.
#[derive(Debug, Clone, Copy)]
struct Way {
    path: PathId,
    found: GatewayFound,
    /// Handshakes since the gateway was last heard.
    tries: u8,
    told: bool,
}

/// Whether somebody inside answers the work OS.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    /// The first question that nothing has followed.
    waits: Option<Moment>,
    /// The last that is known.
    answered: Option<bool>,
    untold: bool,
}

impl Answers {
    fn asked(&mut self, now: Moment) {
        self.waits.get_or_insert(now);
    }

    fn answered(&mut self) {
        self.waits = None;
        self.settle(true);
    }

    fn settle(&mut self, answered: bool) {
        self.untold |= self.answered != Some(answered);
        self.answered = Some(answered);
    }

    fn tick(&mut self, now: Moment) {
        if self.waits.is_some_and(|since| now.since(since) >= PATIENCE) {
            self.settle(false);
        }
    }
}

/// Everything found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    ways: Vec<Way>,
    address: bool,
    address_untold: bool,
    names: Answers,
    servers: Answers,
}

/// One fact that the supervisor does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Gateway(PathId, GatewayFound),
    Work(WorkFound),
}

impl Findings {
    /// A handshake leaves over this path.
    pub(super) fn asked(&mut self, path: PathId) {
        if let Some(way) = self.way(path) {
            way.tries = way.tries.saturating_add(1);
            if way.tries >= TRIES {
                way.find(GatewayFound::Silent);
            }
        } else if self.ways.len() < MAX_PATHS {
            self.ways.push(Way {
                path,
                found: GatewayFound::Asked,
                tries: 1,
                told: false,
            });
        }
    }

    /// The gateway proved that it is there.
    pub(super) fn heard(&mut self, path: PathId) {
        if let Some(way) = self.way(path) {
            way.tries = 0;
            way.set(GatewayFound::Answered);
        }
    }

    /// Somebody says that nothing can be reached over this path.
    pub(super) fn unreachable(&mut self, path: PathId) {
        if let Some(way) = self.way(path) {
            way.find(GatewayFound::Unreachable);
        }
    }

    /// Something came over this path that proves nothing.
    pub(super) fn unproven(&mut self, path: PathId) {
        if let Some(way) = self.way(path) {
            way.find(GatewayFound::Unproven);
        }
    }

    /// The path is gone.
    pub(super) fn forget(&mut self, path: PathId) {
        self.ways.retain(|way| way.path != path);
    }

    /// The work OS sent something from its own address.
    pub(super) fn address(&mut self) {
        self.address_untold |= !self.address;
        self.address = true;
    }

    /// A name is asked for inside.
    pub(super) fn asks_name(&mut self, now: Moment) {
        self.names.asked(now);
    }

    /// A resolver inside answered.
    pub(super) fn name_answered(&mut self) {
        self.names.answered();
    }

    /// A connection is opened to a server inside.
    pub(super) fn asks_server(&mut self, now: Moment) {
        self.servers.asked(now);
    }

    /// A server inside answered.
    pub(super) fn server_answered(&mut self) {
        self.servers.answered();
    }

    /// There is no way out any more: what was known of those inside says nothing now.
    pub(super) fn closed(&mut self) {
        self.names = Answers::default();
        self.servers = Answers::default();
    }

    /// What time has brought.
    pub(super) fn tick(&mut self, now: Moment) {
        self.names.tick(now);
        self.servers.tick(now);
    }

    /// A fact that is to be told.
    pub(super) fn untold(&self) -> Option<Finding> {
        if let Some(way) = self.ways.iter().find(|way| !way.told) {
            return Some(Finding::Gateway(way.path, way.found));
        }
        if self.address_untold {
            return Some(Finding::Work(WorkFound::Address));
        }
        let work = |answers: &Answers, yes, no| {
            let found = answers.answered.filter(|_| answers.untold)?;
            Some(Finding::Work(if found { yes } else { no }))
        };
        work(&self.names, WorkFound::NameAnswered, WorkFound::NameSilent).or_else(|| {
            work(
                &self.servers,
                WorkFound::ServerAnswered,
                WorkFound::ServerSilent,
            )
        })
    }

    /// The supervisor has it.
    pub(super) fn told(&mut self, finding: Finding) {
        match finding {
            Finding::Gateway(path, _) => {
                if let Some(way) = self.way(path) {
                    way.told = true;
                }
            }
            Finding::Work(WorkFound::Address) => self.address_untold = false,
            Finding::Work(WorkFound::NameAnswered | WorkFound::NameSilent) => {
                self.names.untold = false;
            }
            Finding::Work(WorkFound::ServerAnswered | WorkFound::ServerSilent) => {
                self.servers.untold = false;
            }
        }
    }

    fn way(&mut self, path: PathId) -> Option<&mut Way> {
        self.ways.iter_mut().find(|way| way.path == path)
    }
}

impl Way {
    /// Something short of an answer. While the gateway answers it is of no interest, and of two
    /// the one stays that says more.
    fn find(&mut self, found: GatewayFound) {
        let answers = self.found == GatewayFound::Answered;
        if (answers && self.tries >= TRIES) || (!answers && found > self.found) {
            self.set(found);
        }
    }

    fn set(&mut self, found: GatewayFound) {
        self.told &= self.found == found;
        self.found = found;
    }
}

impl Gate {
    /// Tells the supervisor what it does not know yet, as far as it takes it.
    pub(super) fn tell_findings(&mut self, now: Moment) {
        self.findings.tick(now);
        while let Some(finding) = self.findings.untold() {
            let report = match finding {
                Finding::Work(found) => Report::Work { found },
                Finding::Gateway(path, found) => {
                    let Some(info) = self.machine.path(path) else {
                        self.findings.forget(path);
                        continue;
                    };
                    let gateway = self.plan.gateways.get(usize::from(info.gateway.0));
                    Report::Gateway {
                        gateway: gateway.map(|known| known.name.clone()).unwrap_or_default(),
                        port: info.port.clone(),
                        side: info.side,
                        found,
                    }
                }
            };
            // The next turn tries again; that the supervisor is gone is told by reading.
            if self.control.send(&report, &[]).is_err() {
                return;
            }
            self.findings.told(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::fixture::at;

    const PATH: PathId = PathId(1);

    fn all(findings: &mut Findings) -> Vec<Finding> {
        let mut told = Vec::new();
        while let Some(finding) = findings.untold() {
            findings.told(finding);
            told.push(finding);
        }
        told
    }

    #[test]
    fn a_gateway_is_asked_silent_and_back() {
        let mut findings = Findings::default();
        findings.asked(PATH);
        findings.asked(PATH);
        assert_eq!(
            all(&mut findings),
            [Finding::Gateway(PATH, GatewayFound::Asked)]
        );
        findings.asked(PATH);
        findings.asked(PATH);
        assert_eq!(
            all(&mut findings),
            [Finding::Gateway(PATH, GatewayFound::Silent)]
        );
        findings.unreachable(PATH);
        findings.asked(PATH);
        assert_eq!(
            all(&mut findings),
            [Finding::Gateway(PATH, GatewayFound::Unreachable)]
        );
        findings.heard(PATH);
        // While it answers, forged refusals are no news.
        findings.unreachable(PATH);
        findings.unproven(PATH);
        assert_eq!(
            all(&mut findings),
            [Finding::Gateway(PATH, GatewayFound::Answered)]
        );
        assert_eq!(all(&mut findings), []);
    }

    #[test]
    fn who_does_not_answer_in_time_is_silent() {
        let mut findings = Findings::default();
        findings.asks_name(at(10));
        findings.asks_name(at(14));
        findings.tick(at(14));
        assert_eq!(all(&mut findings), []);
        findings.tick(at(15));
        assert_eq!(all(&mut findings), [Finding::Work(WorkFound::NameSilent)]);
        findings.name_answered();
        assert_eq!(all(&mut findings), [Finding::Work(WorkFound::NameAnswered)]);
        findings.closed();
        findings.tick(at(100));
        assert_eq!(all(&mut findings), []);
    }

    proptest! {
        /// Whoever forges refusals between two handshakes of ours causes a bounded number of lines.
        #[test]
        fn forgers_cause_few_lines(forged in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut findings = Findings::default();
            findings.asked(PATH);
            let mut lines = all(&mut findings).len();
            for unreachable in forged {
                if unreachable {
                    findings.unreachable(PATH);
                } else {
                    findings.unproven(PATH);
                }
                lines += all(&mut findings).len();
            }
            prop_assert!(lines <= 3);
        }
    }
}
