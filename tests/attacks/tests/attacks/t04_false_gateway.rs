//! T04 (`TunnelCrack` `ServerIP`): the wire's DNS answers every name with a server of the attacker's
//! choice, and the attacker's own `WireGuard` peer sits on the gateway's address.

use std::time::Duration;

use sekisho_attacks::{Expects, Scene, must};
use sekisho_lab::{Cafe, NetLaptop, Setup, UP_LIMIT, WireGuardKey, address as at};

#[test]
fn t04_the_wires_dns_is_never_asked() {
    let extra = vec![format!("address=/#/{}", at::ATTACKER)];
    let Some(scene) = Scene::with(Cafe {
        extra,
        ..Cafe::default()
    }) else {
        return;
    };
    let laptop = scene.laptop();
    // Any DNS on the wire would turn the oracle red.
    scene.holds(&laptop, Expects::Tunnelled);
}

#[test]
fn t04_a_gateway_with_another_key_gets_no_handshake_and_no_packet() {
    let Some(scene) = Scene::cafe() else { return };
    let lab = &scene.lab;
    let run = |command: &[&str]| must(must(lab.run("cafe", command)).ok());
    let (address, port) = (
        at::GATEWAY_OUTSIDE.ip().to_string(),
        at::GATEWAY_OUTSIDE.port(),
    );
    let engine = must(lab.spawn(
        "cafe",
        "false-gateway",
        &["env", "LOG_LEVEL=verbose", "wireguard-go", "-f", "wgx"],
    ));
    must(engine.wait_line("UAPI listener started", Duration::from_secs(10)));
    let key = must(WireGuardKey::generate());
    let conf = lab.dir().join("false-gateway.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.250.7.23/32\n",
        key.private,
        lab.papers().laptop.public
    );
    must(std::fs::write(&conf, text));
    run(&["wg", "setconf", "wgx", &conf.to_string_lossy()]);
    run(&["ip", "link", "set", "wgx", "up"]);
    // The router keeps no state of what goes to the false gateway: its table of connections would
    // hold the laptop there after it is gone, which is no fault of the laptop's.
    let untracked = format!(
        "table ip false {{ chain in {{ type filter hook prerouting priority raw; \
         ip daddr {address} udp dport {port} notrack; }}; }}"
    );
    run(&["nft", &untracked]);
    run(&["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]);

    let laptop = must(NetLaptop::start(lab, &Setup::default()));
    must(laptop.plug_guest());
    // It does try: the false gateway hears a handshake that it cannot answer.
    must(
        engine
            .wait_line("Received handshake initiation", Duration::from_secs(15))
            .or_else(|_| engine.wait_line("nvalid", Duration::from_secs(1))),
    );
    let up = laptop
        .events()
        .wait_after(0, Duration::from_secs(6), |event| {
            event.is("gate", "situation") && event.text("situation") == "tunnelled"
        });
    assert!(up.is_none(), "a tunnel with another key: {up:?}");
    let url = format!("http://{address}/?canary={}", laptop.canary().hex());
    for url in [&url[..], "http://10.12.10.5/"] {
        assert!(!must(laptop.guest(&["curl", "-s", "-m", "2", url])).success());
    }
    scene.holds(&laptop, Expects::Closed);

    // The false gateway goes away, and the laptop finds the true one by itself.
    must(lab.capture());
    let mark = laptop.events().mark();
    drop(engine);
    run(&["ip", "addr", "del", &format!("{address}/32"), "dev", "lo"]);
    run(&["nft", "delete", "table", "ip", "false"]);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    scene.holds(&laptop, Expects::Tunnelled);
}
