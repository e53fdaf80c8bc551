//! T09 (MLLVD-CR-24-03): somebody on the LAN asks by ARP for the laptop's address inside the tunnel,
//! to learn who is there.

use std::{net::Ipv4Addr, time::Duration};

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, address as at,
    packet::{PacketSocket, arp_frame},
};

/// ARP answer with this sender address?
fn answer(frame: &[u8], address: Ipv4Addr) -> Option<()> {
    let arp = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
    (arp && frame[28..32] == address.octets()).then_some(())
}

#[test]
fn t09_inner_addresses_are_not_answered_on_the_wire() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let wire = must(PacketSocket::open(must(scene.lab.space("attacker")), "lan"));
    let uplink = must(PacketSocket::open(&must(laptop.uplink_space()), at::ETH0)).mac;
    // In the next hop's name too, which is the only one whom the laptop answers at all; to all and to
    // the laptop's own MAC.
    for inner in [at::GUEST, at::GUEST_ROUTER, Ipv4Addr::new(10, 12, 0, 200)] {
        for sender in [at::ATTACKER, at::CAFE_ROUTER] {
            let mut ask = arp_frame(1, (wire.mac, sender), ([0; 6], inner));
            must(wire.send(&ask));
            ask[..6].copy_from_slice(&uplink);
            must(wire.send(&ask));
        }
        let heard = must(wire.wait(Duration::from_secs(1), |frame| answer(frame, inner)));
        assert!(heard.is_none(), "{inner} was answered");
    }
    // The question itself is heard: the next hop is answered for the address on this wire.
    let lent = lent_address(&scene, &laptop);
    must(wire.send(&arp_frame(1, (wire.mac, at::CAFE_ROUTER), ([0; 6], lent))));
    let heard = must(wire.wait(Duration::from_secs(3), |frame| answer(frame, lent)));
    assert!(
        heard.is_some(),
        "the laptop does not answer for {lent} either"
    );
    scene.holds(&laptop, Expects::Tunnelled);
}

fn lent_address(scene: &Scene, laptop: &NetLaptop<'_>) -> Ipv4Addr {
    let mut command = must(laptop.uplink_space()).command("ip");
    command.args(["-o", "-4", "addr", "show", "dev", at::ETH0]);
    let shown = must(scene.lab.run_command(command, Duration::from_secs(5))).stdout;
    let address = shown
        .split_whitespace()
        .skip_while(|word| *word != "inet")
        .nth(1)
        .and_then(|text| text.split('/').next()?.parse().ok());
    address.unwrap_or_else(|| panic!("no address on eth0: {shown}"))
}
