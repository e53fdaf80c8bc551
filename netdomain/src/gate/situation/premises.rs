//! Which ports have proven to be in the office, and until when; and when the beacon is asked again.

use std::time::Duration;

use crate::moment::Moment;

/// Ports that are watched at one time.
const MAX_PORTS: usize = 8;
/// A proof outlives its renewal time by as much as one renewal may take.
const GRACE: Duration = Duration::from_secs(10);
/// Where no beacon answers the pauses between questions double up to this, give or take the jitter.
/// It is how long a laptop that stands in the office does not notice that the beacon is back: short
/// enough for a person, and a cable or a lease that changes asks at once.
const LONGEST: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Proof {
    port: String,
    /// `None`: asked for and not given.
    until: Option<Moment>,
    /// When the beacon is to be asked (again).
    ask: Moment,
    /// Questions since the last proof that brought none.
    failures: u32,
    /// A question is under way.
    asked: bool,
}

/// The proofs that hold, and the ports that are asked again.
#[derive(Debug)]
pub(super) struct Proofs {
    ports: Vec<Proof>,
    recheck: Duration,
    jitter: u64,
}

impl Proofs {
    /// None yet. While a proof holds it is renewed after `recheck`. `seed` keeps many laptops from
    /// asking in step.
    pub(super) fn new(recheck: Duration, seed: u64) -> Self {
        Self {
            ports: Vec::new(),
            recheck,
            jitter: seed,
        }
    }

    /// Begins or renews a proof. True if there was none for this port.
    pub(super) fn begin(&mut self, port: &str, now: Moment) -> bool {
        let recheck = self.recheck;
        let Some(proof) = self.entry(port) else {
            return false;
        };
        let fresh = proof.until.is_none();
        proof.failures = 0;
        proof.asked = false;
        proof.ask = now + recheck;
        proof.until = Some(now + recheck + GRACE);
        fresh
    }

    /// The port failed to prove itself: a proof that held ends, and the beacon is asked again
    /// later, and later each time. True if there was a proof.
    pub(super) fn fail(&mut self, port: &str, now: Moment) -> bool {
        let jitter = self.next_jitter();
        let recheck = self.recheck;
        let Some(proof) = self.entry(port) else {
            return false;
        };
        proof.asked = false;
        proof.failed(now, recheck, jitter);
        proof.until.take().is_some()
    }

    /// Whether the last question over this port brought no proof.
    pub(super) fn failed(&self, port: &str) -> bool {
        self.ports
            .iter()
            .any(|proof| proof.port == port && proof.failures > 0)
    }

    /// Forgets the port: it has no carrier, or another lease.
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
            proof.asked = false;
            proof.failures = 0;
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
    pub(super) fn due(&mut self, now: Moment) -> Vec<String> {
        let mut due = Vec::new();
        for at in 0..self.ports.len() {
            if now < self.ports[at].ask {
                continue;
            }
            let (recheck, jitter) = (self.recheck, self.next_jitter());
            let proof = &mut self.ports[at];
            // The uplink got no connection, so nothing of the last question was heard.
            if std::mem::replace(&mut proof.asked, true) {
                proof.failed(now, recheck, jitter);
            } else {
                proof.ask = now + proof.pause(recheck, jitter);
            }
            due.push(proof.port.clone());
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
                    failures: 0,
                    asked: false,
                });
                self.ports.len() - 1
            }
            None => return None,
        };
        self.ports.get_mut(at)
    }

    /// The next of a row of numbers (`SplitMix64`, Steele, Lea and Flood 2014). It need not be
    /// unpredictable, only different on each laptop.
    fn next_jitter(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Proof {
    fn failed(&mut self, now: Moment, recheck: Duration, jitter: u64) {
        self.failures = self.failures.saturating_add(1);
        self.ask = now + self.pause(recheck, jitter);
    }

    /// The pause until the next question: `recheck` while all is well, and after the first failure;
    /// longer after each further one, up to a quarter more by chance.
    fn pause(&self, recheck: Duration, jitter: u64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return recheck;
        };
        let longest = LONGEST.max(recheck);
        let pause = recheck.saturating_mul(1 << doublings.min(16)).min(longest);
        let part = u32::try_from(jitter % 256).unwrap_or(0);
        pause + pause / 4 * part / 256
    }
}
