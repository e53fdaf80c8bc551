//! Hellos that are none, and memory that is not as it must be.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{MemfdFlags, SealFlags, ftruncate, memfd_create},
    pipe::pipe,
};
use sekisho_framelink::Rules;
use sekisho_ring::{CAPACITY, Handshake, Offer, Refused};

use crate::attacker::{ALL_SEALS, HEAD, MTU, answer, hello, memory, raw_send};

const RING: usize = HEAD + CAPACITY;

fn refusal(says: impl FnOnce(&OwnedFd)) -> Refused {
    answer(says).expect_err("it must be refused")
}

fn with_memory(ring: BorrowedFd<'_>, index: BorrowedFd<'_>) -> Result<Handshake, Refused> {
    answer(|socket| {
        raw_send(socket, &hello(), &[ring, index]).unwrap();
    })
}

#[test]
fn a_hello_as_it_must_be_is_taken() {
    let (ring, index) = (memory(RING, ALL_SEALS).0, memory(HEAD, ALL_SEALS).0);
    let taken = with_memory(ring.as_fd(), index.as_fd());
    assert!(matches!(taken, Ok(Handshake::Ready(_))));
    assert!(matches!(answer(|_| ()), Ok(Handshake::Waiting(_))));
}

#[test]
fn every_missing_seal_is_refused() {
    let sound = [memory(RING, ALL_SEALS).0, memory(HEAD, ALL_SEALS).0];
    for missing in ALL_SEALS.iter() {
        let seals = ALL_SEALS - missing;
        let (ring, index) = (memory(RING, seals).0, memory(HEAD, seals).0);
        for (ring, index) in [(&ring, &sound[1]), (&sound[0], &index)] {
            let outcome = with_memory(ring.as_fd(), index.as_fd());
            assert_eq!(outcome.unwrap_err(), Refused::Seals, "{missing:?}");
        }
    }
    let none = memory(RING, SealFlags::empty()).0;
    let outcome = with_memory(none.as_fd(), sound[1].as_fd());
    assert_eq!(outcome.unwrap_err(), Refused::Seals);
}

#[test]
fn other_sizes_are_refused() {
    for ring in [0, 1, 4096, CAPACITY, RING - 1, RING + 1, 2 * RING] {
        if ring == 0 {
            continue;
        }
        let (ring, index) = (memory(ring, ALL_SEALS).0, memory(HEAD, ALL_SEALS).0);
        let outcome = with_memory(ring.as_fd(), index.as_fd());
        assert_eq!(outcome.unwrap_err(), Refused::Size);
    }
    for index in [64, 4095, 8192] {
        let (ring, index) = (memory(RING, ALL_SEALS).0, memory(index, ALL_SEALS).0);
        let outcome = with_memory(ring.as_fd(), index.as_fd());
        assert_eq!(outcome.unwrap_err(), Refused::Size);
    }
}

#[test]
fn other_kinds_of_file_are_refused() {
    let index = memory(HEAD, ALL_SEALS).0;
    let unsealable = memfd_create("plain", MemfdFlags::empty()).unwrap();
    ftruncate(&unsealable, RING as u64).unwrap();
    let (read_end, _write_end) = pipe().unwrap();
    let file = tempfile();
    for fd in [unsealable, read_end, file] {
        let outcome = with_memory(fd.as_fd(), index.as_fd());
        assert_eq!(outcome.unwrap_err(), Refused::Seals);
    }
}

/// A file on a disk, of the right size.
fn tempfile() -> OwnedFd {
    let path = std::env::temp_dir().join(format!("sekisho-ring-{}", std::process::id()));
    let file = std::fs::File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(RING as u64).unwrap();
    file.into()
}

#[test]
fn what_is_no_hello_is_refused() {
    let (ring, index) = (memory(RING, ALL_SEALS).0, memory(HEAD, ALL_SEALS).0);
    let fds = [ring.as_fd(), index.as_fd()];
    let mut longer = hello();
    longer.push(0);
    let mut other_version = hello();
    other_version[8] = 2;
    let mut other_capacity = hello();
    other_capacity[12] = 1;
    let shorter = hello()[..15].to_vec();
    let long = vec![0xa5; 60_000];
    for bytes in [longer, other_version, other_capacity, shorter, long] {
        let outcome = refusal(|socket| {
            raw_send(socket, &bytes, &fds).unwrap();
        });
        assert_eq!(outcome, Refused::Hello);
    }
    let empty = refusal(|socket| {
        raw_send(socket, &[], &[]).unwrap();
    });
    assert_eq!(empty, Refused::Left);
}

#[test]
fn one_three_or_many_descriptors_are_refused_and_closed() {
    let (read_end, write_end) = pipe().unwrap();
    for count in [0, 1, 3, 4, 16] {
        let fds = vec![write_end.as_fd(); count];
        let outcome = refusal(|socket| {
            raw_send(socket, &hello(), &fds).unwrap();
        });
        assert_eq!(outcome, Refused::Descriptors, "{count}");
    }
    drop(write_end);
    assert!(crate::is_hung_up(&read_end), "a descriptor leaked");
}

#[test]
fn a_peer_that_left_before_it_said_hello_is_no_peer() {
    let (ours, theirs) = sekisho_framelink::pair().unwrap();
    let offer = Offer::new(ours, Rules::plain(MTU)).unwrap();
    drop(theirs);
    assert_eq!(offer.finish().unwrap_err(), Refused::Left);

    let (ours, theirs) = sekisho_framelink::pair().unwrap();
    drop(theirs);
    let outcome = Offer::new(ours, Rules::plain(MTU));
    assert_eq!(outcome.unwrap_err(), Refused::Left);

    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let outcome = Offer::new(stream.into(), Rules::plain(MTU));
    assert_eq!(outcome.unwrap_err(), Refused::NotSeqPacket);
}
