//! A running VMM is asked by its control socket, through the program that people use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest_fixture::code::{self, Code};
use guest_fixture::{Watched, vmm, wait};

/// Of this user the VMM is.
const USER: &str = "65534";

struct Asked {
    guest: Watched,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Asked {
    /// A guest that asks a port for ever whether the power button was pressed.
    fn start() -> Option<Self> {
        let code = Code::default()
            .wait_for(code::PM1_STATUS, code::POWER_BUTTON)
            .switch_off();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/machine");
        let path = socket.to_str().unwrap();
        let guest = Watched::start(&code, &["--socket", path, "--user", USER])?;
        Some(Self {
            guest,
            socket,
            _folder: folder,
        })
    }

    fn ask(&self, wish: &str) -> String {
        let output = vmm()
            .args(["ctl", "--socket", self.socket.to_str().unwrap(), wish])
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{wish}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How often the guest has read a port.
    fn reads(&self) -> u64 {
        let text = self.ask("metrics");
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("sekisho_vmm_exits_total{kind=\"io_in\"} "));
        count.unwrap().parse().unwrap()
    }

    fn assert_runs(&self) {
        let (before, limit) = (self.reads(), Instant::now() + Duration::from_secs(20));
        while self.reads() == before {
            assert!(Instant::now() < limit, "the guest stands still");
        }
    }
}

#[test]
fn a_guest_is_paused_goes_on_and_is_switched_off() {
    let Some(asked) = Asked::start() else { return };
    assert!(asked.ask("state").starts_with("running, started "));
    assert!(
        asked
            .ask("state")
            .ends_with(" s ago, 1 processor, 32 MiB\n")
    );
    asked.assert_runs();

    assert_eq!(asked.ask("pause"), "");
    assert!(asked.ask("state").starts_with("paused (by person), "));
    let before = asked.reads();
    // A time in which a guest that runs reads its port thousands of times.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(asked.reads(), before);

    asked.ask("resume");
    asked.assert_runs();
    asked.ask("power-button");
    asked.guest.assert_shut_down();
    assert_eq!(wait(asked.guest.child).status.code(), Some(0));
    assert!(asked.socket.exists(), "it is the next VMM's to replace");
}

#[test]
fn a_reset_ends_the_vmm_for_its_supervisor_even_from_a_pause() {
    let Some(asked) = Asked::start() else { return };
    asked.ask("pause");
    asked.ask("reset");
    assert_eq!(wait(asked.guest.child).status.code(), Some(3));
}

#[test]
fn the_socket_is_private_and_a_client_that_hangs_holds_nobody_up() {
    let Some(asked) = Asked::start() else { return };
    let found = std::fs::metadata(&asked.socket).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(found.uid().to_string(), USER);
    // Half a call, and one whose replies are never read.
    let mut half = UnixStream::connect(&asked.socket).unwrap();
    half.write_all(b"{\"method\":").unwrap();
    let mut deaf = UnixStream::connect(&asked.socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let call = b"{\"method\":\"jp.sekisho.Machine.GetMetrics\"}\0".repeat(50);
    while deaf.write(&call).is_ok() {}
    asked.assert_runs();
    asked.ask("power-button");
    asked.guest.assert_shut_down();
    assert_eq!(wait(asked.guest.child).status.code(), Some(0));
}
