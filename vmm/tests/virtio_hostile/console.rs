//! The console's ports, and messages about ports that are not there.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use sekisho_vmm::virtio::console::{Backend, Console, PortSettings};

use crate::TURNS;
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{Driver, Ring, VERSION_1, WRITE, get, put};
use crate::virtio_fixture::transport::BarTransport;
use crate::virtio_fixture::{Machine, settle};

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
