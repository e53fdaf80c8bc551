//! Why is it not connected? A checked list from the laptop's own parts to the page, derived from
//! what the processes have reported. Nothing is sent anywhere for it.
//!
//! The way out is a chain: the first link that does not hold is the one to mend, and what comes
//! after it is not known. While the tunnel is up, the chain holds, whatever was reported earlier.

use sekisho_control::GatewayFound;
use serde::{Deserialize, Serialize};

use crate::status::{Answers, Process, ProcessState, Situation, Status, Uplink, UplinkState};

/// One thing that must hold, in the order in which each needs the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The laptop's own processes serve.
    Parts,
    /// Somebody is at the other end of the cable.
    Carrier,
    /// The network gave an address.
    Address,
    /// The network's router answers.
    Router,
    /// Something comes back from the gateway's address.
    Gateway,
    /// It has proven to be the gateway, and knows this laptop.
    Handshake,
    /// The work OS uses its address.
    WorkAddress,
    /// A resolver of the closed network answers it.
    Names,
    /// A server of the closed network answers it.
    Page,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Parts,
        Self::Carrier,
        Self::Address,
        Self::Router,
        Self::Gateway,
        Self::Handshake,
        Self::WorkAddress,
        Self::Names,
        Self::Page,
    ];
}

/// Why a step does not hold; for each there is a remedy in one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The gate does not serve: no valid policy, or a fault.
    GateDown,
    /// The uplink does not serve.
    UplinkDown,
    /// There is no network card.
    NoPort,
    /// No cable, or nobody at its other end.
    NoCarrier,
    /// Nobody gives an address.
    NoAddress,
    /// The router does not answer.
    RouterSilent,
    /// Over this network, policy names no gateway, or no socket could be made to it.
    NoPath,
    /// Nothing comes back from the gateway.
    GatewaySilent,
    /// The network says that the gateway cannot be reached.
    GatewayUnreachable,
    /// What comes back does not prove to be the gateway.
    GatewayUnproven,
    /// The work OS does not run.
    WorkDown,
    /// The work OS does not use its address.
    NoWorkAddress,
    /// No resolver answers.
    NamesSilent,
    /// No server answers.
    ServersSilent,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It is under way, and has not taken too long yet.
    Waiting,
    /// It does not hold.
    Failed {
        /// Why.
        cause: Cause,
    },
    /// Nothing is known of it: it was not reached, or nobody tried.
    Unknown,
}

/// A step and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    /// The step.
    pub step: Step,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A process that was started needs a moment before it serves.
const STARTS_WITHIN: u64 = 5_000;
/// A DHCP server that lives answers within this time; our client has then asked four times.
const ADDRESS_WITHIN: u64 = 10_000;
/// The gate asks at once when there is an address.
const ASKED_WITHIN: u64 = 5_000;
/// A work OS boots and asks for its address in this time.
const WORK_WITHIN: u64 = 120_000;

/// The checked list, one check for each of [`Step::ALL`] in that order.
pub fn diagnose(status: &Status) -> Vec<Check> {
    let open = status.situation.situation.is_open();
    let direct = matches!(status.situation.situation, Situation::Direct { .. });
    let way = Way::best(status);
    let mut holds = true;
    Step::ALL
        .into_iter()
        .map(|step| {
            let outcome = match step {
                Step::WorkAddress => work_address(status),
                Step::Names if open => answers(status.work.names, Cause::NamesSilent),
                Step::Page if open => answers(status.work.servers, Cause::ServersSilent),
                Step::Names | Step::Page => Outcome::Unknown,
                _ if !holds => Outcome::Unknown,
                Step::Parts => parts(status),
                // On the office LAN itself no gateway is in the way.
                Step::Gateway | Step::Handshake if direct => Outcome::Unknown,
                _ if open => Outcome::Passed,
                Step::Carrier => way.carrier(),
                Step::Address => way.address(),
                Step::Router => way.router(),
                Step::Gateway => way.gateway(),
                Step::Handshake => way.handshake(),
            };
            holds &= !matches!(outcome, Outcome::Failed { .. } | Outcome::Waiting);
            Check { step, outcome }
        })
        .collect()
}

const fn failed(cause: Cause) -> Outcome {
    Outcome::Failed { cause }
}

fn process<'s>(status: &'s Status, name: &str) -> Option<&'s Process> {
    status.processes.iter().find(|process| process.name == name)
}

fn parts(status: &Status) -> Outcome {
    let one = |name, cause| match process(status, name) {
        Some(process) if process.state == ProcessState::Serving => Outcome::Passed,
        Some(process)
            if process.state == ProcessState::Starting && process.age_ms < STARTS_WITHIN =>
        {
            Outcome::Waiting
        }
        _ => failed(cause),
    };
    match one("gate", Cause::GateDown) {
        Outcome::Passed => one("uplink", Cause::UplinkDown),
        other => other,
    }
}

fn work_address(status: &Status) -> Outcome {
    if status.work.address {
        return Outcome::Passed;
    }
    match process(status, "vmm") {
        None => failed(Cause::WorkDown),
        Some(vmm) if vmm.state == ProcessState::Ended => failed(Cause::WorkDown),
        // The gate that is to see it may be younger than the work OS.
        Some(vmm) => {
            let gate = process(status, "gate").map_or(0, |gate| gate.age_ms);
            if vmm.age_ms.min(gate) < WORK_WITHIN {
                Outcome::Waiting
            } else {
                failed(Cause::NoWorkAddress)
            }
        }
    }
}

const fn answers(answers: Answers, silent: Cause) -> Outcome {
    match answers {
        Answers::Answered => Outcome::Passed,
        Answers::Silent => failed(silent),
        Answers::Unknown => Outcome::Unknown,
    }
}

/// The network card that has come furthest, and the most that was found at a gateway over it.
struct Way<'s> {
    uplink: Option<&'s Uplink>,
    found: Option<GatewayFound>,
}

impl<'s> Way<'s> {
    fn best(status: &'s Status) -> Self {
        let all = status.uplinks.iter().map(|uplink| {
            let over = status.gateways.iter().filter(|row| row.port == uplink.port);
            let found = over.map(|row| row.found).max_by_key(|found| hope(*found));
            (uplink, found)
        });
        let best = all.max_by_key(|(uplink, found)| (uplink.state, found.map(hope)));
        Self {
            uplink: best.map(|(uplink, _)| uplink),
            found: best.and_then(|(_, found)| found),
        }
    }

    fn carrier(&self) -> Outcome {
        match self.uplink {
            None => failed(Cause::NoPort),
            Some(uplink) if uplink.state == UplinkState::NoCarrier => failed(Cause::NoCarrier),
            Some(_) => Outcome::Passed,
        }
    }

    fn address(&self) -> Outcome {
        match self.uplink {
            Some(uplink) if uplink.state == UplinkState::Carrier => {
                if uplink.age_ms < ADDRESS_WITHIN {
                    Outcome::Waiting
                } else {
                    failed(Cause::NoAddress)
                }
            }
            _ => Outcome::Passed,
        }
    }

    fn router(&self) -> Outcome {
        let state = self.uplink.map(|uplink| uplink.state);
        match (state, self.found) {
            // What came back came through it.
            (Some(UplinkState::Reached), _)
            | (_, Some(GatewayFound::Unproven | GatewayFound::Answered)) => Outcome::Passed,
            (Some(UplinkState::RouterSilent), _) => failed(Cause::RouterSilent),
            // The kernel asks it only when there is something to send.
            _ => Outcome::Unknown,
        }
    }

    fn gateway(&self) -> Outcome {
        let fresh = self
            .uplink
            .is_some_and(|uplink| uplink.age_ms < ASKED_WITHIN);
        match self.found {
            None if fresh => Outcome::Waiting,
            None => failed(Cause::NoPath),
            Some(GatewayFound::Asked) => Outcome::Waiting,
            Some(GatewayFound::Silent) => failed(Cause::GatewaySilent),
            Some(GatewayFound::Unreachable) => failed(Cause::GatewayUnreachable),
            Some(GatewayFound::Unproven | GatewayFound::Answered) => Outcome::Passed,
        }
    }

    fn handshake(&self) -> Outcome {
        match self.found {
            Some(GatewayFound::Unproven) => failed(Cause::GatewayUnproven),
            // It answered, and the gate has not opened yet or just closed.
            _ => Outcome::Waiting,
        }
    }
}

/// Of several gateways the one is of interest that is nearest to working.
const fn hope(found: GatewayFound) -> u8 {
    match found {
        GatewayFound::Silent => 0,
        GatewayFound::Unreachable => 1,
        GatewayFound::Asked => 2,
        GatewayFound::Unproven => 3,
        GatewayFound::Answered => 4,
    }
}

#[cfg(test)]
mod tests;
