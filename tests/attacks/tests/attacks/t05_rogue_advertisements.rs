//! T05: a stranger on the LAN sends router advertisements (RFC 4861, 4191, 8106): a default route, a
//! route to more specific prefixes, a prefix to make addresses of, a resolver.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{address as at, oracle::count_frames, packet::PacketSocket};

const RADVD: &str = "interface lan {
    AdvSendAdvert on;
    MinRtrAdvInterval 3;
    MaxRtrAdvInterval 4;
    AdvDefaultPreference high;
    prefix 2001:db8:66::/64 { AdvOnLink on; AdvAutonomous on; };
    route 2001:db8:10::/48 { AdvRoutePreference high; };
    RDNSS 2001:db8:66::53 { };
};
";

/// Where the stranger's prefix and its routes show.
const PREFIX: &str = "2001:db8:";

fn is_advertisement(frame: &[u8]) -> bool {
    frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 134
}

#[test]
fn t05_router_advertisements_reach_neither_the_uplink_nor_the_guest() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    let ipv6 = |node: &str, accept: &str| {
        let settings = format!(
            "cd /proc/sys/net/ipv6/conf; echo {accept} > lan/accept_ra; echo 0 > lan/disable_ipv6"
        );
        scene.run(node, &["sh", "-c", &settings]);
    };
    ipv6("attacker", "0");
    scene.run(
        "attacker",
        &[
            "sh",
            "-c",
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        ],
    );
    let conf = lab.dir().join("radvd.conf");
    must(std::fs::write(&conf, RADVD));
    let pid = lab.dir().join("radvd.pid");
    let (conf, pid) = (conf.to_string_lossy(), pid.to_string_lossy());
    let radvd = [
        "radvd", "-n", "-m", "stderr", "-d", "1", "-C", &*conf, "-p", &*pid,
    ];
    let _radvd = must(lab.spawn("attacker", "radvd", &radvd));
    // Somebody on the same LAN believes the stranger: what he sends is worth believing.
    ipv6("cafe", "1");

    let laptop = scene.laptop();
    let nic = must(laptop.guest_packets());
    let cable = must(PacketSocket::open(&must(laptop.uplink_space()), at::ETH0));
    for _ in 0..2 {
        let heard = must(cable.wait(Duration::from_secs(15), |frame| {
            is_advertisement(frame).then_some(())
        }));
        assert!(
            heard.is_some(),
            "no advertisement reached the laptop's cable"
        );
    }
    let believer = scene.run("cafe", &["ip", "-6", "addr", "show", "dev", "lan"]);
    let routes = scene.run("cafe", &["ip", "-6", "route", "show"]);
    assert!(
        believer.contains(PREFIX) && routes.contains("default via fe80:"),
        "nobody else believes the stranger either: {believer}{routes}"
    );

    for command in [
        &["ip", "-6", "addr", "show"][..],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "-6", "neigh", "show"],
    ] {
        let shown = scene.uplink(&laptop, command);
        assert!(
            shown.success() && shown.stdout.trim().is_empty(),
            "the uplink took something up: {shown}"
        );
    }
    must(laptop.page(Duration::from_secs(10)));
    for command in [
        &["ip", "-6", "addr", "show"][..],
        &["ip", "-6", "route", "show"],
        &["cat", "/etc/resolv.conf"],
    ] {
        let shown = must(laptop.guest(command)).stdout;
        assert!(
            !shown.contains(PREFIX) && !shown.contains("default"),
            "the guest took something up: {shown}"
        );
    }
    let mut page = false;
    let heard = must(nic.wait(Duration::from_millis(500), |frame| {
        page |= frame.len() > 14 && frame[12..14] == [8, 0];
        is_advertisement(frame).then_some(())
    }));
    assert!(page, "the guest's NIC was not heard at all");
    assert!(heard.is_none(), "an advertisement reached the guest");
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let seen = must(count_frames(
        must(recordings.get("eth0.to")),
        is_advertisement,
    ));
    eprintln!("{seen} advertisements on the laptop's cable");
}
