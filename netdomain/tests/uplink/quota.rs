//! The SIM's quota: the cable `eth0` plays a modem that shows itself as an Ethernet card.

use std::{net::UdpSocket, time::Duration};

use sekisho_control::{Command, QuotaState, Report, Side};

use super::{
    RANGE, ROUTER,
    fixture::papers::Issue,
    next_path,
    wire::{GATEWAY, Uplink, Wire, cannot_run},
};

/// 1,000 bytes and the headers of a datagram.
const DATAGRAM: [u8; 1000] = [7; 1000];
/// Some 200 KiB: twice what the brake lets pass at once.
const SAMPLE: usize = 200;

fn write_policy(wire: &Wire) {
    let issue = Issue::default();
    let text = issue
        .text()
        .replacen(
            "kind = \"wired\"\nrank = 1\n",
            "kind = \"sim\"\nrank = 1\ninterfaces = [\"eth0\"]\nmonthly_quota = \"1MiB\"\n\
             warn_percent = [50]\nover_quota = { action = \"throttle\", rate = \"256kbit/s\" }\n",
            1,
        )
        .replacen("uplinks = [\"wired\"]", "uplinks = [\"sim\"]", 1);
    Issue::write_text(wire.folder(), &text);
}

fn start(wire: &Wire) -> Uplink {
    let folder = wire.folder().to_string_lossy().into_owned();
    let uplink = wire.start_with(&["--usage", &folder]);
    uplink.report("ready", |report| *report == Report::Ready);
    uplink
}

fn reaches(uplink: &Uplink, wanted: QuotaState) {
    uplink.report(
        "the quota",
        |report| matches!(report, Report::Quota { state, .. } if *state == wanted),
    );
}

/// How many of `count` datagrams arrive that are sent at once.
fn arrive(path: &UdpSocket, gateway: &UdpSocket, count: usize) -> usize {
    let mut buffer = [0; 2000];
    let mut arrived = 0;
    gateway.set_nonblocking(true).unwrap();
    for _ in 0..count {
        // One that the packet filter drops is an error of the call (EPERM).
        let _ = path.send(&DATAGRAM);
        while gateway.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
    }
    gateway.set_nonblocking(false).unwrap();
    gateway
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while gateway.recv(&mut buffer).is_ok() {
        arrived += 1;
    }
    arrived
}

/// Something passes, and far from all. What the brake lets pass at once may just have been used up;
/// each round of nothing takes long enough for some more.
fn is_braked(path: &UdpSocket, gateway: &UdpSocket) {
    let passed = (0..10).map(|_| arrive(path, gateway, SAMPLE));
    let passed = passed.into_iter().find(|passed| *passed > 0);
    assert!(
        passed.is_some_and(|passed| passed < SAMPLE * 3 / 4),
        "{passed:?} of {SAMPLE}"
    );
}

#[test]
fn a_spent_quota_is_remembered_by_the_next_uplink_on_another_interface() {
    if cannot_run("a_spent_quota_is_remembered_by_the_next_uplink_on_another_interface") {
        return;
    }
    let mut wire = Wire::new();
    wire.serve_dhcp(RANGE, &[ROUTER]);
    let gateway = wire.udp(GATEWAY);
    write_policy(&wire);
    let uplink = start(&wire);
    let gate = uplink.attach_gate();
    let path = next_path(&gate, Side::Outside);
    // The control: a fresh quota lets everything pass.
    assert_eq!(arrive(&path, &gateway, SAMPLE), SAMPLE);
    arrive(&path, &gateway, 500);
    reaches(&uplink, QuotaState::Warned);
    arrive(&path, &gateway, 500);
    reaches(&uplink, QuotaState::Throttled);
    is_braked(&path, &gateway);
    uplink.command(&Command::Shutdown);
    assert!(uplink.end().success());

    wire.recable();
    let uplink = start(&wire);
    reaches(&uplink, QuotaState::Throttled);
    let gate = uplink.attach_gate();
    let path = next_path(&gate, Side::Outside);
    is_braked(&path, &gateway);
}
