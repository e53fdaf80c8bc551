//! T20: a stranger relays the beacon's challenge over a path of his own to the real hall. What he
//! gains: the flows of the office, if he is fast enough and carries the tunnel to the gateway's LAN
//! side as well. What he does not gain: a frame in clear.

use std::time::Duration;

use sekisho_attacks::{
    Expects, Scene,
    hall::{Hall, PROVEN, TOO_FAR, lookalike},
    must,
};
use sekisho_lab::{Event, NetLaptop, address as at, oracle::count_frames};

const FILES: [&str; 6] = ["busybox", "nc", "-w", "2", "10.12.30.4", "445"];

/// In the copied office, with a relay of the beacon.
fn begin<'s>(scene: &'s Scene, hall: &Hall<'s>) -> NetLaptop<'s> {
    hall.tunnel();
    must(scene.lab.unplug(at::ETH0));
    hall.lure_with_proof();
    scene.laptop()
}

fn is_in_the_office(event: &Event) -> bool {
    event.is("gate", "situation") && event.text("place") == "onprem"
}

#[test]
fn t20_a_relay_slower_than_the_bound_proves_nothing() {
    let Some(scene) = Scene::with(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    // The policy's bound is a second, for there and back.
    let slow = hall.relay("slow-relay", "0.6", None);
    let laptop = begin(&scene, &hall);
    hall.answered(&laptop, 0, TOO_FAR);
    must(slow.wait_line("relayed", Duration::from_secs(5)));
    assert!(
        laptop
            .log()
            .lines()
            .iter()
            .all(|line| !line.contains(PROVEN))
    );
    assert!(!must(laptop.guest(&FILES)).stdout.contains("office only"));
    assert!(!laptop.events().all().iter().any(is_in_the_office));
    // The same relay without the delay is taken for the beacon: the bound is what refused it.
    drop(slow);
    let _fast = hall.relay("fast-relay", "0", None);
    let line = laptop.log().mark();
    hall.lure_with_proof();
    hall.answered(&laptop, line, PROVEN);
    must(laptop.wait_page(Duration::from_secs(20)));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

#[test]
fn t20_a_fast_relay_gains_the_flows_of_the_office_and_no_frame_in_clear() {
    let Some(scene) = Scene::with(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    let _relay = hall.relay("relay", "0", None);
    let laptop = begin(&scene, &hall);

    // The beacon alone: the proof is given, but no way to the gateway's LAN side answers, so the
    // tunnel stays where it was and the flows of the office stay shut.
    hall.answered(&laptop, 0, PROVEN);
    must(laptop.page(Duration::from_secs(10)));
    assert!(!must(laptop.guest(&FILES)).stdout.contains("office only"));
    assert!(!laptop.events().all().iter().any(is_in_the_office));

    // The gateway's LAN side as well: now this is the office, as far as anybody can tell.
    let mark = laptop.events().mark();
    hall.relay_gateway();
    scene.placed(&laptop, mark, "onprem");
    assert!(must(laptop.guest(&FILES)).stdout.contains("office only"));
    must(laptop.page(Duration::from_secs(10)));

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    let relayed = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        frame.len() > 42 && frame[23] == 17 && frame[30..34] == at::GATEWAY_LAN.ip().octets()
    }));
    assert!(relayed > 10, "the tunnel did not go by the stranger's path");
}
