//! The wire of a proven port, in a real kernel: what passes, from where, and what ends it.

use std::{
    io::ErrorKind,
    net::{SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::io::{Errno, read, write};
use sekisho_control::{GateToUplink, HostName, LanMember, Report, Side, UplinkToGate, VendorClass};

use super::{
    Gate, RANGE, ROUTER,
    fixture::{
        packets::udp,
        papers::{GUEST, Issue},
    },
    next_path,
    wire::{SOON, Uplink, Wire, cannot_run, receive, until},
};

const SERVER: &str = "10.12.10.5:7000";
/// Length of the `virtio_net_hdr` before each packet.
const HEADER: usize = 12;

/// A policy that knows wires.
fn direct() -> String {
    let text = Issue::default().text();
    let text = text.replace("lan_address = \"10.12.0.2:51820\"\n", "");
    text.replace(
        "8f9\" }\n",
        "8f9\", round_trip = \"5ms\" }\ndirect = \"routed\"\n",
    )
}

/// A LAN whose router looks for the guest there, with a server behind it; an uplink with a lease and
/// a gate.
fn seated(wire: &mut Wire, policy: &str) -> (Uplink, Gate, UdpSocket) {
    wire.serve_dhcp(RANGE, &[ROUTER]);
    wire.ip_lan("addr add 10.12.10.5/32 dev lo");
    wire.ip_lan(&format!("route add {GUEST}/32 dev lan0"));
    // The router asks by ARP in its own name, also for a server that it is itself.
    wire.in_lan(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2").unwrap());
    let server = wire.udp(SERVER);
    Issue::write_text(wire.folder(), policy);
    let uplink = wire.start_with_papers();
    uplink.report("ready", |report| *report == Report::Ready);
    let gate = uplink.attach_gate();
    next_path(&gate, Side::Outside);
    (uplink, gate, server)
}

fn premises(proven: bool) -> GateToUplink {
    GateToUplink::Premises {
        port: "eth0".into(),
        proven,
    }
}

pub(super) fn member() -> LanMember {
    LanMember {
        host: HostName::new(b"shimin-017"),
        class: VendorClass::new(b"MSFT 5.0"),
    }
}

fn ask() -> GateToUplink {
    GateToUplink::AskWire {
        port: "eth0".into(),
        address: GUEST,
        mtu: 1420,
        member: member(),
    }
}

fn next_wire(gate: &Gate) -> OwnedFd {
    let (_, fds) = receive(
        gate,
        "a wire",
        |message, _| matches!(message, UplinkToGate::Wire { port, .. } if port == "eth0"),
    );
    fds.into_iter().next().unwrap()
}

/// A UDP datagram as the gate writes it to a wire.
fn datagram(from: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let to: SocketAddrV4 = SERVER.parse().unwrap();
    let packet = udp((from.into(), 4000), (*to.ip(), to.port()), payload);
    [&[0; HEADER][..], &packet].concat()
}

fn put(wire: &OwnedFd, from: [u8; 4], payload: &[u8]) -> Result<usize, Errno> {
    write(wire, &datagram(from, payload))
}

/// Whether the server hears something within a moment; who said it.
fn heard(server: &UdpSocket) -> Option<(Vec<u8>, std::net::SocketAddr)> {
    let soon = Some(Duration::from_millis(500));
    server.set_read_timeout(soon).unwrap();
    let mut buffer = [0; 64];
    match server.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{error}"
            );
            None
        }
    }
}

/// What comes off the wire and holds this.
fn comes(wire: &OwnedFd, wanted: &[u8]) -> bool {
    let limit = Instant::now() + SOON;
    let mut buffer = [0; 2048];
    while Instant::now() < limit {
        match read(wire, &mut buffer) {
            Ok(length) if buffer[..length].ends_with(wanted) => return true,
            Ok(_) => {}
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// Nothing is left of the way, in any table of the kernel's.
fn is_shut(wire: &Wire) -> bool {
    let set = wire.nft_host(&["list", "set", "inet", "sekisho", "direct"]);
    let proxies = wire.ip_host("neigh show proxy");
    let address = GUEST.to_string();
    wire.ways().is_empty() && !set.contains("eth0") && !proxies.contains(&address)
}

#[test]
fn a_wire_carries_one_address_over_the_proven_port_alone() {
    if cannot_run("a_wire_carries_one_address_over_the_proven_port_alone") {
        return;
    }
    let mut lan = Wire::new();
    let (_uplink, gate, server) = seated(&mut lan, &direct());
    // Nothing is proven: the gate is not heard, and nobody answers for the guest.
    gate.send(&ask(), &[]).unwrap();
    server.send_to(b"anybody?", (GUEST, 4000)).unwrap();
    until("ARP is given up", || {
        lan.ip_lan("neigh show")
            .contains("10.250.7.23 dev lan0  FAILED")
            || lan
                .ip_lan("neigh show")
                .contains("10.250.7.23 dev lan0 FAILED")
    });
    assert!(is_shut(&lan));
    lan.ip_lan("neigh flush all");

    gate.send(&premises(true), &[]).unwrap();
    gate.send(&ask(), &[]).unwrap();
    let wire = next_wire(&gate);
    put(&wire, GUEST.octets(), b"question").unwrap();
    let (said, from) = heard(&server).expect("the guest is heard");
    assert_eq!(
        (&*said, from.to_string()),
        (&b"question"[..], "10.250.7.23:4000".into())
    );
    // ARP is answered for the guest, and what comes for it comes to the gate.
    server.send_to(b"answer", from).unwrap();
    assert!(comes(&wire, b"answer"));

    // Under another address nothing leaves: the next one's, the lease's, the beacon's.
    for forged in [[10, 250, 7, 24], [192, 168, 43, 50], [10, 12, 0, 200]] {
        let _ = put(&wire, forged, b"forged");
    }
    assert_eq!(heard(&server), None);

    gate.send(&premises(false), &[]).unwrap();
    receive(&gate, "the end of the wire", |message, _| {
        matches!(message, UplinkToGate::WireLost { .. })
    });
    assert!(is_shut(&lan));
    assert!(put(&wire, GUEST.octets(), b"late").is_err());
    assert_eq!(heard(&server), None);

    // Proven anew, and the gate goes away: shut as well.
    gate.send(&premises(true), &[]).unwrap();
    gate.send(&ask(), &[]).unwrap();
    let wire = next_wire(&gate);
    put(&wire, GUEST.octets(), b"again").unwrap();
    assert!(heard(&server).is_some());
    drop(gate);
    until("the way is shut", || is_shut(&lan));
    assert!(put(&wire, GUEST.octets(), b"late").is_err());
}

/// T22: the kernel itself takes the way out with the carrier; no process has to be in time.
#[test]
fn t22_the_kernel_takes_the_way_with_the_carrier() {
    if cannot_run("t22_the_kernel_takes_the_way_with_the_carrier") {
        return;
    }
    let mut lan = Wire::new();
    let (uplink, gate, server) = seated(&mut lan, &direct());
    gate.send(&premises(true), &[]).unwrap();
    gate.send(&ask(), &[]).unwrap();
    let wire = next_wire(&gate);
    put(&wire, GUEST.octets(), b"before").unwrap();
    assert!(heard(&server).is_some());

    // Nobody is there to shut anything.
    uplink.freeze();
    lan.ip_lan("link set lan0 down");
    until("the route is gone", || lan.ways().is_empty());
    lan.ip_lan("link set lan0 up");
    lan.ip_lan(&format!("route replace {GUEST}/32 dev lan0"));
    until("the carrier is back", || {
        lan.ip_host("link show eth0").contains("LOWER_UP")
    });
    let _ = put(&wire, GUEST.octets(), b"after");
    assert_eq!(heard(&server), None, "the way came back by itself");
    uplink.thaw();
    receive(&gate, "the loss of the carrier", |message, _| {
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    assert!(is_shut(&lan));
}

#[test]
fn without_the_policys_word_there_is_no_device() {
    if cannot_run("without_the_policys_word_there_is_no_device") {
        return;
    }
    let mut lan = Wire::new();
    let (_uplink, gate, _server) = seated(&mut lan, &Issue::default().text());
    gate.send(&premises(true), &[]).unwrap();
    gate.send(&ask(), &[]).unwrap();
    // The LAN side comes, and no wire before or after it.
    receive(&gate, "the LAN side", |message, _| {
        assert!(!matches!(message, UplinkToGate::Wire { .. }));
        matches!(
            message,
            UplinkToGate::Path {
                side: Side::Lan,
                ..
            }
        )
    });
    std::thread::sleep(Duration::from_millis(300));
    while let Some(received) = gate.recv().unwrap() {
        assert!(!matches!(received.message, UplinkToGate::Wire { .. }));
    }
    assert!(!lan.ip_host("link show").contains("direct0"));
}
