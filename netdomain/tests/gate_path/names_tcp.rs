//! DNS over TCP: `dig` and the kernel's TCP on the guest's side, dnsmasq and the kernel's TCP behind
//! the gateway, and what a hostile guest does to the connections.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use sekisho_framelink::NetHdr;
use smoltcp::wire::{TcpControl, TcpPacket};
use socket2::{Domain, Socket, Type};

use super::frames::{frame, packet_of, tcp};
use super::tun::{TAP, TUN, interface};
use super::world::{DNS, GUEST, ROUTER, World};

/// Addresses of the name whose answer fits no datagram: 16 bytes each.
const MANY: u8 = 120;

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status();
    assert!(done.unwrap().success(), "ip {arguments}");
}

/// A guest with a kernel of its own, and a server behind the gateway with another.
struct Peers {
    world: World,
    guest: File,
    inside: File,
    server: Child,
    /// Packets of TCP that went into the tunnel.
    tunnelled: usize,
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The city's resolver in a network of its own.
fn server() -> (File, Child) {
    thread::spawn(|| {
        // SAFETY: a network namespace is the thread's own; neither memory nor descriptors are
        // touched.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        ip("link set lo up");
        let inside = interface("inside", TUN);
        ip(&format!("address add {DNS}/32 dev inside"));
        ip("link set inside up");
        ip(&format!("route add {GUEST}/32 dev inside"));
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
            ])
            .args([
                "--no-resolv",
                "--user=root",
                "--pid-file=",
                "--bind-interfaces",
            ])
            .arg(format!("--listen-address={DNS}"))
            .args(["--host-record=groupware.mihon-city.example,10.12.10.5"])
            .args(["--host-record=files.mihon-city.example,10.12.30.4"]);
        for last in 1..=MANY {
            dnsmasq.arg(format!(
                "--host-record=many.mihon-city.example,10.12.40.{last}"
            ));
            let bad = if last == MANY {
                "192.168.1.1".to_owned()
            } else {
                format!("10.12.40.{last}")
            };
            dnsmasq.arg(format!("--host-record=rebound.mihon-city.example,{bad}"));
        }
        let child = dnsmasq.stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let serves = || {
            std::fs::read_to_string("/proc/thread-self/net/tcp")
                .unwrap()
                .contains(":0035 ")
        };
        while !serves() {
            assert!(start.elapsed() < Duration::from_secs(10), "dnsmasq serves");
            thread::sleep(Duration::from_millis(10));
        }
        (inside, child)
    })
    .join()
    .unwrap()
}

impl Peers {
    fn new() -> Self {
        let world = World::connected();
        let (inside, server) = server();
        let guest = interface("guest", TAP);
        ip("link set guest address 02:53:4b:00:07:17 mtu 1420");
        ip(&format!("address add {GUEST}/24 dev guest"));
        ip("link set guest up");
        Self {
            world,
            guest,
            inside,
            server,
            tunnelled: 0,
        }
    }

    /// Carries frames and packets between the kernels and the gate, once.
    fn step(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(len) = self.guest.read(&mut buffer) {
            self.world.send(NetHdr::default(), &buffer[..len]);
            self.world.step();
        }
        self.world.step();
        for (_, frame) in std::mem::take(&mut self.world.frames) {
            self.guest.write_all(&frame).unwrap();
        }
        for packet in std::mem::take(&mut self.world.inner) {
            self.tunnelled += usize::from(packet[9] == 6);
            let _ = self.inside.write_all(&packet);
        }
        while let Ok(len) = self.inside.read(&mut buffer) {
            // The kernel's own IPv6 and multicast chatter is not the city's.
            if buffer[0] >> 4 == 4 && buffer[16..20] == GUEST.octets() {
                self.world.gateway_sends(&buffer[..len]);
            }
        }
    }

    fn during(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.step();
        }
    }

    fn dig(&mut self, arguments: &[&str]) -> String {
        let mut child = Command::new("dig")
            .arg(format!("@{ROUTER}"))
            .args(["+time=5", "+tries=1", "-b"])
            .arg(GUEST.to_string())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            self.step();
        }
        let Output { stdout, .. } = child.wait_with_output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        eprintln!("{text}");
        text
    }

    /// A connection to the resolver by the kernel's TCP.
    fn connect(&mut self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = std::net::SocketAddr::from((ROUTER, 53));
        let _ = socket.connect(&to.into());
        let start = Instant::now();
        while socket.peer_addr().is_err() {
            assert!(start.elapsed() < Duration::from_secs(5), "it is connected");
            self.step();
        }
        socket.into()
    }
}

/// Says why these tests cannot run here, `true` if so.
fn cannot_run() -> bool {
    let dig = Command::new("dig").arg("-v").stderr(Stdio::null()).status();
    sekisho_skip::skip_unless(dig.is_ok(), "it needs dig (bind9-dnsutils)")
}

#[test]
fn names_are_asked_over_tcp_too() {
    if cannot_run() {
        return;
    }
    let mut peers = Peers::new();
    let text = peers.dig(&["+tcp", "groupware.mihon-city.example"]);
    assert!(text.contains("status: NOERROR") && text.contains("10.12.10.5"));
    assert_eq!(peers.tunnelled, 0, "a short answer comes by datagram");

    // Two questions on one connection.
    let text = peers.dig(&[
        "+tcp",
        "+keepopen",
        "groupware.mihon-city.example",
        "files.mihon-city.example",
    ]);
    assert!(text.contains("10.12.10.5") && text.contains("10.12.30.4"));

    // What is not for the city's resolver is refused in the same way.
    let text = peers.dig(&["+tcp", "www.example.com"]);
    assert!(text.contains("status: REFUSED"));
    let text = peers.dig(&["+tcp", "groupware.mihon-city.example", "AXFR"]);
    assert!(!text.contains("10.12.10.5"));
}

#[test]
fn an_answer_that_fits_no_datagram_comes_over_tcp() {
    if cannot_run() {
        return;
    }
    let mut peers = Peers::new();
    // By datagram first: it is told that the answer was cut, and asks again by itself.
    let text = peers.dig(&["many.mihon-city.example"]);
    assert!(text.contains("Truncated, retrying in TCP mode"));
    assert!(text.contains("status: NOERROR"));
    assert_eq!(text.matches("10.12.40.").count(), usize::from(MANY));
    assert!(peers.tunnelled > 3, "the server was asked over TCP");

    // The long answer is looked through like any other.
    let text = peers.dig(&["+tcp", "rebound.mihon-city.example"]);
    assert!(text.contains("status: REFUSED"));
    assert!(!text.contains("192.168.1.1") && !text.contains("10.12.40."));
    peers
        .world
        .until("it is told", |world| world.refused_by("dns-rebinding"));
}

/// More connections than there are places, each of which says a byte and no more: others are served
/// meanwhile, and these are ended after their time.
#[test]
fn connections_that_say_next_to_nothing_keep_nobody_out() {
    if cannot_run() {
        return;
    }
    let mut peers = Peers::new();
    let mut slow: Vec<TcpStream> = (0..20).map(|_| peers.connect()).collect();
    for stream in &mut slow {
        // Those that made way for others are gone by now.
        let _ = stream.write_all(&[0]);
    }
    peers.during(Duration::from_millis(100));
    let text = peers.dig(&["+tcp", "groupware.mihon-city.example"]);
    assert!(text.contains("10.12.10.5"));

    let alive = |streams: &mut Vec<TcpStream>| {
        streams
            .iter_mut()
            .filter(|stream| {
                let again = (&**stream).read(&mut [0]);
                matches!(again, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            })
            .count()
    };
    let at_first = alive(&mut slow);
    assert!((1..=8).contains(&at_first), "{at_first} of 20");
    peers.during(Duration::from_millis(5500));
    assert_eq!(alive(&mut slow), 0, "their time is over");
}

/// Half-open connections by the thousand cost eight places and keep nobody out; segments that belong
/// to no connection, or lie outside of its window, ask nothing.
#[test]
fn a_flood_of_handshakes_and_stray_segments_ask_nothing() {
    if cannot_run() {
        return;
    }
    let mut peers = Peers::new();
    let mut answered = 0;
    for port in 10_000..12_000 {
        let syn = tcp((GUEST, port), (ROUTER, 53), 7, TcpControl::Syn, b"");
        peers.world.send(NetHdr::default(), &frame(&syn));
        // A question without a handshake, and one behind the window of this one.
        let mut question = vec![0, 40];
        question.extend(super::names::query_of(7, "groupware.mihon-city.example", 1));
        let stray = tcp(
            (GUEST, port),
            (ROUTER, 53),
            0x1000_0000,
            TcpControl::Psh,
            &question,
        );
        peers.world.send(NetHdr::default(), &frame(&stray));
        peers.world.step();
        for (_, out) in std::mem::take(&mut peers.world.frames) {
            let packet = packet_of(&out);
            let segment = TcpPacket::new_checked(&packet[20..]).unwrap();
            answered += usize::from(segment.syn() && segment.ack());
        }
    }
    assert!(answered > 1000, "each is answered as it comes: {answered}");
    assert!(peers.world.inner.is_empty(), "no question was asked");
    let text = peers.dig(&["+tcp", "groupware.mihon-city.example"]);
    assert!(text.contains("10.12.10.5"), "the control: a whole one asks");
}

/// The server's connection is the resolver's alone: what others in the tunnel send to its port is
/// refused as everything that nobody asked for.
#[test]
fn what_is_no_answer_to_the_resolver_does_not_reach_it() {
    if cannot_run() {
        return;
    }
    let mut peers = Peers::new();
    for from in [DNS, Ipv4Addr::new(10, 12, 0, 54)] {
        for control in [TcpControl::Syn, TcpControl::Psh] {
            let packet = tcp((from, 53), (GUEST, 4000), 7, control, b"\0\x01x");
            peers.world.gateway_sends(&packet);
        }
    }
    peers.world.settle();
    assert!(peers.world.frames.is_empty());
    let text = peers.dig(&["many.mihon-city.example"]);
    assert_eq!(text.matches("10.12.40.").count(), usize::from(MANY));
}
