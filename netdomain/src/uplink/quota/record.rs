//! The usage on the disk. The file is opened before the sandbox closes and then only written in
//! place, so it has two records that are written in turn: a power cut tears the one that is being
//! written, and the other one is whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::civil::Date;

use super::Mark;

/// Name of the file, and of the one that becomes it.
const NAME: &str = "sim-usage";
const FRESH: &str = "sim-usage.new";
/// Where a record begins: two records never share a sector, nor a page of flash.
const PITCH: u64 = 4096;
/// What each record begins with.
const MAGIC: [u8; 8] = *b"sekisho1";
/// Bytes of a record, before its complement.
const LENGTH: usize = 64;
const WHOLE: usize = 2 * LENGTH;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// First day of the month that is counted.
    pub(crate) month: Date,
    /// Bytes used in it.
    pub(crate) used: u64,
    /// The boot that `last` is of.
    pub(crate) boot: [u8; 16],
    /// The interface that was counted last.
    pub(crate) last: Option<Mark>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A whole record.
    Usage(Usage),
    /// A file without one.
    Damaged,
}

/// Why the usage could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("the SIM's usage cannot be kept at {path}: {source}; without it there is no SIM")]
pub(crate) struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct UsageFile {
    file: File,
    path: PathBuf,
    /// Number of the newest record; its parity is its place.
    sequence: u64,
}

impl UsageFile {
    /// Opens the file in `folder` and gives what it holds; `None` where there was no file.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<Kept>), RecordError> {
        let path = folder.join(NAME);
        let failed = |source| RecordError {
            path: path.clone(),
            source,
        };
        let existing = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match existing {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = make(folder).map_err(failed)?;
                let fresh = Self {
                    file,
                    path,
                    sequence: 0,
                };
                return Ok((fresh, None));
            }
            Err(error) => return Err(failed(error)),
        };
        let mut newest: Option<(u64, Option<Usage>)> = None;
        for place in 0..2 {
            let mut record = [0; WHOLE];
            if file.read_exact_at(&mut record, place * PITCH).is_ok()
                && let Some((sequence, usage)) = parse(&record)
                && sequence % 2 == place
                && newest.as_ref().is_none_or(|(newer, _)| sequence > *newer)
            {
                newest = Some((sequence, usage));
            }
        }
        let (sequence, kept) = match newest {
            None => (0, Some(Kept::Damaged)),
            Some((sequence, usage)) => (sequence, usage.map(Kept::Usage)),
        };
        let file = Self {
            file,
            path,
            sequence,
        };
        Ok((file, kept))
    }

    /// Keeps `usage` through any crash from now on.
    pub(crate) fn keep(&mut self, usage: &Usage) -> Result<(), RecordError> {
        let sequence = self.sequence.wrapping_add(1);
        let record = format(sequence, Some(usage));
        self.file
            .write_all_at(&record, sequence % 2 * PITCH)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| RecordError {
                path: self.path.clone(),
                source,
            })?;
        self.sequence = sequence;
        Ok(())
    }
}

/// Makes a file that says that nothing was ever counted, whole or not at all.
fn make(folder: &Path) -> io::Result<File> {
    let fresh = folder.join(FRESH);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&format(0, None))?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(NAME))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn format(sequence: u64, usage: Option<&Usage>) -> [u8; WHOLE] {
    let mut record = [0; WHOLE];
    record[..8].copy_from_slice(&MAGIC);
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    if let Some(usage) = usage {
        record[16] = 1;
        record[17] = usage.month.month().cast_unsigned();
        record[18] = usage.month.day().cast_unsigned();
        record[20..22].copy_from_slice(&usage.month.year().to_le_bytes());
        record[24..32].copy_from_slice(&usage.used.to_le_bytes());
        record[32..48].copy_from_slice(&usage.boot);
        if let Some(mark) = usage.last {
            record[19] = 1;
            record[48..52].copy_from_slice(&mark.index.to_le_bytes());
            record[56..64].copy_from_slice(&mark.bytes.to_le_bytes());
        }
    }
    // Its own complement behind it, so that a torn write is noticed.
    for at in 0..LENGTH {
        record[LENGTH + at] = !record[at];
    }
    record
}

/// The record's number, and its usage if there was any yet.
fn parse(record: &[u8; WHOLE]) -> Option<(u64, Option<Usage>)> {
    let whole = (0..LENGTH).all(|at| record[LENGTH + at] == !record[at]);
    if !whole || record[..8] != MAGIC {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let sequence = number(8)?;
    if record[16] == 0 {
        return Some((sequence, None));
    }
    let year = i16::from_le_bytes([record[20], record[21]]);
    let month = Date::new(year, record[17].cast_signed(), record[18].cast_signed()).ok()?;
    let last = if record[19] == 0 {
        None
    } else {
        Some(Mark {
            index: u32::from_le_bytes(record[48..52].try_into().ok()?),
            bytes: number(56)?,
        })
    };
    let usage = Usage {
        month,
        used: number(24)?,
        boot: record[32..48].try_into().ok()?,
        last,
    };
    Some((sequence, Some(usage)))
}

/// Reads `data` as a record that somebody wrote: see [`crate::fuzzing`].
///
/// # Panics
/// When a record does not say the same once it is written again.
pub(crate) fn fuzz(data: &[u8]) {
    let mut record = [0; WHOLE];
    let length = data.len().min(LENGTH);
    record[..length].copy_from_slice(&data[..length]);
    // A fuzzer does not guess the complement, so an input without one gets it.
    match data.get(LENGTH..WHOLE) {
        Some(complement) => record[LENGTH..].copy_from_slice(complement),
        None => (0..LENGTH).for_each(|at| record[LENGTH + at] = !record[at]),
    }
    if let Some((sequence, usage)) = parse(&record) {
        let again = format(sequence, usage.as_ref());
        assert_eq!(parse(&again), Some((sequence, usage)));
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn usage(used: u64) -> Usage {
        Usage {
            month: date(2026, 11, 1),
            used,
            boot: [7; 16],
            last: Some(Mark {
                index: 3,
                bytes: used / 2,
            }),
        }
    }

    #[test]
    fn usage_survives_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, kept) = UsageFile::open(folder.path()).unwrap();
        assert_eq!(kept, None);
        let (_, kept) = UsageFile::open(folder.path()).unwrap();
        assert_eq!(kept, None, "a file in which nothing was counted yet");
        for used in [1, 1 << 40, u64::MAX] {
            file.keep(&usage(used)).unwrap();
            let (_, kept) = UsageFile::open(folder.path()).unwrap();
            assert_eq!(kept, Some(Kept::Usage(usage(used))));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// A power cut at each byte of a write: the old usage or the new one, never none.
    #[test]
    fn a_torn_write_leaves_the_record_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = UsageFile::open(folder.path()).unwrap();
        file.keep(&usage(1000)).unwrap();
        file.keep(&usage(2000)).unwrap();
        let path = folder.path().join(NAME);
        let before = fs::read(&path).unwrap();
        file.keep(&usage(3000)).unwrap();
        let after = fs::read(&path).unwrap();
        for cut in 0..=after.len() {
            let torn: Vec<u8> = [&after[..cut], &before[cut..]].concat();
            fs::write(&path, torn).unwrap();
            let Some(Kept::Usage(found)) = UsageFile::open(folder.path()).unwrap().1 else {
                panic!("nothing after a cut at {cut}");
            };
            assert!([2000, 3000].contains(&found.used), "{found:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for wrong in [vec![], vec![0; 10_000], vec![0xff; 10_000]] {
            fs::write(&path, wrong).unwrap();
            let (mut file, kept) = UsageFile::open(folder.path()).unwrap();
            assert_eq!(kept, Some(Kept::Damaged));
            file.keep(&usage(5)).unwrap();
            assert_eq!(
                UsageFile::open(folder.path()).unwrap().1,
                Some(Kept::Usage(usage(5)))
            );
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(
            UsageFile::open(folder.path()).is_err(),
            "a link is not followed"
        );
    }
}
