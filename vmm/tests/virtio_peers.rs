//! Other people's drivers judge the devices: the crate `virtio-drivers` over configuration space,
//! BAR and guest memory, with the worker on its own thread.

mod virtio_fixture;

use sekisho_framelink::{FrameArena, FrameLink as _, NetHdr, Rules, Segment, SeqPacket, pair};
use sekisho_vmm::virtio::net::{Net, Settings};
use sekisho_vmm::virtio::rng::Rng;
use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::Transport as _;
use virtio_fixture::hal::RamHal;
use virtio_fixture::transport::BarTransport;
use virtio_fixture::{Machine, PATIENCE};

const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
const MTU: u16 = 1420;

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
    let mut machine = Machine::new();
    let (slot, _device) = machine.add(Rng::new());
    let worker = machine.start().spawn(|| Ok(())).unwrap();
    let transport = BarTransport::find(&machine, slot);
    let mut rng = VirtIORng::<RamHal, _>::new(transport).unwrap();
    let (mut first, mut second) = ([0; 64], [0; 64]);
    assert_eq!(rng.request_entropy(&mut first).unwrap(), 64);
    assert_eq!(rng.request_entropy(&mut second).unwrap(), 64);
    assert_ne!(first, [0; 64]);
    assert_ne!(first, second);
    worker.stop().unwrap();
}

#[test]
fn net_sends_and_receives_frames() {
    let mut machine = Machine::new();
    let (slot, device) = machine.add(Net::new(Settings::new(MAC, MTU)));
    let worker = machine.start().spawn(|| Ok(())).unwrap();
    let (vmm, gate) = pair().unwrap();
    device
        .lock()
        .unwrap()
        .update(|net| net.attach(vmm))
        .unwrap();
    let mut gate = SeqPacket::from_fd(gate, Rules::plain(MTU)).unwrap();
    let mut arena = FrameArena::new(4);

    let transport = BarTransport::find(&machine, slot);
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
    let counters = device.lock().unwrap().device().counters();
    assert_eq!((counters.sent, counters.received), (100, 100));
    worker.stop().unwrap();
}

#[test]
fn net_checksums_left_open_are_completed_for_a_driver_that_cannot() {
    let mut machine = Machine::new();
    let (slot, device) = machine.add(Net::new(Settings::new(MAC, MTU)));
    let worker = machine.start().spawn(|| Ok(())).unwrap();
    let (vmm, gate) = pair().unwrap();
    device
        .lock()
        .unwrap()
        .update(|net| net.attach(vmm))
        .unwrap();
    let mut gate = SeqPacket::from_fd(gate, Rules::plain(MTU)).unwrap();
    let mut net =
        VirtIONet::<RamHal, _, 16>::new(BarTransport::find(&machine, slot), 2048).unwrap();

    let mut frame = [0; 60];
    frame[14..22].copy_from_slice(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    let header = NetHdr::partial_csum(14, 8).emit();
    let message = [Segment::from(&header[..]), Segment::from(&frame[..])];
    assert_eq!(gate.send_batch(&[&message]).unwrap(), 1);
    let received = until(|| net.receive().ok());
    // RFC 1071, section 3: these words sum to ddf2.
    assert_eq!(received.packet()[22..24], (!0xddf2_u16).to_be_bytes());
    worker.stop().unwrap();
}

#[test]
fn pci_identity_is_what_windows_drivers_look_for() {
    let mut machine = Machine::new();
    let (slot, _device) = machine.add(Net::new(Settings::new(MAC, MTU)));
    let _worker = machine.start();
    let transport = BarTransport::find(&machine, slot);
    assert_eq!(transport.config_u16(2), 0x1041);
    assert_eq!(transport.config_u8(8), 1);
    assert_eq!(transport.config_u8(0x3d), 0);
    let mut transport = transport;
    assert_eq!(transport.max_queue_size(0), 256);
    assert_eq!(transport.max_queue_size(3), 0);
}
