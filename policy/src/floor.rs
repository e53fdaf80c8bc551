//! The floor on the disk: which policy was applied last, so that a restart does not forget it.
//!
//! The file is replaced whole (written beside, synced, renamed, its folder synced), so a power cut
//! leaves the old floor or the new one, never a torn one. A file that is there and cannot be
//! understood is therefore damage or somebody's work, and does not count as "no policy was applied
//! yet": whoever could spoil it would otherwise bring any older policy back. Only a file that is
//! not there is an empty memory: a laptop's first start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::value::hex;
use crate::verify::Floor;

const NAME: &str = "policy-floor";
/// What is being written. Left behind only by a crash, and never read.
const FRESH: &str = "policy-floor.new";
/// A version of 20 digits, a digest of 32 numbers, an instant, a check of 64 digits: some 350
/// bytes.
const MAX_RECORD: usize = 1024;

/// Why the floor is not known, or could not be kept. No policy may be applied then.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The folder or the file cannot be read.
    #[error("the memory of the last applied policy cannot be read at {path}: {source}")]
    Read {
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not as it was written.
    #[error(
        "{path} is damaged, so nobody knows which policy was applied last; if the policy at hand is \
         the newest one, remove this file and start again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error(
        "{path} cannot be written ({source}); without a memory of it no policy is applied: give \
         --state a folder that can be written"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file that keeps the floor, in a folder that is the gate's own. One process writes it, any
/// number may read it at the same time.
#[derive(Debug, Clone)]
pub struct FloorFile {
    folder: PathBuf,
}

impl FloorFile {
    /// The floor's file in `folder`, which must be there: in a folder that is missing, or is named
    /// wrongly, every policy would be the first.
    ///
    /// # Errors
    /// [`FloorError::Read`] if `folder` is no folder.
    pub fn in_folder(folder: &Path) -> Result<Self, FloorError> {
        let failed = |source| FloorError::Read {
            path: folder.to_owned(),
            source,
        };
        if !fs::metadata(folder).map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The floor; the lowest one if none was ever kept here.
    ///
    /// # Errors
    /// [`FloorError::Read`] and [`FloorError::Damaged`]: there is a floor, and it is not known.
    pub fn read(&self) -> Result<Floor, FloorError> {
        let path = self.folder.join(NAME);
        let failed = |source| FloorError::Read {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Floor::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut record = Vec::new();
        file.take(MAX_RECORD as u64 + 1)
            .read_to_end(&mut record)
            .map_err(failed)?;
        parse(&record).ok_or(FloorError::Damaged { path })
    }

    /// Keeps `floor` through any crash from now on. Call it with a floor that
    /// [`verify`](crate::verify()) gave, before that policy is applied.
    ///
    /// # Errors
    /// [`FloorError::Write`]; the old floor is then still there.
    pub fn keep(&self, floor: &Floor) -> Result<(), FloorError> {
        let fresh = self.folder.join(FRESH);
        self.replace(&fresh, &format(floor))
            .map_err(|source| FloorError::Write {
                path: self.folder.join(NAME),
                source,
            })
    }

    fn replace(&self, fresh: &Path, record: &str) -> io::Result<()> {
        match fs::remove_file(fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // New or not at all: nobody's link is followed to another place.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(fresh)?;
        file.write_all(record.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// JSON in one line, and its SHA-256 in the next.
fn format(floor: &Floor) -> String {
    // Numbers, an array and a string: nothing that JSON could not say.
    let json = serde_json::to_string(floor).unwrap_or_default();
    let check = hex(&Sha256::digest(&json));
    format!("{json}\n{check}\n")
}

fn parse(record: &[u8]) -> Option<Floor> {
    if record.len() > MAX_RECORD {
        return None;
    }
    let (json, check) = std::str::from_utf8(record).ok()?.split_once('\n')?;
    (check.strip_suffix('\n')? == hex(&Sha256::digest(json)))
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(version: u64) -> Floor {
        Floor {
            version,
            digest: Some([0xff; 32]),
            time: "2026-11-22T09:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn t50_the_floor_survives_restarts_and_crashes_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = FloorFile::in_folder(folder.path()).unwrap();
        assert_eq!(file.read().unwrap(), Floor::default(), "the first start");
        file.keep(&floor(u64::MAX)).unwrap();
        let again = FloorFile::in_folder(folder.path()).unwrap();
        assert_eq!(again.read().unwrap(), floor(u64::MAX));
        // What a power cut left of a write that never came to its rename.
        let half = &format(&floor(9))[..40];
        fs::write(folder.path().join(FRESH), half).unwrap();
        assert_eq!(again.read().unwrap(), floor(u64::MAX));
        again.keep(&floor(7)).unwrap();
        assert_eq!(again.read().unwrap(), floor(7));
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing is left behind");
    }

    #[test]
    fn t50_a_damaged_floor_is_never_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = FloorFile::in_folder(folder.path()).unwrap();
        let path = folder.path().join(NAME);
        let whole = format(&floor(42)).into_bytes();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let read = file.read();
            assert!(matches!(read, Err(FloorError::Damaged { .. })), "{length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(file.read().is_err(), "byte {at}");
        }
        let longer = [&whole[..], b"\n"].concat();
        for wrong in [vec![0; 400], vec![b' '; 1 << 20], longer] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(file.read(), Err(FloorError::Damaged { .. })));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(file.read(), Err(FloorError::Read { .. })));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, whole).unwrap();
        assert_eq!(file.read().unwrap(), floor(42));
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("elsewhere");
        assert!(FloorFile::in_folder(&missing).is_err());
        fs::write(&missing, "").unwrap();
        assert!(FloorFile::in_folder(&missing).is_err());
    }
}
