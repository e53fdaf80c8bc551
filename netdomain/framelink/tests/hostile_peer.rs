//! A link whose other end is an attacker's raw socket, in a thread or in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pipe::pipe,
};
use sekisho_framelink::{
    BATCH, FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Rules,
    Segment, SeqPacket, Stats, pair,
};

const MTU: u16 = 1420;
const HEADER: [u8; HEADER_LEN] = [0; HEADER_LEN];
const PATIENCE: Duration = Duration::from_secs(20);

fn link_and_raw_peer() -> (SeqPacket, OwnedFd) {
    let (ours, theirs) = pair().unwrap();
    (SeqPacket::from_fd(ours, Rules::plain(MTU)).unwrap(), theirs)
}

fn raw_send(peer: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(
        peer,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
}

fn good(mark: u8) -> Vec<u8> {
    let mut message = HEADER.to_vec();
    message.extend([mark; 60]);
    message
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags) {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_ne!(
        poll(&mut fds, Some(&limit)).unwrap(),
        0,
        "nothing came in time"
    );
}

/// Reads what comes until `count` frames are there or the link is closed.
fn marks(link: &mut SeqPacket, count: usize) -> (Vec<u8>, Option<LinkError>) {
    let mut arena = FrameArena::new(16);
    let mut marks = Vec::new();
    let end = Instant::now() + PATIENCE;
    while marks.len() < count && Instant::now() < end {
        wait(link.as_fd(), PollFlags::IN);
        match link.recv_batch(&mut arena) {
            Ok(_) => marks.extend(arena.frames().map(|frame| frame.frame[0])),
            Err(error) => return (marks, Some(error)),
        }
    }
    (marks, None)
}

#[test]
fn frames_of_every_length_cross_scattered_and_in_order() {
    let (one, other) = pair().unwrap();
    let mut one = SeqPacket::from_fd(one, Rules::plain(60_000)).unwrap();
    let mut other = SeqPacket::from_fd(other, Rules::plain(60_000)).unwrap();
    let lengths = [14, 15, 59, 60, 1434, 1514, 4096, 9000, 60_000, 60_014];
    let sender = thread::spawn(move || {
        for (mark, length) in lengths.iter().enumerate() {
            let frame = vec![u8::try_from(mark).unwrap(); *length];
            let (head, tail) = frame.split_at(5);
            let (middle, tail) = tail.split_at(tail.len() / 2);
            let pieces = [&HEADER[..3], &HEADER[3..], head, &[], middle, tail].map(Segment::from);
            while one.send_batch(&[&pieces]).unwrap() == 0 {
                wait(one.as_fd(), PollFlags::OUT);
            }
        }
        one.stats()
    });
    let mut arena = FrameArena::new(3);
    let mut seen = Vec::new();
    while seen.len() < lengths.len() {
        wait(other.as_fd(), PollFlags::IN);
        other.recv_batch(&mut arena).unwrap();
        for frame in arena.frames_mut() {
            assert!(frame.frame.iter().all(|b| usize::from(*b) == seen.len()));
            seen.push(frame.frame.len());
            frame.frame.fill(0xee);
        }
    }
    assert_eq!(seen, lengths);
    let stats = sender.join().unwrap();
    assert_eq!(
        (stats.sent, stats.sent_bytes),
        (10, other.stats().received_bytes)
    );
}

#[test]
fn longest_message_passes_and_one_byte_more_is_dropped() {
    let (mut link, peer) = link_and_raw_peer();
    link.set_rules(Rules::plain(u16::MAX));
    let mut arena = FrameArena::new(4);
    raw_send(&peer, &vec![0; MAX_MESSAGE], &[]).unwrap();
    raw_send(&peer, &vec![0; MAX_MESSAGE + 1], &[]).unwrap();
    raw_send(&peer, &vec![0; 2 * MAX_MESSAGE], &[]).unwrap();
    assert_eq!(link.recv_batch(&mut arena), Ok(1));
    assert_eq!(arena.get(0).unwrap().frame.len(), MAX_MESSAGE - HEADER_LEN);
    assert_eq!((link.stats().truncated, link.stats().refused()), (2, 2));
}

#[test]
fn garbage_between_good_frames_is_dropped_and_counted() {
    let (mut link, peer) = link_and_raw_peer();
    raw_send(&peer, &good(1), &[]).unwrap();
    raw_send(&peer, &[0], &[]).unwrap();
    raw_send(&peer, &HEADER, &[]).unwrap();
    raw_send(&peer, &[0; HEADER_LEN + MIN_FRAME - 1], &[]).unwrap();
    raw_send(&peer, &[0xff; 600], &[]).unwrap();
    raw_send(&peer, &[0; HEADER_LEN + MIN_FRAME + MTU as usize + 1], &[]).unwrap();
    raw_send(&peer, &good(2), &[]).unwrap();
    assert_eq!(marks(&mut link, 2), (vec![1, 2], None));
    let expected = Stats {
        received: 2,
        received_bytes: 144,
        flawed: 5,
        ..Stats::default()
    };
    assert_eq!(link.stats(), expected);
}

#[test]
fn a_batch_of_nothing_but_garbage_is_none_and_the_link_stays() {
    let (mut link, peer) = link_and_raw_peer();
    for _ in 0..BATCH {
        raw_send(&peer, &[0xff; 100], &[]).unwrap();
    }
    raw_send(&peer, &good(3), &[]).unwrap();
    let mut arena = FrameArena::new(BATCH);
    assert_eq!(link.recv_batch(&mut arena), Ok(0));
    assert_eq!(link.recv_batch(&mut arena), Ok(1));
    assert_eq!(link.recv_batch(&mut arena), Ok(0));
    assert!(arena.is_empty());
}

#[test]
fn stray_descriptors_are_closed_and_their_frame_dropped() {
    let (mut link, peer) = link_and_raw_peer();
    let (read_end, write_end) = pipe().unwrap();
    raw_send(&peer, &good(1), &[write_end.as_fd()]).unwrap();
    raw_send(&peer, &good(2), &[write_end.as_fd(); 64]).unwrap();
    raw_send(&peer, &good(3), &[]).unwrap();
    drop(write_end);
    assert_eq!(marks(&mut link, 1), (vec![3], None));
    assert_eq!(link.stats().descriptors, 2);
    let mut fds = [PollFd::new(&read_end, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .unwrap();
    assert!(
        fds[0].revents().contains(PollFlags::HUP),
        "a descriptor leaked"
    );
}

#[test]
fn last_frames_are_read_before_the_end_of_file() {
    let (mut link, peer) = link_and_raw_peer();
    for mark in 0..5 {
        raw_send(&peer, &good(mark), &[]).unwrap();
    }
    drop(peer);
    assert_eq!(
        marks(&mut link, 9),
        (vec![0, 1, 2, 3, 4], Some(LinkError::Closed))
    );
    let message = good(9);
    let pieces = [Segment::from(&message[..])];
    assert_eq!(link.send_batch(&[&pieces]), Err(LinkError::Closed));
    assert_eq!(
        link.recv_batch(&mut FrameArena::new(1)),
        Err(LinkError::Closed)
    );
}

#[test]
fn sending_to_a_peer_that_left_says_so() {
    let message = good(1);
    let pieces = [Segment::from(&message[..])];
    let batch: [Message<'_>; 3] = [&pieces; 3];

    let (mut link, peer) = link_and_raw_peer();
    drop(peer);
    assert_eq!(link.send_batch(&batch), Err(LinkError::Closed));

    // It left with frames unread, which the kernel reports in another way.
    let (mut link, peer) = link_and_raw_peer();
    assert_eq!(link.send_batch(&batch), Ok(3));
    drop(peer);
    assert_eq!(link.send_batch(&batch), Err(LinkError::Closed));
    assert_eq!(
        link.recv_batch(&mut FrameArena::new(1)),
        Err(LinkError::Closed)
    );
}

#[test]
fn an_empty_packet_is_the_end_and_stays_it() {
    let (mut link, peer) = link_and_raw_peer();
    raw_send(&peer, &good(1), &[]).unwrap();
    raw_send(&peer, &[], &[]).unwrap();
    raw_send(&peer, &good(2), &[]).unwrap();
    assert_eq!(marks(&mut link, 9), (vec![1], Some(LinkError::Closed)));
    assert_eq!(
        link.recv_batch(&mut FrameArena::new(8)),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_stalled_peer_is_back_pressure_and_costs_a_bounded_queue() {
    let (mut link, peer) = link_and_raw_peer();
    let frame = vec![0; 60_000];
    let pieces = [Segment::from(&HEADER[..]), Segment::from(&frame[..])];
    let batch: Vec<Message<'_>> = vec![&pieces; 300];
    let queued = link.send_batch(&batch).unwrap();
    assert!(
        (4..64).contains(&queued),
        "{queued} super-frames in the queue"
    );
    assert_eq!(link.send_batch(&batch), Ok(0));

    // The peer wakes up and reads: there is room again.
    let mut peer = SeqPacket::from_fd(peer, Rules::plain(u16::MAX)).unwrap();
    let mut arena = FrameArena::new(BATCH);
    let mut read = 0;
    while read < queued {
        read += peer.recv_batch(&mut arena).unwrap();
    }
    wait(link.as_fd(), PollFlags::OUT);
    assert_eq!(link.send_batch(&batch[..2]), Ok(2));
}

#[test]
fn what_can_never_be_sent_is_dropped_and_does_not_block_the_rest() {
    let (mut link, peer) = link_and_raw_peer();
    let mut peer = SeqPacket::from_fd(peer, Rules::plain(MTU)).unwrap();
    let message = good(7);
    let sound = [Segment::from(&message[..])];
    let short = [Segment::from(&message[..HEADER_LEN + MIN_FRAME - 1])];
    let huge = vec![0; MAX_MESSAGE + 1];
    let huge = [Segment::from(&huge[..])];
    let shredded = vec![Segment::from(&message[..1]); 1025];
    // SAFETY: the address is in no mapping, which breaks the contract on purpose: the kernel finds
    // it out and nobody else looks. This is a guest's descriptor gone wrong.
    let unmapped = [Segment::from(&HEADER[..]), unsafe {
        Segment::from_raw(std::ptr::without_provenance(4096), 100)
    }];
    let batch: [Message<'_>; 9] = [
        &huge,
        &sound,
        &short,
        &shredded,
        &sound,
        &unmapped,
        &[],
        &unmapped,
        &sound,
    ];
    assert_eq!(link.send_batch(&batch), Ok(9));
    assert_eq!((link.stats().sent, link.stats().unsendable), (3, 6));
    assert_eq!(marks(&mut peer, 3), (vec![7; 3], None));
    assert_eq!(peer.stats().refused(), 0);
}

#[test]
fn a_batch_longer_than_one_system_call_goes_whole() {
    let (mut link, peer) = link_and_raw_peer();
    let mut peer = SeqPacket::from_fd(peer, Rules::plain(MTU)).unwrap();
    let messages: Vec<_> = (0..=200).map(good).collect();
    let pieces: Vec<_> = messages.iter().map(|m| [Segment::from(&m[..])]).collect();
    let batch: Vec<Message<'_>> = pieces.iter().map(|p| &p[..]).collect();
    assert_eq!(link.send_batch(&batch), Ok(201));
    let expected: Vec<u8> = (0..=200).collect();
    assert_eq!(marks(&mut peer, 201), (expected, None));
}

#[test]
fn other_kinds_of_descriptor_are_refused() {
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let (read_end, _write_end) = pipe().unwrap();
    for fd in [stream.into(), read_end] {
        let refused = SeqPacket::from_fd(fd, Rules::plain(MTU));
        assert!(matches!(refused, Err(LinkError::NotSeqPacket)));
    }
}

/// The attacker's process: floods its standard input, a socket, until it is killed.
#[test]
fn flooding_peer() {
    if std::env::var_os("SEKISHO_FLOOD").is_none() {
        return;
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let (_read_end, write_end) = pipe().unwrap();
    let long = vec![0xa5; 100_000];
    for round in 0_u32.. {
        let [mark, shape, ..] = round.to_le_bytes();
        let length = usize::from(shape) * 7 + 1;
        let outcome = match mark % 5 {
            0 => raw_send(&socket, &long[..length], &[]),
            1 => raw_send(&socket, &long, &[]),
            2 => raw_send(&socket, &good(mark), &[write_end.as_fd()]),
            _ => raw_send(&socket, &good(mark), &[]),
        };
        match outcome {
            Err(Errno::AGAIN) => wait(socket.as_fd(), PollFlags::OUT),
            Err(Errno::PIPE | Errno::CONNRESET) => return,
            _ => {}
        }
    }
}

#[test]
fn a_flooding_process_is_survived_and_its_death_is_end_of_file() {
    for _ in 0..5 {
        let (mut link, peer) = link_and_raw_peer();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "flooding_peer", "--nocapture"])
            .env("SEKISHO_FLOOD", "1")
            .stdin(peer)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (seen, error) = marks(&mut link, 5_000);
        assert!(seen.len() >= 5_000 && error.is_none(), "{error:?}");
        assert!(seen.iter().all(|mark| mark % 5 > 2));
        assert!(link.stats().flawed > 0 && link.stats().truncated > 0);
        assert!(link.stats().descriptors > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, error) = marks(&mut link, usize::MAX);
        assert_eq!(error, Some(LinkError::Closed));
    }
}
