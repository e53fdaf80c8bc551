//! The two programs against each other, and each against a hostile peer, over socket pairs.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use sekisho_control::{Channel, ChannelError, Command as Order, Port, Report, pair};
use sekisho_guest_tools::frame::{Decoder, MARKER, Piece, encode};
use sekisho_guest_tools::port::{now, wait};

const SOON: Duration = Duration::from_secs(10);

/// A program that is killed at the end of the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts with `fds` inherited. One start at a time: another program must not inherit them.
    fn start(mut command: Command, fds: Vec<OwnedFd>) -> Self {
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock();
        for fd in &fds {
            fcntl_setfd(fd, FdFlags::empty()).expect("flags");
        }
        let child = command.spawn().expect("started");
        // Only the program may hold its ends, or nobody would see them close.
        drop(fds);
        Self(child)
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        // A child's end can only be polled for here without unsafe code.
        while Instant::now() < deadline {
            if self.0.try_wait().expect("status").is_some() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

fn agent(port: UnixStream, folder: &std::path::Path) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho-guest-agent"));
    command
        .args(["--port", "-", "--notices"])
        .arg(folder.join("notices"));
    command.arg("--power-off").arg(folder.join("power-off"));
    command.stdin(Stdio::from(OwnedFd::from(port)));
    let script = format!("#!/bin/sh\ntouch {}/is-off\n", folder.display());
    fs::write(folder.join("power-off"), script).expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.join("power-off"), mode).expect("mode");
    Program::start(command, Vec::new())
}

/// A host end with the supervisor's side of its channel.
struct Host {
    program: Program,
    control: Channel<Order, Report>,
}

impl Host {
    fn start(port: Option<UnixStream>) -> Self {
        let (ours, theirs) = pair().expect("pair");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho-guest-host"));
        command.args([
            "--control",
            &format!("fd:{}", theirs.as_raw_fd()),
            "--countdown",
            "0",
        ]);
        let mut fds = vec![theirs];
        if let Some(port) = port {
            command.args(["--port", &format!("fd:{}", port.as_raw_fd())]);
            fds.push(port.into());
        }
        let program = Program::start(command, fds);
        let control = Channel::from_fd(ours).expect("channel");
        let host = Self { program, control };
        assert_eq!(host.report(), Report::Ready);
        host
    }

    fn report(&self) -> Report {
        let deadline = now() + SOON;
        while now() < deadline {
            if let Some(received) = self.control.recv().expect("the host end lives") {
                return received.message;
            }
            wait(
                &mut [PollFd::new(&self.control, PollFlags::IN)],
                Some(deadline),
            )
            .expect("poll");
        }
        panic!("no report came");
    }

    /// Waits for this event of the guest; gives its detail.
    fn event(&self, wanted: &str) -> String {
        loop {
            if let Report::Guest { event, detail } = self.report()
                && event == wanted
            {
                return detail;
            }
        }
    }

    fn order(&self, order: &Order) {
        let deadline = now() + SOON;
        while let Err(error) = self.control.send(order, &[]) {
            assert!(
                matches!(error, ChannelError::Full) && now() < deadline,
                "{error}"
            );
            wait(
                &mut [PollFd::new(&self.control, PollFlags::OUT)],
                Some(deadline),
            )
            .expect("poll");
        }
    }
}

fn wait_for_file(path: &std::path::Path) -> String {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        std::thread::yield_now();
    }
    panic!("{} did not appear", path.display());
}

fn message(json: &str) -> Vec<u8> {
    encode(json.as_bytes().to_vec()).expect("short")
}

fn hello(session: u64) -> Vec<u8> {
    message(&format!(
        r#"{{"seq":0,"body":{{"say":"hello","version":1,"session":{session},"answers":null,"capabilities":["notice","shutdown"],"program":"test"}}}}"#
    ))
}

/// Reads messages until one contains `text`.
fn read_until(stream: &mut UnixStream, text: &str) -> String {
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    let mut decoder = Decoder::default();
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes).expect("the program says something");
        assert!(length > 0, "the program closed its end");
        let mut found = None;
        decoder.push(&bytes[..length], |piece| {
            if let Piece::Message(body) = piece {
                let body = String::from_utf8(body).expect("text");
                if body.contains(text) {
                    found = Some(body);
                }
            }
        });
        if let Some(found) = found {
            return found;
        }
    }
}

#[test]
fn a_notice_is_shown_and_the_power_button_shuts_down_cleanly() {
    let folder = tempfile::tempdir().expect("folder");
    let (near, far) = UnixStream::pair().expect("pair");
    let host = Host::start(Some(near));
    // Before the agent is there; it is shown as soon as it comes.
    host.order(&Order::Notice {
        ja: "接続しました".into(),
        en: "Connected".into(),
    });
    let _agent = agent(far, folder.path());
    assert!(host.event("hello").contains("notice shutdown"));
    host.event("notice-shown");
    let shown = wait_for_file(&folder.path().join("notices"));
    assert!(
        shown.contains("接続しました") && shown.contains("Connected"),
        "{shown}"
    );

    host.order(&Order::PowerButton);
    host.event("shutdown-asked");
    host.event("shutdown-accepted");
    host.event("shutdown-begins");
    wait_for_file(&folder.path().join("is-off"));
}

#[test]
fn a_fresh_port_begins_a_fresh_conversation() {
    let folder = tempfile::tempdir().expect("folder");
    let (near, far) = UnixStream::pair().expect("pair");
    let host = Host::start(Some(near));
    let first = agent(far, folder.path());
    host.event("hello");
    drop(first);
    host.event("detached");

    let (near, far) = UnixStream::pair().expect("pair");
    let _second = agent(far, folder.path());
    let near = OwnedFd::from(near);
    let attach = Order::Attach {
        port: Port::GuestChannel,
    };
    host.control
        .send(&attach, &[std::os::fd::AsFd::as_fd(&near)])
        .expect("sent");
    drop(near);
    host.event("hello");
}

#[test]
fn the_host_end_survives_a_hostile_agent() {
    let (near, mut far) = UnixStream::pair().expect("pair");
    let mut host = Host::start(Some(near));
    // Garbage, a length out of bounds, a message before the hello.
    far.write_all(&vec![0x41; 100_000]).expect("written");
    host.event("malformed");
    far.write_all(&MARKER).expect("written");
    far.write_all(&message(r#"{"seq":1,"body":{"say":"shutdown-begins"}}"#))
        .expect("written");
    host.event("unannounced");
    far.write_all(&hello(7)).expect("written");
    host.event("hello");
    // A message a second time, out of order, of an unknown kind, with a terminal escape.
    let beat = message(r#"{"seq":5,"body":{"say":"heartbeat","uptime_ms":1}}"#);
    far.write_all(&beat).expect("written");
    host.event("heartbeat");
    far.write_all(&beat).expect("written");
    host.event("replayed");
    far.write_all(&message(r#"{"seq":6,"body":{"say":"exec","argv":["sh"]}}"#))
        .expect("written");
    host.event("malformed");
    // It floods, and reads nothing: the host end drops and goes on.
    let flood: Vec<u8> = (6..2000)
        .flat_map(|seq| {
            message(&format!(
                r#"{{"seq":{seq},"body":{{"say":"heartbeat","uptime_ms":1}}}}"#
            ))
        })
        .collect();
    far.write_all(&flood).expect("written");
    for _ in 0..2000 {
        host.order(&Order::Notice {
            ja: "あ".repeat(600),
            en: "x".repeat(600),
        });
        while host.control.recv().expect("the host end lives").is_some() {}
    }
    // Still itself: the supervisor ends it in an orderly way.
    host.order(&Order::Shutdown);
    assert!(host.program.ends_within(SOON));
}

#[test]
fn the_agent_survives_a_hostile_host() {
    let folder = tempfile::tempdir().expect("folder");
    let (near, mut far) = UnixStream::pair().expect("pair");
    let mut agent = agent(near, folder.path());
    read_until(&mut far, "hello");
    far.write_all(&vec![0x7f; 100_000]).expect("written");
    far.write_all(&MARKER).expect("written");
    // Before the hello nothing counts.
    let shut_down = r#"{"seq":1,"body":{"say":"shutdown","countdown":0}}"#;
    far.write_all(&message(shut_down)).expect("written");
    far.write_all(&hello(9)).expect("written");
    read_until(&mut far, "hello");
    // What it has no message for cannot be asked for.
    for (seq, body) in [
        (1, r#"{"say":"exec","argv":["touch","/tmp/x"]}"#),
        (2, r#"{"say":"read-file","path":"/etc/shadow"}"#),
        (
            3,
            r#"{"say":"notice","id":1,"ja":"\u001b[2J\u202e偽","en":"fake\u0007"}"#,
        ),
    ] {
        far.write_all(&message(&format!(r#"{{"seq":{seq},"body":{body}}}"#)))
            .expect("written");
    }
    read_until(&mut far, "notice-shown");
    let shown = wait_for_file(&folder.path().join("notices"));
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{202e}') && shown.contains('偽'),
        "{shown}"
    );
    // A replay of the notice shows nothing.
    let again = r#"{"seq":3,"body":{"say":"notice","id":1,"ja":"again","en":"again"}}"#;
    far.write_all(&message(again)).expect("written");
    // A flood of notices is cut short; the agent still answers.
    for seq in 4..200 {
        let notice =
            format!(r#"{{"seq":{seq},"body":{{"say":"notice","id":{seq},"ja":"n","en":"n"}}}}"#);
        far.write_all(&message(&notice)).expect("written");
    }
    let last = r#"{"seq":500,"body":{"say":"shutdown","countdown":4000000000}}"#;
    far.write_all(&message(last)).expect("written");
    let accepted = read_until(&mut far, "shutdown-accepted");
    assert!(accepted.contains(r#""countdown":300"#), "{accepted}");
    let shown = fs::read_to_string(folder.path().join("notices")).expect("notices");
    assert!(!shown.contains("again"));
    assert!(shown.matches("[Sekisho] n").count() <= 8);
    assert!(!folder.path().join("is-off").exists());
    // End of file ends it.
    drop(far);
    assert!(agent.ends_within(SOON));
}

#[test]
fn the_host_end_has_no_network_and_an_empty_root() {
    let (near, _far) = UnixStream::pair().expect("pair");
    let host = Host::start(Some(near));
    let pid = host.program.0.id();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).expect("namespace");
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("field");
        line.split_whitespace().last().expect("value").to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("CapEff:").trim_matches('0'), "");
    assert_eq!(field("NoNewPrivs:"), "1");
    let root = fs::read_dir(format!("/proc/{pid}/root/")).expect("root");
    assert_eq!(root.count(), 0);
}
