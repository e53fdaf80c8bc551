//! Two namespaces and the wire between them. `near` plays the guest and its laptop, `far` the sink
//! and its gateway: each contender puts its own tunnel between the same two TCP stacks.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use sekisho_lab::Netns;
use tempfile::TempDir;

use crate::{
    BenchError,
    program::{Daemon, run},
};

/// Name of the wire's interface at both ends.
pub(super) const WIRE: &str = "wire";
/// MTU inside every tunnel, as in the product.
pub(super) const MTU: u16 = 1420;
/// Where iperf3 listens.
pub(super) const PORT: u16 = 5201;
/// How long the sink may take to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// One of the two ends.
#[derive(Debug)]
pub(super) struct End {
    /// What its programs are called in messages.
    pub(super) name: &'static str,
    /// Its namespace.
    pub(super) space: Netns,
    /// Its address on the wire.
    pub(super) outer: Ipv4Addr,
}

impl End {
    fn new(name: &'static str, outer: Ipv4Addr) -> Result<Self, BenchError> {
        let space = Netns::create().map_err(BenchError::system(
            "make a network namespace (are you root?)",
        ))?;
        Ok(Self { name, space, outer })
    }

    /// Its address on the wire with a port.
    pub(super) fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.outer, port)
    }

    /// A command in its namespace.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        self.space.command(program.as_ref())
    }

    /// Runs one line of `ip` words.
    pub(super) fn ip(&self, words: &str) -> Result<(), BenchError> {
        run(self.command("ip").args(words.split(' '))).map(drop)
    }
}

/// Both ends and the wire.
#[derive(Debug)]
pub(super) struct World {
    /// Where data comes from on the way up.
    pub(super) near: End,
    /// The sink.
    pub(super) far: End,
    /// Keys, policies and logs.
    pub(super) folder: TempDir,
}

impl World {
    /// Lays it out.
    pub(super) fn new() -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix("sekisho-bench-")
            .tempdir()
            .map_err(BenchError::system("make a folder for keys and logs"))?;
        let near = End::new("near", Ipv4Addr::new(203, 0, 113, 1))?;
        let far = End::new("far", Ipv4Addr::new(203, 0, 113, 2))?;
        near.ip(&format!(
            "link add {WIRE} type veth peer name {WIRE} netns {}",
            far.space.path().display()
        ))?;
        for end in [&near, &far] {
            end.ip("link set lo up")?;
            end.ip(&format!("addr add {}/24 dev {WIRE}", end.outer))?;
            end.ip(&format!("link set {WIRE} up"))?;
        }
        let world = Self { near, far, folder };
        world.join_received()?;
        Ok(world)
    }

    /// A network card's driver joins the datagrams that it receives. A veth does so only when asked
    /// twice: it takes for granted that what comes from a socket of this machine is joined already
    /// (`veth_skb_is_eligible_for_gro` in Linux).
    fn join_received(&self) -> Result<(), BenchError> {
        for end in [&self.near, &self.far] {
            let mut command = end.command("ethtool");
            run(command.args(["-K", WIRE, "gro", "on", "rx-udp-gro-forwarding", "on"]))?;
        }
        Ok(())
    }

    /// Whether the wire takes datagrams in batches and leaves their segmentation to whoever
    /// receives them, as the best network cards do, or has the kernel cut them first.
    pub(super) fn offload(&self, on: bool) -> Result<(), BenchError> {
        let state = if on { "on" } else { "off" };
        for end in [&self.near, &self.far] {
            let mut command = end.command("ethtool");
            run(command.args(["-K", WIRE, "tx-udp-segmentation", state]))?;
        }
        Ok(())
    }

    /// A server at the sink, for one load: the same one may still be busy with the end of the last.
    pub(super) fn serve(&self) -> Result<Daemon, BenchError> {
        let mut command = self.far.command("iperf3");
        command.args(["-s", "-1", "-p", &PORT.to_string()]);
        let server = Daemon::start("iperf3-server", self.folder.path(), &mut command)?;
        await_listener(&self.far, &server)?;
        Ok(server)
    }
}

/// Waits until something listens on the port.
fn await_listener(end: &End, server: &Daemon) -> Result<(), BenchError> {
    let wanted = format!(":{PORT:04X} ");
    let listens = || {
        // State 0A is LISTEN (`include/net/tcp_states.h`).
        ["tcp", "tcp6"].iter().any(|table| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).is_ok_and(|text| {
                text.lines()
                    .any(|line| line.contains(&wanted) && line.contains(" 0A "))
            })
        })
    };
    let start = Instant::now();
    while start.elapsed() < LISTEN_LIMIT {
        let listening = end
            .space
            .enter(listens)
            .map_err(BenchError::system("look into a namespace"))?;
        if listening {
            return Ok(());
        }
        // The kernel has no event for a socket that begins to listen.
        thread::sleep(Duration::from_millis(20));
    }
    Err(server.failed("it does not listen"))
}
