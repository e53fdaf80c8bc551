//! Power cuts at any write of an image: the file lies on a medium with a cache that loses what was not
//! flushed, or some of it, in any order. QEMU's `qemu-img check` judges the tables that are left, the
//! image itself what of the guest's data is there.
//!
//! A few cuts by default; `SEKISHO_CUTS` is how many of each kind.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::raw::Raw;
use imago::storage::drivers::CommonStorageHelper;

use super::open::access;
use super::*;

const SECTOR: usize = 512;
/// Bytes of the guest's disk: several tables of each kind with clusters of 4 KiB.
const DISK: u64 = 20 << 20;
const CLUSTERS: usize = 4096;
const CUTS: usize = 12;

/// Numbers that look like chance, the same in each run.
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }
}

/// What the cache holds and what is on the medium.
#[derive(Debug)]
struct Medium {
    /// As the host sees it.
    seen: Vec<u8>,
    /// What a power cut leaves in any case.
    safe: Vec<u8>,
    /// Written since: sector by sector, each of which may be there or not.
    loose: Vec<(usize, Vec<u8>)>,
    /// A flush does not flush.
    lies: bool,
    chance: Chance,
    /// Of how many writes one is cut; 0: none.
    cut_one_of: u64,
    /// What a cut has left.
    left: Option<Vec<u8>>,
}

impl Medium {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end.next_multiple_of(SECTOR), 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        for at in (offset - offset % SECTOR..end).step_by(SECTOR) {
            self.loose.push((at, self.seen[at..at + SECTOR].to_vec()));
        }
        if self.cut_one_of > 0 && self.left.is_none() && self.chance.below(self.cut_one_of) == 0 {
            self.cut();
        }
    }

    fn sync(&mut self) {
        if !self.lies {
            settle(&mut self.safe, self.loose.drain(..));
        }
    }

    /// Of the loose sectors none, all, or any are there.
    fn cut(&mut self) {
        let mut left = self.safe.clone();
        let share = self.chance.below(5);
        let mut chance = self.chance.clone();
        let there = self.loose.iter().filter(|_| chance.below(4) < share);
        settle(&mut left, there.cloned());
        self.chance = chance;
        self.left = Some(left);
    }
}

fn settle(bytes: &mut Vec<u8>, sectors: impl Iterator<Item = (usize, Vec<u8>)>) {
    for (at, sector) in sectors {
        if bytes.len() < at + SECTOR {
            bytes.resize(at + SECTOR, 0);
        }
        bytes[at..at + SECTOR].copy_from_slice(&sector);
    }
}

#[derive(Debug, Clone)]
struct Disk {
    medium: Arc<Mutex<Medium>>,
    helper: Arc<CommonStorageHelper>,
}

impl Disk {
    fn new(bytes: Vec<u8>, lies: bool, seed: u64) -> Self {
        let medium = Medium {
            seen: bytes.clone(),
            safe: bytes,
            loose: Vec::new(),
            lies,
            chance: Chance(seed),
            cut_one_of: 0,
            left: None,
        };
        Self {
            medium: Arc::new(Mutex::new(medium)),
            helper: Arc::default(),
        }
    }
}

impl Display for Disk {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a disk with a cache")
    }
}

impl Storage for Disk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.medium.lock().unwrap().seen.len() as u64)
    }

    unsafe fn pure_readv(&self, mut bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let medium = self.medium.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(medium.seen.len());
        let length = usize::try_from(bufv.len()).unwrap();
        let mut bytes = medium.seen[from..medium.seen.len().min(from + length)].to_vec();
        bytes.resize(length, 0);
        bufv.copy_from_slice(&bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(bufv.len()).unwrap()];
        bufv.copy_into_slice(&mut bytes);
        self.medium.lock().unwrap().write(offset, &bytes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.lock().unwrap().sync();
        Ok(())
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}

/// What each sector of the guest's may hold: what the last flush made sure of, or what was written since.
/// A sector is filled with one number.
struct Expected(Vec<Vec<u64>>);

impl Expected {
    fn written(&mut self, range: &Range<u64>, number: u64) {
        for sector in range.start / SECTOR as u64..range.end / SECTOR as u64 {
            self.0[usize::try_from(sector).unwrap()].push(number);
        }
    }

    fn flushed(&mut self) {
        for sector in &mut self.0 {
            sector.drain(..sector.len() - 1);
        }
    }

    /// The first sector that holds something else.
    fn wrong(&self, image: &Image<Disk>) -> Option<String> {
        let mut bytes = vec![0; usize::try_from(DISK).unwrap()];
        if let Err(error) = image.read(&mut bytes, 0) {
            return Some(format!("cannot be read: {error}"));
        }
        let wrong = |(number, (sector, expected)): (usize, (&[u8], &Vec<u64>))| {
            let first = u64::from_le_bytes(sector[..8].try_into().unwrap());
            let whole = sector.chunks(8).all(|part| part == &sector[..8]);
            (!whole || !expected.contains(&first))
                .then(|| format!("sector {number} holds {first}, not one of {expected:?}"))
        };
        let sectors = bytes.chunks(SECTOR).zip(&self.0);
        sectors.enumerate().find_map(wrong)
    }
}

fn qemu_img(arguments: &[&str]) -> Option<i32> {
    let output = Command::new("qemu-img").args(arguments).output();
    output.ok()?.status.code()
}

/// The bytes of an image that `qemu-img` makes, and of its base.
fn made(kind: Kind, folder: &Path) -> (Vec<u8>, Option<Vec<u8>>) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (base, image) = (path("base"), path("image"));
    let content: Vec<u8> = (0..DISK).map(|at| u8::from(at % 8 == 0)).collect();
    std::fs::write(&base, &content).unwrap();
    let options = format!("cluster_size={CLUSTERS}");
    let size = DISK.to_string();
    let mut line = match kind {
        Kind::Plain => vec!["create", "-q", "-f", "qcow2", "-o", &options, &image, &size],
        Kind::Overlay => vec!["create", "-q", "-f", "qcow2", "-o", &options],
        Kind::Compressed => vec![
            "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", &options, &base, &image,
        ],
    };
    if matches!(kind, Kind::Overlay) {
        line.extend(["-F", "raw", "-b", &base, &image]);
    }
    assert_eq!(qemu_img(&line), Some(0));
    let base = matches!(kind, Kind::Overlay).then_some(content);
    (std::fs::read(image).unwrap(), base)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Overlay,
    /// Each cluster moves to another place when it is written.
    Compressed,
}

fn open(disk: Disk, base: Option<&Vec<u8>>) -> io::Result<Image<Disk>> {
    let base = base.map(|bytes| {
        let disk = Disk::new(bytes.clone(), false, 1);
        FormatAccess::new(Raw::open_image(Ordered::data(disk), false).unwrap())
    });
    let access = access(disk, true, base)?;
    Ok(Image { access, kept: true })
}

/// Cuts the power of an image in use again and again, and goes on with what is left, or with a new image,
/// whose tables are made first; after how many cuts clusters had leaked, or what is wrong first.
fn cut(kind: Kind, cuts: usize, lies: bool) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let (new, base) = made(kind, folder.path());
    let mut bytes = new.clone();
    let file = folder.path().join("image");
    let file_name = file.to_string_lossy();
    let before = u64::from(!matches!(kind, Kind::Plain));
    let mut chance = Chance(0x5ec1_5b0a_7f0e_4c55);
    let mut leaked = 0;
    let fresh = || Expected(vec![vec![before]; usize::try_from(DISK).unwrap() / SECTOR]);
    let mut expected = fresh();
    let mut number = before;
    for turn in 0..cuts {
        let anew = turn % 3 == 0;
        if anew {
            bytes = new.clone();
            expected = fresh();
        }
        let disk = Disk::new(bytes, lies, chance.below(u64::MAX));
        let medium = disk.medium.clone();
        let mut image = open(disk, base.as_ref()).map_err(|error| error.to_string())?;
        if let Some(wrong) = expected.wrong(&image) {
            return Err(format!("before cut {turn}: {wrong}"));
        }
        // What is there now is what the medium holds.
        expected = Expected(read(&image));
        medium.lock().unwrap().cut_one_of = 1 + chance.below(if anew { 40 } else { 400 });
        bytes = loop {
            let start = chance.below(DISK / SECTOR as u64) * SECTOR as u64;
            let most = if chance.below(8) == 0 {
                1 << 20
            } else {
                32 << 10
            };
            let length = (1 + chance.below(most / SECTOR as u64)) * SECTOR as u64;
            let range = start..(start + length).min(DISK);
            number += 1;
            match chance.below(12) {
                0 => {
                    image.flush().unwrap();
                    if medium.lock().unwrap().left.is_none() {
                        expected.flushed();
                    }
                }
                1 => {
                    expected.written(&range, 0);
                    image.zero(&range, number % 2 == 0).unwrap();
                }
                _ => {
                    expected.written(&range, number);
                    let sectors = usize::try_from(range.end - range.start).unwrap() / 8;
                    image
                        .write(&number.to_le_bytes().repeat(sectors), range.start)
                        .unwrap();
                }
            }
            if let Some(left) = medium.lock().unwrap().left.take() {
                break left;
            }
        };
        // What was in the caches ends with the VMM.
        drop(image);
        std::fs::write(&file, &bytes).unwrap();
        match qemu_img(&["check", "-q", "-f", "qcow2", &file_name]) {
            Some(0) => {}
            Some(3) => leaked += 1,
            status => return Err(format!("cut {turn}: qemu-img check says {status:?}")),
        }
    }
    Ok(leaked)
}

/// What the image holds, each sector for sure.
fn read(image: &Image<Disk>) -> Vec<Vec<u64>> {
    let mut bytes = vec![0; usize::try_from(DISK).unwrap()];
    image.read(&mut bytes, 0).unwrap();
    let first = |sector: &[u8]| vec![u64::from_le_bytes(sector[..8].try_into().unwrap())];
    bytes.chunks(SECTOR).map(first).collect()
}

fn cuts() -> Option<usize> {
    if qemu_img(&["--version"]) != Some(0) {
        sekisho_skip::skip("qemu-img is missing (Debian package qemu-utils)");
        return None;
    }
    let asked = std::env::var("SEKISHO_CUTS").ok();
    Some(asked.map_or(CUTS, |count| count.parse().unwrap()))
}

#[test]
fn a_power_cut_leaves_a_whole_image_with_all_that_was_flushed() {
    let Some(cuts) = cuts() else { return };
    for kind in [Kind::Plain, Kind::Overlay, Kind::Compressed] {
        let leaked = cut(kind, cuts, false);
        println!("{kind:?}: {cuts} cuts, clusters leaked after {leaked:?} of them");
        assert!(leaked.is_ok(), "{kind:?}: {leaked:?}");
    }
}

/// The control: on a medium whose flush does nothing, the same cuts are found to damage or lose.
#[test]
fn a_medium_that_lies_is_found_out() {
    let Some(cuts) = cuts() else { return };
    for kind in [Kind::Plain, Kind::Overlay, Kind::Compressed] {
        let found = cut(kind, cuts, true);
        println!("{kind:?}: {found:?}");
        assert!(found.is_err(), "{kind:?}");
    }
}
