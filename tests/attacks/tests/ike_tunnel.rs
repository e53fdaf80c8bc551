//! The `IPsec` tunnel to a gateway that a city already has: the real charon in its sandbox against
//! Debian's `strongSwan`. Needs root and the built programs, as the attacks do. Where the machine's
//! kernel has no ESP, both ends seal in user space; the QEMU laptop's kernel has it (`e2e`).

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use sekisho_attacks::{BACK_WITHIN, Download, Engine, Expects, Scene, must};
use sekisho_lab::{IkePapers, LaptopFiles, Part, Setup, address as at, oracle::count_frames};

/// Of a download as fast as it goes; user-space ESP is slow.
const SIZE: u32 = 3_000_000;

fn setup() -> Setup {
    Setup {
        ike: true,
        ..Setup::default()
    }
}

const ENGINE: Engine = Engine {
    gateway: "honcho-ikev2",
    part: Part::Ike,
    program: |laptop| laptop.charon(),
    kill_program: |laptop| laptop.kill_charon(),
};

/// The UDP payload of a frame to this address.
fn datagram(frame: &[u8], to: std::net::SocketAddrV4) -> Option<&[u8]> {
    let right = frame.len() >= 42
        && frame[12..14] == [8, 0]
        && frame[23] == 17
        && frame[30..34] == to.ip().octets()
        && frame[36..38] == to.port().to_be_bytes();
    frame.get(42..).filter(|_| right)
}

#[test]
fn the_page_comes_through_ipsec() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    eprintln!(
        "the tunnel by IPsec was up {:?} after power-on",
        laptop.uptime()
    );
    let start = Instant::now();
    Download::start(&laptop, SIZE, 0).lives_on();
    eprintln!(
        "{SIZE} bytes came down in {:?}, curl's own start included",
        start.elapsed()
    );

    // An engine in its place: one capability, over a network with nothing but its devices, its
    // system calls filtered, and no file of ours.
    let status = [
        "CapEff:\t0000000000001000",
        "CapBnd:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "Uid:\t64021\t64021\t64021\t64021",
    ];
    ENGINE.is_closed_in(&scene, &laptop, &status);
    for interface in ENGINE.interfaces(&laptop) {
        let known = ["lo", "outer", "inner", "ipsec0"];
        assert!(known.contains(&&*interface), "{interface}");
    }
    for name in ENGINE.root(&laptop) {
        let known = ["bin", "dev", "etc", "lib", "lib64", "usr", "var"];
        assert!(known.contains(&&*name), "{name}");
    }

    let recordings = scene.holds(&laptop, Expects::Beyond);
    let wire = must(recordings.get("eth0.from"));
    let count = |wanted: &dyn Fn(&[u8]) -> bool| must(count_frames(wire, wanted));
    let esp = |frame: &[u8]| {
        datagram(frame, at::GATEWAY_IKE).is_some_and(|udp| udp.len() > 32 && udp[..4] != [0; 4])
    };
    assert!(count(&esp) > 0, "no ESP left the laptop");
    // To WireGuard only handshakes went, of which none was answered: type 1, never data.
    let wireguard = |frame: &[u8]| datagram(frame, at::GATEWAY_OUTSIDE).is_some();
    assert!(count(&wireguard) > 0, "WireGuard was not even tried");
    assert_eq!(count(&|frame| wireguard(frame) && frame[42] != 1), 0);
}

#[test]
fn a_charon_that_dies_closes_the_gate_and_comes_back() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    ENGINE.lives_through_kills(&laptop);
    scene.holds(&laptop, Expects::Beyond);
}

/// Starts a laptop whose tunnel must not come up although the gateway is reached, and `why` stands in
/// its log.
fn refused(given: Ipv4Addr, setup: impl FnOnce(&Scene) -> Setup, why: &str) {
    let Some(scene) = Scene::with_ipsec(given) else {
        return;
    };
    let recordings = ENGINE.is_refused(&scene, &setup(&scene), why);
    let wire = must(recordings.get("eth0.from"));
    let reached = must(count_frames(wire, |frame| {
        datagram(frame, at::GATEWAY_IKE).is_some()
    }));
    assert!(
        reached > 0,
        "the gateway was never asked: the test shows nothing"
    );
}

#[test]
fn a_gateway_with_another_name_is_never_believed() {
    let other = |scene: &Scene| {
        let policy = scene.lab.papers().policy_with_ike();
        assert_eq!(policy.matches(at::GATEWAY_NAME).count(), 1);
        Setup {
            policy: Some(policy.replace(at::GATEWAY_NAME, "vpn2.mihon-city.example")),
            ..setup()
        }
    };
    refused(at::GUEST, other, "the engine's tunnel is down");
}

/// Another city's authority, in the laptop's file beside what policy says of it.
fn another_authority(files: &LaptopFiles) {
    let beside = |name| files.device.with_file_name(name);
    must(fs::rename(
        beside("other-authority.pem"),
        beside("ike-authority.pem"),
    ));
}

#[test]
fn a_gateway_of_another_authority_is_never_believed() {
    let other = |scene: &Scene| {
        let papers = scene.lab.papers();
        let others = must(IkePapers::generate(at::GATEWAY_NAME));
        let folder = scene.lab.dir().join("device");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("other-authority.pem"), &others.authority).unwrap();
        let policy = papers.policy_with_ike();
        let right = papers.ike.authority_sha256.as_str();
        Setup {
            policy: Some(policy.replace(right, &others.authority_sha256)),
            tamper: Some(another_authority),
            ..setup()
        }
    };
    refused(at::GUEST, other, "the engine's tunnel is down");
}

/// Somebody else's certificate in place of the laptop's.
fn another_certificate(files: &LaptopFiles) {
    let others = must(IkePapers::generate("mihon-0001"));
    let beside = |name| files.device.with_file_name(name);
    must(fs::write(beside("tls.pem"), others.certificate));
    must(fs::write(beside("tls.key"), others.key));
}

#[test]
fn a_gateway_that_does_not_take_the_laptop_closes_nothing_open() {
    let other = |_: &Scene| Setup {
        tamper: Some(another_certificate),
        ..setup()
    };
    refused(at::GUEST, other, "received AUTHENTICATION_FAILED");
}

#[test]
fn a_gateway_that_gives_another_address_is_not_used() {
    let other = Ipv4Addr::new(10, 250, 7, 77);
    refused(other, |_| setup(), "the engine's tunnel is down");
}

#[test]
fn a_network_that_falls_silent_ends_the_tunnel() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let rules = |rules: &str| must(must(scene.lab.run("cafe", &["nft", rules])).ok());
    let mark = laptop.events().mark();
    let start = Instant::now();
    rules("add rule ip cafe through udp dport 4500 drop");
    // Nobody sends anything: charon itself asks, and the policy's `dead_after` is 3 s.
    must(laptop.wait_closed(mark, Duration::from_secs(6)));
    eprintln!("closed {:?} after the network fell silent", start.elapsed());
    let mark = laptop.events().mark();
    let start = Instant::now();
    rules("flush chain ip cafe through; add rule ip cafe through udp dport 51820 drop");
    ENGINE.wait_up(&laptop, mark, 2 * BACK_WITHIN);
    eprintln!("back {:?} after the network was", start.elapsed());
    must(laptop.wait_page(Duration::from_secs(5)));
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_pulled_cable_ends_the_tunnel_at_once() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let mark = laptop.events().mark();
    let start = Instant::now();
    must(scene.lab.unplug(at::ETH0));
    must(laptop.wait_closed(mark, Duration::from_secs(1)));
    eprintln!("closed {:?} after the cable was pulled", start.elapsed());
    ENGINE.program_ends(&laptop);
    let mark = laptop.events().mark();
    must(scene.lab.plug(at::ETH0, sekisho_lab::Wall::Cafe));
    ENGINE.wait_up(&laptop, mark, 2 * BACK_WITHIN);
    must(laptop.wait_page(Duration::from_secs(5)));
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn garbage_from_the_gateways_address_changes_nothing() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let charon = must(laptop.charon());
    let keeper = must(laptop.pid(Part::Ike));
    let mark = laptop.events().mark();
    let download = Download::start(&laptop, 1_000_000, 200_000);
    let sent = scene.run(
        "cafe",
        &[
            "python3",
            &format!("{}/stage/ike_garbage.py", env!("CARGO_MANIFEST_DIR")),
            &at::GATEWAY_IKE.ip().to_string(),
            "lan",
        ],
    );
    eprintln!("{}", sent.trim());
    download.lives_on();
    assert!(
        laptop.wait_closed(mark, Duration::from_secs(1)).is_err(),
        "garbage closed the gate"
    );
    assert_eq!(must(laptop.charon()), charon);
    assert_eq!(must(laptop.pid(Part::Ike)), keeper);
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn wireguard_takes_over_from_ipsec_as_soon_as_it_gets_through() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &setup());
    let download = Download::start(&laptop, 2_000_000, 200_000);
    let charon = must(laptop.charon());
    let mark = laptop.events().mark();
    scene.run("cafe", &["nft", "delete", "chain", "ip", "cafe", "through"]);
    // The policy's longest pause between tries is 5 s.
    must(
        laptop.wait_event(mark, "WireGuard", Duration::from_secs(10), |event| {
            event.is("gate", "situation") && event.text("gateway") == "honcho-1"
        }),
    );
    must(laptop.wait_page(Duration::from_secs(5)));
    ENGINE.program_ends(&laptop);
    assert!(!std::path::Path::new(&format!("/proc/{charon}")).exists());
    download.lives_on();
    scene.holds(&laptop, Expects::Tunnelled);
}
