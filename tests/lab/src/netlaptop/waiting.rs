//! Waiting for what the laptop says.

use std::{cell::Cell, time::Duration};

use super::{NetLaptop, Part};
use crate::{Event, LabError};

impl NetLaptop<'_> {
    /// Waits for an event after `mark`; the error shows the last ones.
    pub fn wait_event(
        &self,
        mark: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event, LabError> {
        self.events
            .wait_after(mark, limit, wanted)
            .ok_or_else(|| LabError::NotReady {
                program: "the laptop".into(),
                waited_for: what.to_owned(),
                log: self.supervisor.log().to_path_buf(),
                last: self.events.tail(),
            })
    }

    /// Waits until the gate says that the tunnel is up.
    pub fn wait_tunnel(&self, mark: usize, limit: Duration) -> Result<Event, LabError> {
        self.wait_event(mark, "tunnelled", limit, |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        })
    }

    /// Waits for a tunnel that the gate speaks of only after `part`, killed as process `killed`, was
    /// started again: what it says before is of the way that the kill just ended.
    pub fn wait_tunnel_after_kill(
        &self,
        mark: usize,
        (part, killed): (Part, u32),
        limit: Duration,
    ) -> Result<Event, LabError> {
        let started = Cell::new(false);
        self.wait_event(mark, "tunnelled after a kill", limit, |event| {
            if event.is("supervisor", "started") && event.text("process") == part.process() {
                started.set(event.number("pid") != Some(u64::from(killed)));
            }
            started.get() && event.is("gate", "situation") && event.text("situation") == "tunnelled"
        })
    }

    /// Waits until the gate says that the guest's packets go onto the office LAN itself.
    pub fn wait_direct(&self, mark: usize, limit: Duration) -> Result<Event, LabError> {
        self.wait_event(mark, "direct", limit, |event| {
            event.is("gate", "situation") && event.text("situation") == "direct"
        })
    }

    /// Waits until the gate says that there is no way out.
    pub fn wait_closed(&self, mark: usize, limit: Duration) -> Result<Event, LabError> {
        self.wait_event(mark, "closed", limit, |event| {
            event.is("gate", "situation") && event.text("situation") == "closed"
        })
    }

    /// Waits until the gate refused something by this rule.
    pub fn wait_refused(&self, mark: usize, rule: &str, packet: &str) -> Result<Event, LabError> {
        let what = format!("refused {packet} by {rule}");
        self.wait_event(mark, &what, Duration::from_secs(10), |event| {
            event.is("gate", "refused")
                && event.text("rule") == rule
                && event.text("packet").contains(packet)
        })
    }
}
