//! Stands in for a process of the laptop in the supervisor's tests: takes the same descriptors, says
//! over each socket who it is, and reports who is at the other end.
//!
//! `SIGUSR1` makes it report the shutdown of the work OS and end; `SIGUSR2` a way out, the first time
//! outside the office, the second time in it; `SIGALRM` close its channel and end with status
//! [`LAST_WORD`] a moment later; `SIGHUP` close its channel and live on.

use std::{
    io::Read as _,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvFlags, SendFlags, recv, send},
};
use sekisho_control::{Channel, Command, Place, Report, Side, SituationReport, inherited};

type Control = Channel<Report, Command>;

/// What is said at the end, in a test.
const LAST_WORD: u8 = 42;

/// A descriptor that the command line names.
fn option(name: &str) -> Option<OwnedFd> {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name)?;
    Some(inherited(words.get(at + 1)?).expect("an inherited descriptor"))
}

/// The sockets to others that it begins with.
fn inherited_sockets() -> Vec<(&'static str, OwnedFd)> {
    let options = [
        ("link", "--link"),
        ("uplink", "--uplink"),
        ("gate", "--gate"),
        ("guest", "--guest"),
        ("guest", "--port"),
    ];
    let sockets = options.map(|(name, named)| option(named).map(|socket| (name, socket)));
    let sockets: Vec<_> = sockets.into_iter().flatten().collect();
    for (_, socket) in &sockets {
        greet(socket);
    }
    sockets
}

/// Ends with its link, as a tap joint does.
fn live_by(link: &OwnedFd) -> ExitCode {
    let mut buffer = [0; 64];
    loop {
        wait(&[link.as_fd()]);
        if matches!(recv(link, &mut buffer, RecvFlags::empty()), Ok((0, _))) {
            return ExitCode::FAILURE;
        }
    }
}

fn main() -> ExitCode {
    let mut sockets = inherited_sockets();
    let Some(control) = option("--control") else {
        return live_by(&sockets.pop().expect("a link").1);
    };
    let control = Control::from_fd(control).expect("a channel");
    let [signals, mut moves, leave, hang] = [
        signal_hook::consts::SIGUSR1,
        signal_hook::consts::SIGUSR2,
        signal_hook::consts::SIGALRM,
        signal_hook::consts::SIGHUP,
    ]
    .map(|number| {
        let (signals, end) = UnixStream::pair().expect("a pipe");
        signal_hook::low_level::pipe::register(number, end).expect("a handler");
        signals
    });
    let mut places = [Place::Remote, Place::Office].into_iter();
    report(&control, &Report::Ready);

    loop {
        let mut waiting = vec![
            control.as_fd(),
            signals.as_fd(),
            moves.as_fd(),
            leave.as_fd(),
            hang.as_fd(),
        ];
        waiting.extend(sockets.iter().map(|(_, socket)| socket.as_fd()));
        let ready = wait(&waiting);
        if ready[1] {
            let cause = "shutdown".to_owned();
            report(&control, &Report::WorkEnded { cause });
            return ExitCode::SUCCESS;
        }
        if ready[2] {
            let _ = moves.read(&mut [0]);
            if let Some(place) = places.next() {
                report(&control, &Report::Situation(tunnelled(place)));
            }
        }
        if ready[3] {
            drop(control);
            thread::sleep(Duration::from_millis(100));
            return ExitCode::from(LAST_WORD);
        }
        if ready[4] {
            drop(control);
            loop {
                thread::park();
            }
        }
        let mut position = 5;
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
                        sekisho_control::Port::Seat => "seat",
                        sekisho_control::Port::Tls => "tls",
                        sekisho_control::Port::Modem => "modem",
                        sekisho_control::Port::Ike => "ike",
                    };
                    let socket = received.fds.remove(0);
                    greet(&socket);
                    sockets.retain(|(known, _)| *known != name);
                    sockets.push((name, socket));
                }
                Command::Notice { en, .. } => {
                    let what = format!("notice: {en}");
                    report(&control, &Report::Ignored { what });
                }
                _ => {}
            }
        }
    }
}

fn tunnelled(place: Place) -> SituationReport {
    SituationReport::Tunnelled {
        gateway: "honcho-1".to_owned(),
        port: "card0".to_owned(),
        side: Side::Outside,
        place,
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
