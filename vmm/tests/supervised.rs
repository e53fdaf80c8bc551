//! A guest and its supervisor: what is reported, what is ordered, and what the process is left with
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_fixture::code::{self, Code, PM1_ENABLE, PM1_STATUS, POWER_BUTTON};
use guest_fixture::{Watched, wait};
use sekisho_control::{Command as Order, Port, Report};

#[test]
fn the_power_button_reaches_the_guest() {
    let code = Code::default()
        .out16(PM1_ENABLE, POWER_BUTTON)
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .print("pressed")
        .switch_off();
    let Some(guest) = Watched::start(&code, &[]) else {
        return;
    };
    guest.supervisor.send(&Order::PowerButton, &[]).unwrap();
    guest.assert_shut_down();
    assert_eq!(wait(guest.child).status.code(), Some(0));
    assert_eq!(guest.bench.serial(), b"pressed");
}

#[test]
fn a_link_comes_and_goes_and_is_reported() {
    let Some(guest) = Watched::patient(&["--net", "mac=02:53:4b:00:07:17"]) else {
        return;
    };
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
    guest.assert_shut_down();
    wait(guest.child);
}

/// What the process is left with while the guest runs, seen from outside.
#[test]
fn the_running_vmm_has_no_network_no_files_and_no_rights() {
    let Some(guest) = Watched::patient(&["--user", "65534", "--display", "mode=640x480"]) else {
        return;
    };
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
    // Main, one processor, devices, COM1, the screen's memory; newer kernels count a worker of KVM's own too.
    assert!(threads >= 5, "{threads} threads");
    guest.supervisor.send(&Order::PowerButton, &[]).unwrap();
    assert_eq!(wait(guest.child).status.code(), Some(0));
}

#[test]
fn a_vmm_whose_supervisor_died_shuts_the_guest_down() {
    let Some(guest) = Watched::patient(&[]) else {
        return;
    };
    drop(guest.supervisor);
    assert_eq!(wait(guest.child).status.code(), Some(0));
}

/// Prints without end until somebody presses the power button.
fn chatty() -> Code {
    let code = Code::default()
        .out8(code::COM1, b'x')
        .port(PM1_STATUS)
        // in ax, dx; test ax, POWER_BUTTON; jz to the start
        .raw(&[0x66, 0xed, 0x66, 0xa9])
        .raw(&POWER_BUTTON.to_le_bytes());
    let back = u8::try_from(code.0.len() + 2).unwrap().wrapping_neg();
    code.raw(&[0x74, back]).switch_off()
}

/// Whether the guest writes within so many milliseconds.
fn writes(guest: &Watched, within: u64) -> bool {
    let before = guest.bench.serial().len();
    let deadline = Instant::now() + Duration::from_millis(within);
    while Instant::now() < deadline {
        if guest.bench.serial().len() > before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn a_guest_stands_still_while_the_host_sleeps() {
    let Some(guest) = Watched::start(&chatty(), &[]) else {
        return;
    };
    assert!(writes(&guest, 10_000), "it runs");
    guest.supervisor.send(&Order::Suspend, &[]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while writes(&guest, 200) {
        assert!(Instant::now() < deadline, "it does not stop");
    }
    assert!(!writes(&guest, 500), "it goes on");
    guest.supervisor.send(&Order::Resume, &[]).unwrap();
    assert!(writes(&guest, 10_000), "it runs again");
    // Who stands still is let go to shut down.
    guest.supervisor.send(&Order::Suspend, &[]).unwrap();
    guest.supervisor.send(&Order::Shutdown, &[]).unwrap();
    guest.assert_shut_down();
    assert_eq!(wait(guest.child).status.code(), Some(0));
}

#[test]
fn the_guest_sees_battery_and_lid_and_is_told_when_they_change() {
    const EVENTS: u16 = 0x620;
    const EVENTS_ENABLED: u16 = 0x628;
    const WINDOW: u16 = 0x680;
    const LID: u16 = 1 << 4;
    let host = tempfile::tempdir().unwrap();
    let (battery, lid) = (host.path().join("BAT0"), host.path().join("lid"));
    fs::create_dir(&battery).unwrap();
    let text = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Discharging\n\
        POWER_SUPPLY_ENERGY_FULL=50000000\nPOWER_SUPPLY_ENERGY_NOW=40000000\n";
    fs::write(battery.join("uevent"), text).unwrap();
    fs::write(&lid, "state:      open\n").unwrap();
    // On battery, open; 40,000 mWh are 0x9c40.
    let code = Code::default()
        .out8(EVENTS_ENABLED, 0xff)
        .echo8(WINDOW)
        .echo8(WINDOW + 4)
        .echo8(WINDOW + 0x0c)
        .echo8(WINDOW + 0x0d)
        .wait_for(EVENTS, LID)
        .echo8(WINDOW)
        .switch_off();
    let laptop = format!("supplies={},lid={}", host.path().display(), lid.display());
    let Some(guest) = Watched::start(&code, &["--laptop", &laptop]) else {
        return;
    };
    fs::write(&lid, "state:      closed\n").unwrap();
    guest.assert_shut_down();
    assert_eq!(wait(guest.child).status.code(), Some(0));
    assert_eq!(guest.bench.serial(), [0b110, 1, 0x40, 0x9c, 0b100]);
}
