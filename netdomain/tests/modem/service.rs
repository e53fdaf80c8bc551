//! A message bus of its own, with python-dbusmock's ModemManager on it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by two test programs, neither of which needs all of it; they fail by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the mock is.
const TEMPLATE: &str = include_str!("modem_manager.py");
/// Python starts in a second, on a machine that is busy in some.
const SOON: Duration = Duration::from_secs(20);

const NAME: &str = "org.freedesktop.ModemManager1";
pub(crate) const MODEM: &str = "/org/freedesktop/ModemManager1/Modem/0";
pub(crate) const BEARER: &str = "/org/freedesktop/ModemManager1/Bearer/0";
/// Their interfaces.
pub(crate) const GENERAL: &str = "org.freedesktop.ModemManager1.Modem";
pub(crate) const NETWORK: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp";
pub(crate) const CONNECTION: &str = "org.freedesktop.ModemManager1.Bearer";

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=@SOCKET@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// Whether the programs are there.
pub(crate) fn is_there() -> bool {
    let runs = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    runs(&["dbus-daemon", "--version"])
        && runs(&["gdbus", "help"])
        && runs(&["/usr/bin/python3", "-c", "import dbusmock"])
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The bus, and who is on it.
pub(crate) struct Service {
    folder: PathBuf,
    bus: Child,
    mock: Option<Child>,
}

impl Service {
    /// Starts both.
    pub(crate) fn start(folder: &Path) -> Self {
        let folder = folder.to_owned();
        let socket = folder.join("bus");
        let config = CONFIG.replace("@SOCKET@", socket.to_str().unwrap());
        fs::write(folder.join("bus.conf"), config).unwrap();
        let bus = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg(format!("--config-file={}/bus.conf", folder.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the bus listens", || socket.exists());
        let mut service = Self {
            folder,
            bus,
            mock: None,
        };
        service.start_mock();
        service
    }

    /// The bus's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("bus")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// `ModemManager` starts.
    pub(crate) fn start_mock(&mut self) {
        let template = self.folder.join("modem_manager.py");
        fs::write(&template, TEMPLATE).unwrap();
        let mock = Command::new("/usr/bin/python3")
            .args(["-m", "dbusmock", "--session", "-t"])
            .arg(template)
            .arg("-l")
            .arg(self.folder.join("calls"))
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.mock = Some(mock);
        until("ModemManager answers", || {
            self.gdbus(MODEM, "org.freedesktop.DBus.Peer.Ping", &[])
        });
    }

    /// `ModemManager` crashes.
    pub(crate) fn kill_mock(&mut self) {
        if let Some(mut mock) = self.mock.take() {
            mock.kill().unwrap();
            mock.wait().unwrap();
        }
    }

    /// Changes properties: a dictionary in GVariant's text form.
    pub(crate) fn become_(&self, object: &str, interface: &str, properties: &str) {
        let method = "jp.sekisho.Test.Become";
        assert!(self.gdbus(object, method, &[interface, properties]));
    }

    /// Any method with any arguments.
    pub(crate) fn gdbus(&self, object: &str, method: &str, arguments: &[&str]) -> bool {
        Command::new("gdbus")
            .args(["call", "--address", &self.address(), "--dest", NAME])
            .args(["--object-path", object, "--method", method])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// Calls that were made of this method, with their arguments.
    pub(crate) fn calls(&self, method: &str) -> Vec<String> {
        fs::read_to_string(self.folder.join("calls"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(_, call)| call.strip_prefix(method))
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))
            .map(|rest| rest.trim().to_owned())
            .collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill_mock();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
