//! Another station that has the address which the LAN's DHCP server keeps for the work OS (RFC 5227). That
//! nobody is in the way where there is none is what the tests of `bridged` show.

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use sekisho_control::{Report, Side, UplinkToGate};

use super::{
    RANGE, ROUTER,
    bridged::{RESERVED, ask, bridged, say},
    fixture::papers::Issue,
    next_path,
    wire::{Wire, cannot_run, receive},
};

/// The reserved address.
const KEPT: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 77);
/// RFC 2131, section 3.1, point 5: ten seconds, of which the news may take one.
const DECLINED: Duration = Duration::from_secs(9);

/// A station of the LAN with a MAC, a kernel and an address of its own.
struct Station {
    space: String,
}

impl Station {
    fn new(lan: &Wire, address: Ipv4Addr) -> Self {
        let station = Self {
            space: format!("sk{}-station", std::process::id()),
        };
        let space = &station.space;
        run(&format!("netns add {space}"));
        lan.ip_lan(&format!(
            "link add station0 link lan0 netns {space} type macvlan mode bridge"
        ));
        run(&format!("-n {space} addr add {address}/24 dev station0"));
        run(&format!("-n {space} link set station0 up"));
        station
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        run(&format!("netns del {}", self.space));
    }
}

fn run(arguments: &str) {
    let ip = Command::new("ip").args(arguments.split(' ')).status();
    assert!(ip.unwrap().success(), "ip {arguments}");
}

#[test]
fn an_address_that_a_neighbour_has_is_given_back_and_another_one_used() {
    if cannot_run("an_address_that_a_neighbour_has_is_given_back_and_another_one_used") {
        return;
    }
    let mut lan = Wire::new();
    lan.serve_dhcp(RANGE, &[ROUTER, RESERVED]);
    let _station = Station::new(&lan, KEPT);
    Issue::write_text(lan.folder(), &bridged());
    let uplink = lan.start_with_papers();
    uplink.report("ready", |report| *report == Report::Ready);
    let gate = uplink.attach_gate();
    next_path(&gate, Side::Outside);
    say(&gate, true);
    ask(&gate);
    uplink.report("the duplicate", |report| {
        matches!(report, Report::Ignored { what }
            if what.contains("duplicate address: 192.168.43.77 is in use by"))
    });
    let given_back = Instant::now();
    // It was never the port's own.
    assert!(!lan.ip_host("addr show dev eth0").contains("192.168.43.77"));
    // The path of the first lease went with the card's own MAC; the next one comes with another address.
    receive(&gate, "the end of the first proof", |message, _| {
        matches!(message, UplinkToGate::CarrierLost { .. })
    });
    next_path(&gate, Side::Outside);
    assert!(given_back.elapsed() >= DECLINED);
    say(&gate, true);
    ask(&gate);
    let (message, _) = receive(&gate, "a wire", |message, _| {
        matches!(message, UplinkToGate::Wire { .. })
    });
    let UplinkToGate::Wire {
        lan: Some(place), ..
    } = message
    else {
        panic!("{message:?}");
    };
    assert!((50..=60).contains(&place.address.octets()[3]), "{place:?}");
}
