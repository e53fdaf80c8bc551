//! IPv6 inside the tunnel, where policy names networks of it: a stock kernel and a stock `DHCPv6` client
//! get one router and one address, a page comes, and what a guest could do besides comes to nothing.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, Process, Setup, address as at,
    oracle::{Canaries, count_canaries},
};

/// IPv6 between the gateway and a web server of the LGWAN side, and into the tunnel.
/// The server lives as long as what is given beside the scene.
fn six() -> Option<(Scene, Process)> {
    let scene = Scene::cafe()?;
    let server = at::GROUPWARE_V6;
    let on = |interfaces: &[&str]| {
        interfaces
            .iter()
            .map(|name| format!("echo 0 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6"))
            .collect::<Vec<_>>()
            .join(" && ")
    };
    scene.run(
        "lgwan",
        &[
            "sh",
            "-c",
            &format!(
                "{} && ip addr add 2001:db8:12:ff::2/64 dev core nodad \
                 && ip addr add {server}/128 dev lo nodad \
                 && ip -6 route add default via 2001:db8:12:ff::1",
                on(&["core", "lo"])
            ),
        ],
    );
    scene.run(
        "gateway",
        &[
            "sh",
            "-c",
            &format!(
                "{} && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding \
                 && ip addr add 2001:db8:12:ff::1/64 dev lgwan nodad \
                 && ip -6 route add 2001:db8:12::/48 via 2001:db8:12:ff::2 \
                 && ip -6 route add {guest}/128 dev wg0 \
                 && wg set wg0 peer $(wg show wg0 allowed-ips | grep -F {v4}/32 | cut -f1) \
                 allowed-ips {v4}/32,{guest}/128",
                on(&["lgwan", "wg0"]),
                v4 = at::GUEST,
                guest = at::GUEST_V6,
            ),
        ],
    );
    let text = format!("over IPv6 {}", scene.lab.canary().hex());
    let web = scene.stage("lgwan", "six-web", "six.py", &[&server.to_string(), &text]);
    Some((scene, web))
}

fn laptop(scene: &Scene) -> NetLaptop<'_> {
    let setup = Setup {
        policy: Some(scene.lab.papers().policy_with_ipv6()),
        ..Setup::default()
    };
    must(NetLaptop::start_up(&scene.lab, &setup))
}

fn guest(laptop: &NetLaptop<'_>, command: &[&str]) -> String {
    must(must(laptop.guest(command)).ok()).stdout
}

/// What the kernel of the guest made of what it heard: its route and its addresses of IPv6.
fn kernel(laptop: &NetLaptop<'_>) -> (String, String) {
    (
        guest(laptop, &["ip", "-6", "route", "show", "default"]),
        guest(
            laptop,
            &[
                "ip", "-6", "-o", "addr", "show", "dev", "net0", "scope", "global",
            ],
        ),
    )
}

/// Debian's `DHCPv6` client, for one lease.
fn lease(laptop: &NetLaptop<'_>) -> bool {
    let client = [
        "dhcpcd",
        "-6",
        "-1",
        "-B",
        "-t",
        "10",
        "-f",
        "/dev/null",
        "-c",
        "/bin/true",
        "net0",
    ];
    must(laptop.guest(&client)).success()
}

fn page(laptop: &NetLaptop<'_>) -> sekisho_lab::Output {
    let url = format!(
        "http://{}/?canary={}",
        at::GROUPWARE_V6_NAME,
        laptop.canary().hex()
    );
    must(laptop.guest(&["curl", "-sS", "-6", "-m", "10", &url]))
}

fn gate_mac(laptop: &NetLaptop<'_>) -> String {
    let shown = guest(
        laptop,
        &["ip", "neigh", "show", &at::GUEST_ROUTER.to_string()],
    );
    let mut words = shown.split_whitespace().skip_while(|w| *w != "lladdr");
    words.nth(1).expect("the gate's MAC").to_owned()
}

#[test]
fn ipv6_inside_the_tunnel_where_policy_names_it() {
    let Some((scene, _web)) = six() else { return };
    let laptop = laptop(&scene);

    // The kernel's own neighbour discovery: a router, and no address made of a prefix.
    let start = Instant::now();
    let (route, addresses) = loop {
        let (route, addresses) = kernel(&laptop);
        if route.contains("proto ra") || start.elapsed() > Duration::from_secs(20) {
            break (route, addresses);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(route.contains("via fe80::53:4b"), "no router: {route}");
    assert_eq!(addresses, "", "an address of the guest's own making");
    assert!(lease(&laptop), "no lease");
    let (route, addresses) = kernel(&laptop);
    assert!(route.contains("via fe80::53:4b"), "no router: {route}");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(
        addresses.contains(&format!("{}/128", at::GUEST_V6)),
        "{addresses}"
    );

    let came = page(&laptop);
    assert!(
        came.stdout.contains(&scene.lab.canary().hex()),
        "no page over IPv6: {came}"
    );
    let neighbours = guest(&laptop, &["ip", "-6", "neigh", "show", "dev", "net0"]);
    assert!(neighbours.contains("fe80::53:4b"), "{neighbours}");

    // What a guest could do besides; each by the rule that is meant for it.
    let (gate, own, server) = (
        gate_mac(&laptop),
        at::GUEST_V6.to_string(),
        at::GROUPWARE_V6.to_string(),
    );
    let script = format!("{}/stage/ipv6_tricks.py", env!("CARGO_MANIFEST_DIR"));
    let play = |trick: &str, mark: &str| {
        let command = [
            "/usr/bin/python3",
            &script,
            "net0",
            &gate,
            &own,
            &server,
            trick,
            mark,
        ];
        guest(&laptop, &command);
    };
    let (forged, honest) = (scene.canary(), scene.canary());
    for (trick, rule) in [
        ("spoof", "anti-spoof"),
        ("router", "impostor"),
        ("far", "malformed"),
        ("extensions", "fragment"),
        ("multicast", "not-served"),
        ("elsewhere", "default-deny"),
        ("within", "not-served"),
    ] {
        let mark = laptop.events().mark();
        play(trick, &forged.hex());
        must(laptop.wait_refused(mark, rule, ""));
    }
    // The positive control: the same datagram in form passes. Policy has TCP and echo there only, so
    // it is an echo.
    let ping = [
        "ping",
        "-6",
        "-c",
        "1",
        "-W",
        "5",
        "-p",
        &honest.hex(),
        &server,
    ];
    guest(&laptop, &ping);
    let (route, addresses) = kernel(&laptop);
    assert!(route.contains("via fe80::53:4b"), "{route}");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(page(&laptop).success());
    must(laptop.page(Duration::from_secs(10)));

    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    for (capture, canary, wanted) in [
        ("tunnel", &forged, false),
        ("gateway-lgwan", &forged, false),
        ("tunnel", &honest, true),
        ("gateway-lgwan", &honest, true),
        ("gateway-lgwan", laptop.canary(), true),
    ] {
        let canaries = Canaries::new([canary]);
        let seen = must(count_canaries(must(recordings.get(capture)), &canaries));
        assert_eq!(seen > 0, wanted, "{capture}: {seen} of {}", canary.hex());
    }
}

/// The same world, the same device, a policy without IPv6: no router, no lease, no page by that way.
#[test]
fn ipv6_nothing_of_it_where_policy_names_none() {
    let Some((scene, _web)) = six() else { return };
    let laptop = scene.laptop();
    assert!(!lease(&laptop), "a lease");
    let (route, addresses) = kernel(&laptop);
    assert_eq!((route.as_str(), addresses.as_str()), ("", ""));
    assert!(!page(&laptop).success(), "a page over IPv6");
    // Set up by hand it comes to nothing as well.
    let gate = gate_mac(&laptop);
    let own = format!("{}/128", at::GUEST_V6);
    guest(
        &laptop,
        &["ip", "addr", "add", &own, "dev", "net0", "nodad"],
    );
    let neighbour = [
        "ip",
        "neigh",
        "replace",
        "fe80::53:4b",
        "lladdr",
        &gate,
        "dev",
        "net0",
    ];
    guest(&laptop, &neighbour);
    let route = [
        "ip",
        "-6",
        "route",
        "replace",
        "default",
        "via",
        "fe80::53:4b",
        "dev",
        "net0",
    ];
    guest(&laptop, &route);
    let mark = laptop.events().mark();
    let url = format!(
        "http://[{}]/?canary={}",
        at::GROUPWARE_V6,
        laptop.canary().hex()
    );
    let fetched = must(laptop.guest(&["curl", "-sS", "-g", "-m", "3", &url]));
    assert!(!fetched.success(), "{fetched}");
    must(laptop.wait_refused(mark, "ipv6", ""));
    must(laptop.page(Duration::from_secs(10)));
    scene.holds(&laptop, Expects::Tunnelled);
}
