use proptest::prelude::*;
use sekisho_control::{Place, QuotaState};

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn uplink(event: &str) -> Report {
    Report::Uplink {
        port: "eth0".into(),
        kind: UplinkKind::Wired,
        event: event.into(),
    }
}

fn tunnelled() -> Report {
    Report::Situation(SituationReport::Tunnelled {
        gateway: "honcho-1".into(),
        port: "eth0".into(),
        side: Side::Outside,
        place: Place::Remote,
    })
}

fn refused(rule: &str, count: u64) -> Report {
    Report::Refused(Refused {
        rule: rule.into(),
        packet: "tcp 10.99.0.1:443".into(),
        count,
    })
}

#[test]
fn counts_by_rule_and_keeps_the_last_packet() {
    let mut ledger = Ledger::new("0", at(0));
    ledger.reported("gate", &refused("forbidden", 1), at(1));
    ledger.reported("gate", &refused("ipv6", 5), at(2));
    ledger.reported("gate", &refused("forbidden", 41), at(3));
    let status = ledger.status(at(10));
    let table: Vec<_> = status
        .refusals
        .iter()
        .map(|row| (row.rule.as_str(), row.count, row.age_ms))
        .collect();
    assert_eq!(table, [("forbidden", 42, 7000), ("ipv6", 5, 8000)]);
}

#[test]
fn a_dead_process_takes_its_words_along() {
    let mut ledger = Ledger::new("0", at(0));
    for process in ["vmm", "gate", "uplink"] {
        ledger.started(process, at(0));
        ledger.reported(process, &Report::Ready, at(1));
    }
    ledger.reported("uplink", &uplink("leased"), at(2));
    ledger.reported("gate", &tunnelled(), at(3));
    ledger.reported(
        "gate",
        &Report::Work {
            found: WorkFound::NameAnswered,
        },
        at(4),
    );
    ledger.ended("gate", "signal: 9 (SIGKILL)", at(5));
    let status = ledger.status(at(6));
    assert_eq!(status.situation.situation, Situation::Unknown);
    assert_eq!(status.situation.age_ms, 1000);
    assert_eq!(status.work.names, Answers::Unknown);
    assert_eq!(status.uplinks[0].state, UplinkState::Leased);
    assert_eq!(status.processes[1].state, ProcessState::Ended);
    ledger.started("gate", at(7));
    let gate = &ledger.status(at(7)).processes[1];
    assert_eq!((gate.restarts, gate.state), (1, ProcessState::Starting));
    assert_eq!(gate.last_end.as_deref(), Some("signal: 9 (SIGKILL)"));
    ledger.ended("uplink", "exit status: 1", at(8));
    assert_eq!(
        ledger.status(at(8)).uplinks[0].state,
        UplinkState::NoCarrier
    );
}

#[test]
fn what_came_of_802_1x_is_told_while_its_carrier_lasts() {
    let mut ledger = Ledger::new("0", at(0));
    for event in ["carrier", "dot1x-authenticated", "leased", "lease-lost"] {
        ledger.reported("uplink", &uplink(event), at(1));
    }
    let told = |ledger: &Ledger| ledger.status(at(2)).uplinks[0].dot1x;
    assert_eq!(told(&ledger), Some(Dot1x::Authenticated));
    ledger.reported("uplink", &uplink("no-carrier"), at(2));
    assert_eq!(told(&ledger), None);
    ledger.reported("uplink", &uplink("dot1x-refused"), at(2));
    ledger.ended("uplink", "exit status: 1", at(3));
    assert_eq!(told(&ledger), None);
}

#[test]
fn a_portal_is_told_while_its_lease_lasts_and_the_quota_as_it_was_last() {
    let mut ledger = Ledger::new("0", at(0));
    for event in ["leased", "captive-portal", "router"] {
        ledger.reported("uplink", &uplink(event), at(1));
    }
    assert!(ledger.status(at(1)).uplinks[0].portal);
    ledger.reported("uplink", &uplink("lease-lost"), at(2));
    ledger.reported("uplink", &uplink("leased"), at(3));
    assert!(!ledger.status(at(3)).uplinks[0].portal);
    // Most say nothing; they answer in place of the office.
    let port = ledger.status(at(3)).uplinks[0].port.clone();
    assert!(!ledger.wants_page());
    ledger.reported("gate", &Report::Stranger { port }, at(3));
    ledger.reported(
        "gate",
        &Report::Stranger {
            port: "eth9".into(),
        },
        at(3),
    );
    assert!(ledger.status(at(3)).uplinks[0].stranger && ledger.wants_page());
    assert_eq!(ledger.status(at(3)).uplinks.len(), 1);
    ledger.reported("uplink", &uplink("no-carrier"), at(3));
    assert!(!ledger.status(at(3)).uplinks[0].stranger);
    // Who let a gateway through has no page, whoever answered before.
    let port = ledger.status(at(3)).uplinks[0].port.clone();
    ledger.reported("uplink", &uplink("leased"), at(3));
    ledger.reported("gate", &Report::Stranger { port: port.clone() }, at(3));
    assert!(ledger.wants_page());
    let tunnelled = SituationReport::Tunnelled {
        gateway: "honcho-1".into(),
        port,
        side: Side::Outside,
        place: Place::Remote,
    };
    ledger.reported("gate", &Report::Situation(tunnelled), at(3));
    let reason = String::new();
    let closed = SituationReport::Closed { reason };
    ledger.reported("gate", &Report::Situation(closed), at(4));
    assert!(!ledger.wants_page());

    assert_eq!(ledger.status(at(3)).quota, None);
    for (used, state) in [(10, QuotaState::Within), (99, QuotaState::Warned)] {
        let report = Report::Quota {
            used,
            monthly: 100,
            percent: 0,
            state,
        };
        ledger.reported("uplink", &report, at(4));
        let quota = ledger.status(at(4)).quota.unwrap();
        assert_eq!((quota.used, quota.monthly, quota.state), (used, 100, state));
    }
}

#[test]
fn another_lease_forgets_what_was_found_with_the_last() {
    let mut ledger = Ledger::new("0", at(0));
    let found = Report::Gateway {
        gateway: "honcho-1".into(),
        port: "eth0".into(),
        side: Side::Outside,
        found: GatewayFound::Answered,
    };
    ledger.reported("uplink", &uplink("leased"), at(1));
    ledger.reported("gate", &found, at(2));
    ledger.reported("uplink", &uplink("router"), at(3));
    assert_eq!(ledger.status(at(3)).gateways.len(), 1);
    ledger.reported("uplink", &uplink("leased"), at(4));
    assert_eq!(ledger.status(at(4)).gateways, []);
}

#[test]
fn a_silent_agent_is_heard_again() {
    let mut ledger = Ledger::new("0", at(0));
    let say = |ledger: &mut Ledger, event: &str, now| {
        let (event, detail) = (event.to_owned(), String::new());
        ledger.reported("guest", &Report::Guest { event, detail }, at(now));
        ledger.status(at(now)).work.agent.map(|agent| agent.silent)
    };
    assert_eq!(say(&mut ledger, "malformed", 1), None);
    assert_eq!(say(&mut ledger, "hello", 2), Some(false));
    assert_eq!(say(&mut ledger, "silent", 40), Some(true));
    assert_eq!(say(&mut ledger, "heartbeat", 41), Some(false));
}

proptest! {
    /// Whatever a process says, no refusal is lost, and everything fits into one bounded reply.
    #[test]
    fn nothing_is_lost_and_everything_is_bounded(
        rules in proptest::collection::vec(("\\PC{0,200}", 0u64..1000), 0..300),
        ports in proptest::collection::vec("\\PC{0,200}", 0..60),
    ) {
        let mut ledger = Ledger::new("0", at(0));
        let mut sum = 0;
        for (rule, count) in &rules {
            sum += count;
            ledger.reported("gate", &refused(rule, *count), at(1));
        }
        for port in &ports {
            ledger.moved(port, at(1));
            ledger.reported("gate", &Report::Gateway {
                gateway: port.clone(),
                port: port.clone(),
                side: Side::Lan,
                found: GatewayFound::Asked,
            }, at(1));
        }
        let status = ledger.status(at(2));
        let told: u64 = status.refusals.iter().map(|row| row.count).sum();
        prop_assert_eq!(told + status.refused_by_others, sum);
        let bytes = serde_json::to_vec(&status).unwrap();
        prop_assert!(bytes.len() < sekisho_varlink::MAX_OUTPUT);
    }
}
