//! Paths come and go; connections stay, and nothing leaves without a way.

use std::net::SocketAddr;
use std::time::Duration;

use sekisho_control::{Command, SituationReport, UplinkToGate};
use sekisho_framelink::NetHdr;

use super::fixture::papers::OUTSIDE;
use super::frames::{frame, udp};
use super::world::{GROUPWARE, GUEST, World, path_socket};

fn probe(world: &mut World) {
    let packet = udp((GUEST, 4000), (GROUPWARE, 7000), b"probe");
    world.send(NetHdr::default(), &frame(&packet));
}

fn closed(world: &World) -> bool {
    matches!(world.last_situation(), Some(SituationReport::Closed { .. }))
}

#[test]
fn t08_a_path_that_leads_elsewhere_than_it_says_is_not_taken() {
    let mut world = World::new();
    let elsewhere = std::net::UdpSocket::bind("192.168.43.2:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let SocketAddr::V4(attacker) = elsewhere.local_addr().unwrap() else {
        panic!("IPv4");
    };
    // Says the truth about a peer that policy does not know, then lies about it.
    for said in [attacker, OUTSIDE] {
        world.hand_over("eth0", said, &path_socket("eth0", attacker));
    }
    world.settle();
    assert!(elsewhere.recv(&mut [0; 2048]).is_err());
    assert!(closed(&world));
}

/// A proof and a pulled cable are a port's: a socket on another port, or on none, would outlive
/// them.
#[test]
fn t22_a_path_on_another_port_than_it_says_is_not_taken() {
    let mut world = World::new();
    let unbound = std::net::UdpSocket::bind("192.168.43.2:0").unwrap();
    unbound.connect(OUTSIDE).unwrap();
    for socket in [path_socket("eth1", OUTSIDE), unbound.into()] {
        world.hand_over("eth0", OUTSIDE, &socket);
    }
    world.settle();
    assert!(closed(&world));
    // The same socket under its own name.
    world.add_path("eth1");
    world.until("the tunnel is up", World::tunnelled);
}

#[test]
fn nothing_leaves_before_the_handshake_or_after_the_uplink_is_gone() {
    let mut world = World::new();
    probe(&mut world);
    world.until("it is refused", |world| world.refused_by("closed"));
    assert!(world.inner.is_empty());

    world.add_path("eth0");
    world.until("the tunnel is up", World::tunnelled);
    probe(&mut world);
    world.until("the packet is inside", |world| !world.inner.is_empty());

    // End of file on the uplink's channel: no path is left.
    let (other, _) = sekisho_control::pair().unwrap();
    world.uplink = sekisho_control::Channel::from_fd(other).unwrap();
    world.until("the gate is closed", |world| closed(world));
    world.inner.clear();
    probe(&mut world);
    world.settle();
    assert!(world.inner.is_empty());
}

#[test]
fn a_lost_carrier_moves_the_tunnel_and_the_gateway_follows_at_once() {
    let mut world = World::connected();
    world.add_path("eth1");
    world.settle();
    let before = world.laptop.unwrap();
    let lost = UplinkToGate::CarrierLost {
        port: "eth0".to_owned(),
    };
    world.uplink.send(&lost, &[]).unwrap();
    // Nothing is sent by the guest: the kick alone must move the gateway.
    world.until("the gateway follows", |world| world.laptop != Some(before));
    assert!(world.tunnelled());
    world.inner.clear();
    probe(&mut world);
    world.until("the packet is inside", |world| !world.inner.is_empty());
}

#[test]
fn suspension_closes_and_resuming_needs_a_new_path_and_handshake() {
    let mut world = World::connected();
    world.supervisor.send(&Command::Suspend, &[]).unwrap();
    world.until("the gate is closed", |world| closed(world));
    world.add_path("eth0");
    world.settle();
    assert!(closed(&world), "asleep");
    world.supervisor.send(&Command::Resume, &[]).unwrap();
    world.settle();
    world.add_path("eth0");
    world.until("the tunnel is up again", World::tunnelled);
}

/// Nothing is sealed under keys from before the sleep, and what is opens nothing: before it, the same is the
/// control.
#[test]
fn t31_a_session_does_not_outlive_the_sleep() {
    const DATA: u8 = 4;
    let mut world = World::connected();
    let packet = udp((GROUPWARE, 7000), (GUEST, 4000), b"answer");
    probe(&mut world);
    world.until("the flow is open", |world| !world.inner.is_empty());
    world.frames.clear();
    world.gateway_sends(&packet);
    world.until("an answer", |world| !world.frames.is_empty());

    world.supervisor.send(&Command::Suspend, &[]).unwrap();
    world.until("the gate is closed", |world| closed(world));
    world.supervisor.send(&Command::Resume, &[]).unwrap();
    world.settle();
    world.frames.clear();
    world.add_path("eth0");
    // Only the gate has its turns: the gateway does not answer a handshake.
    let mut buffer = [0; 2048];
    let mut hear = |world: &mut World| {
        let mut kinds = Vec::new();
        for _ in 0..20 {
            world.gate.turn(Duration::from_millis(1)).unwrap();
            while let Ok((_, SocketAddr::V4(from))) = world.gateway.recv_from(&mut buffer) {
                world.laptop = Some(from);
                kinds.push(buffer[0]);
            }
        }
        kinds
    };
    let before = hear(&mut world);
    assert!(!before.is_empty(), "it calls the gateway");
    world.gateway_sends(&packet);
    probe(&mut world);
    let after = hear(&mut world);
    assert!(
        !before.iter().chain(&after).any(|kind| *kind == DATA),
        "sealed under keys from before the sleep"
    );
    world.step();
    assert!(closed(&world) && world.frames.is_empty());
    world.until("the tunnel is up again", World::tunnelled);
}

#[test]
fn a_fresh_link_replaces_the_old_one() {
    let mut world = World::connected();
    let (link, guest) = sekisho_framelink::pair().unwrap();
    let attach = Command::Attach {
        port: sekisho_control::Port::Link,
    };
    let rules = world.guest.rules();
    world
        .supervisor
        .send(&attach, &[std::os::fd::AsFd::as_fd(&link)])
        .unwrap();
    world.guest = sekisho_framelink::SeqPacket::from_fd(guest, rules).unwrap();
    drop(link);
    world.settle();
    probe(&mut world);
    world.until("the packet is inside", |world| !world.inner.is_empty());
}
