//! The running lab.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::process::Pid;

use crate::{
    Canary, Direction, Guestbook, LabError, LaptopFiles, Netns, Output, Papers, Process, Recording,
    capture::{BLOCK_TIME, Capture},
    layout::{ip_batch, lay_out},
    oracle::{At, Canaries, Rules, Verdict, judge},
    process::{Launcher, find_program},
    service::{self, Machine},
    tap::open_tap,
    topology::{Answer, Cable, Cafe, Point, Service, Topology, Wall},
};

/// The Debian packages that the lab's programs come from.
pub const PACKAGES: &[&str] = &[
    "busybox-static",
    "curl",
    "dnsmasq-base",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "nftables",
    "nginx-light",
    "python3-scapy",
    "tcpdump",
    "wireguard-go",
    "wireguard-tools",
];

const PROGRAMS: &[&str] = &[
    "ip", "nft", "dnsmasq", "nginx", "tcpdump", "wg", "curl", "busybox", "ping", "nc",
];

/// How long [`Lab::run`] lets a command run.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Folders of ended labs are kept so long for who wants to look into their captures.
const KEEP_FOLDERS: Duration = Duration::from_hours(1);

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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            cafe: Cafe::default(),
            seat: Seat::Namespace,
            download: 16 << 20,
            captures: true,
        }
    }
}

/// Programs that the lab needs and this machine does not have.
pub fn missing_programs() -> Vec<String> {
    PROGRAMS
        .iter()
        .filter(|program| find_program(program).is_none())
        .map(|&program| program.to_owned())
        .collect()
}

/// A running lab; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    keep: bool,
    seat: Seat,
    topology: Topology,
    cafe: Cafe,
    papers: Papers,
    canary: Canary,
    spaces: BTreeMap<&'static str, Netns>,
    taps: BTreeMap<&'static str, OwnedFd>,
    captures: Mutex<Vec<Capture>>,
    machines: BTreeMap<&'static str, Machine>,
    servers: Vec<Process>,
    launcher: Launcher,
    moves: Mutex<Vec<Move>>,
    generation: AtomicU32,
}

/// A cable was plugged in or pulled.
#[derive(Debug, Clone, Copy)]
struct Move {
    at: At,
    interface: &'static str,
    wall: Option<Wall>,
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
            None => fresh_dir()?,
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
        write_groupware(&dir.join("groupware"), &canary, options.download)?;
        let papers = Papers::generate(&dir)?;
        let topology = Topology::new(&options.cafe);
        let spaces = lay_out(&topology, &launcher, &dir)?;
        let mut lab = Self {
            dir,
            keep,
            seat: options.seat,
            topology,
            cafe: options.cafe,
            papers,
            canary,
            spaces,
            taps: BTreeMap::new(),
            captures: Mutex::new(Vec::new()),
            machines: BTreeMap::new(),
            servers: Vec::new(),
            launcher,
            moves: Mutex::new(Vec::new()),
            generation: AtomicU32::new(1),
        };
        lab.connect_laptop()?;
        lab.serve()?;
        if options.captures {
            lab.capture()?;
        }
        Ok(lab)
    }

    fn connect_laptop(&mut self) -> Result<(), LabError> {
        let walls = self.space(WALLS)?.clone();
        let laptop = Netns::create().map_err(LabError::io("make the laptop's namespace"))?;
        let mut lines = String::new();
        for cable in self.topology.cables.clone() {
            let name = cable.interface;
            match self.seat {
                Seat::Namespace => {
                    let _ = writeln!(
                        lines,
                        "link add {name} type veth peer name {name} netns {}",
                        laptop.path().display()
                    );
                }
                Seat::Taps { vnet_hdr } => {
                    let tap = walls
                        .enter(|| open_tap(name, vnet_hdr))
                        .and_then(|tap| tap)
                        .map_err(LabError::io("make a tap for the laptop"))?;
                    self.taps.insert(name, tap);
                }
            }
            let switch = cable.wall.switch();
            let _ = writeln!(lines, "link set {name} master {switch}\nlink set {name} up");
        }
        ip_batch(&self.launcher, &walls, &self.dir, "cables", &lines)?;
        if self.seat == Seat::Namespace {
            ip_batch(
                &self.launcher,
                &laptop,
                &self.dir,
                "laptop",
                "link set lo up\n",
            )?;
            self.spaces.insert("laptop", laptop);
        }
        Ok(())
    }

    /// Starts everything first, then waits for everything.
    fn serve(&mut self) -> Result<(), LabError> {
        let mut waiting = Vec::new();
        for node in &self.topology.nodes {
            let space = &self.spaces[node.name];
            let mut answers: Vec<Answer> = Vec::new();
            for service in &node.services {
                match service {
                    Service::Dnsmasq(lines) => waiting.push(service::dnsmasq(
                        &self.launcher,
                        space,
                        &self.dir,
                        node.name,
                        lines,
                    )?),
                    Service::Nginx(servers) => waiting.push(service::nginx(
                        &self.launcher,
                        space,
                        &self.dir,
                        node.name,
                        servers,
                    )?),
                    Service::WireGuard { inner, port } => self.servers.extend(service::wireguard(
                        &self.launcher,
                        space,
                        &self.dir,
                        &self.papers,
                        *inner,
                        *port,
                    )?),
                    Service::Answer(answer) => answers.push(*answer),
                }
            }
            if !answers.is_empty() {
                self.machines
                    .insert(node.name, service::answer(space, &answers)?);
            }
        }
        for (process, line) in waiting {
            process.wait_line(line, service::START_LIMIT)?;
            self.servers.push(process);
        }
        Ok(())
    }

    fn captures(&self) -> std::sync::MutexGuard<'_, Vec<Capture>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts all captures, after [`Lab::stop_captures`] anew and in a folder of their own. A cable
    /// that is pulled cannot be captured, and cannot be plugged in again before the next start.
    pub fn capture(&self) -> Result<(), LabError> {
        let mut captures = Vec::new();
        let mut wanted = Vec::new();
        for cable in &self.topology.cables {
            let interface = cable.interface;
            if self.wall(cable).is_none() {
                continue;
            }
            for (way, direction) in [("from", Direction::FromLaptop), ("to", Direction::ToLaptop)] {
                wanted.push((
                    format!("{interface}.{way}"),
                    (WALLS, interface),
                    Point::P1,
                    direction,
                ));
            }
        }
        for wire in &self.topology.wires {
            wanted.push((wire.name.to_owned(), wire.a, wire.point, Direction::Both));
        }
        let inner = ("gateway", service::WIREGUARD_INTERFACE);
        wanted.push(("tunnel".to_owned(), inner, Point::P2, Direction::Both));
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("captures-{generation}"));
        std::fs::create_dir_all(&dir).map_err(LabError::io("make the captures' folder"))?;
        for (name, (node, interface), point, direction) in wanted {
            let file = dir.join(format!("{name}.pcap"));
            captures.push(Capture::start(
                &self.launcher,
                &self.spaces[node],
                interface,
                (&name, point, direction),
                file,
            )?);
        }
        captures.iter().try_for_each(Capture::ready)?;
        self.captures().extend(captures);
        Ok(())
    }

    /// Ends all captures, with all that passed until now, and gives them; later calls give nothing.
    pub fn stop_captures(&self) -> Result<Recordings, LabError> {
        // Not an event that could be awaited: the kernel holds a block back for a fixed time.
        std::thread::sleep(BLOCK_TIME);
        let list = std::mem::take(&mut *self.captures())
            .into_iter()
            .map(Capture::stop)
            .collect::<Result<_, _>>()?;
        Ok(Recordings { list })
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

    /// Runs a command in a node to its end.
    pub fn run(&self, node: &str, command: &[&str]) -> Result<Output, LabError> {
        self.run_for(node, command, RUN_LIMIT)
    }

    /// Runs a command in a node to its end, at most for `limit`.
    pub fn run_for(
        &self,
        node: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<Output, LabError> {
        self.launcher.run(self.command(node, command)?, limit)
    }

    /// Runs a prepared command ([`Netns::command`]) to its end, at most for `limit`.
    pub fn run_command(&self, command: Command, limit: Duration) -> Result<Output, LabError> {
        self.launcher.run(command, limit)
    }

    /// Starts a command in a node; its output goes to `logs/NAME.log`.
    pub fn spawn(&self, node: &str, name: &str, command: &[&str]) -> Result<Process, LabError> {
        self.launcher.spawn(name, self.command(node, command)?)
    }

    /// Starts a prepared command ([`Netns::command`]).
    pub fn spawn_command(&self, name: &str, command: Command) -> Result<Process, LabError> {
        self.launcher.spawn(name, command)
    }

    fn command(&self, node: &str, command: &[&str]) -> Result<Command, LabError> {
        let (program, arguments) = command.split_first().ok_or_else(|| LabError::Unknown {
            what: "command without a program".into(),
        })?;
        let mut prepared = self.space(node)?.command(program);
        prepared.args(arguments).current_dir(&self.dir);
        Ok(prepared)
    }

    /// Plugs one of the laptop's cables into a wall. Carrier is there when this returns.
    pub fn plug(&self, interface: &str, wall: Wall) -> Result<(), LabError> {
        let captures = self.captures();
        let watched = format!("{interface}.from");
        if !captures.is_empty() && !captures.iter().any(|capture| capture.name == watched) {
            let what = format!("capture of {interface}, which was pulled when captures began");
            return Err(LabError::Unknown { what });
        }
        drop(captures);
        // The new wall's rules hold from before the first frame can pass.
        self.note(interface, Some(wall))?;
        self.cable(interface, &format!("master {} up", wall.switch()))
    }

    /// Pulls one of the laptop's cables. A machine with taps sees this only by its own means (QEMU:
    /// `set_link`), but no frame passes any more.
    pub fn unplug(&self, interface: &str) -> Result<(), LabError> {
        self.cable(interface, "down nomaster")?;
        self.note(interface, None)
    }

    /// Tells the oracle that a cable was moved by other means than [`Lab::plug`] (QEMU: `set_link`).
    /// Plugging is to be told before it is done, pulling after it.
    pub fn note(&self, interface: &str, wall: Option<Wall>) -> Result<(), LabError> {
        let cable = self
            .topology
            .cables
            .iter()
            .find(|cable| cable.interface == interface)
            .ok_or_else(|| LabError::Unknown {
                what: format!("cable {interface}"),
            })?;
        let moved = Move {
            at: At::now(),
            interface: cable.interface,
            wall,
        };
        self.moves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(moved);
        Ok(())
    }

    /// Where a cable is plugged in now.
    fn wall(&self, cable: &Cable) -> Option<Wall> {
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let last = moves
            .iter()
            .rev()
            .find(|moved| moved.interface == cable.interface);
        last.map_or(Some(cable.wall), |moved| moved.wall)
    }

    fn cable(&self, interface: &str, change: &str) -> Result<(), LabError> {
        let lines = format!("link set {interface} {change}\n");
        ip_batch(
            &self.launcher,
            self.space(WALLS)?,
            &self.dir,
            &format!("cable-{interface}"),
            &lines,
        )
    }

    /// Ends the captures and asks the oracle: every outside wire is searched for canaries, and what
    /// the laptop sent is judged by the rules of the wall that its cable was in at that time.
    pub fn judge(&self, canaries: &Canaries) -> Result<(Recordings, Verdict), LabError> {
        let recordings = self.stop_captures()?;
        let (cafe, office) = (Rules::cafe(&self.cafe), Rules::office());
        let moves = self
            .moves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut verdict = Verdict::default();
        for recording in recordings
            .list
            .iter()
            .filter(|recording| recording.point == Point::P1)
        {
            let cable = self
                .topology
                .cables
                .iter()
                .find(|cable| recording.name.split('.').next() == Some(cable.interface));
            let rules = |at: At| {
                let cable = cable?;
                let last = moves
                    .iter()
                    .rev()
                    .find(|moved| moved.interface == cable.interface && moved.at <= at);
                match last.map_or(Some(cable.wall), |moved| moved.wall)? {
                    Wall::Cafe => Some(&cafe),
                    Wall::Office => Some(&office),
                }
            };
            verdict.add(judge(recording, canaries, rules)?);
        }
        Ok((recordings, verdict))
    }

    /// The lab's end of a cable as a tap descriptor for `-netdev tap,fd=…`. The tap lives as long as
    /// the lab, so that a machine that is switched off and on again can be given it again.
    pub fn tap_fd(&self, interface: &str) -> Result<OwnedFd, LabError> {
        self.taps
            .get(interface)
            .ok_or_else(|| LabError::Unknown {
                what: format!("tap {interface}"),
            })?
            .try_clone()
            .map_err(LabError::io("copy a tap's descriptor"))
    }

    /// Writes the laptop's files to `dir`: signed policy, trust, device file, key.
    pub fn files(&self, dir: &Path) -> Result<LaptopFiles, LabError> {
        self.papers.issue(dir)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.captures().clear();
        self.servers.clear();
        self.machines.clear();
        if std::thread::panicking() {
            eprintln!("the lab's logs and captures are in {}", self.dir.display());
        } else if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The captures of one run.
#[derive(Debug, Clone)]
pub struct Recordings {
    /// All of them.
    pub list: Vec<Recording>,
}

impl Recordings {
    /// The recording of that name, for example `eth0.from`, `tunnel`, `gateway-lgwan`.
    pub fn get(&self, name: &str) -> Result<&Recording, LabError> {
        self.list
            .iter()
            .find(|recording| recording.name == name)
            .ok_or_else(|| LabError::Unknown {
                what: format!("recording {name}"),
            })
    }
}

/// A fresh folder under `target/lab`; old ones of ended processes are removed first.
fn fresh_dir() -> Result<PathBuf, LabError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::current_exe()
        .ok()
        .and_then(|exe| {
            exe.ancestors()
                .find(|folder| folder.ends_with("target"))
                .map(Path::to_path_buf)
        })
        .unwrap_or_else(std::env::temp_dir)
        .join("lab");
    remove_old(&base);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = base.join(format!("{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(LabError::io("make the lab's folder"))?;
    Ok(dir)
}

fn remove_old(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split('-').next()?.parse().ok());
        let ended = owner
            .and_then(Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_err());
        let old = entry
            .metadata()
            .and_then(|data| data.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > KEEP_FOLDERS)
            });
        if ended && old {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Groupware's page and its download; each repeats the canary.
fn write_groupware(dir: &Path, canary: &Canary, download: usize) -> Result<(), LabError> {
    let page = format!(
        "見本市グループウェア Mihon City groupware\n{}\n",
        canary.hex()
    );
    std::fs::write(dir.join("page.txt"), page).map_err(LabError::io("write groupware's page"))?;
    let block = canary.bytes().repeat(4096);
    let writing = || LabError::io("write groupware's download");
    let mut file = std::fs::File::create(dir.join("download")).map_err(writing())?;
    let mut left = download;
    while left > 0 {
        let length = left.min(block.len());
        file.write_all(&block[..length]).map_err(writing())?;
        left -= length;
    }
    Ok(())
}
