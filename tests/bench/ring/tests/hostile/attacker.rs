//! The attacker's end of a ring: raw memory, a raw socket, and no scruples.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use sekisho_framelink::{HEADER_LEN, Rules, pair};
use sekisho_ring::{CAPACITY, Handshake, Offer, Refused, Ring};

pub(crate) const MTU: u16 = 1420;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const HEAD: usize = 4096;
pub(crate) const INDEX: usize = 0;
pub(crate) const WANT: usize = 64;
pub(crate) const LEAD: usize = 52;
pub(crate) const ALL_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// Memory that somebody shares, by its address.
pub(crate) struct Raw {
    start: *mut u8,
    len: usize,
}

// SAFETY: a mapping belongs to the process; all access is by atomics or raw copies.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, how: ProtFlags) -> Result<Self, Errno> {
        // SAFETY: a fresh mapping where the kernel likes.
        let start = unsafe { mmap(std::ptr::null_mut(), len, how, MapFlags::SHARED, fd, 0) }?;
        let start = start.cast();
        Ok(Self { start, len })
    }

    pub(crate) fn address(&self) -> *mut std::ffi::c_void {
        self.start.cast()
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at + 8 <= self.len && at.is_multiple_of(8));
        // SAFETY: it is within the mapping and aligned.
        unsafe { &*self.start.add(at).cast() }
    }

    pub(crate) fn set(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::SeqCst);
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    /// Bytes into the ring, wrapping.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        for (place, byte) in bytes.iter().enumerate() {
            let at = HEAD + (usize::try_from(at).unwrap() + place) % CAPACITY;
            // SAFETY: it is within the mapping; the victim only copies from it.
            unsafe { self.start.add(at).write_volatile(*byte) };
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from it any more.
        unsafe { munmap(self.start.cast(), self.len) }.unwrap();
    }
}

/// Memory as the protocol has it, but sealed as the attacker likes.
pub(crate) fn memory(len: usize, seals: SealFlags) -> (OwnedFd, Raw) {
    let fd = memfd_create("attacker", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, len as u64).unwrap();
    let raw = Raw::map(fd.as_fd(), len, ProtFlags::READ | ProtFlags::WRITE).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    (fd, raw)
}

pub(crate) fn hello() -> Vec<u8> {
    let mut hello = b"sekiring".to_vec();
    hello.extend(1_u32.to_le_bytes());
    hello.extend(u32::try_from(CAPACITY).unwrap().to_le_bytes());
    hello
}

pub(crate) fn raw_send(
    peer: &OwnedFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(peer, &[IoSlice::new(bytes)], &mut ancillary, flags)
}

/// What an offer becomes when this is what the peer says.
pub(crate) fn answer(says: impl FnOnce(&OwnedFd)) -> Result<Handshake, Refused> {
    let (ours, theirs) = pair().unwrap();
    let offer = Offer::new(ours, Rules::plain(MTU)).unwrap();
    says(&theirs);
    offer.finish()
}

pub(crate) struct Attacker {
    pub(crate) socket: OwnedFd,
    /// The ring that the attacker fills, and its index in the victim's ring.
    pub(crate) ring: Raw,
    pub(crate) index: Raw,
    /// The victim's two descriptors.
    pub(crate) victim: [OwnedFd; 2],
    pub(crate) head: u64,
}

impl Attacker {
    /// A victim and whoever attacks it.
    pub(crate) fn new() -> (Ring, Self) {
        let (ours, socket) = pair().unwrap();
        let offer = Offer::new(ours, Rules::plain(MTU)).unwrap();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 64];
        recvmsg(
            &socket,
            &mut [std::io::IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let (ring_fd, ring) = memory(HEAD + CAPACITY, ALL_SEALS);
        let (index_fd, index) = memory(HEAD, ALL_SEALS);
        raw_send(&socket, &hello(), &[ring_fd.as_fd(), index_fd.as_fd()]).unwrap();
        let Handshake::Ready(victim) = offer.finish().unwrap() else {
            panic!("the hello is there");
        };
        let attacker = Self {
            socket,
            ring,
            index,
            victim: fds.try_into().unwrap(),
            head: 0,
        };
        (*victim, attacker)
    }

    /// Writes a record whose length field says `len` and whose message is this, unpublished.
    pub(crate) fn record(&mut self, len: u32, message: &[u8]) {
        self.ring.write(self.head, &len.to_le_bytes());
        self.ring.write(self.head + LEAD as u64, message);
        self.head += (LEAD + message.len()).next_multiple_of(64) as u64;
    }

    pub(crate) fn publish(&self) {
        self.ring.set(INDEX, self.head);
    }

    /// A frame as a healthy peer would send it, but without a bell.
    pub(crate) fn good(&mut self, mark: u8) {
        let message = good(mark);
        self.record(u32::try_from(message.len()).unwrap(), &message);
        self.publish();
    }
}

pub(crate) fn good(mark: u8) -> Vec<u8> {
    let mut message = vec![0; HEADER_LEN];
    message.extend([mark; 60]);
    message
}

pub(crate) fn is_readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let limit = Timespec::try_from(patience).unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).unwrap() == 1
}
