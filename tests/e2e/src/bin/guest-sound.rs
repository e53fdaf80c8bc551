//! Plays a tone inside the work OS, or says which one it hears, by the kernel's old interface for sound
//! (OSS, Linux `include/uapi/linux/soundcard.h`), which needs no library.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Frames a second, of two samples of 16 bits.
const RATE: u32 = 48_000;
const FRAME: usize = 4;
/// Loud, and not the loudest.
const PEAK: i16 = 12_000;

const DSP_SPEED: Opcode = opcode::read_write::<i32>(b'P', 2);
const DSP_SETFMT: Opcode = opcode::read_write::<i32>(b'P', 5);
const DSP_CHANNELS: Opcode = opcode::read_write::<i32>(b'P', 6);
const AFMT_S16_LE: i32 = 0x10;
/// What a mixer may be asked to set: volume, PCM, speaker, microphone, recording level, input gain.
const MIXER_WRITE: [Opcode; 6] = [
    opcode::read_write::<i32>(b'M', 0),
    opcode::read_write::<i32>(b'M', 4),
    opcode::read_write::<i32>(b'M', 5),
    opcode::read_write::<i32>(b'M', 7),
    opcode::read_write::<i32>(b'M', 11),
    opcode::read_write::<i32>(b'M', 12),
];
const MIXER_RECMASK: Opcode = opcode::read::<i32>(b'M', 0xfd);
const MIXER_WRITE_RECSRC: Opcode = opcode::read_write::<i32>(b'M', 0xff);
/// Left and right, in hundredths.
const LOUDEST: i32 = 0x6464;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Play a square wave.
    Play { hertz: u32, seconds: u32 },
    /// Record, and say how many frames most waves were long; 0: there were none.
    Hear { seconds: u32 },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Play { hertz, seconds } => play(hertz, seconds),
        What::Hear { seconds } => hear(seconds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-sound: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks a driver with a number, which it answers with one.
fn ask<const CODE: Opcode>(file: &File, value: i32) -> io::Result<i32> {
    let mut value = value;
    // SAFETY: each code used here reads and writes one `int`.
    unsafe { ioctl(file, Updater::<CODE, i32>::new(&mut value)) }?;
    Ok(value)
}

/// A driver begins with everything muted.
fn unmute() -> io::Result<()> {
    let mixer = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/mixer")?;
    // A mixer has some of them.
    let _ = ask::<{ MIXER_WRITE[0] }>(&mixer, LOUDEST);
    let _ = ask::<{ MIXER_WRITE[1] }>(&mixer, LOUDEST);
    let _ = ask::<{ MIXER_WRITE[2] }>(&mixer, LOUDEST);
    let _ = ask::<{ MIXER_WRITE[3] }>(&mixer, LOUDEST);
    let _ = ask::<{ MIXER_WRITE[4] }>(&mixer, LOUDEST);
    let _ = ask::<{ MIXER_WRITE[5] }>(&mixer, LOUDEST);
    let sources = ask::<MIXER_RECMASK>(&mixer, 0)?;
    ask::<MIXER_WRITE_RECSRC>(&mixer, sources)?;
    Ok(())
}

fn card(file: File) -> io::Result<File> {
    for (got, wanted) in [
        (ask::<DSP_SETFMT>(&file, AFMT_S16_LE)?, AFMT_S16_LE),
        (ask::<DSP_CHANNELS>(&file, 2)?, 2),
        (ask::<DSP_SPEED>(&file, 48_000)?, 48_000),
    ] {
        if got != wanted {
            return Err(io::Error::other(format!("asked for {wanted}, got {got}")));
        }
    }
    Ok(file)
}

fn play(hertz: u32, seconds: u32) -> io::Result<()> {
    unmute()?;
    let mut card = card(OpenOptions::new().write(true).open("/dev/dsp")?)?;
    let half = (RATE / hertz / 2).max(1);
    let wave: Vec<u8> = (0..RATE * seconds)
        .map(|frame| {
            if (frame / half).is_multiple_of(2) {
                PEAK
            } else {
                -PEAK
            }
        })
        .flat_map(|sample| [sample.to_le_bytes(), sample.to_le_bytes()].concat())
        .collect();
    // Closing waits until all of it was played.
    card.write_all(&wave)
}

fn hear(seconds: u32) -> io::Result<()> {
    unmute()?;
    let mut card = card(File::open("/dev/dsp")?)?;
    let frames = usize::try_from(RATE * seconds).unwrap_or(0);
    let mut bytes = vec![0; frames * FRAME];
    card.read_exact(&mut bytes)?;
    let left: Vec<i16> = (bytes.chunks_exact(FRAME))
        .map(|frame| i16::from_le_bytes([frame[0], frame[1]]))
        .collect();
    // Of all the distances between two waves the one in the middle: a busy machine leaves gaps.
    let mut rises = (1..left.len()).filter(|at| left[at - 1] < 0 && left[*at] >= 0);
    let mut last = rises.next().unwrap_or(0);
    let mut apart: Vec<usize> = rises
        .map(|at| at - std::mem::replace(&mut last, at))
        .collect();
    apart.sort_unstable();
    let wave = apart.get(apart.len() / 2).copied().unwrap_or(0);
    println!("{wave}");
    Ok(())
}
