//! Which device of the guest gets what the person does: the PS/2 controller behind its ports, and the
//! tablet behind somebody else's driver.

#![allow(clippy::unwrap_used, reason = "tests, where a surprise ends the test")]

mod virtio_fixture;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use sekisho_seatlink::{AXIS_MAX, Input, Mode, ScanoutId};
use sekisho_vmm::board::power::Power;
use sekisho_vmm::bus::BusDevice as _;
use sekisho_vmm::chipset::ps2::{Ps2Controller, Ps2Port};
use sekisho_vmm::display::InputSink as _;
use sekisho_vmm::input::InputDevices;
use sekisho_vmm::irq::Line;
use sekisho_vmm::virtio::input::Tablet;
use sekisho_vmm::worker::Handle;
use virtio_drivers::device::input::VirtIOInput;
use virtio_fixture::hal::RamHal;
use virtio_fixture::transport::BarTransport;
use virtio_fixture::{Machine, PATIENCE};

const KEY_A: u16 = 30;
const BTN_LEFT: u16 = 0x110;
/// What the keyboard and the tablet say of them.
const A_DOWN: u8 = 0x1e;
const A_UP: u8 = 0x9e;
const TABLET_LEFT_DOWN: (u16, u16, u32) = (1, BTN_LEFT, 1);
const TABLET_LEFT_UP: (u16, u16, u32) = (1, BTN_LEFT, 0);

struct Unconnected;

impl Line for Unconnected {
    fn set(&self, _high: bool) {}
}

/// A guest whose keyboard and mouse are on.
struct Guest {
    devices: InputDevices,
    data: Ps2Port,
    command: Ps2Port,
    /// The way to the tablet, until its driver has it.
    tablet: Option<BarTransport>,
    /// The same function, for a driver that goes wrong.
    beside: BarTransport,
    _worker: Handle,
}

fn guest() -> Guest {
    let mut machine = Machine::new();
    let (slot, tablet) = machine.add(Tablet::new());
    let worker = machine.start().spawn(|| Ok(())).unwrap();
    let power = Arc::new(Power::new().unwrap());
    let controller = Ps2Controller::new(Box::new(Unconnected), Box::new(Unconnected), power);
    let controller = Arc::new(Mutex::new(controller));
    let (mut data, mut command) = Ps2Port::pair(&controller);
    command.write(0, &[0xae]);
    command.write(0, &[0xd4]);
    data.write(0, &[0xf4]);
    let mut guest = Guest {
        devices: InputDevices::new(Some(controller), tablet),
        data,
        command,
        tablet: Some(BarTransport::find(&machine, slot)),
        beside: BarTransport::find(&machine, slot),
        _worker: worker,
    };
    assert_eq!(guest.ps2(), [0xfa]);
    guest
}

impl Guest {
    /// All that keyboard and mouse have to say.
    fn ps2(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let (mut status, mut byte) = ([0], [0]);
            self.command.read(0, &mut status);
            if status[0] & 1 == 0 {
                return bytes;
            }
            self.data.read(0, &mut byte);
            bytes.extend(byte);
        }
    }

    /// Other people's driver takes the tablet.
    fn drive(&mut self) -> Driver {
        Driver::new(self.tablet.take().unwrap()).unwrap()
    }

    fn key(&mut self, code: u16, down: bool) {
        self.devices.input(Input::Key { code, down });
    }

    fn at(&mut self, x: u16, y: u16) {
        let scanout = ScanoutId::FIRST;
        self.devices.input(Input::At { scanout, x, y });
    }
}

/// Movement right and down that packets of three bytes tell, and the buttons of the last.
fn way(packets: &[u8]) -> (i32, i32, u8) {
    let signed = |byte: u8, negative: bool| i32::from(byte) - if negative { 256 } else { 0 };
    packets
        .chunks_exact(3)
        .fold((0, 0, 0), |(x, y, _), packet| {
            let dx = signed(packet[1], packet[0] & 0x10 != 0);
            let dy = signed(packet[2], packet[0] & 0x20 != 0);
            (x + dx, y - dy, packet[0] & 7)
        })
}

type Driver = VirtIOInput<RamHal, BarTransport>;

fn next(driver: &mut Driver) -> (u16, u16, u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = driver.pop_pending_event() {
            return (event.event_type, event.code, event.value);
        }
        assert!(Instant::now() < deadline, "nothing came");
        std::thread::yield_now();
    }
}

/// The events up to the end of a report.
fn report(driver: &mut Driver) -> Vec<(u16, u16, u32)> {
    let mut events = Vec::new();
    loop {
        match next(driver) {
            (0, 0, 0) => return events,
            event => events.push(event),
        }
    }
}

#[test]
fn the_mouse_plays_the_tablet_until_its_driver_is_there_and_when_it_fails() {
    let mut guest = guest();
    let mode = Mode::new(800, 600).unwrap();
    guest.devices.input(Input::Size(ScanoutId::FIRST, mode));
    guest.at(0, 0);
    // The way may be longer than one packet holds; a step at a time adds up to the same.
    for step in 1..=7 {
        guest.at(AXIS_MAX / 7 * step, 0);
    }
    guest.at(AXIS_MAX, AXIS_MAX);
    guest.key(BTN_LEFT, true);
    assert_eq!(way(&guest.ps2()), (800, 600, 1));
    guest.key(BTN_LEFT, false);
    assert_eq!(way(&guest.ps2()), (0, 0, 0));

    let mut driver = guest.drive();
    guest.at(1, 2);
    assert_eq!(report(&mut driver), [(3, 0, 1), (3, 1, 2)]);
    assert!(guest.ps2().is_empty());

    // FAILED, beside what it was.
    guest
        .beside
        .set_common(0x14, &[guest.beside.status() | 0x80]);
    guest.at(0, 0);
    guest.at(AXIS_MAX / 8, 0);
    assert_eq!(way(&guest.ps2()), (99, 0, 0));
}

#[test]
fn keys_are_the_keyboards_and_buttons_the_pointers_that_moved_last() {
    let mut guest = guest();
    let mut driver = guest.drive();
    guest.key(KEY_A, true);
    guest.key(KEY_A, false);
    assert_eq!(guest.ps2(), [A_DOWN, A_UP]);

    guest.at(1, 0);
    guest.key(BTN_LEFT, true);
    assert_eq!(report(&mut driver), [(3, 0, 1)]);
    assert_eq!(report(&mut driver), [TABLET_LEFT_DOWN]);
    // It is let go where it was pressed, and its own release goes to nobody.
    guest.devices.input(Input::Moved { dx: 3, dy: 0 });
    assert_eq!(report(&mut driver), [TABLET_LEFT_UP]);
    guest.key(BTN_LEFT, false);
    assert_eq!(way(&guest.ps2()), (3, 0, 0));

    guest.key(BTN_LEFT, true);
    assert_eq!(way(&guest.ps2()), (0, 0, 1));
    guest.at(2, 0);
    assert_eq!(way(&guest.ps2()), (0, 0, 0));
    assert_eq!(report(&mut driver), [(3, 0, 2)]);
    guest.devices.input(Input::Wheel { clicks: -2 });
    assert_eq!(report(&mut driver), [(2, 8, (-2_i32).cast_unsigned())]);
}

#[test]
fn nothing_stays_held_when_the_person_looks_elsewhere() {
    let mut guest = guest();
    let mut driver = guest.drive();
    guest.key(KEY_A, true);
    guest.at(1, 0);
    guest.key(BTN_LEFT, true);
    for wanted in [(3, 0, 1), TABLET_LEFT_DOWN] {
        assert_eq!(report(&mut driver), [wanted]);
    }
    guest.devices.input(Input::AllUp);
    assert_eq!(report(&mut driver), [TABLET_LEFT_UP]);
    assert_eq!(guest.ps2(), [A_DOWN, A_UP]);
}
