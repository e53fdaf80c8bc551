//! T13: the café lets nobody out before he agreed to its terms: every name is the portal's, every
//! connection is answered with 302, everything else is dropped.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, hall, must};
use sekisho_lab::{Cafe, NetLaptop, PUBLIC_ONLY, Setup, UP_LIMIT, address as at};

pub(crate) const PORTAL: &str = "table ip portal {
    chain in {
        type nat hook prerouting priority dstnat - 1;
        iifname lan meta l4proto tcp redirect to :80
    };
    chain pass {
        type filter hook forward priority filter;
        iifname lan drop
    };
}";

pub(crate) const DEAD: &str = "table ip dead {
    chain in {
        type filter hook input priority filter;
        meta l4proto udp drop
    };
}";

/// What the status says of a network that does not say that it has a portal.
pub(crate) const SEEMS: &str = "seems to be a network with a sign-in page";

#[test]
fn t13_a_captive_portal_gets_no_page_into_the_guest() {
    let extra = vec![format!("address=/#/{}", at::CAFE_ROUTER)];
    let Some(scene) = Scene::with(Cafe {
        extra,
        ..Cafe::default()
    }) else {
        return;
    };
    scene.run("cafe", &["nft", PORTAL]);
    let router = at::CAFE_ROUTER.to_string();
    let portal = scene.stage("cafe", "portal", "portal.py", &[&router, "80"]);
    // Everybody else is led to it.
    let stranger = scene.run(
        "attacker",
        &["curl", "-sL", "-m", "5", "http://198.51.100.80/"],
    );
    assert!(stranger.contains("PORTAL"), "no portal: {stranger}");

    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.plug_guest());
    // What the person and IT can read: there is an address, no gateway, and no beacon but a liar.
    must(laptop.wait_event(0, "closed, and why", UP_LIMIT, |event| {
        event.is("gate", "situation")
            && event.text("situation") == "closed"
            && event.text("reason") == "waiting for the gateway's handshake"
    }));
    must(laptop.log().wait_line(hall::NOT_ITS_KEY, UP_LIMIT));
    let canary = laptop.canary().hex();
    let mark = laptop.events().mark();
    for url in [
        format!("http://{router}/login?canary={canary}"),
        format!("http://{}/?canary={canary}", at::GROUPWARE),
        format!("http://{}/?canary={canary}", at::GROUPWARE_NAME),
        format!("http://{}/?canary={canary}", at::DECOY_WEB),
    ] {
        let seen = must(laptop.guest(&["curl", "-sL", "-m", "2", &url]));
        assert!(!seen.success() && seen.stdout.is_empty(), "{seen}");
    }
    must(laptop.wait_refused(mark, "closed", ""));
    // The portal says nothing of itself; the person is told all the same what to do.
    let seen = must(laptop.sekisho(&["status", "--lang", "en"])).stdout;
    assert!(seen.contains(SEEMS), "{seen}");
    let advice = must(laptop.sekisho(&["doctor", "--lang", "en"])).stdout;
    assert!(advice.contains("seems to want a sign-in page"), "{advice}");
    let up = laptop
        .events()
        .wait_after(0, Duration::from_secs(3), |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
    assert!(up.is_none(), "{up:?}");
    // Nothing asked the portal for a page but the seat above; TLS to the beacon is no request.
    let pages = portal
        .lines()
        .iter()
        .filter(|line| line.contains("\"GET"))
        .count();
    assert_eq!(pages, 2, "{:?}", portal.lines());
    scene.holds(&laptop, Expects::Closed);

    // Somebody opens the café's network; the laptop needs nobody to notice.
    must(scene.lab.capture());
    let mark = laptop.events().mark();
    scene.run("cafe", &["nft", "delete table ip portal"]);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
}

/// The hotel's lease says so, too (RFC 8910): the person is told.
#[test]
fn t13_a_captive_portal_is_named_and_not_filled_in() {
    let portal = format!("dhcp-option-force=114,https://{}/accept", at::CAFE_ROUTER);
    let Some(scene) = Scene::with(Cafe {
        extra: vec![portal],
        ..Cafe::default()
    }) else {
        return;
    };
    scene.run("cafe", &["nft", PORTAL]);
    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.plug_guest());
    must(laptop.wait_event(0, "captive-portal", UP_LIMIT, |event| {
        event.is("uplink", "uplink") && event.text("event") == "captive-portal"
    }));
    assert!(laptop.page(Duration::from_secs(5)).is_err());
    scene.holds(&laptop, Expects::Closed);
}

/// The control: a gateway that is off, in a network like any other, is not called a portal. That it may be
/// one is said as a possibility among others.
#[test]
fn t13_a_dead_gateway_is_not_called_a_portal() {
    let Some(scene) = Scene::cafe() else { return };
    scene.run("gateway", &["nft", DEAD]);
    scene.run("cafe", &["nft", PUBLIC_ONLY]);
    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.plug_guest());
    let silent = || {
        let advice = must(laptop.sekisho(&["doctor", "--lang", "en"])).stdout;
        advice.contains("this network blocks the way or has a sign-in page, or the gateway is off")
    };
    let start = std::time::Instant::now();
    while !silent() {
        assert!(start.elapsed() < UP_LIMIT, "{}", laptop.events().tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    // Also after the beacon was asked.
    std::thread::sleep(Duration::from_secs(6));
    assert!(silent());
    let seen = must(laptop.sekisho(&["status", "--lang", "en"])).stdout;
    assert!(!seen.contains("sign-in page"), "{seen}");
    scene.holds(&laptop, Expects::Closed);
}
