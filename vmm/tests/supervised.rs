//! A guest and its supervisor: what is reported, what is ordered, and what the process is left with
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use guest_fixture::code::{Code, PM1_ENABLE, PM1_STATUS, POWER_BUTTON};
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
