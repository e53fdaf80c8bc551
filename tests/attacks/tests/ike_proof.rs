//! How laptop and `IPsec` gateway prove themselves, beyond certificates of the right authority: lists of
//! revoked ones, TLS in EAP, a key in a token, and the gateway's side in the office. The real charon
//! in its sandbox against Debian's `strongSwan`.

use std::{
    fs,
    time::{Duration, Instant},
};

use sekisho_attacks::{Download, Engine, Expects, Scene, card, must};
use sekisho_lab::{LaptopFiles, Part, Setup, Wall, address as at, oracle::count_frames};

const ENGINE: Engine = Engine {
    gateway: "honcho-ikev2",
    part: Part::Ike,
    program: |laptop| laptop.charon(),
    kill_program: |laptop| laptop.kill_charon(),
};

fn setup() -> Setup {
    Setup {
        ike: true,
        ..Setup::default()
    }
}

/// The lab's policy with a further line for the gateway.
fn with(scene: &Scene, line: &str) -> Setup {
    let policy = scene.lab.papers().policy_with_ike();
    assert_eq!(policy.matches("remote_id").count(), 1);
    Setup {
        policy: Some(policy.replace("remote_id", &format!("{line}\nremote_id"))),
        ..setup()
    }
}

/// Puts another list of revoked certificates in the place of the laptop's.
fn list(files: &LaptopFiles, name: &str) {
    let beside = |name: &str| files.device.with_file_name(name);
    must(fs::rename(beside(name), beside("ike-revoked.pem")));
}

/// Writes the lists that the laptop may get.
fn lists(scene: &Scene) {
    let folder = scene.lab.dir().join("device");
    must(fs::create_dir_all(&folder));
    let ike = &scene.lab.papers().ike;
    for (name, text) in [
        ("revoked-gateway.pem", &ike.revoked_gateway),
        ("revoked-stale.pem", &ike.revoked_stale),
    ] {
        must(fs::write(folder.join(name), text));
    }
}

#[test]
fn a_gateway_whose_certificate_is_revoked_is_never_believed() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    lists(&scene);
    let revoked = Setup {
        tamper: Some(|files| list(files, "revoked-gateway.pem")),
        ..setup()
    };
    ENGINE.is_refused(&scene, &revoked, "certificate was revoked");
}

fn strict(scene: &Scene) -> Setup {
    with(scene, "revocation = \"strict\"")
}

#[test]
fn strict_takes_a_list_in_force() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &strict(&scene));
    scene.holds(&laptop, Expects::Beyond);
}

/// What goes through above fails here by the list alone.
#[test]
fn strict_refuses_a_list_that_is_out_of_date() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    lists(&scene);
    let stale = Setup {
        tamper: Some(|files| list(files, "revoked-stale.pem")),
        ..strict(&scene)
    };
    ENGINE.is_refused(&scene, &stale, "constraint check failed");
}

#[test]
fn a_laptop_proves_itself_by_tls_in_eap() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &with(&scene, "auth = \"eap-tls\""));
    let gateway = scene.lab.server("gateway-charon").unwrap();
    let said = gateway.lines();
    assert!(
        said.iter().any(|line| line.contains("with EAP successful")),
        "{said:?}"
    );
    Download::start(&laptop, 1_000_000, 0).lives_on();
    scene.holds(&laptop, Expects::Beyond);
}

/// Somebody else's certificate in place of the laptop's.
fn another_certificate(files: &LaptopFiles) {
    let others = must(sekisho_lab::IkePapers::generate("mihon-0001"));
    let beside = |name| files.device.with_file_name(name);
    must(fs::write(beside("tls.pem"), others.certificate));
    must(fs::write(beside("tls.key"), others.key));
}

#[test]
fn a_gateway_does_not_take_a_strangers_certificate_by_tls_in_eap() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let strange = Setup {
        tamper: Some(another_certificate),
        ..with(&scene, "auth = \"eap-tls\"")
    };
    ENGINE.is_refused(&scene, &strange, "the engine's tunnel is down");
    let gateway = scene.lab.server("gateway-charon").unwrap();
    let said = gateway.lines();
    assert!(
        said.iter().any(|line| line.contains("to verify TLS peer")),
        "{said:#?}"
    );
}

#[test]
fn the_key_stays_in_a_token() {
    if card::no_token() {
        return;
    }
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let laptop = ENGINE.laptop(&scene, &card::setup(true, card::into_token));
    assert!(!scene.lab.dir().join("device/tls.key").exists());
    Download::start(&laptop, 1_000_000, 0).lives_on();
    scene.holds(&laptop, Expects::Beyond);
}

#[test]
fn a_wrong_pin_opens_nothing() {
    if card::no_token() {
        return;
    }
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let setup = card::setup(true, |files| {
        card::into_token(files);
        must(fs::write(files.device.with_file_name("pin"), "141421\n"));
    });
    // And it is tried once: a smart card locks itself after a few.
    ENGINE.is_refused(&scene, &setup, "its PIN is not tried again");
}

#[test]
fn the_tunnel_enters_from_the_office_once_that_is_proven() {
    let Some(scene) = Scene::with_ipsec(at::GUEST) else {
        return;
    };
    let lan = format!("lan_address = \"{}:4500\"", at::GATEWAY_LAN.ip());
    let mut setup = with(&scene, &lan);
    // The other gateway would be taken first: from the office both are reached.
    setup.policy = setup.policy.map(|policy| {
        let (before, rest) = policy.split_once("[[vpn.gateway]]").unwrap();
        let (other, rest) = rest.split_once("[[vpn.gateway]]").unwrap();
        assert!(other.contains("honcho-1"));
        format!("{before}[[vpn.gateway]]{rest}")
    });
    let laptop = ENGINE.laptop(&scene, &setup);
    let charon = must(laptop.charon());
    let download = Download::start(&laptop, 1_500_000, 100_000);
    for round in 0..2 {
        let mark = laptop.events().mark();
        let start = Instant::now();
        must(scene.lab.plug(at::ETH1, Wall::Office));
        scene.placed(&laptop, mark, "onprem");
        eprintln!(
            "round {round}: at the office {:?} after the cable",
            start.elapsed()
        );
        must(laptop.wait_page(Duration::from_secs(5)));
        let mark = laptop.events().mark();
        must(scene.lab.unplug(at::ETH1));
        scene.placed(&laptop, mark, "remote");
        must(laptop.wait_page(Duration::from_secs(5)));
    }
    download.lives_on();
    assert_eq!(must(laptop.charon()), charon, "it was begun anew");
    let recordings = scene.holds(&laptop, Expects::Beyond);
    let sealed = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        frame.len() > 74 && frame[23] == 17 && frame[30..34] == at::GATEWAY_LAN.ip().octets()
    }));
    assert!(sealed > 0, "nothing entered from the office");
}
