//! The order in which an image's file gets to the medium.
//!
//! Between two flushes a host writes in whatever order it likes. A raw image stands that; one with
//! tables does not: after a power cut a table may point to data that never came, or to a cluster whose
//! count says that it is free. So here a table is written alone: what was written before it is on the
//! medium first, and nothing else is written before it is there itself. Each state that a power cut
//! leaves is then one that a killed VMM could have left, whose order `imago` keeps: counts before the
//! tables that use a cluster, the other way round when it is freed.
//!
//! `imago` writes data and tables to two storages, as if the data were in another file; so they can be
//! told from each other.

use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::sync::Arc;

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
