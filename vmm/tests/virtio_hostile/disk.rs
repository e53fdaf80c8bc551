//! Attacks on the disk.

use sekisho_vmm::virtio::block::Block;

use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{Driver, VERSION_1, WRITE, put};
use crate::virtio_fixture::transport::BarTransport;
use crate::virtio_fixture::{Machine, turn_until};

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
