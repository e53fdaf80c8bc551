//! Attacks on registers: features, vectors, BARs, bus mastering, and errors without end.

use std::sync::{Arc, Mutex};

use sekisho_framelink::{FrameLink as _, NetHdr, Segment};
use sekisho_vmm::virtio::rng::Rng;
use virtio_drivers::transport::Transport as _;

use crate::TURNS;
use crate::card::{Bench, CSUM, GUEST_TSO4, HOST_TSO4, STATUS, message};
use crate::virtio_fixture::card::card;
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{Driver, VERSION_1, WRITE, get, put};
use crate::virtio_fixture::transport::BarTransport;
use crate::virtio_fixture::{Machine, settle};

#[test]
fn features_without_version_1_or_their_base_are_refused() {
    let mut machine = Machine::new();
    let (slot, _device) = machine.add(card());
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

/// A function that is no bus master reads and writes no memory, also none for an interrupt; what
/// waited goes on once it is one.
#[test]
fn without_bus_mastering_nothing_touches_memory() {
    const MEMORY: [u8; 2] = [2, 0];
    const MEMORY_AND_MASTER: [u8; 2] = [6, 0];
    let mut bench = Bench::new(STATUS);
    bench.driver.transport.set_config(4, &MEMORY);
    let (out, into) = (take_pages(1), take_pages(1));
    let frame = [0x33; 60];
    put(out, &message(NetHdr::default(), &frame));
    bench.transmit.offer(0, &[(out, 72, 0)]);
    bench.receive.offer(0, &[(into, 2048, WRITE)]);
    let header = NetHdr::default().emit();
    let inbound = [Segment::from(&header[..]), Segment::from(&frame[..])];
    assert_eq!(bench.gate.send_batch(&[&inbound]).unwrap(), 1);
    bench.kick();
    bench.kick_receive();

    assert_eq!(bench.at_gate().len(), 0);
    assert_eq!(bench.transmit.used_index(), 0);
    assert_eq!(bench.receive.used_index(), 0);
    assert_eq!(get(into, 72), [0; 72]);
    for data in [0x41, 0x42] {
        assert_eq!(bench.machine.platform.signals(data), 0);
    }

    bench.driver.transport.set_config(4, &MEMORY_AND_MASTER);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.at_gate(), [frame.to_vec()]);
    assert_eq!(bench.transmit.take_used(), Some((0, 0)));
    assert_eq!(bench.receive.take_used(), Some((0, 72)));
    assert_eq!(get(into + 12, 60), frame);
    assert!(bench.machine.platform.signals(0x41) >= 1);
    assert!(!bench.driver.needs_reset());
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
