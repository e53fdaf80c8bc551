//! The frame link against a bare SEQPACKET loop, and a ring in memory against the frame link: two
//! processes, pinned to cores 0 and 1.
//!
//! All move the same messages (a 12-byte header and a frame, in two pieces) in the same batches
//! over sockets with the same buffers, or over rings that hold as much. The bare loop is the least
//! that can move them: blocking `sendmmsg` and `recvmmsg` with arguments that are filled once, and
//! not one look at what came. Ours and the ring do not block, wait by `poll`, and check each
//! header.

mod bare;
mod ours;

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use sekisho_framelink::{GsoType, HEADER_LEN, NetHdr, pair};
use serde::{Deserialize, Serialize};

use crate::{
    BenchError, Options, part,
    report::{Bar, Op, Pairs, Report, Table, percentile},
};

/// Name of the second process.
pub const PEER: &str = "link-peer";

/// Slices of one run, in which the contenders take turns; the best of each counts.
const SLICES: usize = 8;

/// How long one slice sends.
const SEND_FOR: Duration = Duration::from_millis(50);

/// Round trips of one slice.
const ROUND_TRIPS: usize = 300;

/// Ours must move at least this much of what the bare loop moves.
const LIMIT: f64 = 0.9;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Contender {
    Ours,
    Bare,
    Ring,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Ours, Self::Bare, Self::Ring];
}

/// Lengths of Ethernet frames, in bytes: a bare acknowledgement, a full frame, a super-frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Size {
    Small,
    Full,
    Super,
}

impl Size {
    const ALL: [Self; 3] = [Self::Small, Self::Full, Self::Super];

    fn bytes(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Full => 1514,
            Self::Super => 65_536,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Small => "64 B",
            Self::Full => "1514 B",
            Self::Super => "64 KiB",
        }
    }

    /// Messages of one system call; more super-frames than 8 do not fit the socket's buffer.
    fn batch(self) -> usize {
        match self {
            Self::Small | Self::Full => 64,
            Self::Super => 8,
        }
    }

    fn header(self) -> [u8; HEADER_LEN] {
        match self {
            Self::Small | Self::Full => NetHdr::default(),
            Self::Super => NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1448, 66),
        }
        .emit()
    }
}

/// What the second process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    /// Takes all that comes until end of file.
    Take,
    /// Sends back each frame that comes.
    Echo,
}

/// What one side saw.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Measured {
    frames: u64,
    seconds: f64,
    cpu_seconds: f64,
}

/// One end of either contender. Both calls wait.
trait End {
    /// Sends up to `frames` messages, at least one, and returns how many.
    fn send(&mut self, frames: usize) -> Result<usize, BenchError>;
    /// Takes a batch; 0 is end of file.
    fn take(&mut self) -> Result<usize, BenchError>;
}

fn end(contender: Contender, size: Size, socket: OwnedFd) -> Result<Box<dyn End>, BenchError> {
    Ok(match contender {
        Contender::Ours => Box::new(ours::Ours::over_socket(socket, size)?),
        Contender::Ring => Box::new(ours::Ours::over_ring(socket, size)?),
        Contender::Bare => Box::new(bare::Bare::new(socket, size)?),
    })
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let _seat = part::Seat::take(0)?;
    let mut report = Report::of("link");
    let mut socket = table("ours / bare SEQPACKET loop", options);
    let mut ring = table("ring / ours", options);
    for size in Size::ALL {
        let found = compare(size, options)?;
        socket.row(found.socket.row(size));
        ring.row(found.ring.row(size));
        report.bars.push(Bar::new(
            format!(
                "link {}: frames a second, ratio to the bare loop",
                size.label()
            ),
            found.socket.rate.ratio(),
            Op::AtLeast,
            LIMIT,
        ));
    }
    report.tables.extend([socket, ring]);
    Ok(report)
}

fn table(who: &str, options: Options) -> Table {
    Table::new(
        format!(
            "link: two processes on cores 0 and 1, {who}, medians of {} paired runs (each the best \
             of {SLICES} slices)",
            options.runs
        ),
        &[
            "frame",
            "Mpps",
            "Gbit/s",
            "ratio (range)",
            "CPU ns/frame send",
            "CPU ns/frame take",
            "round trip p50 us",
            "p99 us",
        ],
    )
}

/// Both medians as one cell.
fn both(pairs: &Pairs, scale: f64, digits: usize) -> String {
    format!(
        "{:.digits$} / {:.digits$}",
        pairs.ours() * scale,
        pairs.peer() * scale
    )
}

/// What one size of frame showed of two contenders: frames a second, seconds of processor time a
/// frame, seconds of a round trip.
#[derive(Debug, Default)]
struct Figures {
    rate: Pairs,
    send_cpu: Pairs,
    take_cpu: Pairs,
    half: Pairs,
    slowest: Pairs,
}

impl Figures {
    fn push(&mut self, one: &Best, other: &Best) {
        self.rate.push(one.rate, other.rate);
        self.send_cpu.push(one.send_cpu, other.send_cpu);
        self.take_cpu.push(one.take_cpu, other.take_cpu);
        self.half.push(one.half, other.half);
        self.slowest.push(one.slowest, other.slowest);
    }

    fn row(&self, size: Size) -> [String; 8] {
        let bits = 8.0 * count(size.bytes() as u64);
        [
            size.label().to_owned(),
            both(&self.rate, 1e-6, 3),
            both(&self.rate, bits * 1e-9, 2),
            self.rate.ratio_cell(),
            both(&self.send_cpu, 1e9, 0),
            both(&self.take_cpu, 1e9, 0),
            both(&self.half, 1e6, 1),
            both(&self.slowest, 1e6, 1),
        ]
    }
}

/// What one size of frame showed.
#[derive(Debug, Default)]
struct Found {
    /// Ours and the bare loop.
    socket: Figures,
    /// The ring and ours.
    ring: Figures,
}

fn compare(size: Size, options: Options) -> Result<Found, BenchError> {
    let mut found = Found::default();
    for run in 0..options.runs {
        eprintln!(
            "link: {}, run {} of {}",
            size.label(),
            run + 1,
            options.runs
        );
        let [mut ours, mut bare, mut ring] = [const { Best::new() }; 3];
        for slice in 0..SLICES {
            // Each goes first in turn.
            for turn in 0..Contender::ALL.len() {
                let contender = Contender::ALL[(run + slice + turn) % Contender::ALL.len()];
                match contender {
                    Contender::Ours => &mut ours,
                    Contender::Bare => &mut bare,
                    Contender::Ring => &mut ring,
                }
                .slice(contender, size)?;
            }
        }
        found.socket.push(&ours, &bare);
        found.ring.push(&ring, &ours);
    }
    Ok(found)
}

/// The best slice of one contender's run, figure by figure: the one that the rest of the machine
/// disturbed least.
#[derive(Debug)]
struct Best {
    rate: f64,
    send_cpu: f64,
    take_cpu: f64,
    half: f64,
    slowest: f64,
}

impl Best {
    const fn new() -> Self {
        Self {
            rate: 0.0,
            send_cpu: f64::INFINITY,
            take_cpu: f64::INFINITY,
            half: f64::INFINITY,
            slowest: f64::INFINITY,
        }
    }

    fn slice(&mut self, contender: Contender, size: Size) -> Result<(), BenchError> {
        let cpu = |measured: Measured| measured.cpu_seconds / count(measured.frames);
        let (sent, taken) = throughput(contender, size)?;
        self.rate = self.rate.max(count(taken.frames) / taken.seconds);
        self.send_cpu = self.send_cpu.min(cpu(sent));
        self.take_cpu = self.take_cpu.min(cpu(taken));
        let trips = round_trips(contender, size)?;
        self.half = self.half.min(percentile(trips.clone(), 50));
        self.slowest = self.slowest.min(percentile(trips, 99));
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
fn count(number: u64) -> f64 {
    number as f64
}

/// Starts the second process and gives our end.
fn start(
    contender: Contender,
    size: Size,
    task: Task,
) -> Result<(Box<dyn End>, part::Part), BenchError> {
    let (here, there) = pair()?;
    let arguments = [json(&contender)?, json(&size)?, json(&task)?];
    let peer = part::start(PEER, &arguments, there)?;
    Ok((end(contender, size, here)?, peer))
}

fn json<T: Serialize>(value: &T) -> Result<String, BenchError> {
    serde_json::to_string(value)
        .map_err(std::io::Error::from)
        .map_err(BenchError::system("name the task"))
}

/// Sends for a while; gives what the sender and the taker measured.
fn throughput(contender: Contender, size: Size) -> Result<(Measured, Measured), BenchError> {
    let (mut end, peer) = start(contender, size, Task::Take)?;
    // The first frames only tell that the peer is there.
    let mut frames = end.send(1)? as u64;
    let (start, cpu) = (Instant::now(), part::cpu_time());
    while start.elapsed() < SEND_FOR {
        frames += end.send(size.batch())? as u64;
    }
    let sent = Measured {
        frames,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: part::cpu_time().saturating_sub(cpu).as_secs_f64(),
    };
    drop(end);
    let taken: Measured = peer.finish()?;
    if taken.frames != frames {
        return Err(BenchError::Part {
            part: PEER.to_owned(),
            said: format!("{} frames came of {frames}", taken.frames),
        });
    }
    Ok((sent, taken))
}

/// Seconds of each round trip of one frame.
fn round_trips(contender: Contender, size: Size) -> Result<Vec<f64>, BenchError> {
    let (mut end, peer) = start(contender, size, Task::Echo)?;
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    for trip in 0..=ROUND_TRIPS {
        let start = Instant::now();
        end.send(1)?;
        if end.take()? != 1 {
            break;
        }
        // The first one waits for the peer to start.
        if trip > 0 {
            trips.push(start.elapsed().as_secs_f64());
        }
    }
    drop(end);
    peer.finish::<Measured>()?;
    Ok(trips)
}

/// The second process: `contender size task`, with the socket as its standard input.
pub fn peer(arguments: &[String]) -> Result<(), BenchError> {
    let usage = || BenchError::Missing(format!("{PEER} is started by `link` only"));
    let [contender, size, task] = arguments else {
        return Err(usage());
    };
    let contender = serde_json::from_str(contender).map_err(|_| usage())?;
    let size = serde_json::from_str(size).map_err(|_| usage())?;
    let task: Task = serde_json::from_str(task).map_err(|_| usage())?;
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(BenchError::system("take the socket"))?;
    let _seat = part::Seat::take(1)?;
    let mut end = end(contender, size, socket)?;

    let mut frames = end.take()? as u64;
    let (start, cpu) = (Instant::now(), part::cpu_time());
    if task == Task::Echo {
        end.send(1)?;
    }
    loop {
        match end.take()? {
            0 => break,
            taken => frames += taken as u64,
        }
        if task == Task::Echo {
            end.send(1)?;
        }
    }
    part::tell(&Measured {
        frames,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: part::cpu_time().saturating_sub(cpu).as_secs_f64(),
    })
}
