//! A malicious driver in the guest: attacks T36 and T38 to T41 on the devices, and what transport
//! and rings refuse beside. The loop is turned by hand, so that its work can be counted.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

mod virtio_fixture;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use sekisho_framelink::{FrameArena, FrameLink as _, NetHdr, Offloads, Rules, Segment, SeqPacket};
use sekisho_vmm::virtio::block::Block;
use sekisho_vmm::virtio::console::{Backend, Console, PortSettings};
use sekisho_vmm::virtio::net::{Net, Settings};
use sekisho_vmm::virtio::rng::Rng;
use sekisho_vmm::virtio::worker::Worker;
use sekisho_vmm::virtio::{Device, VirtioPci};
use virtio_drivers::transport::Transport as _;
use virtio_fixture::hal::take_pages;
use virtio_fixture::ring::{
    Driver, EVENT_IDX, INDIRECT, NEXT, Ring, VERSION_1, WRITE, get, get_u16, put, write_descriptor,
};
use virtio_fixture::transport::BarTransport;
use virtio_fixture::{Machine, settle, turn_until};

const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
const MTU: u16 = 1420;
const HEADER: usize = 12;
/// Turns that any one attack may take.
const TURNS: usize = 64;

const CSUM: u64 = 1;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
const ALL: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    uso: true,
};

/// A network card, its gate, and the guest's driver.
struct Bench {
    machine: Machine,
    worker: Worker,
    device: Arc<Mutex<VirtioPci<Net>>>,
    gate: SeqPacket,
    arena: FrameArena,
    driver: Driver,
    receive: Ring,
    transmit: Ring,
    control: Ring,
}

impl Bench {
    fn new(features: u64) -> Self {
        let mut machine = Machine::new();
        let (slot, device) = machine.add(Net::new(Settings::new(MAC, MTU)));
        let mut worker = machine.start();
        let (vmm, gate) = sekisho_framelink::pair().unwrap();
        device
            .lock()
            .unwrap()
            .update(|net| net.attach(vmm))
            .unwrap();
        let rules = Rules {
            offloads: ALL,
            mtu: MTU,
        };
        let transport = BarTransport::find(&machine, slot);
        transport.set_vector(0, 0x40, None);
        let mut driver = Driver::start(transport, features | VERSION_1);
        let receive = driver.ring(0, 64);
        let transmit = driver.ring(1, 64);
        let control = driver.ring(2, 32);
        driver.transport.set_vector(0, 0x40, None);
        driver.transport.set_vector(1, 0x41, Some(0));
        driver.transport.set_vector(2, 0x42, Some(1));
        driver.go();
        settle(&mut worker, TURNS);
        Self {
            machine,
            worker,
            device,
            gate: SeqPacket::from_fd(gate, rules).unwrap(),
            arena: FrameArena::new(64),
            driver,
            receive,
            transmit,
            control,
        }
    }

    /// Sends one message that lies in one buffer; the device has to give it back.
    fn send(&mut self, message: &[u8]) {
        let buffer = take_pages(17);
        put(buffer, message);
        let length = u32::try_from(message.len()).unwrap();
        self.transmit.offer(0, &[(buffer, length, 0)]);
        self.kick();
        assert_eq!(self.transmit.take_used(), Some((0, 0)), "not completed");
        assert!(!self.driver.needs_reset());
    }

    fn kick(&mut self) {
        self.driver.kick(&self.transmit);
        settle(&mut self.worker, TURNS);
    }

    /// What the gate got, without headers.
    fn at_gate(&mut self) -> Vec<Vec<u8>> {
        self.gate.recv_batch(&mut self.arena).unwrap();
        self.arena
            .frames()
            .map(|frame| frame.frame.to_vec())
            .collect()
    }

    fn malformed(&self) -> u64 {
        self.device
            .lock()
            .unwrap()
            .device()
            .counters()
            .sent_malformed
    }

    /// The card still works.
    fn assert_alive(&mut self) {
        let frame = [0x55; 60];
        self.send(&message(NetHdr::default(), &frame));
        assert_eq!(self.at_gate(), [frame.to_vec()]);
    }
}

fn message(header: NetHdr, frame: &[u8]) -> Vec<u8> {
    [&header.emit()[..], frame].concat()
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn t36_the_mac_address_cannot_be_changed() {
    let mut bench = Bench::new(CTRL_VQ);
    let command = take_pages(1);
    // VIRTIO_NET_CTRL_MAC_ADDR_SET, which was not offered.
    put(command, &[1, 1, 2, 0, 0, 0, 0, 1]);
    put(command + 64, &[0xee]);
    bench
        .control
        .offer(0, &[(command, 8, 0), (command + 64, 1, WRITE)]);
    bench.driver.kick(&bench.control);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.control.take_used(), Some((0, 1)));
    assert_eq!(get(command + 64, 1), [1]);
    bench
        .driver
        .transport
        .write_config_space(0, [9_u8; 6])
        .unwrap();
    let mac: [u8; 6] = bench.driver.transport.read_config_space(0).unwrap();
    assert_eq!(mac, MAC);
    // A frame from another address passes: whose it is, is the gate's business.
    bench.assert_alive();
}

#[test]
fn t38_frames_of_any_protocol_change_nothing_in_the_device() {
    let mut bench = Bench::new(CSUM);
    for kind in [0x0806_u16, 0x0800, 0x86dd, 0x8100, 0x0000, 0xffff] {
        let mut frame = vec![0xff; 64];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        bench.send(&message(NetHdr::default(), &frame));
        assert_eq!(bench.at_gate(), [frame]);
    }
    bench.assert_alive();
}

#[test]
fn t39_frames_too_short_or_too_long_are_completed_and_counted() {
    let mut bench = Bench::new(CSUM | HOST_TSO4);
    let mtu_frame = usize::from(MTU) + 14;
    let mut dropped = 0;
    for length in [0, 1, 13, mtu_frame + 1, 65_535, 65_538, 65_539] {
        bench.send(&message(NetHdr::default(), &vec![1; length]));
        dropped += 1;
        assert_eq!(bench.malformed(), dropped, "{length}");
        assert_eq!(bench.at_gate().len(), 0);
    }
    for length in [0, 1, 11] {
        bench.send(&vec![0; length.max(1)]);
        dropped += 1;
        assert_eq!(bench.malformed(), dropped);
    }
    for length in [14, mtu_frame] {
        bench.send(&message(NetHdr::default(), &vec![2; length]));
        assert_eq!(bench.at_gate(), [vec![2; length]]);
    }
    bench.assert_alive();
}

#[test]
fn t40_headers_that_lie_are_dropped_and_the_device_lives() {
    let tso = NetHdr::partial_csum(34, 16);
    let super_frame =
        |size, hdr_len| tso.with_gso(sekisho_framelink::GsoType::TcpV4, size, hdr_len);
    let good = super_frame(1360, 54);
    let bad = [
        (
            "unknown gso_type",
            NetHdr {
                gso_type: 99,
                ..good
            },
        ),
        (
            "old UFO",
            NetHdr {
                gso_type: 3,
                ..good
            },
        ),
        (
            "ECN bit",
            NetHdr {
                gso_type: 0x81,
                ..good
            },
        ),
        (
            "TSO6 not negotiated",
            NetHdr {
                gso_type: 4,
                ..good
            },
        ),
        ("gso_size 0", super_frame(0, 54)),
        ("gso_size 65535", super_frame(65_535, 54)),
        ("hdr_len past the frame", super_frame(1360, 60_000)),
        (
            "csum_start past the end",
            NetHdr {
                csum_start: 65_535,
                ..good
            },
        ),
        (
            "csum_offset past the end",
            NetHdr {
                csum_offset: 65_535,
                ..good
            },
        ),
        (
            "unknown flag",
            NetHdr {
                flags: 0x80,
                ..good
            },
        ),
        ("segments without checksum", NetHdr { flags: 0, ..good }),
    ];
    let frame = vec![3; 9000];
    let mut bench = Bench::new(CSUM | HOST_TSO4);
    for (number, (name, header)) in (1..).zip(bad) {
        bench.send(&message(header, &frame));
        assert_eq!(bench.malformed(), number, "{name}");
        assert_eq!(bench.at_gate().len(), 0, "{name}");
    }
    bench.send(&message(good, &frame));
    assert_eq!(bench.at_gate(), std::slice::from_ref(&frame));
    bench.assert_alive();

    // Nothing negotiated: no flag passes.
    let mut plain = Bench::new(0);
    plain.send(&message(NetHdr::partial_csum(34, 16), &[4; 100]));
    plain.send(&message(good, &frame));
    assert_eq!(plain.malformed(), 2);
    assert_eq!(plain.at_gate().len(), 0);
    plain.assert_alive();
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
    break_rings(|| Net::new(Settings::new(MAC, MTU)), 1, false);
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
        let name = "t41_a_flood_of_chains_is_bounded_work_and_flat_memory";
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
            NetHdr::partial_csum(34, 16).with_gso(sekisho_framelink::GsoType::TcpV4, 1360, 54),
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

#[test]
fn a_full_link_stops_the_queue_and_an_empty_one_resumes_it() {
    let mut bench = Bench::new(CSUM | HOST_TSO4 | EVENT_IDX);
    let frame = vec![7; 60_000];
    let header = NetHdr::partial_csum(34, 16).with_gso(sekisho_framelink::GsoType::TcpV4, 1360, 54);
    let buffer = take_pages(17);
    put(buffer, &message(header, &frame));
    let length = u32::try_from(HEADER + frame.len()).unwrap();
    for index in 0..64 {
        bench.transmit.offer(index, &[(buffer, length, 0)]);
    }
    bench.kick();
    let stalled = bench.transmit.used_index();
    assert!((1..64).contains(&stalled), "{stalled} frames went");
    assert_eq!(bench.device.lock().unwrap().device().counters().stalls, 1);
    let mut received = 0;
    let Bench {
        worker,
        gate,
        arena,
        transmit,
        ..
    } = &mut bench;
    turn_until(worker, || {
        received += gate.recv_batch(arena).unwrap();
        received == 64 && transmit.used_index() == 64
    });
    assert!(arena.frames().all(|got| got.frame == frame));
}

#[test]
fn the_end_of_the_link_is_a_pulled_cable_and_a_fresh_one_plugs_it_in() {
    let mut bench = Bench::new(STATUS);
    assert_eq!(bench.driver.transport.device_u16(6), 1);
    let generation = bench.driver.transport.read_config_generation();
    let before = bench.machine.platform.signals(0x40);
    let (vmm, gate) = sekisho_framelink::pair().unwrap();
    bench.gate = SeqPacket::from_fd(gate, Rules::plain(MTU)).unwrap();
    let Bench { worker, driver, .. } = &mut bench;
    turn_until(worker, || driver.transport.device_u16(6) == 0);
    assert_eq!(bench.machine.platform.signals(0x40), before + 1);
    assert_ne!(bench.driver.transport.read_config_generation(), generation);

    // Frames are dropped and given back.
    bench.send(&message(NetHdr::default(), &[1; 60]));
    assert_eq!(
        bench
            .device
            .lock()
            .unwrap()
            .device()
            .counters()
            .sent_link_down,
        1
    );

    bench
        .device
        .lock()
        .unwrap()
        .update(|net| net.attach(vmm))
        .unwrap();
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.driver.transport.device_u16(6), 1);
    assert_eq!(bench.machine.platform.signals(0x40), before + 2);
    bench.assert_alive();
}

#[test]
fn super_frames_are_spread_over_mergeable_buffers() {
    let mut bench = Bench::new(GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF);
    let frame: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
    let header = NetHdr::partial_csum(34, 16)
        .with_gso(sekisho_framelink::GsoType::TcpV4, 1360, 54)
        .emit();
    let segments = [Segment::from(&header[..]), Segment::from(&frame[..])];
    let buffers: Vec<u64> = (0..12).map(|_| take_pages(1)).collect();
    for (index, buffer) in (0..5).zip(&buffers) {
        bench.receive.offer(index, &[(*buffer, 4096, WRITE)]);
    }
    assert_eq!(bench.gate.send_batch(&[&segments]).unwrap(), 1);
    bench.driver.kick(&bench.receive);
    settle(&mut bench.worker, TURNS);
    // Not enough room: nothing is given until there is.
    assert_eq!(bench.receive.used_index(), 0);
    for (index, buffer) in (5..).zip(&buffers[5..]) {
        bench.receive.offer(index, &[(*buffer, 4096, WRITE)]);
    }
    bench.driver.kick(&bench.receive);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.receive.used_index(), 10);
    assert_eq!(get_u16(buffers[0] + 10), 10);
    let mut joined = Vec::new();
    for (index, buffer) in (0..10).zip(&buffers) {
        let (head, written) = bench.receive.take_used().unwrap();
        assert_eq!(head, index);
        joined.extend(get(*buffer, written as usize));
    }
    assert_eq!(joined[HEADER..], frame);
    assert!(bench.machine.platform.signals(0x41) >= 1);
}

#[test]
fn a_frame_that_no_buffer_can_hold_is_dropped() {
    let mut bench = Bench::new(GUEST_CSUM | GUEST_TSO4);
    let buffer = take_pages(1);
    bench.receive.offer(0, &[(buffer, 100, WRITE)]);
    let header = NetHdr::default().emit();
    for length in [500, 60] {
        let frame = vec![9; length];
        let segments = [Segment::from(&header[..]), Segment::from(&frame[..])];
        assert_eq!(bench.gate.send_batch(&[&segments]).unwrap(), 1);
    }
    bench.driver.kick(&bench.receive);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.receive.take_used(), Some((0, 72)));
    assert_eq!(
        bench
            .device
            .lock()
            .unwrap()
            .device()
            .counters()
            .received_no_room,
        1
    );
}

#[test]
fn features_without_version_1_or_their_base_are_refused() {
    let mut machine = Machine::new();
    let (slot, _device) = machine.add(Net::new(Settings::new(MAC, MTU)));
    let _worker = machine.start();
    for features in [
        0,
        CSUM,
        VERSION_1 | HOST_TSO4,
        VERSION_1 | GUEST_TSO4,
        VERSION_1 | 1 << 40,
    ] {
        let mut transport = BarTransport::find(&machine, slot);
        transport.set_common(0x14, &[0]);
        transport.set_common(0x14, &[3]);
        transport.write_driver_features(features);
        transport.set_common(0x14, &[0xb]);
        assert_eq!(transport.status(), 3, "{features:#x}");
        // And without agreement it cannot be started.
        transport.set_common(0x14, &[0xf]);
        assert_eq!(transport.status() & 0xc, 0);
    }
}

#[test]
fn masked_vectors_stay_pending_and_a_moved_bar_takes_its_doorbells_along() {
    let mut bench = Bench::new(0);
    let table = bench.driver.transport.table;
    // Mask vector 2, let it fire, unmask it.
    assert!(
        bench
            .machine
            .bus
            .mmio_write(table + 2 * 16 + 12, &[1, 0, 0, 0])
    );
    bench.send(&message(NetHdr::default(), &[1; 60]));
    assert_eq!(bench.machine.platform.signals(0x42), 0);
    let mut pending = [0];
    assert!(bench.machine.bus.mmio_read(table + 0x1000, &mut pending));
    assert_eq!(pending, [1 << 2]);
    assert!(bench.machine.bus.mmio_write(table + 2 * 16 + 12, &[0; 4]));
    assert_eq!(bench.machine.platform.signals(0x42), 1);

    let before = bench.machine.platform.doorbell_addresses();
    assert_eq!(before.len(), 3);
    let transport = &bench.driver.transport;
    transport.set_config(4, &[0, 0]);
    assert_eq!(bench.machine.platform.doorbell_addresses().len(), 0);
    transport.set_config(0x10, &0xd000_0000_u32.to_le_bytes());
    transport.set_config(0x14, &[0; 4]);
    transport.set_config(4, &[6, 0]);
    let after = bench.machine.platform.doorbell_addresses();
    assert_eq!(after, [0xd000_3000, 0xd000_3004, 0xd000_3008]);

    bench.machine.bus.reset();
    assert!(bench.machine.bus.quiet());
    assert_eq!(bench.machine.platform.doorbell_addresses().len(), 0);
    assert_eq!(bench.machine.platform.routes(), 0);
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let mut machine = Machine::new();
    let (slot, _device) = machine.add(Rng::new());
    let _worker = machine.start();
    let transport = BarTransport::find(&machine, slot);
    let mut at = u64::from(transport.config_u8(0x34));
    while transport.config_u8(at) != 9 || transport.config_u8(at + 3) != 5 {
        at = u64::from(transport.config_u8(at + 1));
        assert_ne!(at, 0, "no window");
    }
    // Queue count, two bytes at 0x12 of the common structure.
    transport.set_config(at + 8, &0x12_u32.to_le_bytes());
    transport.set_config(at + 12, &2_u32.to_le_bytes());
    assert_eq!(transport.config_u16(at + 16), 1);
    // A window past the BAR, of odd length or unaligned does nothing.
    for (offset, length) in [(u32::MAX, 4_u32), (0x12, 3), (0x13, 2), (0x12, 0)] {
        transport.set_config(at + 8, &offset.to_le_bytes());
        transport.set_config(at + 12, &length.to_le_bytes());
        transport.config_u32(at + 16);
        transport.set_config(at + 16, &[0xff; 4]);
    }
    assert_eq!(transport.status(), 0);
}

#[test]
fn a_disk_that_is_reset_with_requests_under_way_comes_to_rest() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 << 20).unwrap();
    let mut machine = Machine::new();
    let (slot, device) = machine.add(Block::new(file, false, "d").unwrap());
    let mut worker = machine.start();
    let mut driver = Driver::start(BarTransport::find(&machine, slot), VERSION_1);
    let mut ring = driver.ring(0, 256);
    driver.go();
    let buffer = take_pages(17);
    let mut header = [0; 16];
    header[0] = 1;
    put(buffer, &header);
    for request in 0..64 {
        let status = buffer + 16 + u64::from(request);
        let chain = [
            (buffer, 16, 0),
            (buffer + 4096, 65_536, 0),
            (status, 1, WRITE),
        ];
        ring.offer(request * 3, &chain);
    }
    driver.kick(&ring);
    worker
        .turn(Some(std::time::Duration::from_secs(1)))
        .unwrap();
    driver.transport.set_common(0x14, &[0]);
    let used = ring.used_index();
    turn_until(&mut worker, || driver.transport.status() == 0);
    assert_eq!(device.lock().unwrap().device().in_flight(), 0);
    assert_eq!(
        ring.used_index(),
        used,
        "the ring was touched after the reset"
    );
}

#[test]
fn console_ports_have_names_and_both_ends_hear_of_the_other() {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut machine = Machine::new();
    let port = |id, name: &str, backend| PortSettings {
        id,
        name: name.into(),
        backend,
    };
    let mut console = Console::new(vec![
        port(1, "jp.sekisho.agent.0", Some(Backend::Socket(guest.into()))),
        port(2, "jp.sekisho.test.0", None),
    ])
    .unwrap();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    console.set_observer(Box::new(move |change| seen.lock().unwrap().push(change)));
    let (slot, device) = machine.add(console);
    let mut worker = machine.start();
    let mut driver = Driver::start(BarTransport::find(&machine, slot), VERSION_1 | 2);
    let mut rings: Vec<Ring> = (0..8).map(|index| driver.ring(index, 64)).collect();
    driver.go();
    let told = take_pages(1);
    for index in 0..16_u16 {
        rings[2].offer(index, &[(told + u64::from(index) * 128, 128, WRITE)]);
    }
    let message = take_pages(1);
    let mut say = |rings: &mut Vec<Ring>, driver: &mut Driver, id: u8, event: u8, value: u8| {
        put(message, &[id, 0, 0, 0, event, 0, value, 0]);
        rings[3].offer(0, &[(message, 8, 0)]);
        driver.kick(&rings[3]);
        settle(&mut worker, TURNS);
    };
    let hear = |rings: &mut Vec<Ring>| {
        let (head, length) = rings[2].take_used()?;
        Some(get(told + u64::from(head) * 128, length as usize))
    };
    say(&mut rings, &mut driver, 0, 0, 1);
    assert_eq!(hear(&mut rings).unwrap(), [1, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(hear(&mut rings).unwrap(), [2, 0, 0, 0, 1, 0, 1, 0]);
    say(&mut rings, &mut driver, 1, 3, 1);
    let name = hear(&mut rings).unwrap();
    assert_eq!(name[..8], [1, 0, 0, 0, 7, 0, 1, 0]);
    assert_eq!(&name[8..], b"jp.sekisho.agent.0");
    assert_eq!(hear(&mut rings).unwrap(), [1, 0, 0, 0, 6, 0, 1, 0]);
    say(&mut rings, &mut driver, 2, 3, 1);
    hear(&mut rings).unwrap();
    assert_eq!(hear(&mut rings).unwrap(), [2, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(hear(&mut rings), None);

    // Bytes wait in the socket until the guest opens its end.
    let data = take_pages(1);
    rings[4].offer(0, &[(data, 100, WRITE)]);
    std::io::Write::write_all(&mut &host, b"hello").unwrap();
    driver.kick(&rings[4]);
    settle_and(&mut say, &mut rings, &mut driver);
    assert_eq!(rings[4].take_used(), None);
    say(&mut rings, &mut driver, 1, 6, 1);
    assert_eq!(rings[4].take_used(), Some((0, 5)));
    assert_eq!(get(data, 5), b"hello");
    assert!(device.lock().unwrap().device().guest_open(1));

    // The host's end closes, and another comes.
    drop(host);
    rings[4].offer(1, &[(data, 100, WRITE)]);
    driver.kick(&rings[4]);
    say(&mut rings, &mut driver, 9, 9, 9);
    assert_eq!(hear(&mut rings).unwrap(), [1, 0, 0, 0, 6, 0, 0, 0]);
    let (_host, guest) = UnixStream::pair().unwrap();
    let attached = device
        .lock()
        .unwrap()
        .update(|console| console.attach(1, Backend::Socket(guest.into())));
    attached.unwrap();
    say(&mut rings, &mut driver, 1, 6, 0);
    assert_eq!(hear(&mut rings).unwrap(), [1, 0, 0, 0, 6, 0, 1, 0]);
    let changes: Vec<_> = changes
        .lock()
        .unwrap()
        .iter()
        .map(|c| (c.id, c.open))
        .collect();
    assert_eq!(changes, [(1, true), (1, false)]);
    assert!(!driver.needs_reset());
}

/// A message for no port, which only turns the loop.
fn settle_and(
    say: &mut impl FnMut(&mut Vec<Ring>, &mut Driver, u8, u8, u8),
    rings: &mut Vec<Ring>,
    driver: &mut Driver,
) {
    say(rings, driver, 15, 15, 0);
}

/// A driver that kicks once for more commands than one turn takes.
#[test]
fn a_pile_of_commands_is_served_to_its_end() {
    let mut bench = Bench::new(CTRL_VQ);
    let command = take_pages(1);
    // VIRTIO_NET_CTRL_RX_PROMISC, off.
    put(command, &[0, 0, 0]);
    bench.control.set_descriptor(0, (command, 3, NEXT, 1));
    bench.control.set_descriptor(1, (command + 64, 1, WRITE, 0));
    for _ in 0..32 {
        bench.control.offer_head(0);
    }
    bench.driver.kick(&bench.control);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.control.used_index(), 32);
}

/// A log that counts its lines, of which each comes in one piece.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<usize>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0.lock().unwrap() += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_driver_that_breaks_the_rules_again_and_again_fills_no_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let mut machine = Machine::new();
    let (slot, device) = machine.add(Rng::new());
    let _worker = machine.start();
    tracing::subscriber::with_default(log, || {
        for _ in 0..200 {
            let transport = BarTransport::find(&machine, slot);
            let driver = Driver::start(transport, VERSION_1);
            // A queue that was placed nowhere.
            driver.transport.set_common(0x1c, &[1, 0]);
            assert!(driver.needs_reset());
        }
    });
    assert_eq!(device.lock().unwrap().faults(), 200);
    let lines = *lines.0.lock().unwrap();
    assert!((1..=8).contains(&lines), "{lines} lines");
}
