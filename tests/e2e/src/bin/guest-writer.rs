//! Writes to a disk inside the work OS and says what the disk has answered for; later looks whether that
//! is there.
//!
//! Write number N of a run goes to a block that follows from N, and each sector of it says its run, its
//! number and its block. So what has to be on a disk follows from how many writes of each run were
//! flushed.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::ExitCode;
use std::thread;

use clap::{Parser, Subcommand};

const SECTOR: usize = 512;
/// Of a block: 4 KiB.
const SECTORS: usize = 8;
const BLOCK: usize = SECTOR * SECTORS;
/// Blocks in use, far apart, so that an image has several tables.
const BLOCKS: u64 = 1024;
const APART: u64 = 8;
/// Writes before each flush, at most.
const BATCH: u64 = 64;
/// `O_DIRECT` of x86-64: each write is a request.
const DIRECT: i32 = 0o40000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write to all the disks until the end comes; a line "DISK COUNT" for each flush that was answered.
    Write { run: u64, disks: Vec<String> },
    /// Look for what the runs, each given as RUN:COUNT, have had flushed.
    Verify { disk: String, runs: Vec<String> },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Write { run, disks } => write_all(run, disks),
        What::Verify { disk, runs } => verify(&disk, &runs),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-writer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(run: u64, disks: Vec<String>) -> io::Result<()> {
    let writers: Vec<_> = (0..)
        .zip(disks)
        .map(|(index, disk)| thread::spawn(move || write(run, index, &disk)))
        .collect();
    for writer in writers {
        writer
            .join()
            .map_err(|_| io::Error::other("a writer panicked"))??;
    }
    Ok(())
}

fn write(run: u64, index: u64, disk: &str) -> io::Result<()> {
    let file = open(disk)?;
    let mut memory = vec![0; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = &mut memory[start..start + BLOCK];
    let mut number = 0;
    loop {
        for _ in 0..=mixed(run, number) % BATCH {
            let place = place(run, number);
            for (sector, bytes) in (0..).zip(block.chunks_mut(SECTOR)) {
                let words = [run + 1, number, place, sector];
                for (bytes, word) in bytes.chunks_mut(8).zip(words.iter().cycle()) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
            }
            file.write_all_at(block, place * APART * BLOCK as u64)?;
            number += 1;
        }
        file.sync_data()?;
        // One write: lines of several disks do not mix.
        io::stdout().write_all(format!("{index} {number}\n").as_bytes())?;
    }
}

fn open(disk: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(DIRECT)
        .open(disk)
}

/// A number that follows from two.
fn mixed(run: u64, number: u64) -> u64 {
    let mut mixed = (run << 32 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

/// Where a write goes.
fn place(run: u64, number: u64) -> u64 {
    mixed(run, number.wrapping_add(1 << 31)) % BLOCKS
}

fn verify(disk: &str, runs: &[String]) -> io::Result<()> {
    // The last flushed write to each block.
    let mut last = BTreeMap::new();
    for run in runs {
        let words = run.split_once(':');
        let parsed = words.and_then(|(run, count)| Some((run.parse().ok()?, count.parse().ok()?)));
        let (run, count): (u64, u64) = parsed.ok_or_else(|| io::Error::other("RUN:COUNT"))?;
        last.extend((0..count).map(|number| (place(run, number), (run + 1, number))));
    }
    let file = OpenOptions::new().read(true).open(disk)?;
    let mut block = [0; BLOCK];
    for number in 0..BLOCKS {
        file.read_exact_at(&mut block, number * APART * BLOCK as u64)?;
        let flushed = last.get(&number).copied().unwrap_or_default();
        for (sector, bytes) in (0..).zip(block.chunks(SECTOR)) {
            let found = Found::parse(bytes).filter(|found| found.fits(number, sector));
            let found = found
                .ok_or_else(|| broken(disk, number, sector, "holds what was never written"))?;
            if (found.run, found.number) < flushed {
                let what = format!("holds {found:?}, and {flushed:?} was flushed");
                return Err(broken(disk, number, sector, &what));
            }
        }
    }
    println!("{} blocks of {disk} were flushed and are there", last.len());
    Ok(())
}

fn broken(disk: &str, block: u64, sector: u64, what: &str) -> io::Error {
    io::Error::other(format!("{disk}, block {block}, sector {sector}: {what}"))
}

/// What a sector says.
#[derive(Debug)]
struct Found {
    run: u64,
    number: u64,
    place: u64,
    sector: u64,
}

impl Found {
    /// Whole, or nothing.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let &[run, number, place, sector] = words.first_chunk::<4>()?;
        let same = words.chunks(4).all(|chunk| chunk == &words[..4]);
        same.then_some(Self {
            run,
            number,
            place,
            sector,
        })
    }

    /// Whether it was written there; run 0 is what the disk held at first.
    fn fits(&self, block: u64, sector: u64) -> bool {
        let empty = [self.number, self.place, self.sector] == [0; 3];
        match self.run.checked_sub(1) {
            None => empty,
            Some(run) => {
                (self.place, self.sector) == (block, sector) && place(run, self.number) == block
            }
        }
    }
}
