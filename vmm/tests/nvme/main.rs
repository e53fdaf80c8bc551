//! The NVMe controller as a driver sees it through the bus: what the specification asks for, and what a
//! driver without manners gets.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "part of tests, where a surprise ends the test"
)]

#[path = "../virtio_fixture/mod.rs"]
mod virtio_fixture;

mod driver;
mod life;

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use driver::*;
use virtio_fixture::hal::take_pages;
use virtio_fixture::ring::put;
use virtio_fixture::settle;

const SECTOR: usize = 512;
/// Status codes with their type, without "do not retry".
const INVALID_OPCODE: u16 = 0x001;
const INVALID_FIELD: u16 = 0x002;
const DATA_TRANSFER: u16 = 0x004;
const INVALID_NAMESPACE: u16 = 0x00b;
const SEQUENCE: u16 = 0x00c;
const WRITE_PROTECTED: u16 = 0x020;
const OUT_OF_RANGE: u16 = 0x080;
const NO_COMPLETION_QUEUE: u16 = 0x100;
const INVALID_QUEUE: u16 = 0x101;
const INVALID_SIZE: u16 = 0x102;
const EVENT_LIMIT: u16 = 0x105;
const INVALID_VECTOR: u16 = 0x108;
const QUEUE_IN_USE: u16 = 0x10c;
const WRITE_FAULT: u16 = 0x280;
const READ_ERROR: u16 = 0x281;

fn image(sectors: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len((sectors * SECTOR) as u64).unwrap();
    file
}

/// A read or a write of some blocks from or to one address.
fn transfer(opcode: u8, block: u32, blocks: u32, prps: (u64, u64)) -> Command {
    Command {
        opcode,
        namespace: 1,
        prp1: prps.0,
        prp2: prps.1,
        dw10: block,
        dw12: blocks - 1,
        ..Command::default()
    }
}

#[test]
fn a_driver_finds_identifies_writes_reads_and_flushes() {
    let file = image(4096);
    let mut driver = Driver::start(file.try_clone().unwrap(), false);
    let (status, controller) = driver.identify(1, 0);
    assert_eq!((status, controller[516]), (0, 1));
    let (status, namespace) = driver.identify(0, 1);
    assert_eq!(status, 0);
    assert_eq!(namespace[..8], 4096_u64.to_le_bytes());
    assert_eq!(driver.identify(2, 0).1[..4], [1, 0, 0, 0]);
    assert_eq!(driver.identify(3, 1).0, 0);
    assert_eq!(driver.identify(0, 2).0, INVALID_NAMESPACE);
    assert_eq!(driver.identify(0x1f, 0).0, INVALID_FIELD);

    let granted = driver.admin(Command {
        opcode: SET_FEATURES,
        dw10: 7,
        dw11: 0x0007_0003,
        ..Command::default()
    });
    assert_eq!((granted.status, granted.result), (0, 0x0003_0003));
    let mut pair = driver.pair(2, 8);
    let buffer = take_pages(4);
    for block in [0, 7, 4088] {
        // Three and a half pages, which begin inside one: a list of the rest.
        let data: Vec<u8> = (0..8 * SECTOR).map(|n| (n * 5 + block) as u8).collect();
        put(buffer + 0x800, &data);
        let prps = (buffer + 0x800, buffer + 0x1000);
        let block = u32::try_from(block).unwrap();
        let written = driver.run(&mut pair, transfer(WRITE, block, 8, prps));
        assert_eq!(written.status, 0);
        let flush = Command {
            namespace: 1,
            ..Command::default()
        };
        assert_eq!(driver.run(&mut pair, flush).status, 0);
        let mut stored = vec![0; data.len()];
        file.read_exact_at(&mut stored, u64::from(block) * 512)
            .unwrap();
        assert_eq!(stored, data);
        let back = take_pages(2);
        let read = driver.run(
            &mut pair,
            transfer(READ, block, 8, (back + 0x800, back + 0x1000)),
        );
        assert_eq!(read.status, 0);
        assert_eq!(get::<4096>(back + 0x800)[..], data);
    }
    // Each command had its own interrupt, none came at another queue's vector.
    assert_eq!(driver.machine.platform.signals(0x42), 9);
    assert_eq!(driver.machine.platform.signals(0x41), 0);
    let counters = driver.device.lock().unwrap().counters();
    let done = (counters.writes, counters.reads, counters.flushes);
    assert_eq!((done, counters.errors), ((3, 3, 3), 0));
}

#[test]
fn a_long_transfer_goes_by_a_list_of_pages() {
    let file = image(8192);
    let mut driver = Driver::start(file.try_clone().unwrap(), false);
    let mut pair = driver.pair(1, 4);
    let (data, list) = (take_pages(512), take_pages(1));
    let content: Vec<u8> = (0..2 << 20).map(|n: u32| (n / 11) as u8).collect();
    put(data, &content);
    // From the last page to the first.
    for index in 1..512_u64 {
        put(
            list + (index - 1) * 8,
            &(data + (512 - index) * 4096).to_le_bytes(),
        );
    }
    let longest = transfer(WRITE, 16, 4096, (data, list));
    assert_eq!(driver.run(&mut pair, longest).status, 0);
    let mut stored = vec![0; content.len()];
    file.read_exact_at(&mut stored, 16 * 512).unwrap();
    assert_eq!(stored[..4096], content[..4096]);
    for page in 1..512 {
        let from = (512 - page) * 4096;
        assert_eq!(
            stored[page * 4096..][..4096],
            content[from..][..4096],
            "{page}"
        );
    }
    let too_long = transfer(READ, 0, 4097, (data, list));
    assert_eq!(driver.run(&mut pair, too_long).status, INVALID_FIELD);
}

#[test]
fn what_breaks_the_rules_is_answered_and_what_is_around_it_works() {
    let mut driver = Driver::start(image(64), false);
    let mut pair = driver.pair(1, 4);
    let page = take_pages(1);
    let outside = ram_end();
    for (command, status) in [
        (transfer(READ, 64, 1, (page, 0)), OUT_OF_RANGE),
        (transfer(WRITE, 60, 5, (page, 0)), OUT_OF_RANGE),
        (transfer(READ, u32::MAX, 1, (page, 0)), OUT_OF_RANGE),
        (transfer(READ, 0, 1, (page + 2, 0)), 0x013),
        (transfer(READ, 0, 9, (page, page + 8)), 0x013),
        (transfer(READ, 0, 1, (outside, 0)), DATA_TRANSFER),
        (
            transfer(READ, 0, 16, (outside - 4096, outside)),
            DATA_TRANSFER,
        ),
        (transfer(READ, 0, 64, (page, outside)), DATA_TRANSFER),
        (transfer(0x7f, 0, 1, (page, 0)), INVALID_OPCODE),
        (
            Command {
                namespace: 2,
                ..transfer(READ, 0, 1, (page, 0))
            },
            INVALID_NAMESPACE,
        ),
        (
            Command {
                flags: 0x40,
                ..transfer(READ, 0, 1, (page, 0))
            },
            INVALID_FIELD,
        ),
        (
            Command {
                flags: 1,
                ..transfer(WRITE, 0, 1, (page, 0))
            },
            INVALID_FIELD,
        ),
    ] {
        assert_eq!(driver.run(&mut pair, command).status, status);
        let good = transfer(READ, 63, 1, (page, 0));
        assert_eq!(driver.run(&mut pair, good).status, 0);
    }
    // What failed last is in the log.
    let log = take_pages(1);
    let read = driver.admin(Command {
        opcode: GET_LOG,
        namespace: u32::MAX,
        prp1: log,
        dw10: 0x000f_0001,
        ..Command::default()
    });
    assert_eq!(read.status, 0);
    let entry: [u8; 64] = get(log);
    assert_eq!((entry[0], entry[8], entry[24]), (12, 1, 1));
}

#[test]
fn queues_are_created_and_deleted_by_the_rules() {
    let mut driver = Driver::start(image(64), false);
    let page = take_pages(1);
    let create = |opcode, number: u32, size: u32, dw11, prp1| Command {
        opcode,
        prp1,
        dw10: number | (size - 1) << 16,
        dw11,
        ..Command::default()
    };
    let delete = |opcode, number| Command {
        opcode,
        dw10: number,
        ..Command::default()
    };
    for (command, status) in [
        (create(CREATE_COMPLETION, 0, 4, 1, page), INVALID_QUEUE),
        (create(CREATE_COMPLETION, 17, 4, 1, page), INVALID_QUEUE),
        (create(CREATE_COMPLETION, 1, 1, 1, page), INVALID_SIZE),
        (create(CREATE_COMPLETION, 1, 1025, 1, page), INVALID_SIZE),
        (create(CREATE_COMPLETION, 1, 4, 0, page), INVALID_FIELD),
        (create(CREATE_COMPLETION, 1, 4, 1, page + 16), 0x013),
        (create(CREATE_COMPLETION, 1, 4, 1, ram_end()), INVALID_FIELD),
        (
            create(CREATE_COMPLETION, 1, 4, 17 << 16 | 3, page),
            INVALID_VECTOR,
        ),
        (
            create(CREATE_SUBMISSION, 1, 4, 1 << 16 | 1, page),
            NO_COMPLETION_QUEUE,
        ),
        (create(CREATE_SUBMISSION, 1, 4, 1, page), INVALID_QUEUE),
        (create(CREATE_COMPLETION, 1, 4, 1, page), 0),
        (create(CREATE_COMPLETION, 1, 4, 1, page), INVALID_QUEUE),
        (create(CREATE_SUBMISSION, 2, 4, 1 << 16 | 1, page), 0),
        (delete(DELETE_COMPLETION, 1), QUEUE_IN_USE),
        (delete(DELETE_SUBMISSION, 1), INVALID_QUEUE),
        (delete(DELETE_SUBMISSION, 0), INVALID_QUEUE),
        (delete(DELETE_SUBMISSION, 2), 0),
        (delete(DELETE_COMPLETION, 1), 0),
        (delete(DELETE_COMPLETION, 1), INVALID_QUEUE),
    ] {
        assert_eq!(driver.admin(command).status, status, "{:x}", command.dw10);
    }
    let _pair = driver.pair(1, 4);
    let number = Command {
        opcode: SET_FEATURES,
        dw10: 7,
        ..Command::default()
    };
    assert_eq!(driver.admin(number).status, SEQUENCE);
}

#[test]
fn a_queue_is_deleted_after_what_is_under_way() {
    let mut driver = Driver::start(image(1 << 16), false);
    let mut pair = driver.pair(1, 64);
    let data = take_pages(2);
    let mut ids = Vec::new();
    for block in 0..40 {
        let command = transfer(WRITE, block * 16, 16, (data, data + 4096));
        ids.push(driver.put(&mut pair, &command));
    }
    driver.ring(&pair);
    let deleted = driver.admin(Command {
        opcode: DELETE_SUBMISSION,
        dw10: 1,
        ..Command::default()
    });
    assert_eq!(deleted.status, 0);
    // Whatever was taken was answered before the queue was gone; nothing comes behind.
    let mut answered = Vec::new();
    while let Some(completion) = Driver::peek(&mut pair) {
        assert_eq!(completion.status, 0);
        answered.push(completion.command);
    }
    answered.sort_unstable();
    assert_eq!(answered, ids[..answered.len()]);
    assert_eq!(driver.device.lock().unwrap().in_flight(), 0);
    settle(&mut driver.worker, 100);
    assert_eq!(Driver::peek(&mut pair), None);
}

#[test]
fn a_full_completion_queue_holds_commands_back() {
    let mut driver = Driver::start(image(64), false);
    // A completion queue of 4 entries for a submission queue of 32.
    let mut pair = Pair::new(1, 32);
    let completion = Pair::new(1, 4);
    for (opcode, prp1, size, dw11) in [
        (CREATE_COMPLETION, completion.completion, 4_u32, 1 << 16 | 3),
        (CREATE_SUBMISSION, pair.submission, 32, 1 << 16 | 1),
    ] {
        let created = driver.admin(Command {
            opcode,
            prp1,
            dw10: 1 | (size - 1) << 16,
            dw11,
            ..Command::default()
        });
        assert_eq!(created.status, 0);
    }
    let page = take_pages(1);
    let mut ids = Vec::new();
    for block in 0..20 {
        ids.push(driver.put(&mut pair, &transfer(READ, block, 1, (page, 0))));
    }
    driver.ring(&pair);
    let mut answers = completion;
    let mut seen = Vec::new();
    while seen.len() < ids.len() {
        settle(&mut driver.worker, 200);
        let before = seen.len();
        while let Some(completion) = Driver::peek(&mut answers) {
            assert_eq!(completion.status, 0);
            seen.push(completion.command);
        }
        // As many as there is room for, and not one that overwrites another.
        assert_eq!(seen.len() - before, 3.min(ids.len() - before));
        driver.consumed(&answers);
    }
    seen.sort_unstable();
    assert_eq!(seen, ids);
}

#[test]
fn wrong_doorbells_are_events_and_held_requests_are_few() {
    let mut driver = Driver::start(image(64), false);
    let mut admin = std::mem::replace(&mut driver.admin, Pair::new(0, 2));
    let request = Command {
        opcode: EVENT_REQUEST,
        ..Command::default()
    };
    let ids: Vec<u16> = (0..4).map(|_| driver.put(&mut admin, &request)).collect();
    driver.ring(&admin);
    let refused = driver.run(&mut admin, request);
    assert_eq!(refused.status, EVENT_LIMIT);
    // A tail past the queue.
    driver.write(0x1000, &16_u32.to_le_bytes());
    let told = driver.next(&mut admin);
    assert_eq!((told.command, told.result), (ids[0], 0x1_0100));
    // A queue that is not there, told only when the log was read.
    driver.write(0x1000 + 5 * 8, &1_u32.to_le_bytes());
    settle(&mut driver.worker, 100);
    assert_eq!(Driver::peek(&mut admin), None);
    let log = Command {
        opcode: GET_LOG,
        namespace: u32::MAX,
        prp1: take_pages(1),
        dw10: 0x000f_0001,
        ..Command::default()
    };
    driver.put(&mut admin, &log);
    driver.ring(&admin);
    assert_eq!(driver.next(&mut admin).status, 0);
    let told = driver.next(&mut admin);
    assert_eq!((told.command, told.result), (ids[1], 0x1_0000));
    // A head that nothing was posted to is none either, and the queue goes on.
    driver.write(0x1004, &7_u32.to_le_bytes());
    driver.write(0x1004, &0xffff_u32.to_le_bytes());
    driver.admin = admin;
    assert_eq!(driver.identify(1, 0).0, 0);
}

#[test]
fn features_are_kept_until_a_reset() {
    let mut driver = Driver::start(image(64), false);
    let feature = |opcode, number, value| Command {
        opcode,
        dw10: number,
        dw11: value,
        ..Command::default()
    };
    assert_eq!(driver.admin(feature(GET_FEATURES, 6, 0)).result, 1);
    assert_eq!(driver.admin(feature(SET_FEATURES, 6, 0)).status, 0);
    // What the cache may have had is on the medium.
    assert_eq!(driver.device.lock().unwrap().counters().flushes, 1);
    assert_eq!(driver.admin(feature(GET_FEATURES, 6, 0)).result, 0);
    assert_eq!(
        driver.admin(feature(SET_FEATURES, 2, 1)).status,
        INVALID_FIELD
    );
    assert_eq!(
        driver.admin(feature(SET_FEATURES, 0x7f, 0)).status,
        INVALID_FIELD
    );
    // Saving what does not outlive the power is not offered.
    assert_eq!(
        driver.admin(feature(SET_FEATURES, 1 << 31 | 6, 1)).status,
        0x10d
    );
    assert_eq!(
        driver.admin(feature(SET_FEATURES, 9, 1 << 16 | 3)).status,
        0
    );
    assert_eq!(
        driver.admin(feature(GET_FEATURES, 9, 3)).result,
        1 << 16 | 3
    );
    assert_eq!(
        driver.admin(feature(GET_FEATURES, 9, 17)).status,
        INVALID_FIELD
    );
    driver.disable();
    driver.enable();
    assert_eq!(driver.admin(feature(GET_FEATURES, 6, 0)).result, 1);
}

#[test]
fn errors_of_the_host_reach_the_driver() {
    let file = image(64);
    let mut driver = Driver::start(file.try_clone().unwrap(), false);
    let mut pair = driver.pair(1, 4);
    let page = take_pages(1);
    // The image becomes shorter than the disk.
    file.set_len(512).unwrap();
    let beyond = driver.run(&mut pair, transfer(READ, 8, 1, (page, 0)));
    assert_eq!(beyond.status, READ_ERROR);

    // A seal against writing makes the kernel refuse, as a broken disk would.
    let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, 64 * 512).unwrap();
    let file = File::from(memory);
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).unwrap();
    let mut driver = Driver::start(file, false);
    let mut pair = driver.pair(1, 4);
    let refused = driver.run(&mut pair, transfer(WRITE, 0, 1, (page, 0)));
    assert_eq!(refused.status, WRITE_FAULT);
    assert_eq!(driver.device.lock().unwrap().counters().errors, 1);
}

#[test]
fn a_read_only_disk_is_write_protected() {
    let mut driver = Driver::start(image(64), true);
    let mut pair = driver.pair(1, 4);
    let page = take_pages(1);
    assert_eq!(driver.identify(0, 1).1[99], 1);
    let written = driver.run(&mut pair, transfer(WRITE, 0, 1, (page, 0)));
    assert_eq!(written.status, WRITE_PROTECTED);
    let given_up = Command {
        opcode: MANAGE,
        namespace: 1,
        dw11: 4,
        prp1: page,
        ..Command::default()
    };
    assert_eq!(driver.run(&mut pair, given_up).status, WRITE_PROTECTED);
    let zeroed = transfer(WRITE_ZEROES, 0, 1, (0, 0));
    assert_eq!(driver.run(&mut pair, zeroed).status, WRITE_PROTECTED);
    let flushed = Command {
        opcode: FLUSH,
        namespace: u32::MAX,
        ..Command::default()
    };
    assert_eq!(driver.run(&mut pair, flushed).status, 0);
}

#[test]
fn ranges_that_are_given_up_read_zero_and_take_no_room() {
    let file = image(4096);
    file.write_all_at(&vec![7; 2 << 20], 0).unwrap();
    let before = file.metadata().unwrap().blocks();
    let mut driver = Driver::start(file.try_clone().unwrap(), false);
    let mut pair = driver.pair(1, 4);
    let page = take_pages(1);
    let mut manage = |ranges: &[(u32, u64)], deallocate: u32| {
        for ((blocks, first), at) in ranges.iter().zip((page..).step_by(16)) {
            put(at, &[0; 4]);
            put(at + 4, &blocks.to_le_bytes());
            put(at + 8, &first.to_le_bytes());
        }
        let count = u32::try_from(ranges.len()).unwrap();
        driver.run(
            &mut pair,
            Command {
                opcode: MANAGE,
                namespace: 1,
                dw10: count - 1,
                dw11: deallocate,
                prp1: page,
                ..Command::default()
            },
        )
    };
    // One range outside: none is given up.
    assert_eq!(manage(&[(8, 0), (1, 4096)], 4).status, OUT_OF_RANGE);
    // Only advice.
    assert_eq!(manage(&[(8, 0)], 1).status, 0);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!(manage(&[(1024, 8), (0, 9), (2048, 2048)], 4).status, 0);
    for (block, value) in [
        (7, 7),
        (8, 0),
        (1031, 0),
        (1032, 7),
        (2047, 7),
        (2048, 0),
        (4095, 0),
    ] {
        file.read_exact_at(&mut byte, block * 512).unwrap();
        assert_eq!(byte, [value], "{block}");
    }
    assert!(
        file.metadata().unwrap().blocks() < before,
        "no room came back"
    );
}

#[test]
fn zeroed_blocks_read_zero_and_give_up_their_room_where_they_may() {
    let file = image(1 << 17);
    file.write_all_at(&vec![7; 4 << 20], 0).unwrap();
    let blocks = || file.metadata().unwrap().blocks();
    let before = blocks();
    let mut driver = Driver::start(file.try_clone().unwrap(), false);
    // Dataset management and write zeroes; the latter deallocates, and what it does reads zero.
    assert_eq!(driver.identify(1, 0).1[520], 0x0c);
    assert_eq!(driver.identify(0, 1).1[33], 0x09);
    let mut pair = driver.pair(1, 4);
    let mut zero = |block, count, more| {
        let mut command = transfer(WRITE_ZEROES, block, count, (0, 0));
        command.dw12 |= more;
        driver.run(&mut pair, command).status
    };
    let (deallocate, forced) = (1 << 25, 1 << 30);
    assert_eq!(zero(1, 2047, 0), 0);
    assert!(blocks() >= before, "room was given up");
    assert_eq!(zero(4096, 2048, deallocate | forced), 0);
    assert!(blocks() < before, "no room came back");
    for (block, value) in [
        (0, 7),
        (1, 0),
        (2047, 0),
        (2048, 7),
        (4095, 7),
        (4096, 0),
        (6144, 7),
    ] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, block * 512).unwrap();
        assert_eq!(byte, [value], "{block}");
    }
    // The longest one, and what lies outside.
    assert_eq!(zero(1 << 16, 1 << 16, deallocate), 0);
    assert_eq!(zero((1 << 17) - 1, 2, 0), OUT_OF_RANGE);
    assert_eq!(zero(u32::MAX, 1, deallocate), OUT_OF_RANGE);
    let counters = driver.device.lock().unwrap().counters();
    assert_eq!((counters.zeroes, counters.errors), (3, 2));
}
