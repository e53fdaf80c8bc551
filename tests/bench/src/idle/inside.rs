//! What runs inside the laptop: starts both desktops and looks at what they cost.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use sekisho_laptop::exec::ExecClient;
use serde::{Deserialize, Serialize};

use super::{LOGIN_LIMIT, SPAN};
use crate::{
    BenchError,
    machine::{self, Machine, Vmm, copy},
    part,
    process::{self, Exits, guest_time, processor_time},
    program::Daemon,
};

/// A desktop at rest runs for less than so much of the time.
const AT_REST: f64 = 0.05;
/// How long it may take for that after its login is there.
const REST_LIMIT: Duration = Duration::from_mins(3);

/// Guest memory in MiB.
const MEMORY: u64 = 1024;
/// The kernel's words, for both; as the disk's boot loader has them.
const CMDLINE: &str = "root=/dev/nvme0n1p2 ro quiet console=ttyS0 console=tty0 no_timer_check \
                       cryptomgr.notests";
/// The console port of the guest's program.
const PORT: &str = "jp.sekisho.test.0";
/// Where the person's name is asked for, and everything else has started.
const LOGIN: &str = "until pgrep -f lightdm-gtk-greeter > /dev/null; do sleep 1; done; \
                     systemctl is-system-running --wait";

/// What one of them has cost in a span, each a second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) exits: f64,
    pub(super) halts: f64,
    pub(super) accesses: f64,
    /// Processor time of the VMM's process, its guest's with it.
    pub(super) processor: f64,
    pub(super) guest: f64,
    pub(super) seat: f64,
}

/// What this part prints: ours and the peer's.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) spans: Vec<[Cost; 2]>,
}

/// The part: `VMM SEAT KERNEL INITRD OUR-DISK PEERS-DISK RUNS`.
pub fn inside(arguments: &[String]) -> Result<(), BenchError> {
    let [vmm, seat, kernel, initrd, our_disk, peers_disk, runs] = arguments else {
        let missing = "VMM SEAT KERNEL INITRD OUR-DISK PEERS-DISK RUNS";
        return Err(BenchError::Missing(missing.to_owned()));
    };
    let runs: usize = runs
        .parse()
        .map_err(|_| BenchError::Missing("RUNS is a number".to_owned()))?;
    let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
    let at = |name: &str| folder.path().join(name);
    let vmm = copy(vmm, &at("vmm"))?;
    let (kernel, initrd) = (Path::new(kernel), Path::new(initrd));
    process::show_machines()?;

    eprintln!("idle: starting our desktop");
    let shown = Shown::start(Path::new(seat), folder.path())?;
    let mut command = machine::ours(&vmm, MEMORY);
    machine::kernel(&mut command, Vmm::Ours, kernel, initrd, CMDLINE);
    let port = at("ours.port");
    command
        // What an installed system finds.
        .args(["--paravirt", "both"])
        .args(["--disk", &format!("path={our_disk},device=nvme")])
        .args([
            "--display",
            &format!("mode=1024x768,seat={}", shown.link.display()),
        ])
        .args([
            "--console",
            &format!("name={PORT},socket={}", port.display()),
        ]);
    let ours = Desktop::start(&mut command, &port)?;

    eprintln!("idle: starting QEMU's");
    let port = at("peers.port");
    let mut command = peers_command(&port, peers_disk, &at("peers.vnc"));
    machine::kernel(&mut command, Vmm::Peer, kernel, initrd, CMDLINE);
    let peer = Desktop::start(&mut command, &port)?;

    let span = || {
        let before = [ours.look(Some(&shown.seat))?, peer.look(None)?];
        pause(SPAN);
        let after = [ours.look(Some(&shown.seat))?, peer.look(None)?];
        Ok::<_, BenchError>([0, 1].map(|index| before[index].until(&after[index])))
    };
    eprintln!("idle: waiting until both are at rest");
    let deadline = Instant::now() + REST_LIMIT;
    loop {
        let costs = span()?;
        let mut all = [&ours, &peer].into_iter().zip(&costs);
        let Some((busy, _)) = all.find(|(_, cost)| cost.guest >= AT_REST) else {
            break;
        };
        if Instant::now() > deadline {
            let work = busy.said("top -b -n 2 -d 3 | tail -n 40 | head -n 16")?;
            return Err(busy.machine.failed(&format!("it is not at rest:\n{work}")));
        }
    }
    let mut measured = Measured::default();
    for run in 0..runs {
        eprintln!("idle: span {} of {runs}", run + 1);
        measured.spans.push(span()?);
    }
    part::tell(&measured)
}

fn peers_command(port: &Path, disk: &str, vnc: &Path) -> Command {
    let mut command = machine::peer("q35", MEMORY);
    let chardev = format!("socket,id=exec,path={}", port.display());
    let drive = format!("if=none,id=disk,format=raw,file={disk},aio=io_uring");
    command
        .args([
            "-display",
            "none",
            "-vnc",
            &format!("unix:{}", vnc.display()),
        ])
        .args(["-drive", &drive, "-device", "nvme,drive=disk,serial=peer"])
        .args(["-device", "bochs-display,xres=1024,yres=768"])
        .args(["-device", "virtio-tablet-pci", "-device", "virtio-rng-pci"])
        .args(["-device", "virtio-serial-pci", "-chardev", &chardev])
        .args([
            "-device",
            &format!("virtserialport,chardev=exec,name={PORT}"),
        ]);
    command
}

/// The seat, with its server for viewers.
struct Shown {
    seat: Daemon,
    link: PathBuf,
}

impl Shown {
    fn start(program: &Path, folder: &Path) -> Result<Self, BenchError> {
        let link = folder.join("seat");
        let vnc = format!("unix:{}", folder.join("ours.vnc").display());
        let mut command = Command::new(program);
        command
            .arg("--link")
            .arg(&link)
            .args(["--vnc", &vnc])
            .args([
                "--font",
                "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
            ])
            .args(["--user-name", "山田 花子", "--device-name", "PC-0042"])
            .args(["--keyboard", "us"]);
        let seat = Daemon::start("seat", folder, &mut command)?;
        let deadline = Instant::now() + Duration::from_mins(1);
        while !link.exists() {
            if Instant::now() > deadline {
                return Err(seat.failed("it makes no link"));
            }
            pause(Duration::from_millis(50));
        }
        Ok(Self { seat, link })
    }
}

/// A desktop at its login.
struct Desktop {
    machine: Machine,
    guest: ExecClient,
}

impl Desktop {
    /// Starts it, and waits for the login.
    fn start(command: &mut Command, port: &Path) -> Result<Self, BenchError> {
        let began = Instant::now();
        let listener = UnixListener::bind(port).map_err(BenchError::system("make a port"))?;
        let machine = Machine::start(command, LOGIN_LIMIT)?;
        machine.await_readable(&listener)?;
        let accept = || -> io::Result<UnixStream> { Ok(listener.accept()?.0) };
        let stream = accept().map_err(BenchError::system("take a port"))?;
        let failed = |error: sekisho_laptop::exec::ExecError| machine.failed(&error.to_string());
        let guest = ExecClient::new(stream).map_err(failed)?;
        guest.hello(LOGIN_LIMIT).map_err(failed)?;
        let ready = guest
            .run(&["sh", "-c", LOGIN], LOGIN_LIMIT)
            .map_err(failed)?;
        eprintln!("idle: {} after {:?}", ready.text().trim(), began.elapsed());
        Ok(Self { machine, guest })
    }

    /// What a script says in the guest.
    fn said(&self, script: &str) -> Result<String, BenchError> {
        let limit = Duration::from_mins(1);
        let output = self.guest.run(&["sh", "-c", script], limit);
        let output = output.map_err(|error| self.machine.failed(&error.to_string()))?;
        Ok(output.said())
    }

    fn look(&self, seat: Option<&Daemon>) -> Result<Look, BenchError> {
        let pid = self.machine.id();
        Ok(Look {
            at: Instant::now(),
            exits: Exits::of(pid)?,
            processor: processor_time(pid)?,
            guest: guest_time(pid)?,
            seat: seat.map_or(Ok(Duration::ZERO), |seat| processor_time(seat.id()))?,
        })
    }
}

/// What one of them has used since its start.
struct Look {
    at: Instant,
    exits: Exits,
    processor: Duration,
    guest: Duration,
    seat: Duration,
}

impl Look {
    fn until(&self, later: &Self) -> Cost {
        let seconds = (later.at - self.at).as_secs_f64();
        let count = |value: fn(&Exits) -> u64| {
            let grown = value(&later.exits).saturating_sub(value(&self.exits));
            f64::from(u32::try_from(grown).unwrap_or(u32::MAX)) / seconds
        };
        let time = |value: fn(&Self) -> Duration| {
            value(later).saturating_sub(value(self)).as_secs_f64() / seconds
        };
        Cost {
            exits: count(|exits| exits.all),
            halts: count(|exits| exits.halts),
            accesses: count(|exits| exits.accesses),
            processor: time(|look| look.processor),
            guest: time(|look| look.guest),
            seat: time(|look| look.seat),
        }
    }
}

/// Lets time pass: that is what is measured here.
fn pause(time: Duration) {
    std::thread::sleep(time);
}
