//! The office LAN itself: the wire of a proven port, which is in use while its proof holds.
//!
//! The wire is kept inside the proof ([`Proofs`](super::premises::Proofs)), so whatever ends the
//! proof ends the wire: a lost carrier, a failed or late re-check, sleep, doubt, the end of the
//! uplink. A wire that was handed over for a proof that has ended is closed and never taken.

use sekisho_control::{UplinkKind, WireId};

use super::premises::Ended;
use super::{Action, Machine};
use crate::moment::Moment;

impl Machine {
    /// The same machine, under a policy that lets packets onto a proven wire, or does not.
    #[must_use]
    pub fn with_direct(self, direct: bool) -> Self {
        Self { direct, ..self }
    }

    /// The port of a wire.
    pub fn wire_port(&self, wire: WireId) -> Option<&str> {
        self.proofs.wire_port(wire)
    }

    pub(super) fn wire_up(
        &mut self,
        wire: WireId,
        port: &str,
        kind: UplinkKind,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let may = self.direct && !self.asleep && kind == UplinkKind::Wired;
        if !may || !self.proofs.attach(port, wire, now) {
            actions.push(Action::CloseWire(wire));
        }
    }

    pub(super) fn wire_lost(&mut self, wire: WireId, actions: &mut Vec<Action>) {
        if self.proofs.detach(wire) {
            actions.push(Action::CloseWire(wire));
        }
    }

    /// A proof was given or renewed: where policy says so, its wire is wanted. Also when one was
    /// lost meanwhile, so once in each re-check.
    pub(super) fn ask_wire(&mut self, port: String, now: Moment, actions: &mut Vec<Action>) {
        if self.direct && self.proofs.wants_wire(&port, now) {
            actions.push(Action::AskWire(port));
        }
    }
}

/// Closes the wires of proofs that have ended. It comes before anybody is told of the end.
pub(super) fn close_wires(ended: impl IntoIterator<Item = Ended>, actions: &mut Vec<Action>) {
    let wires = ended.into_iter().filter_map(|ended| ended.wire);
    actions.extend(wires.map(Action::CloseWire));
}

/// The same, and tells the uplink that the proofs have ended.
pub(super) fn end_proofs(ended: impl IntoIterator<Item = Ended>, actions: &mut Vec<Action>) {
    for Ended { port, wire } in ended {
        actions.extend(wire.map(Action::CloseWire));
        actions.push(Action::Premises(port, false));
    }
}
