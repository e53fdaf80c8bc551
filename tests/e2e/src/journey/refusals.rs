//! What the work OS tries and must not reach, each with the rule that refused it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use sekisho_control::Report;
use sekisho_lab::address as at;

use super::arrival::resolver;
use super::{Journey, StepError, StepResult, millis};
use crate::probe::Outcome;

/// How long a command in the work OS may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How long the gate may take to tell what it refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// Tries something that must not work, and finds the rule that refused it.
pub(super) fn refused(
    journey: &Journey,
    rules: &[&str],
    packet: &str,
    attempt: impl Fn(&Journey) -> Result<Outcome, StepError>,
) -> StepResult {
    let mark = journey.events()?.mark();
    let started = Instant::now();
    let outcome = attempt(journey)?;
    if outcome.reached() {
        return Err(StepError::Broken(format!(
            "{packet} was reached: {outcome:?}"
        )));
    }
    let told = millis(started.elapsed());
    let what = format!("a refusal of {packet} by {}", rules.join(" or "));
    let (_, report) = journey
        .events()?
        .wait(mark, &what, REFUSAL_LIMIT, |report| {
            matches!(report, Report::Refused(refusal)
            if rules.contains(&refusal.rule.as_str()) && refusal.packet.contains(packet))
        })?;
    let rule = match report {
        Report::Refused(refusal) => refusal.rule,
        _ => String::new(),
    };
    Ok(format!("{packet} by {rule} in {told} ms"))
}

pub(super) fn no_my_number(journey: &mut Journey) -> StepResult {
    let target = SocketAddr::from((at::MY_NUMBER, 443));
    refused(journey, &["forbidden"], &target.to_string(), |journey| {
        journey.connect(target)
    })
}

const DEFAULT: &[&str] = &["default-deny"];

pub(super) fn no_public_dns(journey: &mut Journey) -> StepResult {
    let ask = SocketAddr::from((at::DECOY_DNS, 53));
    let mut found = vec![refused(journey, DEFAULT, &ask.to_string(), |journey| {
        journey.lookup(ask, &format!("{}.example", journey.canary.hex()))
    })?];
    for port in [53, 853, 443] {
        let target = SocketAddr::from((at::DECOY_DNS, port));
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    Ok(found.join("; "))
}

pub(super) fn no_foreign_names(journey: &mut Journey) -> StepResult {
    let name = format!("{}.public.example", journey.canary.hex());
    match journey.lookup(resolver(), &name)? {
        Outcome::Answered { detail } if detail.starts_with("REFUSED") => {
            Ok("the gate's resolver says REFUSED".to_owned())
        }
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

pub(super) fn no_public_ping(journey: &mut Journey) -> StepResult {
    let target = at::DECOY_DNS;
    refused(journey, DEFAULT, &target.to_string(), |journey| {
        journey.ping(target.into())
    })
}

pub(super) fn no_public_web(journey: &mut Journey) -> StepResult {
    let mut found = Vec::new();
    for target in [
        (at::DECOY_WEB, 80),
        (at::DECOY_WEB, 443),
        (Ipv4Addr::new(192, 0, 2, 77), 443),
    ] {
        let target = SocketAddr::from(target);
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    let quic = SocketAddr::from((at::DECOY_WEB, 443));
    found.push(refused(journey, DEFAULT, &quic.to_string(), |journey| {
        journey.datagram(quic)
    })?);
    Ok(found.join("; "))
}

pub(super) fn no_cafe_lan(journey: &mut Journey) -> StepResult {
    let mut found = Vec::new();
    for target in [
        (at::CAFE_ROUTER, 53),
        (at::CAFE_ROUTER, 80),
        (at::ATTACKER, 445),
    ] {
        let target = SocketAddr::from(target);
        found.push(refused(journey, DEFAULT, &target.to_string(), |journey| {
            journey.connect(target)
        })?);
    }
    Ok(found.join("; "))
}

pub(super) fn no_ipv6(journey: &mut Journey) -> StepResult {
    // An address and a route of its own making: the work OS may believe what it likes.
    let setup =
        "ip -6 addr add 2001:db8:7::23/64 dev eth0 nodad; ip -6 route add default dev eth0; true";
    journey.guest()?.run(&["sh", "-c", setup], COMMAND_LIMIT)?;
    let target = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);
    let outcome = journey.ping(IpAddr::V6(target))?;
    let outcome_tcp = journey.connect(SocketAddr::from((target, 443)))?;
    if outcome.reached() || outcome_tcp.reached() {
        return Err(StepError::Broken(format!("{outcome:?} {outcome_tcp:?}")));
    }
    let events = journey.events()?;
    let (_, report) = events.wait(
        0,
        "a refusal by the rule ipv6",
        REFUSAL_LIMIT,
        |report| matches!(report, Report::Refused(refusal) if refusal.rule == "ipv6"),
    )?;
    match report {
        Report::Refused(refusal) => Ok(format!("{} by {}", refusal.packet, refusal.rule)),
        _ => Ok(String::new()),
    }
}

pub(super) fn no_other_nic(journey: &mut Journey) -> StepResult {
    let output = journey
        .guest()?
        .run(&["ls", "/sys/class/net"], COMMAND_LIMIT)?;
    let text = output.text();
    let mut names: Vec<&str> = text.split_whitespace().collect();
    names.sort_unstable();
    if names == ["eth0", "lo"] {
        Ok("lo and eth0 are all there is".to_owned())
    } else {
        Err(StepError::Broken(format!("the work OS sees {names:?}")))
    }
}
