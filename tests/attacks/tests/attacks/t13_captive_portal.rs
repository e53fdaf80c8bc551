//! T13: a hotel's network wants a page filled in first. It hands out a lease that says so (RFC 8910)
//! and lets nothing through. Nothing is filled in, nothing is asked in clear, and the person is told.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{Cafe, NetLaptop, Setup, UP_LIMIT, address as at};

#[test]
fn t13_a_captive_portal_is_named_and_not_filled_in() {
    let portal = format!("dhcp-option-force=114,https://{}/accept", at::CAFE_ROUTER);
    let Some(scene) = Scene::with(Cafe {
        extra: vec![portal],
        ..Cafe::default()
    }) else {
        return;
    };
    // Until it is filled in, the hotel passes nothing on.
    let shut = must(
        scene
            .lab
            .run("cafe", &["nft", "add", "table", "ip", "portal"]),
    );
    must(shut.ok());
    let chain = "{ type filter hook forward priority -10; policy drop; }";
    let shut = must(scene.lab.run(
        "cafe",
        &["nft", "add", "chain", "ip", "portal", "forward", chain],
    ));
    must(shut.ok());

    let laptop = must(NetLaptop::start(&scene.lab, &Setup::default()));
    must(laptop.plug_guest());
    must(laptop.wait_event(0, "captive-portal", UP_LIMIT, |event| {
        event.is("uplink", "uplink") && event.text("event") == "captive-portal"
    }));
    assert!(laptop.page(Duration::from_secs(5)).is_err());
    scene.holds(&laptop, Expects::Closed);
}
