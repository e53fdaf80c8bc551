//! The gate as a process: what it holds once it serves (bar 3), and that it serves from inside.
#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use sekisho_control::{
    Channel, Command as Order, GateToUplink, PathId, Report, Side, UplinkKind, UplinkToGate,
};
use sekisho_policy::PrivateKey;

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

fn write_files(folder: &Path, gateway: SocketAddrV4) {
    let policy = format!(
        r#"
schema = 1
[policy]
id = "jp.mihon-city"
version = 1
issued = "2026-01-01T00:00:00+09:00"
expires = "2099-01-01T00:00:00+09:00"
[segments.lgwan]
prefixes = ["10.12.0.0/16"]
[[uplink]]
kind = "wired"
rank = 1
[vpn]
kill_switch = "always"
[[vpn.gateway]]
name = "honcho"
kind = "wireguard"
address = "{gateway}"
public_key = "{}"
uplinks = ["wired"]
[onprem]
uplinks = ["wired"]
beacon = {{ address = "10.12.0.200:8443", spki_sha256 = "{}" }}
"#,
        STANDARD.encode([5; 32]),
        "ab".repeat(32),
    );
    let key = PrivateKey::from_seed(&[3; 32]);
    let signature = key.sign(policy.as_bytes()).to_file();
    let device = r#"
device = "mihon-0001"
private_key = "wg.key"
address = "10.250.7.23/24"
router = "10.250.7.1"
mac = "02:53:4b:00:07:17"
mtu = 1420
"#;
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("policy.toml", &policy);
    write("policy.toml.sig", &signature);
    write("trust.pem", &key.public_pem());
    write("device.toml", device);
    write("wg.key", &STANDARD.encode([7; 32]));
}

/// Lets the next program that is started have the descriptor.
fn inheritable(socket: &OwnedFd) -> String {
    fcntl_setfd(socket, FdFlags::empty()).unwrap();
    format!("fd:{}", socket.as_raw_fd())
}

fn start(folder: &Path) -> Gate {
    let (control, supervisor) = sekisho_control::pair().unwrap();
    let (to_uplink, uplink) = sekisho_control::pair().unwrap();
    let (link, guest) = sekisho_framelink::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sekisho-netdomain"))
        .arg("gate")
        .args(["--policy", "policy.toml"])
        .args(["--signature", "policy.toml.sig"])
        .args(["--trust", "trust.pem"])
        .args(["--device", "device.toml"])
        .args(["--state", "."])
        .args(["--user", "64017"])
        .args(["--control", &inheritable(&control)])
        .args(["--uplink", &inheritable(&to_uplink)])
        .args(["--link", &inheritable(&link)])
        .current_dir(folder)
        .stdin(Stdio::null())
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
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the gate makes namespaces, which takes root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let gateway = SocketAddrV4::new("203.0.113.10".parse().unwrap(), 51820);
    write_files(folder.path(), gateway);
    let mut gate = start(folder.path());
    gate.report("ready", |report| matches!(report, Report::Ready));

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
    for said in [peer, gateway] {
        let path = UplinkToGate::Path {
            id: PathId(1),
            port: "eth0".to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: "honcho".to_owned(),
            side: Side::Outside,
            peer: said,
        };
        gate.uplink.send(&path, &[socket.as_fd()]).unwrap();
    }
    other
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let mut buffer = [0; 2048];
    let leaked = other.recv(&mut buffer);
    assert!(leaked.is_err(), "a datagram went where policy does not say");

    // A handshake goes out where it does.
    let (sent, got) = named_path(gateway);
    let path = UplinkToGate::Path {
        id: PathId(2),
        port: "eth0".to_owned(),
        kind: UplinkKind::Wired,
        rank: 1,
        gateway: "honcho".to_owned(),
        side: Side::Outside,
        peer: gateway,
    };
    gate.uplink.send(&path, &[sent.as_fd()]).unwrap();
    let len = got
        .recv(&mut buffer)
        .expect("a handshake within the time-out");
    assert!(is_initiation(&buffer[..len]));

    gate.supervisor.send(&Order::Shutdown, &[]).unwrap();
    assert!(gate.child.wait().unwrap().success(), "an orderly end");
}

/// A socket that is connected to `gateway`, and the gateway's, in a network of their own.
fn named_path(gateway: SocketAddrV4) -> (OwnedFd, UdpSocket) {
    std::thread::spawn(move || {
        // SAFETY: a network namespace is the thread's own; neither memory nor descriptors are
        // touched.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        for arguments in [
            "link set lo up".to_owned(),
            format!("address add {}/32 dev lo", gateway.ip()),
        ] {
            let ip = Command::new("ip").args(arguments.split(' ')).status();
            assert!(ip.unwrap().success(), "ip {arguments}");
        }
        let far = UdpSocket::bind(gateway).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let near = UdpSocket::bind((*gateway.ip(), 0)).unwrap();
        near.connect(gateway).unwrap();
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
