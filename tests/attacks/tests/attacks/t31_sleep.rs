//! T31: the laptop is put to sleep in the office and wakes up elsewhere; and it is put to sleep in
//! the middle of a handshake, again and again.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, Setup, UP_LIMIT, Wall, address as at};

/// Tells the supervisor what the host's sleep hook would, and waits until it has heard it.
fn tell(laptop: &NetLaptop<'_>, signal: Signal, heard: &str) {
    let mark = laptop.log().mark();
    must(laptop.log().signal(signal));
    must(
        laptop
            .log()
            .wait_after(mark, heard, Duration::from_secs(5), |line| {
                line.contains(heard).then_some(())
            }),
    );
}

fn wake(laptop: &NetLaptop<'_>) {
    tell(laptop, Signal::USR2, "the laptop woke up");
}

/// Puts it to sleep: the gate says so, and the cable is dark.
fn sleep(scene: &Scene, laptop: &NetLaptop<'_>, cable: &str) {
    tell(laptop, Signal::USR1, "the laptop is about to sleep");
    let start = Instant::now();
    loop {
        let events = laptop.events().all();
        let last = events.iter().rfind(|event| event.is("gate", "situation"));
        let suspended = last.is_some_and(|event| event.text("reason") == "suspended");
        let link = scene.uplink(laptop, &["ip", "-o", "link", "show", "dev", cable]);
        if suspended && link.success() && !link.stdout.contains("LOWER_UP") {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "not asleep: {last:?} {link}"
        );
    }
}

/// When the gateway last completed a handshake with the laptop. It is complete with the first packet
/// under its keys (whitepaper, section 5.1): one that a page has not yet followed may not count.
fn last_handshake(scene: &Scene) -> u64 {
    let shown = scene.run("gateway", &["wg", "show", "wg0", "latest-handshakes"]);
    // The laptop's two keys, in no order; the one for questions has a handshake of its own or none.
    let times = shown
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    times
        .map(|time| must(time.parse()))
        .max()
        .unwrap_or_default()
}

#[test]
fn t31_asleep_in_the_office_awake_in_a_hotel() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    must(lab.unplug(at::ETH0));
    must(lab.plug(at::ETH1, Wall::Office));
    let laptop = scene.laptop();
    scene.placed(&laptop, 0, "onprem");
    must(laptop.wait_page(UP_LIMIT));
    let before = last_handshake(&scene);

    let line = laptop.log().mark();
    sleep(&scene, &laptop, at::ETH1);
    let page = laptop.page(Duration::from_secs(2));
    assert!(page.is_err(), "{page:?}");
    must(lab.unplug(at::ETH1));
    must(lab.plug(at::ETH1, Wall::Cafe));

    let mark = laptop.events().mark();
    wake(&laptop);
    let first = must(laptop.wait_tunnel(mark, UP_LIMIT));
    assert_eq!(first.text("place"), "remote", "{:?}", first.said);
    assert_eq!(first.text("side"), "outside", "{:?}", first.said);
    must(laptop.wait_page(UP_LIMIT));
    assert!(
        last_handshake(&scene) > before,
        "the session outlived the sleep"
    );
    let files = must(laptop.guest(&["busybox", "nc", "-w", "2", "10.12.30.4", "445"]));
    assert!(!files.stdout.contains("office only"), "{files}");
    let office = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("place") == "onprem"
    });
    assert!(office.is_none(), "{office:?}");
    let lines = laptop.log().lines();
    assert!(
        !lines[line..]
            .iter()
            .any(|line| line.contains("proven=true")),
        "a proof outlived the sleep"
    );
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);

    // Asleep there and awake in the office again, which is proven afresh.
    must(lab.capture());
    sleep(&scene, &laptop, at::ETH1);
    must(lab.unplug(at::ETH1));
    must(lab.plug(at::ETH1, Wall::Office));
    let mark = laptop.events().mark();
    wake(&laptop);
    scene.placed(&laptop, mark, "onprem");
    must(laptop.wait_page(UP_LIMIT));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

#[test]
fn t31_asleep_in_the_middle_of_a_handshake() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.plug_guest());
    for _ in 0..10 {
        let mark = laptop.events().mark();
        wake(&laptop);
        // Anywhere from the lease to the first page.
        let mut random = [0];
        must(getrandom::fill(&mut random));
        let limit = Duration::from_millis(1 + u64::from(random[0]) * 4);
        let _ = laptop.events().wait_after(mark, limit, |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
        sleep(&scene, &laptop, at::ETH0);
        let mark = laptop.events().mark();
        let opened = laptop
            .events()
            .wait_after(mark, Duration::from_millis(300), |event| {
                event.is("gate", "situation") && event.text("situation") == "tunnelled"
            });
        assert!(opened.is_none(), "open while asleep: {opened:?}");
    }
    let mark = laptop.events().mark();
    wake(&laptop);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
}
