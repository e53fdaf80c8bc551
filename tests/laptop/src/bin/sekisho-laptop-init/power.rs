//! Switching the machine off.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};
use rustix::system::RebootCommand;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::ports::DeviceEvents;
use crate::{Failure, say};

/// How long processes may take to end after they were asked to.
const GRACE: Duration = Duration::from_secs(2);

/// Set once the machine goes down: what ends then is not started again.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// `input_event` of a 64-bit kernel: two words of time, type, code, value.
const INPUT_EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Whether the machine is going down.
pub(crate) fn stopping() -> bool {
    STOPPING.load(Ordering::Acquire)
}

/// Ends the machine on the signals that `poweroff` and `halt` send, and on Ctrl-Alt-Del.
pub(crate) fn on_signals() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGUSR1, SIGUSR2, SIGTERM, SIGINT])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            off("asked by a signal");
        }
    });
    Ok(())
}

/// Ends the machine when somebody presses its power button.
pub(crate) fn on_button() -> Result<(), Failure> {
    let events = DeviceEvents::listen()?;
    thread::spawn(move || {
        let button = loop {
            if let Some(button) = button() {
                break button;
            }
            events.wait(None);
        };
        if let Ok(mut device) = File::open(&button) {
            let mut event = [0_u8; INPUT_EVENT];
            while device.read_exact(&mut event).is_ok() {
                let field = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
                if field(16) == EV_KEY && field(18) == KEY_POWER && field(20) == 1 {
                    off("the power button was pressed");
                }
            }
        }
        say("the power button cannot be read");
    });
    Ok(())
}

/// The input device of the power button, if it is there already.
fn button() -> Option<PathBuf> {
    let entries = fs::read_dir("/sys/class/input").ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let file = entry.file_name().into_string().ok()?;
        let name = fs::read_to_string(entry.path().join("device/name")).ok()?;
        let device = PathBuf::from("/dev/input").join(&file);
        (file.starts_with("event") && name.trim() == "Power Button" && device.exists())
            .then_some(device)
    })
}

/// Ends all processes, writes what is unwritten, switches off.
pub(crate) fn off(why: &str) -> ! {
    say(&format!("switching off: {why}"));
    STOPPING.store(true, Ordering::Release);
    // Group 1 is kill(2)'s -1: every process but this one. There may be none.
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(_) => break,
            Ok(Some(_)) => {}
            Ok(None) => thread::sleep(Duration::from_millis(5)),
        }
    }
    rustix::fs::sync();
    let failed = rustix::system::reboot(RebootCommand::PowerOff);
    say(&format!("the machine does not switch off: {failed:?}"));
    loop {
        thread::park();
    }
}
