//! Sealed memory: what this process writes and its peer reads, and the other way round.
//!
//! All `unsafe` of the ring is here. Nobody ever has a reference to bytes that the other process
//! may write: words are atomics, the rest is copied by raw pointers, and every offset is bounded.

use std::{
    ffi::c_void,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use sekisho_framelink::Segment;

use crate::{Refused, index::LINE};

/// The words' own page, before the records.
pub(super) const HEAD: usize = 4096;

/// What memory must be sealed against: shrinking, because reading past its end would be a SIGBUS;
/// growing; new writable mappings, because only its maker writes; more seals.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// The words of a head, a cache line each.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Word {
    /// Of the producer in a ring, of the consumer in its own memory.
    Index = 0,
    /// The peer's index from which on the sleeper wants to be woken, or 0.
    Want = LINE,
}

/// A shared mapping, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and there is one owner of it here.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags) -> Result<Self, Errno> {
        // Populated, so that no page fault comes between the frames later.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses where, so nothing that is mapped is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        debug_assert!(self.len >= HEAD);
        // SAFETY: each word lies in the head, which every mapping has, and is aligned, as the
        // mapping starts a page. Atomics may change under a reference. In memory that is mapped
        // read-only `Theirs` only loads, relaxed, which works there (`std::sync::atomic`, "Atomic
        // accesses to read-only memory").
        unsafe { self.start.add(word as usize).cast().as_ref() }
    }

    /// Where the ring's byte `at` lies and how many lie behind it up to the end.
    fn records(&self, at: usize) -> (*mut u8, usize) {
        let left = self.len.saturating_sub(HEAD).saturating_sub(at);
        if left == 0 {
            return (std::ptr::null_mut(), 0);
        }
        // SAFETY: `HEAD + at` is less than the length of the mapping.
        (unsafe { self.start.add(HEAD + at).as_ptr() }, left)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference into it lives longer than
        // `self`. It can only fail for a range that is none.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// The length field of the record that starts here: aligned, as records start cache lines.
fn field(start: *mut u8) -> *const AtomicU32 {
    start.cast_const().cast()
}

/// Memory of this process, which it alone writes.
#[derive(Debug)]
pub(super) struct Own(Mapping);

impl Own {
    /// `len` bytes of sealed memory and the descriptor by which the peer maps them.
    pub(super) fn new(name: &str, len: usize) -> Result<(Self, OwnedFd), Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3.
            Err(Errno::INVAL) => memfd_create(name, flags),
            made => made,
        }?;
        ftruncate(&fd, len as u64)?;
        let mapping = Mapping::new(fd.as_fd(), len, ProtFlags::READ | ProtFlags::WRITE)?;
        fcntl_add_seals(&fd, SEALS)?;
        Ok((Self(mapping), fd))
    }

    /// Publishes a word, and with it all that was written before.
    pub(super) fn publish(&self, word: Word, value: u64) {
        self.0.word(word).store(value, Ordering::Release);
    }

    /// Writes the length of the record that starts at byte `at` of the ring.
    pub(super) fn set_len(&mut self, at: usize, len: u32) {
        let (start, left) = self.0.records(at);
        if left >= size_of::<u32>() && at.is_multiple_of(LINE) {
            // SAFETY: four bytes are there, aligned as the record is; the peer only reads.
            let field = unsafe { &*field(start) };
            field.store(len, Ordering::Relaxed);
        }
    }

    /// Copies a piece of a message to byte `at` of the ring, and goes on at its start where it
    /// ends. More than the ring holds is cut.
    pub(super) fn write(&mut self, at: usize, piece: Segment<'_>) {
        let (start, left) = self.0.records(at);
        let first = piece.len().min(left);
        let (begin, ring) = self.0.records(0);
        let second = (piece.len() - first).min(ring);
        // SAFETY: what is written lies in this mapping, to which no reference exists; the source is
        // mapped and readable by the contract of `Segment`. If somebody writes to it meanwhile,
        // some mixture arrives, which the receiver checks as it checks all else.
        unsafe {
            std::ptr::copy(piece.as_ptr(), start, first);
            std::ptr::copy(piece.as_ptr().add(first), begin, second);
        }
    }
}

/// Memory of the peer, mapped read-only. What it says may change at any time.
#[derive(Debug)]
pub(super) struct Theirs(Mapping);

impl Theirs {
    /// Maps what the peer sent, if it is `len` bytes and sealed.
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> Result<Self, Refused> {
        // Only memory of the kernel has seals, and nobody takes them off again: what is checked
        // now stays so.
        match fcntl_get_seals(fd) {
            Ok(seals) if seals.contains(SEALS) => {}
            Ok(_) | Err(Errno::INVAL) => return Err(Refused::Seals),
            Err(errno) => return Err(Refused::System(errno)),
        }
        if u64::try_from(fstat(fd)?.st_size) != Ok(len as u64) {
            return Err(Refused::Size);
        }
        Ok(Self(Mapping::new(fd, len, ProtFlags::READ)?))
    }

    /// Loads a word once. What the peer wrote before it published the word is seen after.
    pub(super) fn load(&self, word: Word) -> u64 {
        let value = self.0.word(word).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Loads, once, the length of the record that starts at byte `at` of the ring.
    pub(super) fn len_at(&self, at: usize) -> u32 {
        let (start, left) = self.0.records(at);
        if left < size_of::<u32>() || !at.is_multiple_of(LINE) {
            return 0;
        }
        // SAFETY: four bytes are there, aligned as the record is; a relaxed load works in
        // read-only memory.
        unsafe { &*field(start) }.load(Ordering::Relaxed)
    }

    /// Copies bytes of the ring from `at` on, which go on at its start where it ends.
    pub(super) fn read(&self, at: usize, to: &mut [u8]) {
        let (start, left) = self.0.records(at);
        let first = to.len().min(left);
        let (begin, ring) = self.0.records(0);
        let second = (to.len() - first).min(ring);
        // SAFETY: what is read lies in this mapping, what is written in `to`, which is private
        // memory. The peer may write meanwhile: then some mixture arrives, and only that copy is
        // looked at.
        unsafe {
            std::ptr::copy(start, to.as_mut_ptr(), first);
            std::ptr::copy(begin, to.as_mut_ptr().add(first), second);
        }
    }
}
