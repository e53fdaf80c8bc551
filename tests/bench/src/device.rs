//! The network card alone: a guest driver in this process on one side, a gate that only takes or
//! gives on the other, no VM.
//!
//! One thread does everything in turn, and only the card's part of it is timed: from the notification
//! until all chains are used. Its peer is the frame link alone, moving the same frames between the
//! same sockets from private memory: so the ratio says what rings, checks and copies cost.

mod guest;

use std::time::{Duration, Instant};

use sekisho_framelink::{
    FrameArena, FrameLink as _, GsoType, HEADER_LEN, Message, NetHdr, Offloads, Rules, Segment,
    SeqPacket, pair,
};

use self::guest::Guest;
use crate::{
    BenchError, Options, part,
    report::{Pairs, Report, Table},
};

/// How long one contender moves frames in one run.
const MOVE_FOR: Duration = Duration::from_millis(150);
/// Pause after it: without one the kernel stops a thread that goes first for 50 ms of each second.
const REST: Duration = Duration::from_millis(20);
/// Longest IP packet of the card.
const MTU: u16 = 1500;

/// Lengths of Ethernet frames, in bytes: a full frame, a super-frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Full,
    Super,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Full => 1514,
            Self::Super => 65_226,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Full => "1514 B",
            Self::Super => "super-frame",
        }
    }

    /// Frames a notification: what fits the queue and the socket's buffer.
    fn batch(self) -> usize {
        match self {
            Self::Full => 64,
            Self::Super => 6,
        }
    }

    fn header(self) -> NetHdr {
        match self {
            Self::Full => NetHdr::default(),
            Self::Super => NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1448, 66),
        }
    }

    fn message(self) -> Vec<u8> {
        let mut message = self.header().emit().to_vec();
        message.resize(HEADER_LEN + self.bytes(), 0x5a);
        message
    }
}

/// Which way the frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToGate,
    ToGuest,
}

/// Frames, and the time and processor time they took.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    frames: usize,
    time: Duration,
    cpu: Duration,
}

impl Measured {
    /// Times one batch.
    fn add(
        &mut self,
        work: impl FnOnce() -> Result<usize, BenchError>,
    ) -> Result<usize, BenchError> {
        let (start, cpu) = (Instant::now(), part::cpu_time());
        let moved = work()?;
        self.time += start.elapsed();
        self.cpu += part::cpu_time().saturating_sub(cpu);
        self.frames += moved;
        Ok(moved)
    }

    fn rate(self) -> f64 {
        count(self.frames) / self.time.as_secs_f64()
    }

    fn cpu_each(self) -> f64 {
        self.cpu.as_secs_f64() / count(self.frames)
    }
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let _seat = part::Seat::take(0)?;
    let mut report = Report::of("device");
    let mut table = Table::new(
        format!(
            "device: virtio-net in process on one core, card / bare frame link, medians of {} \
             paired runs",
            options.runs
        ),
        &[
            "frame",
            "way",
            "Mpps",
            "Gbit/s",
            "ratio (range)",
            "CPU ns/frame",
        ],
    );
    for (size, way) in [
        (Size::Full, Way::ToGate),
        (Size::Full, Way::ToGuest),
        (Size::Super, Way::ToGate),
        (Size::Super, Way::ToGuest),
    ] {
        let (mut rate, mut cpu) = (Pairs::default(), Pairs::default());
        for run in 0..options.runs {
            eprintln!(
                "device: {} {way:?}, run {} of {}",
                size.label(),
                run + 1,
                options.runs
            );
            // Whoever goes first goes second in the next run.
            let (card, link) = if run % 2 == 0 {
                let card = through_card(size, way)?;
                (card, through_link(size, way)?)
            } else {
                let link = through_link(size, way)?;
                (through_card(size, way)?, link)
            };
            rate.push(card.rate(), link.rate());
            cpu.push(card.cpu_each(), link.cpu_each());
        }
        let bits = 8.0 * count(size.bytes());
        let both = |pairs: &Pairs, scale: f64, digits: usize| {
            format!(
                "{:.digits$} / {:.digits$}",
                pairs.ours() * scale,
                pairs.peer() * scale
            )
        };
        table.row([
            size.label().to_owned(),
            match way {
                Way::ToGate => "to gate",
                Way::ToGuest => "to guest",
            }
            .to_owned(),
            both(&rate, 1e-6, 3),
            both(&rate, bits * 1e-9, 2),
            rate.ratio_cell(),
            both(&cpu, 1e9, 0),
        ]);
    }
    report.tables.push(table);
    Ok(report)
}

fn rules() -> Rules {
    Rules {
        offloads: Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            uso: true,
        },
        mtu: MTU,
    }
}

fn through_card(size: Size, way: Way) -> Result<Measured, BenchError> {
    let (vmm, gate) = pair()?;
    let mut gate = SeqPacket::from_fd(gate, rules())?;
    let mut guest = Guest::new(vmm, MTU)?;
    let message = size.message();
    let mut arena = FrameArena::new(64);
    std::thread::sleep(REST);
    let mut measured = Measured::default();
    let start = Instant::now();
    while start.elapsed() < MOVE_FOR {
        match way {
            Way::ToGate => {
                guest.offer_frames(&message, size.batch())?;
                let moved = measured.add(|| guest.run_transmit(size.batch()))?;
                drain(&mut gate, &mut arena, moved)?;
            }
            Way::ToGuest => {
                guest.offer_buffers()?;
                give(&mut gate, &message, size.batch())?;
                measured.add(|| guest.run_receive(&message, size.batch()))?;
            }
        }
    }
    Ok(measured)
}

fn through_link(size: Size, way: Way) -> Result<Measured, BenchError> {
    let (here, there) = pair()?;
    let mut here = SeqPacket::from_fd(here, rules())?;
    let mut there = SeqPacket::from_fd(there, rules())?;
    let message = size.message();
    let mut arena = FrameArena::new(64);
    std::thread::sleep(REST);
    let mut measured = Measured::default();
    let start = Instant::now();
    while start.elapsed() < MOVE_FOR {
        match way {
            Way::ToGate => {
                let moved = measured.add(|| give(&mut here, &message, size.batch()))?;
                drain(&mut there, &mut arena, moved)?;
            }
            Way::ToGuest => {
                let moved = give(&mut there, &message, size.batch())?;
                measured.add(|| drain(&mut here, &mut arena, moved))?;
            }
        }
    }
    Ok(measured)
}

/// Sends `frames` times the same message; the socket has room for them.
fn give(link: &mut SeqPacket, message: &[u8], frames: usize) -> Result<usize, BenchError> {
    let (header, frame) = message.split_at(HEADER_LEN);
    let segments = [Segment::from(header), Segment::from(frame)];
    let messages: Vec<Message<'_>> = vec![&segments; frames];
    let sent = link.send_batch(&messages)?;
    if sent < frames {
        return Err(BenchError::Missing(format!(
            "the socket has no room for {frames} frames; raise net.core.wmem_max"
        )));
    }
    Ok(sent)
}

/// Takes `frames` messages, which are there.
fn drain(link: &mut SeqPacket, arena: &mut FrameArena, frames: usize) -> Result<usize, BenchError> {
    let mut taken = 0;
    while taken < frames {
        let batch = link.recv_batch(arena)?;
        if batch == 0 {
            return Err(BenchError::Missing(format!(
                "only {taken} of {frames} frames came through"
            )));
        }
        taken += batch;
    }
    Ok(taken)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}
