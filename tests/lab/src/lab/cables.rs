//! The laptop's cables: plugged in, pulled, and where they were at any time.

use std::{
    os::fd::OwnedFd,
    sync::{MutexGuard, PoisonError},
};

use super::{Lab, WALLS};
use crate::{
    LabError,
    layout::ip_batch,
    oracle::At,
    topology::{Cable, Wall},
};

/// Each cable that was plugged in or pulled since the start, in the order of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Moves(Vec<Move>);

#[derive(Debug, Clone, Copy)]
struct Move {
    at: At,
    interface: &'static str,
    wall: Option<Wall>,
}

impl Moves {
    /// Where a cable was plugged in at that time.
    pub(super) fn wall(&self, cable: &Cable, at: At) -> Option<Wall> {
        let last = self
            .0
            .iter()
            .rev()
            .find(|moved| moved.interface == cable.interface && moved.at <= at);
        last.map_or(Some(cable.wall), |moved| moved.wall)
    }
}

impl Lab {
    /// Plugs one of the laptop's cables into a wall. Carrier is there when this returns.
    pub fn plug(&self, interface: &str, wall: Wall) -> Result<(), LabError> {
        let captures = self.captures();
        let watched = format!("{interface}.from");
        if !captures.is_empty() && !captures.iter().any(|capture| capture.name == watched) {
            let what = format!("capture of {interface}, which was pulled when captures began");
            return Err(LabError::Unknown { what });
        }
        drop(captures);
        // The new wall's rules hold from before the first frame can pass.
        self.note(interface, Some(wall))?;
        self.cable(interface, &format!("master {} up", wall.switch()))
    }

    /// Pulls one of the laptop's cables. A machine with taps sees this only by its own means (QEMU:
    /// `set_link`), but no frame passes any more.
    pub fn unplug(&self, interface: &str) -> Result<(), LabError> {
        self.cable(interface, "down nomaster")?;
        self.note(interface, None)
    }

    /// Tells the oracle that a cable was moved by other means than [`Lab::plug`] (QEMU: `set_link`).
    /// Plugging is to be told before it is done, pulling after it.
    pub fn note(&self, interface: &str, wall: Option<Wall>) -> Result<(), LabError> {
        let cable = self
            .topology
            .cables
            .iter()
            .find(|cable| cable.interface == interface)
            .ok_or_else(|| LabError::Unknown {
                what: format!("cable {interface}"),
            })?;
        let moved = Move {
            at: At::now(),
            interface: cable.interface,
            wall,
        };
        self.moves().0.push(moved);
        Ok(())
    }

    pub(super) fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cable(&self, interface: &str, change: &str) -> Result<(), LabError> {
        let lines = format!("link set {interface} {change}\n");
        ip_batch(
            &self.launcher,
            self.space(WALLS)?,
            &self.dir,
            &format!("cable-{interface}"),
            &lines,
        )
    }

    /// The lab's end of a cable as a tap descriptor for `-netdev tap,fd=…`. The tap lives as long as
    /// the lab, so that a machine that is switched off and on again can be given it again.
    pub fn tap_fd(&self, interface: &str) -> Result<OwnedFd, LabError> {
        self.taps
            .get(interface)
            .ok_or_else(|| LabError::Unknown {
                what: format!("tap {interface}"),
            })?
            .try_clone()
            .map_err(LabError::io("copy a tap's descriptor"))
    }
}
