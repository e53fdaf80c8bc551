//! Which ports have proven to be in the office, and until when.

use std::time::Duration;

use crate::moment::Moment;

/// Ports that are watched at one time.
const MAX_PORTS: usize = 8;
/// A proof outlives its renewal time by as much as one renewal may take.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Proof {
    port: String,
    /// `None`: asked for and not given.
    until: Option<Moment>,
    /// When the beacon is to be asked (again).
    ask: Moment,
}

/// The proofs that hold, and the ports that are asked again.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    ports: Vec<Proof>,
}

impl Proofs {
    /// Begins or renews a proof. True if there was none for this port.
    pub(super) fn begin(&mut self, port: &str, now: Moment, recheck: Duration) -> bool {
        let Some(proof) = self.entry(port) else {
            return false;
        };
        let fresh = proof.until.is_none();
        proof.ask = now + recheck;
        proof.until = Some(now + recheck + GRACE);
        fresh
    }

    /// The port failed to prove itself: a proof that held ends, and the beacon is asked again
    /// later. True if there was a proof.
    pub(super) fn fail(&mut self, port: &str, now: Moment, recheck: Duration) -> bool {
        let Some(proof) = self.entry(port) else {
            return false;
        };
        proof.ask = now + recheck;
        proof.until.take().is_some()
    }

    /// Forgets the port: it has no carrier.
    pub(super) fn forget(&mut self, port: &str) {
        self.ports.retain(|proof| proof.port != port);
    }

    /// Forgets all ports.
    pub(super) fn clear(&mut self) {
        self.ports.clear();
    }

    /// Ends all proofs and asks again at once. Returns the ports that were proven.
    pub(super) fn doubt(&mut self, now: Moment) -> Vec<String> {
        let mut ended = Vec::new();
        for proof in &mut self.ports {
            proof.ask = now;
            if proof.until.take().is_some() {
                ended.push(proof.port.clone());
            }
        }
        ended
    }

    /// Whether the port is proven at this time.
    pub(super) fn hold(&self, port: &str, now: Moment) -> bool {
        self.ports
            .iter()
            .any(|proof| proof.port == port && proof.until.is_some_and(|until| now < until))
    }

    /// Ends the proofs that were not renewed in time.
    pub(super) fn expire(&mut self, now: Moment) -> Vec<String> {
        let mut ended = Vec::new();
        for proof in &mut self.ports {
            if proof.until.is_some_and(|until| now >= until) {
                proof.until = None;
                ended.push(proof.port.clone());
            }
        }
        ended
    }

    /// The ports over which the beacon is to be asked now.
    pub(super) fn due(&mut self, now: Moment, recheck: Duration) -> Vec<String> {
        let mut due = Vec::new();
        for proof in &mut self.ports {
            if now >= proof.ask {
                proof.ask = now + recheck;
                due.push(proof.port.clone());
            }
        }
        due
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.ports
            .iter()
            .map(|proof| proof.until.map_or(proof.ask, |until| until.min(proof.ask)))
            .min()
    }

    fn entry(&mut self, port: &str) -> Option<&mut Proof> {
        let at = match self.ports.iter().position(|proof| proof.port == port) {
            Some(at) => at,
            None if self.ports.len() < MAX_PORTS => {
                self.ports.push(Proof {
                    port: port.to_owned(),
                    until: None,
                    ask: Moment::default(),
                });
                self.ports.len() - 1
            }
            None => return None,
        };
        self.ports.get_mut(at)
    }
}
