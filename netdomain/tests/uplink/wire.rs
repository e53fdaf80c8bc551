//! Two network namespaces and a cable: the uplink's, and a LAN with dnsmasq that also plays the
//! gateway and the beacon. Everything is removed on drop.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command as Process, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{FdFlags, fcntl_setfd},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use sekisho_control::{Carries, Channel, Command, GateToUplink, Report, UplinkToGate};
use serde::{Serialize, de::DeserializeOwned};

use super::fixture::papers::{self, Issue};

/// Longest wait for anything in these tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const GATEWAY: &str = "203.0.113.10:51820";
pub(crate) const GATEWAY_LAN: &str = "10.12.0.2:51820";
pub(crate) const BEACON: &str = "10.12.0.200:8443";

/// Says why a test cannot run here, `true` if so.
pub(crate) fn cannot_run(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = ["ip", "nft", "dnsmasq"].iter().all(|tool| {
        Process::new("sh")
            .args([
                "-c",
                &format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}"),
            ])
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if !(root && tools) {
        eprintln!("{test}: skipped; it needs root, iproute2, nftables and dnsmasq");
    }
    !(root && tools)
}

/// The two namespaces and what runs in them.
pub(crate) struct Wire {
    host: String,
    lan: String,
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Wire {
    /// A cable from `eth0` to the LAN's `lan0`, which has the router's, the gateway's and the
    /// beacon's addresses. `eth0` is down.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("sk{}-{number}", std::process::id());
        let wire = Self {
            host: format!("{prefix}-h"),
            lan: format!("{prefix}-l"),
            directory: tempfile::tempdir().unwrap(),
            children: Vec::new(),
        };
        for name in [&wire.host, &wire.lan] {
            ip(&format!("netns add {name}"));
        }
        wire.ip_lan("link set lo up");
        wire.cable();
        for address in ["203.0.113.10", "10.12.0.2", "10.12.0.200", "198.51.100.53"] {
            wire.ip_lan(&format!("addr add {address}/32 dev lo"));
        }
        wire
    }

    /// Puts the cable there.
    fn cable(&self) {
        ip(&format!(
            "link add eth0 netns {} type veth peer name lan0 netns {}",
            self.host, self.lan
        ));
        self.ip_lan("link set lan0 up");
        self.ip_lan("addr add 192.168.43.1/24 dev lan0");
    }

    /// Replaces the cable by another one: other interfaces, which have moved nothing yet.
    pub(crate) fn recable(&self) {
        self.ip_lan("link del lan0");
        self.cable();
    }

    /// Starts dnsmasq with these options besides those that every LAN has.
    pub(crate) fn serve_dhcp(&mut self, range: &str, options: &[&str]) {
        let leases = self.directory.path().join("leases");
        let mut dnsmasq = Process::new("ip");
        dnsmasq
            .args([
                "netns",
                "exec",
                &self.lan,
                "dnsmasq",
                "--keep-in-foreground",
            ])
            .args([
                "--conf-file=/dev/null",
                "--port=0",
                "--no-ping",
                "--user=root",
            ])
            .args(["--interface=lan0", "--dhcp-authoritative", "--pid-file="])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg(format!("--dhcp-range={range}"))
            .args(options)
            .args(["--log-facility=-", "--log-dhcp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It is ready when it holds port 67.
        self.children.push(dnsmasq.spawn().unwrap());
        until("dnsmasq serves DHCP", || {
            output("ip", &["netns", "exec", &self.lan, "cat", "/proc/net/udp"]).contains(":0043 ")
        });
    }

    /// `ip` in the LAN's namespace.
    pub(crate) fn ip_lan(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.lan))
    }

    /// `ip` in the uplink's namespace.
    pub(crate) fn ip_host(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.host))
    }

    /// `nft` in the uplink's namespace.
    /// The ways out of the wire's device, besides the end of all that finds none.
    pub(crate) fn ways(&self) -> Vec<String> {
        let routes = self.ip_host("route show table all");
        let of_the_wire = |line: &&str| line.contains("table 51");
        let (ends, ways): (Vec<&str>, Vec<&str>) = routes
            .lines()
            .filter(of_the_wire)
            .partition(|line| line.starts_with("blackhole default table 51"));
        assert_eq!(ends.len(), 1, "what finds nothing goes on: {routes}");
        ways.into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn nft_host(&self, arguments: &[&str]) -> String {
        output(
            "ip",
            &[&["netns", "exec", &self.host, "nft"], arguments].concat(),
        )
    }

    /// Does something in the LAN's namespace.
    pub(crate) fn in_lan<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.lan, work)
    }

    /// Does something in the uplink's namespace.
    pub(crate) fn in_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.host, work)
    }

    /// A UDP socket in the LAN.
    pub(crate) fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.in_lan(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    /// A TCP listener in the LAN.
    pub(crate) fn tcp(&self, address: &str) -> TcpListener {
        self.in_lan(|| TcpListener::bind(address).unwrap())
    }

    /// Starts the uplink with signed papers and no gate.
    pub(crate) fn start_uplink(&self) -> Uplink {
        Issue::default().write(self.folder());
        self.start_with_papers()
    }

    /// Starts the uplink with the papers that are there.
    pub(crate) fn start_with_papers(&self) -> Uplink {
        self.start_with(&[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Uplink {
        self.start_handing(arguments, Vec::new())
    }

    /// The same with further descriptors.
    pub(crate) fn start_handing(&self, arguments: &[&str], fds: Vec<(OwnedFd, i32)>) -> Uplink {
        let (control, theirs) = sekisho_control::pair().unwrap();
        let netns = OwnedFd::from(File::open(format!("/run/netns/{}", self.host)).unwrap());
        let mut process = Process::new(env!("CARGO_BIN_EXE_sekisho-netdomain"));
        process
            .arg("uplink")
            .args(papers::arguments(self.folder()))
            .args([
                "--netns",
                "fd:200",
                "--control",
                "fd:201",
                "--member-mac",
                "02:53:4b:00:07:17",
                "--user",
                "64018",
            ])
            .args(arguments)
            .env("SEKISHO_LOG", "debug")
            .stderr(Stdio::piped());
        let own = [(netns, 200), (theirs, 201)];
        inherit(&mut process, own.into_iter().chain(fds).collect());
        let mut process = process.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("uplink: {line}");
            }
        });
        Uplink {
            process,
            control: Channel::from_fd(control).unwrap(),
        }
    }

    /// The name of the LAN's namespace.
    #[allow(dead_code, reason = "for the tests of the modem")]
    pub(crate) fn lan(&self) -> &str {
        &self.lan
    }

    /// Where the papers lie, and what is remembered of them.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in [&self.host, &self.lan] {
            let _ = Process::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Puts descriptors at fixed numbers of a child, above those that this process has open. They are kept until the command is dropped.
pub(crate) fn inherit(process: &mut Process, fds: Vec<(OwnedFd, i32)>) {
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec the closure only calls fcntl and dup2 on descriptors that it
    // owns; no allocation, no lock.
    unsafe {
        process.pre_exec(move || {
            for (fd, number) in &fds {
                let mut place = std::mem::ManuallyDrop::new(
                    <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(*number),
                );
                rustix::io::dup2(fd, &mut place)?;
                fcntl_setfd(&*place, FdFlags::empty())?;
            }
            Ok(())
        });
    }
}

/// A running uplink and the supervisor's end of its channel.
pub(crate) struct Uplink {
    process: Child,
    control: Channel<Command, Report>,
}

impl Uplink {
    /// Gives it a gate; what a gate would hold.
    pub(crate) fn attach_gate(&self) -> Channel<GateToUplink, UplinkToGate> {
        let (ours, theirs) = sekisho_control::pair().unwrap();
        let command = Command::Attach {
            port: sekisho_control::Port::Gate,
        };
        self.control.send(&command, &[theirs.as_fd()]).unwrap();
        Channel::from_fd(ours).unwrap()
    }

    /// Waits for a report.
    pub(crate) fn report(&self, what: &str, mut wanted: impl FnMut(&Report) -> bool) -> Report {
        receive(&self.control, what, |report, _| wanted(report)).0
    }

    /// Tells it something, with a descriptor.
    #[allow(dead_code, reason = "for the tests of the modem")]
    pub(crate) fn hand(&self, command: &Command, fd: &OwnedFd) {
        self.control.send(command, &[fd.as_fd()]).unwrap();
    }

    /// The supervisor's end of its channel.
    #[allow(dead_code, reason = "for the tests of the modem")]
    pub(crate) fn control(&self) -> &Channel<Command, Report> {
        &self.control
    }

    /// Tells it something.
    pub(crate) fn command(&self, command: &Command) {
        self.control.send(command, &[]).unwrap();
    }

    /// Stops it where it is, until [`Uplink::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Kills it where it is.
    #[allow(dead_code, reason = "for the tests of the office LAN")]
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the uplink ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes messages until one is wanted; the others are forgotten.
pub(crate) fn receive<Tx, Rx>(
    channel: &Channel<Tx, Rx>,
    what: &str,
    mut wanted: impl FnMut(&Rx, &[OwnedFd]) -> bool,
) -> (Rx, Vec<OwnedFd>)
where
    Tx: Serialize + Carries,
    Rx: DeserializeOwned + Carries + std::fmt::Debug,
{
    let deadline = Instant::now() + SOON;
    loop {
        while let Some(received) = channel.recv().unwrap() {
            eprintln!("received: {:?}", received.message);
            if wanted(&received.message, &received.fds) {
                return (received.message, received.fds);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited in vain for: {what}");
        wait_readable(channel.as_fd(), left);
    }
}

fn wait_readable(fd: BorrowedFd<'_>, left: Duration) {
    let timeout = Timespec {
        tv_sec: left.as_secs().cast_signed(),
        tv_nsec: left.subsec_nanos().into(),
    };
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
}

/// Polls something that has no event to wait for.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let fd = File::open(format!("/run/netns/{namespace}")).unwrap();
                move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

fn ip(arguments: &str) -> String {
    output("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Process::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sends from a socket of `eth0`'s namespace that no rule allows; whether it arrives at `target`.
pub(crate) fn arrives(wire: &Wire, source: &str, target: &UdpSocket) -> bool {
    let to = target.local_addr().unwrap();
    wire.in_host(|| {
        let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        let _ = socket.send_to(b"stray", to);
    });
    target
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    target.recv(&mut [0; 64]).is_ok()
}
