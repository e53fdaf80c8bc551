//! T30: the disk is full, somebody flushes the packet filter.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, Setup, UP_LIMIT};

/// Waits for a line of the laptop's log from `mark` on: the alarm.
fn alarm(laptop: &NetLaptop<'_>, mark: usize, words: &str) {
    let line = must(
        laptop
            .log()
            .wait_after(mark, words, Duration::from_secs(10), |line| {
                let loud = line.contains("WARN") || line.contains("ERROR");
                (loud && line.contains(words)).then(|| line.to_owned())
            }),
    );
    eprintln!("{line}");
}

/// Makes the gate's folder a file system of one page, and fills it.
fn fill(scene: &Scene, state: &Path) {
    must(std::fs::create_dir_all(state));
    let state = state.to_string_lossy();
    scene.run(
        "laptop",
        &[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=4k,nr_inodes=16",
            "full",
            &state,
        ],
    );
    let fill = format!("head -c 4096 /dev/zero > '{state}/fill'; test -s '{state}/fill'");
    scene.run("laptop", &["sh", "-c", &fill]);
}

#[test]
fn t30_a_full_disk_keeps_the_gate_closed_until_there_is_room() {
    let Some(scene) = Scene::cafe() else { return };
    let state = scene.lab.dir().join("device/state");
    fill(&scene, &state);
    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.wait_event(0, "the gate's end", UP_LIMIT, |event| {
        event.is("supervisor", "died") && event.text("process") == "gate"
    }));
    alarm(&laptop, 0, "No space left on device");
    let up = laptop
        .events()
        .wait_after(0, Duration::from_secs(3), |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
    assert!(up.is_none(), "{up:?}");
    scene.holds(&laptop, Expects::Closed);

    // Room is made, and nobody has to restart anything.
    must(scene.lab.capture());
    let start = Instant::now();
    let room = format!(
        "mount -o remount,size=64k '{0}' && rm '{0}/fill'",
        state.display()
    );
    scene.run("laptop", &["sh", "-c", &room]);
    must(laptop.plug_guest());
    must(laptop.wait_tunnel(0, UP_LIMIT));
    eprintln!("up {:?} after there was room", start.elapsed());
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t30_a_flushed_packet_filter_closes_and_is_loaded_again() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let canary = laptop.canary().hex();
    let ping = [
        "ping",
        "-q",
        "-i",
        "0.005",
        "-s",
        "256",
        "-p",
        &canary,
        "10.12.10.5",
    ];
    let mut ping = must(laptop.guest_spawn("ping", &ping));
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    let flushed = scene.uplink(&laptop, &["nft", "flush", "ruleset"]);
    assert!(flushed.success(), "{flushed}");
    alarm(&laptop, line, "somebody changed the packet filter");
    must(laptop.wait_closed(mark, Duration::from_secs(10)));
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    let rules = scene.uplink(&laptop, &["nft", "list", "ruleset"]);
    assert_eq!(rules.stdout.matches("policy drop").count(), 5, "{rules}");
    assert!(must(ping.wait(Duration::ZERO)).is_none(), "no traffic");
    scene.holds(&laptop, Expects::Tunnelled);
}
