//! Why is it not connected? A checked list from the laptop's own parts to the page, derived from
//! what the processes have reported. Nothing is sent anywhere for it.
//!
//! The way out is a chain: the first link that does not hold is the one to mend, and what comes
//! after it is not known. While the tunnel is up, the chain holds, whatever was reported earlier.

use sekisho_control::{DemandStage, Factor, GatewayFound, ModemFound};
use serde::{Deserialize, Serialize};

use crate::status::{
    Answers, Demand, Dot1x, Process, ProcessState, Sim, Situation, Status, Uplink, UplinkState,
};

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
    /// Nobody asks for the SIM's connection, or there is no working modem.
    ModemAbsent,
    /// There is no SIM in the modem.
    SimMissing,
    /// The SIM asks for a code.
    SimLocked,
    /// No mobile network serves the SIM.
    NoMobileNetwork,
    /// One serves it that policy does not name.
    WrongMobileNetwork,
    /// The SIM is outside its own network, which policy does not allow.
    SimRoaming,
    /// The mobile network refuses the connection.
    SimRefused,
    /// The modem connects in a way that is not used.
    SimUnusable,
    /// Nobody gives an address.
    NoAddress,
    /// Nobody gives an address, and 802.1X with the switch failed: it keeps the port shut.
    PortRefused,
    /// Nobody gives an address, and the laptop has no usable certificate for 802.1X.
    PortUnable,
    /// The router does not answer.
    RouterSilent,
    /// Over this network, policy names no gateway, or no socket could be made to it.
    NoPath,
    /// No gateway can be spoken to, and the network says that it has a page to visit first.
    Portal,
    /// No gateway can be spoken to, and the network answers in place of the office, as one with such a
    /// page does.
    PortalLikely,
    /// Nothing comes back from the gateway.
    GatewaySilent,
    /// The network says that the gateway cannot be reached.
    GatewayUnreachable,
    /// What comes back does not prove to be the gateway.
    GatewayUnproven,
    /// The gateway demands a second factor, and nobody has given it.
    FactorWanted,
    /// It did not take the second factor, and will ask anew.
    FactorRefused,
    /// It did not take the second factor too often.
    FactorStopped,
    /// The card that holds the laptop's key is not in its reader.
    CardAbsent,
    /// It did not take the PIN, which will be asked anew.
    PinRefused,
    /// It did not take the PIN too often.
    PinStopped,
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
/// A modem that is switched on finds its network in this time.
const REGISTERED_WITHIN: u64 = 60_000;
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
                Step::Gateway => match &status.demand {
                    // A password is demanded by a gateway that was reached, a PIN by the laptop's own card.
                    Some(demand) if demand.factor == Factor::Otp => Outcome::Passed,
                    Some(_) => Outcome::Unknown,
                    None => way.gateway(),
                },
                Step::Handshake => match &status.demand {
                    Some(demand) => factor(demand),
                    None => way.handshake(),
                },
            };
            holds &= !matches!(outcome, Outcome::Failed { .. } | Outcome::Waiting);
            Check { step, outcome }
        })
        .collect()
}

/// How far the second factor is, on which the gateway's consent waits.
const fn factor(demand: &Demand) -> Outcome {
    match (demand.state, demand.factor) {
        (DemandStage::Asked | DemandStage::Lapsed, _) => failed(Cause::FactorWanted),
        (DemandStage::Judged, _) => Outcome::Waiting,
        (DemandStage::Refused, Factor::Otp) => failed(Cause::FactorRefused),
        (DemandStage::Refused, Factor::Pin) => failed(Cause::PinRefused),
        (DemandStage::Stopped, Factor::Otp) => failed(Cause::FactorStopped),
        (DemandStage::Stopped, Factor::Pin) => failed(Cause::PinStopped),
        (DemandStage::Absent, _) => failed(Cause::CardAbsent),
    }
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
    sim: Option<&'s Sim>,
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
            sim: status.sim.as_ref(),
            found: best.and_then(|(_, found)| found),
        }
    }

    fn carrier(&self) -> Outcome {
        let cause = match self.uplink {
            None => Cause::NoPort,
            Some(uplink) if uplink.state == UplinkState::NoCarrier => Cause::NoCarrier,
            Some(_) => return Outcome::Passed,
        };
        // Where there is no cable, the SIM is what was to carry the tunnel.
        self.sim.map_or(failed(cause), |sim| {
            let fresh = sim.age_ms < REGISTERED_WITHIN;
            match sim_cause(sim.state) {
                Some(Cause::NoMobileNetwork) | None if fresh => Outcome::Waiting,
                why => failed(why.unwrap_or(cause)),
            }
        })
    }

    fn address(&self) -> Outcome {
        match self.uplink {
            Some(uplink) if uplink.state == UplinkState::Carrier => {
                if uplink.age_ms < ADDRESS_WITHIN {
                    Outcome::Waiting
                } else {
                    failed(match uplink.dot1x {
                        Some(Dot1x::Refused) => Cause::PortRefused,
                        Some(Dot1x::Unable) => Cause::PortUnable,
                        _ => Cause::NoAddress,
                    })
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
            Some(GatewayFound::Silent) => failed(self.behind_page(Cause::GatewaySilent)),
            Some(GatewayFound::Unreachable) => failed(self.behind_page(Cause::GatewayUnreachable)),
            Some(GatewayFound::Unproven | GatewayFound::Answered) => Outcome::Passed,
        }
    }

    /// Why a gateway cannot be spoken to, where that may be the network's page.
    fn behind_page(&self, cause: Cause) -> Cause {
        match self.uplink {
            Some(uplink) if uplink.portal => Cause::Portal,
            Some(uplink) if uplink.stranger => Cause::PortalLikely,
            _ => cause,
        }
    }

    fn handshake(&self) -> Outcome {
        match self.found {
            Some(GatewayFound::Unproven) => failed(self.behind_page(Cause::GatewayUnproven)),
            // It answered, and the gate has not opened yet or just closed.
            _ => Outcome::Waiting,
        }
    }
}

/// Why a SIM is not connected, if it is not merely on its way.
const fn sim_cause(state: ModemFound) -> Option<Cause> {
    Some(match state {
        ModemFound::Unasked | ModemFound::Absent | ModemFound::NoModem | ModemFound::Failed => {
            Cause::ModemAbsent
        }
        ModemFound::SimMissing => Cause::SimMissing,
        ModemFound::SimLocked => Cause::SimLocked,
        ModemFound::Searching => Cause::NoMobileNetwork,
        ModemFound::WrongNetwork => Cause::WrongMobileNetwork,
        ModemFound::Roaming => Cause::SimRoaming,
        ModemFound::Refused => Cause::SimRefused,
        ModemFound::Unusable | ModemFound::OtherInterface => Cause::SimUnusable,
        ModemFound::Starting | ModemFound::Connecting | ModemFound::Connected => return None,
    })
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
