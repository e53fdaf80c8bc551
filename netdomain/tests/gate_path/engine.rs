//! A tunnel whose engine is a process of its own: what the gate asks of it, and what it believes.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use sekisho_control::{
    Channel, DownCause, EngineToGate, GateToEngine, GateToUplink, PathId, SituationReport,
    UplinkToGate,
};
use sekisho_framelink::NetHdr;
use smoltcp::wire::TcpControl;
use socket2::SockRef;

use super::fixture::papers::TLS;
use super::frames::{frame, packet_of, tcp, udp};
use super::world::{GROUPWARE, GUEST, MTU, World};

type Engine = Channel<EngineToGate, GateToEngine>;

fn closed(world: &World) -> bool {
    matches!(world.last_situation(), Some(SituationReport::Closed { .. }))
}

fn heard(world: &mut World, engine: &Engine) -> (GateToEngine, Vec<OwnedFd>) {
    let mut said = None;
    world.until("the gate tells the engine something", |_| {
        said = engine.recv().unwrap();
        said.is_some()
    });
    let said = said.unwrap();
    (said.message, said.fds)
}

/// A gate that has told its engine to begin, over the only path there is.
fn begun() -> (World, Engine, PathId, u32) {
    let (mut world, engine) = World::with_engine();
    let path = world.add_stream_path("eth0", TLS);
    let (begin, _) = heard(&mut world, &engine);
    let GateToEngine::Begin { attempt, gateway } = begin else {
        panic!("{begin:?}");
    };
    assert_eq!(gateway, "honcho-tls");
    assert!(closed(&world), "nothing is proven yet");
    (world, engine, path, attempt)
}

fn up(attempt: u32) -> EngineToGate {
    EngineToGate::Up {
        attempt,
        address: GUEST,
        mtu: MTU,
    }
}

/// The same, and the tunnel is up; the far end of the descriptor for packets.
fn tunnelled() -> (World, Engine, u32, UnixDatagram) {
    let (mut world, engine, _, attempt) = begun();
    let (packets, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    engine.send(&up(attempt), &[packets.as_fd()]).unwrap();
    world.until("the tunnel is up", World::tunnelled);
    (world, engine, attempt, far)
}

fn question(world: &mut World, to: Ipv4Addr) -> Vec<u8> {
    let packet = udp((GUEST, 4000), (to, 7000), b"question");
    world.send(NetHdr::default(), &frame(&packet));
    packet
}

#[test]
fn packets_go_to_the_engine_and_answers_come_back() {
    let (mut world, _engine, _, far) = tunnelled();
    let packet = question(&mut world, GROUPWARE);
    let mut buffer = [0; 2048];
    let mut len = 0;
    world.until("the packet is at the engine", |_| {
        far.recv(&mut buffer).is_ok_and(|read| {
            len = read;
            true
        })
    });
    assert_eq!(buffer[..len], packet);
    far.send(&udp((GROUPWARE, 7000), (GUEST, 4000), b"answer"))
        .unwrap();
    world.until("the answer is out", |world| !world.frames.is_empty());
    assert!(packet_of(&world.frames[0].1).ends_with(b"answer"));
}

#[test]
fn what_an_engine_brings_is_admitted_like_everything_else() {
    let (mut world, _engine, _, far) = tunnelled();
    // Unasked, for somebody else, and no packet at all.
    far.send(&udp((GROUPWARE, 7000), (GUEST, 4000), b"unasked"))
        .unwrap();
    far.send(&udp(
        (GROUPWARE, 7000),
        (Ipv4Addr::new(10, 250, 7, 99), 4000),
        b"other",
    ))
    .unwrap();
    far.send(b"no packet").unwrap();
    far.send(b"").unwrap();
    world.settle();
    assert!(world.frames.is_empty());
    // What policy does not name does not get to it either.
    question(&mut world, Ipv4Addr::new(198, 51, 100, 80));
    question(&mut world, Ipv4Addr::new(10, 99, 0, 1));
    world.settle();
    assert!(far.recv(&mut [0; 2048]).is_err());
}

#[test]
fn a_super_frame_reaches_the_engine_cut_and_whole() {
    let (mut world, _engine, _, far) = tunnelled();
    let payload: Vec<u8> = (0..40_000u32).map(|at| (at % 253) as u8).collect();
    let packet = tcp(
        (GUEST, 4000),
        (GROUPWARE, 443),
        1000,
        TcpControl::Psh,
        &payload,
    );
    let header = NetHdr::partial_csum(34, 16).with_gso(sekisho_framelink::GsoType::TcpV4, 1380, 54);
    world.send(header, &frame(&packet));
    let (mut came, mut buffer) = (Vec::new(), [0; 2048]);
    world.until("all of it is at the engine", |_| {
        while let Ok(len) = far.recv(&mut buffer) {
            assert!(len <= usize::from(MTU));
            assert!(super::frames::checksums_hold(&buffer[..len]));
            came.extend_from_slice(&buffer[40..len]);
        }
        came.len() >= payload.len()
    });
    assert_eq!(came, payload, "its queue is short, and nothing is lost");
}

#[test]
fn an_engine_that_lies_about_its_tunnel_is_told_to_end() {
    let wrong = [(Ipv4Addr::new(10, 250, 7, 24), MTU), (GUEST, MTU - 1)];
    for (address, mtu) in wrong {
        let (mut world, engine, _, attempt) = begun();
        let (packets, _far) = UnixDatagram::pair().unwrap();
        let lie = EngineToGate::Up {
            attempt,
            address,
            mtu,
        };
        engine.send(&lie, &[packets.as_fd()]).unwrap();
        assert_eq!(heard(&mut world, &engine).0, GateToEngine::End { attempt });
        assert!(closed(&world));
    }
    // A descriptor of another kind: datagrams of a network, or a stream.
    let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let (stream, _other) = UnixStream::pair().unwrap();
    for descriptor in [udp, stream.into()] {
        let (mut world, engine, _, attempt) = begun();
        engine.send(&up(attempt), &[descriptor.as_fd()]).unwrap();
        assert_eq!(heard(&mut world, &engine).0, GateToEngine::End { attempt });
        assert!(closed(&world));
    }
}

#[test]
fn words_about_an_attempt_that_is_over_are_nothing() {
    let (mut world, engine, _, attempt) = begun();
    let (packets, _far) = UnixDatagram::pair().unwrap();
    engine
        .send(&up(attempt.wrapping_sub(1)), &[packets.as_fd()])
        .unwrap();
    world.settle();
    assert!(closed(&world));
}

#[test]
fn connections_come_from_the_uplink_over_the_right_port_and_not_without_end() {
    let (mut world, engine, path, attempt) = begun();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let dial = |world: &mut World| {
        engine.send(&EngineToGate::Dial { attempt }, &[]).unwrap();
        world.until("the uplink is asked", |world| {
            let wanted = GateToUplink::Dial { id: path };
            world
                .uplink
                .recv()
                .unwrap()
                .is_some_and(|said| said.message == wanted)
        });
    };
    dial(&mut world);
    // Not bound to the path's port.
    let stream = UplinkToGate::Stream { id: path };
    world.uplink.send(&stream, &[connect().as_fd()]).unwrap();
    world.settle();
    assert!(engine.recv().unwrap().is_none());
    let right = connect();
    SockRef::from(&right).bind_device(Some(b"eth0")).unwrap();
    world.uplink.send(&stream, &[right.as_fd()]).unwrap();
    let (said, fds) = heard(&mut world, &engine);
    assert_eq!((said, fds.len()), (GateToEngine::Stream { attempt }, 1));

    for _ in 1..4 {
        dial(&mut world);
    }
    engine.send(&EngineToGate::Dial { attempt }, &[]).unwrap();
    assert_eq!(heard(&mut world, &engine).0, GateToEngine::End { attempt });
}

#[test]
fn a_path_to_somebody_else_is_not_taken() {
    let (mut world, engine) = World::with_engine();
    for peer in ["203.0.113.11:443", "203.0.113.10:51820"] {
        world.add_stream_path("eth0", peer.parse().unwrap());
    }
    world.settle();
    assert!(engine.recv().unwrap().is_none());
}

#[test]
fn the_end_of_an_engine_closes_the_gate() {
    // By its word.
    let (mut world, engine, attempt, far) = tunnelled();
    let down = EngineToGate::Down {
        attempt,
        why: "over".to_owned(),
        cause: DownCause::Any,
    };
    engine.send(&down, &[]).unwrap();
    world.until("the gate is closed", |world| closed(world));
    question(&mut world, GROUPWARE);
    world.settle();
    assert!(far.recv(&mut [0; 2048]).is_err());

    // By its death.
    let (mut world, engine, _, _far) = tunnelled();
    drop(engine);
    world.until("the gate is closed", |world| closed(world));

    // By that of the program that holds the descriptor.
    let (mut world, _engine, _, far) = tunnelled();
    drop(far);
    question(&mut world, GROUPWARE);
    world.until("the gate is closed", |world| closed(world));

    // With its cable.
    let (mut world, engine, attempt, _far) = tunnelled();
    let port = "eth0".to_owned();
    world
        .uplink
        .send(&UplinkToGate::CarrierLost { port }, &[])
        .unwrap();
    assert_eq!(heard(&mut world, &engine).0, GateToEngine::End { attempt });
    assert!(closed(&world));
}
