//! T19, T20, T22, T31 where the guest's packets go onto the office LAN itself: what ends the proof ends
//! the wire before the next packet, and no copy of the office gets one.

use std::time::{Duration, Instant};

use sekisho_attacks::{
    Download, Expects, Found, Scene, chatter,
    hall::{Hall, NOT_ITS_KEY, PROVEN, TOO_FAR, lookalike},
    must,
};
use sekisho_lab::{
    Cafe, NetLaptop, Part, UP_LIMIT, Wall, address as at,
    oracle::{Canaries, Rules, count_frames, judge},
};

/// Frames from the guest's own address on the cable `eth1`.
fn own_frames(recordings: &sekisho_lab::Recordings) -> u64 {
    let recording = must(recordings.get("eth1.from"));
    must(count_frames(recording, |frame| {
        frame.len() > 34 && frame[26..30] == at::GUEST.octets()
    }))
}

fn never_direct(laptop: &NetLaptop<'_>, mark: usize) {
    let direct = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") == "direct"
    });
    assert!(direct.is_none(), "{direct:?}");
}

/// Without haste: what the tunnel seals meanwhile is none of this test's.
fn back_to_the_desk(scene: &Scene, laptop: &NetLaptop<'_>) {
    let mark = laptop.events().mark();
    must(scene.lab.unplug(at::ETH1));
    scene.route_guest(Found::Office);
    must(laptop.wait_event(mark, "no carrier", UP_LIMIT, |event| {
        event.is("uplink", "uplink") && event.text("event") == "no-carrier"
    }));
    must(scene.lab.plug(at::ETH1, Wall::Office));
    must(laptop.wait_direct(mark, UP_LIMIT));
}

#[test]
fn t22_direct_a_cable_moved_to_a_hub_is_blocked_before_the_first_frame() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let laptop = scene.at_the_desk();
    let _chatter = chatter(&laptop, 2);
    let download = Download::start(&laptop, 6_000_000, 1_000_000);
    for turn in 0..5 {
        let mark = laptop.events().mark();
        // The hub's rules hold from before the plug is in: one packet of the guest's is a leak.
        must(scene.lab.unplug(at::ETH1));
        scene.route_guest(Found::Tunnel);
        must(scene.lab.plug(at::ETH1, Wall::Cafe));
        let remote = scene.placed(&laptop, mark, "remote");
        assert_eq!(remote.text("side"), "outside", "{:?}", remote.said);
        if turn == 0 {
            // What the guest had open on the LAN lives on in the tunnel.
            must(laptop.wait_page(Duration::from_secs(10)));
        }
        back_to_the_desk(&scene, &laptop);
    }
    download.lives_on();
    must(laptop.wait_page(Duration::from_secs(10)));
    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Both);
    assert!(own_frames(&recordings) > 100, "no traffic at the desk");
}

/// T28 with T22: who would close the way is killed in the moment in which the cable is moved.
#[test]
fn t22_direct_the_cable_moves_while_gate_or_uplink_dies() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let laptop = scene.at_the_desk();
    let _chatter = chatter(&laptop, 2);
    for part in [Part::Uplink, Part::Gate, Part::Uplink, Part::Gate] {
        let mark = laptop.events().mark();
        must(laptop.kill(part));
        must(scene.lab.unplug(at::ETH1));
        scene.route_guest(Found::Tunnel);
        must(scene.lab.plug(at::ETH1, Wall::Cafe));
        scene.placed(&laptop, mark, "remote");
        back_to_the_desk(&scene, &laptop);
    }
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

#[test]
fn t28_direct_kills_at_the_desk_leave_nothing_open_and_the_wire_comes_back() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let laptop = scene.at_the_desk();
    let mut chatter = chatter(&laptop, 2);
    for kill in 0..30 {
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
        must(laptop.wait_direct(mark, Duration::from_secs(10)));
    }
    must(laptop.wait_page(Duration::from_secs(10)));
    assert!(
        must(chatter.wait(Duration::ZERO)).is_none(),
        "not under traffic"
    );
    scene.holds_on(at::ETH1, &laptop, Expects::Desk);
}

#[test]
fn t31_direct_sleep_closes_the_wire_and_the_desk_is_proven_anew() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let mut laptop = scene.at_the_desk();
    let _chatter = chatter(&laptop, 2);
    let mark = laptop.events().mark();
    must(laptop.supervisor().signal(rustix::process::Signal::USR1));
    must(laptop.wait_closed(mark, Duration::from_secs(5)));
    let shut = || {
        let list = ["nft", "list", "set", "inet", "sekisho", "direct"];
        !scene.uplink(&laptop, &list).stdout.contains("eth1")
    };
    let limit = Instant::now() + Duration::from_secs(5);
    while !shut() {
        assert!(Instant::now() < limit, "the way is open while asleep");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It wakes up at a hub.
    must(scene.lab.unplug(at::ETH1));
    scene.route_guest(Found::Tunnel);
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    let mark = laptop.events().mark();
    must(laptop.supervisor().signal(rustix::process::Signal::USR2));
    scene.placed(&laptop, mark, "remote");
    never_direct(&laptop, mark);
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

#[test]
fn t19_direct_a_copy_of_the_office_gets_no_wire() {
    let Some(scene) = Scene::direct(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    let _beacon = hall.false_beacon();
    let laptop = scene.at_the_desk();
    let _chatter = chatter(&laptop, 2);
    let (mark, line) = (laptop.events().mark(), laptop.log().mark());
    must(scene.lab.unplug(at::ETH1));
    scene.route_guest(Found::Tunnel);
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    hall.answered(&laptop, line, NOT_ITS_KEY);
    scene.placed(&laptop, mark, "remote");
    must(laptop.wait_page(Duration::from_secs(10)));
    never_direct(&laptop, mark);
    scene.holds_on(at::ETH1, &laptop, Expects::Both);
}

#[test]
fn t20_direct_a_relay_beyond_the_bound_gets_no_wire() {
    let Some(scene) = Scene::direct(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    hall.tunnel();
    // Six milliseconds there and back: a stranger in the next town, with a good line.
    let slow = hall.relay("relay", "0.003", None);
    must(scene.lab.unplug(at::ETH0));
    scene.route_guest(Found::Tunnel);
    hall.lure();
    let laptop = scene.direct_laptop();
    must(laptop.wait_tunnel(0, UP_LIMIT));
    let _chatter = chatter(&laptop, 2);
    hall.answered(&laptop, 0, TOO_FAR);
    must(slow.wait_line("relayed", Duration::from_secs(5)));
    must(laptop.wait_page(Duration::from_secs(10)));
    never_direct(&laptop, 0);
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

/// What no clock can tell from the hall: a stranger so near, and so fast, that he is a longer cable.
/// He is given a wire, and sees what a hub on the office's own cable sees: what policy lets the guest
/// say in the office. This is what `direct` costs, and why it is policy's to allow.
#[test]
fn t20_direct_a_relay_within_the_bound_is_a_longer_cable() {
    let Some(scene) = Scene::direct(lookalike()) else {
        return;
    };
    let hall = Hall::copy(&scene);
    hall.tunnel();
    scene.run(
        "cafe",
        &[
            "nft",
            "table ip near { chain in { type nat hook prerouting priority dstnat; \
             ip daddr 10.12.0.200 tcp dport 8443 dnat to 192.168.99.2; }; \
             chain out { type nat hook postrouting priority srcnat; oifname hall masquerade; }; }",
        ],
    );
    must(scene.lab.unplug(at::ETH0));
    scene.route_guest(Found::Tunnel);
    hall.lure_with_proof();
    let laptop = scene.direct_laptop();
    let _chatter = chatter(&laptop, 2);
    hall.answered(&laptop, 0, PROVEN);
    must(laptop.wait_direct(0, UP_LIMIT));
    let mark = laptop.events().mark();
    let _ = laptop.guest(&["busybox", "nc", "-w", "1", "10.99.0.1", "80"]);
    must(laptop.wait_refused(mark, "forbidden", "10.99.0.1"));
    // To him as to anybody only what policy allows.
    let rules = Rules::office().with_direct();
    let recordings = must(scene.lab.stop_captures());
    let canaries = Canaries::new([laptop.canary()]);
    let seen = must(judge(must(recordings.get("eth1.from")), &canaries, |_| {
        Some(&rules)
    }));
    assert!(seen.holds(), "{seen}");
    assert!(seen.direct > 10, "he saw nothing at all: {seen}");
    // And the oracle of this check goes red where more is on the wire.
    must(scene.lab.capture());
    must(laptop.leak(at::ETH1));
    let recordings = must(scene.lab.stop_captures());
    let leaked = must(judge(must(recordings.get("eth1.from")), &canaries, |_| {
        Some(&rules)
    }));
    assert!(!leaked.holds(), "{leaked}");
}

/// A port that is Wi-Fi, here by the policy's word, leads onto the office LAN itself: no wire.
#[test]
fn direct_wifi_in_the_office_gets_no_wire() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    scene.route_guest(Found::Tunnel);
    must(scene.lab.plug(at::ETH1, Wall::Office));
    let radio = "[[uplink]]\nkind = \"wifi\"\nrank = 2\ninterfaces = [\"eth1\"]\n\
                 security = [\"wpa3-sae\"]\n\n[vpn]";
    let mut setup = scene.direct_setup();
    setup.policy = setup
        .policy
        .map(|policy| policy.replacen("[vpn]", radio, 1));
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    must(laptop.wait_tunnel(0, UP_LIMIT));
    let _chatter = chatter(&laptop, 2);
    must(
        laptop.wait_event(0, "a lease over the air", UP_LIMIT, |event| {
            event.is("uplink", "uplink")
                && event.text("event") == "leased"
                && event.text("port") == at::ETH1
                && event.text("kind") == "wifi"
        }),
    );
    // Longer than it takes to prove a cable, and to prove it again.
    std::thread::sleep(Duration::from_secs(6));
    never_direct(&laptop, 0);
    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    assert_eq!(own_frames(&recordings), 0);
}
