//! T22: a laptop at its office desk, with the premises proven and a download running, is moved by
//! cable to a stranger's hub.

use sekisho_attacks::{Download, Expects, Scene, must};
use sekisho_lab::{UP_LIMIT, Wall, address as at, oracle::count_frames};

#[test]
fn t22_a_pulled_cable_ends_the_proof_before_the_next_frame() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    // One cable only, in the office.
    must(lab.unplug(at::ETH0));
    must(lab.plug(at::ETH1, Wall::Office));
    let laptop = scene.laptop();
    let placed = |mark, place: &'static str| {
        must(laptop.wait_event(mark, place, UP_LIMIT, |event| {
            event.is("gate", "situation") && event.text("place") == place
        }))
    };
    placed(0, "onprem");
    let files = must(laptop.guest(&["busybox", "nc", "-w", "3", "10.12.30.4", "445"]));
    assert!(files.stdout.contains("office only"), "{files}");

    let download = Download::start(&laptop, 6_000_000, 1_000_000);
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
    download.lives_on();
    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    let on_the_hub = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        frame.len() > 34 && frame[30..34] == at::GATEWAY_OUTSIDE.ip().octets()
    }));
    assert!(on_the_hub > 0, "the capture did not see the hub");
}
