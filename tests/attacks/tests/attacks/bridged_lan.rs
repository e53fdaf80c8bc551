//! A guest that is a member of the office LAN: an ordinary office PC to everybody there, and with
//! nothing that policy does not allow.

use std::{net::SocketAddrV4, time::Duration};

use sekisho_attacks::{Expects, Scene, download_whole, must};
use sekisho_lab::{
    Cafe, Netns, address as at,
    oracle::{Canaries, count_canaries, count_frames},
    packet::{arp_frame, udp_frame},
};

const GATE: [u8; 6] = [0x02, 0x53, 0x4b, 0xff, 0xff, 0x01];
const SHORT: Duration = Duration::from_secs(10);

/// What a host of the LAN's says to a command.
fn on(scene: &Scene, host: &Netns, command: &[&str]) -> sekisho_lab::Output {
    let mut prepared = host.command(command[0]);
    prepared.args(&command[1..]);
    must(scene.lab.run_command(prepared, SHORT))
}

#[test]
fn bridged_the_guest_is_an_office_pc_to_the_lan_and_nothing_else() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let printer = scene.neighbour(at::OFFICE_PRINTER);
    let stranger = scene.neighbour([10, 12, 100, 21].into());
    let laptop = scene.member_at_the_desk();
    let mark = laptop.events().mark();
    // A file server of the office only, a ping, a long download.
    let files = must(laptop.guest(&["busybox", "nc", "-w", "3", "10.12.30.4", "445"]));
    assert!(files.stdout.contains("office only"), "{files}");
    must(must(laptop.guest(&["ping", "-c", "2", "-W", "2", "10.12.10.5"])).ok());
    download_whole(&laptop);

    // A printer on the same LAN, by itself and not by the router; and it finds the guest, as far as
    // policy lets it.
    let mut job = printer.command("busybox");
    job.args(["nc", "-l", "-p", "9100", "-e", "echo", "printed"]);
    let _job = must(scene.lab.spawn_command("printer", job));
    let sheet = must(laptop.guest(&["busybox", "nc", "-w", "3", "10.12.100.20", "9100"]));
    assert!(sheet.stdout.contains("printed"), "{sheet}");
    let screen = ["busybox", "nc", "-l", "-p", "5900", "-e", "echo", "screen"];
    let _screen = must(laptop.guest_spawn("screen", &screen));
    let guest = at::GUEST_IN_OFFICE.to_string();
    let refused = on(
        &scene,
        &stranger,
        &["busybox", "nc", "-w", "2", &guest, "5900"],
    );
    assert!(!refused.stdout.contains("screen"), "{refused}");
    must(laptop.wait_refused(mark, "default-deny", "10.12.100.21"));
    let seen = on(
        &scene,
        &printer,
        &["busybox", "nc", "-w", "3", &guest, "5900"],
    );
    assert!(seen.stdout.contains("screen"), "{seen}");

    // What asset management sees: the MAC, the address, and the name at the DHCP server.
    let known = on(&scene, &printer, &["ip", "neigh", "show"]).stdout;
    assert!(
        known.contains("10.12.100.70 dev lan lladdr 02:53:4b:00:07:17"),
        "{known}"
    );
    // A duplicate of the guest's address is told so.
    let duplicate = [
        "busybox", "arping", "-D", "-c", "2", "-w", "2", "-I", "lan", &guest,
    ];
    assert!(on(&scene, &stranger, &duplicate).ok().is_err());

    for (to, rule) in [
        ("10.12.30.4 139", "default-deny"),
        ("10.99.0.1 80", "forbidden"),
    ] {
        let (host, port) = to.split_once(' ').unwrap_or_default();
        let _ = laptop.guest(&["busybox", "nc", "-w", "1", host, port]);
        must(laptop.wait_refused(mark, rule, host));
    }
    let english = must(must(laptop.sekisho(&["--lang", "en", "status"])).ok()).stdout;
    let way = "over eth1 as 10.12.100.70, without a tunnel";
    assert!(english.contains(way), "{english}");

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Direct);
    let wire = must(recordings.get("eth1.from"));
    let own = |frame: &[u8]| frame.len() > 34 && frame[6..12] == at::GUEST_MAC;
    assert!(
        must(count_frames(wire, own)) > 100,
        "not under the guest's MAC"
    );
    let to_printer = |frame: &[u8]| own(frame) && frame[30..34] == at::OFFICE_PRINTER.octets();
    assert!(must(count_frames(wire, to_printer)) > 3);
}

#[test]
fn t35_bridged_forged_sources_arp_and_broadcast_stay_off_the_lan() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let laptop = scene.member_at_the_desk();
    let nic = must(laptop.guest_packets());
    let (forged, honest) = (scene.canary(), scene.canary());
    let time = SocketAddrV4::new(at::LGWAN_NTP, 123);
    let own = SocketAddrV4::new(at::GUEST_IN_OFFICE, 40_123);
    let mark = laptop.events().mark();
    let send = |macs, from, to, canary: &sekisho_lab::Canary| {
        must(nic.send(&udp_frame(macs, from, to, &canary.bytes())));
    };
    // Neighbours' addresses, the router's, the one that the guest has in the tunnel.
    for address in [
        [10, 12, 100, 1],
        [10, 12, 100, 20],
        [10, 12, 100, 71],
        at::GUEST.octets(),
    ] {
        let from = SocketAddrV4::new(address.into(), 40_123);
        send((at::GUEST_MAC, GATE), from, time, &forged);
    }
    // Another MAC, before Ethernet's broadcast, before IP's, before the LAN's, and to a group.
    send(([2, 0, 0, 0, 0, 9], GATE), own, time, &forged);
    send((at::GUEST_MAC, [0xff; 6]), own, time, &forged);
    for to in [
        [10, 12, 100, 255],
        [10, 12, 100, 0],
        [255, 255, 255, 255],
        [224, 0, 0, 251],
    ] {
        let to = SocketAddrV4::new(to.into(), 123);
        send((at::GUEST_MAC, GATE), own, to, &forged);
        send((at::GUEST_MAC, [0xff; 6]), own, to, &forged);
    }
    // As the beacon's client and as the gateway's: those are the laptop's own.
    send((at::GUEST_MAC, GATE), own, at::GATEWAY_OUTSIDE, &forged);
    // It says that the router, and a neighbour, are at its MAC.
    for address in [[10, 12, 100, 1], [10, 12, 100, 20]] {
        for operation in [1, 2] {
            let target = ([0xff; 6], address.into());
            let claim = arp_frame(operation, (at::GUEST_MAC, address.into()), target);
            must(nic.send(&claim));
        }
    }
    must(laptop.wait_refused(mark, "anti-spoof", ""));
    send((at::GUEST_MAC, GATE), own, time, &honest);
    must(laptop.page(Duration::from_secs(10)));

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Direct);
    let wire = must(recordings.get("eth1.from"));
    let on_wire = |canary| must(count_canaries(wire, &Canaries::new([canary])));
    assert_eq!(on_wire(&forged), 0, "a forged packet was on the wire");
    assert!(
        on_wire(&honest) > 0,
        "the honest packet did not pass either"
    );
    let claims = must(count_frames(wire, |frame| {
        frame.len() >= 42
            && frame[12..14] == [8, 6]
            && [[10, 12, 100, 1], [10, 12, 100, 20]]
                .iter()
                .any(|claimed| frame[28..32] == *claimed)
    }));
    assert_eq!(claims, 0, "the guest's claims were on the wire");
}
