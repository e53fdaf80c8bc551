//! From a machine file to a running guest: everything is opened first, then the sandbox closes,
//! then the processors start.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Uid, chown, flock};
use rustix::io::Errno;
use sekisho_sandbox::{Filter, FilterError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use thiserror::Error;

use crate::api::ApiSocket;
use crate::board::aperture::Mapper;
use crate::board::power::{Crash, Ending, Power};
use crate::board::{Board, BoardError, Equipment, Loaded, Panel};
use crate::boot::{FirmwareBoot, LinuxBoot};
use crate::chipset::tpm::{Courier, Farewell, Tpm};
use crate::control::{Control, ControlError};
use crate::cpu;
use crate::devices::{DeviceError, Devices};
use crate::disk::image::requests::{Closer, Service};
use crate::machine::{Firmware, Laptop, Machine, Serial, ValueError};
use crate::sandbox::{self, Thread};
use crate::serve::{self, Desk};
use crate::supply::host::Host;
use crate::terminal::Terminal;
use crate::waking::Waking;
use crate::wire::{Carrier, FILE_LIMIT, Wire};
use crate::worker::Worker;

/// How long an image may take to write what it has cached: some MiB, on a slow and busy disk.
const CLOSING: Duration = Duration::from_mins(1);

/// Why the guest did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The machine file or the options make no machine.
    #[error(transparent)]
    Machine(#[from] ValueError),
    /// The supervisor's channel.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file cannot be opened.
    #[error("--{option} {path} cannot be opened: {source}")]
    Open {
        /// The option that names it.
        option: &'static str,
        /// Its path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The board.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    /// A filter of system calls.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The host.
    #[error("the host gives no {what}: {source}")]
    Host {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Runs the guest to its end.
pub fn run(machine: &Machine) -> Result<Ending, StartError> {
    let started = Instant::now();
    machine.check()?;
    tracing::debug!("opening what the machine file names");
    let control = Control::open(machine.control.as_deref())?;
    let signals = signals().map_err(|source| StartError::Host {
        what: "pipe for signals",
        source,
    })?;
    let mut opened = Opened::open(machine)?;
    let wire = Wire::default();
    let carrier = serial(&machine.serial, &wire)?;
    let mut board = Board::new(Equipment {
        memory: machine.memory.0,
        cpus: machine.cpus,
        paravirt: machine.paravirt(),
        ps2: machine.has_ps2(),
        laptop: machine.laptop.is_some(),
        serial: carrier.is_some().then(|| Box::new(wire.clone()) as _),
    })?;
    let mut devices = Devices::open(machine, &mut board)?;
    tracing::debug!("devices are on the board");
    let panel = board.panel.clone();
    let (waking, laptop) = look_at_host(machine, &panel)?;
    let api = (machine.socket.as_deref())
        .map(|path| api(path, machine.user, started.elapsed()))
        .transpose()?;
    let pauses = board.pauses();
    let loaded = opened.load(board, &devices, machine)?;
    drop(opened);
    tracing::debug!("the guest is in memory");
    let host = |what| move |source| StartError::Host { what, source };
    let worker = Worker::new(devices.served.clone()).map_err(host("event loop"))?;
    let main = sandbox::filter(Thread::Main)?;
    let vcpu = sandbox::filter(Thread::Vcpu)?;

    let enforced = sandbox::enter(machine.user)?;
    tracing::debug!("the sandbox is closed: {enforced:?}");
    let typing = machine.serial == Serial::Stdio;
    let terminal = typing.then(Terminal::take);
    let (closed, closing) = mpsc::channel();
    let crew = Crew::start(worker, carrier, &mut devices, &panel.power, &closed)?;
    tracing::debug!("the guest starts");
    loaded.switch_on(move || install(&vcpu, &closed))?;
    main.install()?;
    // Each thread tells that it is closed in; only then the supervisor hears that all is ready.
    for outcome in closing
        .iter()
        .take(usize::from(machine.cpus) + crew.threads)
    {
        outcome?;
    }

    let desk = Desk {
        panel,
        control,
        devices,
        signals,
        pauses,
        waking,
        laptop,
        keys: typing.then(io::stdin),
        api,
        size: (machine.cpus, machine.memory.0 >> 20),
        started,
    };
    let ending = desk.serve().map_err(host("events"))?;
    crew.farewell(&ending);
    wire.settle();
    drop(terminal);
    Ok(ending)
}

/// The threads beside the processors', and what is to be said to them in the end.
struct Crew {
    threads: usize,
    closers: Vec<Closer>,
    tpm: Option<Tpm>,
}

impl Crew {
    /// Starts the threads that the machine needs.
    fn start(
        worker: Worker,
        carrier: Option<Carrier>,
        devices: &mut Devices,
        power: &Arc<Power>,
        closed: &Closed,
    ) -> Result<Self, StartError> {
        let host = |what| move |source| StartError::Host { what, source };
        let io = sandbox::filter(Thread::Io)?;
        serve_devices(worker, io, closed.clone(), Arc::clone(power))
            .map_err(host("thread for devices"))?;
        let mut crew = Self {
            threads: 1,
            closers: Vec::new(),
            tpm: None,
        };
        for service in std::mem::take(&mut devices.images) {
            crew.closers.push(service.closer());
            let filter = sandbox::filter(Thread::Image)?;
            serve_image(service, filter, closed.clone(), Arc::clone(power))
                .map_err(host("thread for a disk image"))?;
            crew.threads += 1;
        }
        if let Some(carrier) = carrier {
            let output = sandbox::filter(Thread::Serial)?;
            carry(carrier, output, closed.clone()).map_err(host("thread for the serial port"))?;
            crew.threads += 1;
        }
        if let Some(mapper) = devices.mapper.take() {
            let memory = sandbox::filter(Thread::Memory)?;
            move_memory(mapper, memory, closed.clone()).map_err(host("thread for the screen"))?;
            crew.threads += 1;
        }
        if let Some((tpm, courier)) = devices.tpm.take() {
            let calls = sandbox::filter(Thread::Tpm)?;
            serve_tpm(courier, calls, closed.clone()).map_err(host("thread for the TPM"))?;
            crew.threads += 1;
            crew.tpm = Some(tpm);
        }
        Ok(crew)
    }

    /// The guest has ended.
    fn farewell(self, ending: &Ending) {
        if let Some(tpm) = self.tpm {
            tpm.farewell(match ending {
                Ending::Shutdown | Ending::Stopped => Farewell::Off,
                Ending::Reset | Ending::Crash(_) => Farewell::Reset,
            });
        }
        for closer in self.closers {
            if !closer.close(CLOSING) {
                tracing::error!("a disk image does not close; what was not flushed may be missing");
            }
        }
    }
}

/// What is to be started.
struct Opened {
    firmware: Option<(Named, Named)>,
    kernel: Option<Named>,
    initrd: Option<Named>,
}

/// A file and its name for messages.
type Named = (File, String);

impl Opened {
    fn open(machine: &Machine) -> Result<Self, StartError> {
        let optional = |option, path: &Option<PathBuf>| {
            let path = path.as_deref();
            path.map(|path| named(option, path)).transpose()
        };
        let firmware = |firmware: &Firmware| {
            let code = named("firmware code", &firmware.code)?;
            variables(&firmware.vars).map(|variables| (code, variables))
        };
        Ok(Self {
            firmware: machine.firmware.as_ref().map(firmware).transpose()?,
            kernel: optional("kernel", &machine.kernel)?,
            initrd: optional("initrd", &machine.initrd)?,
        })
    }

    fn load(
        &mut self,
        board: Board,
        devices: &Devices,
        machine: &Machine,
    ) -> Result<Loaded, StartError> {
        let initrd = &mut self.initrd;
        let linux = self.kernel.as_mut().map(|(file, name)| LinuxBoot {
            kernel: (file, name),
            initrd: initrd.as_mut().map(|(file, name)| (file, name.as_str())),
            cmdline: &machine.cmdline,
        });
        let Some((code, variables)) = &mut self.firmware else {
            let linux = linux.ok_or(ValueError::Nothing)?;
            return Ok(board.load(linux)?);
        };
        Ok(board.load_firmware(FirmwareBoot {
            code: (&mut code.0, &code.1),
            variables: (&variables.0, &variables.1),
            program: linux,
            disks: &devices.disks,
        })?)
    }
}

fn named(option: &'static str, path: &Path) -> Result<Named, StartError> {
    Ok((open(option, path)?, path.display().to_string()))
}

/// Opens the firmware's variables for one machine alone, so that what is written to them is in the
/// file for good.
fn variables(path: &Path) -> Result<Named, StartError> {
    let name = path.display().to_string();
    let failed = |source| StartError::Open {
        option: "firmware vars",
        path: name.clone(),
        source,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file, name)),
        Err(Errno::WOULDBLOCK) => Err(failed(io::Error::other(
            "another machine that runs has them: give each its own copy",
        ))),
        Err(error) => Err(failed(error.into())),
    }
}

/// Starts the I/O thread. A guest whose devices answer no more is as good as crashed: better told
/// than left hanging.
fn serve_devices(
    mut worker: Worker,
    filter: Filter,
    closed: Closed,
    power: Arc<Power>,
) -> io::Result<()> {
    thread::Builder::new()
        .name("virtio".into())
        .spawn(move || {
            let _told = Told(power);
            let served = install(&filter, &closed)
                .map_err(io::Error::other)
                .and_then(|()| while_true(|| worker.turn(None)));
            if let Err(error) = served {
                tracing::error!("the devices cannot be served: {error}");
            }
        })?;
    Ok(())
}

/// Starts the thread of a disk image. A guest whose disk answers no more is as good as crashed, too.
fn serve_image(
    service: Service,
    filter: Filter,
    closed: Closed,
    power: Arc<Power>,
) -> io::Result<()> {
    thread::Builder::new().name("image".into()).spawn(move || {
        let _told = Told(power);
        match install(&filter, &closed) {
            Ok(()) => service.run(),
            Err(error) => tracing::error!("{error}"),
        }
    })?;
    Ok(())
}

/// Starts the thread that carries the serial port's output.
fn carry(carrier: Carrier, filter: Filter, closed: Closed) -> io::Result<()> {
    thread::Builder::new()
        .name("serial".into())
        .spawn(move || {
            if let Err(error) = install(&filter, &closed) {
                return tracing::error!("{error}");
            }
            carrier.run();
        })?;
    Ok(())
}

/// Starts the thread that moves the screen's memory.
fn move_memory(mapper: Mapper, filter: Filter, closed: Closed) -> io::Result<()> {
    mapper.take_over();
    thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            if let Err(error) = install(&filter, &closed) {
                return tracing::error!("{error}");
            }
            mapper.run();
        })?;
    Ok(())
}

/// Starts the thread that carries commands to swtpm.
fn serve_tpm(courier: Courier, filter: Filter, closed: Closed) -> io::Result<()> {
    thread::Builder::new()
        .name("tpm".into())
        .spawn(move || match install(&filter, &closed) {
            Ok(()) => courier.run(),
            Err(error) => tracing::error!("{error}"),
        })?;
    Ok(())
}

/// Where a thread tells whether its filter is installed.
type Closed = mpsc::Sender<Result<(), FilterError>>;

/// Installs a thread's filter and tells so; on failure the thread must not go on.
fn install(filter: &Filter, closed: &Closed) -> Result<(), &'static str> {
    let outcome = filter.install();
    let failed = outcome.is_err();
    // Nobody listens any more once another thread has failed: the process is about to end.
    let _ = closed.send(outcome);
    if failed {
        return Err("the thread could not be closed in");
    }
    Ok(())
}

fn while_true(mut turn: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    while turn()? {}
    Ok(())
}

/// Tells the end of a thread that serves devices when dropped, also by a panic.
struct Told(Arc<Power>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.crash(Crash::Devices);
    }
}

fn open(option: &'static str, path: &Path) -> Result<File, StartError> {
    File::open(path).map_err(|source| StartError::Open {
        option,
        path: path.display().to_string(),
        source,
    })
}

/// Prepares for the host's sleep, and opens what tells of its battery, mains and lid; the guest is shown at
/// once what they say.
fn look_at_host(machine: &Machine, panel: &Panel) -> Result<(Waking, Option<Host>), StartError> {
    let host = |what| move |source| StartError::Host { what, source };
    cpu::prepare().map_err(host("handler of signals"))?;
    let waking = Waking::new().map_err(host("timer"))?;
    let (Some(Laptop { supplies, lid }), Some(window)) = (&machine.laptop, &panel.laptop) else {
        return Ok((waking, None));
    };
    let failed = |source| StartError::Open {
        option: "laptop",
        path: supplies.display().to_string(),
        source,
    };
    let mut laptop = Host::open(supplies, lid.as_deref(), Instant::now()).map_err(failed)?;
    serve::show(&mut laptop, window);
    Ok((waking, Some(laptop)))
}

/// Makes the control socket; it is for root and the user that the VMM will be.
fn api(path: &Path, user: Option<u32>, now: Duration) -> Result<ApiSocket, StartError> {
    let failed = |source: io::Error| StartError::Open {
        option: "socket",
        path: path.display().to_string(),
        source,
    };
    let own = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let api = ApiSocket::open(path, own, now).map_err(failed)?;
    if let Some(user) = user {
        chown(path, Some(Uid::from_raw(user)), None).map_err(|error| failed(error.into()))?;
    }
    Ok(api)
}

/// Opens the host's end of COM1's wire, if there is a COM1.
fn serial(serial: &Serial, wire: &Wire) -> Result<Option<Carrier>, StartError> {
    let (file, limit) = match serial {
        Serial::None => return Ok(None),
        Serial::Stdio => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            (stdout.map(File::from), u64::MAX)
        }
        Serial::File(path) => (File::create(path), FILE_LIMIT),
    };
    match file {
        Ok(file) => Ok(Some(Carrier::new(wire, file, limit))),
        Err(source) => Err(StartError::Open {
            option: "serial",
            path: match serial {
                Serial::File(path) => path.display().to_string(),
                _ => "stdio".to_owned(),
            },
            source,
        }),
    }
}

/// One descriptor that becomes readable on each signal that ends a program.
fn signals() -> io::Result<OwnedFd> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read.into())
}
