//! A world around one gate, all in this thread: the guest's end of the link, the uplink's and the
//! supervisor's ends of the channels, and a `WireGuard` gateway at the other end
//! of two cables.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519::{PublicKey, StaticSecret};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use sekisho_control::{
    Channel, Command as Order, EngineToGate, GateToEngine, GateToUplink, PathId, Report, Side,
    SituationReport, UplinkKind, UplinkToGate,
};
use sekisho_framelink::{FrameArena, FrameLink, NetHdr, Offloads, Rules, Segment, SeqPacket, pair};
use sekisho_netdomain::gate::device::DeviceFile;
use sekisho_netdomain::gate::{Gate, Parts};
use socket2::SockRef;
use tempfile::TempDir;

use super::fixture::papers::{self, GATEWAY, Issue, LAPTOP_KEY, OUTSIDE};
pub use super::fixture::papers::{DNS, GROUPWARE, GUEST, MTU, ROUTER};

pub const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
pub const GATE_MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0xff, 0xff, 0x01];

/// The laptop's ports, and its address on each wire.
const PORTS: [(&str, Ipv4Addr); 2] = [
    ("eth0", Ipv4Addr::new(192, 168, 43, 2)),
    ("eth1", Ipv4Addr::new(192, 168, 44, 2)),
];
const GATEWAY_KEY: [u8; 32] = [9; 32];
/// Nothing here takes longer than some milliseconds; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct World {
    pub gate: Gate,
    pub guest: SeqPacket,
    pub uplink: Channel<UplinkToGate, GateToUplink>,
    pub supervisor: Channel<Order, Report>,
    pub gateway: UdpSocket,
    pub tunnel: Tunn,
    limiter: Arc<RateLimiter>,
    pub laptop: Option<SocketAddrV4>,
    pub reports: Vec<Report>,
    pub arena: FrameArena,
    pub frames: Vec<(NetHdr, Vec<u8>)>,
    pub inner: Vec<Vec<u8>>,
    next_path: u32,
    _state: TempDir,
}

fn public(private: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}

/// Two networks, of the laptop and of the gateway, joined by two cables. Both end with the test:
/// they belong to this thread and to the gateway's socket.
fn wired() -> UdpSocket {
    let (theirs, gateway) = thread::spawn(|| {
        own_network(&format!("address add {}/32 dev lo", OUTSIDE.ip()));
        let network = File::open("/proc/thread-self/ns/net").unwrap();
        (network, UdpSocket::bind(OUTSIDE).unwrap())
    })
    .join()
    .unwrap();
    own_network("link set lo up");
    let far = format!("/proc/{}/fd/{}", process::id(), theirs.as_raw_fd());
    for (port, address) in PORTS {
        ip(&format!(
            "link add {port} type veth peer name {port} netns {far}"
        ));
        ip(&format!("address add {address}/32 dev {port}"));
        ip(&format!("link set {port} up"));
        // By metric, as two routes to one host need one.
        let index = address.octets()[2];
        ip(&format!(
            "route add {}/32 dev {port} src {address} metric {index}",
            OUTSIDE.ip()
        ));
    }
    thread::spawn(move || {
        move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        for (port, address) in PORTS {
            ip(&format!("link set {port} up"));
            ip(&format!("route add {address}/32 dev {port}"));
        }
    })
    .join()
    .unwrap();
    gateway
}

/// Gives this thread a network of its own, in which `ip` is told `first`.
fn own_network(first: &str) {
    // SAFETY: a network namespace is the thread's own; neither memory nor descriptors are touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("these tests make a network namespace; run them as root");
    ip("link set lo up");
    ip(first);
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status();
    assert!(done.unwrap().success(), "ip {arguments}");
}

/// A socket as the uplink makes it: bound to this port, connected to this peer.
pub fn path_socket(port: &str, peer: SocketAddrV4) -> OwnedFd {
    let (_, address) = PORTS.iter().find(|(name, _)| *name == port).unwrap();
    let socket = UdpSocket::bind((*address, 0)).unwrap();
    SockRef::from(&socket)
        .bind_device(Some(port.as_bytes()))
        .unwrap();
    socket.connect(peer).unwrap();
    socket.into()
}

impl World {
    /// A gate with a link and an uplink, but no path yet.
    pub fn new() -> Self {
        Self::under("")
    }

    /// The same, with more in its policy.
    pub fn under(more: &'static str) -> Self {
        Self::with(more, None)
    }

    /// The same, and there is a TLS gateway, with an engine at the other end of the channel.
    pub fn with_engine() -> (Self, Channel<EngineToGate, GateToEngine>) {
        let (tls, engine) = sekisho_control::pair().unwrap();
        (Self::with("", Some(tls)), Channel::from_fd(engine).unwrap())
    }

    fn with(more: &'static str, tls: Option<OwnedFd>) -> Self {
        let gateway = wired();
        gateway.set_nonblocking(true).unwrap();
        let issue = Issue {
            gateway_key: public(GATEWAY_KEY),
            more,
            tls: tls.is_some(),
            ..Issue::default()
        };
        let state = tempfile::tempdir().unwrap();
        papers::write_device(state.path());
        let (link, guest) = pair().unwrap();
        let (control, supervisor) = sekisho_control::pair().unwrap();
        let (to_uplink, uplink) = sekisho_control::pair().unwrap();
        let gate = Gate::open(Parts {
            policy: &issue.verified(),
            device: DeviceFile::read(&state.path().join("device.toml")).unwrap(),
            state: state.path(),
            control,
            link: Some(link),
            uplink: Some(to_uplink),
            tls,
            ike: None,
            healthy_after: Duration::from_secs(10),
        })
        .unwrap();
        let offloads = Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            ..Offloads::default()
        };
        let private = StaticSecret::from(GATEWAY_KEY);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&private), 100));
        let tunnel = Tunn::new(
            private,
            PublicKey::from(public(LAPTOP_KEY)),
            None,
            None,
            IndexTable::from_os_rng(),
            Arc::clone(&limiter),
        );
        Self {
            gate,
            guest: SeqPacket::from_fd(guest, Rules { offloads, mtu: MTU }).unwrap(),
            uplink: Channel::from_fd(uplink).unwrap(),
            supervisor: Channel::from_fd(supervisor).unwrap(),
            gateway,
            tunnel,
            limiter,
            laptop: None,
            reports: Vec::new(),
            arena: FrameArena::new(64),
            frames: Vec::new(),
            inner: Vec::new(),
            next_path: 1,
            _state: state,
        }
    }

    /// The same, and the tunnel is up.
    pub fn connected() -> Self {
        Self::connected_under("")
    }

    /// The same, with more in the policy.
    pub fn connected_under(more: &'static str) -> Self {
        let mut world = Self::under(more);
        world.add_path("eth0");
        world.until("the tunnel is up", Self::tunnelled);
        world
    }

    /// Hands the gate a path over `port`.
    pub fn add_path(&mut self, port: &str) -> PathId {
        self.hand_over(port, OUTSIDE, &path_socket(port, OUTSIDE))
    }

    /// Tells the gate of a path over `port` to a gateway that only an engine speaks to.
    pub fn add_stream_path(&mut self, port: &str, peer: SocketAddrV4) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        let message = UplinkToGate::StreamPath {
            id,
            port: port.to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: papers::TLS_NAME.to_owned(),
            side: Side::Outside,
            peer,
        };
        self.uplink.send(&message, &[]).unwrap();
        id
    }

    /// Hands the gate a path that says what it likes about `socket`.
    pub fn hand_over(&mut self, port: &str, said: SocketAddrV4, socket: &OwnedFd) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        let message = UplinkToGate::Path {
            id,
            port: port.to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: GATEWAY.to_owned(),
            side: Side::Outside,
            peer: said,
        };
        self.uplink.send(&message, &[socket.as_fd()]).unwrap();
        id
    }

    pub fn tunnelled(&mut self) -> bool {
        matches!(
            self.last_situation(),
            Some(SituationReport::Tunnelled { .. })
        )
    }

    pub fn last_situation(&self) -> Option<SituationReport> {
        self.reports.iter().rev().find_map(|report| match report {
            Report::Situation(situation) => Some(situation.clone()),
            _ => None,
        })
    }

    pub fn refused_by(&self, rule: &str) -> bool {
        self.reports
            .iter()
            .any(|report| matches!(report, Report::Refused(refused) if refused.rule == rule))
    }

    /// Turns the world until `done`, which must not take long.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}; reports {:?}",
                self.reports
            );
            self.step();
        }
    }

    /// Gives everybody a few turns: whatever was to happen at once has happened.
    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.step();
        }
    }

    pub fn step(&mut self) {
        self.gate.turn(Duration::from_millis(1)).unwrap();
        self.gateway_turn();
        while let Ok(Some(received)) = self.supervisor.recv() {
            self.reports.push(received.message);
        }
        let _ = self.guest.recv_batch(&mut self.arena);
        for frame in self.arena.frames() {
            self.frames.push((frame.hdr, frame.frame.to_vec()));
        }
    }

    fn gateway_turn(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((len, SocketAddr::V4(from))) = self.gateway.recv_from(&mut buffer) {
            let datagram = Packet::from_bytes(BytesMut::from(&buffer[..len]));
            let Ok(packet) = self.limiter.verify_packet(from.into(), datagram) else {
                continue;
            };
            match self.tunnel.handle_incoming_packet(packet) {
                TunnResult::WriteToTunnel(packet) => {
                    self.laptop = Some(from);
                    if !packet.is_empty() {
                        self.inner.push(packet.to_vec());
                    }
                }
                TunnResult::WriteToNetwork(answer) => {
                    let answer = Packet::from(answer);
                    self.gateway.send_to(&answer, from).unwrap();
                }
                TunnResult::Done | TunnResult::Err(_) => {}
            }
        }
    }

    /// The guest sends a frame.
    pub fn send(&mut self, header: NetHdr, frame: &[u8]) {
        self.send_raw(&header.emit(), frame);
    }

    /// The guest sends whatever bytes as header and frame.
    pub fn send_raw(&mut self, header: &[u8], frame: &[u8]) {
        let sent = self
            .guest
            .send_batch(&[&[Segment::from(header), Segment::from(frame)]])
            .unwrap();
        assert_eq!(sent, 1, "the link has room");
    }

    /// The gateway sends an inner packet.
    pub fn gateway_sends(&mut self, packet: &[u8]) {
        let plain = Packet::from_bytes(BytesMut::from(packet));
        let sealed = self.tunnel.handle_outgoing_packet(plain, None);
        let Some(WgKind::Data(sealed)) = sealed else {
            panic!("there is a session");
        };
        let laptop = self.laptop.expect("the laptop was heard");
        let sealed = sealed.into_bytes();
        self.gateway.send_to(&sealed, laptop).unwrap();
    }
}
