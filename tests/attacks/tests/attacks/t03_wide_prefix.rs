//! T03 (`TunnelCrack` `LocalNet`, CVE-2023-36672): the LAN claims a prefix that covers LGWAN, or public
//! servers, so that a client takes them for neighbours and talks to them past its tunnel.

use std::net::Ipv4Addr;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::Cafe;

fn cafe(router: &str, pool: [&str; 2]) -> Cafe {
    let address = |text: &str| must(text.parse::<Ipv4Addr>());
    Cafe {
        router: must(router.parse()),
        pool: (address(pool[0]), address(pool[1])),
        ..Cafe::default()
    }
}

#[test]
fn t03_a_lan_that_covers_lgwan_gets_no_frame_for_it() {
    let lan = cafe("10.12.77.1/16", ["10.12.77.100", "10.12.77.120"]);
    let Some(scene) = Scene::with(lan) else {
        return;
    };
    // The attacker sits on the address of groupware itself.
    for address in ["10.12.10.5/16", "10.12.0.53/16"] {
        must(
            must(
                scene
                    .lab
                    .run("attacker", &["ip", "addr", "add", address, "dev", "lan"]),
            )
            .ok(),
        );
    }
    let laptop = scene.laptop();
    // The oracle knows one next hop, so ARP for 10.12.10.5 would be a leak as well.
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t03_a_lan_that_covers_public_servers_gets_no_frame_for_them() {
    let lan = cafe("198.51.77.1/16", ["198.51.77.100", "198.51.77.120"]);
    let Some(scene) = Scene::with(lan) else {
        return;
    };
    must(
        must(scene.lab.run(
            "attacker",
            &["ip", "addr", "add", "198.51.100.53/16", "dev", "lan"],
        ))
        .ok(),
    );
    let laptop = scene.laptop();
    let mark = laptop.events().mark();
    let refused = must(laptop.guest(&["curl", "-s", "-m", "2", "http://198.51.100.53/"]));
    assert!(!refused.success(), "{refused}");
    must(laptop.wait_refused(mark, "default-deny", "198.51.100.53"));
    scene.holds(&laptop, Expects::Tunnelled);
}
