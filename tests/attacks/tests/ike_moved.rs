//! The `IPsec` tunnel that goes another way (MOBIKE, RFC 4555): one IKE SA, one ESP SA, one address of
//! the guest's, whatever cable carries them. The real charon in its sandbox against Debian's
//! `strongSwan`.

use std::{
    thread,
    time::{Duration, Instant},
};

use sekisho_attacks::{Download, Engine, Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, Part, Prober, Process, Setup, Wall, address as at, oracle::count_frames,
};

const ENGINE: Engine = Engine {
    gateway: "honcho-ikev2",
    part: Part::Ike,
    program: |laptop| laptop.charon(),
    kill_program: |laptop| laptop.kill_charon(),
};

/// Changes of the cable.
const CHANGES: usize = 6;
/// How long one may leave the guest without an answer. charon looks at a change of its addresses after
/// a tenth of a second, and the gateway goes on sending to the old place until it has been told.
const WITHOUT: Duration = Duration::from_secs(2);

fn setup() -> Setup {
    Setup {
        ike: true,
        ..Setup::default()
    }
}

fn leased(laptop: &NetLaptop<'_>, mark: usize, port: &str) {
    must(
        laptop.wait_event(mark, "a lease", Duration::from_secs(10), |event| {
            event.is("uplink", "uplink")
                && event.text("port") == port
                && event.text("event") == "leased"
        }),
    );
}

/// How many IKE SAs the gateway has made.
fn made(scene: &Scene) -> usize {
    let lines = scene.lab.server("gateway-charon").map(Process::lines);
    let made = |line: &&String| line.contains("IKE_SA laptops[") && line.contains("established");
    lines.unwrap_or_default().iter().filter(made).count()
}

#[test]
fn a_change_of_the_cable_keeps_the_tunnel_and_the_guests_connections() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let lab = &scene.lab;
    let laptop = ENGINE.laptop(&scene, &setup());
    let charon = must(laptop.charon());
    assert_eq!(made(&scene), 1);
    must(lab.plug(at::ETH1, Wall::Cafe));
    leased(&laptop, 0, at::ETH1);
    let first = laptop.events().mark();
    let download = Download::start(&laptop, 2_000_000, 100_000);
    let prober = must(Prober::open(&laptop));
    let mut cables = [at::ETH0, at::ETH1];
    let pulled: Vec<Instant> = prober.during(|| {
        let mut pulled = Vec::new();
        for _ in 0..CHANGES {
            thread::sleep(Duration::from_secs(1));
            let mark = laptop.events().mark();
            let start = Instant::now();
            pulled.push(start);
            must(lab.unplug(cables[0]));
            must(
                laptop.wait_event(mark, "the other cable", Duration::from_secs(1), |event| {
                    event.is("gate", "situation") && event.text("port") == cables[1]
                }),
            );
            assert!(
                prober.wait(start + Duration::from_millis(50), WITHOUT),
                "the guest is without an answer: {}",
                laptop.events().tail()
            );
            // The next change finds the other cable ready.
            must(lab.plug(cables[0], Wall::Cafe));
            leased(&laptop, mark, cables[0]);
            cables.reverse();
        }
        pulled
    });
    let ends = pulled.iter().skip(1).copied().chain([Instant::now()]);
    let mut outages: Vec<_> = pulled
        .iter()
        .zip(ends)
        .map(|(pulled, until)| prober.outage(*pulled, until))
        .collect();
    outages.sort_unstable();
    eprintln!("without an answer, each change of {CHANGES}: {outages:?}");
    assert!(
        outages.iter().all(|outage| *outage < WITHOUT),
        "{outages:?}"
    );
    download.lives_on();

    // The same charon, the same IKE SA, and never a gate that was closed.
    assert_eq!(must(laptop.charon()), charon);
    assert_eq!(made(&scene), 1, "the gateway made another tunnel");
    let closed = |event: &sekisho_lab::Event| {
        event.is("gate", "situation") && event.text("situation") == "closed"
    };
    assert!(!laptop.events().all()[first..].iter().any(closed));
    let recordings = scene.holds(&laptop, Expects::Beyond);
    for cable in ["eth0.from", "eth1.from"] {
        let esp = must(count_frames(must(recordings.get(cable)), |frame| {
            frame.len() > 74 && frame[23] == 17 && frame[36..38] == [0x11, 0x94]
        }));
        assert!(esp > 0, "nothing went by {cable}");
    }
}

#[test]
fn without_another_cable_the_gate_closes_at_once_and_a_fresh_tunnel_comes() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let charon = must(laptop.charon());
    let mark = laptop.events().mark();
    must(scene.lab.unplug(at::ETH0));
    must(laptop.wait_closed(mark, Duration::from_secs(1)));
    ENGINE.program_ends(&laptop);
    must(scene.lab.plug(at::ETH1, Wall::Cafe));
    ENGINE.wait_up(&laptop, mark, Duration::from_secs(20));
    assert_ne!(must(laptop.charon()), charon);
    must(laptop.wait_page(Duration::from_secs(5)));
    scene.holds_on(at::ETH1, &laptop, Expects::Beyond);
}
