//! Frames move through a ring without one allocation.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use sekisho_framelink::{FrameArena, FrameLink, Message, Rules, Segment, pair};
use sekisho_ring::{Handshake, Offer};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_batch_allocates_nothing() {
    let (one, other) = pair().unwrap();
    let [one, other] = [one, other].map(|end| Offer::new(end, Rules::plain(1420)).unwrap());
    let (Handshake::Ready(mut one), Handshake::Ready(mut other)) =
        (one.finish().unwrap(), other.finish().unwrap())
    else {
        panic!("both said hello");
    };
    let mut arena = FrameArena::new(64);
    let message = [0; 600];
    let pieces = [Segment::from(&message[..12]), Segment::from(&message[12..])];
    let batch: [Message<'_>; 64] = [&pieces; 64];

    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        assert_eq!(one.send_batch(&batch), Ok(64));
        assert_eq!(other.recv_batch(&mut arena), Ok(64));
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(
        arena
            .frames()
            .all(|frame| frame.frame.as_ptr().addr().is_multiple_of(64))
    );
}
