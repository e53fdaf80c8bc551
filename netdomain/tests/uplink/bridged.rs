//! The work OS as a member of the office LAN, in a real kernel and with a real DHCP server: whose MAC,
//! lease and ARP are on the cable, what passes, and what ends it.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::io::{Errno, read, write};
use sekisho_control::{Command, GateToUplink, LanPlace, Report, Side, UplinkToGate};

use super::{
    Gate, RANGE, ROUTER,
    direct::member,
    fixture::{
        packets::udp,
        papers::{GUEST, Issue},
    },
    next_path, round_trip,
    wire::{GATEWAY, SOON, Uplink, Wire, cannot_run, receive, until},
};

/// What the LAN's server keeps for the work OS's MAC.
const PLACE: LanPlace = LanPlace {
    address: Ipv4Addr::new(192, 168, 43, 77),
    prefix: 24,
    router: Ipv4Addr::new(192, 168, 43, 1),
};
const RESERVED: &str = "--dhcp-host=02:53:4b:00:07:17,192.168.43.77";
const MAC: &str = "02:53:4b:00:07:17";
/// A printer on the same LAN, and a server behind the router.
const PRINTER: &str = "192.168.43.20:9100";
const SERVER: &str = "10.12.10.5:7000";
const AT_ROUTER: &str = "192.168.43.1:7000";
/// Length of the `virtio_net_hdr` before each packet.
const HEADER: usize = 12;

/// A policy that makes members, and lets them be woken.
fn bridged() -> String {
    let text = Issue::default().text();
    let text = text.replace("lan_address = \"10.12.0.2:51820\"\n", "");
    text.replace(
        "8f9\" }\n",
        "8f9\", round_trip = \"5ms\" }\ndirect = \"bridged\"\nwake_on_lan = true\n",
    )
}

/// A LAN with a printer and a server behind its router.
fn lan() -> (Wire, UdpSocket, UdpSocket) {
    let mut lan = Wire::new();
    lan.serve_dhcp(RANGE, &[ROUTER, RESERVED]);
    for host in [20, 21] {
        lan.ip_lan(&format!("addr add 192.168.43.{host}/24 dev lan0"));
    }
    lan.ip_lan("addr add 10.12.10.5/32 dev lo");
    let (printer, server) = (lan.udp(PRINTER), lan.udp(SERVER));
    (lan, printer, server)
}

fn say(gate: &Gate, proven: bool) {
    let port = "eth0".to_owned();
    gate.send(&GateToUplink::Premises { port, proven }, &[])
        .unwrap();
}

fn ask(gate: &Gate) {
    let ask = GateToUplink::AskWire {
        port: "eth0".into(),
        address: GUEST,
        mtu: 1420,
        member: member(),
    };
    gate.send(&ask, &[]).unwrap();
}

/// Proven under the port's own MAC, and then under the work OS's: its wire, and the tunnel's path over
/// the same port.
fn seated(lan: &Wire) -> (Uplink, Gate, OwnedFd, UdpSocket) {
    Issue::write_text(lan.folder(), &bridged());
    let uplink = lan.start_with_papers();
    uplink.report("ready", |report| *report == Report::Ready);
    let gate = uplink.attach_gate();
    next_path(&gate, Side::Outside);
    let before = mac(lan);
    assert_ne!(before, MAC, "the card has a MAC of its own");
    say(&gate, true);
    ask(&gate);
    let (path, wire) = seat(&gate);
    assert_eq!(mac(lan), MAC);
    (uplink, gate, wire, path)
}

/// The rest of it, once the wire was asked for.
fn seat(gate: &Gate) -> (UdpSocket, OwnedFd) {
    receive(gate, "the end of the first proof", |message, _| {
        assert!(!matches!(message, UplinkToGate::Wire { .. }), "{message:?}");
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    let path = next_path(gate, Side::Outside);
    say(gate, true);
    ask(gate);
    let (_, fds) = receive(gate, "a wire", |message, _| {
        let UplinkToGate::Wire { lan, .. } = message else {
            return false;
        };
        assert_eq!(*lan, Some(PLACE));
        true
    });
    (path, fds.into_iter().next().unwrap())
}

/// The MAC of the port.
fn mac(lan: &Wire) -> String {
    let shown = lan.ip_host("link show eth0");
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    words.next().unwrap().to_owned()
}

/// As the gate writes to a wire.
fn put(wire: &OwnedFd, from: [u8; 4], to: &str, payload: &[u8]) -> Result<usize, Errno> {
    let SocketAddr::V4(to) = to.parse().unwrap() else {
        unreachable!();
    };
    let packet = udp((from.into(), 4000), (*to.ip(), to.port()), payload);
    write(wire, &[&[0; HEADER][..], &packet].concat())
}

fn heard(server: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let soon = Some(Duration::from_millis(500));
    server.set_read_timeout(soon).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

/// Whether this comes off the wire, and nothing that ends in one of those before it.
fn comes(wire: &OwnedFd, wanted: &[u8], never: &[&[u8]]) -> bool {
    let limit = std::time::Instant::now() + SOON;
    let mut buffer = [0; 2048];
    while std::time::Instant::now() < limit {
        match read(wire, &mut buffer) {
            Ok(length) => {
                let packet = &buffer[..length];
                assert!(
                    !never.iter().any(|never| packet.ends_with(never)),
                    "{packet:?}"
                );
                if packet.ends_with(wanted) {
                    return true;
                }
            }
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// Nothing is left of the way, in any table of the kernel's.
fn is_shut(lan: &Wire) -> bool {
    let routes = lan.ip_host("route show table all");
    let set = lan.nft_host(&["list", "set", "inet", "sekisho", "direct"]);
    let arp = lan.nft_host(&["list", "set", "arp", "sekisho", "member"]);
    lan.ways().is_empty()
        && !routes.contains("table 52")
        && !set.contains("eth0")
        && !arp.contains("eth0")
        && !routes.contains("192.168.43.0/24")
        && lan.ip_host("nexthop show").is_empty()
}

#[test]
fn a_member_of_the_lan_is_an_office_pc_to_everybody_there() {
    if cannot_run("a_member_of_the_lan_is_an_office_pc_to_everybody_there") {
        return;
    }
    let (lan, printer, server) = lan();
    let (_uplink, gate, wire, _path) = seated(&lan);
    // The reservation by MAC, the identifier, and the name for the DNS.
    let leases = std::fs::read_to_string(lan.folder().join("leases")).unwrap();
    let line = format!("{MAC} 192.168.43.77 shimin-017 01:{MAC}");
    assert!(leases.contains(&line), "{leases}");

    let own = PLACE.address.octets();
    for (peer, to) in [(&printer, PRINTER), (&server, SERVER)] {
        put(&wire, own, to, b"question").unwrap();
        let (said, from) = heard(peer).unwrap_or_else(|| panic!("{to} hears nothing"));
        assert_eq!(
            (&*said, from.to_string()),
            (&b"question"[..], "192.168.43.77:4000".into())
        );
        peer.send_to(b"answer", from).unwrap();
        assert!(comes(&wire, b"answer", &[]), "{to}");
    }
    // The printer was reached by ARP for itself, and knows the work OS's MAC.
    assert!(lan.ip_host("neigh show dev eth0").contains("192.168.43.20"));
    let known = lan.ip_lan("neigh show dev lan0");
    let entry = known.lines().find(|line| line.contains("192.168.43.77"));
    assert!(entry.unwrap().contains(MAC), "{known}");
    // Somebody whom the work OS never spoke to asks for it, and is answered.
    let stranger = lan.udp("192.168.43.21:9100");
    lan.ip_lan("neigh flush dev lan0");
    stranger.send_to(b"hello", (PLACE.address, 50_000)).unwrap();
    assert!(comes(&wire, b"hello", &[]));
    // Whoever in the LAN begins is heard: what of it is let in is the gate's to decide.
    printer.send_to(b"scan", (PLACE.address, 50_000)).unwrap();
    assert!(comes(&wire, b"scan", &[]));

    // Under another address nothing leaves: a neighbour's, the device file's, the router's.
    for forged in [[192, 168, 43, 78], GUEST.octets(), [192, 168, 43, 1]] {
        let _ = put(&wire, forged, PRINTER, b"forged");
        let _ = put(&wire, forged, SERVER, b"forged");
    }
    assert_eq!((heard(&printer), heard(&server)), (None, None));

    say(&gate, false);
    receive(&gate, "the end of the wire", |message, _| {
        matches!(message, UplinkToGate::WireLost { .. })
    });
    assert!(is_shut(&lan), "{}", lan.ip_host("route show table all"));
    assert!(put(&wire, own, SERVER, b"late").is_err());
    assert_eq!(heard(&server), None);
    // At the same cable it is a member again at once, without another change.
    say(&gate, true);
    ask(&gate);
    receive(&gate, "the wire again", |message, _| {
        assert!(!matches!(message, UplinkToGate::CarrierLost { .. }));
        matches!(message, UplinkToGate::Wire { .. })
    });
    drop(gate);
    until("the way is shut", || is_shut(&lan));
}

/// One address, two who speak from it: what is said to and by the hosts that policy names for the
/// laptop itself is never the work OS's, and the other way about.
#[test]
fn the_work_os_has_no_part_in_what_the_laptop_itself_says() {
    if cannot_run("the_work_os_has_no_part_in_what_the_laptop_itself_says") {
        return;
    }
    let (lan, printer, _server) = lan();
    let gateway = lan.udp(GATEWAY);
    let (_uplink, _gate, wire, path) = seated(&lan);
    // The tunnel's path lives beside the wire, from the same address.
    round_trip(&path, &gateway);
    let own = PLACE.address.octets();
    let _ = put(&wire, own, GATEWAY, b"in its name");
    assert_eq!(heard(&gateway), None);
    // To any port of the laptop's, known to it or not.
    let port = path.local_addr().unwrap().port();
    for port in [port, 4000, 68] {
        gateway.send_to(b"sealed", (PLACE.address, port)).unwrap();
    }
    printer.send_to(b"scan", (PLACE.address, port)).unwrap();
    assert!(comes(&wire, b"scan", &[b"sealed"]));
    let mut buffer = [0; 64];
    let length = path.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"sealed", "the path's own");
    path.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(
        path.recv(&mut buffer).is_err(),
        "a stranger's is not the path's"
    );
}

#[test]
fn what_is_for_all_of_the_lan_is_not_for_the_work_os() {
    if cannot_run("what_is_for_all_of_the_lan_is_not_for_the_work_os") {
        return;
    }
    let (lan, printer, _server) = lan();
    let (_uplink, _gate, wire, _path) = seated(&lan);
    printer.set_broadcast(true).unwrap();
    // A magic packet, as relays and consoles send it.
    let mac = member().mac;
    let magic = [&[0xff; 6][..], &mac.repeat(16)].concat();
    for to in ["192.168.43.255:9", "255.255.255.255:9", "224.0.0.251:5353"] {
        printer.send_to(&magic, to).unwrap();
        printer.send_to(b"everybody", to).unwrap();
    }
    // And to its address alone.
    printer.send_to(b"scan", (PLACE.address, 50_000)).unwrap();
    assert!(comes(&wire, b"scan", &[b"everybody", &mac]));
    // A duplicate is told so, as any PC would (RFC 5227); for nobody else's address ARP is answered.
    let probe = |address: &str| {
        lan.in_lan(|| {
            std::process::Command::new("busybox")
                .args(["arping", "-D", "-c", "2", "-w", "2", "-I", "lan0", address])
                .output()
                .unwrap()
                .status
                .success()
        })
    };
    assert!(!probe("192.168.43.77"), "a duplicate is not noticed");
    assert!(probe("192.168.43.78"));
    assert!(
        probe("10.250.7.23"),
        "the device file's address is on the LAN"
    );
}

/// T25: who speaks in the work OS's name from the same cable is told; who speaks to it unasked is not, as
/// that may be anybody in an office.
#[test]
fn t25_who_speaks_in_the_name_of_a_member_is_told() {
    if cannot_run("t25_who_speaks_in_the_name_of_a_member_is_told") {
        return;
    }
    let (lan, printer, _server) = lan();
    let (uplink, _gate, wire, _path) = seated(&lan);
    printer.send_to(b"scan", (PLACE.address, 50_000)).unwrap();
    assert!(comes(&wire, b"scan", &[]));
    lan.ip_lan("address add 192.168.43.77/32 dev lan0");
    let namesake = lan.udp("192.168.43.77:4000");
    namesake.set_broadcast(true).unwrap();
    for _ in 0..3 {
        namesake.send_to(b"it is me", "192.168.43.255:9").unwrap();
    }
    let mut counted = 0;
    uplink.report("somebody in its name", |report| {
        if let Report::Ignored { what } = report {
            let (count, of) = what.split_once(' ').unwrap();
            assert_eq!(
                of,
                "packets of somebody else in the work OS's name, on the office LAN"
            );
            counted += count.parse::<u32>().unwrap();
        }
        counted == 3
    });
}

/// T22: the MAC goes with the cable, whoever is there to see to it.
#[test]
fn t22_the_next_cable_sees_the_cards_own_mac() {
    if cannot_run("t22_the_next_cable_sees_the_cards_own_mac") {
        return;
    }
    let (lan, _printer, server) = lan();
    let (mut uplink, gate, wire, _path) = seated(&lan);
    let own = PLACE.address.octets();
    // The lease's router, to which the machine itself has a route that comes back with the carrier.
    let router = lan.udp(AT_ROUTER);
    for (to, server) in [(SERVER, &server), (AT_ROUTER, &router)] {
        put(&wire, own, to, b"before").unwrap();
        assert!(heard(server).is_some(), "{to}");
    }

    // The kernel takes the way with the carrier, also when nobody is there to do it.
    uplink.freeze();
    lan.ip_lan("link set lan0 down");
    until("the routes are gone", || lan.ways().is_empty());
    lan.ip_lan("link set lan0 up");
    until("the carrier is back", || {
        lan.ip_host("link show eth0").contains("LOWER_UP")
    });
    for (to, server) in [(SERVER, &server), (AT_ROUTER, &router)] {
        let _ = put(&wire, own, to, b"after");
        assert_eq!(heard(server), None, "the way to {to} came back by itself");
    }
    uplink.thaw();
    receive(&gate, "the loss of the carrier", |message, _| {
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    until("the card has its own MAC", || mac(&lan) != MAC);
    assert!(is_shut(&lan));
    let path = next_path(&gate, Side::Outside);
    let SocketAddr::V4(local) = path.local_addr().unwrap() else {
        unreachable!();
    };
    assert_ne!(
        *local.ip(),
        PLACE.address,
        "under its own MAC it has a lease of its own"
    );

    // Killed as a member, the next process gives the MAC back before it says a word.
    say(&gate, true);
    ask(&gate);
    seat(&gate);
    assert_eq!(mac(&lan), MAC);
    uplink.kill();
    // The device goes with its last descriptor.
    drop((gate, wire));
    let before = std::fs::read_to_string(lan.folder().join("leases")).unwrap();
    let uplink = lan.start_with_papers();
    uplink.report("ready", |report| *report == Report::Ready);
    until("the card has its own MAC", || mac(&lan) != MAC);
    let gate = uplink.attach_gate();
    next_path(&gate, Side::Outside);
    assert!(!lan.ip_host("link show eth0").contains("alias"));
    assert!(before.contains(MAC));

    // One that ends in an orderly way gives it back itself.
    say(&gate, true);
    ask(&gate);
    seat(&gate);
    assert_eq!(mac(&lan), MAC);
    uplink.command(&Command::Shutdown);
    assert!(uplink.end().success());
    assert_ne!(mac(&lan), MAC);
    assert!(!lan.ip_host("link show eth0").contains("alias"));
}
