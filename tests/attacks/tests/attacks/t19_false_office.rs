//! T19: a stranger copies the office LAN: subnet, gateway's address and MAC, DHCP server, search
//! domain, and a TLS server on the beacon's address that answers any nonce, with another key.

use std::time::Duration;

use sekisho_attacks::{
    Expects, Scene,
    hall::{Hall, NOT_ITS_KEY, lookalike},
    must,
};
use sekisho_lab::{Wall, address as at};

#[test]
fn t19_a_copy_of_the_office_is_no_office() {
    let Some(scene) = Scene::with(lookalike()) else {
        return;
    };
    let lab = &scene.lab;
    let hall = Hall::copy(&scene);
    let beacon = hall.false_beacon();

    // In the true office first: this laptop knows one when it stands in it.
    must(lab.unplug(at::ETH0));
    must(lab.plug(at::ETH1, Wall::Office));
    let laptop = scene.laptop();
    scene.placed(&laptop, 0, "onprem");
    let files = ["busybox", "nc", "-w", "2", "10.12.30.4", "445"];
    assert!(must(laptop.guest(&files)).stdout.contains("office only"));

    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    hall.lure();
    let remote = scene.placed(&laptop, mark, "remote");
    assert_eq!(remote.text("side"), "outside", "{:?}", remote.said);
    hall.answered(&laptop, line, NOT_ITS_KEY);
    must(beacon.wait_line("connection", Duration::from_secs(5)));
    assert!(
        !beacon.lines().iter().any(|line| line.starts_with("asked")),
        "the false beacon was told the nonce"
    );
    let mark = laptop.events().mark();
    let seen = must(laptop.guest(&files));
    assert!(!seen.stdout.contains("office only"), "{seen}");
    let limit = Duration::from_secs(10);
    must(laptop.wait_event(mark, "the refusal", limit, |event| {
        event.is("gate", "refused") && event.text("packet") == "tcp 10.12.30.4:445"
    }));
    must(laptop.page(Duration::from_secs(10)));
    let office = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("place") == "onprem"
    });
    assert!(office.is_none(), "{office:?}");
    // One frame to the gateway's LAN side would turn the oracle red.
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}
