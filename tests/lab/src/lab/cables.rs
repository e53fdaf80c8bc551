//! The laptop's cables: plugged in, pulled, and where they were at any time.

use std::{
    os::fd::OwnedFd,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use super::{Lab, WALLS};
use crate::{
    LabError,
    layout::ip_batch,
    oracle::At,
    topology::{Cable, Wall},
};

/// How long a kernel on a busy machine may take to tell the laptop that a cable was pulled, where the same
/// cable is in another wall a moment later: no person is as quick as that.
const NEWS: Duration = Duration::from_millis(250);

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

    /// The wall before, where the cable was plugged in so short a time ago that the laptop may not have
    /// heard of it.
    pub(super) fn wall_before(&self, cable: &Cable, at: At) -> Option<Wall> {
        let mut moves = (self.0.iter().rev())
            .filter(|moved| moved.interface == cable.interface && moved.at <= at);
        let last = moves.next().filter(|moved| moved.wall.is_some())?;
        if Duration::from_micros(at.0 - last.at.0) > NEWS {
            return None;
        }
        moves
            .find_map(|moved| moved.wall)
            .or(Some(cable.wall))
            .filter(|before| Some(*before) != last.wall)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_before_counts_for_a_moment() {
        let cable = Cable {
            interface: "eth1",
            wall: Wall::Office,
        };
        let at = |millis: u64| At(millis * 1000);
        let step = |millis, wall| Move {
            at: at(millis),
            interface: "eth1",
            wall,
        };
        let moves = Moves(vec![
            step(1_000, None),
            step(1_050, Some(Wall::Cafe)),
            step(5_000, None),
            step(5_050, Some(Wall::Cafe)),
        ]);
        assert_eq!(moves.wall_before(&cable, at(900)), None);
        assert_eq!(moves.wall_before(&cable, at(1_020)), None, "in no wall");
        assert_eq!(moves.wall_before(&cable, at(1_050)), Some(Wall::Office));
        assert_eq!(moves.wall_before(&cable, at(1_300)), Some(Wall::Office));
        assert_eq!(moves.wall_before(&cable, at(1_301)), None);
        assert_eq!(moves.wall_before(&cable, at(5_100)), None, "the same wall");
    }
}
