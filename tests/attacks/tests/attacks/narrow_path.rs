//! A network outside that carries less than Ethernet (`PPPoE`, another tunnel): its router says so once,
//! and the work OS's packets become short enough, instead of vanishing.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::address as at;

/// The cafe's line. With the tunnel around it a packet of 1,340 bytes fits; of those, what is a multiple
/// of 16.
const LINE: &str = "1400";
const TOLD: &str = "1328";
/// A line on which the shortest that packets may become (1,280 bytes, 1,340 with the tunnel) do not fit.
const BELOW: &str = "1300";

#[test]
fn a_narrow_line_outside_is_told_to_the_work_os() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let groupware = at::GROUPWARE.to_string();
    let full = [
        "ping", "-c", "6", "-i", "0.3", "-W", "1", "-M", "do", "-s", "1392", &groupware,
    ];
    // The control: on a wide line it passes, and nobody says a thing.
    let wide = must(laptop.guest(&full));
    assert!(wide.success() && !wide.stdout.contains("mtu"), "{wide}");

    scene.run("cafe", &["ip", "link", "set", "dev", "wan", "mtu", LINE]);
    let narrow = must(laptop.guest(&full));
    let said = format!("{}{}", narrow.stdout, narrow.stderr);
    assert!(!narrow.success() && said.contains(TOLD), "{narrow}");
    let canary = laptop.canary().hex();
    let upload = format!(
        "yes {canary} | head -c 300000 | curl -sS -m 10 -o /dev/null -T - http://{}/",
        at::COLLECTOR
    );
    must(must(laptop.guest(&["sh", "-c", &upload])).ok());

    // Below the floor packets stay as long as they are, and the datagrams are cut.
    scene.run("cafe", &["ip", "link", "set", "dev", "wan", "mtu", BELOW]);
    must(must(laptop.guest(&["sh", "-c", &upload])).ok());
    must(laptop.wait_page(Duration::from_secs(5)));
    scene.holds(&laptop, Expects::Tunnelled);
}
