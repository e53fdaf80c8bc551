//! T01 (`TunnelVision`, CVE-2024-3661): the DHCP server hands out classless routes (RFC 3442) that
//! are more specific than any default route: two halves of the world, then one LGWAN server.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{Cafe, address as at};

#[test]
fn t01_dhcp_routes_are_ignored_and_reported() {
    let routes = "0.0.0.0/1,192.168.43.66,128.0.0.0/1,192.168.43.66,10.12.10.5/32,192.168.43.66";
    let extra = vec![
        format!("dhcp-option-force=121,{routes}"),
        format!("dhcp-option-force=249,{routes}"),
    ];
    let Some(scene) = Scene::with(Cafe {
        extra,
        ..Cafe::default()
    }) else {
        return;
    };
    let laptop = scene.laptop();
    must(
        laptop.wait_event(0, "option 121 ignored", Duration::from_secs(5), |event| {
            event.is("uplink", "ignored") && event.text("what").contains("option 121")
        }),
    );
    let mut routes = must(laptop.uplink_space()).command("ip");
    routes.args(["route", "show", "table", "all"]);
    let routes = must(scene.lab.run_command(routes, Duration::from_secs(5)));
    let routes = must(routes.ok()).stdout;
    // The lease's own router is there: what is listed is what the uplink routes by.
    assert!(routes.contains(&at::CAFE_ROUTER.to_string()), "{routes}");
    assert!(!routes.contains(&at::ATTACKER.to_string()), "{routes}");
    scene.holds(&laptop, Expects::Tunnelled);
}
