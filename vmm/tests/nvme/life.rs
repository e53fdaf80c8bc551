//! The controller's life: resets, shutdowns, set-ups that are none, and commands under way meanwhile.

use std::time::Duration;

use sekisho_vmm::disk::image::{Changes, Image, Plan};
use sekisho_vmm::machine::DiskFormat;

use crate::driver::*;
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::{mmio_read, settle, turn_until};
use crate::{image, transfer};

/// A queue pair with writes under way, and where their data is.
fn busy(driver: &mut Driver) -> (Pair, u64) {
    let mut pair = driver.pair(1, 64);
    let data = take_pages(2);
    for block in 0..60 {
        let write = transfer(WRITE, block * 16, 16, (data, data + 4096));
        driver.put(&mut pair, &write);
    }
    driver.ring(&pair);
    let turned = driver.worker.turn(Some(Duration::from_secs(1)));
    assert!(turned.unwrap());
    (pair, data)
}

#[test]
fn a_reset_with_requests_under_way_comes_to_rest_and_starts_again() {
    let mut driver = Driver::start(image(1 << 16), false);
    let (mut pair, data) = busy(&mut driver);
    // What had an answer by now.
    while Driver::peek(&mut pair).is_some() {}
    driver.disable();
    assert_eq!(driver.device.lock().unwrap().in_flight(), 0);
    assert_eq!(
        Driver::peek(&mut pair),
        None,
        "the ring was touched after the reset"
    );
    driver.enable();
    let mut pair = driver.pair(1, 4);
    assert_eq!(
        driver
            .run(&mut pair, transfer(READ, 0, 1, (data, 0)))
            .status,
        0
    );
}

#[test]
fn a_shutdown_is_complete_when_all_is_on_the_medium() {
    let mut driver = Driver::start(image(1 << 16), false);
    let (mut pair, data) = busy(&mut driver);
    driver.write(CC, &(ENABLE | SHUT_DOWN).to_le_bytes());
    assert_eq!(driver.register(CSTS), READY | 1 << 2);
    let (bus, bar) = (driver.machine.bus.clone(), driver.bar);
    turn_until(&mut driver.worker, || {
        u32::from_le_bytes(mmio_read(&bus, bar + CSTS)) == READY | 2 << 2
    });
    let counters = driver.device.lock().unwrap().counters();
    assert_eq!(counters.flushes, 1);
    // What was answered was so before the flush: nothing is answered behind it.
    let mut answered = 0;
    while Driver::peek(&mut pair).is_some() {
        answered += 1;
    }
    assert_eq!(answered, counters.writes);
    driver.put(&mut pair, &transfer(WRITE, 0, 16, (data, data + 4096)));
    driver.ring(&pair);
    settle(&mut driver.worker, 100);
    assert_eq!(Driver::peek(&mut pair), None);
    driver.disable();
    driver.enable();
}

#[test]
fn what_was_asked_without_bus_mastering_waits_for_it() {
    let mut driver = Driver::start(image(64), false);
    let mut pair = driver.pair(1, 4);
    let page = take_pages(1);
    driver.set_bus_master(false);
    driver.put(&mut pair, &transfer(READ, 0, 1, (page, 0)));
    driver.ring(&pair);
    settle(&mut driver.worker, 10);
    assert_eq!(Driver::peek(&mut pair), None);
    driver.set_bus_master(true);
    assert_eq!(driver.next(&mut pair).status, 0);
    // A shutdown needs no memory of the guest's.
    driver.set_bus_master(false);
    driver.write(CC, &(ENABLE | SHUT_DOWN).to_le_bytes());
    let (bus, bar) = (driver.machine.bus.clone(), driver.bar);
    turn_until(&mut driver.worker, || {
        u32::from_le_bytes(mmio_read(&bus, bar + CSTS)) == READY | 2 << 2
    });
    assert_eq!(driver.device.lock().unwrap().counters().flushes, 1);
}

#[test]
fn the_write_cache_is_off_when_what_it_had_is_on_the_medium() {
    let mut driver = Driver::start(image(1 << 16), false);
    let (mut pair, _) = busy(&mut driver);
    let off = driver.admin(Command {
        opcode: SET_FEATURES,
        dw10: 6,
        ..Command::default()
    });
    assert_eq!(off.status, 0);
    // Whatever had not waited for the medium was answered before.
    let counters = driver.device.lock().unwrap().counters();
    assert_eq!(counters.flushes, 1);
    let mut answered = 0;
    while Driver::peek(&mut pair).is_some() {
        answered += 1;
    }
    assert!(answered > 0 && answered == counters.writes, "{answered}");
}

#[test]
fn a_set_up_that_is_none_stops_the_controller_until_a_reset() {
    let mut driver = Driver::start(image(64), false);
    driver.disable();
    for (asq, configuration) in [(ram_end(), ENABLE), (take_pages(1), ENABLE | 1 << 7)] {
        driver.write(0x28, &asq.to_le_bytes());
        driver.write(CC, &configuration.to_le_bytes());
        assert_eq!(driver.register(CSTS), FATAL);
        driver.write(0x1000, &1_u32.to_le_bytes());
        settle(&mut driver.worker, 10);
        driver.disable();
    }
    driver.enable();
    assert_eq!(driver.identify(1, 0).0, 0);
}

#[test]
fn an_image_with_a_thread_of_its_own_is_a_disk_like_another() {
    let base = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..4 << 20).map(|n: u32| (n / 77) as u8).collect();
    std::fs::write(base.path(), &content).unwrap();
    let plan = Plan {
        path: base.path(),
        format: DiskFormat::Raw,
        read_only: false,
        changes: Changes::Temporary,
    };
    let (requests, service) = Image::open(&plan).unwrap().split().unwrap();
    let closer = service.closer();
    std::thread::spawn(|| service.run());
    let mut driver = Driver::start(requests, false);
    let (mut pair, data) = busy(&mut driver);
    for _ in 0..60 {
        assert_eq!(driver.next(&mut pair).status, 0);
    }
    // With requests under way it comes to rest, as any disk.
    for block in 0..40 {
        let read = transfer(READ, block * 16, 16, (data, data + 4096));
        driver.put(&mut pair, &read);
    }
    driver.ring(&pair);
    assert!(driver.worker.turn(Some(Duration::from_secs(1))).unwrap());
    driver.disable();
    assert_eq!(driver.device.lock().unwrap().in_flight(), 0);
    driver.enable();
    let mut pair = driver.pair(1, 8);
    let flush = Command {
        namespace: 1,
        ..Command::default()
    };
    assert_eq!(driver.run(&mut pair, flush).status, 0);
    assert_eq!(
        driver
            .run(&mut pair, transfer(WRITE_ZEROES, 3000, 9, (0, 0)))
            .status,
        0
    );
    for (block, expected) in [
        (2999, content[2999 * 512]),
        (3000, 0),
        (3009, content[3009 * 512]),
    ] {
        let read = transfer(READ, block, 1, (data, 0));
        assert_eq!(driver.run(&mut pair, read).status, 0);
        assert_eq!(get::<1>(data), [expected], "{block}");
    }
    assert!(closer.close(Duration::from_secs(10)));
    assert_eq!(
        std::fs::read(base.path()).unwrap(),
        content,
        "the base was written"
    );
}
