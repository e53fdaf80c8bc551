//! An office LAN without an inner gateway: the guest is on it with its own address, and with nothing
//! that policy does not allow.

use std::{net::SocketAddrV4, time::Duration};

use sekisho_attacks::{Expects, Scene, download_whole, must};
use sekisho_lab::{
    Cafe, address as at,
    oracle::{Canaries, count_canaries, count_frames, read},
    packet::udp_frame,
};

/// Bytes that the guest sends.
const UPLOAD: usize = 4_000_000;

/// Source and destination of an IPv4 packet in Ethernet.
fn addresses(frame: &[u8]) -> Option<([u8; 4], [u8; 4])> {
    let ip = frame.get(14..34).filter(|_| frame[12..14] == [8, 0])?;
    Some((
        [ip[12], ip[13], ip[14], ip[15]],
        [ip[16], ip[17], ip[18], ip[19]],
    ))
}

#[test]
fn direct_the_guest_reaches_the_office_with_its_own_address_and_nothing_else() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let laptop = scene.at_the_desk();
    let mark = laptop.events().mark();
    // A file server of the office only, and a ping.
    let files = must(laptop.guest(&["busybox", "nc", "-w", "3", "10.12.30.4", "445"]));
    assert!(files.stdout.contains("office only"), "{files}");
    must(must(laptop.guest(&["ping", "-c", "2", "-W", "2", "10.12.10.5"])).ok());
    // A long download and an upload: super-packets both ways.
    download_whole(&laptop);
    let sink = scene.stage("lgwan", "sink", "sink.py", &["10.12.10.5", "443"]);
    let canary = laptop.canary().hex();
    let upload =
        format!("yes {canary} | head -c {UPLOAD} | curl -sS -m 30 telnet://10.12.10.5:443");
    must(laptop.guest_for(&["sh", "-c", &upload], Duration::from_secs(40)));
    let took = format!("took {UPLOAD}");
    must(sink.wait_line(&took, Duration::from_secs(10)));

    // What policy does not allow is refused and told, and so is what is not the guest's.
    for (to, rule) in [
        ("10.12.30.4 139", "default-deny"),
        ("10.99.0.1 80", "forbidden"),
    ] {
        let (host, port) = to.split_once(' ').unwrap_or_default();
        let _ = laptop.guest(&["busybox", "nc", "-w", "1", host, port]);
        must(laptop.wait_refused(mark, rule, host));
    }

    // `sekisho status` says where the laptop is.
    let japanese = must(must(laptop.sekisho(&["status"])).ok()).stdout;
    assert!(
        japanese.contains("庁内 LAN に直接つながっています"),
        "{japanese}"
    );
    let english = must(must(laptop.sekisho(&["--lang", "en", "status"])).ok()).stdout;
    assert!(english.contains("on the office LAN itself"), "{english}");
    assert!(
        english.contains("over eth1 as 10.250.7.23, without a tunnel"),
        "{english}"
    );

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Direct);
    let seen = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        addresses(frame) == Some((at::GUEST.octets(), at::FILES.octets()))
    }));
    assert!(seen > 0, "the guest's own address was not on the wire");
    // What was sent arrived there whole, in pieces larger than any of the wire's.
    let (mut sent, mut largest) = (0, 0);
    let to_server = Some((at::GUEST.octets(), at::GROUPWARE.octets()));
    must(read(&must(recordings.get("eth1.from")).file, |frame| {
        if addresses(frame.bytes) == to_server {
            sent += frame.bytes.len();
            largest = largest.max(frame.bytes.len());
        }
    }));
    assert!(sent > UPLOAD, "{sent} bytes of the upload on the wire");
    assert!(largest > 1514, "no super-packet crossed whole");
}

#[test]
fn t35_direct_forged_sources_broadcast_and_another_mac_stay_off_the_wire() {
    let Some(scene) = Scene::direct(Cafe::default()) else {
        return;
    };
    let laptop = scene.at_the_desk();
    let nic = must(laptop.guest_packets());
    let (forged, honest) = (scene.canary(), scene.canary());
    let time = SocketAddrV4::new(at::LGWAN_NTP, 123);
    let own = SocketAddrV4::new(at::GUEST, 40_123);
    let gate = [0x02, 0x53, 0x4b, 0xff, 0xff, 0x01];
    let mark = laptop.events().mark();
    let send = |macs, from, to, canary: &sekisho_lab::Canary| {
        must(nic.send(&udp_frame(macs, from, to, &canary.bytes())));
    };
    // A neighbour's address, the router's, the port's own lease as far as it can be guessed.
    for last in [1, 50, 100, 101, 110] {
        let from = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 12, 100, last), 40_123);
        send((at::GUEST_MAC, gate), from, time, &forged);
    }
    // Another MAC, before Ethernet's broadcast, before IP's, and to a group.
    send(([2, 0, 0, 0, 0, 9], gate), own, time, &forged);
    send((at::GUEST_MAC, [0xff; 6]), own, time, &forged);
    for to in [[10, 12, 100, 255], [255, 255, 255, 255], [224, 0, 0, 251]] {
        let to = SocketAddrV4::new(to.into(), 123);
        send((at::GUEST_MAC, gate), own, to, &forged);
    }
    must(laptop.wait_refused(mark, "anti-spoof", ""));
    must(laptop.wait_refused(mark, "default-deny", ""));
    send((at::GUEST_MAC, gate), own, time, &honest);
    must(laptop.page(Duration::from_secs(10)));

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Direct);
    let on_wire = |canary| {
        let wire = must(recordings.get("eth1.from"));
        must(count_canaries(wire, &Canaries::new([canary])))
    };
    assert_eq!(on_wire(&forged), 0, "a forged packet was on the wire");
    assert!(
        on_wire(&honest) > 0,
        "the honest packet did not pass either"
    );
}
