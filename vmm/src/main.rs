//! `sekisho-vmm`: runs the work OS.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sekisho_vmm::cpu::Paravirt;
use sekisho_vmm::machine::{
    Console, Disk, Firmware, Laptop, Machine, Net, Screen, Serial, Size, Sound, Tpm,
};
use sekisho_vmm::{api::client, screenshot, start};
use tracing_subscriber::EnvFilter;

/// Runs the work OS in a virtual machine that reaches nothing but what it is given.
#[derive(Parser)]
#[command(name = "sekisho-vmm", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a guest and wait for its end.
    #[command(after_help = EXAMPLES)]
    Run(Box<Run>),
    /// Save what a guest's screen shows now.
    Screenshot(Screenshot),
    /// Ask a running VMM for its state or its statistics, to pause, to go on, for its buttons.
    Ctl(Ctl),
}

#[derive(Args)]
struct Screenshot {
    /// What the guest was started with as --display view=PATH
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// PNG file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args)]
struct Ctl {
    /// What the guest was started with as --socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// What to ask for
    wish: client::Wish,
}

const EXAMPLES: &str = "\
Examples:
  A kernel and its initrd, on this terminal (Ctrl-C switches the guest off):
    sekisho-vmm run --kernel /boot/vmlinuz-6.1.0-56-cloud-amd64 --initrd initrd.img \\
        --cmdline 'console=ttyS0' --serial stdio

  With two processors, a read-only disk and a NIC whose frames go to the network domain:
    sekisho-vmm run --kernel vmlinuz --memory 2G --cpus 2 --disk path=root.img,readonly=on \\
        --net link=/run/sekisho/link,mac=02:53:4b:00:07:17,mtu=1420

  The same from a machine file, whose keys are the options' names:
    sekisho-vmm run --config machine.toml

Exit status:
  0  the guest shut down      3  the guest asked for a reset
  1  the guest did not start  4  the guest crashed
  2  the options are wrong

Start it as root or through the supervisor: it needs /dev/kvm, and closes itself into a sandbox
before the guest's first instruction. SEKISHO_LOG sets what is logged (error to trace).";

#[derive(Args)]
struct Run {
    /// Machine file (TOML). Options given beside it take the place of its values
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Linux kernel: a bzImage, or a vmlinux with a PVH entry
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "firmware"])]
    kernel: Option<PathBuf>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// UEFI firmware: code=FILE,vars=FILE; the variables are this machine's own copy. It starts the
    /// kernel, which may be any EFI program, or else what is on the disks
    #[arg(long, value_name = "KEYS")]
    firmware: Option<Firmware>,

    /// Kernel command line
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,

    /// Guest memory, a multiple of 2M [default: 512M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,

    /// Number of processors [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<u8>,

    /// Hypervisor that the guest finds: kvm, both or hyper-v; Windows looks for Hyper-V [default: both
    /// with firmware, otherwise kvm]
    #[arg(long, value_name = "WHICH")]
    paravirt: Option<Paravirt>,

    /// Disk: path=FILE[,format=raw|qcow2][,readonly=on][,device=virtio-blk|nvme]; with overlay=FILE the
    /// changes are in that file, with changes=temporary they end with the VMM, and path= is only read;
    /// may be given several times
    #[arg(long, value_name = "KEYS")]
    disk: Vec<Disk>,

    /// NIC: mac=XX:XX:XX:XX:XX:XX[,link=fd:N|PATH][,mtu=N]; without link the cable is out until
    /// the supervisor attaches one
    #[arg(long, value_name = "KEYS")]
    net: Vec<Net>,

    /// Console port: name=NAME,socket=fd:N|PATH or name=NAME,device=FILE; may be given several
    /// times
    #[arg(long, value_name = "KEYS")]
    console: Vec<Console>,

    /// Screen: [mode=WxH][,seat=fd:N|PATH][,view=PATH|fd:N][,gpu=on]; mode is what it likes best [default:
    /// 1920x1080], seat shows it, view is where `screenshot` asks, gpu adds a virtio
    /// graphics card
    #[arg(long, value_name = "KEYS")]
    display: Option<Screen>,

    /// TPM 2.0: socket=fd:N|PATH, the control channel of an swtpm
    #[arg(long, value_name = "KEYS")]
    tpm: Option<Tpm>,
    /// Sound card: null, or file=WAV[,input=WAV] for tests; without it there is none
    #[arg(long)]
    sound: Option<Sound>,

    /// Battery, mains adapter, lid and sleep button: supplies=FOLDER[,lid=FILE], usually
    /// `/sys/class/power_supply` and `/proc/acpi/button/lid/LID0/state`; without lid it is open
    #[arg(long, value_name = "KEYS")]
    laptop: Option<Laptop>,

    /// COM1: stdio, file=PATH or none [default: none]
    #[arg(long, value_name = "WHERE")]
    serial: Option<Serial>,

    /// Give the guest a PS/2 keyboard and mouse
    #[arg(long)]
    ps2: bool,

    /// The supervisor's channel, an inherited seqpacket socket
    #[arg(long, value_name = "fd:N")]
    control: Option<String>,

    /// Control socket: a path, where `sekisho-vmm ctl` and any Varlink client may ask
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// User and group to run as once everything is open
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

impl Run {
    fn machine(self) -> Result<Machine, String> {
        let mut machine = match &self.config {
            Some(path) => read(path)?,
            None if self.kernel.is_none() && self.firmware.is_none() => {
                return Err("--kernel, --firmware or --config is missing".to_owned());
            }
            None => Machine::default(),
        };
        machine.kernel = self.kernel.or(machine.kernel);
        machine.firmware = self.firmware.or(machine.firmware);
        machine.initrd = self.initrd.or(machine.initrd);
        machine.cmdline = self.cmdline.unwrap_or(machine.cmdline);
        machine.memory = self.memory.unwrap_or(machine.memory);
        machine.cpus = self.cpus.unwrap_or(machine.cpus);
        machine.paravirt = self.paravirt.or(machine.paravirt);
        machine.display = self.display.or(machine.display);
        machine.serial = self.serial.unwrap_or(machine.serial);
        machine.tpm = self.tpm.or(machine.tpm);
        machine.laptop = self.laptop.or(machine.laptop);
        machine.sound = self.sound.or(machine.sound);
        machine.ps2 |= self.ps2;
        machine.control = self.control.or(machine.control);
        machine.socket = self.socket.or(machine.socket);
        machine.user = self.user.or(machine.user);
        replace(&mut machine.disk, self.disk);
        replace(&mut machine.net, self.net);
        replace(&mut machine.console, self.console);
        Ok(machine)
    }
}

fn replace<T>(list: &mut Vec<T>, given: Vec<T>) {
    if !given.is_empty() {
        *list = given;
    }
}

fn read(path: &Path) -> Result<Machine, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--config {name} cannot be read: {error}"))?;
    Machine::from_toml(&text).map_err(|error| format!("--config {name}: {error}"))
}

fn main() -> ExitCode {
    let options = match Cli::parse().command {
        Command::Run(options) => options,
        Command::Ctl(Ctl { socket, wish }) => {
            return match client::ask(&socket, wish) {
                Ok(text) => {
                    print!("{text}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("sekisho-vmm: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Command::Screenshot(Screenshot { socket, file }) => {
            return match screenshot::save(&socket, &file) {
                Ok(mode) => {
                    println!("{}x{}", mode.width(), mode.height());
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("sekisho-vmm: {error}");
                    ExitCode::FAILURE
                }
            };
        }
    };
    let filter = EnvFilter::try_from_env("SEKISHO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let outcome = options
        .machine()
        .and_then(|machine| start::run(&machine).map_err(|error| error.to_string()));
    match outcome {
        Ok(ending) => {
            tracing::info!("the work OS ended: {}", ending.cause());
            ExitCode::from(ending.status())
        }
        Err(error) => {
            eprintln!("sekisho-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}
