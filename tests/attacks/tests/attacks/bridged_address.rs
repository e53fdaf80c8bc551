//! The work OS's address on an office LAN: a neighbour who says that it is his, and a second DHCP server.

use std::time::{Duration, Instant};

use sekisho_attacks::{Expects, Scene, chatter, must};
use sekisho_lab::{
    Cafe, Setup, Wall, address as at,
    oracle::count_frames,
    packet::{PacketSocket, arp_frame},
};

/// An ordinary PC of the office's.
const PC: [u8; 4] = [10, 12, 100, 66];
const SOON: Duration = Duration::from_secs(5);
/// Ten seconds after the first defence the second one is due.
const HEALED: Duration = Duration::from_secs(13);

/// Whether a frame says by ARP that this MAC has the guest's address.
fn claims(frame: &[u8], mac: [u8; 6]) -> bool {
    frame.len() >= 42
        && frame[12..14] == [8, 6]
        && frame[22..28] == mac
        && frame[28..32] == at::GUEST_IN_OFFICE.octets()
}

/// RFC 5227, section 2.4: it is said once in ten seconds whose address it is, whoever claims it how
/// often, and the work OS keeps it.
#[test]
fn a_neighbour_who_claims_the_members_address_gets_neither_it_nor_a_quarrel() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let pc = scene.neighbour(PC.into());
    let laptop = scene.member_at_the_desk();
    let mark = laptop.events().mark();
    let wire = must(PacketSocket::open(&pc, "lan"));
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(4) {
        for operation in [1, 2] {
            let claim = (wire.mac, at::GUEST_IN_OFFICE);
            must(wire.send(&arp_frame(operation, claim, ([0; 6], at::GUEST_IN_OFFICE))));
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(sent > 200, "{sent}");
    let duplicates = |event: &sekisho_lab::Event| {
        event.is("uplink", "ignored") && event.text("what").contains("duplicate address")
    };
    must(laptop.wait_event(mark, "a duplicate", SOON, duplicates));
    // His word is what the router believes until ours is the last.
    must(laptop.wait_page(HEALED));
    println!("a page again {:?} after his first claim", began.elapsed());
    std::thread::sleep(HEALED.saturating_sub(began.elapsed()));
    let all = laptop.events().all();
    assert_eq!(all.iter().filter(|event| duplicates(event)).count(), 2);
    // The beacon may have been out of reach meanwhile; the address and the MAC are what they were.
    scene.joined(&laptop, 0);
    let leases = all
        .iter()
        .filter(|event| event.is("uplink", "uplink") && event.text("event") == "leased");
    assert_eq!(leases.count(), 2, "one under each MAC");

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Desk);
    let from = must(recordings.get("eth1.from"));
    let gratuitous = |frame: &[u8]| {
        claims(frame, at::GUEST_MAC) && frame[38..42] == at::GUEST_IN_OFFICE.octets()
    };
    // Two when it came, of which the defence may be one, and one ten seconds after that.
    let ours = must(count_frames(from, gratuitous));
    assert!((3..=4).contains(&ours), "{ours}");
    let to = must(recordings.get("eth1.to"));
    let heard = must(count_frames(to, |frame| claims(frame, wire.mac)));
    assert!(heard > 200, "the claims did not arrive: {heard}");
}

/// T01 on the office LAN itself: another DHCP server answers, with routes to half of the world, its own
/// resolver, a proxy, and itself as the router.
#[test]
fn t01_bridged_a_second_dhcp_server_draws_no_packet_that_policy_has_no_flow_for() {
    let Some(scene) = Scene::bridged(Cafe::default()) else {
        return;
    };
    let rogue = scene.neighbour(PC.into());
    let on_rogue = |words: &[&str]| {
        let mut command = rogue.command(words[0]);
        command.args(&words[1..]);
        must(must(scene.lab.run_command(command, SOON)).ok()).stdout
    };
    on_rogue(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    on_rogue(&["sysctl", "-qw", "net.ipv4.conf.all.send_redirects=0"]);
    on_rogue(&["sysctl", "-qw", "net.ipv4.conf.lan.send_redirects=0"]);
    // He is first, each time.
    let mute = "table ip mute { chain out { type filter hook output priority filter; udp sport 67 drop; }; }";
    scene.run("office", &["nft", mute]);
    let me = std::net::Ipv4Addr::from(PC).to_string();
    let routes = format!("0.0.0.0/1,{me},128.0.0.0/1,{me},10.99.0.0/16,{me},198.51.100.80/32,{me}");
    let mut command = rogue.command("dnsmasq");
    let guest = at::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-ping",
        "--user=root",
        "--pid-file=",
        "--interface=lan",
        "--dhcp-authoritative",
        "--dhcp-leasefile=/dev/null",
        "--dhcp-range=10.12.100.80,10.12.100.90,255.255.255.0,1h",
        &format!("--dhcp-host={guest},set:member,{}", at::GUEST_IN_OFFICE),
        // A laptop under its own MAC answers ARP to its lease's router alone, so he would have to
        // translate to be that one. A member answers everybody.
        &format!("--dhcp-option=3,{}", at::OFFICE_ROUTER),
        &format!("--dhcp-option=tag:member,3,{me}"),
        &format!("--dhcp-option-force=6,{me}"),
        &format!("--dhcp-option-force=121,{routes}"),
        &format!("--dhcp-option-force=249,{routes}"),
        "--dhcp-option-force=252,http://10.12.100.66/wpad.dat",
    ]);
    let _server = must(scene.lab.spawn_command("rogue-dhcp", command));

    must(scene.lab.unplug(at::ETH0));
    must(scene.lab.plug(at::ETH1, Wall::Office));
    let setup = Setup {
        policy: Some(scene.lab.papers().policy_with_bridged()),
        ..Setup::default()
    };
    let laptop = must(sekisho_lab::NetLaptop::start(&scene.lab, &setup));
    must(laptop.plug_guest());
    scene.joined(&laptop, 0);
    for code in ["121", "249", "252"] {
        must(laptop.wait_event(0, code, SOON, |event| {
            let what = event.text("what");
            event.is("uplink", "ignored") && what.contains(&format!("option {code}"))
        }));
    }
    let _chatter = chatter(&laptop, 5);
    must(laptop.wait_page(SOON));
    // What he has a route for, and policy no flow: the decoys, My Number, a resolver of his own.
    let mark = laptop.events().mark();
    for (host, port) in [("198.51.100.80", "80"), ("10.99.0.1", "80"), (&*me, "53")] {
        let _ = laptop.guest(&["busybox", "nc", "-w", "1", host, port]);
        must(laptop.wait_event(mark, "a refusal", SOON, |event| {
            event.is("gate", "refused") && event.text("packet").contains(host)
        }));
    }
    let tables = scene.uplink(&laptop, &["ip", "route", "show", "table", "all"]);
    assert!(
        tables.stdout.contains(&me),
        "he is the lease's router: {tables}"
    );
    for network in ["0.0.0.0/1", "128.0.0.0/1", "10.99.0.0", "198.51.100.80"] {
        assert!(!tables.stdout.contains(network), "{tables}");
    }

    let recordings = scene.holds_on(at::ETH1, &laptop, Expects::Direct);
    // What he has gained: he stands between, and sees what policy lets onto that LAN.
    let mac = must(PacketSocket::open(&rogue, "lan")).mac;
    let from = must(recordings.get("eth1.from"));
    let by_him = |frame: &[u8]| frame.len() > 34 && frame[..6] == mac && frame[12..14] == [8, 0];
    let seen = must(count_frames(from, by_him));
    println!("{seen} packets went by the second server");
    assert!(seen > 0, "he was not asked: the test shows nothing");
}
