//! T18: the network drops every datagram to the gateway. The catalogue says ten minutes; here it is
//! as long as `SEKISHO_BLOCKED_SECONDS` says.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{UP_LIMIT, address as at};

/// Three times as long as the policy's `dead_after`, so that the laptop has tried again and again.
const BLOCKED: u64 = 10;

#[test]
fn t18_without_the_gateway_everything_is_closed_and_it_comes_back() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let blocked = std::env::var("SEKISHO_BLOCKED_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(Duration::from_secs(BLOCKED), Duration::from_secs);
    let canary = laptop.canary().hex();
    // Traffic throughout: a packet each 20 ms.
    let ping = [
        "ping",
        "-q",
        "-i",
        "0.02",
        "-s",
        "256",
        "-p",
        &canary,
        "10.12.10.5",
    ];
    let mut ping = must(laptop.guest_spawn("ping", &ping));

    let rules = format!(
        "table ip blocked {{ chain pass {{ type filter hook forward priority filter; \
         ip daddr {0} meta l4proto udp drop; ip saddr {0} meta l4proto udp drop; }}; }}",
        at::GATEWAY_OUTSIDE.ip()
    );
    let mark = laptop.events().mark();
    let start = Instant::now();
    scene.run("cafe", &["nft", &rules]);
    must(laptop.wait_closed(mark, Duration::from_secs(10)));
    eprintln!(
        "closed {:?} after the last datagram passed",
        start.elapsed()
    );
    let mark = laptop.events().mark();
    while start.elapsed() < blocked {
        for url in ["http://10.12.10.5/", "http://198.51.100.80/"] {
            let url = format!("{url}?canary={canary}");
            let seen = must(laptop.guest(&["curl", "-s", "-m", "1", &url]));
            assert!(!seen.success(), "{seen}");
        }
    }
    let opened = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") != "closed"
    });
    assert!(opened.is_none(), "{opened:?}");
    must(laptop.wait_refused(mark, "closed", ""));

    let mark = laptop.events().mark();
    let start = Instant::now();
    scene.run("cafe", &["nft", "delete table ip blocked"]);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    eprintln!("open {:?} after the datagrams pass again", start.elapsed());
    must(laptop.wait_page(UP_LIMIT));
    assert!(
        must(ping.wait(Duration::ZERO)).is_none(),
        "there was no traffic all the time"
    );
    // No fallback is named: the tunnel's own five-tuple is all that was on the wire.
    scene.holds(&laptop, Expects::Tunnelled);
}
