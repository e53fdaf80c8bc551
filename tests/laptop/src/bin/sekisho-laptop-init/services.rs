//! The programs that run as long as the machine does.

use std::collections::HashMap;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

use sekisho_laptop::config::AtBoot;

use crate::{Failure, power, say};

/// The kernel gives init almost no environment; all that run here have this one.
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("TERM", "xterm-256color"),
    ("LANG", "C.UTF-8"),
];

/// A program with the environment of the machine.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT);
    command
}

/// Pause before something that ended is started again, so that a program that cannot run does
/// not take the whole processor.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// The services of one machine. PID 1 also reaps what they leave behind.
#[derive(Default)]
pub(crate) struct Services {
    running: HashMap<Pid, Vec<String>>,
    /// What the machine is for: its end is the machine's.
    work: Option<Pid>,
    named: Arc<Mutex<HashMap<String, Pid>>>,
}

/// Sends a signal to a service by its program's name.
#[derive(Clone)]
pub(crate) struct Signaller(Arc<Mutex<HashMap<String, Pid>>>);

impl Signaller {
    /// Sends it, if the service runs.
    pub(crate) fn send(&self, name: &str, signal: Signal) {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = named.get(name) {
            // It may be ending right now.
            let _ = rustix::process::kill_process(*pid, signal);
        }
    }
}

impl Services {
    /// Starts a service; the first word is the program.
    pub(crate) fn start(&mut self, argv: Vec<String>) -> Result<(), Failure> {
        let (program, arguments) = argv.split_first().ok_or("a service without a program")?;
        let child = command(program)
            .args(arguments)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let pid = Pid::from_child(&child);
        self.named
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(program.clone(), pid);
        self.running.insert(pid, argv);
        Ok(())
    }

    /// Starts what the machine is for.
    pub(crate) fn start_work(&mut self, work: &AtBoot) -> Result<(), Failure> {
        let (program, arguments) = work.argv.split_first().ok_or("nothing to start at boot")?;
        let log = File::create(&work.log)?;
        let child = command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        self.work = Some(Pid::from_child(&child));
        Ok(())
    }

    /// Whom signals can be sent through.
    pub(crate) fn signaller(&self) -> Signaller {
        Signaller(Arc::clone(&self.named))
    }

    /// Waits for whatever ends, for ever, and starts services again.
    pub(crate) fn supervise(mut self) -> Result<(), Failure> {
        loop {
            let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::empty()) else {
                // Nothing runs: the power thread may be about to switch off.
                thread::sleep(RESTART_PAUSE);
                continue;
            };
            if self.work == Some(pid) && !power::stopping() {
                power::off(&format!("what was started at boot ended ({status:?})"));
            }
            let Some(argv) = self.running.remove(&pid) else {
                continue;
            };
            if power::stopping() {
                continue;
            }
            say(&format!(
                "{} ended ({status:?}) and is started again",
                argv[0]
            ));
            thread::sleep(RESTART_PAUSE);
            self.start(argv)?;
        }
    }
}
