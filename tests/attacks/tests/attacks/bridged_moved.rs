//! T19, T22, T28, T31 where the guest is a member of the office LAN: what ends the proof ends the wire
//! before the next packet, and neither the guest's packets nor its MAC get onto another cable.

use std::time::{Duration, Instant};

use sekisho_attacks::{
    Expects, Scene, chatter,
    hall::{Hall, NOT_ITS_KEY, lookalike},
    must,
};
use sekisho_lab::{Cafe, NetLaptop, Part, UP_LIMIT, Wall, address as at};

fn no_carrier(laptop: &NetLaptop<'_>, mark: usize) {
    must(laptop.wait_event(mark, "no carrier", UP_LIMIT, |event| {
        event.is("uplink", "uplink") && event.text("event") == "no-carrier"
    }));
}

/// At a stranger's hub, whose rules hold from before the plug is in: one frame with the guest's MAC is
/// a leak, and so is one packet of the guest's.
fn to_the_hub(scene: &Scene, laptop: &NetLaptop<'_>) {
    let mark = laptop.events().mark();
    must(scene.lab.unplug(at::ETH1));
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    let remote = scene.placed(laptop, mark, "remote");
    assert_eq!(remote.text("side"), "outside", "{:?}", remote.said);
}

fn back_to_the_desk(scene: &Scene, laptop: &NetLaptop<'_>) {
    let mark = laptop.events().mark();
    must(scene.lab.unplug(at::ETH1));
    no_carrier(laptop, mark);
    must(scene.lab.plug(at::ETH1, Wall::Office));
    scene.joined(laptop, mark);
}

#[test]
fn t22_bridged_a_hub_sees_neither_a_packet_nor_the_mac_of_the_guest() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let laptop = scene.member_at_the_desk();
    for turn in 0..3 {
        let _chatter = chatter(&laptop, 5);
        to_the_hub(&scene, &laptop);
        if turn == 0 {
            // There the guest has its address of the tunnel again, and works in it.
            scene.addressed(&laptop, at::GUEST);
            must(laptop.wait_page(Duration::from_secs(10)));
        }
        back_to_the_desk(&scene, &laptop);
    }
    must(laptop.wait_page(Duration::from_secs(10)));
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

/// T28 with T22: who would close the way, and take the MAC off, is killed in the moment in which the
/// cable is moved.
#[test]
fn t22_bridged_the_cable_moves_while_gate_or_uplink_dies() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let laptop = scene.member_at_the_desk();
    for part in [Part::Uplink, Part::Gate, Part::Uplink, Part::Gate] {
        let _chatter = chatter(&laptop, 5);
        let mark = laptop.events().mark();
        must(laptop.kill(part));
        must(scene.lab.unplug(at::ETH1));
        must(scene.lab.plug(at::ETH1, Wall::Cafe));
        // The tunnel over the desk's cable may be the way out for a moment before its path is gone too.
        must(
            laptop.wait_event(mark, "a lease at the hub", UP_LIMIT, |event| {
                event.is("uplink", "uplink") && event.text("event") == "leased"
            }),
        );
        scene.placed(&laptop, mark, "remote");
        back_to_the_desk(&scene, &laptop);
    }
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

#[test]
fn t28_bridged_kills_at_the_desk_leave_nothing_open_and_the_wire_comes_back() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let laptop = scene.member_at_the_desk();
    for kill in 0..8 {
        let _chatter = chatter(&laptop, 5);
        let mut random = [0; 1];
        must(getrandom::fill(&mut random));
        std::thread::sleep(Duration::from_millis(u64::from(random[0])));
        let mark = laptop.events().mark();
        let part = if kill % 2 == 0 {
            Part::Gate
        } else {
            Part::Uplink
        };
        must(laptop.kill(part));
        scene.joined(&laptop, mark);
    }
    must(laptop.wait_page(Duration::from_secs(10)));
    scene.holds_on(at::ETH1, &laptop, Expects::Desk);
}

#[test]
fn t31_bridged_asleep_at_the_desk_awake_at_a_hub() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let mut laptop = scene.member_at_the_desk();
    let _chatter = chatter(&laptop, 5);
    let mark = laptop.events().mark();
    must(laptop.supervisor().signal(rustix::process::Signal::USR1));
    must(laptop.wait_closed(mark, Duration::from_secs(5)));
    let shut = || {
        let list = ["nft", "list", "set", "inet", "sekisho", "direct"];
        let link = ["ip", "link", "show", "eth1"];
        !scene.uplink(&laptop, &list).stdout.contains("eth1")
            && !scene.uplink(&laptop, &link).stdout.contains("LOWER_UP")
    };
    let limit = Instant::now() + Duration::from_secs(5);
    while !shut() {
        assert!(Instant::now() < limit, "the way is open while asleep");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The card listens under the guest's MAC for whoever wakes it.
    let link = scene
        .uplink(&laptop, &["ip", "link", "show", "eth1"])
        .stdout;
    assert!(link.contains("02:53:4b:00:07:17"), "{link}");
    must(scene.lab.unplug(at::ETH1));
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    let mark = laptop.events().mark();
    must(laptop.supervisor().signal(rustix::process::Signal::USR2));
    scene.placed(&laptop, mark, "remote");
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

#[test]
fn t19_bridged_a_copy_of_the_office_gets_no_wire_and_no_mac() {
    let Some(scene) = Scene::bridged(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    let _beacon = hall.false_beacon();
    let laptop = scene.member_at_the_desk();
    let _chatter = chatter(&laptop, 5);
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    must(scene.lab.unplug(at::ETH1));
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    hall.answered(&laptop, line, NOT_ITS_KEY);
    scene.placed(&laptop, mark, "remote");
    let direct = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") == "direct"
    });
    assert!(direct.is_none(), "{direct:?}");
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}
