//! A channel whose peer is a raw socket: what it may do to us, and what we must do then.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags, fcntl_getfd},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pipe::pipe,
};
use sekisho_control::{
    Channel, ChannelError, Command, MAX_FDS, MAX_MESSAGE, PathId, Port, Report, UplinkToGate, pair,
};

type Process = Channel<Report, Command>;

fn process_and_raw_peer() -> (Process, OwnedFd) {
    let (ours, theirs) = pair().unwrap();
    (Process::from_fd(ours).unwrap(), theirs)
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

/// Whether the pipe whose read end this is has no writer left, so that a stray descriptor sent as
/// its write end was closed by the receiver.
fn writers_are_gone(read_end: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(read_end, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

fn assert_ended(process: &Process, peer: &OwnedFd) {
    assert!(matches!(process.recv(), Err(ChannelError::Closed)));
    assert_eq!(
        raw_send(peer, b"{\"command\":\"resume\"}", &[]),
        Err(Errno::PIPE)
    );
    assert!(matches!(
        process.send(&Report::Ready, &[]),
        Err(ChannelError::Closed)
    ));
}

#[test]
fn round_trip_with_descriptors() {
    let (supervisor, process) = pair().unwrap();
    let supervisor = Channel::<Command, Report>::from_fd(supervisor).unwrap();
    let process = Process::from_fd(process).unwrap();
    assert!(process.recv().unwrap().is_none());

    let (mut kept, handed) = UnixStream::pair().unwrap();
    let attach = Command::Attach { port: Port::Link };
    supervisor.send(&attach, &[handed.as_fd()]).unwrap();
    drop(handed);
    let received = process.recv().unwrap().unwrap();
    assert_eq!(received.message, attach);
    let [fd]: [OwnedFd; 1] = received.fds.try_into().unwrap();
    assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
    kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    UnixStream::from(fd).write_all(b"here").unwrap();
    let mut answer = [0; 4];
    std::io::Read::read_exact(&mut kept, &mut answer).unwrap();
    assert_eq!(&answer, b"here");

    process.send(&Report::Link { up: true }, &[]).unwrap();
    let report = supervisor.recv().unwrap().unwrap();
    assert_eq!(report.message, Report::Link { up: true });
    assert!(report.fds.is_empty());
}

#[test]
fn every_kind_of_path_message_survives() {
    let (uplink, gate) = pair().unwrap();
    let uplink = Channel::<UplinkToGate, sekisho_control::GateToUplink>::from_fd(uplink).unwrap();
    let gate = Channel::<sekisho_control::GateToUplink, UplinkToGate>::from_fd(gate).unwrap();
    let path = UplinkToGate::Path {
        id: PathId(7),
        port: "eth0".into(),
        kind: sekisho_control::UplinkKind::Wired,
        rank: 10,
        gateway: "mihon".into(),
        side: sekisho_control::Side::Outside,
        peer: "203.0.113.10:51820".parse().unwrap(),
    };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    uplink.send(&path, &[socket.as_fd()]).unwrap();
    let received = gate.recv().unwrap().unwrap();
    assert_eq!((received.message, received.fds.len()), (path, 1));
}

#[test]
fn a_sender_that_forgets_or_adds_a_descriptor_is_told() {
    let (supervisor, _process) = pair().unwrap();
    let supervisor = Channel::<Command, Report>::from_fd(supervisor).unwrap();
    let attach = Command::Attach { port: Port::Link };
    assert!(matches!(
        supervisor.send(&attach, &[]),
        Err(ChannelError::UnexpectedFds {
            expected: 1,
            found: 0
        })
    ));
    let (read_end, _write_end) = pipe().unwrap();
    assert!(matches!(
        supervisor.send(&Command::Resume, &[read_end.as_fd()]),
        Err(ChannelError::UnexpectedFds {
            expected: 0,
            found: 1
        })
    ));
}

#[test]
fn too_long_is_not_sent() {
    let (process, _peer) = process_and_raw_peer();
    let detail = "x".repeat(MAX_MESSAGE);
    let report = Report::Guest {
        event: "hello".into(),
        detail,
    };
    assert!(matches!(
        process.send(&report, &[]),
        Err(ChannelError::TooLong)
    ));
}

#[test]
fn too_long_ends_the_channel() {
    let (process, peer) = process_and_raw_peer();
    let mut bytes = br#"{"command":"resume"}"#.to_vec();
    bytes.resize(MAX_MESSAGE + 1, b' ');
    raw_send(&peer, &bytes, &[]).unwrap();
    assert!(matches!(process.recv(), Err(ChannelError::TooLong)));
    assert_ended(&process, &peer);
}

#[test]
fn longest_message_passes() {
    let (process, peer) = process_and_raw_peer();
    let mut bytes = br#"{"command":"resume"}"#.to_vec();
    bytes.resize(MAX_MESSAGE, b' ');
    raw_send(&peer, &bytes, &[]).unwrap();
    assert_eq!(process.recv().unwrap().unwrap().message, Command::Resume);
}

#[test]
fn malformed_text_ends_the_channel() {
    let deep = "[".repeat(MAX_MESSAGE);
    let texts: [&[u8]; 7] = [
        b"{",
        b"\0",
        b"\xff\xfe",
        b"{\"command\":\"format-disk\"}",
        b"{\"command\":\"attach\",\"port\":\"nic\"}",
        b"{\"command\":\"resume\"}{\"command\":\"resume\"}",
        deep.as_bytes(),
    ];
    for text in texts {
        let (process, peer) = process_and_raw_peer();
        raw_send(&peer, text, &[]).unwrap();
        assert!(matches!(process.recv(), Err(ChannelError::Malformed(_))));
        assert_ended(&process, &peer);
    }
}

#[test]
fn what_was_queued_after_a_bad_message_is_never_read() {
    let (process, peer) = process_and_raw_peer();
    raw_send(&peer, b"nonsense", &[]).unwrap();
    raw_send(&peer, br#"{"command":"shutdown"}"#, &[]).unwrap();
    assert!(matches!(process.recv(), Err(ChannelError::Malformed(_))));
    assert!(matches!(process.recv(), Err(ChannelError::Closed)));
}

#[test]
fn stray_descriptors_end_the_channel_and_are_closed() {
    let resume: &[u8] = br#"{"command":"resume"}"#;
    let attach: &[u8] = br#"{"command":"attach","port":"link"}"#;
    for (text, count) in [
        (resume, 1),
        (resume, MAX_FDS),
        (resume, MAX_FDS + 1),
        (resume, 64),
        (attach, 0),
        (attach, 2),
        (attach, 64),
        (b"nonsense", 1),
    ] {
        let (process, peer) = process_and_raw_peer();
        let (read_end, write_end) = pipe().unwrap();
        let fds = vec![write_end.as_fd(); count];
        raw_send(&peer, text, &fds).unwrap();
        drop(write_end);
        assert!(count == 0 || !writers_are_gone(&read_end), "still queued");
        let error = process.recv().unwrap_err();
        assert!(
            matches!(
                error,
                ChannelError::UnexpectedFds { .. } | ChannelError::Malformed(_)
            ),
            "{error}"
        );
        assert!(writers_are_gone(&read_end), "{count} descriptors leaked");
        assert_ended(&process, &peer);
    }
}

#[test]
fn end_of_file_and_empty_packets_close() {
    let (process, peer) = process_and_raw_peer();
    drop(peer);
    assert!(matches!(process.recv(), Err(ChannelError::Closed)));

    let (process, peer) = process_and_raw_peer();
    raw_send(&peer, b"", &[]).unwrap();
    assert!(matches!(process.recv(), Err(ChannelError::Closed)));
    assert_ended(&process, &peer);
}

#[test]
fn last_words_of_a_peer_that_died_with_unread_messages_are_heard() {
    let (supervisor, process) = pair().unwrap();
    let supervisor = Channel::<Command, Report>::from_fd(supervisor).unwrap();
    let process = Process::from_fd(process).unwrap();
    supervisor.send(&Command::Resume, &[]).unwrap();
    process.send(&Report::Ready, &[]).unwrap();
    drop(process);
    assert_eq!(supervisor.recv().unwrap().unwrap().message, Report::Ready);
    assert!(matches!(supervisor.recv(), Err(ChannelError::Closed)));
}

#[test]
fn a_peer_that_never_reads_makes_the_channel_full_and_no_more() {
    let (process, peer) = process_and_raw_peer();
    let report = Report::Ignored {
        what: "x".repeat(8000),
    };
    let sent = (0..10_000)
        .take_while(|_| process.send(&report, &[]).is_ok())
        .count();
    assert!(sent < 10_000, "the queue has a bound");
    assert!(matches!(
        process.send(&report, &[]),
        Err(ChannelError::Full)
    ));
    drop(peer);
    assert!(matches!(
        process.send(&report, &[]),
        Err(ChannelError::Closed)
    ));
}

#[test]
fn other_kinds_of_descriptor_are_refused() {
    let (stream, _other) = UnixStream::pair().unwrap();
    let (read_end, _write_end) = pipe().unwrap();
    for fd in [stream.into(), read_end] {
        assert!(matches!(
            Process::from_fd(fd),
            Err(ChannelError::NotSeqPacket)
        ));
    }
}
