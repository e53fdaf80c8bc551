//! The header of a qcow2 image, looked at before anything believes it (QEMU, `docs/interop/qcow2.txt`).
//!
//! What is refused here is what would make the VMM open a file that nobody named, what needs a key, and
//! sizes that would take host memory without bound. The tables behind the header are checked by
//! `imago`, entry by entry, as they are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use thiserror::Error;

/// Bytes of the header of version 3.
const LEN: usize = 104;
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Clusters from 4 KiB to 64 KiB: what `qemu-img` makes by itself. 160 tables of one cluster each are
/// kept in memory, 10 MiB.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 12..=16;
/// Entries of the first-level table: 8 MiB of memory, 512 TiB with clusters of 64 KiB.
const MAX_L1: u32 = 1 << 20;
/// Bytes of the table of reference counts.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Reference counts of 16 bits, as `qemu-img` makes them: what is told of tables in time knows no others.
const COUNT_ORDER: u32 = 4;
/// Longest name of a backing file.
const MAX_NAME: usize = 1023;

/// Why an image is not opened.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another format.
    #[error("it is no qcow2 image; give format=raw, or the right file")]
    Magic,
    /// An old version.
    #[error("its version is {0}, which is not 3; make it so with `qemu-img amend -o compat=1.1`")]
    Version(u32),
    /// A backing file that nobody named.
    #[error(
        "it names the backing file {0:?}, which is never opened by itself; give that file as path= and this \
         image as overlay="
    )]
    Backing(String),
    /// Another base than the one given.
    #[error(
        "it holds the changes to {found:?}, and the base given is {given:?}; give that one, or, if it only \
         was moved, say so with `qemu-img rebase -u -F raw -b NEW`"
    )]
    OtherBase {
        /// In the image.
        found: String,
        /// On the command line.
        given: String,
    },
    /// No overlay.
    #[error("it names no backing file, and so holds no changes to a base")]
    NoBase,
    /// A key.
    #[error("it is encrypted, which is not supported; encrypt what it lies on")]
    Encrypted,
    /// Data in another file.
    #[error("its data are in another file, which is never opened by itself")]
    DataFile,
    /// Not closed.
    #[error("it was not closed properly; repair it with `qemu-img check -r all`")]
    Dirty,
    /// Broken.
    #[error("it is marked as corrupt; see `qemu-img check`")]
    Corrupt,
    /// Features unknown here.
    #[error(
        "it needs features that are not supported ({0:#x}); convert it with `qemu-img convert`"
    )]
    Features(u64),
    /// Snapshots inside.
    #[error(
        "it has snapshots inside, which are not supported; delete them with `qemu-img snapshot -d`"
    )]
    Snapshots,
    /// Clusters.
    #[error("its clusters have 2^{0} bytes, not 2^12 to 2^16; convert it with `qemu-img convert`")]
    Clusters(u32),
    /// Reference counts.
    #[error("its reference counts have not 16 bits; convert it with `qemu-img convert`")]
    Counts,
    /// Tables.
    #[error("its tables are larger than any disk needs; it is damaged")]
    Tables,
}

/// What an image may name as its backing file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backing<'a> {
    Nothing,
    /// The file that was given.
    Given(&'a str),
}

/// Looks at the header of `file`.
pub(super) fn check(file: &File, backing: Backing<'_>) -> io::Result<Result<(), Refusal>> {
    let mut header = [0; LEN];
    let length = read(file, &mut header, 0)?;
    if length < LEN {
        return Ok(Err(Refusal::Magic));
    }
    let fields = match Fields::parse(&header) {
        Ok(fields) => fields,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut name = vec![0; fields.name_len.min(MAX_NAME)];
    // It is in the first cluster or nowhere.
    let inside = fields.name_at < 1 << CLUSTER_BITS.end();
    let there = if inside {
        read(file, &mut name, fields.name_at)?
    } else {
        0
    };
    name.truncate(there);
    let name = (fields.name_at != 0).then(|| String::from_utf8_lossy(&name).into_owned());
    Ok(match (name, backing) {
        (None, Backing::Nothing) => Ok(()),
        (None, Backing::Given(_)) => Err(Refusal::NoBase),
        (Some(name), Backing::Nothing) => Err(Refusal::Backing(name)),
        (Some(name), Backing::Given(given)) if name == given => Ok(()),
        (Some(found), Backing::Given(given)) => Err(Refusal::OtherBase {
            found,
            given: given.to_owned(),
        }),
    })
}

fn read(file: &File, data: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(&mut data[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Where the name of a backing file is.
struct Fields {
    name_at: u64,
    name_len: usize,
}

impl Fields {
    fn parse(header: &[u8; LEN]) -> Result<Self, Refusal> {
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let quad = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        if header[..4] != MAGIC {
            return Err(Refusal::Magic);
        }
        if word(4) != 3 {
            return Err(Refusal::Version(word(4)));
        }
        let cluster_bits = word(20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Refusal::Clusters(cluster_bits));
        }
        if word(32) != 0 {
            return Err(Refusal::Encrypted);
        }
        let features = quad(72);
        for (bit, refusal) in [
            (0, Refusal::Dirty),
            (1, Refusal::Corrupt),
            (2, Refusal::DataFile),
        ] {
            if features >> bit & 1 != 0 {
                return Err(refusal);
            }
        }
        if features != 0 {
            return Err(Refusal::Features(features));
        }
        if word(60) != 0 {
            return Err(Refusal::Snapshots);
        }
        if word(96) != COUNT_ORDER {
            return Err(Refusal::Counts);
        }
        // One entry of the first table stands for a cluster of entries of 8 bytes.
        let covered = (u64::from(word(36))) << (2 * cluster_bits - 3);
        let counts = u64::from(word(56)) << cluster_bits;
        if word(36) > MAX_L1 || counts > MAX_REFCOUNT_TABLE || quad(24) > covered {
            return Err(Refusal::Tables);
        }
        Ok(Self {
            name_at: quad(8),
            name_len: usize::try_from(word(16)).unwrap_or(usize::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of an image of 1 GiB.
    fn header() -> [u8; LEN] {
        let mut header = [0; LEN];
        for (at, value) in [
            (4, 3_u32),
            (20, 16),
            (28, 1 << 30),
            (36, 2),
            (44, 0x30000),
            (52, 0x10000),
            (56, 1),
            (96, 4),
            (100, 104),
        ] {
            header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        header[..4].copy_from_slice(&MAGIC);
        header
    }

    fn outcome(changes: &[(usize, u32)], name: &[u8], backing: Backing<'_>) -> Result<(), Refusal> {
        let mut bytes = header().to_vec();
        for (at, value) in changes {
            bytes[*at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        bytes.extend(name);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        check(&file, backing).unwrap()
    }

    #[test]
    fn headers_are_taken_or_refused_with_the_reason() {
        assert_eq!(outcome(&[], b"", Backing::Nothing), Ok(()));
        for (changes, refusal) in [
            ([(0, 0)], Refusal::Magic),
            ([(4, 2)], Refusal::Version(2)),
            ([(20, 21)], Refusal::Clusters(21)),
            ([(20, u32::MAX)], Refusal::Clusters(u32::MAX)),
            ([(32, 1)], Refusal::Encrypted),
            ([(32, 2)], Refusal::Encrypted),
            ([(76, 1)], Refusal::Dirty),
            ([(76, 2)], Refusal::Corrupt),
            ([(76, 4)], Refusal::DataFile),
            ([(76, 8)], Refusal::Features(8)),
            ([(72, 1 << 31)], Refusal::Features(1 << 63)),
            ([(60, 1)], Refusal::Snapshots),
            ([(96, 3)], Refusal::Counts),
            ([(36, 1)], Refusal::Tables),
            ([(36, u32::MAX)], Refusal::Tables),
            ([(56, u32::MAX)], Refusal::Tables),
            ([(24, u32::MAX)], Refusal::Tables),
        ] {
            assert_eq!(outcome(&changes, b"", Backing::Nothing), Err(refusal));
        }
        let short = tempfile::tempfile().unwrap();
        short.write_all_at(&header()[..LEN - 1], 0).unwrap();
        assert_eq!(
            check(&short, Backing::Nothing).unwrap(),
            Err(Refusal::Magic)
        );
    }

    #[test]
    fn no_backing_file_but_the_one_given() {
        let named = [(12, 104), (16, 9)];
        let shadow = Refusal::Backing("/dev/null".into());
        let outcome = |changes: &[_], backing| outcome(changes, b"/dev/null", backing);
        assert_eq!(outcome(&named, Backing::Nothing), Err(shadow));
        assert_eq!(outcome(&named, Backing::Given("/dev/null")), Ok(()));
        assert_eq!(outcome(&[], Backing::Given("/x")), Err(Refusal::NoBase));
        let other = outcome(&named, Backing::Given("/x"));
        assert!(matches!(other, Err(Refusal::OtherBase { .. })), "{other:?}");
        // A name that is nowhere, or too long.
        let nowhere = [(8, u32::MAX), (16, u32::MAX)];
        let refused = outcome(&nowhere, Backing::Nothing);
        assert_eq!(refused, Err(Refusal::Backing(String::new())));
    }
}
