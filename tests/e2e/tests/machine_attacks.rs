//! Attacks on the laptop as a machine, in the QEMU laptop on the lab's cables: what its wires carry from
//! the power button on (T26), through panics, resets and power cuts (T27), and with network cards that
//! somebody plugs in (T46).

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use sekisho_e2e::journey::{Journey, Judged, StepError, Tunnel};
use sekisho_lab::{Direction, Recording, oracle, topology::Point};
use sekisho_laptop::{Plugged, Socket};
use sekisho_skip::skip_unless;

/// From the power button to a page.
const ARRIVE: [&str; 6] = ["power-on", "uplink", "tunnel", "work-os", "address", "page"];
/// A firmware's network boot speaks a few seconds after power-on; emulated, and beside other tests.
const FIRMWARE_LIMIT: Duration = Duration::from_mins(1);
/// How long a card that was plugged in is watched: several times as long as a kernel or a network
/// service takes to use one.
const WATCH: Duration = Duration::from_secs(10);
/// How long drivers may take.
const SOON: Duration = Duration::from_mins(1);

fn must<T>(result: Result<T, StepError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// A laptop in the cafe; `None` where there can be none.
fn journey() -> Option<Journey> {
    let skipped = skip_unless(
        rustix::process::geteuid().is_root(),
        "network namespaces need root",
    );
    (!skipped).then(|| must(Journey::prepare(false, Tunnel::default())).sturdy())
}

fn holds(judged: &Judged) {
    assert!(judged.verdict.holds(), "{}", judged.verdict);
    assert!(
        judged.verdict.tunnelled > 0,
        "no tunnel: {}",
        judged.verdict
    );
    assert!(judged.inside > 0, "the search for canaries proves nothing");
    println!("{}; {} canaries inside", judged.verdict, judged.inside);
}

fn is_red(judged: &Judged, why: &str) {
    let named = |leak: &oracle::Leak| leak.what.contains(why);
    assert!(
        judged.verdict.listed.iter().any(named),
        "the oracle does not see {why}: {}",
        judged.verdict
    );
}

/// `EtherType` IPv4, UDP from port 68 to port 67 behind a header of 20 bytes: DHCP.
fn is_dhcp(frame: &[u8]) -> bool {
    frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(34..38) == Some(&[0, 68, 0, 67])
}

#[test]
fn t26_from_the_power_button_to_the_tunnel_the_first_frame_is_ours() {
    let Some(mut journey) = journey() else { return };
    must(journey.go(&ARRIVE));
    let judged = must(journey.judge());
    holds(&judged);
    let (at, first) = &judged.sent[0];
    assert!(is_dhcp(first), "the first frame, at {at}: {first:02x?}");
    println!("{} frames sent, the first one DHCP", judged.sent.len());

    // The control: a firmware that boots from the network, on the same cables.
    journey.cut_power();
    must(journey.capture());
    let firmware = must(journey.network_boot());
    let began = Instant::now();
    while !must(journey.sent_anything()) && began.elapsed() < FIRMWARE_LIMIT {
        std::thread::sleep(Duration::from_secs(1));
    }
    drop(firmware);
    is_red(&must(journey.judge()), "boots from the network");
}

/// How the laptop ends and is there again; the time from one page to the next.
type End = fn(&mut Journey) -> Result<Duration, StepError>;

#[test]
fn t27_panics_resets_and_power_cuts_leak_nothing_and_the_laptop_comes_back() {
    let Some(mut journey) = journey() else { return };
    must(journey.go(&ARRIVE));
    let mut told = Vec::new();
    let ends: [(&str, End); 3] = [
        ("the work OS panicked", Journey::work_os_panics),
        ("the laptop panicked", Journey::laptop_panics),
        ("reset", Journey::reset),
    ];
    for (what, end) in ends {
        must(journey.under_traffic());
        told.push(format!(
            "{what}: a page again after {:?}",
            must(end(&mut journey))
        ));
    }
    must(journey.under_traffic());
    let began = Instant::now();
    journey.cut_power();
    must(journey.go(&ARRIVE));
    told.push(format!(
        "power cut: a page again after {:?}",
        began.elapsed()
    ));
    must(journey.under_traffic());
    let judged = must(journey.judge());
    holds(&judged);

    // The control, on the same wire; then everything is shut down in order, under the same eyes.
    must(journey.capture());
    must(journey.leak_canary());
    is_red(&must(journey.judge()), "a canary in clear");
    must(journey.capture());
    must(journey.go(&["power-button"]));
    let judged = must(journey.judge());
    assert!(judged.verdict.holds(), "{}", judged.verdict);
    println!("{}\nshutdown: {}", told.join("\n"), judged.verdict);
}

/// Names of network interfaces.
fn names(listing: &str) -> BTreeSet<String> {
    listing.split_whitespace().map(str::to_owned).collect()
}

const NICS: &str = "ls /sys/class/net";

#[test]
fn t46_cards_that_are_plugged_in_are_nobodys() {
    let Some(mut journey) = journey() else { return };
    must(journey.go(&ARRIVE));
    let in_guest = names(&must(journey.in_work_os(NICS)));
    let in_uplink = must(journey.in_space_of("uplink", "ip -o link | cut -d: -f2"));
    let plugs = [("tether", Socket::Usb), ("second", Socket::Pci)];
    let drivers = "modprobe xhci_pci && modprobe cdc_ether && modprobe rndis_host";
    must(journey.in_laptop(drivers));
    let mut captures = Vec::new();
    let mut new: Vec<String> = Vec::new();
    for (name, socket) in plugs {
        let before = names(&must(journey.in_laptop(NICS)));
        let plugged = journey.machine().expect("it is on").plug_in(socket, name);
        captures.push(plugged.expect("plugged in"));
        new.push(appeared(&journey, &before));
    }
    // A USB Wi-Fi stick, as far as the kernel is concerned: a radio that was not there.
    let before = names(&must(journey.in_laptop(NICS)));
    must(journey.in_laptop("modprobe mac80211_hwsim radios=1"));
    new.push(appeared(&journey, &before));
    println!("plugged in: {}", new.join(", "));

    // The uplink starts anew while they are there, as it would look for cards.
    must(journey.kill_and_wait("uplink"));
    must(journey.go(&["page"]));
    std::thread::sleep(WATCH);
    assert_eq!(names(&must(journey.in_work_os(NICS))), in_guest);
    let uplink = must(journey.in_space_of("uplink", "ip -o link | cut -d: -f2"));
    assert_eq!(uplink, in_uplink, "cards of the uplink");
    let lo = must(journey.in_space_of("gate", "ip -o link | cut -d: -f2"));
    assert_eq!(lo.trim(), "lo", "cards of the gate");
    for name in &new {
        let link = must(journey.in_laptop(&format!(
            "ip -o addr show dev {name}; ip -o link show dev {name}"
        )));
        assert!(
            !link.contains("inet") && link.contains("state DOWN"),
            "{link}"
        );
        let routes = must(journey.in_laptop("ip route; ip -6 route"));
        assert!(!routes.contains(&format!("dev {name} ")), "{routes}");
    }
    for plugged in &captures {
        assert_eq!(sent(plugged), 0, "{plugged:?}");
    }
    holds(&must(journey.judge()));

    // The control: what any desktop does with such a card, and the same search finds it.
    for (name, plugged) in new.iter().zip(&captures) {
        let use_it = format!(
            "ip link set {name} up; busybox udhcpc -i {name} -n -q -t 5 -T 2 -s /bin/true || true"
        );
        must(journey.in_laptop(&use_it));
        let sent = sent(plugged);
        println!("{name} sends {sent} frames once somebody uses it");
        assert!(sent > 0, "the capture of {name} proves nothing");
    }
}

/// Waits for the card that was not there before.
fn appeared(journey: &Journey, before: &BTreeSet<String>) -> String {
    let began = Instant::now();
    loop {
        let now = names(&must(journey.in_laptop(NICS)));
        // A driver may rename its card in the middle, and hwsim makes a device to listen with.
        let new = now.difference(before).find(|name| *name != "hwsim0");
        if let Some(new) = new {
            return new.clone();
        }
        let console = journey.machine().expect("it is on").console_tail();
        assert!(began.elapsed() < SOON, "no card appeared: {console}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Frames that a card sent.
fn sent(card: &Plugged) -> u64 {
    assert!(fs::metadata(&card.capture).is_ok(), "{card:?}");
    let recording = Recording {
        name: "plugged".to_owned(),
        file: card.capture.clone(),
        point: Point::P1,
        direction: Direction::Both,
        missed: 0,
    };
    oracle::count_frames(&recording, Plugged::sent).expect("a capture")
}
