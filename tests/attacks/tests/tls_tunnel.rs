//! The TLS tunnel where nothing else gets through: the real openconnect in its sandbox against
//! Debian's ocserv. Needs root and the built programs, as the attacks do.

use std::time::{Duration, Instant};

use sekisho_attacks::{BACK_WITHIN, Download, Engine, Expects, Scene, must};
use sekisho_lab::{Part, Setup, address as at, oracle::count_frames};

/// Of a download as fast as it goes.
const SIZE: u32 = 16_000_000;

fn setup() -> Setup {
    Setup {
        tls: true,
        ..Setup::default()
    }
}

const ENGINE: Engine = Engine {
    gateway: "honcho-tls",
    part: Part::Tls,
    program: |laptop| laptop.openconnect(),
    kill_program: |laptop| laptop.kill_openconnect(),
};

/// IPv4 and its protocol, destination and destination port, of an Ethernet frame without options.
fn goes_to(frame: &[u8], protocol: u8, to: std::net::SocketAddrV4) -> bool {
    frame.len() >= 38
        && frame[12..14] == [8, 0]
        && frame[23] == protocol
        && frame[30..34] == to.ip().octets()
        && frame[36..38] == to.port().to_be_bytes()
}

#[test]
fn where_udp_is_blocked_the_page_comes_through_tls() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    eprintln!(
        "the tunnel by TLS was up {:?} after power-on",
        laptop.uptime()
    );
    let start = Instant::now();
    Download::start(&laptop, SIZE, 0).lives_on();
    eprintln!(
        "{SIZE} bytes came down in {:?}, curl's own start included",
        start.elapsed()
    );

    // An engine in its place: no capability, its system calls filtered, no network but `lo`, and no
    // file of ours but its own.
    let status = [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
    ];
    ENGINE.is_closed_in(&scene, &laptop, &status);
    assert_eq!(ENGINE.interfaces(&laptop), ["lo"]);
    for name in ENGINE.root(&laptop) {
        let own = ["certificate.pem", "key.pem", "sekisho-netdomain"];
        let known = [&["bin", "dev", "etc", "lib", "lib64", "usr"][..], &own].concat();
        assert!(known.contains(&&*name), "{name}");
    }

    let recordings = scene.holds(&laptop, Expects::Beyond);
    let wire = must(recordings.get("eth0.from"));
    let count = |wanted: &dyn Fn(&[u8]) -> bool| must(count_frames(wire, wanted));
    assert!(count(&|frame| goes_to(frame, 6, at::GATEWAY_TLS)) > 0);
    // To WireGuard only handshakes went, of which none was answered: type 1, never data.
    let wireguard = |frame: &[u8]| goes_to(frame, 17, at::GATEWAY_OUTSIDE);
    assert!(count(&wireguard) > 0, "WireGuard was not even tried");
    assert_eq!(count(&|frame| wireguard(frame) && frame[42] != 1), 0);
}

#[test]
fn an_engine_that_dies_closes_the_gate_and_comes_back() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    ENGINE.lives_through_kills(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_gateway_with_another_key_is_never_believed() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let right = &scene.lab.papers().tls.server.spki_sha256;
    let wrong = "5e".repeat(32);
    let policy = scene.lab.papers().policy_with_tls();
    assert_eq!(policy.matches(right.as_str()).count(), 1);
    let setup = Setup {
        policy: Some(policy.replace(right.as_str(), &wrong)),
        ..setup()
    };
    let recordings = ENGINE.is_refused(&scene, &setup, "the engine's tunnel is down");
    let wire = must(recordings.get("eth0.from"));
    let reached = must(count_frames(wire, |frame| {
        goes_to(frame, 6, at::GATEWAY_TLS)
    }));
    assert!(
        reached > 0,
        "the gateway was never asked: the test shows nothing"
    );
}

#[test]
fn wireguard_takes_over_as_soon_as_it_gets_through() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let download = Download::start(&laptop, 3_000_000, 300_000);
    let openconnect = must(laptop.openconnect());
    let mark = laptop.events().mark();
    must(
        must(
            scene
                .lab
                .run("cafe", &["nft", "delete", "chain", "ip", "cafe", "through"]),
        )
        .ok(),
    );
    // The policy's longest pause between tries is 5 s.
    must(
        laptop.wait_event(mark, "WireGuard", Duration::from_secs(10), |event| {
            event.is("gate", "situation") && event.text("gateway") == "honcho-1"
        }),
    );
    must(laptop.wait_page(Duration::from_secs(5)));
    assert!(
        laptop.openconnect().is_err(),
        "the engine of a tunnel that is not needed runs on"
    );
    assert!(!std::path::Path::new(&format!("/proc/{openconnect}")).exists());
    download.lives_on();
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn a_network_that_falls_silent_closes_the_gate() {
    let Some(scene) = Scene::without_udp() else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let rules = |rules: &str| must(must(scene.lab.run("cafe", &["nft", rules])).ok());
    let mark = laptop.events().mark();
    let start = Instant::now();
    rules("add rule ip cafe through meta l4proto tcp drop");
    // Nobody sends anything: openconnect itself asks, once a second, and the policy's `dead_after` is
    // 3 s; with TCP's own timers on top.
    must(laptop.wait_closed(mark, Duration::from_secs(15)));
    eprintln!("closed {:?} after the network fell silent", start.elapsed());
    let mark = laptop.events().mark();
    let start = Instant::now();
    rules("flush chain ip cafe through; add rule ip cafe through meta l4proto udp drop");
    ENGINE.wait_up(&laptop, mark, 2 * BACK_WITHIN);
    eprintln!("back {:?} after the network was", start.elapsed());
    must(laptop.wait_page(Duration::from_secs(5)));
    scene.holds(&laptop, Expects::Beyond);
}
