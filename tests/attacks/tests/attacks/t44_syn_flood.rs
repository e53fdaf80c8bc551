//! T44: malware in the guest floods the gate with connections that nobody answers, while it is open
//! and while it is closed.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use sekisho_attacks::{Download, Expects, Scene, must};
use sekisho_lab::{
    NetLaptop, Part, UP_LIMIT, address as at,
    oracle::count_frames,
    packet::{PacketSocket, tcp_syn_frame},
};

/// What the gate's table holds (`gate/admit/flows.rs`).
const TABLE: u64 = 65_536;
/// Three times as many.
const FLOOD: u32 = 200_000;
/// And while it is closed.
const CLOSED: u32 = 20_000;

/// Nobody lives here and beyond: what is allowed and never answered.
const FIRST_HOST: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 100);

/// What the gate may grow by: its table is some 3 MiB, and a queue of frames for the guest is less
/// than one. Pages that a first touch brings in count as well.
const GROWTH_KIB: u64 = 24 * 1024;

/// Resident memory of the gate (proc(5), `status`).
fn resident_kib(laptop: &NetLaptop<'_>) -> u64 {
    let pid = must(laptop.pid(Part::Gate));
    let status = must(std::fs::read_to_string(format!("/proc/{pid}/status")));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    must(word.unwrap_or_default().parse())
}

/// Sends that many SYNs, each of another connection to a server that policy allows.
fn flood(nic: &PacketSocket, router: [u8; 6], count: u32, payload: &[u8]) {
    let start = Instant::now();
    for number in 0..count {
        let host = Ipv4Addr::from(u32::from(FIRST_HOST) + number / 60_000);
        let port = u16::try_from(1024 + number % 60_000).unwrap_or(1024);
        let frame = tcp_syn_frame(
            (at::GUEST_MAC, router),
            SocketAddrV4::new(at::GUEST, port),
            SocketAddrV4::new(host, 80),
            payload,
        );
        // The queue of the guest's own NIC holds a thousand and drops what is more.
        if nic.send(&frame).is_err() || number % 256 == 255 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    eprintln!("{count} connections begun in {:?}", start.elapsed());
}

/// The gate's MAC as the guest knows it.
fn router(laptop: &NetLaptop<'_>) -> [u8; 6] {
    let nic = must(laptop.guest_packets());
    must(laptop.page(Duration::from_secs(10)));
    let mac = must(nic.wait(Duration::from_secs(5), |frame| {
        (frame.len() > 14 && frame[..6] == at::GUEST_MAC)
            .then(|| frame[6..12].try_into().unwrap_or_default())
    }));
    mac.unwrap_or_else(|| panic!("the gate was not heard"))
}

#[test]
fn t44_a_syn_flood_costs_bounded_memory_and_no_other_connection() {
    let Some(scene) = Scene::cafe() else { return };
    let laptop = scene.laptop();
    let router = router(&laptop);
    let nic = must(laptop.guest_packets());
    let before = resident_kib(&laptop);
    let gate = must(laptop.pid(Part::Gate));
    let mark = laptop.events().mark();
    let download = Download::start(&laptop, 3_000_000, 400_000);
    flood(&nic, router, FLOOD, &[]);
    download.lives_on();
    must(laptop.page(Duration::from_secs(10)));
    let after = resident_kib(&laptop);
    eprintln!("the gate had {before} KiB before and {after} KiB after");
    assert!(
        after <= before + GROWTH_KIB,
        "{before} KiB, then {after} KiB"
    );
    assert_eq!(must(laptop.pid(Part::Gate)), gate, "the gate was restarted");
    let changed = laptop
        .events()
        .wait_after(mark, Duration::ZERO, |event| event.is("gate", "situation"));
    assert!(changed.is_none(), "{changed:?}");

    // And with the way out shut: it stays shut.
    let rules = format!(
        "table ip blocked {{ chain pass {{ type filter hook forward priority filter; \
         ip daddr {0} drop; ip saddr {0} drop; }}; }}",
        at::GATEWAY_OUTSIDE.ip()
    );
    scene.run("cafe", &["nft", &rules]);
    // Something that asks for an answer, so that the silence is noticed.
    let _ = laptop.page(Duration::from_secs(1));
    must(laptop.wait_closed(mark, Duration::from_secs(20)));
    let mark = laptop.events().mark();
    flood(&nic, router, CLOSED, &laptop.canary().bytes());
    must(laptop.wait_refused(mark, "closed", "tcp 10.12.10."));
    let opened = laptop.events().wait_after(mark, Duration::ZERO, |event| {
        event.is("gate", "situation") && event.text("situation") == "tunnelled"
    });
    assert!(opened.is_none(), "{opened:?}");
    let closed = resident_kib(&laptop);
    assert!(
        closed <= before + GROWTH_KIB,
        "{before} KiB, then {closed} KiB"
    );

    scene.run("cafe", &["nft", "delete table ip blocked"]);
    must(laptop.wait_tunnel(mark, UP_LIMIT));
    must(laptop.wait_page(UP_LIMIT));
    let recordings = scene.holds(&laptop, Expects::Tunnelled);
    // Packets of the flood at the gateway: more than the gate's table holds.
    let passed = must(count_frames(must(recordings.get("tunnel")), |packet| {
        packet.len() > 19 && packet[16..19] == [10, 12, 10] && packet[19] >= 100
    }));
    eprintln!("{passed} of the flood passed");
    assert!(passed > TABLE, "the flood was none: {passed}");
}
