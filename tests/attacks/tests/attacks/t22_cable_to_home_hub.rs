//! T22: a laptop at its office desk, with the premises proven and a download running, is moved by
//! cable to a stranger's hub.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, Setup, UP_LIMIT, Wall, address as at, oracle::count_frames};

#[test]
fn t22_a_pulled_cable_ends_the_proof_before_the_next_frame() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    // One cable only, in the office.
    must(lab.unplug(at::ETH0));
    must(lab.plug(at::ETH1, Wall::Office));
    let laptop = must(NetLaptop::start_up(lab, &Setup::default()));
    let placed = |mark, place: &'static str| {
        must(laptop.wait_event(mark, place, UP_LIMIT, |event| {
            event.is("gate", "situation") && event.text("place") == place
        }))
    };
    placed(0, "onprem");
    must(laptop.page(Duration::from_secs(10)));
    let files = must(laptop.guest(&["busybox", "nc", "-w", "3", "10.12.30.4", "445"]));
    assert!(files.stdout.contains("office only"), "{files}");

    let url = format!(
        "http://10.12.10.5/download?rate=1000000&canary={}",
        laptop.canary().hex()
    );
    let mut download = must(laptop.guest_spawn(
        "download",
        &[
            "curl",
            "-s",
            "-m",
            "60",
            "-r",
            "0-5999999",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}\n",
            &url,
        ],
    ));
    let mark = laptop.events().mark();
    must(lab.unplug(at::ETH1));
    // The frames that the oracle takes from the hub are judged by the cafe's rules from here on: the
    // gateway's LAN side is none of them.
    must(lab.plug(at::ETH1, Wall::Cafe));
    let remote = placed(mark, "remote");
    assert_eq!(remote.text("side"), "outside", "{:?}", remote.said);
    let office_only = must(laptop.guest(&["busybox", "nc", "-w", "2", "10.12.30.4", "445"]));
    assert!(!office_only.stdout.contains("office only"), "{office_only}");
    // The download lives on through the tunnel's other path.
    let ended = must(download.wait(Duration::from_mins(1)));
    assert!(
        ended.is_some_and(|status| status.success()),
        "{:?}",
        download.lines()
    );
    assert_eq!(download.lines(), ["6000000"]);
    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    let on_the_hub = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        frame.len() > 34 && frame[30..34] == at::GATEWAY_OUTSIDE.ip().octets()
    }));
    assert!(on_the_hub > 0, "the capture did not see the hub");
}
