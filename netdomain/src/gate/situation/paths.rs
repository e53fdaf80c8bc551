//! The paths that the uplink has handed over.

use std::time::Duration;

use sekisho_control::{PathId, Side, UplinkKind};

use super::standby::Health;
use super::{GatewayId, Timings};
use crate::moment::Moment;

/// Paths at one time: a laptop has few ports, a policy few gateways with two sides each.
pub const MAX_PATHS: usize = 16;
/// A better path must have been there for so long before a working one is left for it.
const STABLE: Duration = Duration::from_secs(2);

/// How the gateway at the end of a path proves itself, and what says that its tunnel lives. In the
/// order of preference: an engine's tunnel is for where nothing else gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// A handshake of ours; the session then goes by any path to the gateway.
    Handshake,
    /// The word of an engine, for this path alone.
    Engine,
}

/// A path as the uplink described it and policy confirmed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// Its name.
    pub id: PathId,
    /// Interface.
    pub port: String,
    /// Kind of the interface.
    pub kind: UplinkKind,
    /// Rank of the uplink: lower is preferred.
    pub rank: u32,
    /// The gateway at its end.
    pub gateway: GatewayId,
    /// Which of its addresses.
    pub side: Side,
    /// How the gateway proves itself.
    pub proof: Proof,
}

#[derive(Debug)]
struct Entry {
    info: PathInfo,
    since: Moment,
    /// It failed: not before this time again.
    not_before: Option<Moment>,
    failures: u32,
    /// When it last failed.
    failed: Option<Moment>,
    /// When it last had its turn, in vain. None: not since it was there, or worked.
    turn: Option<Moment>,
    /// It failed, and its gateway has answered over no path since.
    dead: bool,
    /// What the second key found.
    health: Health,
}

/// A path that is better than the one in use.
#[derive(Debug)]
pub(super) struct Better<'p> {
    pub(super) info: &'p PathInfo,
    /// From when on it is to be tried.
    pub(super) from: Moment,
    turn: Option<Moment>,
}

impl Better<'_> {
    /// The lower, the sooner: as for [`Paths::refuge`].
    pub(super) fn order(&self) -> impl Ord + use<> {
        (self.turn, preference(self.info))
    }
}

/// The table of paths.
#[derive(Debug, Default)]
pub(super) struct Paths {
    entries: Vec<Entry>,
}

impl Paths {
    /// False if there is no room, the name is in use, or no LAN side can be on such a port.
    pub(super) fn add(&mut self, info: PathInfo, now: Moment) -> bool {
        let known = self.info(info.id).is_some();
        let impossible = info.side == Side::Lan && info.kind != UplinkKind::Wired;
        if known || impossible || self.entries.len() >= MAX_PATHS {
            return false;
        }
        self.entries.push(Entry {
            info,
            since: now,
            not_before: None,
            failures: 0,
            failed: None,
            turn: None,
            dead: false,
            health: Health::default(),
        });
        true
    }

    pub(super) fn info(&self, id: PathId) -> Option<&PathInfo> {
        self.entry(id).map(|entry| &entry.info)
    }

    /// Whether the path enters its gateway from the office LAN.
    pub(super) fn is_lan(&self, id: PathId) -> bool {
        self.info(id).is_some_and(|info| info.side == Side::Lan)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The gateway of a path over which it was heard, where that proves anything.
    pub(super) fn heard(&self, id: PathId) -> Option<GatewayId> {
        self.info(id)
            .filter(|info| info.proof == Proof::Handshake)
            .map(|info| info.gateway)
    }

    pub(super) fn remove(&mut self, id: PathId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.info.id != id);
        self.entries.len() < before
    }

    pub(super) fn clear(&mut self) -> Vec<PathId> {
        self.entries.drain(..).map(|entry| entry.info.id).collect()
    }

    pub(super) fn on_port(&self, port: &str) -> Vec<PathId> {
        self.entries
            .iter()
            .filter(|entry| entry.info.port == port)
            .map(|entry| entry.info.id)
            .collect()
    }

    /// The port of each path.
    pub(super) fn ports(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.info.port)
    }

    /// Puts the path aside for a while, longer each time.
    pub(super) fn condemn(&mut self, id: PathId, now: Moment, timings: &Timings) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            let pause = timings
                .retry_first
                .saturating_mul(1 << entry.failures.min(16))
                .min(timings.retry_max);
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = Some(now + pause);
            entry.failed = Some(now);
            entry.turn = Some(now);
            entry.dead = true;
            entry.health.fail(now);
        }
    }

    /// Forgives one path: it works.
    pub(super) fn pardon_one(&mut self, id: PathId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            entry.not_before = None;
            entry.failures = 0;
            entry.turn = None;
        }
    }

    /// What failed was not the path: it may be used again from then on, and no pause is longer for it.
    pub(super) fn excuse(&mut self, id: PathId, from: Moment) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            entry.not_before = entry.not_before.map(|due| due.min(from));
            entry.failures = 0;
            entry.turn = None;
            entry.dead = false;
        }
    }

    /// The path is known to live, without being in use.
    pub(super) fn lives(&mut self, id: PathId) {
        self.pardon_one(id);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            entry.dead = false;
        }
    }

    /// Forgives all paths.
    pub(super) fn pardon(&mut self) {
        for entry in &mut self.entries {
            entry.not_before = None;
            entry.failures = 0;
            entry.turn = None;
            entry.dead = false;
            entry.health = Health::default();
        }
    }

    /// The gateway answered a handshake: its other paths may be gone to again.
    pub(super) fn answered(&mut self, gateway: GatewayId) {
        let of = |entry: &&mut Entry| entry.info.gateway == gateway;
        for entry in self.entries.iter_mut().filter(of) {
            entry.dead = false;
        }
    }

    /// The path is in use: what was known of it while it waited is not known any more.
    pub(super) fn used(&mut self, id: PathId) {
        if let Some((_, health)) = self.health(id) {
            *health = Health::default();
        }
    }

    /// Kind and health of a path.
    pub(super) fn health(&mut self, id: PathId) -> Option<(UplinkKind, &mut Health)> {
        let entry = self.entries.iter_mut().find(|entry| entry.info.id == id)?;
        Some((entry.info.kind, &mut entry.health))
    }

    /// The paths with this proof that may be used at all, put aside for now or not.
    pub(super) fn of(
        &self,
        proof: Proof,
        proven: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&PathInfo, &Health)> {
        self.entries
            .iter()
            .filter(move |entry| entry.info.proof == proof && admissible(&entry.info, &proven))
            .map(|entry| (&entry.info, &entry.health))
    }

    /// Where to go from a way that has fallen silent, or from nowhere: a path that is known to live or at
    /// least not known to be silent, then as ever. `with`: on with this gateway's session, which asks
    /// nobody first, so not to a path that has failed since the gateway last answered. Else whoever's turn
    /// is the longest ago comes first, so that none keeps another from its own.
    pub(super) fn refuge(
        &self,
        from: Option<PathId>,
        with: Option<GatewayId>,
        now: Moment,
        proven: impl Fn(&str) -> bool,
    ) -> Option<PathId> {
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == Proof::Handshake && Some(entry.info.id) != from)
            .filter(|entry| with.is_none_or(|gateway| gateway == entry.info.gateway && !entry.dead))
            .filter(|entry| usable(entry, now, &proven))
            .min_by_key(|entry| {
                let turn = entry.turn.filter(|_| with.is_none());
                (entry.health.is_silent(), turn, preference(&entry.info))
            })
            .map(|entry| entry.info.id)
    }

    pub(super) fn usable(&self, id: PathId, now: Moment, proven: impl Fn(&str) -> bool) -> bool {
        self.entry(id)
            .is_some_and(|entry| usable(entry, now, &proven))
    }

    /// The path for an engine's tunnel with this gateway to be on: the proven LAN, then by rank.
    pub(super) fn best_to(
        &self,
        gateway: GatewayId,
        now: Moment,
        proven: impl Fn(&str) -> bool,
    ) -> Option<PathId> {
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == Proof::Engine && usable(entry, now, &proven))
            .filter(|entry| entry.info.gateway == gateway)
            .min_by_key(|entry| preference(&entry.info))
            .map(|entry| entry.info.id)
    }

    /// The path of an engine whose turn it is, of these gateways: that which had none for the longest
    /// time, then the proven LAN, then by rank, then by the order of gateways.
    pub(super) fn next_engine(
        &self,
        now: Moment,
        proven: impl Fn(&str) -> bool,
        of: impl Fn(GatewayId) -> bool,
    ) -> Option<PathId> {
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == Proof::Engine && usable(entry, now, &proven))
            .filter(|entry| of(entry.info.gateway))
            .min_by_key(|entry| (entry.turn, preference(&entry.info)))
            .map(|entry| entry.info.id)
    }

    /// Whether a path that a handshake could prove has had no turn since then.
    pub(super) fn waits(&self, since: Moment, now: Moment, proven: impl Fn(&str) -> bool) -> bool {
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == Proof::Handshake && usable(entry, now, &proven))
            .any(|entry| entry.turn.is_none_or(|turn| turn < since))
    }

    /// The paths for which `used` is to be left while it works, and from when. The LAN is proven, so it is
    /// taken at once; others must have been there for a while; and an earlier gateway must have been
    /// well for longer, so that one that comes and goes does not take everybody along each time.
    pub(super) fn better(
        &self,
        used: PathId,
        (now, standby): (Moment, bool),
        timings: &Timings,
        proven: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = Better<'_>> {
        let used = self.info(used);
        let prefer_first_after = timings.prefer_first_after;
        let from = move |entry: &Entry, used: &PathInfo| {
            let info = &entry.info;
            if info.side == Side::Lan || used.proof == Proof::Engine {
                return Some(entry.since);
            }
            if info.gateway == used.gateway {
                return Some(entry.since + STABLE);
            }
            let well = if standby {
                entry.health.since()?
            } else {
                entry.failed.map_or(entry.since, |at| at.max(entry.since))
            };
            Some(well + prefer_first_after)
        };
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == Proof::Handshake)
            .filter(move |entry| usable(entry, now, &proven))
            .filter_map(move |entry| {
                let used = used.filter(|used| order(&entry.info) < order(used))?;
                Some(Better {
                    info: &entry.info,
                    from: from(entry, used)?,
                    turn: entry.turn,
                })
            })
    }

    /// When a path becomes usable, after `done`.
    pub(super) fn next_deadline(&self, done: Moment) -> Option<Moment> {
        self.entries
            .iter()
            .filter_map(|entry| entry.not_before)
            .filter(|&due| due > done)
            .min()
    }

    fn entry(&self, id: PathId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.info.id == id)
    }
}

fn usable(entry: &Entry, now: Moment, proven: &impl Fn(&str) -> bool) -> bool {
    entry.not_before.is_none_or(|due| now >= due) && admissible(&entry.info, proven)
}

/// An office's side is, while the office is proven.
fn admissible(info: &PathInfo, proven: &impl Fn(&str) -> bool) -> bool {
    info.side == Side::Outside || proven(&info.port)
}

/// The lower, the better.
fn order(info: &PathInfo) -> (Proof, bool, u32, GatewayId) {
    (info.proof, info.side != Side::Lan, info.rank, info.gateway)
}

/// The same, without ties.
fn preference(info: &PathInfo) -> ((Proof, bool, u32, GatewayId), PathId) {
    (order(info), info.id)
}
