//! Ports over which no gateway answers, and when it is asked who answers there instead.
//!
//! A question is a connection and the first words of TLS, to where policy lets connections go; the
//! uplink knows where that is for a port, and where the beacon is asked anyway. While there is a way
//! out nothing is asked.

use std::time::Duration;

use crate::moment::Moment;

/// Ports that are watched at one time.
const MAX_PORTS: usize = 8;
/// So long no gateway has answered before it is asked: three handshakes in vain take half of it.
const FIRST: Duration = Duration::from_secs(3);
/// The pause after the first question, which doubles with each.
const APART: Duration = Duration::from_secs(15);
/// The longest pause, as it is the beacon's: a person who has gone on to another network is told by its
/// carrier, not by this.
const LONGEST: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Knock {
    port: String,
    /// When it is to be asked; none while there is a way out.
    due: Option<Moment>,
    /// Not before this time, whatever happens.
    earliest: Moment,
    /// Questions since there was a way out.
    times: u32,
}

/// The ports, and when each is asked about.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    ports: Vec<Knock>,
}

impl Knocks {
    /// There is no way out, and these ports have paths.
    pub(super) fn attend(&mut self, with_paths: &[&str], now: Moment) {
        for knock in &mut self.ports {
            if !with_paths.contains(&&*knock.port) {
                knock.due = None;
            }
        }
        for &port in with_paths {
            if let Some(knock) = self.ports.iter_mut().find(|knock| knock.port == port) {
                let earliest = knock.earliest.max(now + FIRST);
                knock.due.get_or_insert(earliest);
            } else if self.ports.len() < MAX_PORTS {
                self.ports.push(Knock {
                    port: port.to_owned(),
                    due: Some(now + FIRST),
                    earliest: now,
                    times: 0,
                });
            }
        }
    }

    /// There is a way out, or none is looked for.
    pub(super) fn rest(&mut self) {
        for knock in &mut self.ports {
            knock.due = None;
            knock.times = 0;
        }
    }

    /// The port has another carrier or lease: what is behind it now is another network.
    pub(super) fn forget(&mut self, port: &str) {
        self.ports.retain(|knock| knock.port != port);
    }

    /// Forgets all ports.
    pub(super) fn clear(&mut self) {
        self.ports.clear();
    }

    /// The ports over which it is to be asked now.
    pub(super) fn due(&mut self, now: Moment) -> impl Iterator<Item = String> {
        let due = move |knock: &&mut Knock| knock.due.is_some_and(|due| now >= due);
        self.ports.iter_mut().filter(due).map(move |knock| {
            let pause = APART.saturating_mul(1 << knock.times.min(16)).min(LONGEST);
            knock.times = knock.times.saturating_add(1);
            knock.earliest = now + pause;
            knock.due = Some(knock.earliest);
            knock.port.clone()
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.ports.iter().filter_map(|knock| knock.due).min()
    }
}
