//! A cable that waits is asked by the laptop's second key. What the gateway hears of the first one moves
//! its answers, so asking with that would move the tunnel each time.

use std::{
    thread,
    time::{Duration, Instant},
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, Setup, UP_LIMIT, Wall, address as at};

/// Where the gateway last heard of a key; nothing if never.
fn endpoint(scene: &Scene, key: &str) -> Option<String> {
    let said = scene.run("gateway", &["wg", "show", "wg0", "endpoints"]);
    let of = said.lines().find_map(|line| line.strip_prefix(key))?.trim();
    (of != "(none)").then(|| of.to_owned())
}

/// Asks again and again until it is so.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < UP_LIMIT, "not in time: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_cable_that_waits_is_asked_and_the_tunnel_stays_where_it_is() {
    let Some(scene) = Scene::cafe() else { return };
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    let setup = Setup {
        standby: true,
        ..Setup::default()
    };
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup));
    // The one that was there first is left for the one that is preferred.
    must(laptop.wait_event(0, "the first cable", UP_LIMIT, |event| {
        event.is("gate", "situation") && event.text("port") == at::ETH0
    }));
    must(laptop.wait_page(UP_LIMIT));
    let papers = scene.lab.papers();
    let (live, second) = (&papers.laptop.public, &papers.probe.public);

    let asked = until("the second key is heard", || endpoint(&scene, second));
    let before = until("the first key is heard", || endpoint(&scene, live));
    assert_ne!(asked, before, "asked over the cable in use");
    // Both cables are known to be well, also to the person.
    until("both cables are told", || {
        let said = must(must(laptop.sekisho(&["status", "--lang", "en"])).ok()).stdout;
        let rows = said.lines().filter(|line| line.starts_with("gateway"));
        let well = rows.filter(|line| line.contains("answers"));
        (well.count() == 2).then_some(())
    });
    // Longer than the time between two questions.
    for _ in 0..14 {
        thread::sleep(Duration::from_millis(500));
        assert_eq!(endpoint(&scene, live).as_ref(), Some(&before), "it moved");
    }
    // The control: where the tunnel does move, this sees it.
    must(scene.lab.unplug(at::ETH0));
    must(laptop.wait_page(UP_LIMIT));
    let after = until("it moved", || {
        endpoint(&scene, live).filter(|now| *now != before)
    });
    assert_ne!(after, before);
    must(scene.lab.plug(at::ETH0, Wall::Cafe));
    scene.holds(&laptop, Expects::Tunnelled);
}
