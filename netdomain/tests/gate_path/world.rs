//! A world around one gate, all in this thread: the guest's end of the link, the uplink's and the
//! supervisor's ends of the channels, and a `WireGuard` gateway on a loopback socket.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519::{PublicKey, StaticSecret};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sekisho_control::{
    Channel, Command as Order, GateToUplink, PathId, Report, Side, SituationReport, UplinkKind,
    UplinkToGate,
};
use sekisho_framelink::{FrameArena, FrameLink, NetHdr, Offloads, Rules, Segment, SeqPacket, pair};
use sekisho_netdomain::gate::device::DeviceFile;
use sekisho_netdomain::gate::{Gate, Parts};
use sekisho_policy::{Clock, Floor, Policy, PrivateKey, Trust, Verified, verify};
use tempfile::TempDir;

pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 1);
pub const GROUPWARE: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 5);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 12, 0, 53);
pub const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
pub const GATE_MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0xff, 0xff, 0x01];
pub const MTU: u16 = 1420;

const LAPTOP_KEY: [u8; 32] = [7; 32];
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

fn policy(outside: SocketAddrV4) -> Verified<Policy> {
    let text = format!(
        r#"
schema = 1
[policy]
id = "jp.mihon-city"
version = 1
issued = "2026-01-01T00:00:00+09:00"
expires = "2099-01-01T00:00:00+09:00"
[segments.lgwan]
prefixes = ["10.12.0.0/16"]
dns = ["10.12.0.53"]
domains = ["mihon-city.example"]
[forbidden]
prefixes = ["10.99.0.0/16"]
reason = "forbidden"
[[flow]]
id = "groupware"
to = {{ segment = "lgwan", hosts = ["10.12.10.0/24"] }}
tcp = [80, 443]
udp = [7000]
icmp = true
[[flow]]
id = "files"
to = {{ segment = "lgwan", hosts = ["10.12.30.0/24"] }}
tcp = [445]
places = ["onprem"]
[[flow]]
id = "inventory"
from = {{ segment = "lgwan", hosts = ["10.12.0.70/32"] }}
tcp = [135]
[[uplink]]
kind = "wired"
rank = 1
[vpn]
kill_switch = "always"
[[vpn.gateway]]
name = "honcho"
kind = "wireguard"
address = "{outside}"
public_key = "{}"
uplinks = ["wired"]
"#,
        STANDARD.encode(public(GATEWAY_KEY))
    );
    let key = PrivateKey::from_seed(&[3; 32]);
    let trust = Trust::parse(&key.public_pem()).unwrap();
    let signature = key.sign(text.as_bytes()).to_file();
    verify(
        text.as_bytes(),
        signature.as_bytes(),
        &trust,
        &Clock::system(Floor::default()),
    )
    .unwrap()
}

fn device(folder: &TempDir) -> DeviceFile {
    let path = folder.path().join("device.toml");
    std::fs::write(folder.path().join("wg.key"), STANDARD.encode(LAPTOP_KEY)).unwrap();
    std::fs::write(
        &path,
        r#"
device = "mihon-0001"
private_key = "wg.key"
address = "10.250.7.23/24"
router = "10.250.7.1"
mac = "02:53:4b:00:07:17"
mtu = 1420
"#,
    )
    .unwrap();
    DeviceFile::read(&path).unwrap()
}

/// Gives this thread, and so this test, a network of its own with the gateway's address on it. It
/// ends with the thread.
fn own_network() {
    // SAFETY: a network namespace is the thread's own; neither memory nor descriptors are touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("these tests make a network namespace; run them as root");
    for arguments in [
        "link set lo up",
        "address add 203.0.113.10/32 dev lo",
        "address add 192.168.43.2/32 dev lo",
    ] {
        let done = Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .unwrap();
        assert!(done.success(), "ip {arguments}");
    }
}

impl World {
    /// A gate with a link and an uplink, but no path yet.
    pub fn new() -> Self {
        own_network();
        let gateway = UdpSocket::bind("203.0.113.10:51820").unwrap();
        gateway.set_nonblocking(true).unwrap();
        let SocketAddr::V4(outside) = gateway.local_addr().unwrap() else {
            panic!("an IPv4 socket has an IPv4 address");
        };
        let state = tempfile::tempdir().unwrap();
        let (link, guest) = pair().unwrap();
        let (control, supervisor) = sekisho_control::pair().unwrap();
        let (to_uplink, uplink) = sekisho_control::pair().unwrap();
        let gate = Gate::open(Parts {
            policy: &policy(outside),
            device: device(&state),
            state: state.path(),
            control,
            link: Some(link),
            uplink: Some(to_uplink),
        })
        .unwrap();
        let offloads = Offloads {
            csum: true,
            tso4: true,
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
        let mut world = Self::new();
        world.add_path("eth0");
        world.until("the tunnel is up", Self::tunnelled);
        world
    }

    /// Hands the gate a path over `port`.
    pub fn add_path(&mut self, port: &str) -> PathId {
        let SocketAddr::V4(peer) = self.gateway.local_addr().unwrap() else {
            panic!("an IPv4 socket has an IPv4 address");
        };
        self.add_path_to(port, peer, peer)
    }

    /// Hands the gate a path that says it leads to `said` and leads to `real`.
    pub fn add_path_to(&mut self, port: &str, said: SocketAddrV4, real: SocketAddrV4) -> PathId {
        let socket = UdpSocket::bind("192.168.43.2:0").unwrap();
        socket.connect(real).unwrap();
        let socket = OwnedFd::from(socket);
        let id = PathId(self.next_path);
        self.next_path += 1;
        let message = UplinkToGate::Path {
            id,
            port: port.to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: "honcho".to_owned(),
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
