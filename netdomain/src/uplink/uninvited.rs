//! What says that somebody sits beside the laptop on a proven port's cable: counted by the packet filter,
//! told in between.

use std::time::Duration;

use super::{
    NetlinkError,
    netlink::Counter,
    rules::{NAMESAKE, UNINVITED},
};

/// How often the counts are looked at while a port is proven.
const LOOK: Duration = Duration::from_secs(5);

/// A count, and how far it was told.
#[derive(Debug)]
struct Count {
    counter: Counter,
    told: u64,
    what: &'static str,
}

impl Count {
    fn open(name: &'static str, what: &'static str) -> Result<Self, NetlinkError> {
        Ok(Self {
            counter: Counter::open(name)?,
            told: 0,
            what,
        })
    }

    fn look(&mut self) -> Result<Option<String>, NetlinkError> {
        let packets = self.counter.packets()?;
        let fresh = packets.saturating_sub(std::mem::replace(&mut self.told, packets));
        Ok((fresh > 0).then(|| format!("{fresh} packets {}", self.what)))
    }
}

/// The counts.
#[derive(Debug)]
pub(super) struct Uninvited {
    counts: Vec<Count>,
    due: Duration,
}

impl Uninvited {
    /// Opens the counters, in the caller's network namespace, after the rules were loaded. `member`: the
    /// work OS may become a member of a LAN.
    pub(super) fn open(member: bool) -> Result<Self, NetlinkError> {
        let mut counts = vec![Count::open(
            UNINVITED,
            "that nobody asked for, to the laptop's own address in the office",
        )?];
        if member {
            counts.push(Count::open(
                NAMESAKE,
                "of somebody else in the work OS's name, on the office LAN",
            )?);
        }
        Ok(Self {
            counts,
            due: Duration::ZERO,
        })
    }

    /// When to look next.
    pub(super) const fn due(&self) -> Duration {
        self.due
    }

    /// Looks, if it is time; what is to be told.
    pub(super) fn look(&mut self, now: Duration) -> Result<Vec<String>, NetlinkError> {
        if now < self.due {
            return Ok(Vec::new());
        }
        self.due = now + LOOK;
        let mut told = Vec::new();
        for count in &mut self.counts {
            told.extend(count.look()?);
        }
        Ok(told)
    }
}
