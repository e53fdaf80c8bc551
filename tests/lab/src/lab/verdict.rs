//! Captures of all wires, and what the oracle says of them.

use std::sync::{MutexGuard, PoisonError, atomic::Ordering};

use super::{Direct, Lab, WALLS};
use crate::{
    Direction, LabError, Recording,
    capture::{BLOCK_TIME, Capture},
    oracle::{At, Canaries, Rules, Verdict, judge},
    service,
    topology::{Point, Wall},
};

impl Lab {
    pub(super) fn captures(&self) -> MutexGuard<'_, Vec<Capture>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts all captures, after [`Lab::stop_captures`] anew and in a folder of their own. A cable
    /// that is pulled cannot be captured, and cannot be plugged in again before the next start.
    pub fn capture(&self) -> Result<(), LabError> {
        let mut captures = Vec::new();
        let mut wanted = Vec::new();
        let moves = self.moves().clone();
        for cable in &self.topology.cables {
            let interface = cable.interface;
            if moves.wall(cable, At::now()).is_none() {
                continue;
            }
            for (way, direction) in [("from", Direction::FromLaptop), ("to", Direction::ToLaptop)] {
                wanted.push((
                    format!("{interface}.{way}"),
                    (WALLS, interface),
                    Point::P1,
                    direction,
                ));
            }
        }
        for wire in &self.topology.wires {
            wanted.push((wire.name.to_owned(), wire.a, wire.point, Direction::Both));
        }
        let inner = ("gateway", service::WIREGUARD_INTERFACE);
        wanted.push(("tunnel".to_owned(), inner, Point::P2, Direction::Both));
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("captures-{generation}"));
        std::fs::create_dir_all(&dir).map_err(LabError::io("make the captures' folder"))?;
        for (name, (node, interface), point, direction) in wanted {
            let file = dir.join(format!("{name}.pcap"));
            captures.push(Capture::start(
                &self.launcher,
                &self.spaces[node],
                interface,
                (&name, point, direction),
                file,
            )?);
        }
        captures.iter().try_for_each(Capture::ready)?;
        self.captures().extend(captures);
        Ok(())
    }

    /// Ends all captures, with all that passed until now, and gives them; later calls give nothing.
    pub fn stop_captures(&self) -> Result<Recordings, LabError> {
        // Not an event that could be awaited: the kernel holds a block back for a fixed time.
        std::thread::sleep(BLOCK_TIME);
        let list = std::mem::take(&mut *self.captures())
            .into_iter()
            .map(Capture::stop)
            .collect::<Result<_, _>>()?;
        Ok(Recordings { list })
    }

    /// Ends the captures and asks the oracle: every outside wire is searched for canaries, and what
    /// the laptop sent is judged by the rules of the wall that its cable was in at that time.
    pub fn judge(&self, canaries: &Canaries) -> Result<(Recordings, Verdict), LabError> {
        let recordings = self.stop_captures()?;
        let mut cafe = Rules::cafe(&self.cafe);
        let mut office = Rules::office();
        if self.tls {
            (cafe, office) = (cafe.with_tls(), office.with_tls());
        }
        office = match self.direct {
            None => office,
            Some(Direct::Routed) => office.with_direct(),
            Some(Direct::Bridged) => office.with_member(),
        };
        if self.ike.is_some() {
            (cafe, office) = (cafe.with_ike(), office.with_ike());
        }
        let late = [
            cafe.clone().just_after(&office),
            office.clone().just_after(&cafe),
        ];
        let moves = self.moves().clone();
        let mut verdict = Verdict::default();
        for recording in recordings
            .list
            .iter()
            .filter(|recording| recording.point == Point::P1)
            // Behind the office's router a clear packet, and what the router says of it, are the
            // city's own.
            .filter(|recording| !(self.direct.is_some() && recording.name == "gateway-office"))
        {
            let cable = self
                .topology
                .cables
                .iter()
                .find(|cable| recording.name.split('.').next() == Some(cable.interface));
            // On the office's LAN the guest's packets are at home, whoever sees them there.
            let inside = recording.name == "office-router";
            let rules = |at: At| {
                let wall = match cable {
                    Some(cable) => moves.wall(cable, at)?,
                    None if inside => Wall::Office,
                    None => return None,
                };
                let before = cable.and_then(|cable| moves.wall_before(cable, at));
                Some(match (wall, before) {
                    (Wall::Cafe, Some(Wall::Office)) => &late[0],
                    (Wall::Office, Some(Wall::Cafe)) => &late[1],
                    (Wall::Cafe, _) => &cafe,
                    (Wall::Office, _) => &office,
                })
            };
            verdict.add(judge(recording, canaries, rules)?);
        }
        Ok((recordings, verdict))
    }
}

/// The captures of one run.
#[derive(Debug, Clone)]
pub struct Recordings {
    /// All of them.
    pub list: Vec<Recording>,
}

impl Recordings {
    /// The recording of that name, for example `eth0.from`, `tunnel`, `gateway-lgwan`.
    pub fn get(&self, name: &str) -> Result<&Recording, LabError> {
        self.list
            .iter()
            .find(|recording| recording.name == name)
            .ok_or_else(|| LabError::Unknown {
                what: format!("recording {name}"),
            })
    }
}
