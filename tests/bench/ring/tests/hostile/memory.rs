//! What a peer can do to memory that it was shown, and what it can still do to its own.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::{
    fs::{FallocateFlags, Mode, OFlags, SealFlags, fallocate, ftruncate, open},
    io::pwrite,
    mm::{MprotectFlags, ProtFlags, mprotect},
};
use sekisho_framelink::{FrameArena, FrameLink};
use sekisho_ring::CAPACITY;

use crate::attacker::{ALL_SEALS, Attacker, HEAD, Raw, memory};

/// Every way to write to or resize a file that one has a descriptor of; which of them worked.
fn attacks(fd: &OwnedFd, len: usize) -> Vec<&'static str> {
    let reopened = open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        OFlags::RDWR,
        Mode::empty(),
    );
    let both = ProtFlags::READ | ProtFlags::WRITE;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let made_writable = |fd: &OwnedFd| {
        let raw = Raw::map(fd.as_fd(), len, ProtFlags::READ).unwrap();
        let how = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: this mapping is of this test alone, and whole.
        unsafe { mprotect(raw.address(), len, how) }.is_ok()
    };
    let mut worked = Vec::new();
    for fd in std::iter::once(fd).chain(&reopened) {
        let outcomes = [
            ("write", pwrite(fd, b"x", 0).is_ok()),
            ("map writable", Raw::map(fd.as_fd(), len, both).is_ok()),
            ("make a mapping writable", made_writable(fd)),
            ("punch a hole", fallocate(fd, punch, 0, 4096).is_ok()),
            ("grow", ftruncate(fd, len as u64 * 2).is_ok()),
            ("shrink", ftruncate(fd, 0).is_ok()),
        ];
        let outcomes = outcomes.into_iter().filter(|(_, worked)| *worked);
        worked.extend(outcomes.map(|(what, _)| what));
        if worked.contains(&"shrink") {
            break;
        }
    }
    worked
}

#[test]
fn a_peer_cannot_write_to_or_resize_what_it_was_shown() {
    let (mut victim, mut attacker) = Attacker::new();
    for (fd, len) in attacker.victim.iter().zip([HEAD + CAPACITY, HEAD]) {
        assert_eq!(attacks(fd, len), [""; 0]);
    }
    attacker.good(1);
    assert_eq!(victim.recv_batch(&mut FrameArena::new(1)), Ok(1));
}

/// The positive control: the same attacks on memory without seals.
#[test]
fn without_seals_all_of_it_works() {
    let worked = attacks(&memory(HEAD, SealFlags::empty()).0, HEAD);
    assert_eq!(worked.len(), 6, "{worked:?}");
}

#[test]
fn memory_that_was_taken_cannot_shrink_under_the_reader() {
    // The attacker keeps its own descriptors, sealed as the victim demanded.
    for len in [HEAD + CAPACITY, HEAD] {
        let (fd, _raw) = memory(len, ALL_SEALS);
        assert_eq!(attacks(&fd, len), [""; 0]);
    }
}
