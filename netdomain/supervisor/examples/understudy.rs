//! Stands in for a process of the laptop in the supervisor's tests: takes the same descriptors, says
//! over each socket who it is, and reports who is at the other end.
//!
//! `SIGUSR1` makes it report the shutdown of the work OS and end.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvFlags, SendFlags, recv, send},
};
use sekisho_control::{Channel, Command, Report, inherited};

type Control = Channel<Report, Command>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        Some(inherited(words.get(at + 1)?).expect("an inherited descriptor"))
    };
    let mut sockets: Vec<(&str, OwnedFd)> = Vec::new();
    for (name, option_name) in [
        ("link", "--link"),
        ("uplink", "--uplink"),
        ("gate", "--gate"),
    ] {
        if let Some(socket) = option(option_name) {
            greet(&socket);
            sockets.push((name, socket));
        }
    }
    let Some(control) = option("--control") else {
        // Ends with its link, as a tap joint does.
        let (_, link) = sockets.pop().expect("a link");
        let mut buffer = [0; 64];
        loop {
            wait(&[link.as_fd()]);
            if matches!(recv(&link, &mut buffer, RecvFlags::empty()), Ok((0, _))) {
                return ExitCode::FAILURE;
            }
        }
    };
    let control = Control::from_fd(control).expect("a channel");
    let (signals, end) = UnixStream::pair().expect("a pipe");
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGUSR1, end).expect("a handler");
    report(&control, &Report::Ready);

    loop {
        let mut waiting = vec![control.as_fd(), signals.as_fd()];
        waiting.extend(sockets.iter().map(|(_, socket)| socket.as_fd()));
        let ready = wait(&waiting);
        if ready[1] {
            let cause = "shutdown".to_owned();
            report(&control, &Report::WorkEnded { cause });
            return ExitCode::SUCCESS;
        }
        let mut position = 2;
        sockets.retain(|(name, socket)| {
            let readable = ready[position];
            position += 1;
            !readable || heard(&control, name, socket)
        });
        loop {
            let mut received = match control.recv() {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(_) => return ExitCode::FAILURE,
            };
            match received.message {
                Command::Shutdown | Command::PowerButton => return ExitCode::SUCCESS,
                Command::Attach { port } => {
                    let name = match port {
                        sekisho_control::Port::Link => "link",
                        sekisho_control::Port::Uplink => "uplink",
                        sekisho_control::Port::Gate => "gate",
                        sekisho_control::Port::GuestChannel => "guest",
                        sekisho_control::Port::Tls => "tls",
                    };
                    let socket = received.fds.remove(0);
                    greet(&socket);
                    sockets.retain(|(known, _)| *known != name);
                    sockets.push((name, socket));
                }
                _ => {}
            }
        }
    }
}

/// Which of the descriptors are readable, or at their end.
fn wait(fds: &[std::os::fd::BorrowedFd<'_>]) -> Vec<bool> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let _ = poll(&mut polled, None);
    polled.iter().map(|fd| !fd.revents().is_empty()).collect()
}

fn greet(socket: &OwnedFd) {
    let _ = send(
        socket,
        std::process::id().to_string().as_bytes(),
        SendFlags::NOSIGNAL,
    );
}

/// Reports who spoke; `false` at the end of the socket.
fn heard(control: &Control, name: &str, socket: &OwnedFd) -> bool {
    let mut buffer = [0; 64];
    let Ok((length, _)) = recv(socket, &mut buffer, RecvFlags::empty()) else {
        return true;
    };
    let peer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let what = match length {
        0 => format!("{name} ended"),
        _ => format!("{name} {peer}"),
    };
    report(control, &Report::Ignored { what });
    length > 0
}

fn report(control: &Control, report: &Report) {
    let _ = control.send(report, &[]);
}
