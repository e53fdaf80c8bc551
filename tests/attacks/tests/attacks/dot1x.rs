//! 802.1X on the office's cables, with stock hostapd as the switch: what opens the office, what does
//! not, and what ends it.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, Setup, UP_LIMIT, Wall, address as at,
    dot1x::{Authenticator, Dot1xPapers, SERVER},
};

/// How long a port may take: two seconds until the supplicant calls, EAP, a lease, the beacon.
const SOON: Duration = Duration::from_secs(20);

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

/// Nothing since `mark` has placed the laptop in the office.
fn never_in_the_office(laptop: &NetLaptop<'_>, mark: usize) {
    let office = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("place") == "onprem"
    });
    assert!(office.is_none(), "{office:?}");
}

#[test]
fn an_authenticated_port_proves_the_office_and_its_loss_ends_the_proof() {
    let Some(scene) = Scene::cafe() else { return };
    must(scene.lab.unplug(at::ETH0));
    let papers = papers();
    let wall = must(Authenticator::plug(&scene.lab, at::ETH1, &papers));
    let laptop = laptop(&scene, &papers);
    stands(&laptop, 0, "dot1x-authenticated");
    scene.placed(&laptop, 0, "onprem");
    println!("in the office {:?} after power-on", laptop.uptime());
    must(laptop.page(Duration::from_secs(10)));
    must(wall.log().wait_line("authorizing port", Duration::ZERO));
    scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
}
