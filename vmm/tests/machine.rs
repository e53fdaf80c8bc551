//! The whole program with guests of a few instructions: they run wherever `/dev/kvm` opens, also
//! where it only interprets, because they use nothing but plain integer instructions and ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use sekisho_control::{Channel, Command as Order, Port, Report};
use tempfile::TempDir;

/// A guest of a few instructions takes milliseconds; a loaded machine that interprets it takes a
/// second or two.
const LIMIT: Duration = Duration::from_secs(30);

const COM1: u16 = 0x3f8;
const PM1_STATUS: u16 = 0x600;
const PM1_ENABLE: u16 = 0x602;
const PM1_CONTROL: u16 = 0x604;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_ENABLE: u16 = 1 << 13;

/// Machine code of a guest.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `mov dx, port`
    fn port(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes())
    }

    /// Writes one byte to a port.
    fn out8(self, port: u16, value: u8) -> Self {
        self.port(port).raw(&[0xb0, value, 0xee])
    }

    /// Writes two bytes to a port.
    fn out16(self, port: u16, value: u16) -> Self {
        self.port(port)
            .raw(&[0x66, 0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x66, 0xef])
    }

    /// Writes four bytes to a port.
    fn out32(self, port: u16, value: u32) -> Self {
        self.port(port)
            .raw(&[0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0xef])
    }

    /// Reads a byte from a port and writes it to COM1.
    fn echo8(self, port: u16) -> Self {
        self.port(port).raw(&[0xec]).port(COM1).raw(&[0xee])
    }

    /// Reads a byte from a memory address below 2 GiB (or, sign-extended, the top 2 GiB) and
    /// writes it to COM1.
    fn echo_memory(self, address: u32) -> Self {
        // mov ebx, address; mov al, [rbx]
        self.raw(&[0xbb])
            .raw(&address.to_le_bytes())
            .raw(&[0x8a, 0x03])
            .port(COM1)
            .raw(&[0xee])
    }

    fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out8(COM1, byte))
    }

    /// Reads a 16-bit port until one of these bits is set.
    fn wait_for(self, port: u16, bits: u16) -> Self {
        // again: in ax, dx; pause; test ax, bits; jz again
        self.port(port)
            .raw(&[0x66, 0xed, 0xf3, 0x90, 0x66, 0xa9])
            .raw(&bits.to_le_bytes())
            .raw(&[0x74, 0xf6])
    }

    fn switch_off(self) -> Self {
        self.out16(PM1_CONTROL, SLEEP_ENABLE).raw(&[0xf4])
    }
}

/// A folder with a kernel in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// Whether guests can run; says why not.
    fn ready() -> bool {
        let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
        if let Err(error) = &kvm {
            println!("skipped: /dev/kvm cannot be opened: {error}");
        }
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: the sandbox needs root");
        }
        kvm.is_ok() && root
    }

    fn new(code: &Code) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(bench.path("kernel"), bz_image(&code.0)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = vmm();
        command
            .args(["run", "--memory", "32M", "--kernel"])
            .arg(self.path("kernel"))
            .arg("--serial")
            .arg(format!("file={}", self.path("serial").display()))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the guest to its end: exit status and what it wrote to COM1.
    fn run(&self, command: &mut Command) -> (i32, Vec<u8>) {
        let output = wait(command.spawn().unwrap());
        let code = output.status.code().unwrap_or(-1);
        let serial = fs::read(self.path("serial")).unwrap_or_default();
        if code == 1 {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        (code, serial)
    }
}

fn vmm() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sekisho-vmm"))
}

fn wait(mut child: Child) -> Output {
    let end = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A bzImage with `code` at its 64-bit entry point.
fn bz_image(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 0x600];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one setup sector
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes()); // 64-bit entry
    put(0x258, &0x10_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image.extend(code);
    image
}

#[test]
fn a_guest_that_shuts_down_ends_with_0() {
    if !Bench::ready() {
        return;
    }
    let bench = Bench::new(&Code::default().print("off").switch_off());
    assert_eq!(bench.run(&mut bench.command()), (0, b"off".to_vec()));
}

#[test]
fn a_guest_that_resets_ends_with_3() {
    if !Bench::ready() {
        return;
    }
    for code in [
        Code::default().out8(0xcf9, 2).out8(0xcf9, 6),
        Code::default().out8(0x64, 0xfe),
    ] {
        let bench = Bench::new(&code.raw(&[0xf4]));
        assert_eq!(bench.run(&mut bench.command()).0, 3);
    }
}

#[test]
fn a_triple_fault_is_told_and_ends_with_4() {
    if !Bench::ready() {
        return;
    }
    // There is no IDT: an undefined instruction is the end.
    let bench = Bench::new(&Code::default().raw(&[0x0f, 0x0b]));
    let output = wait(bench.command().spawn().unwrap());
    assert_eq!(output.status.code(), Some(4));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("triple fault"), "{log}");
}

#[test]
fn what_is_not_there_reads_as_ones() {
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .echo8(0x2f8)
        .echo8(0x60)
        .echo_memory(0xc000_0000)
        .echo_memory(0xb00f_0000)
        .switch_off();
    let bench = Bench::new(&code);
    assert_eq!(bench.run(&mut bench.command()), (0, vec![0xff; 4]));
}

#[test]
fn the_host_bridge_and_the_tables_are_there() {
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .out32(0xcf8, 0x8000_0000)
        .echo8(0xcfc)
        .echo8(0xcfd)
        .echo_memory(0xb000_0002)
        .echo_memory(0xb000_0003)
        .echo_memory(0xe_0000)
        .echo_memory(0xe_0001)
        .echo_memory(0xe_0002)
        .switch_off();
    let bench = Bench::new(&code);
    let (code, serial) = bench.run(&mut bench.command());
    assert_eq!((code, &serial[..]), (0, &b"\x86\x80\xc0\x29RSD"[..]));
}

/// A guest with the supervisor's channel.
struct Watched {
    child: Child,
    supervisor: Channel<Order, Report>,
}

impl Watched {
    fn start(bench: &Bench, more: &[&str]) -> Self {
        let (ours, theirs) = sekisho_control::pair().unwrap();
        let child = inheriting(bench.command().args(more), &theirs, "--control");
        drop(theirs);
        Self {
            child,
            supervisor: Channel::from_fd(ours).unwrap(),
        }
    }

    fn next(&self) -> Report {
        let mut fd = [rustix::event::PollFd::new(
            &self.supervisor,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec::try_from(LIMIT).unwrap();
        assert_ne!(rustix::event::poll(&mut fd, Some(&limit)).unwrap(), 0);
        self.supervisor.recv().unwrap().unwrap().message
    }
}

/// Starts `command` with `option fd:N` for a descriptor that it inherits.
fn inheriting(command: &mut Command, fd: &OwnedFd, option: &str) -> Child {
    // A duplicate without close-on-exec; other tests' children may inherit it too, which is no
    // harm: it closes with them.
    let copy = rustix::io::dup(fd).unwrap();
    rustix::io::fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    let word = format!("fd:{}", copy.as_raw_fd());
    command.args([option, &word]).spawn().unwrap()
}

#[test]
fn the_power_button_reaches_the_guest() {
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .out16(PM1_ENABLE, POWER_BUTTON)
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .print("pressed")
        .switch_off();
    let bench = Bench::new(&code);
    let guest = Watched::start(&bench, &[]);
    assert_eq!(guest.next(), Report::Ready);
    guest.supervisor.send(&Order::PowerButton, &[]).unwrap();
    let cause = "shutdown".to_owned();
    assert_eq!(guest.next(), Report::WorkEnded { cause });
    assert_eq!(wait(guest.child).status.code(), Some(0));
    assert_eq!(fs::read(bench.path("serial")).unwrap(), b"pressed");
}

#[test]
fn a_link_comes_and_goes_and_is_reported() {
    use std::os::fd::AsFd;
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .switch_off();
    let bench = Bench::new(&code);
    let guest = Watched::start(&bench, &["--net", "mac=02:53:4b:00:07:17"]);
    assert_eq!(guest.next(), Report::Ready);
    for _ in 0..2 {
        let (gate, link) = sekisho_framelink::pair().unwrap();
        let attach = Order::Attach { port: Port::Link };
        guest.supervisor.send(&attach, &[link.as_fd()]).unwrap();
        drop(link);
        assert_eq!(guest.next(), Report::Link { up: true });
        drop(gate);
        assert_eq!(guest.next(), Report::Link { up: false });
    }
    guest.supervisor.send(&Order::Shutdown, &[]).unwrap();
    let cause = "shutdown".to_owned();
    assert_eq!(guest.next(), Report::WorkEnded { cause });
    wait(guest.child);
}

/// What the process is left with while the guest runs, seen from outside.
#[test]
fn the_running_vmm_has_no_network_no_files_and_no_rights() {
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .switch_off();
    let bench = Bench::new(&code);
    let guest = Watched::start(&bench, &["--user", "65534"]);
    assert_eq!(guest.next(), Report::Ready);
    let process = PathBuf::from(format!("/proc/{}", guest.child.id()));
    for namespace in ["net", "mnt", "ipc", "uts"] {
        let of = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&process), of(Path::new("/proc/self")), "{namespace}");
    }
    let interfaces = fs::read_to_string(process.join("net/dev")).unwrap();
    let interfaces = interfaces.lines().skip(2).map(str::trim);
    for interface in interfaces {
        assert!(interface.starts_with("lo:"), "{interface}");
    }
    assert_eq!(fs::read_dir(process.join("root")).unwrap().count(), 0);
    let mut threads = 0;
    for thread in fs::read_dir(process.join("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().trim().to_owned()
        };
        assert_eq!(value("CapEff:"), "0000000000000000");
        assert_eq!(value("CapBnd:"), "0000000000000000");
        assert_eq!(value("Seccomp:"), "2", "{}", value("Name:"));
        assert_eq!(value("NoNewPrivs:"), "1");
        assert!(value("Uid:").starts_with("65534"));
        threads += 1;
    }
    // Main, one processor, devices; newer kernels count a worker of KVM's own too.
    assert!(threads >= 3, "{threads} threads");
    guest.supervisor.send(&Order::PowerButton, &[]).unwrap();
    assert_eq!(wait(guest.child).status.code(), Some(0));
}

#[test]
fn a_vmm_whose_supervisor_died_shuts_the_guest_down() {
    if !Bench::ready() {
        return;
    }
    let code = Code::default()
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .switch_off();
    let bench = Bench::new(&code);
    let guest = Watched::start(&bench, &[]);
    assert_eq!(guest.next(), Report::Ready);
    drop(guest.supervisor);
    assert_eq!(wait(guest.child).status.code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let refused = |arguments: &[&str]| {
        let output = wait(
            vmm()
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = refused(&["run", "--kernel", "/nowhere"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("--kernel /nowhere cannot be opened"),
        "{text}"
    );
    let (code, text) = refused(&["run", "--kernel", "k", "--disk", "path=x,ro=on"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("the keys are path, readonly"), "{text}");
    let (code, text) = refused(&["run", "--kernel", "k", "--control", "fd:1"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("standard"), "{text}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"kernel = \"k\"\ncpu = 2\n").unwrap();
    let (code, text) = refused(&["run", "--config", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("line 2") && text.contains("`cpu`"), "{text}");
}
