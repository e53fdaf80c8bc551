//! A frame link whose peer sends whatever it likes.

use std::cell::RefCell;

use rustix::{io::Errno, net::SendFlags};
use sekisho_framelink::{
    FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, SeqPacket, pair,
};

use crate::{input::Input, targets::net_hdr::assert_holds};

/// Most messages of one input.
const MAX_MESSAGES: usize = 32;

/// Slots of the arena: fewer than messages, so that batches are cut.
const SLOTS: usize = 8;

thread_local! {
    /// Made once, as in the programs that use it; what one input leaves in it the next one finds.
    static ARENA: RefCell<FrameArena> = RefCell::new(FrameArena::new(SLOTS));
}

/// Rules (grants, MTU), then messages: 16 bits of length, 8 bits of how often 300 zeros follow,
/// and the bytes.
///
/// # Panics
/// When a frame comes out that breaks the rules, or one is lost or counted wrongly.
pub fn frame_link(data: &[u8]) {
    let mut input = Input::new(data);
    let rules = input.rules();
    let Ok((ours, theirs)) = pair() else { return };
    let Ok(mut link) = SeqPacket::from_fd(ours, rules) else {
        return;
    };

    let mut sent = 0;
    let mut empty = false;
    for _ in 0..MAX_MESSAGES {
        if input.is_empty() || empty {
            break;
        }
        let len = usize::from(input.short());
        let zeros = usize::from(input.byte()) * 300;
        let mut message = input.bytes(len).to_vec();
        message.resize(message.len() + zeros, 0);
        match rustix::net::send(&theirs, &message, SendFlags::DONTWAIT) {
            Ok(_) if message.is_empty() => empty = true,
            Ok(_) => sent += 1,
            Err(Errno::AGAIN) => break,
            Err(errno) => panic!("the attacker's own socket failed: {errno}"),
        }
    }
    drop(theirs);

    ARENA.with_borrow_mut(|arena| {
        // Each call takes at least one message, and the last one finds the end.
        for _ in 0..=MAX_MESSAGES {
            match link.recv_batch(arena) {
                Ok(count) => {
                    assert_eq!(count, arena.frames().count());
                    for frame in arena.frames() {
                        assert!(frame.frame.len() <= MAX_MESSAGE - HEADER_LEN);
                        assert_holds(rules, frame.hdr, frame.frame.len());
                    }
                    let lengths: Vec<_> = arena.frames().map(|frame| frame.frame.len()).collect();
                    let in_place: Vec<_> = arena.frames_mut().map(|f| f.frame.len()).collect();
                    assert_eq!(lengths, in_place);
                }
                Err(LinkError::Closed) => {
                    let stats = link.stats();
                    assert_eq!(stats.received + stats.refused(), sent);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the end of file was not found");
    });
}
