//! The screen on a bus without a VM: a driver's accesses on one side, a seat's socket on the other, the
//! real event loop between them.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

mod virtio_fixture;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sekisho_seatlink::{Input, Link, Mode, Picture, Rect, Scanout, ScanoutId};
use sekisho_vmm::display::vram::Vram;
use sekisho_vmm::display::{Aperture, Display, InputSink, vram_size};
use sekisho_vmm::pci::Slot;
use sekisho_vmm::worker::Worker;
use virtio_fixture::{ECAM, Machine, mmio_read, turn_until};

/// What the board is asked.
#[derive(Default)]
struct Asked {
    /// Where the memory was put.
    places: Vec<Option<u64>>,
    /// The pages that the guest "wrote".
    written: Vec<u64>,
    /// How often it was asked for them.
    looks: usize,
}

#[derive(Clone, Default)]
struct Board(Arc<Mutex<Asked>>);

impl Board {
    fn write(&self, pages: u64) {
        self.0.lock().unwrap().written = vec![pages];
    }

    fn looks(&self) -> usize {
        self.0.lock().unwrap().looks
    }
}

impl Aperture for Board {
    fn place(&mut self, address: Option<u64>) -> io::Result<()> {
        self.0.lock().unwrap().places.push(address);
        Ok(())
    }

    fn written(&mut self) -> io::Result<Vec<u64>> {
        let mut board = self.0.lock().unwrap();
        board.looks += 1;
        Ok(std::mem::take(&mut board.written))
    }
}

/// Keeps what came.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Vec<Input>>>);

impl InputSink for Desk {
    fn input(&mut self, input: Input) {
        self.0.lock().unwrap().push(input);
    }
}

struct Bench {
    machine: Machine,
    worker: Worker,
    display: Arc<Mutex<Display>>,
    board: Board,
    desk: Desk,
    slot: Slot,
}

const MEMORY: u64 = 0xc000_0000;
const REGISTERS: u64 = 0xc100_0000;

impl Bench {
    fn new() -> Self {
        let (board, desk) = (Board::default(), Desk::default());
        let mode = Mode::FULL_HD;
        let vram = Vram::new(vram_size(mode)).unwrap();
        let mut display = Display::new(mode, vram, Box::new(board.clone())).unwrap();
        display.set_sink(Box::new(desk.clone()));
        let mut machine = Machine::new();
        let (slot, display) = machine.insert(display);
        let worker = machine.start();
        Self {
            machine,
            worker,
            display,
            board,
            desk,
            slot,
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        assert!(self.machine.bus.mmio_write(address, data), "nobody there");
    }

    fn config(&self, register: u64) -> u64 {
        ECAM + (u64::from(self.slot.devfn()) << 12) + register
    }

    fn set_mode(&self, width: u16, height: u16) {
        for (index, value) in [(4, 0), (1, width), (2, height), (3, 32), (4, 0x41)] {
            self.write(REGISTERS + 0x500 + 2 * index, &value.to_le_bytes());
        }
    }

    fn attach(&self) -> Link {
        let (vmm, seat) = Link::pair().unwrap();
        let socket: OwnedFd = rustix::io::dup(&vmm).unwrap();
        self.display.lock().unwrap().attach(socket).unwrap();
        seat
    }

    /// The next word to the seat.
    fn said(&mut self, seat: &Link) -> Picture {
        let mut said = None;
        turn_until(&mut self.worker, || {
            said = seat.picture().unwrap();
            said.is_some()
        });
        said.unwrap().0
    }

    /// Turns the loop for so long; how often it woke, and what the seat heard.
    fn rest(&mut self, seat: &Link, time: Duration) -> (usize, Vec<Picture>) {
        let end = Instant::now() + time;
        let mut wakes = 0;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.worker.turn(Some(left)).unwrap();
            wakes += 1;
        }
        let said = std::iter::from_fn(|| seat.picture().unwrap());
        (wakes, said.map(|(picture, _)| picture).collect())
    }
}

fn shown(width: u32, height: u32) -> Picture {
    let mode = Mode::new(width, height).unwrap();
    Picture::Shown(ScanoutId::FIRST, Scanout::new(mode, width * 4, 0).unwrap())
}

fn whole(width: u32, height: u32) -> Picture {
    let mode = Mode::new(width, height).unwrap();
    Picture::Damage(ScanoutId::FIRST, Rect::whole(mode))
}

const PRESENTED: Input = Input::Presented(ScanoutId::FIRST);

#[test]
fn stock_drivers_find_their_device() {
    let bench = Bench::new();
    let read = |register| {
        let dword = mmio_read(&bench.machine.bus, bench.config(register));
        u32::from_le_bytes(dword)
    };
    assert_eq!(read(0), 0x1111_1234);
    assert_eq!(read(8), 0x0380_0002);
    assert_eq!(read(0x2c), 0x1100_1af4);
    assert_eq!(read(0x10), 0xc000_0008, "memory, 32 bits, prefetchable");
    assert_eq!(read(0x18), 0xc100_0000);
    bench.write(bench.config(0x10), &[0xff; 4]);
    assert_eq!(read(0x10), 0xff00_0008, "16 MiB");
    // EDID, DISPI, and what is QEMU's own.
    let at = |offset| mmio_read::<2>(&bench.machine.bus, REGISTERS + offset);
    assert_eq!(at(0), [0, 0xff]);
    assert_eq!(at(0x500), [0xc5, 0xb0]);
    assert_eq!(at(0x604), [0x1e, 0x1e]);
}

#[test]
fn the_board_is_told_where_the_memory_is() {
    let bench = Bench::new();
    let places = || std::mem::take(&mut bench.board.0.lock().unwrap().places);
    assert_eq!(places().last(), Some(&Some(MEMORY)));
    bench.write(bench.config(4), &[0, 0]);
    assert_eq!(places(), [None]);
    // A size probe while it decodes, and the place after it.
    bench.write(bench.config(4), &[2, 0]);
    bench.write(bench.config(0x10), &[0xff; 4]);
    bench.write(bench.config(0x10), &0xd000_0000_u32.to_le_bytes());
    assert_eq!(places(), [Some(MEMORY), None, Some(0xd000_0000)]);
    // What the board does not let the guest reach by itself reaches the same memory.
    bench.write(0xd000_0040, &[1, 2, 3, 4]);
    assert_eq!(mmio_read(&bench.machine.bus, 0xd000_0042), [3_u8, 4]);
    bench.machine.bus.reset();
    assert_eq!(places(), [None]);
}

#[test]
fn a_seat_is_told_modes_and_changes_at_its_own_pace() {
    let mut bench = Bench::new();
    let seat = bench.attach();
    assert_eq!(bench.said(&seat), Picture::Off(ScanoutId::FIRST));
    bench.set_mode(640, 480);
    assert_eq!(bench.said(&seat), shown(640, 480));
    assert_eq!(bench.said(&seat), whole(640, 480));
    // It does not ask for more, and nothing is told or done.
    bench.write(MEMORY, &[1, 2, 3, 4]);
    bench.set_mode(800, 600);
    let looks = bench.board.looks();
    let (wakes, said) = bench.rest(&seat, Duration::from_millis(500));
    assert_eq!(said, []);
    assert!(
        wakes <= 3,
        "{wakes} wake-ups for a seat that does not answer"
    );
    assert_eq!(bench.board.looks(), looks);
    seat.tell(PRESENTED).unwrap();
    assert_eq!(bench.said(&seat), shown(800, 600));
    assert_eq!(bench.said(&seat), whole(800, 600));
    seat.tell(PRESENTED).unwrap();
    // A page that the guest wrote by itself: 4096 bytes are one line and a bit.
    bench.board.write(1 << 2);
    let part = Rect {
        x: 0,
        y: 2,
        width: 800,
        height: 2,
    };
    assert_eq!(bench.said(&seat), Picture::Damage(ScanoutId::FIRST, part));
    // A mode that leaves the memory is none.
    seat.tell(PRESENTED).unwrap();
    bench.set_mode(4096, 4096);
    assert_eq!(bench.said(&seat), Picture::Off(ScanoutId::FIRST));
}

/// Beside a still picture the loop wakes five times a second, and not at all where there is no seat or no
/// picture. Control: while the picture moves it wakes often.
#[test]
fn a_still_desktop_costs_five_wake_ups_a_second() {
    let mut bench = Bench::new();
    let seat = bench.attach();
    bench.set_mode(640, 480);
    bench.said(&seat);
    while !matches!(bench.said(&seat), Picture::Damage(..)) {}
    seat.tell(PRESENTED).unwrap();
    bench.rest(&seat, Duration::from_secs(1));
    let (wakes, said) = bench.rest(&seat, Duration::from_secs(2));
    println!("a still picture for two seconds: {wakes} wake-ups");
    assert_eq!(said, []);
    // One is the end of the time.
    assert!((8..=12).contains(&wakes), "{wakes}");

    let mut frames = 0;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        bench.board.write(1);
        bench.worker.turn(Some(Duration::from_millis(300))).unwrap();
        if seat.picture().unwrap().is_some() {
            frames += 1;
            seat.tell(PRESENTED).unwrap();
        }
    }
    println!("a moving picture for one second: {frames} frames");
    assert!((10..=61).contains(&frames), "{frames}");

    drop(seat);
    bench.worker.turn(Some(Duration::ZERO)).unwrap();
    let seat = bench.attach();
    bench.set_mode(0, 0);
    bench.rest(&seat, Duration::from_millis(300));
    let (wakes, _) = bench.rest(&seat, Duration::from_secs(1));
    assert!(wakes <= 2, "{wakes} wake-ups where nothing is shown");
}

#[test]
fn keys_reach_the_sink_and_a_lost_seat_lets_go_of_them() {
    let mut bench = Bench::new();
    let seat = bench.attach();
    let key = Input::Key {
        code: 30,
        down: true,
    };
    seat.tell(key).unwrap();
    seat.tell(PRESENTED).unwrap();
    let heard = bench.desk.0.clone();
    let heard = || heard.lock().unwrap().clone();
    turn_until(&mut bench.worker, || !heard().is_empty());
    assert_eq!(heard(), [key]);
    drop(seat);
    turn_until(&mut bench.worker, || heard().len() > 1);
    assert_eq!(heard(), [key, Input::AllUp]);
    // So does one that breaks the rules, and one that is replaced.
    let seat = bench.attach();
    rustix::net::send(&seat, &[7; 5], rustix::net::SendFlags::empty()).unwrap();
    turn_until(&mut bench.worker, || heard().len() > 2);
    let first = bench.attach();
    let second = bench.attach();
    assert_eq!(heard(), [key, Input::AllUp, Input::AllUp, Input::AllUp]);
    // The guest never noticed, and the new seat is told everything.
    bench.set_mode(640, 480);
    assert_eq!(bench.said(&second), shown(640, 480));
    assert_eq!(bench.said(&second), whole(640, 480));
    assert!(first.picture().is_err());
}
