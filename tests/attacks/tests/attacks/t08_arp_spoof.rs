//! T08: the attacker claims the next hop's address by ARP and takes in what the laptop sends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    address as at,
    oracle::count_frames,
    packet::{PacketSocket, arp_frame},
};

#[test]
fn t08_who_spoofs_the_next_hop_gets_ciphertext_and_the_tunnel_recovers() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let wire = must(PacketSocket::open(must(scene.lab.space("attacker")), "lan"));
    let attacker = wire.mac;
    let uplink = must(PacketSocket::open(&must(laptop.uplink_space()), at::ETH0)).mac;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for address in [[0xff; 6], uplink] {
                    let spoof = arp_frame(
                        2,
                        (attacker, at::CAFE_ROUTER),
                        (address, std::net::Ipv4Addr::BROADCAST),
                    );
                    let _ = wire.send(&spoof);
                    let ask = arp_frame(1, (attacker, at::CAFE_ROUTER), (address, at::CAFE_ROUTER));
                    let _ = wire.send(&ask);
                }
                // A pace that an attacker would choose; nothing is waited for.
                thread::sleep(Duration::from_millis(20));
            }
        });
        let url = format!(
            "http://10.12.10.5/download?canary={}",
            laptop.canary().hex()
        );
        for _ in 0..4 {
            let _ = laptop.guest(&["curl", "-s", "-m", "1", "-o", "/dev/null", &url]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    // The tunnel recovers once the next hop is asked for again.
    let took = must(laptop.wait_page(Duration::from_mins(1)));
    eprintln!("a page again {took:?} after the attack");
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    let taken = must(count_frames(must(recordings.get("eth0.from")), |frame| {
        frame[..6] == attacker && frame[12..14] == [8, 0]
    }));
    eprintln!("the attacker took in {taken} datagrams of the tunnel");
}
