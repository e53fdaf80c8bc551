//! A ring whose other end is an attacker's raw memory and raw socket.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

mod attacker;
mod hello;
mod memory;

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use attacker::{Attacker, HEAD, INDEX, MTU, PATIENCE, WANT, good, is_readable, raw_send};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{OFlags, fcntl_setfl},
    io::Errno,
    mm::ProtFlags,
    pipe::pipe,
};
use sekisho_framelink::{
    FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Rules, Segment,
    Stats, pair,
};
use sekisho_ring::{Broken, CAPACITY, Handshake, Offer, Ring};

const HEADER: [u8; HEADER_LEN] = [0; HEADER_LEN];

/// Two healthy ends.
fn healthy(rules: Rules) -> (Ring, Ring) {
    let (one, other) = pair().unwrap();
    let (one, other) = (Offer::new(one, rules), Offer::new(other, rules));
    match (
        one.unwrap().finish().unwrap(),
        other.unwrap().finish().unwrap(),
    ) {
        (Handshake::Ready(one), Handshake::Ready(other)) => (*one, *other),
        _ => panic!("both said hello"),
    }
}

fn wait(link: &Ring) {
    assert!(is_readable(link.as_fd(), PATIENCE), "nothing came in time");
}

fn marks(arena: &FrameArena) -> Vec<u8> {
    arena.frames().map(|frame| frame.frame[0]).collect()
}

#[test]
fn frames_of_every_length_cross_scattered_in_order_and_around_the_end() {
    const ROUNDS: usize = 40;
    let (mut one, mut other) = healthy(Rules::plain(u16::MAX));
    let lengths = [14, 15, 59, 60, 1434, 1514, 4096, 9000, 60_000, 65_538];
    let sender = thread::spawn(move || {
        let mut arena = FrameArena::new(1);
        for number in 0..ROUNDS * lengths.len() {
            let mark = number.to_le_bytes()[0];
            let frame = vec![mark; lengths[number % lengths.len()]];
            let (head, tail) = frame.split_at(5);
            let (middle, tail) = tail.split_at(tail.len() / 2);
            let pieces = [&HEADER[..3], &HEADER[3..], head, &[], middle, tail].map(Segment::from);
            while one.send_batch(&[&pieces]).unwrap() == 0 {
                wait(&one);
                one.recv_batch(&mut arena).unwrap();
            }
        }
        one.stats()
    });
    let mut arena = FrameArena::new(3);
    let mut seen = 0_usize;
    loop {
        match other.recv_batch(&mut arena) {
            Ok(3) => {}
            Ok(_) => wait(&other),
            Err(error) => break assert_eq!(error, LinkError::Closed),
        }
        for frame in arena.frames_mut() {
            let mark = seen.to_le_bytes()[0];
            assert_eq!(frame.frame.len(), lengths[seen % lengths.len()]);
            assert!(frame.frame.iter().all(|byte| *byte == mark));
            seen += 1;
        }
    }
    assert_eq!(seen, ROUNDS * lengths.len());
    let (sent, received) = (sender.join().unwrap(), other.stats());
    assert!(sent.sent_bytes > 4 * CAPACITY as u64, "it went around");
    assert_eq!(
        (sent.sent, sent.sent_bytes),
        (received.received, received.received_bytes)
    );
}

#[test]
fn a_stalled_peer_is_back_pressure_and_one_bell_tells_of_room() {
    let (mut link, mut peer) = healthy(Rules::plain(u16::MAX));
    let frame = vec![7; 60_000];
    let pieces = [Segment::from(&HEADER[..]), Segment::from(&frame[..])];
    let batch: Vec<Message<'_>> = vec![&pieces; 300];
    assert_eq!(link.send_batch(&batch), Ok(17));
    assert_eq!(link.send_batch(&batch), Ok(0));
    assert!(!is_readable(link.as_fd(), Duration::ZERO));

    let mut arena = FrameArena::new(8);
    assert_eq!(peer.recv_batch(&mut arena), Ok(8));
    assert!(
        !is_readable(link.as_fd(), Duration::ZERO),
        "half is not free yet"
    );
    assert_eq!(peer.recv_batch(&mut arena), Ok(8));
    assert!(is_readable(link.as_fd(), Duration::ZERO));
    assert_eq!(link.recv_batch(&mut arena), Ok(0));
    assert!(!is_readable(link.as_fd(), Duration::ZERO), "one bell");
    assert_eq!(link.send_batch(&batch[..4]), Ok(4));
}

#[test]
fn what_can_never_be_sent_is_dropped_and_does_not_block_the_rest() {
    let (mut link, mut peer) = healthy(Rules::plain(MTU));
    let message = good(7);
    let sound = [Segment::from(&message[..])];
    let short = [Segment::from(&message[..HEADER_LEN + MIN_FRAME - 1])];
    let huge = vec![0; MAX_MESSAGE + 1];
    let huge = [Segment::from(&huge[..])];
    let batch: [Message<'_>; 5] = [&huge, &sound, &short, &[], &sound];
    assert_eq!(link.send_batch(&batch), Ok(5));
    assert_eq!((link.stats().sent, link.stats().unsendable), (2, 3));
    let mut arena = FrameArena::new(8);
    assert_eq!(peer.recv_batch(&mut arena), Ok(2));
    assert_eq!((marks(&arena), peer.stats().refused()), (vec![7; 2], 0));
}

#[test]
fn indices_that_jump_end_the_link() {
    let past = HEAD as u64 + CAPACITY as u64;
    for index in [past, u64::MAX, u64::MAX - 63, 1 << 63, 127, 1] {
        let (mut victim, mut attacker) = Attacker::new();
        let mut arena = FrameArena::new(8);
        attacker.good(1);
        assert_eq!(victim.recv_batch(&mut arena), Ok(1));
        attacker.ring.set(INDEX, index);
        assert_eq!(
            victim.recv_batch(&mut arena),
            Err(LinkError::Closed),
            "{index}"
        );
        assert_eq!(victim.broken(), Some(Broken::Index));
        assert!(arena.is_empty());
        // It stays so, also when the index comes back, and the attacker hears of it.
        attacker.publish();
        assert_eq!(victim.recv_batch(&mut arena), Err(LinkError::Closed));
        assert_eq!(raw_send(&attacker.socket, &[0], &[]), Err(Errno::PIPE));
    }
    let (mut victim, mut attacker) = Attacker::new();
    attacker.good(1);
    assert_eq!(victim.recv_batch(&mut FrameArena::new(8)), Ok(1));
    attacker.ring.set(INDEX, 0);
    let back = victim.recv_batch(&mut FrameArena::new(8));
    assert_eq!(
        (back, victim.broken()),
        (Err(LinkError::Closed), Some(Broken::Index))
    );
}

#[test]
fn room_that_is_none_ends_the_link() {
    let frame = vec![0; 60_000];
    let pieces = [Segment::from(&HEADER[..]), Segment::from(&frame[..])];
    let batch: Vec<Message<'_>> = vec![&pieces; 40];
    for index in [u64::MAX, 1 << 40, 2 * CAPACITY as u64, 64 + 1] {
        let (mut victim, attacker) = Attacker::new();
        attacker.index.set(INDEX, index);
        assert_eq!(victim.send_batch(&batch), Err(LinkError::Closed), "{index}");
        assert_eq!(victim.broken(), Some(Broken::Index));
    }
}

#[test]
fn lengths_out_of_range_end_the_link() {
    let most = u32::try_from(MAX_MESSAGE).unwrap();
    // The last one is possible, but longer than what was published.
    for len in [0, 1, 25, most + 1, u32::MAX, u32::MAX - 51, 1 << 31, most] {
        let (mut victim, mut attacker) = Attacker::new();
        let mut arena = FrameArena::new(8);
        attacker.good(1);
        attacker.record(len, &good(2));
        attacker.publish();
        let outcome = victim.recv_batch(&mut arena);
        assert_eq!(outcome, Err(LinkError::Closed), "{len}");
        assert_eq!(victim.broken(), Some(Broken::Length));
    }
}

#[test]
fn garbage_between_good_frames_is_dropped_and_counted() {
    let (mut victim, mut attacker) = Attacker::new();
    attacker.good(1);
    attacker.record(612, &[0xff; 612]);
    attacker.record(1447, &[0; 1447]);
    attacker.good(2);
    let mut arena = FrameArena::new(8);
    assert_eq!(victim.recv_batch(&mut arena), Ok(2));
    assert_eq!(marks(&arena), [1, 2]);
    let expected = Stats {
        received: 2,
        received_bytes: 144,
        flawed: 2,
        ..Stats::default()
    };
    assert_eq!(victim.stats(), expected);
}

#[test]
fn a_peer_that_rings_no_bell_is_heard_when_somebody_looks() {
    let (mut victim, mut attacker) = Attacker::new();
    let mut arena = FrameArena::new(8);
    assert_eq!(victim.recv_batch(&mut arena), Ok(0));
    attacker.good(9);
    assert!(!is_readable(victim.as_fd(), Duration::ZERO));
    assert_eq!(victim.recv_batch(&mut arena), Ok(1));
    assert_eq!(marks(&arena), [9]);
}

#[test]
fn a_flood_of_bells_costs_one_a_call_and_its_descriptors_are_closed() {
    let (mut victim, mut attacker) = Attacker::new();
    let (read_end, write_end) = pipe().unwrap();
    let mut bells = 0;
    while raw_send(&attacker.socket, &[1; 300], &[write_end.as_fd()]).is_ok() {
        bells += 1;
    }
    drop(write_end);
    assert!(bells > 50, "{bells}");
    let mut arena = FrameArena::new(8);
    for _ in 0..bells {
        assert!(is_readable(victim.as_fd(), Duration::ZERO));
        assert_eq!(victim.recv_batch(&mut arena), Ok(0));
    }
    assert!(!is_readable(victim.as_fd(), Duration::ZERO), "one a call");
    assert!(is_hung_up(&read_end), "a descriptor leaked");
    attacker.good(3);
    assert_eq!(victim.recv_batch(&mut arena), Ok(1));
}

fn is_hung_up(read_end: &std::os::fd::OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(read_end, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn a_peer_that_always_sleeps_anew_cannot_make_the_ringer_wait() {
    let (mut victim, attacker) = Attacker::new();
    let message = good(1);
    let pieces = [Segment::from(&message[..])];
    let start = Instant::now();
    // More bells than the socket takes; nobody reads them.
    for sent in 0..5_000_u64 {
        attacker.index.set(WANT, 1 + sent % 2);
        attacker.index.set(INDEX, sent * 128);
        assert_eq!(victim.send_batch(&[&pieces]), Ok(1));
    }
    assert!(start.elapsed() < PATIENCE);
}

/// Why the bell is no eventfd: the positive control of the test before.
#[test]
fn with_an_eventfd_it_could() {
    let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let (shared, ringer) = (bell.try_clone().unwrap(), bell.try_clone().unwrap());
    // The attacker, who has the same open file.
    fcntl_setfl(&shared, OFlags::empty()).unwrap();
    rustix::io::write(&shared, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let (done, is_done) = mpsc::channel();
    let victim = thread::spawn(move || {
        rustix::io::write(&ringer, &1_u64.to_ne_bytes()).unwrap();
        done.send(()).unwrap();
    });
    let stopped = is_done.recv_timeout(Duration::from_millis(300)).is_err();
    rustix::io::read(&shared, &mut [0_u8; 8]).unwrap();
    victim.join().unwrap();
    assert!(
        stopped,
        "a descriptor that was made non-blocking waited for the attacker"
    );
}

#[test]
fn the_end_in_the_middle_of_a_record_is_the_end() {
    let (mut victim, mut attacker) = Attacker::new();
    for mark in 0..5 {
        attacker.good(mark);
    }
    // Written but not published.
    attacker.record(72, &good(9));
    drop(attacker);
    let mut arena = FrameArena::new(16);
    let message = good(1);
    let pieces = [Segment::from(&message[..])];
    assert_eq!(victim.recv_batch(&mut arena), Ok(5));
    assert_eq!(marks(&arena), [0, 1, 2, 3, 4]);
    assert!(is_readable(victim.as_fd(), Duration::ZERO));
    assert_eq!(victim.recv_batch(&mut arena), Err(LinkError::Closed));
    assert_eq!(victim.send_batch(&[&pieces]), Err(LinkError::Closed));
    assert_eq!(victim.broken(), None);
}

#[test]
fn an_empty_packet_is_the_end() {
    let (mut victim, mut attacker) = Attacker::new();
    attacker.good(1);
    raw_send(&attacker.socket, &[], &[]).unwrap();
    let mut arena = FrameArena::new(16);
    assert_eq!(victim.recv_batch(&mut arena), Ok(1));
    assert_eq!(victim.recv_batch(&mut arena), Err(LinkError::Closed));
    assert_eq!(victim.recv_batch(&mut arena), Err(LinkError::Closed));
}

/// Runs `attack` over and over in a thread while `victim` works.
fn meanwhile<R>(attack: impl Fn() + Send + 'static, victim: impl FnOnce() -> R) -> R {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let attacker = thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            attack();
        }
    });
    let result = victim();
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    result
}

#[test]
fn what_is_written_while_it_is_read_is_checked_as_it_was_copied() {
    let (mut victim, mut attacker) = Attacker::new();
    let rules = Rules::plain(MTU);
    let consumer = view_of_index(&attacker);
    let ring = Arc::new(std::mem::replace(
        &mut attacker.ring,
        attacker::memory(HEAD, attacker::ALL_SEALS).1,
    ));
    let slots = CAPACITY as u64 / 128;
    for slot in 0..slots {
        ring.write(slot * 128, &72_u32.to_le_bytes());
    }
    ring.set(INDEX, CAPACITY as u64);
    let scribbled = Arc::clone(&ring);
    // Headers and frames change all the time, lengths now and then to another possible one.
    let attack = move || {
        for slot in 0..slots {
            let flags = if slot % 3 == 0 { 0xff } else { 0 };
            scribbled.write(slot * 128 + 52, &[flags; 12]);
            scribbled.write(slot * 128 + 64, &[flags ^ 0x55; 60]);
            scribbled.write(slot * 128, &(26 + (slot % 46) as u32).to_le_bytes());
        }
    };
    let mut arena = FrameArena::new(64);
    let (good, flawed) = meanwhile(attack, || {
        let end = Instant::now() + Duration::from_secs(2);
        let mut tail = 0;
        while Instant::now() < end && victim.broken().is_none() {
            if victim.recv_batch(&mut arena).is_err() {
                break;
            }
            for frame in arena.frames() {
                assert!((MIN_FRAME..=60).contains(&frame.frame.len()));
                assert_eq!(
                    rules.check(&frame.hdr.emit(), frame.frame.len()),
                    Ok(frame.hdr)
                );
            }
            let now = consumer.get(INDEX);
            assert!(now >= tail);
            tail = now;
            ring.set(INDEX, tail + CAPACITY as u64);
        }
        (victim.stats().received, victim.stats().flawed)
    });
    assert!(good > 1_000 && flawed > 0, "{good} good, {flawed} flawed");
}

/// What the victim shows of where it reads.
fn view_of_index(attacker: &Attacker) -> attacker::Raw {
    attacker::Raw::map(attacker.victim[1].as_fd(), HEAD, ProtFlags::READ).unwrap()
}

#[test]
fn a_flood_of_garbage_is_bounded_and_ends_the_link() {
    let (mut victim, attacker) = Attacker::new();
    let consumer = view_of_index(&attacker);
    let ring = Arc::new(attacker.ring);
    for slot in 0..CAPACITY as u64 / 128 {
        ring.write(slot * 128, &72_u32.to_le_bytes());
        ring.write(slot * 128 + 52, &[0xff; 72]);
    }
    // Always as much garbage as the ring holds.
    let attack = move || ring.set(INDEX, consumer.get(INDEX) + CAPACITY as u64);
    let mut arena = FrameArena::new(64);
    let outcome = meanwhile(attack, || {
        let end = Instant::now() + PATIENCE;
        let mut outcome = Ok(0);
        while outcome == Ok(0) && Instant::now() < end {
            outcome = victim.recv_batch(&mut arena);
        }
        outcome
    });
    assert_eq!(outcome, Err(LinkError::Closed));
    assert_eq!(victim.broken(), Some(Broken::Flood));
    assert!(victim.stats().flawed >= CAPACITY as u64 / 128);
}
