//! T21: a stranger recorded what the beacon said to the laptop yesterday, and says it again.

use std::time::Duration;

use sekisho_attacks::{
    Expects, Scene,
    hall::{Hall, NOT_ITS_KEY, NOT_OUR_QUESTION, PROVEN, lookalike},
    must,
};
use sekisho_lab::address as at;

#[test]
fn t21_yesterdays_answer_proves_nothing_today() {
    let Some(scene) = Scene::with(lookalike()) else {
        return;
    };
    let lab = &scene.lab;
    let hall = Hall::copy(&scene);
    hall.tunnel();
    let tape = lab.dir().join("tape");
    let tape = tape.to_string_lossy();
    // Yesterday: the true beacon, heard by a relay. It is believed, so what is on the tape was right.
    let relay = hall.relay("relay", "0", Some(&tape));
    must(lab.unplug(at::ETH0));
    hall.lure_with_proof();
    let laptop = scene.laptop();
    hall.answered(&laptop, 0, PROVEN);
    drop(relay);
    assert!(must(std::fs::metadata(&*tape)).len() > 500, "an empty tape");

    // Byte by byte: TLS 1.3 has both sides' randomness under its signature.
    let (address, port) = (at::BEACON.ip().to_string(), at::BEACON.port().to_string());
    let player = scene.stage("cafe", "replay", "replay.py", &[&address, &port, &tape]);
    let refused = |how: &str| {
        let (line, mark) = (laptop.log().mark(), laptop.events().mark());
        hall.lure();
        hall.answered(&laptop, line, how);
        let remote = scene.placed(&laptop, mark, "remote");
        assert_eq!(remote.text("side"), "outside", "{:?}", remote.said);
        let lines = laptop.log().lines();
        assert!(!lines[line..].iter().any(|line| line.contains(PROVEN)));
    };
    refused(NOT_ITS_KEY);
    must(player.wait_line("replayed", Duration::from_secs(5)));
    drop(player);

    // As if the key were no secret: yesterday's nonce under a fresh signature.
    let nonce = "5e".repeat(32);
    let beacon = hall.beacon("old-answer", "beacon", Some(&nonce));
    refused(NOT_OUR_QUESTION);
    let asked = |lines: &[String]| {
        lines
            .iter()
            .filter(|line| line.starts_with("asked"))
            .count()
    };
    assert!(asked(&beacon.lines()) > 0);
    drop(beacon);

    // The same server with the nonce that it was asked for is believed.
    let _beacon = hall.beacon("fresh-answer", "beacon", None);
    let line = laptop.log().mark();
    hall.lure_with_proof();
    hall.answered(&laptop, line, PROVEN);
    must(laptop.wait_page(Duration::from_secs(20)));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}
