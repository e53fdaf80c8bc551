//! A process of its own is closed in; it and an onlooker say what is left.
//!
//! The test program runs itself: [`the_child`] is the process, with the case in its environment and
//! one thread, which the usual test harness would not leave it.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use libtest_mimic::{Arguments, Trial};
use rustix::net::{AddressFamily as Family, SocketType as Kind};
use sekisho_sandbox::{
    Access, BARE, Capabilities, Demand, EVENTS, FILES, Filter, Is, Landlock, Limits, MESSAGES,
    Network, Root, Rule, Sandbox, SandboxError, THREADS,
};

const CASE: &str = "SEKISHO_SANDBOX_CASE";
const NOBODY: u32 = 65_534;

/// Exit status of a case that needs Landlock where the kernel has none.
const NO_LANDLOCK: i32 = 77;

fn start(case: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(CASE, case)
        // A backtrace opens files, which is what some cases must die of.
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a case to its end; gives its exit code, or its signal negated.
fn run(case: &str) -> i32 {
    let status = start(case).wait_with_output().unwrap().status;
    status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or(0))
}

fn cannot_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    sekisho_skip::skip_unless(root, "making namespaces needs root")
}

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        return the_child(&case);
    }
    let tests: [(&str, fn()); 7] = [
        ("nothing_is_left", nothing_is_left),
        (
            "uplink_keeps_its_network_and_two_capabilities",
            uplink_keeps_its_network_and_two_capabilities,
        ),
        (
            "a_program_that_is_started_later_is_closed_in_alike",
            a_program_that_is_started_later_is_closed_in_alike,
        ),
        (
            "a_network_namespace_can_be_joined",
            a_network_namespace_can_be_joined,
        ),
        (
            "landlock_lets_through_only_the_named_paths",
            landlock_lets_through_only_the_named_paths,
        ),
        (
            "a_process_with_threads_is_refused",
            a_process_with_threads_is_refused,
        ),
        (
            "a_forbidden_system_call_kills_and_the_allowed_ones_live",
            a_forbidden_system_call_kills_and_the_allowed_ones_live,
        ),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn the_child(case: &str) {
    match case {
        "everything" => everything(),
        "network-kept" => network_kept(),
        "network-joined" => network_joined(),
        "paths" => paths(),
        "programs" => programs(true),
        "no-programs" => programs(false),
        "threads" => threads_first(),
        filter => filtered(filter),
    }
}

/// Tells the onlooker to look, and waits until it has.
fn be_looked_at() {
    println!("\nlook");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

/// Waits until the process says so, looks, lets it go on, and expects it to end well.
fn look(case: &str, look: impl FnOnce(&Path)) {
    let mut child = start(case);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "look"),
        "{case} ended before it was closed in"
    );
    look(Path::new(&format!("/proc/{}", child.id())));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success(), "{case} failed");
}

fn everything() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = Limits::default();
    limits.threads = Some(8);
    let enforced = Sandbox::closed()
        .user(NOBODY, NOBODY)
        .limits(limits)
        .landlock(Demand::BestEffort)
        .enter()
        .unwrap();
    assert_ne!(enforced.root, Root::Kept);
    be_looked_at();

    for path in [
        "/etc/passwd",
        "/proc/self/status",
        "/dev/null",
        "/sys/kernel",
    ] {
        assert!(File::open(path).is_err(), "{path} can be opened");
    }
    assert!(fs::read_dir("/").is_err() || fs::read_dir("/").unwrap().count() == 0);
    assert!(File::create("/x").is_err());
    // Not even loopback is up; and no other network is near.
    let port = listener.local_addr().unwrap().port();
    for address in ["127.0.0.1", "198.51.100.53"] {
        assert!(TcpStream::connect((address, port)).is_err());
        let sent = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", (address, port)));
        assert!(sent.is_err(), "{address}: {sent:?}");
    }
    assert!(rustix::system::sethostname(b"other").is_err());
    assert!(rustix::process::chroot("/").is_err());
    assert!(rustix::thread::set_thread_uid(rustix::thread::Uid::ROOT).is_err());
    // SAFETY: it touches no memory; and it must fail.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(unshared, -1);
    // Descriptors that were open still work, up to the limit.
    assert!(listener.local_addr().is_ok());
    let fill: Vec<_> = (0..200).map_while(|_| listener.try_clone().ok()).collect();
    assert!((20..64).contains(&fill.len()));
}

fn nothing_is_left() {
    if cannot_run() {
        return;
    }
    look("everything", |process| {
        for namespace in ["net", "mnt", "ipc", "uts", "cgroup"] {
            let own = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
            let other = fs::read_link(process.join("ns").join(namespace)).unwrap();
            assert_ne!(own, other);
        }
        let devices = fs::read_to_string(process.join("net/dev")).unwrap();
        let devices: Vec<_> = devices
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim()))
            .collect();
        assert_eq!(devices, ["lo"]);
        // At most the headline.
        let routes = fs::read_to_string(process.join("net/route")).unwrap();
        assert!(routes.lines().count() <= 1, "{routes}");

        let status = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| -> Vec<&str> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}"))
                .split_whitespace()
                .collect()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        let nobody = NOBODY.to_string();
        assert_eq!(field("Uid:"), [&nobody; 4]);
        assert_eq!(field("Gid:"), [&nobody; 4]);
        assert!(field("Groups:").is_empty());
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let limit = |name: &str| {
            let line = limits
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(limit("Max core file size"), "0 0");
        assert_eq!(limit("Max open files"), "64 64");
        assert_eq!(limit("Max processes"), "8 8");
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
    });
}

fn network_kept() {
    Sandbox::closed()
        .network(Network::Keep)
        .keep(Capabilities::NETWORK)
        .user(NOBODY, NOBODY)
        .landlock(Demand::BestEffort)
        .enter()
        .unwrap();
    be_looked_at();
    // CAP_NET_RAW is really there.
    let family = rustix::net::AddressFamily::PACKET;
    rustix::net::socket(family, rustix::net::SocketType::RAW, None).unwrap();
    assert!(rustix::system::sethostname(b"other").is_err());
}

fn uplink_keeps_its_network_and_two_capabilities() {
    if cannot_run() {
        return;
    }
    look("network-kept", |process| {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(fs::read_link(process.join("ns/net")).unwrap(), own);
        let status = fs::read_to_string(process.join("status")).unwrap();
        for line in ["CapPrm:\t0000000000003000", "CapEff:\t0000000000003000"] {
            assert!(status.contains(line), "{status}");
        }
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:\t0000000000000000")),
                "{status}"
            );
        }
    });
}

/// Starts `cat` and looks at what it has; with and without leave to pass capabilities on.
fn programs(pass_on: bool) {
    let ourselves = std::env::current_exe().unwrap();
    let mut sandbox = Sandbox::closed()
        .network(Network::Keep)
        .keep(Capabilities::NETWORK)
        .keep_root()
        .path("/usr", Access::Execute)
        .path("/proc", Access::Read)
        .path("/etc", Access::Read)
        .landlock(Demand::BestEffort);
    if pass_on {
        sandbox = sandbox.for_programs();
    }
    let enforced = sandbox.enter().unwrap();
    if enforced.landlock == Landlock::Absent {
        std::process::exit(NO_LANDLOCK);
    }
    let cat = |file: &str| {
        Command::new("/usr/bin/cat")
            .arg(file)
            .stdin(Stdio::inherit())
            .output()
            .unwrap()
    };
    let status = String::from_utf8(cat("/proc/self/status").stdout).unwrap();
    let kept = if pass_on { "3000" } else { "0000" };
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        let line = format!("{set}:\t000000000000{kept}");
        assert!(status.contains(&line), "{line}: {status}");
    }
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let secret = cat("/var/lib/dpkg/status");
    assert!(secret.stdout.is_empty() && !secret.status.success());
    let elsewhere = Command::new(ourselves).status();
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

fn a_program_that_is_started_later_is_closed_in_alike() {
    if cannot_run() {
        return;
    }
    for case in ["programs", "no-programs"] {
        let code = run(case);
        if sekisho_skip::skip_unless(code != NO_LANDLOCK, "this kernel has no Landlock") {
            return;
        }
        assert_eq!(code, 0, "{case}");
    }
}

fn network_joined() {
    let namespace = File::open(std::env::var("SEKISHO_SANDBOX_NETNS").unwrap()).unwrap();
    Sandbox::closed()
        .network(Network::Join(namespace.into()))
        .landlock(Demand::BestEffort)
        .enter()
        .unwrap();
    be_looked_at();
}

fn a_network_namespace_can_be_joined() {
    if cannot_run() {
        return;
    }
    // The namespace lives as long as this thread, which does nothing else.
    let (path, hold) = {
        let (tell, told) = std::sync::mpsc::channel();
        let (hold, until_dropped) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            // SAFETY: only this thread's network is unshared.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero();
            let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
            tell.send(path).unwrap();
            let _ = until_dropped.recv();
        });
        (told.recv().unwrap(), hold)
    };
    let expected = fs::read_link(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(CASE, "network-joined")
        .env("SEKISHO_SANDBOX_NETNS", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "look"));
    let joined = fs::read_link(format!("/proc/{}/ns/net", child.id())).unwrap();
    assert_eq!(joined, expected);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    drop(hold);
}

fn paths() {
    let dir = std::env::temp_dir().join(format!("sk-sandbox-{}", std::process::id()));
    let state = dir.join("state");
    fs::create_dir_all(&state).unwrap();
    fs::write(dir.join("beside"), "secret").unwrap();
    fs::write(dir.join("read"), "policy").unwrap();
    let enforced = Sandbox::closed()
        .keep_root()
        .path(&state, Access::ReadWrite)
        .path(dir.join("read"), Access::Read)
        .landlock(Demand::BestEffort)
        .enter()
        .unwrap();
    assert_eq!(enforced.root, Root::Kept);
    if enforced.landlock == Landlock::Absent {
        std::process::exit(NO_LANDLOCK);
    }
    fs::write(state.join("clock"), "1").unwrap();
    fs::rename(state.join("clock"), state.join("clock2")).unwrap();
    assert_eq!(fs::read_to_string(state.join("clock2")).unwrap(), "1");
    assert_eq!(fs::read_to_string(dir.join("read")).unwrap(), "policy");
    let denied = |outcome: std::io::Result<()>| {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied);
    };
    denied(fs::write(dir.join("read"), "forged"));
    denied(fs::read(dir.join("beside")).map(drop));
    denied(fs::read("/etc/passwd").map(drop));
    denied(fs::write(dir.join("new"), "x"));
    denied(Command::new("/bin/true").status().map(drop));
    let address = "127.0.0.1:9".parse().unwrap();
    let connected = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1));
    assert!(connected.is_err());
}

fn landlock_lets_through_only_the_named_paths() {
    if cannot_run() {
        return;
    }
    match run("paths") {
        NO_LANDLOCK => sekisho_skip::skip("this kernel has no Landlock"),
        status => assert_eq!(status, 0),
    }
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("sk-sandbox-")
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn threads_first() {
    let (hold, until_dropped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || until_dropped.recv());
    assert!(matches!(
        Sandbox::closed().enter(),
        Err(SandboxError::Threads)
    ));
    drop(hold);
    let _ = thread.join();
}

fn a_process_with_threads_is_refused() {
    assert_eq!(run("threads"), 0);
}

const SIGSYS: i32 = -libc::SIGSYS;

/// What a filtered process does, and how it must end.
const FILTERED: &[(&str, i32)] = &[
    ("base-lives", 0),
    ("messages-live", 0),
    ("files-live", 0),
    ("threads-live", 0),
    ("condition-holds", 0),
    ("any-beats-condition", 0),
    ("open", SIGSYS),
    ("socket", SIGSYS),
    ("condition-breaks", SIGSYS),
    ("execute", SIGSYS),
    ("execute-memory", SIGSYS),
    ("make-executable", SIGSYS),
    ("thread-without-leave", SIGSYS),
    ("fork-with-threads", SIGSYS),
    ("inherited-by-threads", SIGSYS),
    ("x32", SIGSYS),
    ("ptrace", SIGSYS),
    ("messages-without-leave", SIGSYS),
    ("files-without-leave", SIGSYS),
];

const UNIX_SOCKETS: &[Rule] = &[
    Rule::allow(libc::SYS_socket)
        .when(0, Is::Int(libc::AF_UNIX.cast_unsigned()))
        .when(
            1,
            Is::Masked {
                mask: 0xf,
                value: libc::SOCK_STREAM.cast_unsigned(),
            },
        ),
    Rule::allow(libc::SYS_socketpair).when(0, Is::Word(1)),
];

fn filtered(case: &str) {
    let file = File::open("/etc/passwd").unwrap();
    let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let sets: &[&[Rule]] = match case {
        "messages-live" => &[BARE, EVENTS, MESSAGES],
        "files-live" => &[BARE, EVENTS, FILES],
        "threads-live" | "fork-with-threads" | "inherited-by-threads" => &[BARE, EVENTS, THREADS],
        "condition-holds" | "condition-breaks" => &[BARE, EVENTS, UNIX_SOCKETS],
        "any-beats-condition" => &[BARE, EVENTS, UNIX_SOCKETS, &[Rule::allow(libc::SYS_socket)]],
        _ => &[BARE, EVENTS],
    };
    let filter = Filter::new("test", sets).unwrap();
    filter.install().unwrap();
    let socket = |family, kind| rustix::net::socket(family, kind, None).map(drop);
    match case {
        "base-lives" => {
            let mut heap = vec![0_u8; 3 << 20];
            heap.resize(9 << 20, 1);
            println!("{} {:?}", heap.len(), std::time::SystemTime::now());
            std::thread::sleep(std::time::Duration::from_millis(1));
            let mut byte = [0];
            (&file).read_exact(&mut byte).unwrap();
            drop(one.try_clone().unwrap());
            filter.install().unwrap();
            assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
        }
        "messages-live" | "messages-without-leave" => {
            one.send(b"x").unwrap();
            other.recv(&mut [0; 4]).unwrap();
        }
        "files-live" | "files-without-leave" => {
            use std::os::unix::fs::FileExt;
            file.read_at(&mut [0; 4], 2).unwrap();
            assert!(file.metadata().unwrap().len() > 0);
        }
        "threads-live" => {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    std::thread::Builder::new()
                        .name(format!("t{n}"))
                        .spawn(move || n)
                })
                .collect();
            let sum: i32 = threads
                .into_iter()
                .map(|t| t.unwrap().join().unwrap())
                .sum();
            assert_eq!(sum, 6);
        }
        "condition-holds" => socket(Family::UNIX, Kind::STREAM).unwrap(),
        "any-beats-condition" => socket(Family::INET, Kind::DGRAM).unwrap(),
        "condition-breaks" => drop(socket(Family::UNIX, Kind::DGRAM)),
        "open" => drop(File::open("/etc/passwd")),
        "socket" => drop(socket(Family::INET, Kind::STREAM)),
        "execute" => drop(std::os::unix::process::CommandExt::exec(&mut Command::new(
            "/bin/true",
        ))),
        "execute-memory" | "make-executable" => {
            let start = if case == "execute-memory" {
                libc::PROT_EXEC
            } else {
                libc::PROT_READ
            };
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, start, flags, -1, 0) };
            // SAFETY: the page is the one just mapped.
            unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) };
        }
        "thread-without-leave" => drop(std::thread::spawn(|| ()).join()),
        // SAFETY: the process has one thread, and the call is to be its last.
        "fork-with-threads" => drop(unsafe { libc::fork() }),
        "inherited-by-threads" => {
            let _ = std::thread::spawn(|| File::open("/etc/passwd")).join();
        }
        // SAFETY: `getpid` by the number that it has in the x32 table; it touches no memory.
        "x32" => drop(unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }),
        // SAFETY: PTRACE_TRACEME takes no pointers.
        "ptrace" => drop(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        other => panic!("no case {other}"),
    }
}

fn a_forbidden_system_call_kills_and_the_allowed_ones_live() {
    for (case, end) in FILTERED {
        assert_eq!(run(case), *end, "{case}");
    }
}
