//! Captures: one tcpdump per wire (two on the laptop's own cables, one for each direction), ready
//! before the first frame and flushed at the end.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    LabError, Netns,
    process::{Launcher, Process},
    topology::Point,
};

/// tcpdump asks the kernel for its frames in blocks that are handed over when full or a second old.
pub(crate) const BLOCK_TIME: Duration = Duration::from_millis(1_100);

/// How long tcpdump may take to write what it was handed.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const DRAIN_STEP: Duration = Duration::from_millis(10);

/// Ring of one capture: a quarter of a second of the fastest download seen here.
const RING_KIB: &str = "12288";

/// Longest frame: 64 KiB of IP packet, as the kernel's own offloads make them, and its headers.
const SNAP: &str = "65600";

/// Which way the captured frames went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the laptop.
    FromLaptop,
    /// Sent to the laptop.
    ToLaptop,
    /// Both ways.
    Both,
}

/// A running capture.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) point: Point,
    pub(crate) direction: Direction,
    tcpdump: Process,
}

/// A finished capture.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Name of the wire; `.from` and `.to` tell the direction on the laptop's own cables.
    pub name: String,
    /// pcap file with microsecond times.
    pub file: PathBuf,
    /// Where it was taken.
    pub point: Point,
    /// Which way its frames went.
    pub direction: Direction,
    /// Frames that passed but are not in the file, at least; not 0 means that the recording proves nothing.
    pub missed: u64,
}

impl Capture {
    /// Starts tcpdump; [`Capture::ready`] waits for it.
    pub(crate) fn start(
        launcher: &Launcher,
        space: &Netns,
        interface: &str,
        (name, point, direction): (&str, Point, Direction),
        file: PathBuf,
    ) -> Result<Self, LabError> {
        let mut command = space.command("tcpdump");
        // No change of user: it would clear the signal that ends tcpdump with the lab. Not immediate
        // mode: its ring has a slot of the longest frame for each, so that a burst of small frames
        // fills it; blocks of mixed frames hold tens of thousands and are handed over each second.
        command.args([
            "-Z", "root", "-n", "-U", "-B", RING_KIB, "-s", SNAP, "-i", interface,
        ]);
        command.arg("-w").arg(&file);
        match direction {
            Direction::FromLaptop => command.args(["-Q", "in"]),
            Direction::ToLaptop => command.args(["-Q", "out"]),
            Direction::Both => &mut command,
        };
        let tcpdump = launcher.spawn(&format!("tcpdump-{name}"), command)?;
        Ok(Self {
            name: name.to_owned(),
            file,
            point,
            direction,
            tcpdump,
        })
    }

    /// Waits until frames are seen.
    pub(crate) fn ready(&self) -> Result<(), LabError> {
        self.tcpdump
            .wait_line("listening on", Duration::from_secs(10))
            .map(|_| ())
    }

    /// Ends the capture. All that passed until [`BLOCK_TIME`] ago is in the file then.
    pub(crate) fn stop(mut self) -> Result<Recording, LabError> {
        // Asleep, tcpdump waits for a block of frames and has written those it was handed.
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut drained = self.asleep();
        while !drained && Instant::now() < deadline {
            std::thread::sleep(DRAIN_STEP);
            drained = self.asleep();
        }
        let mut missed = u64::from(!drained);
        let ended = self
            .tcpdump
            .wait(Duration::ZERO)
            .is_ok_and(|status| status.is_some());
        // Its interface went away, and with it the block that was not handed over yet.
        missed += u64::from(ended);
        let mark = if ended { 0 } else { self.tcpdump.mark() };
        let _ = self.tcpdump.signal(Signal::INT);
        missed += self
            .tcpdump
            .wait_after(mark, "dropped by kernel", DRAIN_LIMIT, |line| {
                line.strip_suffix(" dropped by kernel")?
                    .split(' ')
                    .next()?
                    .parse::<u64>()
                    .ok()
            })?;
        let _ = self.tcpdump.wait(DRAIN_LIMIT);
        Ok(Recording {
            name: self.name,
            file: self.file,
            point: self.point,
            direction: self.direction,
            missed,
        })
    }

    /// Whether tcpdump sleeps in `poll` (proc(5), `stat`: the state follows the name).
    fn asleep(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.tcpdump.id()))
            .ok()
            .and_then(|stat| {
                stat.rsplit_once(") ")
                    .map(|(_, rest)| rest.starts_with('S'))
            })
            .unwrap_or(true)
    }
}
