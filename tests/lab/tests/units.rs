//! The shipped units under a real systemd: process 1 of namespaces of its own, on the lab's cables.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sekisho_lab::{
    Events, Lab, LabError, Options, Process, UP_LIMIT, address as at,
    dot1x::{Dot1xPapers, SERVER},
    programs,
};
use sekisho_skip::{skip, skip_unless};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// The units as they are shipped.
const UNITS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../netdomain/supervisor/systemd"
);
const SOON: Duration = Duration::from_secs(20);

fn must<T>(result: Result<T, LabError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// A systemd that runs nothing but our units.
struct Host<'l> {
    lab: &'l Lab,
    process: Process,
    events: Events,
}

impl<'l> Host<'l> {
    fn start(lab: &'l Lab) -> Self {
        let dir = lab.dir().join("device");
        std::fs::create_dir_all(&dir).expect("made");
        let dot1x = must(Dot1xPapers::generate(SERVER));
        let policy = dot1x.demand(&lab.papers().policy());
        must(lab.papers().issue_policy(&dir, &policy));
        must(dot1x.issue(&dir));
        let programs = must(programs());
        let at = dir.display();
        std::fs::write(
            dir.join("supervisor.toml"),
            format!(
                "programs = '{}'\npolicy = 'policy.toml'\nsignature = 'policy.toml.sig'\n\
                 trust = 'trust.pem'\ndevice = 'device.toml'\nstate = 'state'\nports = ['{}']\n\
                 dot1x = 'dot1x.toml'\n\
                 [users]\ngate = 64017\nuplink = 64018\n\
                 [work]\nguest_channel = false\ncommand = ['sh', '-c', 'exec sleep 1000 # {{link}}']\n",
                programs.display(),
                at::ETH0
            ),
        )
        .expect("written");
        let pipe = dir.join("events");
        let events = Events::follow(&pipe, &lab.dir().join("logs/events.jsonl")).expect("events");
        // What the test must have otherwise than a laptop: its own paths, no unit of the machine
        // that it runs on, and a short watchdog. Everything that closes in stays.
        let own = [
            (
                "sekisho.service.d/test.conf",
                format!(
                    "[Unit]\nDefaultDependencies=no\nConditionPathExists=\n[Service]\nExecStart=\n\
                     ExecStart={}/sekisho-supervisor --config {at}/supervisor.toml --events {at}/events\n\
                     ReadWritePaths={}\nProtectHome=no\nWatchdogSec=3s\n\
                     StandardOutput=append:{}/logs/unit.log\nStandardError=inherit\n",
                    programs.display(),
                    lab.dir().display(),
                    lab.dir().display()
                ),
            ),
            (
                "sekisho-sleep.service.d/test.conf",
                "[Unit]\nDefaultDependencies=no\n".to_owned(),
            ),
            ("test.target", "[Unit]\nWants=sekisho.service\n".to_owned()),
        ];
        let units = dir.join("units");
        for (name, text) in own {
            let path = units.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        for name in ["sekisho.service", "sekisho-sleep.service"] {
            std::fs::copy(Path::new(UNITS).join(name), units.join(name)).expect("copied");
        }
        let script = format!(
            "set -e; mount --make-rprivate /; mount -t proc proc /proc; mount -t tmpfs tmpfs /run; \
             mount -t cgroup2 none /sys/fs/cgroup; mount -t tmpfs tmpfs /etc/systemd/system; \
             cp -r {}/. /etc/systemd/system; \
             exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin {SYSTEMD} --system \
             --unit=test.target --log-target=console --show-status=no",
            units.display()
        );
        let mut command = must(lab.space("laptop")).command("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "--cgroup",
            "--kill-child=KILL",
            "sh",
            "-c",
            &script,
        ]);
        let process = must(lab.spawn_command("systemd", command));
        Self {
            lab,
            process,
            events,
        }
    }

    fn wait(&self, mark: usize, situation: &str) {
        let found = self.events.wait_after(mark, UP_LIMIT, |event| {
            event.is("gate", "situation") && event.text("situation") == situation
        });
        let log = std::fs::read_to_string(self.lab.dir().join("logs/unit.log"));
        assert!(
            found.is_some(),
            "not {situation}\n{}\n{}",
            log.unwrap_or_default(),
            self.process.lines().join("\n")
        );
    }

    /// Process 1 of the namespaces.
    fn systemd(&self) -> Pid {
        let pid = self.process.id();
        let path = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
        let children = std::fs::read_to_string(path).expect("children");
        let first = children.split_whitespace().next().expect("systemd runs");
        Pid::from_raw(first.parse().expect("a number")).expect("not zero")
    }

    fn systemctl(&self, words: &[&str]) -> String {
        let pid = self.systemd().as_raw_nonzero().to_string();
        let mut command = std::process::Command::new("nsenter");
        command
            .args(["--target", &pid, "--mount", "--pid", "systemctl"])
            .args(words);
        must(must(self.lab.run_command(command, SOON)).ok()).stdout
    }

    /// Waits until a property of the service has this value.
    fn shows(&self, property: &str, value: &str) {
        let began = Instant::now();
        loop {
            let words = ["show", "--value", "-p", property, "sekisho.service"];
            let shown = self.systemctl(&words);
            if shown.trim() == value {
                return;
            }
            assert!(began.elapsed() < SOON, "{property} is {shown}, not {value}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn the_shipped_units_bring_the_tunnel_up_close_it_for_a_sleep_and_notice_a_hang() {
    if skip_unless(
        rustix::process::geteuid().is_root(),
        "network namespaces need root",
    ) || skip_unless(Path::new(SYSTEMD).exists(), "systemd is not installed")
    {
        return;
    }
    if let Err(error) = programs() {
        skip(error);
        return;
    }
    let lab = must(Lab::start(Options {
        captures: false,
        ..Options::default()
    }));
    let host = Host::start(&lab);
    let began = Instant::now();
    host.wait(0, "tunnelled");
    println!("tunnelled {:?} after systemd's start", began.elapsed());
    host.shows("ActiveState", "active");
    // The supplicant runs in there too, and says that it calls in vain.
    let asked = host.events.wait_after(0, SOON, |event| {
        event.is("uplink", "uplink") && event.text("event") == "dot1x-unanswered"
    });
    assert!(asked.is_some(), "{}", host.process.lines().join("\n"));

    let mark = host.events.mark();
    host.systemctl(&["start", "sekisho-sleep.service"]);
    host.wait(mark, "closed");
    let mark = host.events.mark();
    host.systemctl(&["stop", "sekisho-sleep.service"]);
    host.wait(mark, "tunnelled");

    // A supervisor that hangs is killed with all that it started, and started afresh.
    host.shows("NRestarts", "0");
    let inside = host.systemctl(&["show", "--value", "-p", "ControlGroup", "sekisho.service"]);
    assert!(inside.contains("sekisho.service"), "{inside}");
    let supervisor = supervisor_of(host.systemd());
    kill_process(supervisor, Signal::STOP).expect("stopped");
    host.shows("NRestarts", "1");
    host.shows("ActiveState", "active");
}

/// The supervisor, a child of process 1.
fn supervisor_of(systemd: Pid) -> Pid {
    let pid = systemd.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children
        .expect("children")
        .split_whitespace()
        .find(|child| {
            std::fs::read(format!("/proc/{child}/cmdline"))
                .is_ok_and(|line| line.windows(18).any(|part| part == b"sekisho-supervisor"))
        })
        .and_then(|child| Pid::from_raw(child.parse().ok()?))
        .expect("the supervisor runs")
}
