//! The SIM: the programs of uplink and modem against a real message bus, python-dbusmock's
//! `ModemManager`, a real kernel and a real packet filter. The cable `eth0` plays the bearer, and
//! the other end of it hears all that leaves the laptop.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a test that cannot go on fails; what the uplink's tests need is not all needed here"
)]

#[path = "../fixture/mod.rs"]
mod fixture;
mod laptop;
mod service;
mod stock;
#[path = "../fixture/tun.rs"]
mod tun;
#[path = "../uplink/wire.rs"]
mod wire;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use sekisho_control::{Command, ModemFound, QuotaState, Report, UplinkToGate};

use laptop::{Laptop, Sim};
use service::{BEARER, CONNECTION, GENERAL, MODEM, NETWORK};
use wire::{GATEWAY, arrives, receive, until};

/// What is sent through the tunnel, as the wire would see it were it not sealed.
const CANARY: &[u8] = b"canary-6f1d2c90";

/// Says why a test cannot run here, `true` if so.
fn cannot_run(test: &str) -> bool {
    if wire::cannot_run(test) {
        return true;
    }
    sekisho_skip::skip_unless(
        service::is_there(),
        "it needs dbus-daemon, gdbus and python3-dbusmock",
    )
}

#[test]
fn the_sim_connects_by_the_access_point_that_policy_names() {
    if cannot_run("the_sim_connects_by_the_access_point_that_policy_names") {
        return;
    }
    let mut laptop = Laptop::start(Sim::default());
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    let source: SocketAddr = path.local_addr().unwrap();
    assert_eq!(source.ip().to_string(), "192.168.43.77");
    laptop::round_trip(&path, &gateway);

    assert_eq!(
        laptop.service.calls("Connect"),
        ["{\"allow-roaming\": False, \"apn\": \"mihon.closed.example\"}"]
    );
    assert_eq!(laptop.service.calls("Enable"), ["True"]);
    let told = laptop.finds(ModemFound::Connected);
    assert_eq!(
        told,
        ("Mihon Mobile (44010)".to_owned(), Some(63)),
        "the operator and the signal, for people"
    );
    let link = laptop.wire.ip_host("addr show eth0");
    assert!(link.contains("mtu 1500"), "{link}");
    assert!(link.contains("192.168.43.77/32"), "{link}");
    assert_eq!(laptop.wire.ip_host("-4 route show default"), "");

    laptop
        .service
        .become_(MODEM, GENERAL, "{'SignalQuality': <(uint32 21, true)>}");
    laptop.hears("the weaker signal", |report| {
        matches!(
            report,
            Report::Modem {
                signal: Some(21),
                found: ModemFound::Connected,
                ..
            }
        )
    });
    laptop::round_trip(&path, &gateway);
}

/// Most modems carry packets without a frame: no MAC address, no ARP, no DHCP of ours.
#[test]
fn a_modem_whose_packets_have_no_frames_is_used() {
    if cannot_run("a_modem_whose_packets_have_no_frames_is_used") {
        return;
    }
    let mut laptop = Laptop::prepare(Sim {
        interface: "wwan0",
        ..Sim::default()
    });
    let mut network = laptop.wire.in_host(|| tun::interface("wwan0", tun::TUN));
    let bearer = "{'Interface': <'wwan0'>, 'Ip4Config': <{'method': <uint32 2>, \
                  'address': <'100.64.7.2'>, 'prefix': <uint32 30>, 'gateway': <'100.64.7.1'>}>}";
    laptop.service.become_(BEARER, CONNECTION, bearer);
    laptop.run();
    let path = laptop.path();
    let source = path.local_addr().unwrap();
    assert_eq!(source.ip().to_string(), "100.64.7.2");
    path.send(CANARY).unwrap();
    let mut packet = [0; 2048];
    let mut length = 0;
    until("the packet is in the mobile network", || {
        length = network.read(&mut packet).unwrap_or(0);
        length > 0
    });
    assert!(packet[..length].ends_with(CANARY));
    let (gateway, port) = (std::net::Ipv4Addr::new(203, 0, 113, 10), 51820);
    assert_eq!(packet[16..20], gateway.octets());
    let to = (std::net::Ipv4Addr::new(100, 64, 7, 2), source.port());
    let answer = fixture::packets::udp((gateway, port), to, b"answer");
    network.write_all(&answer).unwrap();
    let length = path.recv(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"answer");
    // Somebody else in the mobile network is not let in.
    let stray = fixture::packets::udp((std::net::Ipv4Addr::new(100, 64, 7, 9), port), to, b"stray");
    network.write_all(&stray).unwrap();
    path.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(path.recv(&mut packet).is_err());
}

/// The wire's own ear hears nothing at all of a laptop whose SIM is served by another network, and
/// hears it when it is served by its own: the positive control.
#[test]
fn another_mobile_network_is_refused_and_nothing_is_sent() {
    if cannot_run("another_mobile_network_is_refused_and_nothing_is_sent") {
        return;
    }
    let mut laptop = Laptop::prepare(Sim::default());
    let foreign = "{'OperatorCode': <'44020'>, 'OperatorName': <'Elsewhere'>}";
    laptop.service.become_(MODEM, NETWORK, foreign);
    let ear = laptop.ear();
    laptop.run();
    let told = laptop.finds(ModemFound::WrongNetwork);
    assert_eq!(told.0, "Elsewhere (44020)");
    assert_eq!(laptop.service.calls("Connect"), [] as [String; 0]);
    assert_eq!(ear.heard(Duration::from_millis(500)), 0);

    let home = "{'OperatorCode': <'44010'>, 'OperatorName': <'Mihon Mobile'>}";
    laptop.service.become_(MODEM, NETWORK, home);
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    laptop::round_trip(&path, &gateway);
    assert!(ear.heard(Duration::from_millis(500)) > 0);

    // The modem goes over to the other network under way.
    laptop.service.become_(MODEM, NETWORK, foreign);
    laptop.loses_carrier();
    laptop.finds(ModemFound::WrongNetwork);
    until("the bearer is taken down", || {
        laptop.service.calls("Disconnect") == ["\"/\""]
    });
    laptop.is_shut(&path, &gateway);
}

#[test]
fn roaming_is_refused_unless_policy_allows_it() {
    if cannot_run("roaming_is_refused_unless_policy_allows_it") {
        return;
    }
    for roaming in [false, true] {
        let mut laptop = Laptop::prepare(Sim {
            roaming,
            ..Sim::default()
        });
        laptop
            .service
            .become_(MODEM, NETWORK, "{'RegistrationState': <uint32 5>}");
        laptop.run();
        if roaming {
            laptop.path();
            assert_eq!(
                laptop.service.calls("Connect"),
                ["{\"allow-roaming\": True, \"apn\": \"mihon.closed.example\"}"]
            );
        } else {
            laptop.finds(ModemFound::Roaming);
            assert_eq!(laptop.service.calls("Connect"), [] as [String; 0]);
        }
    }
}

#[test]
fn a_lost_bearer_shuts_the_path_and_is_made_again() {
    if cannot_run("a_lost_bearer_shuts_the_path_and_is_made_again") {
        return;
    }
    let mut laptop = Laptop::start(Sim::default());
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    laptop::round_trip(&path, &gateway);
    laptop.service.become_(
        BEARER,
        CONNECTION,
        "{'Connected': <false>, 'Refuse': <true>}",
    );
    laptop.loses_carrier();
    laptop.finds(ModemFound::Refused);
    laptop.is_shut(&path, &gateway);

    laptop
        .service
        .become_(BEARER, CONNECTION, "{'Refuse': <false>}");
    let path = laptop.path();
    laptop::round_trip(&path, &gateway);
}

#[test]
fn without_modem_manager_the_sim_is_shut_until_it_is_back() {
    if cannot_run("without_modem_manager_the_sim_is_shut_until_it_is_back") {
        return;
    }
    let mut laptop = Laptop::start(Sim::default());
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    laptop.service.kill_mock();
    laptop.loses_carrier();
    laptop.finds(ModemFound::Absent);
    laptop.is_shut(&path, &gateway);

    laptop.service.start_mock();
    let path = laptop.path();
    laptop::round_trip(&path, &gateway);

    // The modem is unplugged, and nothing else.
    let remove = "org.freedesktop.DBus.Mock.RemoveObject";
    let root = "/org/freedesktop/ModemManager1";
    assert!(laptop.service.gdbus(root, remove, &[MODEM]));
    let emit = "org.freedesktop.DBus.Mock.EmitSignal";
    let manager = "org.freedesktop.DBus.ObjectManager";
    let removed = [
        manager,
        "InterfacesRemoved",
        "oas",
        "[<objectpath '/x'>, <@as []>]",
    ];
    assert!(laptop.service.gdbus(root, emit, &removed));
    laptop.loses_carrier();
    laptop.finds(ModemFound::NoModem);
    laptop.is_shut(&path, &gateway);
}

/// What the modem must not be, each told in its own word, and no bearer for any.
#[test]
fn a_connection_that_is_not_used_is_told_and_taken_down() {
    if cannot_run("a_connection_that_is_not_used_is_told_and_taken_down") {
        return;
    }
    let ppp = "{'Ip4Config': <{'method': <uint32 1>}>}";
    let endless = "{'Ip4Config': <{'method': <uint32 2>, 'address': <'192.168.43.77'>}>}";
    let elsewhere = "{'Interface': <'eth7'>}";
    let cases = [
        (BEARER, CONNECTION, ppp, ModemFound::Unusable),
        (BEARER, CONNECTION, endless, ModemFound::Unusable),
        (BEARER, CONNECTION, elsewhere, ModemFound::OtherInterface),
        (MODEM, GENERAL, "{'State': <2>}", ModemFound::SimLocked),
        (
            MODEM,
            GENERAL,
            "{'State': <-1>, 'StateFailedReason': <uint32 2>}",
            ModemFound::SimMissing,
        ),
        (MODEM, GENERAL, "{'State': <7>}", ModemFound::Searching),
        // A property of another type makes the whole answer worthless.
        (MODEM, GENERAL, "{'State': <'8'>}", ModemFound::Absent),
        (
            MODEM,
            NETWORK,
            "{'OperatorCode': <['44010']>}",
            ModemFound::Absent,
        ),
    ];
    for (object, interface, properties, found) in cases {
        let mut laptop = Laptop::prepare(Sim::default());
        laptop.service.become_(object, interface, properties);
        let ear = laptop.ear();
        laptop.run();
        laptop.finds(found);
        assert_eq!(ear.heard(Duration::from_millis(300)), 0, "{properties}");
        if object == BEARER {
            until("it is taken down", || {
                !laptop.service.calls("Disconnect").is_empty()
            });
        } else {
            assert_eq!(laptop.service.calls("Connect"), [] as [String; 0]);
        }
    }
}

#[test]
fn an_address_of_the_gateways_is_no_bearers() {
    if cannot_run("an_address_of_the_gateways_is_no_bearers") {
        return;
    }
    let mut laptop = Laptop::prepare(Sim::default());
    let claimed = "{'Ip4Config': <{'method': <uint32 2>, 'address': <'203.0.113.10'>, \
                   'gateway': <'192.168.43.1'>}>}";
    laptop.service.become_(BEARER, CONNECTION, claimed);
    laptop.run();
    laptop.hears(
        "that it is ignored",
        |report| matches!(report, Report::Ignored { what } if what.contains("a gateway's")),
    );
    assert!(
        !laptop
            .wire
            .ip_host("addr show eth0")
            .contains("203.0.113.10")
    );
}

/// The quota of a SIM that `ModemManager` connects is counted and braked as any SIM's is.
#[test]
fn the_quota_holds_for_a_bearer() {
    if cannot_run("the_quota_holds_for_a_bearer") {
        return;
    }
    let mut laptop = Laptop::start(Sim {
        quota: true,
        ..Sim::default()
    });
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    for _ in 0..700 {
        let _ = path.send(&[7; 1000]);
    }
    laptop.hears("the warning", |report| {
        matches!(
            report,
            Report::Quota {
                state: QuotaState::Warned,
                ..
            }
        )
    });
    for _ in 0..700 {
        let _ = path.send(&[7; 1000]);
    }
    laptop.hears("the end of the quota", |report| {
        matches!(
            report,
            Report::Quota {
                state: QuotaState::Throttled,
                ..
            }
        )
    });
    drop(gateway);
}

/// A flood of signals costs a few looks, and the path lives on.
#[test]
fn a_flood_of_signals_costs_a_few_looks() {
    if cannot_run("a_flood_of_signals_costs_a_few_looks") {
        return;
    }
    let mut laptop = Laptop::start(Sim::default());
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    let before = laptop.service.calls("GetManagedObjects").len();
    let started = std::time::Instant::now();
    let flood = "jp.sekisho.Test.Flood";
    assert!(laptop.service.gdbus(MODEM, flood, &["20000"]));
    laptop::round_trip(&path, &gateway);
    let looks = laptop.service.calls("GetManagedObjects").len() - before;
    let most = started.elapsed().as_millis() / 200 + 2;
    assert!(looks >= 1, "a change is looked at");
    assert!(
        (looks as u128) <= most,
        "{looks} looks in {:?}",
        started.elapsed()
    );
}

/// Whoever asks `ModemManager` dies: the SIM is shut at once, and used again once there is another.
#[test]
fn without_the_process_that_asks_the_sim_is_shut() {
    if cannot_run("without_the_process_that_asks_the_sim_is_shut") {
        return;
    }
    let mut laptop = Laptop::start(Sim::default());
    let gateway = laptop.wire.udp(GATEWAY);
    let path = laptop.path();
    laptop.kill_modem();
    laptop.loses_carrier();
    laptop.is_shut(&path, &gateway);
    laptop.run_modem();
    let path = laptop.path();
    laptop::round_trip(&path, &gateway);
}

/// A policy that says what the SIM must be, on a laptop that asks nobody: its interface has a
/// carrier and a DHCP server, and stays shut.
#[test]
fn a_sim_that_nobody_asks_for_is_not_used() {
    if cannot_run("a_sim_that_nobody_asks_for_is_not_used") {
        return;
    }
    let mut laptop = Laptop::prepare(Sim::default());
    laptop
        .wire
        .serve_dhcp("192.168.43.50,192.168.43.60,255.255.255.0,120", &[]);
    let ear = laptop.ear();
    laptop.run_uplink(false);
    laptop.hears("that nobody asks", |report| {
        matches!(
            report,
            Report::Modem {
                found: ModemFound::Unasked,
                ..
            }
        )
    });
    assert_eq!(ear.heard(Duration::from_secs(2)), 0);
}

/// A bus that says that a message is 128 MiB long, or says anything that is none: the process ends.
#[test]
fn a_bus_that_lies_ends_the_process_that_listens_to_it() {
    if cannot_run("a_bus_that_lies_ends_the_process_that_listens_to_it") {
        return;
    }
    let endless = {
        let mut header = *b"l\x02\x00\x01\0\0\0\0\x01\0\0\0\0\0\0\0";
        header[4..8].copy_from_slice(&(128u32 << 20).to_le_bytes());
        header.to_vec()
    };
    for lie in [
        endless,
        vec![0xff; 4096],
        b"l\x02\0\x02\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec(),
    ] {
        let status = laptop::listens_to(&lie);
        assert!(!status.success(), "{lie:?}");
    }
}
