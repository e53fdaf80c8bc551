//! What policy says about bandwidth, measured at the far end of the tunnel and at the guest.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sekisho_framelink::NetHdr;

use super::frames::{frame, udp};
use super::world::{GROUPWARE, GUEST, World};

const UPDATES: Ipv4Addr = Ipv4Addr::new(10, 12, 13, 8);
const FLOW: &str = r#"
[[flow]]
id = "updates"
to = { segment = "lgwan", hosts = ["10.12.13.0/24"] }
udp = [8530]
"#;
const LIMITED: &str = r#"
[[flow]]
id = "updates"
to = { segment = "lgwan", hosts = ["10.12.13.0/24"] }
udp = [8530]
bandwidth = "bulk"
[bandwidth]
total = { up = "80Mbit/s", down = "80Mbit/s" }
bulk = { up = "8Mbit/s", down = "4Mbit/s" }
"#;
const PAYLOAD: [u8; 972] = [0x5a; 972];
/// With its headers.
const PACKET: f64 = 1000.0;
/// A quarter of a second's worth, or two super-packets: what a full bucket holds.
const BURST: (f64, f64) = (250_000.0, 151_000.0);
/// Long enough that the rate shows behind the burst.
const FOR: Duration = Duration::from_millis(1500);

/// What came through of a load that is far above every limit of a class.
struct Through {
    seconds: f64,
    offered: f64,
    bulk: f64,
    groupware: (usize, usize),
}

/// The guest sends to both servers as fast as the world turns.
fn up(world: &mut World) -> Through {
    let bulk = frame(&udp((GUEST, 4000), (UPDATES, 8530), &PAYLOAD));
    let other = frame(&udp((GUEST, 4001), (GROUPWARE, 7000), &PAYLOAD));
    let (start, mut rounds) = (Instant::now(), 0u16);
    while start.elapsed() < FOR {
        for _ in 0..15 {
            world.send(NetHdr::default(), &bulk);
        }
        world.send(NetHdr::default(), &other);
        rounds += 1;
        world.step();
        world.step();
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = start.elapsed().as_secs_f64();
    world.settle();
    let to = |server: Ipv4Addr| {
        let is = |packet: &&Vec<u8>| packet[16..20] == server.octets();
        world.inner.iter().filter(is).count()
    };
    Through {
        seconds,
        offered: PACKET * 15.0 * f64::from(rounds),
        bulk: PACKET * to(UPDATES) as f64,
        groupware: (to(GROUPWARE), usize::from(rounds)),
    }
}

/// The servers answer as fast as the world turns.
fn down(world: &mut World) -> Through {
    for (port, server) in [(4000, (UPDATES, 8530)), (4001, (GROUPWARE, 7000))] {
        world.send(
            NetHdr::default(),
            &frame(&udp((GUEST, port), server, b"go")),
        );
    }
    world.until("both are known", |world| world.inner.len() >= 2);
    world.frames.clear();
    let (start, mut rounds) = (Instant::now(), 0u16);
    while start.elapsed() < FOR {
        for _ in 0..8 {
            world.gateway_sends(&udp((UPDATES, 8530), (GUEST, 4000), &PAYLOAD));
        }
        world.gateway_sends(&udp((GROUPWARE, 7000), (GUEST, 4001), &PAYLOAD));
        rounds += 1;
        world.step();
        world.step();
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = start.elapsed().as_secs_f64();
    world.settle();
    let from = |server: Ipv4Addr| {
        let is = |(_, frame): &&(NetHdr, Vec<u8>)| frame[26..30] == server.octets();
        world.frames.iter().filter(is).count()
    };
    Through {
        seconds,
        offered: PACKET * 8.0 * f64::from(rounds),
        bulk: PACKET * from(UPDATES) as f64,
        groupware: (from(GROUPWARE), usize::from(rounds)),
    }
}

fn keeps(through: &Through, rate: f64, burst: f64) {
    let limit = rate / 8.0 * through.seconds;
    println!(
        "{:.2} s: {:.0} bytes offered, {:.0} came through: {:.2} Mbit/s behind the burst, of {:.2}",
        through.seconds,
        through.offered,
        through.bulk,
        (through.bulk - burst).max(0.0) * 8e-6 / through.seconds,
        rate * 1e-6
    );
    assert!(
        through.offered > limit + burst,
        "the load is above the limit"
    );
    assert!(through.bulk <= limit + burst, "never more");
    // The bucket was full at first, and somebody always wanted more.
    assert!(through.bulk >= 0.95 * limit, "never starved");
}

#[test]
fn a_class_gets_its_rate_and_no_more_and_others_go_on() {
    let mut world = World::connected_under(LIMITED);
    let sent = up(&mut world);
    keeps(&sent, 8e6, BURST.0);
    assert_eq!(sent.groupware.0, sent.groupware.1, "others lose nothing");
    world.until("it is told", |world| world.refused_by("bandwidth.bulk"));
    assert!(!world.refused_by("bandwidth.total"));

    let mut world = World::connected_under(LIMITED);
    let received = down(&mut world);
    keeps(&received, 4e6, BURST.1);
    assert_eq!(received.groupware.0, received.groupware.1);
    world.until("it is told", |world| world.refused_by("bandwidth.bulk"));
}

/// The control: without a limit the same load comes through whole, so what was missing above was
/// the limit's doing.
#[test]
fn without_a_limit_the_same_load_comes_through() {
    let mut world = World::connected_under(FLOW);
    let sent = up(&mut world);
    assert!(
        sent.bulk >= 0.99 * sent.offered,
        "{} of {}",
        sent.bulk,
        sent.offered
    );
    let mut world = World::connected_under(FLOW);
    let received = down(&mut world);
    assert!(
        received.bulk >= 0.99 * received.offered,
        "{} of {}",
        received.bulk,
        received.offered
    );
}

/// The limit of everything together holds whatever the classes allow.
#[test]
fn the_total_holds_over_all_flows() {
    const TOTAL: &str = r#"
[[flow]]
id = "updates"
to = { segment = "lgwan", hosts = ["10.12.13.0/24"] }
udp = [8530]
[bandwidth]
total = { up = "8Mbit/s", down = "8Mbit/s" }
"#;
    let mut world = World::connected_under(TOTAL);
    let sent = up(&mut world);
    let all = PACKET * world.inner.len() as f64;
    let limit = 1e6 * sent.seconds;
    assert!(sent.offered > limit + BURST.0);
    assert!(all <= limit + BURST.0, "{all} of {limit}");
    assert!(all >= 0.95 * limit);
    world.until("it is told", |world| world.refused_by("bandwidth.total"));
}
