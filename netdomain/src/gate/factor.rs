//! The second factor: what the supervisor is told of it, and the way of an answer from there to the
//! engine that asked.

use std::time::Duration;

use sekisho_control::{ChannelError, Demand, DemandId, GateToEngine, PathId, Report, Secret};

use super::engine::Gate;
use super::situation::{Demanded, Event};
use crate::moment::Moment;

/// The answer that is being handed over, and what the supervisor knows.
#[derive(Debug, Default)]
pub(super) struct Answering {
    /// Only while its event happens; erased after it, whether it was wanted or not.
    answer: Option<Secret>,
    told: Option<Demanded>,
}

impl Gate {
    /// The person answered an asking. The answer goes to the engine that asked, or nowhere.
    pub(super) fn answer(&mut self, demand: DemandId, answer: Secret, now: Moment) {
        self.answering.answer = Some(answer);
        self.happen(Event::Answered(demand), now);
        if self.answering.answer.take().is_some() {
            tracing::info!("an answer that nobody waits for");
        }
    }

    /// Hands the answer over.
    pub(super) fn hand_over(&mut self, path: PathId) {
        let Some(answer) = self.answering.answer.take() else {
            return;
        };
        if !self.tell_engaged(path, |attempt| GateToEngine::Answer { attempt, answer }) {
            self.events.push_back(Event::EngineDown(path));
        }
    }

    /// Tells the supervisor what is demanded of the person, if it does not know it yet.
    pub(super) fn tell_demand(&mut self, now: Moment) {
        let demanded = self.machine.demanded();
        if demanded == self.answering.told {
            return;
        }
        let demand = demanded.map(|demanded| self.describe_demand(&demanded, now));
        match self.control.send(&Report::Demand { demand }, &[]) {
            Ok(()) => self.answering.told = demanded,
            Err(ChannelError::Full) => {}
            Err(error) => {
                tracing::info!("the supervisor is gone: {error}");
                self.ended = true;
            }
        }
    }

    fn describe_demand(&self, demanded: &Demanded, now: Moment) -> Demand {
        let gateway = self.plan.gateways.get(usize::from(demanded.gateway.0));
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Demand {
            id: demanded.id,
            gateway: gateway
                .map(|gateway| gateway.name.clone())
                .unwrap_or_default(),
            factor: demanded.factor,
            stage: demanded.stage,
            ends_ms: demanded.until.map(|until| millis(until.since(now))),
            tries: demanded.tries,
        }
    }
}
