//! The running lab.

mod cables;
mod commands;
mod folder;
mod verdict;
mod wiring;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use crate::{
    Canary, Guestbook, LabError, LaptopFiles, Netns, Papers, Process,
    capture::Capture,
    layout::lay_out,
    process::Launcher,
    service::Machine,
    topology::{Cafe, Topology},
};

pub use verdict::Recordings;
pub use wiring::missing_programs;

use cables::Moves;

/// Logs whose end is told where a test failed, and how many lines of each.
const LAST_WORDS_OF: [&str; 2] = ["supervisor.log", "events.jsonl"];
const LAST_WORDS: usize = 60;
/// Where the laptop's cables end, and in the names of captures.
const WALLS: &str = "walls";

/// What the laptop is, as far as its cables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// A namespace of the lab: each cable ends there in one end of a veth pair.
    Namespace,
    /// A machine that is handed a tap descriptor for each cable ([`crate::Lab::tap_fd`]).
    Taps {
        /// Whether each frame has a `virtio_net_hdr` before it.
        vnet_hdr: bool,
    },
}

/// How a lab is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for logs, captures and files; a fresh one under `target/lab` where not given.
    pub dir: Option<PathBuf>,
    /// The cafe's LAN, as its owner or an attacker set it up.
    pub cafe: Cafe,
    /// What the laptop's cables end in.
    pub seat: Seat,
    /// Length of groupware's `/download`, in bytes.
    pub download: usize,
    /// Whether wires are captured; a benchmark may do without.
    pub captures: bool,
    /// Whether the gateway also takes TLS (Debian's ocserv).
    pub tls: bool,
    /// Whether it then demands a one-time password of the person.
    pub otp: bool,
    /// Whether, and how, the office LAN carries the laptop's packets without a tunnel, for the oracle and for
    /// the office's router.
    pub direct: Option<Direct>,
    /// Whether the gateway also takes `IKEv2` (Debian's `strongSwan`), and which inner address it then
    /// gives to the laptop.
    pub ike: Option<Ipv4Addr>,
}

/// How the guest is on an office LAN without a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// With its fixed address, which the city's routers find there.
    Routed,
    /// As a member, with its MAC and an address of the LAN's DHCP.
    Bridged,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            cafe: Cafe::default(),
            seat: Seat::Namespace,
            download: 16 << 20,
            captures: true,
            tls: false,
            otp: false,
            direct: None,
            ike: None,
        }
    }
}

/// A running lab; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    keep: bool,
    seat: Seat,
    tls: bool,
    otp: bool,
    direct: Option<Direct>,
    ike: Option<Ipv4Addr>,
    topology: Topology,
    cafe: Cafe,
    papers: Papers,
    canary: Canary,
    spaces: BTreeMap<&'static str, Netns>,
    taps: BTreeMap<&'static str, OwnedFd>,
    captures: Mutex<Vec<Capture>>,
    machines: BTreeMap<&'static str, Machine>,
    servers: Vec<Process>,
    /// The gateway's tunnel, once it was started again.
    restarted: Mutex<Option<Process>>,
    launcher: Launcher,
    moves: Mutex<Moves>,
    generation: AtomicU32,
}

impl Lab {
    /// Builds the world and waits until all of it answers.
    pub fn start(options: Options) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let programs = missing_programs();
        if !programs.is_empty() {
            return Err(LabError::Missing { programs });
        }
        let keep = options.dir.is_some();
        let dir = match options.dir {
            Some(dir) => dir,
            None => folder::fresh()?,
        };
        for folder in ["logs", "groupware"] {
            std::fs::create_dir_all(dir.join(folder))
                .map_err(LabError::io("make the lab's folder"))?;
        }
        let dir = dir
            .canonicalize()
            .map_err(LabError::io("find the lab's folder"))?;
        let launcher = Launcher::start(&dir.join("logs"))?;
        let canary = Canary::random()?;
        wiring::write_groupware(&dir.join("groupware"), &canary, options.download)?;
        let papers = Papers::generate(&dir)?;
        let topology = Topology::new(&options.cafe);
        let spaces = lay_out(&topology, &launcher, &dir)?;
        let mut lab = Self {
            dir,
            keep,
            seat: options.seat,
            direct: options.direct,
            tls: options.tls,
            otp: options.otp,
            ike: options.ike,
            topology,
            cafe: options.cafe,
            papers,
            canary,
            spaces,
            taps: BTreeMap::new(),
            captures: Mutex::new(Vec::new()),
            machines: BTreeMap::new(),
            servers: Vec::new(),
            restarted: Mutex::default(),
            launcher,
            moves: Mutex::default(),
            generation: AtomicU32::new(1),
        };
        lab.connect_laptop()?;
        lab.serve()?;
        if options.captures {
            lab.capture()?;
        }
        Ok(lab)
    }

    /// The lab's folder: `logs`, `captures-1` and further, configuration files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps the folder after the end.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The world as it was laid out.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How the cafe's LAN is set up.
    pub fn cafe(&self) -> &Cafe {
        &self.cafe
    }

    /// Keys and certificates of this run.
    pub fn papers(&self) -> &Papers {
        &self.papers
    }

    /// The canary in groupware's pages.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// A node's namespace, or `laptop`.
    pub fn space(&self, node: &str) -> Result<&Netns, LabError> {
        self.spaces.get(node).ok_or_else(|| LabError::Unknown {
            what: format!("node {node}"),
        })
    }

    /// Who came to a node's answering machines (`internet` is the sink).
    pub fn guestbook(&self, node: &str) -> Result<Arc<Guestbook>, LabError> {
        self.machines
            .get(node)
            .map(|machine| Arc::clone(&machine.guestbook))
            .ok_or_else(|| LabError::Unknown {
                what: format!("answering machine in {node}"),
            })
    }

    /// A server of the lab by the name of its log, for example `gateway-wireguard`.
    pub fn server(&self, name: &str) -> Option<&Process> {
        self.servers
            .iter()
            .find(|server| server.log().file_stem().is_some_and(|stem| stem == name))
    }

    /// Writes the laptop's files to `dir`: signed policy, trust, device file, key.
    pub fn files(&self, dir: &Path) -> Result<LaptopFiles, LabError> {
        self.papers.issue(dir)
    }
}

impl Lab {
    /// What the laptop said last: where a test failed, its folder may be gone when somebody asks.
    fn tell_last_words(&self) {
        for log in LAST_WORDS_OF {
            let path = self.dir.join("logs").join(log);
            let said = std::fs::read(path).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            eprintln!("── the last of {log}");
            for line in last {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.captures().clear();
        self.servers.clear();
        self.machines.clear();
        if std::thread::panicking() {
            self.tell_last_words();
            eprintln!("the lab's logs and captures are in {}", self.dir.display());
        } else if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
