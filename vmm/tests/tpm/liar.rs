//! A peer that speaks swtpm's protocol, up to a point.

use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sekisho_vmm::chipset::tpm::{Farewell, Patience};

use crate::commands;
use crate::driver::{Machine, code};

const HURRY: Patience = Patience {
    control: Duration::from_millis(300),
    command: Duration::from_millis(300),
};
const FAILURE: u32 = 0x101;

/// What it answers to the commands of the control channel, by their code.
type Answers = fn(u32) -> Option<Vec<u8>>;

/// What it does on the data channel once a command has come.
type Deed = fn(&mut UnixStream);

/// As swtpm answers.
#[allow(clippy::unnecessary_wraps, reason = "others say nothing")]
fn truth(command: u32) -> Option<Vec<u8>> {
    Some(match command {
        1 => 0xffff_u64.to_be_bytes().to_vec(),
        4 => vec![0; 8],
        0x11 => [0, 0xf80, 0xaf8, 0x1000].map(u32::to_be_bytes).concat(),
        _ => vec![0; 4],
    })
}

/// Length of what follows a command's code.
fn rest(command: u32) -> usize {
    match command {
        2 | 0x11 => 4,
        5 => 1,
        _ => 0,
    }
}

/// Takes part in the control protocol up to the last question, on its way takes the data channel; `None`
/// when it fell silent before.
fn take_part(control: &UnixStream, answers: Answers) -> Option<UnixStream> {
    let mut data = None;
    loop {
        let mut code = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut code)];
        let got =
            rustix::net::recvmsg(control, &mut iov, &mut ancillary, RecvFlags::empty()).unwrap();
        if got.bytes == 0 {
            return None;
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                data = fds.map(UnixStream::from).last().or(data);
            }
        }
        let command = u32::from_be_bytes(code);
        let mut control = control;
        control.read_exact(&mut vec![0; rest(command)]).unwrap();
        control.write_all(&answers(command)?).ok()?;
        if command == 4 {
            return data;
        }
    }
}

/// A peer that does `then` once a command has come, with the command's data channel.
fn peer(answers: Answers, then: Deed) -> (OwnedFd, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        if let Some(mut data) = take_part(&theirs, answers) {
            let _ = data.read(&mut [0; 4096]);
            then(&mut data);
            // Stays, until the other side has gone.
            let _ = data.read_to_end(&mut Vec::new());
        }
        let _ = (&theirs).read_to_end(&mut Vec::new());
    });
    (ours.into(), thread)
}

#[test]
fn an_answer_that_is_none_fails_the_tpm() {
    let lies: [(&str, Deed); 7] = [
        ("never answers", |_| {}),
        ("a short answer and silence", |data| {
            data.write_all(&[0x80, 1, 0, 0, 0, 14, 0, 0, 0, 0]).unwrap();
        }),
        ("a short answer and the end", |data| {
            data.write_all(&[0x80, 1, 0, 0]).unwrap();
            data.shutdown(std::net::Shutdown::Both).unwrap();
        }),
        ("longer than the buffer", |data| {
            data.write_all(&[0x80, 1, 0, 0, 0x0f, 0x81, 0, 0, 0, 0])
                .unwrap();
        }),
        ("as long as can be said", |data| {
            data.write_all(&[0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
                .unwrap();
            let _ = data.write_all(&vec![0xaa; 1 << 20]);
        }),
        ("two answers", |data| {
            let answer = [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];
            data.write_all(&[answer, answer].concat()).unwrap();
        }),
        ("something else", |data| {
            data.write_all(b"HTTP/1.1 200 OK").unwrap();
        }),
    ];
    for (lie, then) in lies {
        let (control, thread) = peer(truth, then);
        let machine = Machine::open(control, HURRY).unwrap();
        let began = Instant::now();
        let response = machine.run(&commands::random(4));
        println!("{lie}: {:#x} after {:?}", code(&response), began.elapsed());
        assert_eq!(code(&response), FAILURE, "{lie}");
        assert!(machine.failed(), "{lie}");
        machine.off(Farewell::Off);
        thread.join().unwrap();
    }
    // The control: the same peer, and an answer that is one.
    let (control, thread) = peer(truth, |data| {
        data.write_all(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]).unwrap();
        let _ = data.read(&mut [0; 4096]);
        data.write_all(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]).unwrap();
    });
    let machine = Machine::open(control, HURRY).unwrap();
    machine.ask(&commands::random(4));
    assert!(!machine.failed());
    machine.off(Farewell::Off);
    thread.join().unwrap();
}

#[test]
fn a_peer_that_is_no_swtpm_is_refused_with_why() {
    let peers: [(&str, Answers); 6] = [
        ("has not answered CMD_GET_CAPABILITY", |_| None),
        ("has no CMD_SET_DATAFD", |command| match command {
            1 => Some(0x0fff_u64.to_be_bytes().to_vec()),
            other => truth(other),
        }),
        ("buffers of 4096 bytes", |command| match command {
            0x11 => Some([0, 4096, 0, 0].map(u32::to_be_bytes).concat()),
            other => truth(other),
        }),
        ("refuses CMD_INIT with error 0x9", |command| match command {
            2 => Some(9_u32.to_be_bytes().to_vec()),
            other => truth(other),
        }),
        (
            "has not answered CMD_SET_LOCALITY",
            |command| match command {
                5 => Some(vec![0, 0]),
                other => truth(other),
            },
        ),
        (
            "has not answered CMD_SET_BUFFERSIZE",
            |command| match command {
                0x11 => Some(vec![0; 12]),
                other => truth(other),
            },
        ),
    ];
    for (why, answers) in peers {
        let (control, thread) = peer(answers, |_| {});
        let began = Instant::now();
        let error = Machine::open(control, HURRY).err().expect(why).to_string();
        println!("{error}");
        assert!(error.contains(why), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{why}");
        thread.join().unwrap();
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let error = Machine::open(ours.into(), HURRY).err().unwrap().to_string();
    assert!(error.contains("has closed its control channel"), "{error}");
}
