//! Reads classic pcap files (`draft-ietf-opsawg-pcap`) as tcpdump writes them on this machine.

use std::{
    fmt,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::LabError;

/// Microsecond times in the byte order of the machine that wrote the file.
const MAGIC: u32 = 0xa1b2_c3d4;

/// Longer records do not come from tcpdump with its own snap length of 262144.
const MAX_RECORD: usize = 262_144;

/// Microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u64);

impl At {
    /// Now, by the clock that stamps captures.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// One recorded frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When it passed.
    pub at: At,
    /// The frame from its destination MAC on; an interface without Ethernet gives IP packets.
    pub bytes: &'a [u8],
}

/// Calls `each` for every record of a file. A last record that is cut short, as a killed tcpdump
/// leaves it, ends the file.
pub fn read(path: &Path, mut each: impl FnMut(Frame<'_>)) -> Result<(), LabError> {
    let failed = |what: String| LabError::Recording {
        file: path.to_path_buf(),
        what,
    };
    let mut file = BufReader::with_capacity(
        1 << 20,
        File::open(path).map_err(|error| failed(error.to_string()))?,
    );
    let mut header = [0; 24];
    file.read_exact(&mut header)
        .map_err(|_| failed("it has no header".into()))?;
    if word(&header, 0) != MAGIC {
        return Err(failed("it is not a pcap file of this machine".into()));
    }
    let mut bytes = Vec::new();
    let mut record = [0; 16];
    while file.read_exact(&mut record).is_ok() {
        let length = word(&record, 8) as usize;
        if length > MAX_RECORD {
            return Err(failed(format!("a record of {length} bytes")));
        }
        bytes.resize(length, 0);
        if file.read_exact(&mut bytes).is_err() {
            break;
        }
        let at = At(u64::from(word(&record, 0)) * 1_000_000 + u64::from(word(&record, 4)));
        each(Frame { at, bytes: &bytes });
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_short_ends_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = Vec::new();
        for word in [MAGIC, 0x0004_0002, 0, 0, 262_144, 1, 7, 9, 3, 3] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(b"abc");
        for word in [8_u32, 0, 100, 100] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(b"short");
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let mut seen = Vec::new();
        read(file.path(), |frame| {
            seen.push((frame.at, frame.bytes.to_vec()));
        })
        .unwrap();
        assert_eq!(seen, [(At(7_000_009), b"abc".to_vec())]);
    }
}
