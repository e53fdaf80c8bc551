//! T30: the host runs out of descriptors, its disk is full, somebody flushes the packet filter.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sekisho_attacks::{Expects, Scene, chatter, must};
use sekisho_lab::{NetLaptop, Part, Setup, UP_LIMIT, Wall, address as at};

/// What a process is left.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// What it closes it may open again.
    WhatItHas,
    /// Not even that.
    Nothing,
}

/// Takes a process's descriptors away but for what is left; gives back what it was allowed.
fn exhaust(pid: u32, left: Left) -> Rlimit {
    let taken: BTreeSet<u64> = must(std::fs::read_dir(format!("/proc/{pid}/fd")))
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let limits = must(std::fs::read_to_string(format!("/proc/{pid}/limits")));
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    let none = Rlimit {
        current: match left {
            Left::WhatItHas => (0..=taken.len() as u64).find(|number| !taken.contains(number)),
            Left::Nothing => Some(0),
        },
        maximum: hard,
    };
    allow(pid, none)
}

/// Sets what a process may have; gives back what it was allowed before.
fn allow(pid: u32, limit: Rlimit) -> Rlimit {
    let raw = must(i32::try_from(pid));
    must(prlimit(Pid::from_raw(raw), Resource::Nofile, limit))
}

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

#[test]
fn t30_a_gate_without_descriptors_is_closed_and_started_again() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    for left in [Left::Nothing, Left::WhatItHas] {
        let (mark, line) = (laptop.events().mark(), laptop.log().mark());
        let gate = must(laptop.pid(Part::Gate));
        exhaust(gate, left);
        // A new uplink means a new channel and new sockets, for which the gate has no room.
        must(laptop.kill(Part::Uplink));
        must(laptop.wait_closed(mark, Duration::from_secs(10)));
        alarm(&laptop, line, "gate ended");
        must(laptop.wait_event(mark, "a new gate", UP_LIMIT, |event| {
            event.is("supervisor", "started") && event.text("process") == "gate"
        }));
        must(laptop.wait_page(UP_LIMIT));
    }
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t30_an_uplink_without_descriptors_stays_closed_until_there_are_some() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    let uplink = must(laptop.pid(Part::Uplink));
    let usual = exhaust(uplink, Left::Nothing);
    // Another cable means another DHCP client, for which the uplink has no socket.
    must(scene.lab.unplug(at::ETH0));
    must(laptop.wait_closed(mark, Duration::from_secs(10)));
    let mark = laptop.events().mark();
    must(scene.lab.plug(at::ETH0, Wall::Cafe));
    alarm(&laptop, line, "no DHCP on this port");
    let page = laptop.page(Duration::from_secs(2));
    assert!(page.is_err(), "{page:?}");
    let opened = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") == "tunnelled"
    });
    assert!(opened.is_none(), "{opened:?}");

    // There is room again, and nobody touches the cable.
    allow(uplink, usual);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
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
    let mut ping = chatter(&laptop, 5);
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
