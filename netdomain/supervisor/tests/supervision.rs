//! The program with understudies for its processes: who is started, joined, restarted, ended.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
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
        symlink(understudy(), programs.join("sekisho-netdomain")).unwrap();
        std::fs::write(
            programs.join("supervisor.toml"),
            format!(
                "programs = '.'\npolicy = 'p'\nsignature = 's'\ntrust = 't'\ndevice = 'd'\n\
                 state = 'state'\nports = ['card0']\n[work]\ncommand = ['{}', {work}]\n\
                 [restart]\nhealthy_after_ms = 0\n",
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
        (Signal::USR2, "exit status: 42"),
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
