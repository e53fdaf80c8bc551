//! Which ports have proven to be in the office, and until when.

use std::time::Duration;

use crate::moment::Moment;

/// Ports with a proof at one time.
const MAX_PROOFS: usize = 8;
/// A proof outlives its renewal time by as much as one renewal may take.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Proof {
    port: String,
    until: Moment,
    renew: Moment,
}

/// The proofs that hold.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    held: Vec<Proof>,
}

impl Proofs {
    /// Begins or renews a proof. True if there was none for this port.
    pub(super) fn begin(&mut self, port: &str, now: Moment, recheck: Duration) -> bool {
        let (renew, until) = (now + recheck, now + recheck + GRACE);
        if let Some(proof) = self.held.iter_mut().find(|proof| proof.port == port) {
            proof.renew = renew;
            proof.until = until;
            return false;
        }
        if self.held.len() >= MAX_PROOFS {
            return false;
        }
        self.held.push(Proof {
            port: port.to_owned(),
            until,
            renew,
        });
        true
    }

    /// Ends a proof. True if there was one.
    pub(super) fn end(&mut self, port: &str) -> bool {
        let before = self.held.len();
        self.held.retain(|proof| proof.port != port);
        self.held.len() < before
    }

    pub(super) fn clear(&mut self) -> Vec<String> {
        self.held.drain(..).map(|proof| proof.port).collect()
    }

    /// Whether the port is proven at this time.
    pub(super) fn hold(&self, port: &str, now: Moment) -> bool {
        self.held
            .iter()
            .any(|proof| proof.port == port && now < proof.until)
    }

    /// Removes the proofs that were not renewed in time.
    pub(super) fn expire(&mut self, now: Moment) -> Vec<String> {
        let mut ended = Vec::new();
        self.held.retain(|proof| {
            let holds = now < proof.until;
            if !holds {
                ended.push(proof.port.clone());
            }
            holds
        });
        ended
    }

    /// The ports whose proof is to be renewed now.
    pub(super) fn due(&mut self, now: Moment, recheck: Duration) -> Vec<String> {
        let mut due = Vec::new();
        for proof in &mut self.held {
            if now >= proof.renew {
                proof.renew = now + recheck;
                due.push(proof.port.clone());
            }
        }
        due
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.held
            .iter()
            .map(|proof| proof.renew.min(proof.until))
            .min()
    }
}
