//! T25: somebody puts a hub between the office's wall and the laptop that has proven to be there,
//! hears all its frames, and injects frames of his own from another MAC.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    Canary, Wall, address as at,
    oracle::{Canaries, count_canaries, count_frames},
    packet::{PacketSocket, arp_frame, udp_frame},
};

/// Source and destination of a UDP packet, if the frame is one.
fn udp_ends(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    if frame.len() < 42 || frame[12..15] != [8, 0, 0x45] || frame[23] != 17 {
        return None;
    }
    let end = |address: usize, port: usize| {
        let octets: [u8; 4] = frame[address..address + 4].try_into().ok()?;
        let port = u16::from_be_bytes([frame[port], frame[port + 1]]);
        Some(SocketAddrV4::new(Ipv4Addr::from(octets), port))
    };
    Some((end(26, 34)?, end(30, 36)?))
}

#[test]
fn t25_what_a_hub_injects_reaches_nobody() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    must(lab.unplug(at::ETH0));
    must(lab.plug(at::ETH1, Wall::Office));
    // A switch that forgets at once is a hub.
    for command in [
        "link set office-lan type bridge ageing_time 0",
        "link add hub type veth peer name intruder",
        "link set hub master office-lan up",
        "link set intruder up",
    ] {
        let words: Vec<&str> = ["ip"].into_iter().chain(command.split(' ')).collect();
        scene.run("walls", &words);
    }
    let wire = must(PacketSocket::open(must(lab.space("walls")), "intruder"));
    let laptop = scene.laptop();
    scene.placed(&laptop, 0, "onprem");
    must(laptop.page(Duration::from_secs(10)));

    // He hears both ways of the tunnel.
    let limit = Duration::from_secs(10);
    let mut sealed = Vec::new();
    let heard = must(wire.wait(limit, |frame| {
        let (from, to) = udp_ends(frame)?;
        if from == at::GATEWAY_LAN && frame.get(42) == Some(&4) {
            sealed = frame.to_vec();
        }
        (to == at::GATEWAY_LAN && !sealed.is_empty()).then(|| (from, frame[6..12].to_vec()))
    }));
    let Some((lent, mac)) = heard else {
        panic!("the hub hears nothing of the tunnel");
    };
    let mac: [u8; 6] = must(mac.try_into().map_err(|_| "six bytes"));

    // Nothing was told before he began.
    let quiet = laptop.events().wait_after(0, Duration::ZERO, |event| {
        event.is("uplink", "ignored") && event.text("what").contains("nobody asked for")
    });
    assert!(quiet.is_none(), "{quiet:?}");

    let nic = must(laptop.guest_packets());
    let marker = must(Canary::random());
    let bytes = marker.bytes();
    let own = wire.mac;
    let data = [&[4, 0, 0, 0][..], &bytes, &[0; 32]].concat();
    let guest = SocketAddrV4::new(at::GUEST, 40_000);
    let files = SocketAddrV4::new(at::FILES, 445);
    // Sealed already, and from the right address: only the MAC is another.
    sealed[..6].copy_from_slice(&mac);
    sealed[6..12].copy_from_slice(&own);
    let to_guest = {
        let mut frame = udp_frame((own, mac), files, guest, &bytes);
        frame[..6].copy_from_slice(&at::GUEST_MAC);
        frame
    };
    let mark = laptop.events().mark();
    for _ in 0..100 {
        for frame in [
            &sealed,
            &udp_frame((own, mac), at::GATEWAY_LAN, lent, &data),
            &udp_frame((own, mac), at::GATEWAY_LAN, lent, &bytes),
            &udp_frame((own, mac), files, lent, &bytes),
            &udp_frame((own, mac), files, guest, &bytes),
            &udp_frame((own, [0xff; 6]), files, guest, &bytes),
            &to_guest,
            &arp_frame(1, (own, at::OFFICE_ROUTER), ([0; 6], at::GUEST)),
        ] {
            must(wire.send(frame));
        }
        // So that no queue on the way drops them.
        std::thread::sleep(Duration::from_millis(2));
    }
    must(laptop.page(Duration::from_secs(10)));
    let canaries = Canaries::new([&marker]);
    let mut page = false;
    let injected = must(nic.wait(Duration::from_millis(500), |frame| {
        page |= frame.len() > 14 && frame[12..14] == [8, 0];
        canaries.find(frame).map(|_| frame.to_vec())
    }));
    assert!(page, "the guest's NIC was not heard at all");
    assert!(injected.is_none(), "{injected:?} reached the guest");
    let changed = laptop
        .events()
        .wait_after(mark, Duration::ZERO, |event| event.is("gate", "situation"));
    assert!(changed.is_none(), "{changed:?}");
    // A hundred of them were for the laptop's own address and through no door.
    let told = must(laptop.wait_event(mark, "the alarm", limit, |event| {
        event.is("uplink", "ignored") && event.text("what").contains("nobody asked for")
    }));
    assert!(
        told.text("what").starts_with("100 packets"),
        "{:?}",
        told.said
    );

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Tunnelled);
    let arrived = must(count_canaries(must(recordings.get("eth1.to")), &canaries));
    assert!(
        arrived >= 500,
        "only {arrived} injected frames reached the cable"
    );
    let answered = must(count_frames(must(recordings.get("eth1.from")), |frame| {
        frame[..6] == own
    }));
    // Whoever speaks ARP in the router's name may be answered, but for the wire's address only,
    // which the oracle has looked at.
    assert_eq!(answered, 0, "somebody else than the router was answered");
}
