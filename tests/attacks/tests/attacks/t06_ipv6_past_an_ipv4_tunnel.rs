//! T06 (RFC 7359): the LAN offers IPv6 by SLAAC and `DHCPv6` beside an IPv4 tunnel, and the guest
//! tries to use it.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::Canary;

const SERVER: &[&str] = &[
    "dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--log-facility=-",
    "--log-dhcp",
    "--user=root",
    "--group=root",
    "--pid-file=",
    "--port=0",
    "--interface=lan",
    "--bind-interfaces",
    "--enable-ra",
    "--dhcp-range=2001:db8:43::100,2001:db8:43::200,slaac,64,1h",
    "--dhcp-option=option6:dns-server,[2001:db8:43::1]",
];

#[test]
fn t06_the_guest_sends_no_ipv6_past_the_tunnel() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    for node in ["cafe", "attacker"] {
        scene.run(
            node,
            &[
                "sh",
                "-c",
                "echo 0 > /proc/sys/net/ipv6/conf/lan/disable_ipv6",
            ],
        );
    }
    scene.run(
        "cafe",
        &[
            "ip",
            "addr",
            "add",
            "2001:db8:43::1/64",
            "dev",
            "lan",
            "nodad",
        ],
    );
    let leases = format!("--dhcp-leasefile={}", lab.dir().join("v6.leases").display());
    let server = must(lab.spawn("cafe", "dhcpv6", &[SERVER, &[leases.as_str()]].concat()));
    must(server.wait_line("router advertisement on", Duration::from_secs(10)));
    let solicit = format!("{}/stage/solicit.py", env!("CARGO_MANIFEST_DIR"));

    // Another seat on this LAN is served, by both.
    let other = must(Canary::random()).hex();
    let start = Instant::now();
    let mut offered = false;
    while !offered && start.elapsed() < Duration::from_secs(20) {
        let said = must(lab.run("attacker", &["python3", &solicit, "lan", &other])).stdout;
        let addresses = scene.run("attacker", &["ip", "-6", "addr", "show", "dev", "lan"]);
        offered = said.contains("an answer") && addresses.contains("2001:db8:43:");
    }
    assert!(offered, "the LAN offers no IPv6");

    let laptop = scene.laptop();
    let canary = laptop.canary().hex();
    let mark = laptop.events().mark();
    let said = must(laptop.guest(&["python3", &solicit, "net0", &canary])).ok();
    assert_eq!(must(said).stdout.trim(), "silence");
    let addresses = must(laptop.guest(&["ip", "-6", "addr", "show", "dev", "net0"])).stdout;
    assert!(!addresses.contains("2001:"), "{addresses}");
    assert!(
        addresses.contains("fe80:"),
        "the guest has no IPv6 at all: {addresses}"
    );

    // What malware would do: an address and a route of its own, by the gate and by the café's router.
    let neighbours = must(laptop.guest(&["ip", "neigh", "show", "10.250.7.1"])).stdout;
    let gate = neighbours
        .split_whitespace()
        .skip_while(|word| *word != "lladdr")
        .nth(1)
        .unwrap_or_else(|| panic!("no MAC of the gate: {neighbours}"));
    let run = |command: &[&str]| must(must(laptop.guest(command)).ok());
    run(&[
        "ip",
        "addr",
        "add",
        "2001:db8:43::99/64",
        "dev",
        "net0",
        "nodad",
    ]);
    for router in ["fe80::1", "2001:db8:43::1"] {
        run(&[
            "ip", "neigh", "replace", router, "lladdr", gate, "dev", "net0",
        ]);
        run(&[
            "ip", "-6", "route", "replace", "default", "via", router, "dev", "net0",
        ]);
        let ping = [
            "ping", "-6", "-c", "3", "-i", "0.2", "-W", "1", "-s", "64", "-p", &canary,
        ];
        let pinged = must(laptop.guest(&[&ping[..], &["2001:db8::80"]].concat()));
        assert!(!pinged.success(), "{pinged}");
        let url = format!("http://[2001:db8::80]/?canary={canary}");
        let fetched = must(laptop.guest(&["curl", "-s", "-g", "-m", "2", &url]));
        assert!(!fetched.success(), "{fetched}");
    }
    must(laptop.wait_refused(mark, "ipv6", ""));
    must(laptop.page(Duration::from_secs(10)));
    // Any IPv6 frame of the laptop's would turn the oracle red.
    scene.holds(&laptop, Expects::Tunnelled);
}
