//! An uplink that plays the attacker: it hands over wires that nobody asked for.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketType, socket};
use sekisho_control::{SituationReport, UplinkKind, UplinkToGate, WireId};
use sekisho_framelink::NetHdr;

use super::frames::{frame, udp};
use super::world::{GROUPWARE, GUEST, World};

fn hand_over(world: &World, id: u32, device: &OwnedFd, carrier: &OwnedFd) {
    let message = UplinkToGate::Wire {
        id: WireId(id),
        port: "eth0".to_owned(),
        kind: UplinkKind::Wired,
        index: 1,
        losses: 0,
        lan: None,
    };
    let fds = [device.as_fd(), carrier.as_fd()];
    world.uplink.send(&message, &fds).unwrap();
}

/// T19: without a proof of the gate's own, what is called a wire is none, whatever it is; and a
/// descriptor that is no wire is not taken at all.
#[test]
fn t19_a_wire_that_nobody_proved_carries_nothing() {
    let mut world = World::connected();
    let (stream, far) = UnixStream::pair().unwrap();
    let netlink = || socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
    hand_over(&world, 1, &stream.into(), &netlink());
    hand_over(&world, 2, &netlink(), &netlink());
    // And one of the right driver that is no interface.
    let tun = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Ok(tun) = tun {
        hand_over(&world, 3, &tun.into(), &netlink());
    }
    world.settle();
    let packet = udp((GUEST, 4000), (GROUPWARE, 7000), b"sealed as ever");
    world.send(NetHdr::default(), &frame(&packet));
    world.until("the packet is inside", |world| !world.inner.is_empty());
    assert!(world.tunnelled());
    let direct = world.reports.iter().any(|report| {
        matches!(
            report,
            sekisho_control::Report::Situation(SituationReport::Direct { .. })
        )
    });
    assert!(!direct);
    // The descriptor was closed, and nothing was written to it.
    far.set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    assert_eq!(std::io::Read::read(&mut &far, &mut [0; 64]).unwrap(), 0);
}
