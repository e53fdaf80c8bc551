//! Which ports have proven to be in the office, and until when; and when the beacon is asked again.

use std::time::Duration;

use sekisho_control::WireId;

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
    held: Option<Held>,
    /// When the beacon is to be asked (again).
    ask: Moment,
    /// Questions since the last proof that brought none.
    failures: u32,
    /// A question is under way.
    asked: bool,
}

/// A proof that was given. The port's wire is a part of it: there is no wire beside a proof, and it
/// goes with the proof that it was handed over for, whatever comes later.
#[derive(Debug, Clone, Copy)]
struct Held {
    until: Moment,
    wire: Option<WireId>,
}

/// A proof that has ended: its port, and the wire that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) port: String,
    pub(super) wire: Option<WireId>,
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
        let fresh = proof.held.is_none();
        proof.failures = 0;
        proof.asked = false;
        proof.ask = now + recheck;
        proof.held = Some(Held {
            until: now + recheck + GRACE,
            wire: proof.held.and_then(|held| held.wire),
        });
        fresh
    }

    /// Takes the wire of a proven port. False where the proof does not hold, or some proof has a
    /// wire: there is one at a time.
    pub(super) fn attach(&mut self, port: &str, wire: WireId, now: Moment) -> bool {
        if self.has_wire() {
            return false;
        }
        let held = self.holding(port, now);
        held.is_some_and(|held| held.wire.replace(wire).is_none())
    }

    fn has_wire(&self) -> bool {
        let mut held = self.ports.iter().filter_map(|proof| proof.held);
        held.any(|held| held.wire.is_some())
    }

    /// The wire is gone; the proof stays. False where no proof had it.
    pub(super) fn detach(&mut self, wire: WireId) -> bool {
        let mut held = self.ports.iter_mut().filter_map(|p| p.held.as_mut());
        held.any(|held| held.wire.take_if(|has| *has == wire).is_some())
    }

    /// Whether the port is proven and there is no wire.
    pub(super) fn wants_wire(&self, port: &str, now: Moment) -> bool {
        self.hold(port, now) && !self.has_wire()
    }

    /// The wire of a port that is proven at this time.
    pub(super) fn wire(&self, now: Moment) -> Option<WireId> {
        let mut held = self.ports.iter().filter_map(|proof| proof.held);
        held.find_map(|held| held.wire.filter(|_| now < held.until))
    }

    /// The port whose proof has this wire.
    pub(super) fn wire_port(&self, wire: WireId) -> Option<&str> {
        let mut ports = self.ports.iter();
        let of = ports.find(|proof| proof.held.is_some_and(|held| held.wire == Some(wire)))?;
        Some(&of.port)
    }

    fn holding(&mut self, port: &str, now: Moment) -> Option<&mut Held> {
        let proof = self.ports.iter_mut().find(|proof| proof.port == port)?;
        proof.held.as_mut().filter(|held| now < held.until)
    }

    /// The port failed to prove itself: a proof that held ends, and the beacon is asked again
    /// later, and later each time. Gives the proof that there was.
    pub(super) fn fail(&mut self, port: &str, now: Moment) -> Option<Ended> {
        let jitter = self.next_jitter();
        let recheck = self.recheck;
        let proof = self.entry(port)?;
        proof.asked = false;
        proof.failed(now, recheck, jitter);
        proof.end()
    }

    /// Whether the last question over this port brought no proof.
    pub(super) fn failed(&self, port: &str) -> bool {
        self.ports
            .iter()
            .any(|proof| proof.port == port && proof.failures > 0)
    }

    /// Forgets the port: it has no carrier, or another lease. Gives the proof that there was.
    pub(super) fn forget(&mut self, port: &str) -> Option<Ended> {
        let at = self.ports.iter().position(|proof| proof.port == port)?;
        self.ports.swap_remove(at).end()
    }

    /// Forgets all ports. Gives the proofs that there were.
    pub(super) fn clear(&mut self) -> Vec<Ended> {
        self.ports.drain(..).filter_map(|mut p| p.end()).collect()
    }

    /// Ends all proofs and asks again at once. Gives those that there were.
    pub(super) fn doubt(&mut self, now: Moment) -> Vec<Ended> {
        let mut ended = Vec::new();
        for proof in &mut self.ports {
            proof.ask = now;
            proof.asked = false;
            proof.failures = 0;
            ended.extend(proof.end());
        }
        ended
    }

    /// Whether the port is proven at this time.
    pub(super) fn hold(&self, port: &str, now: Moment) -> bool {
        self.ports
            .iter()
            .any(|proof| proof.port == port && proof.held.is_some_and(|held| now < held.until))
    }

    /// Ends the proofs that were not renewed in time.
    pub(super) fn expire(&mut self, now: Moment) -> Vec<Ended> {
        let late = |proof: &&mut Proof| proof.held.is_some_and(|held| now >= held.until);
        self.ports
            .iter_mut()
            .filter(late)
            .filter_map(Proof::end)
            .collect()
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
            .map(|proof| {
                proof
                    .held
                    .map_or(proof.ask, |held| held.until.min(proof.ask))
            })
            .min()
    }

    fn entry(&mut self, port: &str) -> Option<&mut Proof> {
        let at = match self.ports.iter().position(|proof| proof.port == port) {
            Some(at) => at,
            None if self.ports.len() < MAX_PORTS => {
                self.ports.push(Proof {
                    port: port.to_owned(),
                    held: None,
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
    fn end(&mut self) -> Option<Ended> {
        self.held.take().map(|held| Ended {
            port: self.port.clone(),
            wire: held.wire,
        })
    }

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
