//! T13 over a SIM, where the beacon proves nothing and is not asked for a proof: who answers in the
//! gateway's place is heard all the same, and told; and nobody else is called so.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{NetLaptop, PUBLIC_ONLY, Setup, UP_LIMIT, address as at};

use super::sim_modem::{says, scene, setup, setup_under, with_modem};
use super::t13_captive_portal::{DEAD, PORTAL, SEEMS};

/// A portal that breaks in on the ports of pages alone, and drops the rest.
const PAGES_ONLY: &str = "table ip portal {
    chain in {
        type nat hook prerouting priority dstnat - 1;
        iifname lan tcp dport { 80, 443 } redirect to :80
    };
    chain pass {
        type filter hook forward priority filter;
        iifname lan drop
    };
}";

/// Connections to the beacon's address that the bearer carried.
const COUNTED: &str = "table ip counted {
    chain in {
        type filter hook prerouting priority -300;
        iifname lan tcp flags & (syn | ack) == syn counter
    };
}";

fn connections(scene: &Scene) -> u32 {
    let counted = scene.run("cafe", &["nft", "list table ip counted"]);
    let packets = counted.split("packets ").nth(1).expect("a counter");
    let packets = packets.split_whitespace().next().expect("a number");
    packets.parse().expect("a number")
}

fn until_said(laptop: &NetLaptop<'_>, arguments: &[&str], said: &str) {
    let start = Instant::now();
    while !says(laptop, arguments).contains(said) {
        assert!(start.elapsed() < UP_LIMIT, "{}", says(laptop, arguments));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn t13_a_captive_portal_is_recognised_over_a_sim() {
    let Some((scene, service)) = scene() else {
        return;
    };
    scene.run("cafe", &["nft", COUNTED]);
    scene.run("cafe", &["nft", PORTAL]);
    let router = at::CAFE_ROUTER.to_string();
    let portal = scene.stage("cafe", "portal", "portal.py", &[&router, "80"]);
    let laptop = must(NetLaptop::start(&scene.lab, &setup(&scene, &service)));
    must(laptop.plug_guest());
    until_said(&laptop, &["status", "--lang", "en"], SEEMS);
    let doctor = ["doctor", "--lang", "en"];
    until_said(&laptop, &doctor, "seems to want a sign-in page");
    let advice = says(&laptop, &["doctor", "--lang", "ja"]);
    assert!(
        advice.contains("認証ページの入力を求めているようです"),
        "{advice}"
    );
    // Once in 15 s, and no request was made.
    std::thread::sleep(Duration::from_secs(5));
    let asked = connections(&scene);
    assert!((1..=2).contains(&asked), "asked {asked} times");
    let requests = |line: &String| line.contains("\"GET") || line.contains("\"POST");
    assert!(!portal.lines().iter().any(requests), "{:?}", portal.lines());
    assert!(laptop.page(Duration::from_secs(1)).is_err());
    scene.holds(&laptop, Expects::Closed);

    // Somebody opens the network; then it is not called so any more.
    must(scene.lab.capture());
    let mark = laptop.events().mark();
    scene.run("cafe", &["nft", "delete table ip portal"]);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    let status = says(&laptop, &["status", "--lang", "en"]);
    assert!(!status.contains(SEEMS), "{status}");
    scene.holds(&laptop, Expects::Tunnelled);
}

/// The controls: over a bearer that leads to the gateway nobody is asked, and a gateway that is off, in a
/// network like any other, is not called a portal.
#[test]
fn t13_a_dead_gateway_over_a_sim_is_not_called_a_portal() {
    let Some((scene, service)) = scene() else {
        return;
    };
    scene.run("cafe", &["nft", COUNTED]);
    let laptop = must(NetLaptop::start_up(&scene.lab, &setup(&scene, &service)));
    must(laptop.page(Duration::from_secs(10)));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(connections(&scene), 0, "asked beside a tunnel");

    scene.run("gateway", &["nft", DEAD]);
    scene.run("cafe", &["nft", PUBLIC_ONLY]);
    let mark = laptop.events().mark();
    let _ = laptop.page(Duration::from_secs(1));
    must(laptop.wait_closed(mark, Duration::from_secs(30)));
    let start = Instant::now();
    while connections(&scene) == 0 {
        assert!(start.elapsed() < UP_LIMIT, "nobody is asked");
        std::thread::sleep(Duration::from_millis(200));
    }
    // And nobody has answered.
    std::thread::sleep(Duration::from_secs(6));
    let advice = says(&laptop, &["doctor", "--lang", "en"]);
    assert!(!advice.contains("seems to want"), "{advice}");
    let status = says(&laptop, &["status", "--lang", "en"]);
    assert!(!status.contains(SEEMS), "{status}");
    scene.holds(&laptop, Expects::Tunnelled);
}

/// Where a gateway takes TLS on the port of pages, a portal that answers there alone is recognised too.
#[test]
fn t13_a_captive_portal_on_443_is_recognised_at_a_gateway_that_takes_tls() {
    let Some((scene, service)) = with_modem(Scene::without_udp) else {
        return;
    };
    scene.run("cafe", &["nft", PAGES_ONLY]);
    let router = at::CAFE_ROUTER.to_string();
    let _portal = scene.stage("cafe", "portal", "portal.py", &[&router, "80"]);
    let policy = scene.lab.papers().policy_with_tls();
    let setup = Setup {
        tls: true,
        ..setup_under(&policy, &service)
    };
    let laptop = must(NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    until_said(&laptop, &["status", "--lang", "en"], SEEMS);
    let doctor = ["doctor", "--lang", "en"];
    until_said(&laptop, &doctor, "seems to want a sign-in page");
    assert!(laptop.page(Duration::from_secs(1)).is_err());
    scene.holds(&laptop, Expects::Closed);

    // The control: the same network without the page leads to that gateway.
    must(scene.lab.capture());
    let mark = laptop.events().mark();
    scene.run("cafe", &["nft", "delete table ip portal"]);
    must(laptop.wait_tunnel(mark, 2 * UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    let status = says(&laptop, &["status", "--lang", "en"]);
    assert!(!status.contains(SEEMS), "{status}");
    scene.holds(&laptop, Expects::Beyond);
}
