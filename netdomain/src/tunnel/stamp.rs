//! The newest TAI64N timestamp that this laptop ever put into a handshake.
//!
//! A gateway refuses a handshake that is not stamped later than the last one (`WireGuard`
//! whitepaper, section 5.1). A laptop whose clock went back, because its battery was empty, would
//! be refused until the time has passed again. So the last stamp is kept in a file that is opened
//! before the sandbox closes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Why the stamp could not be kept.
#[derive(Debug, Error)]
pub enum StampError {
    /// The file could not be opened.
    #[error(
        "cannot open the handshake timestamp {path}; give --state a folder that the gate may write"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the handshake timestamp")]
    Write(#[source] io::Error),
}

/// Seconds and nanoseconds since 1970 with their own complement behind them, so that a torn write
/// is noticed.
const RECORD: usize = 24;
/// The file is synced to disk at most this often: a power cut then costs one stamp, which matters
/// only if the clock is lost in the same moment.
const SYNC_EVERY: Duration = Duration::from_mins(1);

/// The open file.
#[derive(Debug)]
pub struct StampFile {
    file: File,
    newest: Duration,
    synced: Duration,
}

impl StampFile {
    /// Opens or makes `wireguard-stamp` in `folder`. A file that cannot be understood counts as
    /// empty: the gateway is then the judge.
    pub fn open(folder: &Path) -> Result<Self, StampError> {
        let path = folder.join("wireguard-stamp");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(|source| StampError::Open { path, source })?;
        let mut record = [0; RECORD];
        let newest = match file.read_exact_at(&mut record, 0) {
            Ok(()) => parse(&record).unwrap_or_default(),
            Err(_) => Duration::ZERO,
        };
        Ok(Self {
            file,
            newest,
            synced: Duration::ZERO,
        })
    }

    /// The newest stamp ever used.
    pub const fn newest(&self) -> Duration {
        self.newest
    }

    /// Keeps `stamp` if it is newer than what is kept.
    pub fn keep(&mut self, stamp: Duration) -> Result<(), StampError> {
        if stamp <= self.newest {
            return Ok(());
        }
        self.file
            .write_all_at(&format(stamp), 0)
            .map_err(StampError::Write)?;
        if stamp.saturating_sub(self.synced) >= SYNC_EVERY {
            self.file.sync_data().map_err(StampError::Write)?;
            self.synced = stamp;
        }
        self.newest = stamp;
        Ok(())
    }
}

fn format(stamp: Duration) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&stamp.as_secs().to_le_bytes());
    record[8..12].copy_from_slice(&stamp.subsec_nanos().to_le_bytes());
    for at in 0..12 {
        record[12 + at] = !record[at];
    }
    record
}

fn parse(record: &[u8; RECORD]) -> Option<Duration> {
    if (0..12).any(|at| record[12 + at] != !record[at]) {
        return None;
    }
    let seconds = u64::from_le_bytes(record[..8].try_into().ok()?);
    let nanos = u32::from_le_bytes(record[8..12].try_into().ok()?);
    // A stamp near the end of time would leave no room to count on.
    (seconds < u64::from(u32::MAX) * 4 && nanos < 1_000_000_000)
        .then(|| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_newer_stamps_and_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StampFile::open(folder.path()).unwrap();
        assert_eq!(file.newest(), Duration::ZERO);
        file.keep(Duration::from_secs(1_800_000_001)).unwrap();
        file.keep(Duration::from_secs(5)).unwrap();
        let again = StampFile::open(folder.path()).unwrap();
        assert_eq!(again.newest(), Duration::from_secs(1_800_000_001));
    }

    #[test]
    fn a_torn_record_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wireguard-stamp"), [7; RECORD]).unwrap();
        assert_eq!(
            StampFile::open(folder.path()).unwrap().newest(),
            Duration::ZERO
        );
    }
}
