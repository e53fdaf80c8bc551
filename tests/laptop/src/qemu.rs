//! QEMU's command line and process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};

/// A killed process is gone at once, unless the build machine is very busy.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Whether the processor can run virtual machines whose own KVM works.
///
/// The presence of `/dev/kvm` does not tell: a paravirtual KVM has the node too and cannot run a
/// stock kernel.
pub fn hardware_virtualisation() -> bool {
    (has_flag("svm") || has_flag("vmx")) && Path::new("/dev/kvm").exists()
}

/// Whether the laptop's processor is Intel's; the emulated one is AMD's.
pub(crate) fn intel() -> bool {
    hardware_virtualisation() && has_flag("vmx")
}

fn has_flag(wanted: &str) -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == wanted)
}

/// A command line in the making, and the descriptors that go with it.
pub(crate) struct Qemu {
    command: Command,
    inherited: Vec<OwnedFd>,
}

impl Qemu {
    /// The board that does not vary: a `PCIe` machine with ACPI and no device but those asked for.
    pub(crate) fn new(memory: u32, cpus: u8) -> Self {
        let mut qemu = Self {
            command: Command::new("qemu-system-x86_64"),
            inherited: Vec::new(),
        };
        if hardware_virtualisation() {
            qemu.words(&["-accel", "kvm", "-cpu", "host"]);
        } else {
            qemu.words(&["-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt"]);
        }
        qemu.words(&[
            "-machine",
            "q35,vmport=off,hpet=off",
            "-nodefaults",
            "-no-user-config",
        ]);
        qemu.words(&["-display", "none", "-S"]);
        qemu.words(&["-m", &memory.to_string(), "-smp", &cpus.to_string()]);
        qemu.words(&["-device", "virtio-serial-pci,id=ports,max_ports=31,addr=4"]);
        qemu.words(&["-device", "virtio-rng-pci,addr=5"]);
        qemu
    }

    /// Adds words to the command line.
    pub(crate) fn words(&mut self, words: &[&str]) {
        self.command.args(words);
    }

    /// Hands a descriptor over; gives its number there.
    pub(crate) fn inherit(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    /// A character device with this id whose other end is returned.
    pub(crate) fn stream(&mut self, id: &str) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let fd = self.inherit(theirs.into());
        self.words(&["-chardev", &format!("socket,id={id},fd={fd}")]);
        Ok(ours)
    }

    /// A console port with this name; its other end is returned.
    pub(crate) fn console_port(&mut self, id: &str, name: &str) -> io::Result<UnixStream> {
        let stream = self.stream(id)?;
        let device = format!("virtserialport,bus=ports.0,chardev={id},name={name}");
        self.words(&["-device", &device]);
        Ok(stream)
    }

    /// A folder of the build machine.
    pub(crate) fn folder(&mut self, tag: &str, path: &Path, writable: bool) {
        let mode = if writable { "" } else { ",readonly=on" };
        let options = format!(
            "local,id={tag},path={},mount_tag={tag},security_model=none,multidevs=remap{mode}",
            path.display()
        );
        self.words(&["-virtfs", &options]);
    }

    /// Starts it, with its own words going to `log`.
    pub(crate) fn start(self, log: File) -> io::Result<Process> {
        let Self {
            mut command,
            inherited,
        } = self;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let (started, starting) = mpsc::channel();
        let (ended, exit) = mpsc::channel();
        // The death signal is tied to the thread that starts a process, not to its process, so
        // the thread has to stay until the end.
        thread::Builder::new().name("qemu".into()).spawn(move || {
            let keep: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
            let child = spawn(&mut command, keep);
            drop(inherited);
            match child {
                Ok(mut child) => {
                    // The receiver waits below.
                    let _ = started.send(Ok(child.id()));
                    // Nobody may be interested in the end any more.
                    let _ = ended.send(child.wait());
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        let pid = starting.recv().map_err(io::Error::other)??;
        Ok(Process {
            pid,
            exit: Mutex::new(exit),
        })
    }
}

/// Starts a child that inherits `keep` and dies with the calling thread.
fn spawn(command: &mut Command, keep: Vec<RawFd>) -> io::Result<Child> {
    let in_child = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        for fd in &keep {
            // SAFETY: the parent owns these descriptors until after the fork; the child has
            // copies of them under the same numbers.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only prctl(2) and fcntl(2) are called, no memory is
    // allocated and no lock is taken.
    unsafe { command.pre_exec(in_child) };
    command.spawn()
}

/// QEMU running; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    exit: Mutex<mpsc::Receiver<io::Result<ExitStatus>>>,
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end; `false` if it still runs after `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        // Disconnected means that the end was told before.
        !matches!(
            exit.recv_timeout(limit),
            Err(mpsc::RecvTimeoutError::Timeout)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO) {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // Not reaped a moment ago, so the number is still its own.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            self.wait(KILL_LIMIT);
        }
    }
}
