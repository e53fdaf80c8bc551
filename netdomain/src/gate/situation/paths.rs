//! The paths that the uplink has handed over.

use std::time::Duration;

use sekisho_control::{PathId, Side, UplinkKind};

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
        });
        true
    }

    pub(super) fn info(&self, id: PathId) -> Option<&PathInfo> {
        self.entry(id).map(|entry| &entry.info)
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

    /// Puts the path aside for a while, longer each time.
    pub(super) fn condemn(&mut self, id: PathId, now: Moment, timings: &Timings) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            let pause = timings
                .retry_first
                .saturating_mul(1 << entry.failures.min(16))
                .min(timings.retry_max);
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = Some(now + pause);
        }
    }

    /// Forgives one path: it works.
    pub(super) fn pardon_one(&mut self, id: PathId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.info.id == id) {
            entry.not_before = None;
            entry.failures = 0;
        }
    }

    /// Forgives all paths.
    pub(super) fn pardon(&mut self) {
        for entry in &mut self.entries {
            entry.not_before = None;
            entry.failures = 0;
        }
    }

    pub(super) fn usable(&self, id: PathId, now: Moment, proven: impl Fn(&str) -> bool) -> bool {
        self.entry(id)
            .is_some_and(|entry| usable(entry, now, &proven))
    }

    /// The path to be on, of those with this proof: the proven LAN, then by rank, then by the order
    /// of gateways.
    pub(super) fn best(
        &self,
        proof: Proof,
        now: Moment,
        proven: impl Fn(&str) -> bool,
    ) -> Option<PathId> {
        self.best_but(proof, now, proven, |_| false)
    }

    /// The same, but for gateways that are left alone.
    pub(super) fn best_but(
        &self,
        proof: Proof,
        now: Moment,
        proven: impl Fn(&str) -> bool,
        left: impl Fn(GatewayId) -> bool,
    ) -> Option<PathId> {
        self.entries
            .iter()
            .filter(|entry| entry.info.proof == proof && usable(entry, now, &proven))
            .filter(|entry| !left(entry.info.gateway))
            .min_by_key(|entry| preference(&entry.info))
            .map(|entry| entry.info.id)
    }

    /// Whether `used` should be left for `best` while it works. The LAN is proven, so it is taken
    /// at once; others must have been there for a while.
    pub(super) fn preferred(&self, best: PathId, used: PathId, now: Moment) -> bool {
        let (Some(best), Some(used)) = (self.entry(best), self.entry(used)) else {
            return true;
        };
        let order = |info: &PathInfo| (info.proof, info.side != Side::Lan, info.rank, info.gateway);
        let better = order(&best.info) < order(&used.info);
        better && (best.info.side == Side::Lan || now.since(best.since) >= STABLE)
    }

    /// When a path becomes usable or stable.
    pub(super) fn next_deadline(&self, now: Moment) -> Option<Moment> {
        self.entries
            .iter()
            .flat_map(|entry| [entry.not_before, Some(entry.since + STABLE)])
            .flatten()
            .filter(|&due| due > now)
            .min()
    }

    fn entry(&self, id: PathId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.info.id == id)
    }
}

fn usable(entry: &Entry, now: Moment, proven: &impl Fn(&str) -> bool) -> bool {
    entry.not_before.is_none_or(|due| now >= due)
        && (entry.info.side == Side::Outside || proven(&entry.info.port))
}

fn preference(info: &PathInfo) -> (bool, u32, GatewayId, PathId) {
    (info.side != Side::Lan, info.rank, info.gateway, info.id)
}
