//! T13: who answers where no gateway does, as the gate asks and tells it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sekisho_control::{GateToUplink, Report, UplinkToGate};
use socket2::SockRef;

use super::world::World;

/// A knock takes five seconds at most, and begins after three.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turns the gate alone: nobody plays the gateway.
fn until(world: &mut World, what: &str, mut done: impl FnMut(&mut World) -> bool) {
    let start = Instant::now();
    while !done(world) {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        world.gate.turn(Duration::from_millis(10)).unwrap();
    }
}

fn told(world: &mut World) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(Some(received)) = world.supervisor.recv() {
        if let Report::Stranger { port } = received.message {
            told.push(port);
        }
    }
    told
}

/// Hands over a connection that is bound to `lo`, as one of `port`; its far end.
fn hand_over(world: &World, port: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&socket).bind_device(Some(b"lo")).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    let port = port.to_owned();
    let socket = OwnedFd::from(socket);
    world
        .uplink
        .send(&UplinkToGate::Knock { port }, &[socket.as_fd()])
        .unwrap();
    far
}

/// Waits for the first words of TLS.
fn hello(world: &mut World, far: &mut TcpStream) {
    let mut first = [0; 6];
    until(world, "the first words", |_| {
        far.read(&mut first).is_ok_and(|len| len > 0)
    });
    // RFC 8446, section 5.1 and 4: a handshake record that begins with a ClientHello.
    assert_eq!((first[0], first[1], first[5]), (22, 3, 1));
}

#[test]
fn t13_who_answers_in_a_gateways_place_is_asked_and_told() {
    let mut world = World::new();
    world.add_path("eth0");
    let mut asked = None;
    until(&mut world, "a knock", |world| {
        while let Ok(Some(received)) = world.uplink.recv() {
            if let GateToUplink::Knock { port } = received.message {
                asked = Some(port);
            }
        }
        asked.is_some()
    });
    assert_eq!(asked.as_deref(), Some("eth0"));

    // A page is told; the control is TLS, whoever's, and nothing at all.
    let mut far = hand_over(&world, "lo");
    hello(&mut world, &mut far);
    far.write_all(b"HTTP/1.1 302 Found\r\n").unwrap();
    let mut found = Vec::new();
    until(&mut world, "the stranger", |world| {
        found.extend(told(world));
        !found.is_empty()
    });
    assert_eq!(found, ["lo"]);
    for answer in [&b"\x15\x03\x01\x00\x02\x02\x46"[..], b""] {
        let mut far = hand_over(&world, "lo");
        hello(&mut world, &mut far);
        far.write_all(answer).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        // The gate has hung up: it has judged.
        until(&mut world, "the end", |_| match far.read(&mut [0; 2048]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        });
        assert_eq!(told(&mut world), [] as [String; 0]);
    }
}

/// One that is under way ends when there is a way out.
#[test]
fn t13_a_knock_ends_with_the_first_way_out() {
    let mut world = World::new();
    let mut far = hand_over(&world, "lo");
    hello(&mut world, &mut far);
    world.add_path("eth0");
    world.until("the tunnel", World::tunnelled);
    world.step();
    // At once, and not when its five seconds are over.
    let ended = loop {
        match far.read(&mut [0; 2048]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    assert!(ended, "it goes on beside a way out");
    assert_eq!(told(&mut world), [] as [String; 0]);
}

/// The uplink cannot have it asked over another port than it says; and there is one knock a port.
#[test]
fn t13_a_knock_over_another_port_than_it_says_is_not_taken() {
    let mut world = World::new();
    let mut far = hand_over(&world, "eth0");
    let mut first = [0; 6];
    until(&mut world, "the end", |_| {
        far.read(&mut first).is_ok_and(|len| len == 0)
    });
    assert_eq!(told(&mut world), [] as [String; 0]);
    // One a port: the second takes the first one's place.
    let mut first = hand_over(&world, "lo");
    hello(&mut world, &mut first);
    let mut second = hand_over(&world, "lo");
    hello(&mut world, &mut second);
    until(&mut world, "the end of the first", |_| {
        match first.read(&mut [0; 2048]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    });
}
