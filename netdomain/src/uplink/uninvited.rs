//! What comes to a proven port and nobody asked for: counted by the packet filter, told in between.

use std::time::Duration;

use super::{NetlinkError, netlink::Counter, rules::UNINVITED};

/// How often the count is looked at while a port is proven.
const LOOK: Duration = Duration::from_secs(5);

/// The count, and how far it was told.
#[derive(Debug)]
pub(super) struct Uninvited {
    counter: Counter,
    told: u64,
    due: Duration,
}

impl Uninvited {
    /// Opens the counter, in the caller's network namespace, after the rules were loaded.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            counter: Counter::open(UNINVITED)?,
            told: 0,
            due: Duration::ZERO,
        })
    }

    /// When to look next.
    pub(super) const fn due(&self) -> Duration {
        self.due
    }

    /// Looks, if it is time; what is to be told.
    pub(super) fn look(&mut self, now: Duration) -> Result<Option<String>, NetlinkError> {
        if now < self.due {
            return Ok(None);
        }
        self.due = now + LOOK;
        let packets = self.counter.packets()?;
        let fresh = packets.saturating_sub(std::mem::replace(&mut self.told, packets));
        Ok((fresh > 0).then(|| {
            format!(
                "{fresh} packets that nobody asked for, to the laptop's own address in the office"
            )
        }))
    }
}
