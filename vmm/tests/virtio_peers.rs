//! Other people's drivers judge the devices: the crate `virtio-drivers` over configuration space,
//! BAR and guest memory, with the worker on its own thread.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

mod virtio_fixture;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use sekisho_framelink::{FrameArena, FrameLink as _, NetHdr, Rules, Segment};
use sekisho_vmm::disk::Counters;
use sekisho_vmm::virtio::block::Block;
use sekisho_vmm::virtio::console::{Backend, Console, PortSettings};
use sekisho_vmm::virtio::input::Tablet;
use sekisho_vmm::virtio::rng::Rng;
use sekisho_vmm::virtio::{Device, VirtioPci};
use sekisho_vmm::worker::Handle;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::device::input::VirtIOInput;
use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::Transport as _;
use virtio_fixture::card::{MAC, MTU, card, plug_gate};
use virtio_fixture::hal::RamHal;
use virtio_fixture::transport::BarTransport;
use virtio_fixture::{Machine, PATIENCE};

/// A device that is served on a thread of its own, which ends with this value.
struct Served<D> {
    device: Arc<Mutex<VirtioPci<D>>>,
    worker: Handle,
}

/// Puts the only device into a machine and serves it; gives its driver's way to it too.
fn serve<D: Device + 'static>(device: D) -> (Served<D>, BarTransport) {
    let mut machine = Machine::new();
    let (slot, device) = machine.add(device);
    let worker = machine.start().spawn(|| Ok(())).unwrap();
    let transport = BarTransport::find(&machine, slot);
    (Served { device, worker }, transport)
}

/// As [`serve`], with a driver that found a disk.
fn serve_disk(file: &File, readonly: bool) -> (Served<Block>, VirtIOBlk<RamHal, BarTransport>) {
    let device = Block::new(file.try_clone().unwrap(), readonly, "sekisho-disk-0").unwrap();
    let (served, transport) = serve(device);
    (served, VirtIOBlk::new(transport).unwrap())
}

impl Served<Block> {
    fn counters(&self) -> Counters {
        self.device.lock().unwrap().device().counters()
    }
}

/// Asks until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "nothing came");
        std::thread::yield_now();
    }
}

#[test]
fn rng_gives_bytes() {
    let (served, transport) = serve(Rng::new());
    let mut rng = VirtIORng::<RamHal, _>::new(transport).unwrap();
    let (mut first, mut second) = ([0; 64], [0; 64]);
    assert_eq!(rng.request_entropy(&mut first).unwrap(), 64);
    assert_eq!(rng.request_entropy(&mut second).unwrap(), 64);
    assert_ne!(first, [0; 64]);
    assert_ne!(first, second);
    served.worker.stop().unwrap();
}

#[test]
fn tablet_tells_what_it_is_and_what_was_done_with_it() {
    let (served, transport) = serve(Tablet::new());
    let mut input = VirtIOInput::<RamHal, _>::new(transport).unwrap();
    assert_eq!(input.name().unwrap(), "Sekisho absolute pointer");
    let ids = input.ids().unwrap();
    assert_eq!((ids.bustype, ids.vendor), (6, 0x1af4));
    let axis = input.abs_info(1).unwrap();
    assert_eq!((axis.min, axis.max), (0, 0x7fff));
    assert!(input.prop_bits().unwrap().is_empty());

    // More events than the driver has buffers, so that they come back round.
    for round in 0..100_u16 {
        served.device.lock().unwrap().update(|tablet| {
            tablet.at(round + 1, 7);
            tablet.button(0x110, round % 2 == 0);
        });
        let end = (0, 0, 0);
        let x = (3, 0, u32::from(round) + 1);
        let y = (round == 0).then_some((3, 1, 7));
        let button = (1, 0x110, u32::from(round % 2 == 0));
        for wanted in [x].into_iter().chain(y).chain([end, button, end]) {
            let event = until(|| input.pop_pending_event());
            assert_eq!((event.event_type, event.code, event.value), wanted);
        }
    }
    served.worker.stop().unwrap();
}

#[test]
fn net_sends_and_receives_frames() {
    let (served, transport) = serve(card());
    let mut gate = plug_gate(&served.device, Rules::plain(MTU));
    let mut arena = FrameArena::new(4);

    let mut net = VirtIONet::<RamHal, _, 16>::new(transport, 2048).unwrap();
    assert_eq!(net.mac_address(), MAC);
    for round in 0..100_u8 {
        let frame: Vec<u8> = (0..60 + usize::from(round) * 10)
            .map(|n| n as u8 ^ round)
            .collect();
        let mut buffer = net.new_tx_buffer(frame.len());
        buffer.packet_mut().copy_from_slice(&frame);
        net.send(buffer).unwrap();
        until(|| (gate.recv_batch(&mut arena).unwrap() == 1).then_some(()));
        assert_eq!(arena.get(0).unwrap().frame, frame);

        let header = NetHdr::default().emit();
        let message = [Segment::from(&header[..]), Segment::from(&frame[..])];
        assert_eq!(gate.send_batch(&[&message]).unwrap(), 1);
        let received = until(|| net.receive().ok());
        assert_eq!(received.packet(), frame);
        net.recycle_rx_buffer(received).unwrap();
    }
    let counters = served.device.lock().unwrap().device().counters();
    assert_eq!((counters.sent, counters.received), (100, 100));
    served.worker.stop().unwrap();
}

#[test]
fn net_checksums_left_open_are_completed_for_a_driver_that_cannot() {
    let (served, transport) = serve(card());
    let mut gate = plug_gate(&served.device, Rules::plain(MTU));
    let mut net = VirtIONet::<RamHal, _, 16>::new(transport, 2048).unwrap();

    let mut frame = [0; 60];
    frame[14..22].copy_from_slice(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    let header = NetHdr::partial_csum(14, 8).emit();
    let message = [Segment::from(&header[..]), Segment::from(&frame[..])];
    assert_eq!(gate.send_batch(&[&message]).unwrap(), 1);
    let received = until(|| net.receive().ok());
    // RFC 1071, section 3: these words sum to ddf2.
    assert_eq!(received.packet()[22..24], (!0xddf2_u16).to_be_bytes());
    served.worker.stop().unwrap();
}

#[test]
fn pci_identity_is_what_windows_drivers_look_for() {
    let (_served, mut transport) = serve(card());
    assert_eq!(transport.config_u16(2), 0x1041);
    assert_eq!(transport.config_u8(8), 1);
    assert_eq!(transport.config_u8(0x3d), 0);
    assert_eq!(transport.max_queue_size(0), 256);
    assert_eq!(transport.max_queue_size(3), 0);
}

fn image(sectors: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len((sectors * SECTOR_SIZE) as u64).unwrap();
    file
}

#[test]
fn block_writes_reads_and_flushes() {
    let file = image(2048);
    let (served, mut disk) = serve_disk(&file, false);
    assert_eq!(disk.capacity(), 2048);
    assert!(!disk.readonly());
    let mut id = [0; 20];
    let length = disk.device_id(&mut id).unwrap();
    assert_eq!(&id[..length], b"sekisho-disk-0");

    for block in [0, 1, 77, 2040] {
        let data: Vec<u8> = (0..8 * SECTOR_SIZE)
            .map(|n| (n * 7 + block) as u8)
            .collect();
        disk.write_blocks(block, &data).unwrap();
        disk.flush().unwrap();
        let mut back = vec![0; data.len()];
        disk.read_blocks(block, &mut back).unwrap();
        assert_eq!(back, data);
        let mut stored = vec![0; data.len()];
        let offset = (block * SECTOR_SIZE) as u64;
        file.read_exact_at(&mut stored, offset).unwrap();
        assert_eq!(stored, data);
    }
    let counters = served.counters();
    assert_eq!(
        (counters.writes, counters.reads, counters.flushes),
        (4, 4, 4)
    );
    assert_eq!(counters.errors, 0);
    served.worker.stop().unwrap();
}

#[test]
fn block_errors_reach_the_guest() {
    let file = image(16);
    let (served, mut disk) = serve_disk(&file, false);
    let mut sector = [0; SECTOR_SIZE];
    let io_error = virtio_drivers::Error::IoError;
    assert_eq!(disk.read_blocks(16, &mut sector), Err(io_error));
    assert_eq!(disk.write_blocks(15, &[0; 2 * SECTOR_SIZE]), Err(io_error));
    // The image becomes shorter than the disk: a read comes short.
    file.set_len(512).unwrap();
    assert_eq!(disk.read_blocks(8, &mut sector), Err(io_error));
    disk.read_blocks(0, &mut sector).unwrap();
    assert_eq!(served.counters().errors, 3);
    served.worker.stop().unwrap();
}

#[test]
fn block_write_that_the_host_refuses_is_an_io_error() {
    // A seal against writing makes the kernel refuse, as a full disk under a sparse image would.
    let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, 64 * 512).unwrap();
    let file = File::from(memory);
    let (served, mut disk) = serve_disk(&file, false);
    disk.write_blocks(0, &[1; SECTOR_SIZE]).unwrap();
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE).unwrap();
    let io_error = virtio_drivers::Error::IoError;
    assert_eq!(disk.write_blocks(0, &[2; SECTOR_SIZE]), Err(io_error));
    let mut sector = [0; SECTOR_SIZE];
    disk.read_blocks(0, &mut sector).unwrap();
    assert_eq!(sector, [1; SECTOR_SIZE]);
    served.worker.stop().unwrap();
}

#[test]
fn block_read_only_refuses_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, vec![7; 64 * SECTOR_SIZE]).unwrap();
    let (served, mut disk) = serve_disk(&File::open(&path).unwrap(), true);
    assert!(disk.readonly());
    let mut sector = [0; SECTOR_SIZE];
    disk.read_blocks(63, &mut sector).unwrap();
    assert_eq!(sector, [7; SECTOR_SIZE]);
    assert!(disk.write_blocks(0, &sector).is_err());
    disk.flush().unwrap();
    served.worker.stop().unwrap();
}

#[test]
fn console_carries_bytes_both_ways() {
    let (host, guest) = UnixStream::pair().unwrap();
    let port = PortSettings {
        id: 0,
        name: "jp.sekisho.test.0".into(),
        backend: Some(Backend::Socket(guest.into())),
    };
    let (served, transport) = serve(Console::new(vec![port]).unwrap());
    let mut console = VirtIOConsole::<RamHal, _>::new(transport).unwrap();
    let mut host = host;
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    console.send_bytes(b"from the guest").unwrap();
    let mut bytes = [0; 14];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    host.write_all(b"from the host").unwrap();
    for expected in b"from the host" {
        let byte = until(|| console.recv(true).unwrap());
        assert_eq!(byte, *expected);
    }
    served.worker.stop().unwrap();
}
