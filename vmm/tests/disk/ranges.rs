//! Discards and zeroes of a virtio disk over a file.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sekisho_vmm::virtio::block::Block;
use virtio_drivers::transport::Transport as _;

use crate::virtio_fixture::disk::*;
use crate::virtio_fixture::turn_until;

const ALL: u64 = FLUSH | DISCARD | WRITE_ZEROES;
const SECTORS: u64 = 1 << 16;

/// An image full of sevens.
fn sevens(file: File) -> File {
    file.set_len(SECTORS * 512).unwrap();
    for at in 0..4 {
        file.write_all_at(&vec![7; 1 << 20], at << 20).unwrap();
    }
    file
}

fn start(file: &File, features: u64) -> Disk {
    let block = Block::new(file.try_clone().unwrap(), false, "d").unwrap();
    Disk::start(block, features)
}

fn byte(file: &File, sector: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, sector * 512).unwrap();
    byte[0]
}

#[test]
fn discarded_ranges_read_zero_and_take_no_room() {
    let file = sevens(tempfile::tempfile().unwrap());
    let before = file.metadata().unwrap().blocks();
    let mut disk = start(&file, ALL);
    let offered: u32 = disk.driver.transport.read_config_space(44).unwrap();
    assert_eq!(offered, 8, "discard sector alignment");
    let segments: Vec<Segment> = (0..256).map(|n| (n * 16, 8, 0)).collect();
    assert_eq!(disk.discard(&segments), OK);
    for (sector, value) in [(0, 0), (7, 0), (8, 7), (16, 0), (4080, 0), (4088, 7)] {
        assert_eq!(byte(&file, sector), value, "{sector}");
    }
    assert!(file.metadata().unwrap().blocks() < before);
    assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
    assert_eq!((disk.counters().discards, disk.counters().errors), (1, 0));
}

#[test]
fn zeroed_ranges_read_zero_and_keep_their_room_unless_it_may_go() {
    let file = sevens(tempfile::tempfile().unwrap());
    let blocks = |file: &File| file.metadata().unwrap().blocks();
    let before = blocks(&file);
    let mut disk = start(&file, ALL);
    assert_eq!(disk.write_zeroes(&[(3, 2042, 0)]), OK);
    for (sector, value) in [(2, 7), (3, 0), (2044, 0), (2045, 7)] {
        assert_eq!(byte(&file, sector), value, "{sector}");
    }
    assert!(blocks(&file) >= before, "room was given up");
    assert_eq!(disk.write_zeroes(&[(4096, 2048, 1)]), OK);
    assert_eq!((byte(&file, 4096), byte(&file, 6143)), (0, 0));
    assert!(blocks(&file) < before, "no room came back");
    assert_eq!(disk.counters().zeroes, 2);
    // A driver without flushes: what it is answered is on the medium.
    let mut disk = start(&file, WRITE_ZEROES);
    assert_eq!(disk.write_zeroes(&[(6144, 8, 0)]), OK);
    assert_eq!(byte(&file, 6144), 0);
}

/// A memory file makes holes and has no call for zeroes.
#[test]
fn where_the_host_has_no_call_zeroes_are_written() {
    let memory = memfd_create("disk", MemfdFlags::ALLOW_SEALING).unwrap();
    let file = sevens(File::from(memory));
    let before = file.metadata().unwrap().blocks();
    let mut disk = start(&file, ALL);
    // More than one piece, and not a whole number of them.
    assert_eq!(disk.write_zeroes(&[(1, 6001, 0)]), OK);
    for (sector, value) in [(0, 7), (1, 0), (3000, 0), (6001, 0), (6002, 7)] {
        assert_eq!(byte(&file, sector), value, "{sector}");
    }
    assert_eq!(file.metadata().unwrap().blocks(), before);
    // The host's refusal is the guest's error.
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    assert_eq!(disk.write_zeroes(&[(0, 1, 0)]), IO_ERROR);
    assert_eq!(disk.write_zeroes(&[(0, 1, 1)]), IO_ERROR);
    assert_eq!(disk.discard(&[(0, 8, 0)]), IO_ERROR);
    assert_eq!((byte(&file, 0), disk.counters().errors), (7, 3));
}

#[test]
fn a_reset_ends_zeroes_after_the_piece_under_way() {
    let memory = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    let file = sevens(File::from(memory));
    let mut disk = start(&file, ALL);
    disk.ask(
        TYPE_WRITE_ZEROES,
        0,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
    );
    let Disk { driver, worker, .. } = &mut disk;
    turn_until(worker, || byte(&file, 0) == 0);
    driver.transport.set_common(0x14, &[0]);
    turn_until(worker, || driver.transport.status() == 0);
    assert_eq!(disk.device.lock().unwrap().device().in_flight(), 0);
    assert_eq!(disk.ring.take_used(), None, "the ring was touched");
    assert_eq!(byte(&file, 8191), 7, "it went on after the reset");
}

#[test]
fn segments_that_break_the_rules_are_refused_and_change_nothing() {
    let file = sevens(tempfile::tempfile().unwrap());
    let mut disk = start(&file, ALL);
    let zeroes = [
        ("past the end", vec![(SECTORS - 1, 2, 0)], IO_ERROR),
        ("far past the end", vec![(u64::MAX, 1, 0)], IO_ERROR),
        ("an overflow in bytes", vec![(1 << 55, 8, 0)], IO_ERROR),
        ("too long", vec![(0, (1 << 16) + 1, 0)], IO_ERROR),
        ("too many", vec![(0, 1, 0), (8, 1, 0)], IO_ERROR),
        ("none", vec![], IO_ERROR),
        ("an unknown flag", vec![(0, 1, 2)], UNSUPPORTED),
        ("all flags", vec![(0, 1, u32::MAX)], UNSUPPORTED),
        ("no sectors", vec![(0, 0, 1)], OK),
    ];
    for (what, segments, status) in zeroes {
        assert_eq!(disk.write_zeroes(&segments), status, "zeroes: {what}");
    }
    let many: Vec<Segment> = (0..257).map(|n| (n * 8, 8, 0)).collect();
    let discards = [
        ("past the end", vec![(0, 8, 0), (SECTORS, 1, 0)], IO_ERROR),
        ("an overflow", vec![(u64::MAX - 7, 8, 0)], IO_ERROR),
        ("too long", vec![(0, u32::MAX, 0)], IO_ERROR),
        ("too many", many, IO_ERROR),
        ("none", vec![], IO_ERROR),
        ("unmap", vec![(0, 8, 1)], UNSUPPORTED),
        ("no sectors", vec![(0, 0, 0), (SECTORS, 0, 0)], OK),
    ];
    for (what, segments, status) in discards {
        assert_eq!(disk.discard(&segments), status, "discard: {what}");
    }
    // Half a segment.
    assert_eq!(disk.request(TYPE_DISCARD, 0, &[0; 24]), IO_ERROR);
    assert_eq!((0..64).map(|n| byte(&file, n)).max(), Some(7));
    assert_eq!((0..64).map(|n| byte(&file, n)).min(), Some(7));
    let counters = disk.counters();
    assert_eq!((counters.discards, counters.zeroes), (0, 0));
    assert_eq!(counters.errors, 15);
    // The disk works on.
    assert_eq!(disk.read(0, 512), [7; 512]);
}

#[test]
fn what_was_not_agreed_on_is_unsupported() {
    let file = sevens(tempfile::tempfile().unwrap());
    let mut disk = start(&file, FLUSH);
    assert_eq!(disk.discard(&[(0, 8, 0)]), UNSUPPORTED);
    assert_eq!(disk.write_zeroes(&[(0, 8, 0)]), UNSUPPORTED);
    assert_eq!(byte(&file, 0), 7);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), [7; 4096]).unwrap();
    let block = Block::new(File::open(path.path()).unwrap(), true, "d").unwrap();
    let mut disk = Disk::start(block, FLUSH);
    let offered = disk.driver.transport.read_device_features();
    assert_eq!(offered & (DISCARD | WRITE_ZEROES), 0, "a read-only disk");
    assert_eq!(disk.write_zeroes(&[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(std::fs::read(path.path()).unwrap(), [7; 4096]);
}
