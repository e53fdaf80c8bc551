//! T35: the guest forges source addresses: neighbours', public, martian, multicast. All are dropped
//! at its side of the gate, and none is seen inside the tunnel.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, address as at,
    oracle::{Canaries, count_canaries},
    packet::udp_frame,
};

const FORGED: [[u8; 4]; 12] = [
    [10, 250, 7, 99],
    [10, 250, 7, 1],
    [10, 12, 10, 5],
    [10, 99, 0, 1],
    [192, 168, 43, 100],
    [8, 8, 8, 8],
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [169, 254, 1, 1],
    [224, 0, 0, 1],
    [240, 0, 0, 1],
    [255, 255, 255, 255],
];

#[test]
fn t35_forged_sources_are_dropped_at_the_guests_side() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let nic = must(laptop.guest_packets());
    let router = router_mac(&laptop);
    let time = SocketAddrV4::new(at::LGWAN_NTP, 123);
    let (forged, honest) = (scene.canary(), scene.canary());
    let mark = laptop.events().mark();
    for source in FORGED.map(Ipv4Addr::from) {
        let from = SocketAddrV4::new(source, 40_123);
        // The same packet would be allowed with the guest's own address.
        must(nic.send(&udp_frame(
            (at::GUEST_MAC, router),
            from,
            time,
            &forged.bytes(),
        )));
    }
    must(laptop.wait_refused(mark, "anti-spoof", ""));
    let own = SocketAddrV4::new(at::GUEST, 40_123);
    must(nic.send(&udp_frame(
        (at::GUEST_MAC, router),
        own,
        time,
        &honest.bytes(),
    )));
    must(laptop.page(Duration::from_secs(10)));
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let inside = |canary| {
        must(count_canaries(
            must(recordings.get("tunnel")),
            &Canaries::new([canary]),
        ))
    };
    assert_eq!(
        inside(&forged),
        0,
        "a forged source was seen inside the tunnel"
    );
    assert!(inside(&honest) > 0, "the honest packet did not pass either");
}

fn router_mac(laptop: &NetLaptop<'_>) -> [u8; 6] {
    let shown = must(laptop.guest(&["ip", "neigh", "show", &at::GUEST_ROUTER.to_string()])).stdout;
    let bytes: Vec<u8> = shown
        .split_whitespace()
        .skip_while(|word| *word != "lladdr")
        .nth(1)
        .unwrap_or_default()
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes
        .try_into()
        .unwrap_or_else(|_| panic!("no MAC of the router: {shown}"))
}
