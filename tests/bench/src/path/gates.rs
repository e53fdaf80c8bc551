//! Our contender: a tap, the tap joint in the VMM's place, a gate, and the same at the far end.
//!
//! The gates run without an uplink process: their sockets are made here, as the uplink would make
//! them. The far gate lets the near guest in by a flow with `from`, as a policy does for asset
//! management.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sekisho_control::{
    Channel, ChannelError, Command, GateToUplink, PathId, Report, Side, SituationReport,
    UplinkKind, UplinkToGate,
};
use sekisho_lab::{WireGuardKey, hand_over};
use sekisho_policy::PrivateKey;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::world::{End, MTU, PORT, WIRE, World};
use crate::{
    BenchError,
    program::{Daemon, ours},
};

/// Port of the tunnel at both ends.
const TUNNEL: u16 = 51820;
/// The tap that plays the guest's NIC.
const NIC: &str = "net0";
/// How long a process may take to open and close itself in, and how long the tunnel to come up.
const UP_LIMIT: Duration = Duration::from_secs(15);

/// What the guest of one end is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner {
    /// The guest's address.
    pub(super) address: Ipv4Addr,
    /// The gate's address on the guest's Ethernet.
    pub(super) router: Ipv4Addr,
    /// The guest's MAC address.
    pub(super) mac: &'static str,
}

const NEAR: Inner = Inner {
    address: Ipv4Addr::new(10, 250, 7, 23),
    router: Ipv4Addr::new(10, 250, 7, 1),
    mac: "02:53:4b:00:07:17",
};
const FAR: Inner = Inner {
    address: Ipv4Addr::new(10, 12, 10, 5),
    router: Ipv4Addr::new(10, 12, 10, 1),
    mac: "02:53:4b:00:0a:05",
};

/// What is in the guest's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// The TCP stack of the namespace, through a tap.
    Stack,
    /// Whoever takes the other end of the frame link.
    Bare,
}

/// One end of ours.
#[derive(Debug)]
pub(super) struct Gate {
    /// The gate's process.
    pub(super) process: Daemon,
    /// The tap joint's process, where there is one.
    pub(super) joint: Option<Daemon>,
    /// The frame link's other end, where there is no joint.
    pub(super) link: Option<OwnedFd>,
    /// Addresses of the guest.
    pub(super) inner: Inner,
    control: Channel<Command, Report>,
    // Both processes end with these.
    _uplink: Channel<UplinkToGate, GateToUplink>,
    _joint_control: Option<Channel<Command, Report>>,
}

/// Both ends of ours.
#[derive(Debug)]
pub(super) struct Gates {
    /// Where data comes from on the way up.
    pub(super) near: Gate,
    /// At the sink.
    pub(super) far: Gate,
}

impl Gates {
    /// The sink behind the far gate.
    pub(super) const TARGET: Ipv4Addr = FAR.address;

    /// Starts both and waits for the tunnel.
    pub(super) fn start(world: &World, guest: Guest) -> Result<Self, BenchError> {
        let (near_key, far_key) = (WireGuardKey::generate()?, WireGuardKey::generate()?);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            BenchError::Missing(format!("the system gives no random bytes: {error}"))
        })?;
        let signer = PrivateKey::from_seed(&seed);
        let near = Plan {
            end: &world.near,
            peer: &world.far,
            inner: NEAR,
            key: &near_key,
            gateway: &far_key,
            flow: format!(
                "to = {{ segment = \"lgwan\", hosts = [\"{}/32\"] }}",
                FAR.address
            ),
        };
        let far = Plan {
            end: &world.far,
            peer: &world.near,
            inner: FAR,
            key: &far_key,
            gateway: &near_key,
            flow: format!(
                "from = {{ segment = \"lgwan\", hosts = [\"{}/32\"] }}",
                NEAR.address
            ),
        };
        // Both sockets are there before either gate sends its first handshake.
        let (near_socket, far_socket) = (near.socket()?, far.socket()?);
        let gates = Self {
            far: far.start(guest, world.folder.path(), &signer, &far_socket)?,
            near: near.start(guest, world.folder.path(), &signer, &near_socket)?,
        };
        for gate in [&gates.far, &gates.near] {
            gate.await_report("the tunnel", |report| {
                matches!(report, Report::Situation(SituationReport::Tunnelled { .. }))
            })?;
        }
        Ok(gates)
    }
}

impl Gate {
    fn await_report(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Result<(), BenchError> {
        await_report(&self.process, &self.control, what, wanted)
    }
}

/// What one end is made from.
struct Plan<'a> {
    end: &'a End,
    peer: &'a End,
    inner: Inner,
    key: &'a WireGuardKey,
    gateway: &'a WireGuardKey,
    flow: String,
}

impl Plan<'_> {
    /// The path's socket, as the uplink makes it: bound to the wire, connected to the gateway.
    fn socket(&self) -> Result<OwnedFd, BenchError> {
        let make = || -> std::io::Result<OwnedFd> {
            let address = |end: &End| SockAddr::from(end.at(TUNNEL));
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind_device(Some(WIRE.as_bytes()))?;
            socket.bind(&address(self.end))?;
            socket.connect(&address(self.peer))?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        self.end
            .space
            .enter(make)
            .and_then(|socket| socket)
            .map_err(BenchError::system("make a path's socket"))
    }

    fn start(
        &self,
        guest: Guest,
        folder: &Path,
        signer: &PrivateKey,
        socket: &OwnedFd,
    ) -> Result<Gate, BenchError> {
        let (vmm_end, gate_end) = sekisho_framelink::pair()?;
        let (joint, link) = match guest {
            Guest::Stack => {
                let joint = self.start_joint(folder, vmm_end)?;
                self.configure_nic()?;
                (Some(joint), None)
            }
            Guest::Bare => (None, Some(vmm_end)),
        };
        let (joint, joint_control) = joint.unzip();
        let (process, control, uplink) = self.start_gate(folder, signer, gate_end)?;
        let path = UplinkToGate::Path {
            id: PathId(1),
            port: WIRE.to_owned(),
            kind: UplinkKind::Wired,
            rank: 1,
            gateway: "other".to_owned(),
            side: Side::Outside,
            peer: self.peer.at(TUNNEL),
        };
        uplink
            .send(&path, &[socket.as_fd()])
            .map_err(channel_of("the gate"))?;
        Ok(Gate {
            process,
            joint,
            link,
            inner: self.inner,
            control,
            _uplink: uplink,
            _joint_control: joint_control,
        })
    }

    fn start_joint(
        &self,
        folder: &Path,
        link: OwnedFd,
    ) -> Result<(Daemon, Channel<Command, Report>), BenchError> {
        let (here, there) = pair("the tap joint")?;
        let mut command = self.end.command(ours("sekisho-tapjoint")?);
        let (link, control) = (
            hand_over(&mut command, link),
            hand_over(&mut command, there),
        );
        command
            .args(["--tap", NIC, "--link", &link, "--control", &control])
            .args(["--mtu", &MTU.to_string()]);
        let name = format!("tapjoint-{}", self.end.name);
        let joint = Daemon::start(&name, folder, &mut command)?;
        let channel = Channel::from_fd(here).map_err(channel_of("the tap joint"))?;
        await_report(&joint, &channel, "its tap", |report| {
            matches!(report, Report::Link { up: true })
        })?;
        Ok((joint, channel))
    }

    fn configure_nic(&self) -> Result<(), BenchError> {
        let Inner {
            address,
            router,
            mac,
        } = self.inner;
        self.end
            .ip(&format!("link set {NIC} address {mac} mtu {MTU} up"))?;
        self.end.ip(&format!("addr add {address}/24 dev {NIC}"))?;
        let far_inner = if address == NEAR.address { FAR } else { NEAR };
        self.end.ip(&format!(
            "route add {}/32 via {router} dev {NIC}",
            far_inner.address
        ))
    }

    #[expect(clippy::type_complexity, reason = "a process and its two channels")]
    fn start_gate(
        &self,
        folder: &Path,
        signer: &PrivateKey,
        link: OwnedFd,
    ) -> Result<
        (
            Daemon,
            Channel<Command, Report>,
            Channel<UplinkToGate, GateToUplink>,
        ),
        BenchError,
    > {
        let papers = folder.join(self.end.name);
        self.write_papers(&papers, signer)
            .map_err(BenchError::system("write a gate's papers"))?;
        let (control, control_there) = pair("the gate")?;
        let (uplink, uplink_there) = pair("the gate")?;
        let mut command = self.end.command(ours("sekisho-netdomain")?);
        let words = [
            ("--link", link),
            ("--uplink", uplink_there),
            ("--control", control_there),
        ]
        .map(|(option, fd)| [option.to_owned(), hand_over(&mut command, fd)]);
        command
            .current_dir(&papers)
            .args(["gate", "--policy", "policy.toml"])
            .args(["--signature", "policy.toml.sig", "--trust", "trust.pem"])
            .args(["--device", "device.toml", "--state", "state"])
            .args(words.iter().flatten());
        let gate = Daemon::start(&format!("gate-{}", self.end.name), folder, &mut command)?;
        let control = Channel::from_fd(control).map_err(channel_of("the gate"))?;
        await_report(&gate, &control, "ready", |report| *report == Report::Ready)?;
        let uplink = Channel::from_fd(uplink).map_err(channel_of("the gate"))?;
        Ok((gate, control, uplink))
    }

    fn write_papers(&self, folder: &Path, signer: &PrivateKey) -> std::io::Result<()> {
        std::fs::create_dir_all(folder.join("state"))?;
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text);
        let policy = self.policy();
        write("policy.toml", &policy)?;
        write("policy.toml.sig", &signer.sign(policy.as_bytes()).to_file())?;
        write("trust.pem", &signer.public_pem())?;
        write("wg.key", &self.key.private)?;
        let Inner {
            address,
            router,
            mac,
        } = self.inner;
        write(
            "device.toml",
            &format!(
                "device = \"bench-{}\"\nprivate_key = \"wg.key\"\naddress = \"{address}/24\"\n\
                 router = \"{router}\"\nmac = \"{mac}\"\nmtu = {MTU}\n",
                self.end.name
            ),
        )
    }

    fn policy(&self) -> String {
        let now = jiff::Timestamp::now();
        let (hour, day) = (
            jiff::SignedDuration::from_hours(1),
            jiff::SignedDuration::from_hours(24),
        );
        let mut text = format!(
            "schema = 1\n\n[policy]\nid = \"jp.mihon-city.bench\"\nversion = 1\n\
             issued = \"{}\"\nexpires = \"{}\"\n\n",
            now - hour,
            now + day
        );
        let other: SocketAddrV4 = self.peer.at(TUNNEL);
        let _ = write!(
            text,
            "[segments.lgwan]\nprefixes = [\"10.12.0.0/16\", \"10.250.0.0/16\"]\n\n\
             [[flow]]\nid = \"load\"\n{}\ntcp = [{PORT}]\nudp = [{PORT}]\n\n\
             [[uplink]]\nkind = \"wired\"\nrank = 1\n\n\
             [vpn]\nkill_switch = \"always\"\n\n\
             [[vpn.gateway]]\nname = \"other\"\nkind = \"wireguard\"\naddress = \"{other}\"\n\
             public_key = \"{}\"\nuplinks = [\"wired\"]\n",
            self.flow, self.gateway.public
        );
        text
    }
}

fn pair(process: &str) -> Result<(OwnedFd, OwnedFd), BenchError> {
    sekisho_control::pair().map_err(channel_of(process))
}

fn channel_of(process: &str) -> impl FnOnce(ChannelError) -> BenchError {
    let process = process.to_owned();
    move |source| BenchError::Channel { process, source }
}

/// Waits until a process reports what is wanted.
fn await_report(
    process: &Daemon,
    channel: &Channel<Command, Report>,
    what: &str,
    wanted: impl Fn(&Report) -> bool,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + UP_LIMIT;
    loop {
        match channel.recv() {
            Ok(Some(received)) if wanted(&received.message) => return Ok(()),
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error) => return Err(process.failed(&error.to_string())),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut fds = [PollFd::new(channel, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                return Err(process.failed(&format!("{what} did not come within {UP_LIMIT:?}")));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::system("wait for a report")(error)),
        }
    }
}
