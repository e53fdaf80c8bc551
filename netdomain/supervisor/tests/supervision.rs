//! The program with understudies for its processes: who is started, joined, restarted, ended.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A supervisor in a network namespace of its own.
struct Stage {
    namespace: String,
    folder: tempfile::TempDir,
    supervisor: Option<Child>,
    lines: Option<Receiver<Value>>,
    /// The last process id of each process.
    pids: BTreeMap<String, i64>,
}

fn cannot_run() -> bool {
    let possible = rustix::process::geteuid().is_root()
        && Command::new("ip")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    sekisho_skip::skip_unless(possible, "the supervisor's stage needs root and iproute2")
}

fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `target/debug/examples/understudy`, which cargo builds before the tests.
fn understudy() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_sekisho-supervisor"));
    program.with_file_name("examples").join("understudy")
}

impl Stage {
    fn new(name: &str, work: &str) -> Self {
        let namespace = format!("sk{}-{name}", std::process::id());
        assert!(ip(&format!("netns add {namespace}")));
        let folder = tempfile::tempdir().unwrap();
        let stage = Self {
            namespace,
            folder,
            supervisor: None,
            lines: None,
            pids: BTreeMap::new(),
        };
        assert!(ip(&format!(
            "-n {} link add card0 type veth peer name far0",
            stage.namespace
        )));
        let programs = stage.folder.path();
        for program in ["sekisho-netdomain", "sekisho-guest-host"] {
            symlink(understudy(), programs.join(program)).unwrap();
        }
        // The supervisor takes the work OS's MAC from it, for the uplink.
        let device = "mac = '02:53:4b:00:07:17'\nmtu = 1420\naddress = '10.250.7.23/16'\n";
        std::fs::write(programs.join("d"), device).unwrap();
        std::fs::write(
            programs.join("supervisor.toml"),
            format!(
                "programs = '.'\npolicy = 'p'\nsignature = 's'\ntrust = 't'\ndevice = 'd'\n\
                 state = 'state'\nports = ['card0']\n[work]\ncommand = ['{}', {work}]\n\
                 [restart]\nhealthy_after_ms = 0\n[status]\nsocket = 'laptop'\n",
                understudy().display()
            ),
        )
        .unwrap();
        stage
    }

    fn start(mut self) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(env!("CARGO_BIN_EXE_sekisho-supervisor"))
            .arg("--config")
            .arg(self.folder.path().join("supervisor.toml"))
            .args(["--events", "/dev/stdout"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    let _ = sender.send(value);
                }
            }
        });
        self.supervisor = Some(child);
        self.lines = Some(lines);
        self
    }

    /// Waits until an event is wanted.
    fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self, &Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .lines
                .as_ref()
                .unwrap()
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("waited in vain until {what}"));
            eprintln!("{event}");
            if event["report"] == "started" {
                let process = event["process"].as_str().unwrap().to_owned();
                self.pids.insert(process, event["pid"].as_i64().unwrap());
            }
            if wanted(self, &event) {
                return event;
            }
        }
    }

    /// Waits until these processes have heard their running peers on these sockets.
    fn until_joined(&mut self, pairs: &[(&str, &str, &str)]) {
        let mut missing = pairs.to_vec();
        self.until("all are joined", |stage, event| {
            missing.retain(|(from, socket, peer)| {
                let heard = stage.pids.get(*peer).map(|pid| format!("{socket} {pid}"));
                !(event["from"] == *from && event["what"].as_str() == heard.as_deref())
            });
            missing.is_empty()
        });
    }

    fn pid(&self, process: &str) -> Pid {
        Pid::from_raw(i32::try_from(self.pids[process]).unwrap()).unwrap()
    }

    fn kill(&self, process: &str, signal: Signal) {
        kill_process(self.pid(process), signal).unwrap();
    }

    /// Somebody who asks for the status.
    fn client(&self) -> UnixStream {
        let socket = UnixStream::connect(self.folder.path().join("laptop")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        self.until("everything has ended", |_, event| {
            event["report"] == "ended"
        });
        self.supervisor.take().unwrap().wait().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = &mut self.supervisor {
            let _ = child.kill();
            let _ = child.wait();
        }
        ip(&format!("netns del {}", self.namespace));
    }
}

const WORK: &str = "'work', '--link', '{link}', '--control', '{control}'";

const ALL_JOINED: [(&str, &str, &str); 4] = [
    ("vmm", "link", "gate"),
    ("gate", "link", "vmm"),
    ("gate", "uplink", "uplink"),
    ("uplink", "gate", "gate"),
];

#[test]
fn what_is_killed_comes_back_and_is_joined_afresh() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("kill", WORK).start();
    stage.until_joined(&ALL_JOINED);
    for victim in ["gate", "uplink", "vmm", "gate", "gate", "uplink"] {
        let before = stage.pids.clone();
        stage.kill(victim, Signal::KILL);
        let touched: Vec<_> = ALL_JOINED
            .into_iter()
            .filter(|(from, _, peer)| *from == victim || *peer == victim)
            .collect();
        stage.until("the victim is started again", |_, event| {
            event["report"] == "started" && event["process"] == victim
        });
        stage.until_joined(&touched);
        for (process, pid) in &stage.pids {
            assert_eq!(*pid == before[process], process != victim, "{process}");
        }
    }
}

#[test]
fn a_card_goes_to_the_uplink_after_its_rules_and_stays_when_it_dies() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("card", WORK).start();
    let mut ready = false;
    stage.until("the card is moved", |_, event| {
        ready |= event["from"] == "uplink" && event["report"] == "ready";
        if event["report"] == "moved" {
            assert!(ready, "the uplink loads its rules first");
        }
        event["report"] == "moved"
    });
    let here = format!("-n {} link show card0", stage.namespace);
    assert!(!ip(&here));
    stage.kill("uplink", Signal::KILL);
    stage.until("the uplink is back", |_, event| {
        event["from"] == "uplink" && event["report"] == "ready"
    });
    assert!(!ip(&here), "the card does not come back to the host");
}

#[test]
fn the_shutdown_of_the_work_os_ends_all() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("end", WORK).start();
    stage.until_joined(&ALL_JOINED);
    stage.kill("vmm", Signal::USR1);
    assert!(stage.ended().success());
    for process in ["gate", "uplink", "vmm"] {
        let gone = rustix::process::test_kill_process(stage.pid(process)).is_err();
        assert!(gone, "{process} lives on");
    }
}

#[test]
fn a_signal_ends_all_in_order() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("term", WORK).start();
    stage.until_joined(&ALL_JOINED);
    let supervisor = stage.supervisor.as_ref().unwrap().id();
    let supervisor = Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap();
    kill_process(supervisor, Signal::TERM).unwrap();
    let mut ends = Vec::new();
    stage.until("everything has ended", |_, event| {
        if event["report"] == "died" {
            ends.push(event["process"].as_str().unwrap().to_owned());
        }
        ends.len() == 3
    });
    assert_eq!(ends[0], "vmm", "the work OS ends while its network lives");
    assert!(stage.ended().success());
}

/// Why a process ends is said after its channel is closed; who only closes the channel is killed.
#[test]
fn who_closes_its_channel_has_a_moment_for_its_last_words() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("words", WORK).start();
    stage.until_joined(&ALL_JOINED);
    for (signal, end) in [
        (Signal::ALARM, "exit status: 42"),
        (Signal::HUP, "signal: 9"),
    ] {
        stage.kill("gate", signal);
        let died = stage.until("the gate's end", |_, event| {
            event["report"] == "died" && event["process"] == "gate"
        });
        let status = died["status"].as_str().unwrap();
        assert!(status.starts_with(end), "{status}");
        stage.until("the gate is back", |_, event| {
            event["from"] == "gate" && event["report"] == "ready"
        });
    }
}

/// The supervisor's own end takes everything along, also when nobody asks.
#[test]
fn nothing_outlives_a_killed_supervisor() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("orphan", WORK).start();
    stage.until_joined(&ALL_JOINED);
    let mut supervisor = stage.supervisor.take().unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let deadline = Instant::now() + SOON;
    for process in ["gate", "uplink", "vmm"] {
        while rustix::process::test_kill_process(stage.pid(process)).is_ok() {
            assert!(Instant::now() < deadline, "{process} lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Work that cannot be given sockets is started anew, and finds the new gate.
#[test]
fn work_without_a_channel_is_started_anew() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("joint", "'work', '--link', '{link}'").start();
    stage.until_joined(&[("gate", "link", "vmm")]);
    stage.kill("gate", Signal::KILL);
    let gate = stage.until("a new gate", |_, event| {
        event["report"] == "started" && event["process"] == "gate"
    });
    let work = stage.until("new work", |_, event| {
        event["report"] == "started" && event["process"] == "vmm"
    });
    assert!(gate["at_ms"].as_u64() <= work["at_ms"].as_u64());
    stage.until_joined(&[("gate", "link", "vmm")]);
}

/// The next message on a status connection.
fn message(client: &mut BufReader<UnixStream>) -> Value {
    let mut text = Vec::new();
    client.read_until(0, &mut text).unwrap();
    text.pop();
    serde_json::from_slice(&text).unwrap()
}

/// Clients that flood, stall and talk nonsense hold up nothing: what is killed meanwhile is back as
/// soon as without them, and whoever asks in earnest is answered with that.
#[test]
fn the_status_is_told_and_supervision_goes_on_whoever_asks() {
    if cannot_run() {
        return;
    }
    let mut stage = Stage::new("ask", WORK).start();
    stage.until_joined(&ALL_JOINED);
    // All that one user may have, and a storm of those that are turned away.
    let bad: Vec<UnixStream> = (0..3).map(|_| stage.client()).collect();
    let path = stage.folder.path().join("laptop");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let storm = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let call = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\",\"more\":true}\0";
            for client in &bad {
                client.set_nonblocking(true).unwrap();
            }
            let mut turned_away = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for mut client in &bad {
                    let _ = client.write(call);
                }
                if let Ok(mut client) = UnixStream::connect(&path) {
                    let _ = client.write(b"GET / HTTP/1.1\r\n\r\n\0");
                    turned_away += 1;
                }
            }
            turned_away
        }
    });
    for victim in ["gate", "uplink", "gate"] {
        let killed = Instant::now();
        stage.kill(victim, Signal::KILL);
        stage.until("the victim is started again", |_, event| {
            event["report"] == "started" && event["process"] == victim
        });
        assert!(
            killed.elapsed() < Duration::from_secs(1),
            "{:?}",
            killed.elapsed()
        );
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(storm.join().unwrap() > 0);
    // What is left of the storm in the kernel's queue goes first.
    let deadline = Instant::now() + SOON;
    let status = loop {
        assert!(Instant::now() < deadline, "nobody answers");
        let mut client = stage.client();
        let call = b"{\"method\":\"jp.sekisho.Laptop.GetStatus\"}\0";
        let mut text = Vec::new();
        if client.write_all(call).is_ok()
            && BufReader::new(&client).read_until(0, &mut text).is_ok()
            && text.pop() == Some(0)
        {
            break serde_json::from_slice::<Value>(&text).unwrap();
        }
    };
    let processes = status["parameters"]["status"]["processes"]
        .as_array()
        .unwrap();
    let restarts = |name: &str| {
        let process = processes.iter().find(|process| process["name"] == name);
        process.unwrap()["restarts"].as_u64()
    };
    assert_eq!(restarts("gate"), Some(2));
    assert_eq!(restarts("uplink"), Some(1));
    assert_eq!(restarts("vmm"), Some(0));
}

/// Whoever watches sees the situation change, and the person in the work OS is told of the office.
#[test]
fn a_change_that_lasts_is_told_to_the_person() {
    if cannot_run() {
        return;
    }
    let work = format!("{WORK}, '--guest', '{{guest}}'");
    let mut stage = Stage::new("tell", &work).start();
    stage.until_joined(&[("gate", "uplink", "uplink"), ("guest", "guest", "vmm")]);
    let mut client = stage.client();
    client
        .write_all(b"{\"method\":\"jp.sekisho.Laptop.GetStatus\",\"more\":true}\0")
        .unwrap();
    let mut client = BufReader::new(client);
    let situation = |message: &Value| message["parameters"]["status"]["situation"].clone();
    assert_eq!(situation(&message(&mut client))["state"], "unknown");
    for place in ["remote", "onprem"] {
        stage.kill("gate", Signal::USR2);
        let deadline = Instant::now() + SOON;
        while situation(&message(&mut client))["place"] != place {
            assert!(Instant::now() < deadline, "{place} is not told");
        }
    }
    let told = stage.until("the person is told", |_, event| {
        event["from"] == "guest"
            && event["what"]
                .as_str()
                .is_some_and(|what| what.starts_with("notice"))
    });
    assert!(
        told["what"].as_str().unwrap().contains("In the office"),
        "{told}"
    );
}
