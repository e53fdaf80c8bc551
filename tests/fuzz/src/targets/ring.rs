//! A ring in memory whose peer filled it with whatever it likes.

use std::{
    cell::RefCell,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::{Errno, pwrite},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use sekisho_framelink::{FrameArena, FrameLink, LinkError, Message, Rules, Segment, pair};
use sekisho_ring::{CAPACITY, Handshake, Offer, Ring};

use crate::{input::Input, targets::net_hdr::assert_holds};

/// The words' page, before the records.
const HEAD: usize = 4096;
/// From a record's start to its message, and what a record is rounded up to.
const LEAD: usize = 52;
const LINE: usize = 64;

/// Most records of one input.
const MAX_RECORDS: usize = 32;

/// Slots of the arena: fewer than records, so that batches are cut.
const SLOTS: usize = 8;

thread_local! {
    /// Made once, as in the programs that use it; what one input leaves in it the next one finds.
    static ARENA: RefCell<FrameArena> = RefCell::new(FrameArena::new(SLOTS));
}

/// Rules (grants, MTU); the producer's index (0: the end of the records) and the one it waits for;
/// the consumer's likewise; then records: 32 bits of what the length field says, 16 bits of length,
/// 8 bits of how often 300 zeros follow, and the bytes.
///
/// # Panics
/// When a frame comes out that breaks the rules, more than there were, or there is no end.
pub fn ring(data: &[u8]) {
    let mut input = Input::new(data);
    let rules = input.rules();
    let [index, want, room, sleeper] = std::array::from_fn(|_| u64::from_le_bytes(input.array()));
    let mut records = Vec::new();
    let mut count = 0;
    while count < MAX_RECORDS && !input.is_empty() {
        let said: [u8; 4] = input.array();
        let len = usize::from(input.short());
        let zeros = usize::from(input.byte()) * 300;
        records.extend(said);
        records.resize(records.len() + LEAD - said.len(), 0);
        records.extend(input.bytes(len));
        records.resize((records.len() + zeros).next_multiple_of(LINE), 0);
        count += 1;
    }
    records.truncate(CAPACITY);
    let index = match index {
        0 => records.len() as u64,
        index => index,
    };
    let ring = words_then(index, want, &records, HEAD + CAPACITY);
    let consumer = words_then(room, sleeper, &[], HEAD);
    let (Ok(ring), Ok(consumer)) = (ring, consumer) else {
        return;
    };
    let Some((mut link, peer)) = meet(rules, &ring, &consumer) else {
        return;
    };
    send_into(&mut link, room);
    drop(peer);

    ARENA.with_borrow_mut(|arena| {
        // Nothing is published meanwhile: each call but the last takes a full batch, and records
        // of zeros may lie between those of the input.
        for _ in 0..=CAPACITY / LINE / SLOTS + 1 {
            match link.recv_batch(arena) {
                Ok(count) => {
                    assert_eq!(count, arena.frames().count());
                    for frame in arena.frames() {
                        assert_holds(rules, frame.hdr, frame.frame.len());
                    }
                }
                Err(LinkError::Closed) => {
                    let most = CAPACITY / (2 * LINE);
                    let stats = link.stats();
                    assert!(stats.received + stats.refused() <= most as u64);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the end was not found");
    });
}

/// More than the ring has room for, to a consumer whose index is `room` for ever.
fn send_into(link: &mut Ring, room: u64) {
    let message = vec![0; 60_000];
    let record = (LEAD + message.len()).next_multiple_of(LINE) as u64;
    let pieces = [Segment::from(&message[..])];
    let batch: [Message<'_>; 24] = [&pieces; 24];
    for _ in 0..2 {
        match link.send_batch(&batch) {
            // The consumer's index was believed, so it is no jump: nothing unread is overwritten.
            Ok(_) => assert!(link.stats().sent * record <= room.saturating_add(CAPACITY as u64)),
            Err(error) => assert_eq!(error, LinkError::Closed),
        }
    }
}

/// Sealed memory: two words, a cache line each, and bytes behind their page.
fn words_then(index: u64, want: u64, bytes: &[u8], len: usize) -> Result<OwnedFd, Errno> {
    let fd = memfd_create("attacker", MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len as u64)?;
    for (at, bytes) in [
        (0, &index.to_le_bytes()[..]),
        (LINE, &want.to_le_bytes()),
        (HEAD, bytes),
    ] {
        if !bytes.is_empty() {
            pwrite(&fd, bytes, at as u64)?;
        }
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// The victim, and the attacker's socket.
fn meet(rules: Rules, ring: &OwnedFd, consumer: &OwnedFd) -> Option<(Box<Ring>, OwnedFd)> {
    let (ours, theirs) = pair().ok()?;
    let offer = Offer::new(ours, rules).ok()?;
    let mut hello = b"sekiring".to_vec();
    hello.extend(1_u32.to_le_bytes());
    hello.extend(u32::try_from(CAPACITY).ok()?.to_le_bytes());
    let fds = [ring.as_fd(), consumer.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let pieces = [IoSlice::new(&hello)];
    sendmsg(&theirs, &pieces, &mut ancillary, SendFlags::NOSIGNAL).ok()?;
    match offer.finish() {
        Ok(Handshake::Ready(link)) => Some((link, theirs)),
        Ok(Handshake::Waiting(_)) => None,
        Err(refused) => panic!("sound memory was refused: {refused}"),
    }
}
