//! The uplink's program against a real DHCP server, a real kernel and a real packet filter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bridged;
mod direct;
mod duplicate;
#[path = "../fixture/mod.rs"]
mod fixture;
mod quota;
mod wire;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use fixture::papers::Issue;
use sekisho_control::{Channel, Command, GateToUplink, Report, Side, UplinkToGate};
use sekisho_policy::FloorFile;
use wire::{BEACON, GATEWAY, GATEWAY_LAN, SOON, Uplink, Wire, arrives, cannot_run, receive, until};

const RANGE: &str = "192.168.43.50,192.168.43.60,255.255.255.0,120";
const ROUTER: &str = "--dhcp-option=3,192.168.43.1";

type Gate = Channel<GateToUplink, UplinkToGate>;

/// An uplink with a lease and a gate that holds its path to the gateway.
fn leased(wire: &Wire) -> (Uplink, Gate, UdpSocket) {
    let uplink = wire.start_uplink();
    uplink.report("ready", |report| *report == Report::Ready);
    let gate = uplink.attach_gate();
    let path = next_path(&gate, Side::Outside);
    (uplink, gate, path)
}

fn next_path(gate: &Gate, wanted: Side) -> UdpSocket {
    let (_, fds) = receive(
        gate,
        "a path",
        |message, _| matches!(message, UplinkToGate::Path { side, .. } if *side == wanted),
    );
    socket(fds)
}

fn socket(fds: Vec<OwnedFd>) -> UdpSocket {
    let socket = UdpSocket::from(fds.into_iter().next().unwrap());
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Whether a datagram goes to the peer and another comes back.
fn round_trip(path: &UdpSocket, peer: &UdpSocket) {
    path.send(b"sealed").unwrap();
    let mut buffer = [0; 64];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"sealed");
    peer.send_to(b"answer", from).unwrap();
    let length = path.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
}

fn routes(wire: &Wire) -> Vec<String> {
    let mut routes: Vec<String> = wire
        .ip_host("-4 route show table all")
        .lines()
        .filter(|line| !line.contains("table local"))
        .map(|line| {
            line.split_whitespace()
                .take(5)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    routes.sort();
    routes
}

const HOST_ROUTES: [&str; 4] = [
    "10.12.0.2 via 192.168.43.1 dev eth0",
    "10.12.0.200 via 192.168.43.1 dev eth0",
    "192.168.43.1 dev eth0 proto static",
    "203.0.113.10 via 192.168.43.1 dev eth0",
];

#[test]
fn a_lease_gives_a_path_to_the_gateway() {
    if cannot_run("a_lease_gives_a_path_to_the_gateway") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let gateway = wire.udp(GATEWAY);
    let (uplink, _gate, path) = leased(&wire);

    assert_eq!(
        path.peer_addr().unwrap(),
        GATEWAY.parse::<SocketAddr>().unwrap()
    );
    round_trip(&path, &gateway);
    assert_eq!(routes(&wire), HOST_ROUTES);
    assert!(
        wire.ip_host("-4 addr show eth0").contains("/32 "),
        "a host address, no prefix"
    );
    assert_eq!(wire.ip_host("-6 addr show"), "");

    uplink.command(&Command::Shutdown);
    assert!(uplink.end().success());
    assert!(
        !wire.ip_host("link show eth0").contains("UP"),
        "the link is down"
    );
    assert!(
        wire.nft_host(&["list", "ruleset"]).contains("policy drop"),
        "the rules stay"
    );
}

/// T01: routes by DHCP (CVE-2024-3661). The first with the two halves of the world, the second with
/// a host of the LGWAN.
#[test]
fn t01_routes_of_the_lease_are_ignored_and_reported() {
    if cannot_run("t01_routes_of_the_lease_are_ignored_and_reported") {
        return;
    }
    for pushed in [
        "0.0.0.0/1,192.168.43.66,128.0.0.0/1,192.168.43.66",
        "10.12.10.5/32,192.168.43.66",
    ] {
        let mut wire = Wire::new();
        let classless = format!("--dhcp-option-force=121,{pushed}");
        let microsoft = format!("--dhcp-option-force=249,{pushed}");
        let proxy = "--dhcp-option-force=252,http://192.168.43.66/wpad.dat";
        wire.serve_dhcp(
            RANGE,
            &[
                ROUTER,
                &classless,
                &microsoft,
                proxy,
                "--dhcp-option-force=6,192.168.43.66",
            ],
        );
        let gateway = wire.udp(GATEWAY);
        let uplink = wire.start_uplink();
        let mut codes = Vec::new();
        uplink.report("what was ignored", |report| {
            if let Report::Ignored { what } = report {
                codes.extend(
                    [6, 121, 249, 252]
                        .into_iter()
                        .filter(|code| what.starts_with(&format!("DHCP option {code} "))),
                );
            }
            codes.len() == 4
        });
        let gate = uplink.attach_gate();
        let path = next_path(&gate, Side::Outside);
        assert_eq!(routes(&wire), HOST_ROUTES);
        round_trip(&path, &gateway);
    }
}

/// T03: a lease whose prefix covers the LGWAN and half of the internet (CVE-2023-36672).
#[test]
fn t03_a_wide_prefix_changes_no_route() {
    if cannot_run("t03_a_wide_prefix_changes_no_route") {
        return;
    }
    let mut wire = Wire::new();
    wire.ip_lan("addr add 10.12.10.1/8 dev lan0");
    wire.serve_dhcp(
        "10.12.10.50,10.12.10.60,255.0.0.0,120",
        &["--dhcp-option=3,10.12.10.1"],
    );
    let gateway = wire.udp(GATEWAY);
    let (_uplink, _gate, path) = leased(&wire);
    assert_eq!(
        routes(&wire),
        [
            "10.12.0.2 via 10.12.10.1 dev eth0",
            "10.12.0.200 via 10.12.10.1 dev eth0",
            "10.12.10.1 dev eth0 proto static",
            "203.0.113.10 via 10.12.10.1 dev eth0",
        ]
    );
    round_trip(&path, &gateway);
}

#[test]
fn the_packet_filter_lets_nothing_else_out_or_in() {
    if cannot_run("the_packet_filter_lets_nothing_else_out_or_in") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let (uplink, _gate, path) = leased(&wire);
    let address = path.local_addr().unwrap().ip().to_string();
    let other_port = wire.udp("203.0.113.10:53");
    let neighbour = wire.udp("192.168.43.1:9999");
    let hidden = wire.in_host(|| UdpSocket::bind("0.0.0.0:7777").unwrap());
    let inward = || {
        let _ = neighbour.send_to(b"stray", format!("{address}:7777"));
        hidden
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        hidden.recv(&mut [0; 64]).is_ok()
    };

    assert!(!arrives(&wire, &address, &other_port));
    assert!(!arrives(&wire, &address, &neighbour));
    assert!(!inward());

    // The same without the rules, and without the uplink, which would not stand for it: the check
    // can fail.
    drop(uplink);
    wire.nft_host(&["flush", "ruleset"]);
    assert!(arrives(&wire, &address, &other_port));
    assert!(arrives(&wire, &address, &neighbour));
    assert!(inward());
}

/// T22, seen on a wire: the office's cable is pulled, and the kernel sends the reset of a connection
/// to the beacon over the cafe's. To the kernel an address is the host's, not the port's.
#[test]
fn t22_no_port_speaks_for_another() {
    if cannot_run("t22_no_port_speaks_for_another") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let (uplink, _gate, path) = leased(&wire);
    let own = path.local_addr().unwrap().ip().to_string();
    let gateway = wire.udp(GATEWAY);
    let another = "10.12.100.116";
    wire.ip_host(&format!("addr add {another}/32 dev lo"));

    assert!(arrives(&wire, &own, &gateway));
    assert!(!arrives(&wire, another, &gateway));

    drop(uplink);
    wire.nft_host(&["flush", "ruleset"]);
    assert!(arrives(&wire, another, &gateway), "the check can fail");
}

/// T30: somebody with the power to do so flushes the rules. The uplink ends, and takes the links
/// down; its next start loads them again.
#[test]
fn t30_without_its_rules_the_uplink_ends() {
    if cannot_run("t30_without_its_rules_the_uplink_ends") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let (uplink, gate, path) = leased(&wire);
    wire.nft_host(&["flush", "ruleset"]);
    receive(&gate, "the loss of the carrier", |message, _| {
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    assert!(!uplink.end().success());
    assert!(path.send(b"late").is_err());
    assert!(!wire.ip_host("link show eth0").contains("LOWER_UP"));

    let gateway = wire.udp(GATEWAY);
    let (_uplink, _gate, path) = leased(&wire);
    round_trip(&path, &gateway);
    assert!(wire.nft_host(&["list", "ruleset"]).contains("policy drop"));
}

/// T09, and more: ARP is answered to the next hop alone.
#[test]
fn t09_arp_is_answered_to_the_next_hop_alone() {
    if cannot_run("t09_arp_is_answered_to_the_next_hop_alone") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let (_uplink, _gate, path) = leased(&wire);
    let leased = path.local_addr().unwrap().ip().to_string();
    wire.ip_lan("addr add 192.168.43.66/24 dev lan0");
    let answered = |from: &str, target: &str| {
        wire.ip_lan("neigh flush all");
        wire.ip_lan(&format!("route replace {target}/32 dev lan0 src {from}"));
        let asker = wire.udp(&format!("{from}:0"));
        let _ = asker.send_to(b"who are you", format!("{target}:7777"));
        let mut state = String::new();
        until("the neighbour is known or given up", || {
            state = wire.ip_lan(&format!("neigh show {target} dev lan0"));
            state.contains("FAILED") || state.contains("lladdr")
        });
        state.contains("lladdr")
    };
    // The router may ask for the leased address, the attacker's seat not, and nobody for the
    // guest's address.
    assert!(answered("192.168.43.1", &leased));
    assert!(!answered("192.168.43.66", &leased));
    assert!(!answered("192.168.43.1", "10.250.7.23"));
}

#[test]
fn a_pulled_cable_is_told_first_and_shuts_the_port() {
    if cannot_run("a_pulled_cable_is_told_first_and_shuts_the_port") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let gateway = wire.udp(GATEWAY);
    let (uplink, gate, path) = leased(&wire);
    round_trip(&path, &gateway);

    wire.ip_lan("link set lan0 down");
    receive(&gate, "the loss of the carrier", |message, _| {
        assert!(
            !matches!(message, UplinkToGate::PathLost { .. }),
            "the carrier comes first"
        );
        matches!(message, UplinkToGate::CarrierLost { port } if port == "eth0")
    });
    uplink.report(
        "no-carrier",
        |report| matches!(report, Report::Uplink { event, .. } if event == "no-carrier"),
    );
    assert!(
        path.send(b"late").is_err(),
        "the gate's own descriptor is cut"
    );
    assert_eq!(routes(&wire), [] as [String; 0]);
    let rules = wire.nft_host(&["list", "table", "inet", "sekisho"]);
    assert!(!rules.contains("eth0"), "no set holds the port");

    wire.ip_lan("link set lan0 up");
    let again = next_path(&gate, Side::Outside);
    round_trip(&again, &gateway);
}

/// T22: the proof of the premises opens the LAN side, and ends with the carrier.
#[test]
fn t22_the_lan_side_is_open_only_while_proven() {
    if cannot_run("t22_the_lan_side_is_open_only_while_proven") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let gateway = wire.udp(GATEWAY_LAN);
    let beacon = wire.tcp(BEACON);
    let (_uplink, gate, _path) = leased(&wire);
    let lan_is_open = || {
        let rules = wire.nft_host(&["list", "set", "inet", "sekisho", "proven"]);
        rules.contains("eth0")
    };

    // The beacon's connection is there and works.
    let (_, fds) = receive(
        &gate,
        "the beacon",
        |message, _| matches!(message, UplinkToGate::Beacon { port } if port == "eth0"),
    );
    let (_, from) = beacon.accept().unwrap();
    let connection = std::net::TcpStream::from(fds.into_iter().next().unwrap());
    assert_eq!(connection.local_addr().unwrap(), from);
    assert!(!lan_is_open());

    let premises = |proven| GateToUplink::Premises {
        port: "eth0".into(),
        proven,
    };
    gate.send(&premises(true), &[]).unwrap();
    let lan = next_path(&gate, Side::Lan);
    round_trip(&lan, &gateway);

    gate.send(&premises(false), &[]).unwrap();
    receive(&gate, "the end of the path", |message, _| {
        matches!(message, UplinkToGate::PathLost { .. })
    });
    until("the LAN side is shut", || !lan_is_open());
    assert!(lan.send(b"late").is_err());

    gate.send(&premises(true), &[]).unwrap();
    let lan = next_path(&gate, Side::Lan);
    wire.ip_lan("link set lan0 down");
    receive(&gate, "the loss of the carrier", |message, _| {
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    until("the LAN side is shut", || !lan_is_open());
    assert!(lan.send(b"late").is_err());
    wire.ip_lan("link set lan0 up");
    // Back with a lease, but not proven.
    next_path(&gate, Side::Outside);
    assert!(!lan_is_open());
}

/// A gate that dies costs its sockets; the next one gets fresh ones without a new lease.
#[test]
fn a_new_gate_gets_fresh_paths() {
    if cannot_run("a_new_gate_gets_fresh_paths") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let (uplink, gate, old) = leased(&wire);
    drop(gate);
    until("the old gate's socket is cut", || {
        old.send(b"late").is_err()
    });
    let gateway = wire.udp(GATEWAY);
    let gate = uplink.attach_gate();
    round_trip(&next_path(&gate, Side::Outside), &gateway);
}

/// Killed and started again: what the dead one left is flushed, the port works again.
#[test]
fn a_restart_starts_from_nothing() {
    if cannot_run("a_restart_starts_from_nothing") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let gateway = wire.udp(GATEWAY);
    let (uplink, _gate, _path) = leased(&wire);
    drop(uplink);
    let (_uplink, _gate, path) = leased(&wire);
    assert_eq!(routes(&wire), HOST_ROUTES);
    assert_eq!(
        wire.ip_host("-4 addr show eth0").matches("inet ").count(),
        1
    );
    round_trip(&path, &gateway);
}

/// Any Ethernet card is a wired port, whatever its name; one that leaves takes its paths along.
#[test]
fn a_card_that_leaves_takes_its_paths_along() {
    if cannot_run("a_card_that_leaves_takes_its_paths_along") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    wire.ip_host("link set eth0 name enp0s3");
    let gateway = wire.udp(GATEWAY);
    let (_uplink, gate, path) = leased(&wire);
    round_trip(&path, &gateway);
    wire.ip_host("link del enp0s3");
    receive(
        &gate,
        "the loss of the carrier",
        |message, _| matches!(message, UplinkToGate::CarrierLost { port } if port == "enp0s3"),
    );
}

/// T50: the uplink judges a policy by what the gate remembers, and opens nothing for an older one.
#[test]
fn t50_the_uplink_refuses_what_is_older_than_the_gate_remembers() {
    if cannot_run("t50_the_uplink_refuses_what_is_older_than_the_gate_remembers") {
        return;
    }
    let wire = Wire::new();
    let issue = |version| Issue {
        version,
        ..Issue::default()
    };
    issue(1).write(wire.folder());
    let memory = FloorFile::in_folder(wire.folder()).unwrap();
    memory.keep(issue(2).verified().floor()).unwrap();
    assert!(!wire.start_with_papers().end().success());
    assert_eq!(wire.nft_host(&["list", "ruleset"]), "", "nothing was done");
    assert!(!wire.ip_host("link show eth0").contains("UP"));
    // The control: the very policy that is remembered is good.
    issue(2).write(wire.folder());
    let uplink = wire.start_with_papers();
    uplink.report("ready", |report| *report == Report::Ready);
    assert_eq!(memory.read().unwrap(), *issue(2).verified().floor());
}
