use std::{slice::from_ref, time::Duration};

use proptest::prelude::*;
use sekisho_control::{ModemFound, Place, Report, Side, SituationReport, UplinkKind, WorkFound};

use super::*;
use crate::Ledger;

const PROCESSES: [&str; 3] = ["vmm", "gate", "uplink"];

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn running() -> Ledger {
    let mut ledger = Ledger::new("0", at(0));
    for process in PROCESSES {
        ledger.started(process, at(0));
        ledger.reported(process, &Report::Ready, at(0));
    }
    ledger.moved("eth0", at(0));
    ledger
}

fn uplink(event: &str) -> Report {
    Report::Uplink {
        port: "eth0".into(),
        kind: UplinkKind::Wired,
        event: event.into(),
    }
}

fn found(found: GatewayFound) -> Report {
    Report::Gateway {
        gateway: "honcho-1".into(),
        port: "eth0".into(),
        side: Side::Outside,
        found,
    }
}

fn stranger() -> Report {
    Report::Stranger {
        port: "eth0".into(),
    }
}

fn closed() -> Report {
    Report::Situation(SituationReport::Closed {
        reason: "no uplink leads to a gateway".into(),
    })
}

fn direct() -> Report {
    Report::Situation(SituationReport::Direct {
        port: "eth1".into(),
        address: [10, 250, 7, 23].into(),
    })
}

fn tunnelled() -> Report {
    Report::Situation(SituationReport::Tunnelled {
        gateway: "honcho-1".into(),
        port: "eth0".into(),
        side: Side::Outside,
        place: Place::Remote,
    })
}

/// The first step that does not hold, after `reports` at second 0, in second `now`.
fn culprit(reports: &[Report], now: u64) -> Option<(Step, Outcome)> {
    let mut ledger = running();
    for report in reports {
        let from = match report {
            Report::Uplink { .. } => "uplink",
            _ => "gate",
        };
        ledger.reported(from, report, at(0));
    }
    diagnose(&ledger.status(at(now)))
        .into_iter()
        .find(|check| matches!(check.outcome, Outcome::Failed { .. } | Outcome::Waiting))
        .map(|check| (check.step, check.outcome))
}

#[test]
fn each_step_is_named_when_it_is_the_one() {
    let lit = uplink("carrier");
    let leased = uplink("leased");
    let reached = uplink("router");
    let cases: [(&[Report], u64, Step, Outcome); 14] = [
        (&[], 1, Step::Carrier, failed(Cause::NoCarrier)),
        (from_ref(&lit), 5, Step::Address, Outcome::Waiting),
        (from_ref(&lit), 30, Step::Address, failed(Cause::NoAddress)),
        (
            &[lit.clone(), uplink("dot1x-refused")],
            30,
            Step::Address,
            failed(Cause::PortRefused),
        ),
        (
            &[lit.clone(), uplink("dot1x-unable")],
            30,
            Step::Address,
            failed(Cause::PortUnable),
        ),
        (
            &[lit.clone(), uplink("dot1x-unanswered")],
            30,
            Step::Address,
            failed(Cause::NoAddress),
        ),
        (
            &[leased.clone(), uplink("router-silent")],
            30,
            Step::Router,
            failed(Cause::RouterSilent),
        ),
        (from_ref(&leased), 2, Step::Gateway, Outcome::Waiting),
        (from_ref(&leased), 30, Step::Gateway, failed(Cause::NoPath)),
        (
            &[reached.clone(), found(GatewayFound::Asked)],
            1,
            Step::Gateway,
            Outcome::Waiting,
        ),
        (
            &[reached.clone(), found(GatewayFound::Silent)],
            30,
            Step::Gateway,
            failed(Cause::GatewaySilent),
        ),
        (
            &[reached.clone(), found(GatewayFound::Unreachable)],
            30,
            Step::Gateway,
            failed(Cause::GatewayUnreachable),
        ),
        (
            &[reached.clone(), found(GatewayFound::Unproven)],
            30,
            Step::Handshake,
            failed(Cause::GatewayUnproven),
        ),
        (
            &[reached, found(GatewayFound::Answered), closed()],
            30,
            Step::Handshake,
            Outcome::Waiting,
        ),
    ];
    for (reports, now, step, outcome) in cases {
        assert_eq!(culprit(reports, now), Some((step, outcome)), "{reports:?}");
    }
}

#[test]
fn a_page_that_is_in_the_way_is_named_and_a_silent_gateway_is_none() {
    let (portal, silent) = (uplink("captive-portal"), found(GatewayFound::Silent));
    let unproven = found(GatewayFound::Unproven);
    let cases: [(&[Report], Step, Cause); 5] = [
        (&[portal, silent.clone()], Step::Gateway, Cause::Portal),
        (
            &[stranger(), silent.clone()],
            Step::Gateway,
            Cause::PortalLikely,
        ),
        (
            &[stranger(), unproven],
            Step::Handshake,
            Cause::PortalLikely,
        ),
        (from_ref(&silent), Step::Gateway, Cause::GatewaySilent),
        // Another lease, another network.
        (
            &[
                stranger(),
                uplink("lease-lost"),
                uplink("leased"),
                silent.clone(),
            ],
            Step::Gateway,
            Cause::GatewaySilent,
        ),
    ];
    for (reports, step, cause) in cases {
        let all = [&[uplink("leased"), uplink("router")], reports].concat();
        assert_eq!(culprit(&all, 30), Some((step, failed(cause))), "{all:?}");
    }
}

#[test]
fn where_there_is_no_cable_the_sim_says_why() {
    let modem = |found| Report::Modem {
        found,
        operator: String::new(),
        signal: None,
    };
    for (state, cause) in [
        (ModemFound::Unasked, Cause::ModemAbsent),
        (ModemFound::NoModem, Cause::ModemAbsent),
        (ModemFound::SimMissing, Cause::SimMissing),
        (ModemFound::SimLocked, Cause::SimLocked),
        (ModemFound::Searching, Cause::NoMobileNetwork),
        (ModemFound::WrongNetwork, Cause::WrongMobileNetwork),
        (ModemFound::Roaming, Cause::SimRoaming),
        (ModemFound::Refused, Cause::SimRefused),
        (ModemFound::Unusable, Cause::SimUnusable),
        // It is connected, says the modem, and its interface has no carrier all the same.
        (ModemFound::Connected, Cause::NoCarrier),
    ] {
        assert_eq!(
            culprit(&[modem(state)], 300),
            Some((Step::Carrier, failed(cause))),
            "{state:?}"
        );
    }
    for state in [
        ModemFound::Starting,
        ModemFound::Searching,
        ModemFound::Connecting,
    ] {
        assert_eq!(
            culprit(&[modem(state)], 5),
            Some((Step::Carrier, Outcome::Waiting)),
            "{state:?}"
        );
    }
    // A cable that has come further is what is looked at.
    let way = [modem(ModemFound::WrongNetwork), uplink("carrier")];
    assert_eq!(
        culprit(&way, 30),
        Some((Step::Address, failed(Cause::NoAddress)))
    );
}

#[test]
fn behind_the_tunnel_the_work_os_is_looked_at() {
    let up = |facts: &[WorkFound]| {
        let mut reports = vec![uplink("leased"), tunnelled()];
        reports.extend(facts.iter().map(|fact| Report::Work { found: *fact }));
        reports
    };
    assert_eq!(
        culprit(&up(&[]), 30),
        Some((Step::WorkAddress, Outcome::Waiting))
    );
    assert_eq!(
        culprit(&up(&[]), 300),
        Some((Step::WorkAddress, failed(Cause::NoWorkAddress)))
    );
    assert_eq!(
        culprit(&up(&[WorkFound::Address, WorkFound::NameSilent]), 30),
        Some((Step::Names, failed(Cause::NamesSilent)))
    );
    let page = [
        WorkFound::Address,
        WorkFound::NameAnswered,
        WorkFound::ServerSilent,
    ];
    assert_eq!(
        culprit(&up(&page), 30),
        Some((Step::Page, failed(Cause::ServersSilent)))
    );
    assert_eq!(culprit(&up(&[WorkFound::Address]), 30), None);
}

#[test]
fn a_gate_that_does_not_serve_comes_first() {
    let mut ledger = running();
    ledger.ended("gate", "exit status: 1", at(1));
    let checks = diagnose(&ledger.status(at(2)));
    assert_eq!(checks[0].outcome, failed(Cause::GateDown));
}

#[derive(Debug, Clone)]
enum Happens {
    Report(&'static str, Report),
    Started(&'static str),
    Ended(&'static str),
    Time(u64),
}

fn steps() -> impl Strategy<Value = Happens> {
    let events = [
        "carrier",
        "no-carrier",
        "leased",
        "lease-lost",
        "router",
        "router-silent",
    ];
    let all_found = [
        GatewayFound::Asked,
        GatewayFound::Silent,
        GatewayFound::Unreachable,
        GatewayFound::Unproven,
        GatewayFound::Answered,
    ];
    let works = [
        WorkFound::Address,
        WorkFound::NameAnswered,
        WorkFound::NameSilent,
        WorkFound::ServerAnswered,
        WorkFound::ServerSilent,
    ];
    prop_oneof![
        prop::sample::select(events.to_vec()).prop_map(|e| Happens::Report("uplink", uplink(e))),
        prop::sample::select(all_found.to_vec()).prop_map(|f| Happens::Report("gate", found(f))),
        prop::sample::select(works.to_vec())
            .prop_map(|w| Happens::Report("gate", Report::Work { found: w })),
        prop::sample::select(vec![closed(), tunnelled(), direct(), Report::Ready])
            .prop_map(|r| Happens::Report("gate", r)),
        prop::sample::select(PROCESSES.to_vec()).prop_map(Happens::Started),
        prop::sample::select(PROCESSES.to_vec()).prop_map(Happens::Ended),
        (0u64..60).prop_map(Happens::Time),
    ]
}

proptest! {
    /// Whatever was reported: the list is whole and in order; a laptop without a way out has a
    /// culprit in its chain, and behind the culprit nothing of the chain is claimed; one with a way
    /// out has none.
    #[test]
    fn there_is_one_culprit_and_only_without_a_way_out(
        story in proptest::collection::vec(steps(), 0..60),
    ) {
        let mut ledger = running();
        let mut now = 0;
        for step in story {
            match step {
                Happens::Report(from, report) => ledger.reported(from, &report, at(now)),
                Happens::Started(process) => ledger.started(process, at(now)),
                Happens::Ended(process) => ledger.ended(process, "killed", at(now)),
                Happens::Time(seconds) => now += seconds,
            }
        }
        let status = ledger.status(at(now));
        let checks = diagnose(&status);
        let order: Vec<Step> = checks.iter().map(|check| check.step).collect();
        prop_assert_eq!(order, Step::ALL.to_vec());
        let chain = &checks[..6];
        let open = |check: &&Check| {
            matches!(check.outcome, Outcome::Failed { .. } | Outcome::Waiting)
        };
        let culprits = chain.iter().filter(open).count();
        let served = checks[0].outcome == Outcome::Passed;
        match status.situation.situation {
            Situation::Tunnelled { .. } | Situation::Direct { .. } if served => prop_assert_eq!(culprits, 0),
            _ => prop_assert_eq!(culprits, 1),
        }
        if let Some(culprit) = chain.iter().position(|check| open(&check)) {
            prop_assert!(chain[culprit + 1..]
                .iter()
                .all(|check| check.outcome == Outcome::Unknown));
        }
        // It goes over the wire and back.
        let bytes = serde_json::to_vec(&checks).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Vec<Check>>(&bytes).unwrap(), checks);
        let bytes = serde_json::to_vec(&status).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Status>(&bytes).unwrap(), status);
    }
}
