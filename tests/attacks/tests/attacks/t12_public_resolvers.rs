//! T12: the guest asks the LAN's resolver and public ones, by DNS, DNS over TLS and DNS over HTTPS.

use std::{net::Ipv4Addr, time::Duration};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{address as at, oracle::count_frames};

#[test]
fn t12_no_resolver_but_the_gates_own() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let name = format!("{}.example", laptop.canary().hex());
    for resolver in ["192.168.43.1", "8.8.8.8", "198.51.100.53"] {
        let mark = laptop.events().mark();
        let command = [
            "timeout", "2", "busybox", "nslookup", "-type=a", &name, resolver,
        ];
        let asked = must(laptop.guest(&command));
        assert!(!asked.success(), "{asked}");
        must(laptop.wait_refused(mark, "default-deny", &format!("udp {resolver}:53")));
    }
    for url in [
        "https://198.51.100.53/dns-query",
        "https://198.51.100.53:853/",
        "http://198.51.100.53:53/",
    ] {
        let mark = laptop.events().mark();
        let asked = must(laptop.guest(&["curl", "-sk", "-m", "2", url]));
        assert!(!asked.success(), "{asked}");
        must(laptop.wait_refused(mark, "default-deny", "tcp 198.51.100.53:"));
    }
    // Names outside policy's domains are nobody's business either.
    let asked = must(laptop.guest(&["timeout", "5", "busybox", "nslookup", "-type=a", &name]));
    assert!(!asked.success(), "{asked}");
    // The beacon is asked for on every wire; here its address leads to the sink, which notes it.
    let sink = must(scene.lab.guestbook("internet"));
    let beacon = sink.wait(Duration::from_secs(10), |visit| visit.to == at::BEACON);
    assert!(beacon.is_some(), "the sink notes nobody");
    let mut visits = sink.visits();
    visits.retain(|visit| visit.to != at::BEACON);
    assert!(visits.is_empty(), "{visits:?}");
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    // Not even inside the tunnel, but to LGWAN's own resolver.
    let tunnel = must(recordings.get("tunnel"));
    let asked = |who: &dyn Fn(Ipv4Addr) -> bool| {
        must(count_frames(tunnel, |packet| {
            let dns = packet.len() > 24
                && packet[0] == 0x45
                && [[0, 53], [3, 85]].contains(&[packet[22], packet[23]]);
            dns && who([packet[16], packet[17], packet[18], packet[19]].into())
        }))
    };
    assert!(asked(&|to| to == at::LGWAN_DNS) > 0, "the search is blind");
    assert_eq!(
        asked(&|to| to != at::LGWAN_DNS && to != at::GUEST),
        0,
        "a stranger's resolver was asked through the tunnel"
    );
}
