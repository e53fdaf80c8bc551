//! The laptop: switched on, used, unplugged, switched off.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::build::{self, BuildError};
use crate::config::{LAPTOP_EXEC_PORT, SharedFolder};
use crate::debian::{Cache, FetchError};
use crate::exec::{ExecClient, ExecError, Output, Running, Start};
use crate::initrd::{self, InitrdError};
use crate::kernel::{Flavour, Kernel};
use crate::options::{CARDS, Options, Share};
use crate::plug;
use crate::qemu::{Process, Qemu};
use crate::qmp::{Qmp, QmpError};
use crate::{cr8, qemu};

/// What can go wrong with a laptop. Its `Debug` form is its text: that is what a failed `expect`
/// in a test prints, and the console's lines are to be read there.
#[derive(thiserror::Error)]
pub enum LaptopError {
    /// Its kernel could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its init could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its initrd could not be made.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// QEMU could not be set up or started.
    #[error("cannot start QEMU: {0}; install the package qemu-system-x86")]
    Qemu(#[source] io::Error),
    /// A file of the run could not be written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not come up.
    #[error("the laptop did not start: {why}\n{tail}")]
    NotUp {
        /// Why.
        why: String,
        /// The end of its console and of QEMU's own words.
        tail: String,
    },
    /// QEMU's control failed.
    #[error(transparent)]
    Control(#[from] QmpError),
    /// A command in it failed to run.
    #[error("{why}\n{tail}")]
    Exec {
        /// Why.
        #[source]
        why: ExecError,
        /// The end of its console.
        tail: String,
    },
    /// It has no such part.
    #[error("the laptop has no {0}, or it was taken already")]
    NoSuch(String),
    /// It did not switch off in time.
    #[error("the laptop was still on after {0:?}\n{1}")]
    StillOn(Duration, String),
}

impl fmt::Debug for LaptopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A laptop that is on. Dropped, it loses its power at once.
#[derive(Debug)]
pub struct Laptop {
    folder: PathBuf,
    process: Process,
    exec: ExecClient,
    qmp: Mutex<Qmp>,
    ports: Mutex<BTreeMap<String, UnixStream>>,
    started: Duration,
}

/// How long a command runs at most, if nothing else was said.
const RUN_LIMIT: Duration = Duration::from_mins(1);

/// Folders of earlier runs that are kept to be looked at.
const KEPT_RUNS: usize = 8;

/// How much of the console is shown with a failure.
const TAIL_LINES: usize = 25;

impl Laptop {
    /// Switches a laptop on and waits until it takes commands.
    pub fn start(options: Options) -> Result<Self, LaptopError> {
        let cache = Cache::open()?;
        let kernel = Kernel::fetch(&cache, Flavour::Generic)?;
        let init = build::static_program("sekisho-laptop", "sekisho-laptop-init", &[])?;
        let folder = make_folder(&options.runs)?;
        let initrd = folder.join("initrd");
        let workaround = options.cr8_workaround && !qemu::hardware_virtualisation();
        let extra = workaround
            .then(|| cr8::module(&cache, &kernel))
            .transpose()?;
        let at_boot = options.at_boot.clone();
        initrd::laptop(&kernel, &init, extra.as_slice(), at_boot, &initrd)?;

        let power_on = Instant::now();
        let mut wiring = Wiring::new(&options, &folder).map_err(LaptopError::Qemu)?;
        let Options {
            wires,
            unplugged,
            boot_limit,
            ..
        } = options;
        wiring.boot(&kernel, &initrd);
        wiring.cards(wires);
        let log = create(&folder.join("qemu.log"))?;
        let process = wiring.qemu.start(log).map_err(LaptopError::Qemu)?;

        let not_up = |why: &dyn std::error::Error| LaptopError::NotUp {
            why: why.to_string(),
            tail: tail_of(&folder),
        };
        let mut qmp = Qmp::new(wiring.qmp).map_err(|error| not_up(&error))?;
        for card in 0..CARDS {
            if unplugged.contains(&card) || !wiring.wired.contains(&card) {
                set_link(&mut qmp, card, false)?;
            }
        }
        qmp.execute("cont", &json!({}))?;
        let exec = ExecClient::new(wiring.exec).map_err(|error| not_up(&error))?;
        exec.hello(boot_limit).map_err(|error| not_up(&error))?;
        // QEMU read it long ago.
        let _ = fs::remove_file(&initrd);
        Ok(Self {
            process,
            exec,
            qmp: Mutex::new(qmp),
            ports: Mutex::new(wiring.ports),
            started: power_on.elapsed(),
            folder,
        })
    }

    /// Runs a command to its end, for a minute at most.
    pub fn run(&self, argv: &[&str]) -> Result<Output, LaptopError> {
        self.run_within(argv, RUN_LIMIT)
    }

    /// Runs a command to its end.
    pub fn run_within(&self, argv: &[&str], limit: Duration) -> Result<Output, LaptopError> {
        self.exec
            .run(argv, limit)
            .map_err(|why| self.exec_error(why))
    }

    /// Starts a command and does not wait for it.
    pub fn spawn(&self, argv: &[&str]) -> Result<Running, LaptopError> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.spawn_with(Start {
            argv,
            ..Start::default()
        })
    }

    /// Starts a command with its environment, folder, input or terminal.
    pub fn spawn_with(&self, start: Start) -> Result<Running, LaptopError> {
        self.exec.spawn(start).map_err(|why| self.exec_error(why))
    }

    /// Plugs the cable of `eth0` or `eth1` in, or pulls it.
    pub fn set_link(&self, card: usize, up: bool) -> Result<(), LaptopError> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        set_link(&mut qmp, card, up)
    }

    /// Presses the reset button: the machine starts anew in the middle of whatever it did. It is off
    /// then unless [`Options::reboots`].
    pub fn reset_button(&self) -> Result<(), LaptopError> {
        self.control("system_reset", &json!({}))
    }

    /// Waits until it takes commands anew, after it started again by itself.
    pub fn again(&self, limit: Duration) -> Result<(), LaptopError> {
        self.exec.sync(limit).map_err(|why| self.exec_error(why))?;
        Ok(())
    }

    /// One command of QEMU's control protocol, whose answer is of no interest.
    pub(crate) fn control(
        &self,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<(), LaptopError> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute(command, arguments)?;
        Ok(())
    }

    /// Presses the power button. What that does is the laptop's own affair.
    pub fn power_button(&self) -> Result<(), LaptopError> {
        self.control("system_powerdown", &json!({}))
    }

    /// Has the laptop end its processes and switch itself off.
    pub fn power_off(self, limit: Duration) -> Result<(), LaptopError> {
        self.exec.power_off().map_err(|why| self.exec_error(why))?;
        self.wait_off(limit)
    }

    /// Waits until the laptop is off by itself.
    pub fn wait_off(&self, limit: Duration) -> Result<(), LaptopError> {
        if self.process.wait(limit) {
            Ok(())
        } else {
            Err(LaptopError::StillOn(limit, self.console_tail()))
        }
    }

    /// The far end of a console port that [`Options::ports`] named. Each can be taken once; for a
    /// second reader, clone it.
    pub fn port(&self, name: &str) -> Result<UnixStream, LaptopError> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports
            .remove(name)
            .ok_or_else(|| LaptopError::NoSuch(format!("port {name}")))
    }

    /// The run's folder, which the laptop sees under the same path and may write to. Also holds
    /// `console.log` and `qemu.log`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// From QEMU's start to the first answer.
    pub fn boot_time(&self) -> Duration {
        self.started
    }

    /// The process id of QEMU.
    pub fn qemu_pid(&self) -> u32 {
        self.process.pid()
    }

    /// The last lines of the serial console and of QEMU's own words.
    pub fn console_tail(&self) -> String {
        tail_of(&self.folder)
    }

    fn exec_error(&self, why: ExecError) -> LaptopError {
        let tail = match why {
            // The machine did nothing wrong.
            ExecError::NotStarted(_) | ExecError::TooSlow { .. } => String::new(),
            _ => self.console_tail(),
        };
        LaptopError::Exec { why, tail }
    }
}

/// QEMU's command line with the near ends of what it connects.
struct Wiring {
    qemu: Qemu,
    qmp: UnixStream,
    exec: UnixStream,
    ports: BTreeMap<String, UnixStream>,
    shares: Vec<String>,
    wired: Vec<usize>,
}

impl Wiring {
    fn new(options: &Options, folder: &Path) -> io::Result<Self> {
        let mut qemu = Qemu::new(options.memory, options.cpus);
        if !options.reboots {
            qemu.words(&["-no-reboot"]);
        }
        if options.sockets {
            plug::sockets(&mut qemu);
        }
        if let Some(disk) = &options.disk {
            let far_end = format!(
                "driver=nbd,node-name=disk,server.type=unix,server.path={}",
                disk.socket().display()
            );
            qemu.words(&["-blockdev", &far_end]);
            qemu.words(&["-device", "virtio-blk-pci,drive=disk,addr=6"]);
        }
        let console = folder.join("console.log");
        qemu.words(&[
            "-chardev",
            &format!("file,id=console,path={}", console.display()),
        ]);
        qemu.words(&["-serial", "chardev:console"]);
        let qmp = qemu.stream("qmp")?;
        qemu.words(&["-mon", "chardev=qmp,mode=control"]);
        let exec = qemu.console_port("exec", LAPTOP_EXEC_PORT)?;
        let mut ports = BTreeMap::new();
        for (number, name) in options.ports.iter().enumerate() {
            ports.insert(
                name.clone(),
                qemu.console_port(&format!("port{number}"), name)?,
            );
        }
        qemu.folder("root", Path::new("/"), false);
        let own = Share {
            path: folder.to_owned(),
            writable: true,
        };
        let mut shares = Vec::new();
        for (number, share) in options.shares.iter().chain([&own]).enumerate() {
            let tag = format!("share{number}");
            qemu.folder(&tag, &share.path, share.writable);
            let share = SharedFolder {
                tag,
                writable: share.writable,
                path: share.path.clone(),
            };
            shares.push(share.parameter());
        }
        Ok(Self {
            qemu,
            qmp,
            exec,
            ports,
            shares,
            wired: Vec::new(),
        })
    }

    fn boot(&mut self, kernel: &Kernel, initrd: &Path) {
        // `notests`: the kernel's self-tests of its ciphers take a third of a second.
        // `no_timer_check`: on a busy machine emulation delivers the timer too late for the check,
        // and the kernel panics.
        // `nohz=off highres=off`: the emulator's SVM sets and clears a bit of `interrupt_request`
        // without the lock that devices set bits of it under, so an interrupt of a processor that
        // enters or leaves a guest can be lost. A processor that then sleeps without a periodic tick
        // never wakes; with one it wakes at the next tick.
        let tick = if qemu::hardware_virtualisation() {
            ""
        } else {
            "nohz=off highres=off"
        };
        let cmdline = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check {tick} cryptomgr.notests {}",
            self.shares.join(" ")
        );
        self.qemu
            .words(&["-kernel", &kernel.vmlinux().to_string_lossy()]);
        self.qemu
            .words(&["-initrd", &initrd.to_string_lossy(), "-append", &cmdline]);
    }

    /// Two cards in fixed slots, so that their names never change places.
    fn cards(&mut self, wires: Vec<std::os::fd::OwnedFd>) {
        let mut wires = wires.into_iter();
        for card in 0..CARDS {
            let far_end = match wires.next() {
                Some(wire) => {
                    self.wired.push(card);
                    let fd = self.qemu.inherit(wire);
                    format!("tap,id=wire{card},fd={fd}")
                }
                // A hub with nothing else on it.
                None => format!("hubport,id=wire{card},hubid={card}"),
            };
            self.qemu.words(&["-netdev", &far_end]);
            let device = format!(
                "virtio-net-pci,netdev=wire{card},id=card{card},addr={:#x},romfile=,\
                 mac=02:53:4b:01:00:{card:02x}",
                0x10 + card
            );
            self.qemu.words(&["-device", &device]);
        }
    }
}

fn set_link(qmp: &mut Qmp, card: usize, up: bool) -> Result<(), LaptopError> {
    if card >= CARDS {
        return Err(LaptopError::NoSuch(format!("network card eth{card}")));
    }
    qmp.execute(
        "set_link",
        &json!({ "name": format!("card{card}"), "up": up }),
    )?;
    Ok(())
}

/// A folder named after this process; those of processes that ended are removed, but a few.
fn make_folder(runs: &Path) -> Result<PathBuf, LaptopError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = runs.join(format!("{}-{number}", std::process::id()));
    let failed = |source| LaptopError::File {
        path: folder.clone(),
        source,
    };
    if folder.exists() {
        // Of a process of the same number, long ago.
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    remove_old_runs(runs);
    fs::create_dir_all(&folder).map_err(failed)?;
    Ok(folder)
}

/// What cannot be removed stays: another process may be at it, or a person.
fn remove_old_runs(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    let mut ended: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.split_once('-'));
            process.is_some_and(|(id, _)| {
                id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()
            })
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    ended.sort();
    for (_, folder) in ended.iter().rev().skip(KEPT_RUNS) {
        let _ = fs::remove_dir_all(folder);
    }
}

pub(crate) fn create(path: &Path) -> Result<File, LaptopError> {
    File::create(path).map_err(|source| LaptopError::File {
        path: path.to_owned(),
        source,
    })
}

fn tail_of(folder: &Path) -> String {
    let mut text = String::new();
    for (name, what) in [("console.log", "console"), ("qemu.log", "qemu")] {
        let log = fs::read(folder.join(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            // Of the emulated processor and of cards without a wire, at each start; no failure was
            // ever explained by them.
            .filter(|line| {
                !line.contains("TCG doesn't support requested feature")
                    && !line.contains("is not connected to host network")
            })
            .collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            text.extend(["  ", what, ": ", line, "\n"]);
        }
    }
    text
}
