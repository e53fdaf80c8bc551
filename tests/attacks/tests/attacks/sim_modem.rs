//! A SIM from the guest to the city: the real supervisor, gate, uplink and modem, with
//! python-dbusmock's ModemManager; the cable `eth0` plays the bearer, and the oracle hears all that
//! it carries.

#[path = "../../../../netdomain/tests/modem/service.rs"]
mod service;

use std::time::Duration;

use sekisho_attacks::{Download, Expects, Scene, must};
use sekisho_lab::{Event, NetLaptop, Part, Setup, UP_LIMIT, address as at};
use sekisho_skip::skip_unless;

use service::{GENERAL, MODEM, NETWORK, Service};

/// How long a change of the modem's may take to close the way out.
const CLOSED_LIMIT: Duration = Duration::from_secs(5);

/// A scene and ModemManager in it; none where it cannot be.
pub(crate) fn scene() -> Option<(Scene, Service)> {
    with_modem(Scene::cafe)
}

/// ModemManager in this scene.
pub(crate) fn with_modem(scene: fn() -> Option<Scene>) -> Option<(Scene, Service)> {
    let scene = scene()?;
    if skip_unless(
        service::is_there(),
        "it needs dbus-daemon, gdbus and python3-dbusmock",
    ) {
        return None;
    }
    let service = Service::start(scene.lab.dir());
    Some((scene, service))
}

pub(crate) fn setup(scene: &Scene, service: &Service) -> Setup {
    setup_under(&scene.lab.papers().policy(), service)
}

/// The same under this policy, with all its gateways over the SIM.
pub(crate) fn setup_under(policy: &str, service: &Service) -> Setup {
    let sim = format!(
        "kind = \"sim\"\nrank = 1\ninterfaces = [\"{}\"]\n\
         apn = \"mihon.closed.example\"\nplmn = [\"44010\"]\n",
        at::ETH0
    );
    let wired = "kind = \"wired\"\nrank = 1\n";
    assert_eq!(policy.matches(wired).count(), 1);
    // The last one is the office's.
    let gateways = policy.matches("uplinks = [\"wired\"]").count() - 1;
    Setup {
        policy: Some(
            policy
                .replacen(wired, &sim, 1)
                .replacen("uplinks = [\"wired\"]", "uplinks = [\"sim\"]", gateways)
                .replace("uplink = \"wired\" }", "uplink = \"sim\" }"),
        ),
        modem: Some(service.socket()),
        ..Setup::default()
    }
}

fn operator(service: &Service, code: &str) {
    let properties = format!("{{'OperatorCode': <'{code}'>}}");
    service.become_(MODEM, NETWORK, &properties);
}

fn finds(found: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.is("modem", "modem") && event.text("found") == found
}

/// What `sekisho` says.
pub(crate) fn says(laptop: &NetLaptop<'_>, arguments: &[&str]) -> String {
    must(laptop.sekisho(arguments)).stdout
}

#[test]
fn a_sim_carries_the_tunnel_and_nothing_else() {
    let Some((scene, service)) = scene() else {
        return;
    };
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup(&scene, &service)));
    must(laptop.page(Duration::from_secs(10)));
    let status = says(&laptop, &["status", "--lang", "en"]);
    let line = "connected Mihon Mobile (44010) signal 63%";
    assert!(status.contains(line), "{status}");
    assert!(status.contains("over eth0 to honcho-1"), "{status}");
    // Packets as long as they can be, over a bearer that carries less than a cable.
    Download::start(&laptop, 1 << 20, 100_000_000).lives_on();

    // The modem goes over to another network, and back.
    let mark = laptop.events().mark();
    operator(&service, "44020");
    must(laptop.wait_closed(mark, CLOSED_LIMIT));
    assert!(laptop.page(Duration::from_secs(2)).is_err());
    let doctor = says(&laptop, &["doctor", "--lang", "en"]);
    assert!(
        doctor.contains("served by a mobile network that policy does not name"),
        "{doctor}"
    );
    let doctor = says(&laptop, &["doctor", "--lang", "ja"]);
    assert!(doctor.contains("契約していない事業者"), "{doctor}");
    let mark = laptop.events().mark();
    operator(&service, "44010");
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(Duration::from_secs(10)));

    // Whoever asks for the SIM is killed: closed at once, and back.
    let mark = laptop.events().mark();
    must(laptop.kill(Part::Modem));
    must(laptop.wait_closed(mark, CLOSED_LIMIT));
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(Duration::from_secs(10)));
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn a_sim_in_another_network_sends_no_frame() {
    let Some((scene, service)) = scene() else {
        return;
    };
    operator(&service, "44020");
    let laptop = must(NetLaptop::start(&scene.lab, &setup(&scene, &service)));
    must(laptop.plug_guest());
    must(laptop.wait_event(0, "another network", UP_LIMIT, finds("wrong_network")));
    assert!(laptop.page(Duration::from_secs(3)).is_err());
    let status = says(&laptop, &["status", "--lang", "ja"]);
    assert!(
        status.contains("拒否（許可されていない事業者）"),
        "{status}"
    );
    scene.holds(&laptop, Expects::Silent);
}

#[test]
fn a_locked_sim_is_told_and_no_code_is_tried() {
    let Some((scene, service)) = scene() else {
        return;
    };
    service.become_(
        MODEM,
        GENERAL,
        "{'State': <2>, 'UnlockRequired': <uint32 2>}",
    );
    let laptop = must(NetLaptop::start(&scene.lab, &setup(&scene, &service)));
    must(laptop.wait_event(0, "a locked SIM", UP_LIMIT, finds("sim_locked")));
    for part in ["gate", "uplink"] {
        let ready = |event: &Event| event.is(part, "ready");
        must(laptop.wait_event(0, "its parts", UP_LIMIT, ready));
    }
    let doctor = says(&laptop, &["doctor", "--lang", "en"]);
    assert!(doctor.contains("the SIM asks for a code"), "{doctor}");
    for method in ["Connect", "Enable", "SendPin", "SendPuk"] {
        assert_eq!(service.calls(method), [] as [String; 0], "{method}");
    }
    scene.holds(&laptop, Expects::Silent);
}
