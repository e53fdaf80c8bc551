//! Which ports a magic packet may wake the laptop through: those that have proven the office, where
//! policy says so, for as long as the proof holds, and for the sleep that follows it. A process
//! that ends takes it back, and one that begins takes back what a killed one left.

use sekisho_control::UplinkKind;

use super::{Action, Ports};

impl Ports {
    /// A port was proven.
    pub(super) fn arm(&mut self, index: u32, actions: &mut Vec<Action>) {
        let wired = |port: &super::Port| port.kind == UplinkKind::Wired && port.ethernet;
        let may = self.endpoints.wake_on_lan && self.by_index.get(&index).is_some_and(wired);
        if may && self.armed.insert(index) {
            actions.push(Action::Wake(index, true));
        }
    }

    /// Its proof has ended.
    pub(super) fn disarm(&mut self, index: u32, actions: &mut Vec<Action>) {
        if self.armed.remove(&index) {
            actions.push(Action::Wake(index, false));
        }
    }

    /// All proofs have ended.
    pub(super) fn disarm_all(&mut self, actions: &mut Vec<Action>) {
        let armed = std::mem::take(&mut self.armed);
        actions.extend(armed.into_iter().map(|index| Action::Wake(index, false)));
    }
}
