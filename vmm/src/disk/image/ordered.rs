//! The order in which an image's file gets to the medium.
//!
//! Between two flushes a host writes in whatever order it likes. A raw image stands that; one with
//! tables does not: after a power cut a table may point to data that never came, or to a cluster whose
//! count says that it is free. So here a table is written alone: what was written before it is on the
//! medium first, and nothing else is written before it is there itself. Each state that a power cut
//! leaves is then one that a killed VMM could have left, whose order `imago` keeps: counts before the
//! tables that use a cluster, the other way round when it is freed.
//!
//! It keeps that for the guest's data. Of the tables themselves it enters a new one into its directory
//! (`L1`, or the reference count table) at once, while the count of the cluster that the table takes is
//! still in a cache: who comes after a crash would find it free and put data into it. So such an entry is
//! held here until the count is in the file, where the cache will write the same.
//!
//! `imago` writes data and tables to two storages, as if the data were in another file; so they can be
//! told from each other.

use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;

use super::header::CLUSTER_BITS;

/// Bytes of an entry in a directory of tables, and the bits of it that are the table's place.
const ENTRY: u64 = 8;
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;

/// What may not be on the medium yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    Data,
    Table,
    /// The host could not write it, and does not say again what was lost: nothing that is written after
    /// it could be relied on.
    Lost,
}

/// What is written through a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Tables,
}

struct Shared<S> {
    storage: S,
    pending: Mutex<Pending>,
}

/// A file, or the one of its two parts.
pub(super) struct Ordered<S> {
    shared: Arc<Shared<S>>,
    part: Part,
}

impl<S: Storage> Ordered<S> {
    /// A file without tables.
    pub(super) fn data(storage: S) -> Self {
        Self::pair(storage).1
    }

    /// The tables and the data of one file.
    pub(super) fn pair(storage: S) -> (Self, Self) {
        let pending = Mutex::new(Pending::Nothing);
        let shared = Arc::new(Shared { storage, pending });
        let part = |part| Self {
            shared: shared.clone(),
            part,
        };
        (part(Part::Tables), part(Part::Data))
    }

    fn storage(&self) -> &S {
        &self.shared.storage
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        let pending = self.shared.pending.lock();
        pending.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, in the file, the cluster of a table that `bytes` enters into a directory at `offset`;
    /// does nothing where they are something else (QEMU, `docs/interop/qcow2.txt`).
    fn count(&self, offset: u64, bytes: &IoVector<'_>) -> io::Result<()> {
        // Entries are written alone, tables as whole clusters.
        if self.part == Part::Data || bytes.len() != ENTRY {
            return Ok(());
        }
        let mut entry = [0; 8];
        bytes.copy_into_slice(&mut entry);
        let table = u64::from_be_bytes(entry) & PLACE;
        let header: [u8; 64] = self.read(0)?;
        let word = |at: usize| u64::from(u32::from_be_bytes(four(&header[at..])));
        let place = |at: usize| word(at) << 32 | word(at + 4);
        // What was checked may since have been written over, by a directory that the image puts there.
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let cluster_bits = u32::from_be_bytes(four(&header[20..]));
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(broken());
        }
        let (counts, counts_length) = (place(48), word(56) << cluster_bits);
        let inside =
            |start: u64, length: u64| (start..start.saturating_add(length)).contains(&offset);
        let directory = inside(place(40), word(36) * ENTRY) || inside(counts, counts_length);
        if table == 0 || !directory {
            return Ok(());
        }
        // A block of counts is a cluster of numbers of 16 bits: the header was checked.
        let cluster = table >> cluster_bits;
        let block_bits = cluster_bits - 1;
        let entry = (cluster >> block_bits) * ENTRY;
        let block = if entry < counts_length {
            u64::from_be_bytes(self.read(counts.saturating_add(entry))?) & PLACE
        } else {
            0
        };
        if block == 0 {
            // The new table is this very block, and counts itself.
            return Ok(());
        }
        let at = block + (cluster & ((1 << block_bits) - 1)) * 2;
        if at + 2 > self.storage().size()? {
            return Err(broken());
        }
        if self.read(at)? != [0; 2] {
            return Ok(());
        }
        let one = 1_u16.to_be_bytes();
        // SAFETY: as for the write that this one goes before.
        self.write(|storage| unsafe { storage.pure_writev(IoVector::from(&one[..]), at) })
    }

    fn read<const LENGTH: usize>(&self, offset: u64) -> io::Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        // SAFETY: a file takes any alignment, and nobody else writes to this one.
        unsafe {
            let into = IoVectorMut::from(&mut bytes[..]);
            self.storage().pure_readv(into, offset)?;
        }
        Ok(bytes)
    }

    /// Writes something, once what has to be on the medium before it is there.
    fn write(&self, write: impl FnOnce(&S) -> io::Result<()>) -> io::Result<()> {
        let mut pending = self.pending();
        let (after, together) = match self.part {
            Part::Data => (Pending::Data, Pending::Data),
            Part::Tables => (Pending::Table, Pending::Nothing),
        };
        if *pending != together {
            self.settle(&mut pending)?;
        }
        *pending = after;
        write(self.storage())
    }

    /// Everything that was written is on the medium.
    fn settle(&self, pending: &mut Pending) -> io::Result<()> {
        match pending {
            Pending::Nothing => return Ok(()),
            Pending::Lost => return Err(io::Error::from_raw_os_error(libc::EIO)),
            Pending::Data | Pending::Table => {}
        }
        *pending = Pending::Lost;
        self.storage().sync()?;
        *pending = Pending::Nothing;
        Ok(())
    }
}

/// The first four of these bytes, which are there.
fn four(bytes: &[u8]) -> [u8; 4] {
    std::array::from_fn(|at| bytes[at])
}

impl<S: Storage> Debug for Ordered<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.part, self.storage())
    }
}

impl<S: Storage> Display for Ordered<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self.storage(), f)
    }
}

impl<S: Storage> Storage for Ordered<S> {
    fn mem_align(&self) -> usize {
        self.storage().mem_align()
    }

    fn req_align(&self) -> usize {
        self.storage().req_align()
    }

    fn zero_align(&self) -> usize {
        self.storage().zero_align()
    }

    fn discard_align(&self) -> usize {
        self.storage().discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.storage().size()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: what the caller promises is asked of it by the same rule.
        unsafe { self.storage().pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        self.count(offset, &bufv)?;
        // SAFETY: as above.
        self.write(|storage| unsafe { storage.pure_writev(bufv, offset) })
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as above.
        self.write(|storage| unsafe { storage.pure_write_zeroes(offset, length) })
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as above.
        self.write(|storage| unsafe { storage.pure_write_allocated_zeroes(offset, length) })
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as above.
        self.write(|storage| unsafe { storage.pure_discard(offset, length) })
    }

    fn flush(&self) -> io::Result<()> {
        self.storage().flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.settle(&mut self.pending())
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.storage().settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { self.storage().invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.storage().get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.write(|storage| storage.resize(new_size, mode))
    }
}
