//! Attacks on the rings of all devices: chains that loop, lie or leave memory, rings in odd places,
//! and floods of good ones.

use sekisho_framelink::{GsoType, NetHdr};
use sekisho_vmm::virtio::Device;
use sekisho_vmm::virtio::block::Block;
use sekisho_vmm::virtio::console::{Console, PortSettings};
use sekisho_vmm::virtio::rng::Rng;

use crate::TURNS;
use crate::card::{Bench, CSUM, HEADER, HOST_TSO4, message};
use crate::virtio_fixture::card::card;
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{
    Driver, INDIRECT, NEXT, Ring, VERSION_1, WRITE, put, write_descriptor,
};
use crate::virtio_fixture::transport::BarTransport;
use crate::virtio_fixture::{Machine, settle, turn_until};

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes nonsense into a ring: the ring, pages of memory, the flag of the queue's direction.
type Attack = fn(&mut Ring, u64, u16);

/// Each way to break the rules of the rings, on a queue whose driver offers chains at will.
fn break_rings<D: Device + 'static>(make: impl Fn() -> D, queue: u16, writable: bool) {
    let flag = if writable { WRITE } else { 0 };
    let attacks: [(&str, Attack); 12] = [
        ("a chain that loops", |ring, page, flag| {
            ring.set_descriptor(0, (page, 64, NEXT | flag, 1));
            ring.set_descriptor(1, (page, 64, NEXT | flag, 0));
            ring.offer_head(0);
        }),
        ("a chain onto itself", |ring, page, flag| {
            ring.set_descriptor(0, (page, 64, NEXT | flag, 0));
            ring.offer_head(0);
        }),
        ("next past the table", |ring, page, flag| {
            ring.set_descriptor(0, (page, 64, NEXT | flag, 64));
            ring.offer_head(0);
        }),
        ("a head past the table", |ring, _page, _flag| {
            ring.offer_head(64);
        }),
        ("a length of 4 GiB", |ring, page, flag| {
            ring.offer(0, &[(page, u32::MAX, flag)]);
        }),
        (
            "an indirect table in an indirect table",
            |ring, page, _flag| {
                write_descriptor(page, (page + 256, 16, INDIRECT, 0));
                ring.offer(0, &[(page, 16, INDIRECT)]);
            },
        ),
        ("an indirect table of odd length", |ring, page, _flag| {
            ring.offer(0, &[(page, 17, INDIRECT)]);
        }),
        ("an indirect table that loops", |ring, page, flag| {
            write_descriptor(page, (page + 256, 16, NEXT | flag, 0));
            ring.offer(0, &[(page, 16 * 4, INDIRECT)]);
        }),
        (
            "an indirect table longer than the queue",
            |ring, page, flag| {
                for index in 0..200 {
                    let entry = (page + 4096, 1, NEXT | flag, index + 1);
                    write_descriptor(page + u64::from(index) * 16, entry);
                }
                ring.offer(0, &[(page, 16 * 201, INDIRECT)]);
            },
        ),
        ("a buffer in MMIO", |ring, _page, flag| {
            ring.offer(0, &[(0xfee0_0000, 64, flag)]);
        }),
        ("a buffer that wraps around", |ring, _page, flag| {
            ring.offer(0, &[(u64::MAX - 8, 64, flag)]);
        }),
        ("an available index that jumps", |ring, page, flag| {
            ring.offer(0, &[(page, 64, flag)]);
            ring.set_available(1000);
        }),
    ];
    let direction: (&str, Attack) = (
        "a readable buffer behind a writable one",
        |ring, page, _| {
            ring.offer(0, &[(page, 64, WRITE), (page + 64, 64, 0)]);
        },
    );
    for (name, attack) in attacks.into_iter().chain([direction]) {
        let mut machine = Machine::new();
        let (slot, device) = machine.add(make());
        let mut worker = machine.start();
        let mut driver = Driver::start(
            BarTransport::find(&machine, slot),
            VERSION_1 | INDIRECT_DESC,
        );
        let mut ring = driver.ring(queue, 64);
        driver.transport.set_vector(0, 0x99, None);
        driver.go();
        attack(&mut ring, take_pages(4), flag);
        driver.kick(&ring);
        settle(&mut worker, TURNS);
        assert!(driver.needs_reset(), "{name} was taken");
        assert_eq!(device.lock().unwrap().faults(), 1, "{name}");
        machine.platform.await_signals(0x99, 1);
        // Nothing is served in the error state, and a reset heals.
        driver.kick(&ring);
        settle(&mut worker, TURNS);
        driver.transport.set_common(0x14, &[0]);
        turn_until(&mut worker, || driver.transport.status() == 0);
        let again = Driver::start(BarTransport::find(&machine, slot), VERSION_1);
        again.go();
    }
}

const INDIRECT_DESC: u64 = 1 << 28;

#[test]
fn t41_rings_that_break_the_rules_put_the_rng_into_the_error_state() {
    break_rings(Rng::new, 0, true);
}

#[test]
fn t41_rings_that_break_the_rules_put_the_net_into_the_error_state() {
    break_rings(card, 1, false);
}

#[test]
fn t41_rings_that_break_the_rules_put_the_disk_into_the_error_state() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    break_rings(
        || Block::new(file.try_clone().unwrap(), false, "d").unwrap(),
        0,
        true,
    );
}

#[test]
fn t41_rings_that_break_the_rules_put_the_console_into_the_error_state() {
    let port = || PortSettings {
        id: 0,
        name: "jp.sekisho.test.0".into(),
        backend: None,
    };
    break_rings(|| Console::new(vec![port()]).unwrap(), 1, false);
}

#[test]
fn t41_rings_outside_memory_or_unaligned_are_refused() {
    let mut machine = Machine::new();
    let (slot, device) = machine.add(Rng::new());
    let _worker = machine.start();
    let good = take_pages(1);
    let places = [
        (0xfee0_0000, good, good),
        (good, 0xfee0_0000, good),
        (good, good, u64::MAX - 15),
        (good + 8, good, good),
        (good, good + 1, good),
        (good, good, good + 2),
        (good, 0, good),
    ];
    for (number, (table, available, used)) in (1..).zip(places) {
        let driver = Driver::start(BarTransport::find(&machine, slot), VERSION_1);
        driver.transport.select(0);
        for (at, address) in [(0x20, table), (0x28, available), (0x30, used)] {
            driver.transport.set_common(at, &address.to_le_bytes());
        }
        driver.transport.set_common(0x1c, &[1, 0]);
        assert_eq!(driver.transport.common(0x1c), [0, 0]);
        assert!(driver.needs_reset());
        assert_eq!(device.lock().unwrap().faults(), number);
    }
}

#[test]
fn t41_a_flood_of_chains_is_bounded_work_and_flat_memory() {
    // In a process of its own, for the other tests' memory is not to be counted.
    const ALONE: &str = "SEKISHO_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "rings::t41_a_flood_of_chains_is_bounded_work_and_flat_memory";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}");
        return;
    }
    let mut bench = Bench::new(CSUM | HOST_TSO4);
    let buffer = take_pages(17);
    let length = u32::try_from(HEADER + 65_000).unwrap();
    put(
        buffer,
        &message(
            NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1360, 54),
            &[0; 60],
        ),
    );
    for index in 0..64 {
        bench.transmit.set_descriptor(index, (buffer, length, 0, 0));
    }
    // Once, so that all that is made once is made; then ten thousand super-frames that nobody
    // reads, each head many times over.
    let mut flood = |rounds: u16| {
        for round in 0..rounds {
            bench.transmit.offer_head(round % 64);
            if round % 32 == 31 {
                bench.kick();
            }
        }
    };
    flood(64);
    let before = resident();
    flood(10_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 4096, "the host's memory grew by {grown} KiB");
}
