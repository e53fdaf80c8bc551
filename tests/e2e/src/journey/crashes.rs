//! The product's processes are killed under traffic and come back.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sekisho_control::Place;
use sekisho_lab::address as at;

use super::arrival::{address, page, tunnelled};
use super::{Journey, StepError, StepResult, emulator, millis};

/// From a kill to the tunnel of a new gate.
const GATE_LIMIT: Duration = Duration::from_secs(20);

/// From a kill to a new work OS.
const RESTART_LIMIT: Duration = Duration::from_mins(1);

/// Length of a download that a process is killed in: some seconds.
const LONG: u64 = 8 << 20;

pub(super) fn gate_killed(journey: &mut Journey) -> StepResult {
    journey.start_download(LONG)?;
    let mark = journey.events()?.mark();
    let killed = Instant::now();
    journey.kill("gate")?;
    journey
        .events()?
        .wait(mark, "the tunnel of a new gate", GATE_LIMIT, |report| {
            tunnelled(report, at::ETH0, Place::Remote)
        })?;
    let took = millis(killed.elapsed());
    let download = journey.finish_download()?;
    page(journey)?;
    Ok(format!(
        "a new gate has its tunnel after {took} ms; the download lives, its longest silence {} ms",
        download.longest_gap_ms
    ))
}

/// How often the VMM is killed.
const VMM_KILLS: u32 = 5;

pub(super) fn vmm_killed(journey: &mut Journey) -> StepResult {
    let mut slowest = 0;
    let mut hung = 0;
    let mut kills = 0;
    while kills < VMM_KILLS {
        // Traffic that is cut off in the middle: its end is of no interest.
        journey.start_download(LONG)?;
        journey.watch_download(random_moment()?)?;
        let killed = Instant::now();
        journey.kill("vmm")?;
        let back = journey.guest()?.sync(RESTART_LIMIT);
        journey.download = None;
        if let Err(error) = back {
            hung += 1;
            if hung > emulator::MOST_FAULTS || !emulator::laptop_hangs(journey)? {
                return Err(error.into());
            }
            emulator::power_cycle(journey)?;
            address(journey)?;
            continue;
        }
        address(journey)?;
        page(journey)?;
        slowest = slowest.max(millis(killed.elapsed()));
        kills += 1;
    }
    let mut told = format!("{VMM_KILLS} times; from the kill to a page at most {slowest} ms");
    if hung > 0 {
        let _ = write!(
            told,
            "; the emulated laptop hung {hung} times and was switched on anew"
        );
    }
    Ok(told)
}

/// Some time within the first seconds of a download.
fn random_moment() -> Result<Duration, StepError> {
    let mut random = [0; 2];
    getrandom::fill(&mut random)
        .map_err(|error| StepError::Broken(format!("no random numbers: {error}")))?;
    Ok(LATEST_KILL * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX))
}

/// A download at full pace lasts longer.
const LATEST_KILL: Duration = Duration::from_secs(2);
