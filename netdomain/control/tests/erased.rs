//! An answer of the person's leaves no copy in memory that is given back: the allocator of this
//! program looks for it in everything that is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use sekisho_control::{Channel, Command, DemandId, Report, Secret, pair};
use zeroize::Zeroizing;

/// What is looked for. Written so that the program itself holds it in no block of the heap.
const ANSWER: &[u8] = b"K7-needle-755224";

static FOUND: AtomicUsize = AtomicUsize::new(0);

struct Searching;

#[allow(unsafe_code)]
// SAFETY: every call goes on to the system's allocator as it came; the block is read while it is
// still ours, over the length that it was asked for with.
unsafe impl GlobalAlloc for Searching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Fresh blocks are zero, so that the search never reads what nobody wrote.
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this length and was zero when it was given out.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        if bytes.windows(ANSWER.len()).any(|part| part == ANSWER) {
            FOUND.fetch_add(1, SeqCst);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Searching = Searching;

fn typed() -> String {
    // Its capacity is its length: what a `String` leaves behind when it grows is the typist's affair.
    let mut text = String::with_capacity(ANSWER.len());
    text.push_str(std::str::from_utf8(ANSWER).unwrap());
    text
}

#[test]
fn an_answer_is_erased_wherever_it_went() {
    let before = FOUND.load(SeqCst);
    drop(typed());
    assert!(
        FOUND.load(SeqCst) > before,
        "the search finds nothing at all"
    );

    let before = FOUND.load(SeqCst);
    let (supervisor, gate) = pair().unwrap();
    let supervisor = Channel::<Command, Report>::from_fd(supervisor).unwrap();
    let gate = Channel::<Report, Command>::from_fd(gate).unwrap();
    let command = Command::Answer {
        demand: DemandId(7),
        answer: Secret::new(typed()).unwrap(),
    };
    supervisor.send(&command, &[]).unwrap();
    drop(command);
    let received = gate.recv().unwrap().unwrap();
    let Command::Answer { answer, .. } = &received.message else {
        panic!();
    };
    assert_eq!(answer.expose().as_bytes(), ANSWER);
    drop(received);
    // Refused ones too.
    let mut with_space = String::with_capacity(ANSWER.len() + 1);
    with_space.push_str(&Zeroizing::new(typed()));
    with_space.push(' ');
    assert!(Secret::new(with_space).is_err());
    assert_eq!(FOUND.load(SeqCst), before, "a copy was left behind");
}
