//! What the gate takes from the allocator for a packet, once it is warm: from the frame link to the
//! sealed datagram on the wire, and from the wire back to the frame link.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a test reports a failure by panicking; its world is another test's"
)]

#[path = "fixture/mod.rs"]
mod fixture;
#[path = "gate_path/frames.rs"]
mod frames;
#[path = "gate_path/world.rs"]
mod world;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use frames::{frame, tcp, udp};
use sekisho_framelink::{GsoType, NetHdr};
use sekisho_netdomain::recycle::Recycling;
use smoltcp::wire::TcpControl;
use world::{GROUPWARE, GUEST, World};

/// Calls of an allocator, and the largest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    calls: usize,
    largest: usize,
}

thread_local! {
    /// Of the program's allocator, and of the system's behind it.
    static TAKEN: Cell<[Taken; 2]> = const { Cell::new([Taken { calls: 0, largest: 0 }; 2]) };
}

/// Which of the two.
const ASKED: usize = 0;
const SYSTEM: usize = 1;

struct Counting<const WHICH: usize, A>(A);

impl<const WHICH: usize, A> Counting<WHICH, A> {
    fn count(size: usize) {
        let mut taken = TAKEN.get();
        taken[WHICH].calls += 1;
        taken[WHICH].largest = taken[WHICH].largest.max(size);
        TAKEN.set(taken);
    }
}

// SAFETY: everything is left to the allocator behind it; counting allocates nothing.
unsafe impl<const WHICH: usize, A: GlobalAlloc> GlobalAlloc for Counting<WHICH, A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: the caller keeps the contract of `realloc`; `ptr` came from above.
        unsafe { self.0.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from above, that is, from the allocator behind it.
        unsafe { self.0.dealloc(ptr, layout) }
    }
}

/// As the program has it, with a count on either side.
#[global_allocator]
static ALLOCATOR: Counting<ASKED, Recycling<Counting<SYSTEM, System>>> =
    Counting(Recycling(Counting(System)));

/// Rounds that warm the gate up, and rounds that count.
const WARM: usize = 50;
const ROUNDS: usize = 200;
/// Payload of one full packet, and packets of one super-frame.
const MSS: usize = 1380;
const SEGMENTS: usize = 20;
/// What timers may take meanwhile, however many packets there are: seen are two calls of 32 bytes.
const BY_TIME: usize = 16;

/// Turns the gate alone; what was taken meanwhile.
fn turn(world: &mut World) -> [Taken; 2] {
    TAKEN.set([Taken::default(); 2]);
    world.gate.turn(Duration::from_millis(1)).unwrap();
    TAKEN.get()
}

/// A super-frame as a guest's kernel leaves it.
fn super_frame(sequence: u32) -> (NetHdr, Vec<u8>) {
    let packet = tcp(
        (GUEST, 4000),
        (GROUPWARE, 443),
        sequence,
        TcpControl::Psh,
        &vec![7; MSS * SEGMENTS],
    );
    let header = NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, MSS as u16, 54);
    (header, frame(&packet))
}

/// Rounds of the same, of which the first warm the gate up; what the others took.
fn rounds(world: &mut World, mut before: impl FnMut(&mut World, u32)) -> [Taken; 2] {
    let mut sum = [Taken::default(); 2];
    for round in 0..WARM + ROUNDS {
        before(world, round as u32);
        let taken = turn(world);
        world.step();
        if round >= WARM {
            for (sum, taken) in sum.iter_mut().zip(taken) {
                sum.calls += taken.calls;
                sum.largest = sum.largest.max(taken.largest);
            }
        }
    }
    sum
}

#[test]
fn a_packet_takes_no_memory_from_the_system() {
    const PACKETS: usize = ROUNDS * SEGMENTS;
    let mut world = World::connected();
    let syn = tcp((GUEST, 4000), (GROUPWARE, 443), 0, TcpControl::Syn, b"");
    world.send(NetHdr::default(), &frame(&syn));
    world.until("the connection is begun", |world| !world.inner.is_empty());

    let before = world.inner.len();
    let sealing = rounds(&mut world, |world, round| {
        let (header, frame) = super_frame(1 + round * (MSS * SEGMENTS) as u32);
        world.send(header, &frame);
    });
    let sealed = world.inner.len() - before;
    assert_eq!(sealed, (WARM + ROUNDS) * SEGMENTS, "each one arrived");
    println!("{PACKETS} packets sealed: {sealing:?}");

    let question = udp((GUEST, 4001), (GROUPWARE, 7000), b"question");
    world.send(NetHdr::default(), &frame(&question));
    world.settle();
    let before = world.frames.len();
    let answer = udp((GROUPWARE, 7000), (GUEST, 4001), &[9; 1200]);
    let opening = rounds(&mut world, |world, _| {
        for _ in 0..SEGMENTS {
            world.gateway_sends(&answer);
        }
    });
    world.settle();
    assert_eq!(world.frames.len() - before, (WARM + ROUNDS) * SEGMENTS);
    println!("{PACKETS} packets opened: {opening:?}");

    // gotatun's buffer, one a packet, which is also what shows that the counting counts.
    let asked = sealing[ASKED].calls;
    assert!(
        (PACKETS..=PACKETS + BY_TIME).contains(&asked),
        "{sealing:?}"
    );
    for taken in [sealing[SYSTEM], opening[SYSTEM], opening[ASKED]] {
        assert!(taken.calls <= BY_TIME, "{taken:?}");
    }
}
