//! The other `WireGuard`s in user space, each with a TUN device at both ends of the same wire.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use sekisho_lab::WireGuardKey;

use super::world::{End, MTU, World};
use crate::{
    BenchError,
    program::{Daemon, run},
};

/// A peer that is built here: package, version, program.
type Package = (&'static str, &'static str, &'static str);
/// The command line of the crate whose `noise` module our gate uses.
const GOTATUN: Package = ("gotatun-cli", "0.10.2", "gotatun");
/// That of the crate which gotatun began as.
const BORINGTUN: Package = ("boringtun-cli", "0.7.1", "boringtun-cli");
/// Where the daemons put their control sockets, by their interfaces' names.
const SOCKETS: &str = "/run/wireguard";
/// How long a daemon may take to make its interface.
const UP_LIMIT: Duration = Duration::from_secs(10);

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Debian's `wireguard-go`.
    WireGuardGo,
    /// `boringtun-cli`.
    Boringtun,
    /// `gotatun-cli`.
    Gotatun,
}

impl Kind {
    /// For tables.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::WireGuardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun-cli",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::WireGuardGo => 'w',
            Self::Boringtun => 'b',
            Self::Gotatun => 'g',
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::WireGuardGo => 51821,
            Self::Gotatun => 51822,
            Self::Boringtun => 51823,
        }
    }

    /// Addresses inside the tunnel.
    const fn inner(self) -> (Ipv4Addr, Ipv4Addr) {
        let net = match self {
            Self::WireGuardGo => 1,
            Self::Gotatun => 2,
            Self::Boringtun => 3,
        };
        (Ipv4Addr::new(10, 66, net, 1), Ipv4Addr::new(10, 66, net, 2))
    }

    /// The sink behind the tunnel.
    pub(super) const fn target(self) -> Ipv4Addr {
        self.inner().1
    }

    fn program(self) -> Result<PathBuf, BenchError> {
        match self {
            Self::WireGuardGo => Ok("wireguard-go".into()),
            Self::Boringtun => built(BORINGTUN),
            Self::Gotatun => built(GOTATUN),
        }
    }
}

/// A tunnel of a peer, up at both ends.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where data comes from on the way up.
    pub(super) near: Device,
    /// At the sink.
    pub(super) far: Device,
}

impl Peer {
    /// Starts both ends.
    pub(super) fn start(kind: Kind, world: &World) -> Result<Self, BenchError> {
        let program = kind.program()?;
        let keys = [WireGuardKey::generate()?, WireGuardKey::generate()?];
        let folder = world.folder.path();
        let (near, far) = kind.inner();
        let peer = Self {
            near: Device::start(kind, &program, &world.near, folder)?,
            far: Device::start(kind, &program, &world.far, folder)?,
        };
        peer.near
            .configure(kind, &world.near, (&keys[0], near), &keys[1], &world.far)?;
        peer.far
            .configure(kind, &world.far, (&keys[1], far), &keys[0], &world.near)?;
        Ok(peer)
    }
}

/// One end of it.
#[derive(Debug)]
pub(super) struct Device {
    /// The daemon.
    pub(super) process: Daemon,
    interface: String,
}

impl Device {
    fn start(kind: Kind, program: &Path, end: &End, folder: &Path) -> Result<Self, BenchError> {
        let side = end.name.chars().next().unwrap_or_default();
        // The control sockets of all namespaces share a folder, so the name is this run's own.
        let interface = format!("sk{}{}{side}", std::process::id(), kind.letter());
        let mut command = end.command(program);
        command.arg("--foreground").arg(&interface);
        if kind != Kind::WireGuardGo {
            command.arg("--disable-drop-privileges");
        }
        let name = format!("{}-{}", kind.label(), end.name);
        let process = Daemon::start(&name, folder, &mut command)?;
        let device = Self { process, interface };
        let start = Instant::now();
        // The socket is the last thing that both make.
        while !device.socket().exists() || !device.has_interface(end) {
            if start.elapsed() > UP_LIMIT {
                return Err(device.process.failed("it made no interface"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(device)
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.interface))
    }

    fn has_interface(&self, end: &End) -> bool {
        end.ip(&format!("link show {}", self.interface)).is_ok()
    }

    fn configure(
        &self,
        kind: Kind,
        end: &End,
        (key, address): (&WireGuardKey, Ipv4Addr),
        peer_key: &WireGuardKey,
        peer: &End,
    ) -> Result<(), BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::system("make a folder for a key"))?;
        let file = folder.path().join("key");
        std::fs::write(&file, &key.private).map_err(BenchError::system("write a key"))?;
        run(end
            .command("wg")
            .args(["set", &self.interface, "private-key"])
            .arg(&file)
            .args(["listen-port", &kind.port().to_string()])
            .args(["peer", &peer_key.public, "allowed-ips", "10.66.0.0/16"])
            .args(["endpoint", &peer.at(kind.port()).to_string()]))?;
        let name = &self.interface;
        end.ip(&format!("addr add {address}/24 dev {name}"))?;
        end.ip(&format!("link set {name} mtu {MTU} up"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The daemon is killed, and so leaves its socket behind.
        let _ = std::fs::remove_file(self.socket());
    }
}

/// A peer of the registry's, built once into the target folder.
fn built((package, version, program): Package) -> Result<PathBuf, BenchError> {
    let root = sekisho_laptop::build::target_dir().join("peers");
    let program = root.join("bin").join(program);
    let list = std::fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    if program.exists() && list.contains(&format!("\"{package} {version} ")) {
        return Ok(program);
    }
    eprintln!("path: building {package} {version}, once (some minutes)");
    let started = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new("nice")
        .args(["-n", "10"])
        .arg(cargo)
        .args(["install", "--locked", package, "--version", version])
        .arg("--root")
        .arg(&root)
        // A target folder of the caller's would keep what only this needs.
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .map_err(BenchError::system("run cargo"))?;
    if !status.success() || !program.exists() {
        return Err(BenchError::Program {
            program: format!("cargo install {package}"),
            said: "its words are above".to_owned(),
        });
    }
    eprintln!("path: built in {:.0} s", started.elapsed().as_secs_f64());
    Ok(program)
}
