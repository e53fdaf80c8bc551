//! Says whether the laptop leaked, from recordings of its wires made outside of it.
//!
//! What the laptop sends on an outside wire may only be: DHCP, ARP for the next hop or its own
//! address, EAPOL, the tunnel's five-tuple, and TCP to the premises beacon. Everything else is a
//! leak, whatever it carries. Besides, no canary of the run may appear in clear in either direction,
//! and neither the guest's MAC nor its inner address in what the laptop sends outside the tunnel.
//!
//! The oracle trusts nothing of the laptop: direction and time come from the capture, and what it
//! looks for comes from the lab.
//!
//! Where the office LAN carries the guest's packets without a tunnel, exactly those that policy allows
//! are at home there, canaries and all.

mod canary;
mod direct;
mod pcap;
mod rules;

use std::{fmt, path::PathBuf};

pub use canary::{Canaries, Canary};
pub use pcap::{At, Frame, read};
pub use rules::{Kind, Rules, classify};

use crate::{Direction, LabError, Recording};

/// Leaks listed in one verdict; more are only counted.
const MAX_LISTED: usize = 50;

/// Something was on a wire that may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The recording.
    pub file: PathBuf,
    /// When.
    pub at: At,
    /// What it was, in one line.
    pub what: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_stem().unwrap_or_default().to_string_lossy();
        write!(f, "{name} {} {}", self.at, self.what)
    }
}

/// What the oracle found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Frames looked at.
    pub frames: u64,
    /// Among them frames of the tunnel, sent by the laptop.
    pub tunnelled: u64,
    /// Packets of the guest's that left without a tunnel where they may.
    pub direct: u64,
    /// Leaks found.
    pub leaks: u64,
    /// The first of them.
    pub listed: Vec<Leak>,
    /// Frames that passed but were not recorded.
    pub missed: u64,
}

impl Verdict {
    /// No leak, and nothing that the captures missed.
    pub fn holds(&self) -> bool {
        self.leaks == 0 && self.missed == 0
    }

    /// Adds another verdict to this one.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.tunnelled += other.tunnelled;
        self.direct += other.direct;
        self.leaks += other.leaks;
        self.missed += other.missed;
        self.listed.extend(other.listed);
        self.listed.truncate(MAX_LISTED);
    }

    fn leak(&mut self, recording: &Recording, at: At, what: String) {
        self.leaks += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Leak {
                file: recording.file.clone(),
                at,
                what,
            });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames, {} of the tunnel, {} direct, {} leaks",
            self.frames, self.tunnelled, self.direct, self.leaks
        )?;
        if self.missed > 0 {
            write!(
                f,
                ", {} frames not recorded: the captures prove nothing",
                self.missed
            )?;
        }
        for leak in &self.listed {
            write!(f, "\n  {leak}")?;
        }
        Ok(())
    }
}

/// Judges one recording of an outside wire. `rules` are asked for each frame by its time, because a
/// cable can be moved: `None` means that no cable was plugged in and nothing at all may be sent.
pub fn judge<'r>(
    recording: &Recording,
    canaries: &Canaries,
    rules: impl Fn(At) -> Option<&'r Rules>,
) -> Result<Verdict, LabError> {
    let mut verdict = Verdict {
        missed: recording.missed,
        ..Verdict::default()
    };
    read(&recording.file, |frame| {
        verdict.frames += 1;
        let at_home = || rules(frame.at).is_some_and(|rules| rules.carries(frame.bytes));
        if let Some(canary) = canaries.find(frame.bytes)
            && !at_home()
        {
            let what = format!(
                "a canary in clear ({canary}): {}",
                rules::describe(frame.bytes)
            );
            verdict.leak(recording, frame.at, what);
        }
        if recording.direction == Direction::FromLaptop {
            let found = match rules(frame.at) {
                Some(rules) => classify(frame.bytes, rules),
                None => Kind::Leak("a frame on a cable that is not plugged in"),
            };
            match found {
                Kind::Tunnel => verdict.tunnelled += 1,
                Kind::Direct => verdict.direct += 1,
                Kind::Allowed => {}
                Kind::Leak(why) => {
                    let what = format!("{why}: {}", rules::describe(frame.bytes));
                    verdict.leak(recording, frame.at, what);
                }
            }
        }
    })?;
    Ok(verdict)
}

/// Counts the frames of a recording that have a canary in clear: the proof that the search works
/// where canaries are expected, inside the tunnel and beyond the gateway.
pub fn count_canaries(recording: &Recording, canaries: &Canaries) -> Result<u64, LabError> {
    let mut count = 0;
    read(&recording.file, |frame| {
        count += u64::from(canaries.find(frame.bytes).is_some());
    })?;
    Ok(count)
}

/// Counts the frames of a recording that `wanted` accepts.
pub fn count_frames(
    recording: &Recording,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<u64, LabError> {
    let mut count = 0;
    read(&recording.file, |frame| {
        count += u64::from(wanted(frame.bytes));
    })?;
    Ok(count)
}
