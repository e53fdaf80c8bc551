//! 802.1X at a desk whose guest is a member of the LAN: the switch authenticates an address, and the
//! port changes its own between the first proof and the wire.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, chatter, must};
use sekisho_lab::{
    Cafe, NetLaptop, Setup, UP_LIMIT, address as at,
    dot1x::{Authenticator, Dot1xPapers, SERVER, eap_frame},
    oracle::count_frames,
    packet::PacketSocket,
};

/// Two rounds of 802.1X, each with a lease and a proof.
const SEATED: Duration = Duration::from_secs(25);
/// As long as several questions to a beacon and a whole attempt of the supplicant's.
const PATIENCE: Duration = Duration::from_secs(8);
/// The guest's MAC, as hostapd and iproute2 write it.
const MEMBER: &str = "02:53:4b:00:07:17";

/// A laptop with these papers, whose city demands 802.1X and makes its guests members of the LAN.
fn laptop<'s>(scene: &'s Scene, papers: &Dot1xPapers) -> NetLaptop<'s> {
    let setup = Setup {
        policy: Some(scene.lab.papers().policy_with_bridged()),
        dot1x: Some(papers.clone()),
        ..Setup::default()
    };
    must(NetLaptop::start(&scene.lab, &setup))
}

/// The guest's packets are on the LAN.
fn joined(scene: &Scene, laptop: &NetLaptop<'_>, mark: usize) {
    let event = must(laptop.wait_direct(mark, SEATED));
    assert_eq!(event.text("port"), at::ETH1, "{:?}", event.said);
    scene.addressed(laptop, at::GUEST_IN_OFFICE);
}

/// Nothing since `mark` has put the guest's packets on the LAN.
fn never_on_the_lan(laptop: &NetLaptop<'_>, mark: usize) {
    let direct = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") == "direct"
    });
    assert!(direct.is_none(), "{direct:?}");
}

/// Addresses that the switch lets through.
fn let_in(scene: &Scene) -> Vec<String> {
    let shown = scene.run("walls", &["bridge", "fdb", "show", "dev", at::ETH1]);
    let entries = shown
        .lines()
        .filter(|line| line.ends_with("static") && line.contains("master"));
    entries
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect()
}

#[test]
fn a_member_is_authenticated_under_its_own_mac_before_its_first_packet() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let papers = must(Dot1xPapers::generate(SERVER));
    must(scene.lab.unplug(at::ETH0));
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, &papers));
    let laptop = laptop(&scene, &papers);
    must(laptop.plug_guest());
    joined(&scene, &laptop, 0);
    println!("a member of the LAN {:?} after power-on", laptop.uptime());
    // The switch knows two stations, and each by an authentication of its own.
    let let_in = let_in(&scene);
    assert!(let_in.contains(&MEMBER.to_owned()), "{let_in:?}");
    assert_eq!(let_in.len(), 2, "{let_in:?}");
    for mac in &let_in {
        let agreed = format!("STA {mac} IEEE 802.1X: authorizing port");
        must(wall.log().wait_line(&agreed, Duration::ZERO));
    }
    agreed_before_the_wire(&laptop);
    must(laptop.wait_page(UP_LIMIT));
    let _chatter = chatter(&laptop, 5);

    // Refused while it is a member: the wire goes before anything else, and it is back by itself,
    // under the same MAC, without another change.
    let before = changes(&laptop);
    let mark = laptop.events().mark();
    let began = Instant::now();
    let wire = must(PacketSocket::open(must(scene.lab.space("walls")), at::ETH1));
    for identifier in 0..=255 {
        must(wire.send(&eap_frame(wire.mac, &[4, identifier, 0, 4])));
    }
    must(laptop.wait_closed(mark, UP_LIMIT));
    println!("off the LAN {:?} after the refusal", began.elapsed());
    joined(&scene, &laptop, mark);
    println!("back {:?} after the refusal", began.elapsed());
    assert_eq!(changes(&laptop), before, "the MAC was changed again");

    // The switch is off, and refuses for good: its port lets the address through all the same.
    must(wall.off());
    let mark = laptop.events().mark();
    for identifier in 0..=255 {
        must(wire.send(&eap_frame(wire.mac, &[4, identifier, 0, 4])));
    }
    must(laptop.wait_closed(mark, UP_LIMIT));
    let mark = laptop.events().mark();
    std::thread::sleep(PATIENCE);
    never_on_the_lan(&laptop, mark);
    scene.holds_on(at::ETH1, &laptop, Expects::Desk);
}

/// Each carrier begins anew: what is said of the port from its last one on, in its order.
fn agreed_before_the_wire(laptop: &NetLaptop<'_>) {
    let all = laptop.events().all();
    let said: Vec<&str> = all
        .iter()
        .filter_map(|event| {
            if event.is("uplink", "uplink") && event.text("port") == at::ETH1 {
                return Some(event.text("event"));
            }
            let direct = event.is("gate", "situation") && event.text("situation") == "direct";
            direct.then_some("direct")
        })
        .collect();
    let carrier = said
        .iter()
        .rposition(|event| *event == "carrier")
        .unwrap_or(0);
    let place = |what: &str| said.iter().position(|event| *event == what);
    let (agreed, wire) = (place("dot1x-authenticated"), place("direct"));
    assert!(agreed.is_some_and(|agreed| agreed < carrier), "{said:?}");
    assert!(wire.is_some_and(|wire| wire > carrier), "{said:?}");
    let last = &said[carrier..];
    let after = |what: &str| last.iter().rposition(|event| *event == what);
    let order = [
        after("dot1x-authenticated"),
        after("leased"),
        after("direct"),
    ];
    assert!(order.is_sorted() && order[0].is_some(), "{said:?}");
}

/// How often the port has taken on the guest's MAC.
fn changes(laptop: &NetLaptop<'_>) -> usize {
    laptop
        .log()
        .lines()
        .iter()
        .filter(|line| line.contains("takes on the work OS's MAC"))
        .count()
}

/// The control of the test above: the same port, the same beacon, another city's certificate.
#[test]
fn without_a_certificate_no_member_gets_a_wire_or_shows_its_mac() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let (ours, mut theirs) = (
        must(Dot1xPapers::generate(SERVER)),
        must(Dot1xPapers::generate(SERVER)),
    );
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, &ours));
    theirs.authority.clone_from(&ours.authority);
    theirs.authority_sha256.clone_from(&ours.authority_sha256);
    let laptop = laptop(&scene, &theirs);
    must(laptop.plug_guest());
    must(wall.log().wait_line("authentication failed", SEATED));
    let _chatter = chatter(&laptop, 5);
    std::thread::sleep(PATIENCE);
    never_on_the_lan(&laptop, 0);
    assert_eq!(let_in(&scene), [] as [String; 0]);
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let members = |frame: &[u8]| frame.len() > 12 && frame[6..12] == at::GUEST_MAC;
    let wire = must(recordings.get("eth1.from"));
    assert_eq!(must(count_frames(wire, members)), 0, "the guest's MAC");
}
