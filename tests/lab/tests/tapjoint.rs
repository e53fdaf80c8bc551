//! Two tap joints with one frame link between them: the kernel's own TCP runs over it, the link's
//! end pulls the cable, a fresh link plugs it again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use sekisho_control::{Channel, Command, Port, Report};
use sekisho_lab::{Lab, Netns, Options, Output, Process, hand_over};

const LIMIT: Duration = Duration::from_secs(10);

struct Side {
    space: Netns,
    control: Channel<Command, Report>,
    _process: Process,
}

fn run(lab: &Lab, space: &Netns, command: &[&str]) -> String {
    let mut prepared = space.command(command[0]);
    prepared.args(&command[1..]);
    lab.run_command(prepared, LIMIT)
        .and_then(Output::ok)
        .unwrap_or_else(|e| panic!("{e}"))
        .stdout
}

fn side(lab: &Lab, name: &str, address: &str) -> Side {
    let space = Netns::create().unwrap();
    let (ours, theirs) = sekisho_control::pair().unwrap();
    let mut command = Netns::create()
        .unwrap()
        .command(env!("CARGO_BIN_EXE_sekisho-tapjoint"));
    let word = hand_over(&mut command, theirs);
    command
        .args(["--tap", "net0", "--netns"])
        .arg(space.path())
        .args(["--control", &word]);
    let process = lab.spawn_command(name, command).unwrap();
    let control = Channel::from_fd(ours).unwrap();
    assert_eq!(await_report(&control), Report::Ready);
    run(
        lab,
        &space,
        &["ip", "link", "set", "net0", "mtu", "1420", "up"],
    );
    run(lab, &space, &["ip", "addr", "add", address, "dev", "net0"]);
    Side {
        space,
        control,
        _process: process,
    }
}

fn await_report(control: &Channel<Command, Report>) -> Report {
    loop {
        if let Some(received) = control.recv().unwrap() {
            return received.message;
        }
        let mut fds = [rustix::event::PollFd::new(
            control,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_ne!(
            rustix::event::poll(&mut fds, Some(&limit)).unwrap(),
            0,
            "no report came"
        );
    }
}

fn join(a: &Side, b: &Side) {
    let (one, other): (OwnedFd, OwnedFd) = sekisho_framelink::pair().unwrap();
    for (side, end) in [(a, one), (b, other)] {
        side.control
            .send(&Command::Attach { port: Port::Link }, &[end.as_fd()])
            .unwrap();
    }
    for side in [a, b] {
        assert_eq!(await_report(&side.control), Report::Link { up: true });
    }
}

#[test]
fn tcp_runs_over_it_and_its_end_pulls_the_cable() {
    let root = rustix::process::geteuid().is_root();
    if sekisho_skip::skip_unless(root, "network namespaces need root") {
        return;
    }
    let lab = Lab::start(Options {
        captures: false,
        ..Options::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let (a, mut b) = (
        side(&lab, "joint-a", "10.0.0.1/24"),
        side(&lab, "joint-b", "10.0.0.2/24"),
    );
    let carrier = |side: &Side| {
        !run(&lab, &side.space, &["ip", "-o", "link", "show", "net0"]).contains("NO-CARRIER")
    };
    assert!(!carrier(&a));
    join(&a, &b);
    assert!(carrier(&a));
    let file = lab.dir().join("body");
    std::fs::write(&file, vec![7; 8 << 20]).unwrap();
    let mut listen = b.space.command("busybox");
    listen
        .args(["nc", "-l", "-p", "9000", "-e", "cat"])
        .arg(&file);
    let _listener = lab.spawn_command("listener", listen).unwrap();
    run(&lab, &a.space, &["ping", "-c", "1", "-W", "2", "10.0.0.2"]);
    let got = run(
        &lab,
        &a.space,
        &["sh", "-c", "busybox nc 10.0.0.2 9000 </dev/null | wc -c"],
    );
    assert_eq!(got.trim(), (8 << 20).to_string());

    // One side dies: the other's cable is pulled, and plugged again with a fresh peer.
    drop(b);
    assert_eq!(await_report(&a.control), Report::Link { up: false });
    assert!(!carrier(&a));
    b = side(&lab, "joint-b2", "10.0.0.2/24");
    join(&a, &b);
    assert!(carrier(&a));
    run(&lab, &a.space, &["ping", "-c", "1", "-W", "5", "10.0.0.2"]);
}
