//! Into the office and out of it, with downloads that live through each switch.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sekisho_control::Place;
use sekisho_lab::address as at;

use super::arrival::tunnelled;
use super::refusals::refused;
use super::{Journey, StepError, StepResult, millis};
use crate::probe::Outcome;

/// Number of the card that the office's cable goes to.
const OFFICE_CARD: usize = 1;

/// From the move of a cable to the tunnel on its new way.
const SWITCH_LIMIT: Duration = Duration::from_secs(20);

fn files() -> SocketAddr {
    SocketAddr::from((at::FILES, 445))
}

pub(super) fn no_office_flow(journey: &mut Journey) -> StepResult {
    refused(
        journey,
        &["files", "default-deny"],
        &files().to_string(),
        |journey| journey.connect(files()),
    )
}

pub(super) fn office_flow(journey: &mut Journey) -> StepResult {
    match journey.connect(files())? {
        Outcome::Answered { detail } if detail.contains("office only") => Ok(detail),
        other => Err(StepError::Broken(format!("{other:?}"))),
    }
}

/// Length of a download that something happens in: some seconds.
const LONG: u64 = 8 << 20;

/// Length of a download that one of many switches happens in.
const SHORT: u64 = 4 << 20;

/// Switches each way, beside the first.
const ROUNDS: usize = 5;

pub(super) fn into_office(journey: &mut Journey) -> StepResult {
    switch(journey, LONG, Way::IntoOffice).map(|switched| switched.to_string())
}

pub(super) fn out_of_office(journey: &mut Journey) -> StepResult {
    switch(journey, LONG, Way::OutOfOffice).map(|switched| switched.to_string())
}

/// The same again several times, for a median.
pub(super) fn to_and_fro(journey: &mut Journey) -> StepResult {
    let mut silences = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (way, silences) in [Way::IntoOffice, Way::OutOfOffice]
            .into_iter()
            .zip(&mut silences)
        {
            silences.push(switch(journey, SHORT, way)?.silence_ms);
        }
    }
    let [into, out] = silences.map(|mut silences| {
        silences.sort_unstable();
        silences[ROUNDS / 2]
    });
    Ok(format!(
        "{ROUNDS} times each way, every download lives; median of the longest silence: {into} ms \
         into the office, {out} ms out of it"
    ))
}

/// A move of the office's cable.
#[derive(Clone, Copy)]
enum Way {
    IntoOffice,
    OutOfOffice,
}

/// A switch that a download lived through.
struct Switched {
    port: &'static str,
    /// From the move of the cable to the gate's report, in milliseconds.
    took_ms: u64,
    /// The longest time in which the work OS got nothing, in milliseconds.
    silence_ms: u64,
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port,
            took_ms,
            silence_ms,
        } = self;
        write!(
            f,
            "over {port} in {took_ms} ms; the download lives, its longest silence {silence_ms} ms"
        )
    }
}

fn switch(journey: &mut Journey, bytes: u64, way: Way) -> Result<Switched, StepError> {
    let (plugged, port, place) = match way {
        Way::IntoOffice => (true, at::ETH1, Place::Office),
        Way::OutOfOffice => (false, at::ETH0, Place::Remote),
    };
    journey.start_download(bytes)?;
    let mark = journey.events()?.mark();
    let moved = Instant::now();
    journey.laptop()?.set_link(OFFICE_CARD, plugged)?;
    let what = format!("the tunnel over {port}");
    journey
        .events()?
        .wait(mark, &what, SWITCH_LIMIT, |report| {
            tunnelled(report, port, place)
        })?;
    let took_ms = millis(moved.elapsed());
    let silence_ms = journey.finish_download()?.longest_gap_ms;
    Ok(Switched {
        port,
        took_ms,
        silence_ms,
    })
}
