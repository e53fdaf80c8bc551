//! 802.1X on the office's cables, with stock hostapd as the switch: what opens the office, what does
//! not, and what ends it.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    Canary, NetLaptop, Part, Setup, Wall, address as at,
    dot1x::{Authenticator, Dot1xPapers, SERVER, eap_frame},
    packet::{PacketSocket, arp_frame},
};

/// How long a port may take: EAP, a lease, the beacon.
const SOON: Duration = Duration::from_secs(20);
/// How soon the loss of a port must have ended the proof: a look each second, and two for an answer.
const LOST: Duration = Duration::from_secs(5);
/// As long as several questions to a beacon and a whole attempt of the supplicant's.
const PATIENCE: Duration = Duration::from_secs(8);

fn papers() -> Dot1xPapers {
    must(Dot1xPapers::generate(SERVER))
}

/// A laptop of a city whose office has 802.1X, with these papers.
fn laptop<'s>(scene: &'s Scene, papers: &Dot1xPapers) -> NetLaptop<'s> {
    let setup = Setup {
        dot1x: Some(papers.clone()),
        ..Setup::default()
    };
    must(NetLaptop::start_up(&scene.lab, &setup))
}

fn stands(laptop: &NetLaptop<'_>, mark: usize, how: &str) {
    must(laptop.wait_event(mark, how, SOON, |event| {
        event.is("uplink", "uplink") && event.text("port") == at::ETH1 && event.text("event") == how
    }));
}

/// Waits until the gate has left the office.
fn left(laptop: &NetLaptop<'_>, mark: usize) -> Duration {
    let began = Instant::now();
    must(laptop.wait_event(mark, "not in the office", LOST, |event| {
        event.is("gate", "situation") && event.text("place") != "onprem"
    }));
    began.elapsed()
}

/// Nothing since `mark` has placed the laptop in the office.
fn never_in_the_office(laptop: &NetLaptop<'_>, mark: usize) {
    let office = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("place") == "onprem"
    });
    assert!(office.is_none(), "{office:?}");
}

/// In the office at an authenticated port, with no other cable.
fn at_the_desk<'s>(scene: &'s Scene, papers: &Dot1xPapers) -> (Authenticator<'s>, NetLaptop<'s>) {
    must(scene.lab.unplug(at::ETH0));
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, papers));
    let laptop = laptop(scene, papers);
    scene.placed(&laptop, 0, "onprem");
    println!("in the office {:?} after power-on", laptop.uptime());
    (wall, laptop)
}

#[test]
fn an_authenticated_port_proves_the_office_and_its_loss_ends_the_proof() {
    let Some(scene) = Scene::cafe() else { return };
    let papers = papers();
    let (wall, laptop) = at_the_desk(&scene, &papers);
    must(wall.log().wait_line("authorizing port", Duration::ZERO));
    must(laptop.page(SOON));
    let supplicant = must(laptop.supplicant());
    let status = must(std::fs::read_to_string(format!(
        "/proc/{supplicant}/status"
    )));
    // CAP_NET_ADMIN and CAP_NET_RAW.
    assert!(status.contains("CapEff:\t0000000000003000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");

    // Asked again by the hour it stays what it is.
    let mark = laptop.events().mark();
    let line = wall.log().mark();
    let mac = must(PacketSocket::open(&must(laptop.uplink_space()), at::ETH1)).mac;
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    must(wall.tell(&["raw", "EAPOL_REAUTH", &mac]));
    must(
        wall.log()
            .wait_after(line, "authenticated again", SOON, |line| {
                line.contains("authenticated - EAP type").then_some(())
            }),
    );
    std::thread::sleep(Duration::from_secs(2));
    let changed = laptop
        .events()
        .wait_after(mark, Duration::ZERO, |event| event.is("gate", "situation"));
    assert!(changed.is_none(), "{changed:?}");

    // The switch refuses the port, and does not take it back.
    must(wall.off());
    let wire = must(PacketSocket::open(must(scene.lab.space("walls")), at::ETH1));
    let mark = laptop.events().mark();
    for identifier in 0..=255 {
        must(wire.send(&eap_frame(wire.mac, &[4, identifier, 0, 4])));
    }
    println!(
        "left the office {:?} after the refusal",
        left(&laptop, mark)
    );
    std::thread::sleep(PATIENCE);
    never_in_the_office(&laptop, mark);
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

/// The control is the test above: at the same port, our own certificate opens the office.
#[test]
fn another_citys_certificate_opens_no_port() {
    let Some(scene) = Scene::cafe() else { return };
    let (ours, mut theirs) = (papers(), papers());
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, &ours));
    // It trusts the right server, which does not take its certificate.
    theirs.authority.clone_from(&ours.authority);
    theirs.authority_sha256.clone_from(&ours.authority_sha256);
    let laptop = laptop(&scene, &theirs);
    stands(&laptop, 0, "dot1x-refused");
    must(wall.log().wait_line("authentication failed", SOON));
    std::thread::sleep(PATIENCE);
    never_in_the_office(&laptop, 0);
    // The cafe's cable carries the tunnel all the same.
    must(laptop.page(SOON));
    let said = must(laptop.sekisho(&["status", "--lang", "en"])).stdout;
    assert!(said.contains("refused by the switch"), "{said}");
    scene.holds(&laptop, Expects::Tunnelled);
}

/// Somebody plays the switch, and behind his port is the true office with the true beacon, as by a
/// relay. His server has the right name and another authority, or ours and another name.
#[test]
fn a_false_authenticator_before_the_true_beacon_is_no_office() {
    let ours = papers();
    let printer = must(Dot1xPapers::generate("printer.mihon-city.example"));
    for (pinned, shown) in [(&ours, &papers()), (&printer, &printer)] {
        let Some(scene) = Scene::cafe() else { return };
        let _wall = false_wall(&scene, shown);
        let laptop = laptop(&scene, pinned);
        stands(&laptop, 0, "dot1x-refused");
        must(laptop.page(SOON));
        std::thread::sleep(PATIENCE);
        never_in_the_office(&laptop, 0);
        scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    }
    // The control: the beacon is true, and where the policy does not demand 802.1X it is enough.
    let Some(scene) = Scene::cafe() else { return };
    let _wall = false_wall(&scene, &ours);
    let laptop = must(NetLaptop::start_up(&scene.lab, &Setup::default()));
    scene.placed(&laptop, 0, "onprem");
}

/// A port of the office behind somebody's own authenticator, who lets everybody through.
fn false_wall<'s>(scene: &'s Scene, shown: &Dot1xPapers) -> Authenticator<'s> {
    must(scene.lab.unplug(at::ETH0));
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, shown));
    let open = ["bridge", "link", "set", "dev", at::ETH1, "locked", "off"];
    scene.run("walls", &open);
    wall
}

#[test]
fn where_nobody_speaks_802_1x_the_cable_is_a_remote_uplink_at_once() {
    let Some(scene) = Scene::cafe() else { return };
    must(scene.lab.unplug(at::ETH0));
    // The true office even: without 802.1X on this port the policy takes it for none.
    must(scene.lab.plug(at::ETH1, Wall::Office));
    let papers = papers();
    let laptop = laptop(&scene, &papers);
    let up = laptop.uptime();
    println!("tunnel {up:?} after power-on");
    stands(&laptop, 0, "dot1x-unanswered");
    must(laptop.page(SOON));
    let said = must(laptop.sekisho(&["status", "--lang", "en"])).stdout;
    assert!(said.contains("no 802.1X"), "{said}");
    // A success that nobody earned.
    let wire = must(PacketSocket::open(must(scene.lab.space("walls")), at::ETH1));
    for identifier in 0..=255 {
        must(wire.send(&eap_frame(wire.mac, &[3, identifier, 0, 4])));
    }
    std::thread::sleep(PATIENCE);
    never_in_the_office(&laptop, 0);
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

/// T25 with 802.1X: a hub between the wall and the laptop. The port was opened to the laptop's address;
/// somebody else on the hub hears everything, and speaks to the laptop in the switch's place.
#[test]
fn t25_a_hub_at_an_authenticated_port_gains_no_frame_and_no_proof() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    must(lab.unplug(at::ETH0));
    must(lab.note(at::ETH1, Some(Wall::Office)));
    for command in [
        // Unlike a switch, a hub passes the group address on (bit 3).
        "link add hub type bridge ageing_time 0 group_fwd_mask 8",
        "link add wallside type veth peer name deskside",
        "link add chair type veth peer name intruder",
        "link set deskside master hub up",
        "link set chair master hub up",
        "link set intruder up",
        "link set eth1 master hub up",
        "link set hub up",
    ] {
        let words: Vec<&str> = ["ip"].into_iter().chain(command.split(' ')).collect();
        scene.run("walls", &words);
    }
    let papers = papers();
    let wall = must(Authenticator::guard(lab, "wallside", &papers));
    let laptop = laptop(&scene, &papers);
    scene.placed(&laptop, 0, "onprem");
    must(laptop.page(SOON));

    // The switch knows the laptop's address alone: what the intruder asks in his own name stays at
    // the port, and the laptop's own frames pass.
    let wire = must(PacketSocket::open(must(lab.space("walls")), "intruder"));
    let office = must(PacketSocket::open(must(lab.space("office")), "lan"));
    let own = wire.mac;
    for _ in 0..20 {
        let asks = arp_frame(1, (own, at::OFFICE_ROUTER), ([0; 6], at::OFFICE_ROUTER));
        must(wire.send(&asks));
    }
    let mut laptops = 0;
    let heard = must(office.wait(Duration::from_secs(2), |frame| {
        laptops += u32::from(frame.len() > 34 && frame[30..34] == at::GATEWAY_LAN.ip().octets());
        (frame[6..12] == own).then_some(())
    }));
    assert!(heard.is_none(), "the port is open to the intruder");
    assert!(laptops > 0, "nothing of the laptop's was heard");

    // In the switch's place: each identifier is tried, so that one of them is right.
    let marker = must(Canary::random());
    let mark = laptop.events().mark();
    for identifier in 0..=255 {
        let identity = [&[1, identifier, 0, 21, 1][..], &marker.bytes()[..16]].concat();
        for eap in [
            &[3, identifier, 0, 4][..],
            &identity,
            &[4, identifier, 0, 4],
        ] {
            must(wire.send(&eap_frame(own, eap)));
        }
    }
    // He can end the proof, as he can cut the cable; it is back by itself.
    let lost = laptop.events().wait_after(mark, LOST, |event| {
        event.is("gate", "situation") && event.text("place") != "onprem"
    });
    if lost.is_some() {
        scene.placed(&laptop, mark, "onprem");
    }
    println!("the proof was lost meanwhile: {}", lost.is_some());
    must(laptop.wait_page(SOON));
    must(wall.log().wait_line("authorizing port", Duration::ZERO));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}

#[test]
fn a_supplicant_that_dies_or_hangs_ends_the_proof_and_is_back_by_itself() {
    let Some(scene) = Scene::cafe() else { return };
    let papers = papers();
    let (_wall, laptop) = at_the_desk(&scene, &papers);
    for hangs in [false, true] {
        let before = must(laptop.supplicant());
        let mark = laptop.events().mark();
        let began = Instant::now();
        if hangs {
            must(laptop.stop_supplicant());
        } else {
            must(laptop.kill_supplicant());
        }
        let gone = left(&laptop, mark);
        scene.placed(&laptop, mark, "onprem");
        println!(
            "hangs: {hangs}; left after {gone:?}, back after {:?}",
            began.elapsed()
        );
        assert_ne!(must(laptop.supplicant()), before);
    }
    // Its keeper takes the uplink with it, and both are started again.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Dot1x));
    scene.placed(&laptop, mark, "onprem");
    must(laptop.wait_page(SOON));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}
