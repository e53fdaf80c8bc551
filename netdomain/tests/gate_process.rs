//! The gate as a process: what it holds once it serves (bar 3), and that it serves from inside.
#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

#[path = "fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read as _};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use sekisho_control::{
    Channel, Command as Order, GateToUplink, PathId, Report, Side, UplinkKind, UplinkToGate,
};
use socket2::SockRef;

use fixture::papers::{self, GATEWAY, Issue, OUTSIDE};

const PATIENCE: Duration = Duration::from_secs(20);

/// A gate that ends with the test.
struct Gate {
    child: Child,
    supervisor: Channel<Order, Report>,
    uplink: Channel<UplinkToGate, GateToUplink>,
    _link: OwnedFd,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the next program that is started have the descriptor.
fn inheritable(socket: &OwnedFd) -> String {
    fcntl_setfd(socket, FdFlags::empty()).unwrap();
    format!("fd:{}", socket.as_raw_fd())
}

/// Starts a gate with the papers in `folder`.
fn start(folder: &Path) -> Gate {
    papers::write_device(folder);
    let (control, supervisor) = sekisho_control::pair().unwrap();
    let (to_uplink, uplink) = sekisho_control::pair().unwrap();
    let (link, guest) = sekisho_framelink::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sekisho-netdomain"))
        .arg("gate")
        .args(papers::arguments(folder))
        .arg("--device")
        .arg(folder.join("device.toml"))
        .args(["--user", "64017"])
        .args(["--control", &inheritable(&control)])
        .args(["--uplink", &inheritable(&to_uplink)])
        .args(["--link", &inheritable(&link)])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Gate {
        child,
        supervisor: Channel::from_fd(supervisor).unwrap(),
        uplink: Channel::from_fd(uplink).unwrap(),
        _link: guest,
    }
}

impl Gate {
    fn report(&self, what: &str, wanted: impl Fn(&Report) -> bool) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            wait_for(self.supervisor.as_fd());
            if let Some(received) = self.supervisor.recv().expect("the gate lives")
                && wanted(&received.message)
            {
                return;
            }
        }
        panic!("{what}: not within {PATIENCE:?}");
    }

    fn ready(&self) {
        self.report("ready", |report| matches!(report, Report::Ready));
    }

    /// Hands it a socket and says this about it.
    fn path(&self, id: u32, port: &str, peer: SocketAddrV4, socket: &OwnedFd) {
        let path = UplinkToGate::Path {
            id: PathId(id),
            port: port.to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: GATEWAY.to_owned(),
            side: Side::Outside,
            peer,
        };
        self.uplink.send(&path, &[socket.as_fd()]).unwrap();
    }

    /// Ends it in order; what it wrote.
    fn end(mut self) -> String {
        self.supervisor.send(&Order::Shutdown, &[]).unwrap();
        let (orderly, log) = self.ended();
        assert!(orderly, "an orderly end: {log}");
        log
    }

    /// Waits for its end: whether it was an orderly one, and what it wrote.
    fn ended(&mut self) -> (bool, String) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it serves on");
            // There is no descriptor that both its end and its words show on.
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut log = String::new();
        let stderr = self.child.stderr.take().unwrap();
        BufReader::new(stderr).read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().success(), log)
    }
}

/// The gate makes namespaces, which takes root.
fn cannot_run(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{test}: skipped; the gate makes namespaces, which takes root");
    }
    !root
}

fn wait_for(socket: impl AsFd) {
    let pause = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&pause)).unwrap();
}

/// A `WireGuard` handshake initiation is 148 bytes and begins with its type.
fn is_initiation(datagram: &[u8]) -> bool {
    datagram.len() == 148 && datagram[..4] == [1, 0, 0, 0]
}

#[test]
fn the_gate_holds_nothing_but_what_it_was_handed_and_serves() {
    if cannot_run("the_gate_holds_nothing_but_what_it_was_handed_and_serves") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    Issue::default().write(folder.path());
    let gate = start(folder.path());
    gate.ready();

    let proc = Path::new("/proc").join(gate.child.id().to_string());
    namespaces_are_its_own(&proc);
    maps_hold_no_memory_of_others(&proc);
    descriptors_are_few(&proc);
    privileges_are_gone(&proc);

    // It works from in there: a socket that leads elsewhere than policy and its own kernel say is
    // not used.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(peer) = other.local_addr().unwrap() else {
        panic!("an IPv4 socket has an IPv4 address");
    };
    socket.connect(peer).unwrap();
    let socket = OwnedFd::from(socket);
    for said in [peer, OUTSIDE] {
        gate.path(1, "lo", said, &socket);
    }
    other
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let mut buffer = [0; 2048];
    let leaked = other.recv(&mut buffer);
    assert!(leaked.is_err(), "a datagram went where policy does not say");

    // A handshake goes out where it does.
    shakes_hands(&gate);
    gate.end();
}

/// The gate answers to a path to its gateway with a handshake.
fn shakes_hands(gate: &Gate) {
    let (socket, gateway) = named_path();
    gate.path(2, "lo", OUTSIDE, &socket);
    let mut buffer = [0; 2048];
    let len = gateway
        .recv(&mut buffer)
        .expect("a handshake within the time-out");
    assert!(is_initiation(&buffer[..len]));
}

/// T50: what was applied once is remembered by the next gate.
#[test]
fn t50_an_older_or_replaced_policy_is_refused_after_a_restart() {
    if cannot_run("t50_an_older_or_replaced_policy_is_refused_after_a_restart") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let issue = |version, change| Issue {
        version,
        change,
        ..Issue::default()
    };
    let serves = |issue: &Issue| {
        issue.write(folder.path());
        let gate = start(folder.path());
        gate.ready();
        shakes_hands(&gate);
        gate.end();
    };
    let refused = |issue: &Issue, why: &str| {
        issue.write(folder.path());
        let (orderly, log) = start(folder.path()).ended();
        assert!(!orderly && log.contains("no policy, no network"), "{log}");
        assert!(log.contains(why), "{log}");
    };
    serves(&issue(2, "first"));
    refused(&issue(1, "first"), "version 1, but version 2 was applied");
    refused(&issue(2, "other"), "the same version 2");
    // The control: what is refused is refused for its age alone.
    serves(&issue(2, "first"));
    serves(&issue(3, "other"));
    refused(&issue(2, "first"), "version 2, but version 3 was applied");

    // Whoever can spoil the memory closes the network, and brings nothing back.
    let memory = folder.path().join("policy-floor");
    let whole = fs::read(&memory).unwrap();
    for spoilt in [&whole[..whole.len() / 2], b""] {
        fs::write(&memory, spoilt).unwrap();
        refused(&issue(2, "first"), "damaged");
        refused(&issue(3, "other"), "damaged");
    }
    fs::write(&memory, whole).unwrap();
    serves(&issue(3, "other"));
}

/// T32: the time of a policy ends while the gate serves by it, and so does the gate.
#[test]
fn t32_a_policy_that_expires_while_it_is_in_force_ends_the_gate() {
    if cannot_run("t32_a_policy_that_expires_while_it_is_in_force_ends_the_gate") {
        return;
    }
    let lasting = |seconds| {
        let folder = tempfile::tempdir().unwrap();
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let issue = Issue {
            expires: end.to_string(),
            ..Issue::default()
        };
        issue.write(folder.path());
        let gate = start(folder.path());
        gate.ready();
        (folder, gate)
    };
    let (_folder, control) = lasting(3600);
    let (folder, mut gate) = lasting(3);
    shakes_hands(&gate);
    let (orderly, log) = gate.ended();
    assert!(!orderly && log.contains("has expired"), "{log}");
    let (orderly, log) = start(folder.path()).ended();
    assert!(!orderly && log.contains("expired at"), "{log}");
    // The other one has seen the same time pass.
    shakes_hands(&control);
    control.end();
}

/// What a fallen uplink says is bounded before anybody writes it down.
#[test]
fn names_that_no_port_can_have_are_not_logged() {
    if cannot_run("names_that_no_port_can_have_are_not_logged") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    Issue::default().write(folder.path());
    let gate = start(folder.path());
    gate.ready();
    let (socket, _gateway) = named_path();
    let stranger = SocketAddrV4::new([198, 51, 100, 53].into(), 53);
    for name in [
        "forged\nERROR x",
        "forged-and-much-too-long",
        "forged/name",
        "",
    ] {
        gate.path(3, name, stranger, &socket);
        gate.path(3, name, OUTSIDE, &socket);
    }
    gate.path(3, "honest", stranger, &socket);
    shakes_hands(&gate);
    let log = gate.end();
    assert!(!log.contains("forged"), "{log}");
    assert!(log.contains("honest"), "a name that could be one is: {log}");
}

/// A socket that is connected to the gateway, and the gateway's, in a network of their own.
fn named_path() -> (OwnedFd, UdpSocket) {
    std::thread::spawn(move || {
        // SAFETY: a network namespace is the thread's own; neither memory nor descriptors are
        // touched.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        for arguments in [
            "link set lo up".to_owned(),
            format!("address add {}/32 dev lo", OUTSIDE.ip()),
        ] {
            let ip = Command::new("ip").args(arguments.split(' ')).status();
            assert!(ip.unwrap().success(), "ip {arguments}");
        }
        let far = UdpSocket::bind(OUTSIDE).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let near = UdpSocket::bind((*OUTSIDE.ip(), 0)).unwrap();
        SockRef::from(&near).bind_device(Some(b"lo")).unwrap();
        near.connect(OUTSIDE).unwrap();
        (OwnedFd::from(near), far)
    })
    .join()
    .unwrap()
}

fn namespaces_are_its_own(proc: &Path) {
    for kind in ["net", "mnt", "ipc", "uts"] {
        let its = fs::read_link(proc.join("ns").join(kind)).unwrap();
        let ours = fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap();
        assert_ne!(its, ours, "{kind}");
    }
    let devices = fs::read_to_string(proc.join("net/dev")).unwrap();
    let names: Vec<_> = devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(names, ["lo"], "no interface but a loopback that is down");
    let routes = fs::read_to_string(proc.join("net/route")).unwrap();
    assert!(routes.lines().count() <= 1, "no route: {routes}");
}

/// Guest memory would be a shared mapping of a memfd, of `/dev/kvm` or of anonymous memory.
fn maps_hold_no_memory_of_others(proc: &Path) {
    let maps = fs::read_to_string(proc.join("maps")).unwrap();
    for line in maps.lines() {
        let permissions = line.split_ascii_whitespace().nth(1).unwrap();
        assert!(!permissions.contains('s'), "a shared mapping: {line}");
        let writable_code = permissions.contains('w') && permissions.contains('x');
        assert!(!writable_code, "writable code: {line}");
        assert!(
            !line.contains("memfd:") && !line.contains("/dev/"),
            "{line}"
        );
    }
}

fn descriptors_are_few(proc: &Path) {
    let mut kinds = BTreeSet::new();
    let mut count = 0;
    for entry in fs::read_dir(proc.join("fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_string_lossy();
        kinds.insert(target.split(':').next().unwrap().to_owned());
        count += 1;
    }
    assert!(count <= 12, "{count} descriptors: {kinds:?}");
    assert!(
        !kinds
            .iter()
            .any(|kind| kind.contains("kvm") || kind.contains("/net/"))
    );
}

fn privileges_are_gone(proc: &Path) {
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Seccomp"), "2", "a filter is installed");
    assert_eq!(field("NoNewPrivs"), "1");
    assert!(field("Uid").starts_with("64017"));
    assert_eq!(field("Threads"), "1");
}
