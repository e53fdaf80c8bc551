//! The graphics card: another's driver (`virtio-drivers`) draws by it and a seat's socket is told; requests
//! that break the rules are refused.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

mod virtio_fixture;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sekisho_seatlink::{Input, Link, Mode, Picture, Rect, Scanout, ScanoutId};
use sekisho_vmm::display::vram::Vram;
use sekisho_vmm::display::{Aperture, Display, vram_size};
use sekisho_vmm::pci::{PciDevice as _, Slot};
use sekisho_vmm::virtio::VirtioPci;
use sekisho_vmm::virtio::gpu::Gpu;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};
use virtio_drivers::device::gpu::VirtIOGpu;
use virtio_fixture::hal::RamHal;
use virtio_fixture::hal::take_pages;
use virtio_fixture::ring::{Driver, VERSION_1, WRITE, get, get_u32, put};
use virtio_fixture::transport::BarTransport;
use virtio_fixture::{Machine, PATIENCE, settle};

/// A guest that leaves the frame buffer alone.
struct Nowhere;

impl Aperture for Nowhere {
    fn place(&mut self, _address: Option<u64>) -> io::Result<()> {
        Ok(())
    }

    fn written(&mut self) -> io::Result<Vec<u64>> {
        Ok(Vec::new())
    }
}

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
/// The card's memory in these tests: a few pictures.
const MEMORY: u64 = 4 << 20;

struct Bench {
    machine: Machine,
    display: Arc<Mutex<Display>>,
    card: Arc<Mutex<VirtioPci<Gpu>>>,
    slot: Slot,
    seat: Link,
}

impl Bench {
    fn new() -> Self {
        let mode = Mode::new(WIDTH, HEIGHT).unwrap();
        let vram = Vram::new(vram_size(mode)).unwrap();
        let mut display = Display::new(mode, vram, Box::new(Nowhere)).unwrap();
        let surface = display.add_surface(MEMORY).unwrap();
        let (vmm, seat) = Link::pair().unwrap();
        display.attach(rustix::io::dup(&vmm).unwrap()).unwrap();
        let mut machine = Machine::new();
        let (_, display) = machine.insert(display);
        let (slot, card) = machine.add(Gpu::new(mode, surface));
        Self {
            machine,
            display,
            card,
            slot,
            seat,
        }
    }
}

/// The next word to the seat, which presents what it is told; with its file.
fn said(seat: &Link) -> (Picture, Option<File>) {
    let time = Timespec::try_from(PATIENCE).unwrap();
    let mut fds = [PollFd::new(seat, PollFlags::IN)];
    assert_ne!(poll(&mut fds, Some(&time)).unwrap(), 0, "nothing is said");
    let (picture, file) = seat.picture().unwrap().unwrap();
    if matches!(picture, Picture::Damage(..)) {
        seat.tell(Input::Presented(ScanoutId::FIRST)).unwrap();
    }
    (picture, file.map(File::from))
}

/// The next damage's file is the last picture's: this waits until the pixel is there.
fn pixel(file: &File, scanout: Scanout, x: u32, y: u32) -> [u8; 4] {
    let mut bytes = [0; 4];
    let at = scanout.offset() + y * scanout.stride() + x * 4;
    file.read_exact_at(&mut bytes, at.into()).unwrap();
    bytes
}

#[test]
fn a_peers_driver_draws_and_the_seat_is_told() {
    let bench = Bench::new();
    let worker = bench.machine.start().spawn(|| Ok(())).unwrap();
    let transport = BarTransport::find(&bench.machine, bench.slot);
    let mut driver = VirtIOGpu::<RamHal, _>::new(transport).unwrap();
    let id = ScanoutId::FIRST;
    assert_eq!(said(&bench.seat).0, Picture::Off(id));
    assert_eq!(driver.resolution().unwrap(), (WIDTH, HEIGHT));
    assert_eq!(driver.edid_preferred_resolution().unwrap(), (WIDTH, HEIGHT));

    let frame = driver.setup_framebuffer().unwrap();
    frame.fill(0x55);
    let (shown, file) = said(&bench.seat);
    let (Picture::Shown(_, scanout), Some(file)) = (shown, file) else {
        panic!("{shown:?}");
    };
    let mode = Mode::new(WIDTH, HEIGHT).unwrap();
    assert_eq!(scanout, Scanout::new(mode, WIDTH * 4, 0).unwrap());
    let whole = Picture::Damage(id, Rect::whole(mode));
    assert_eq!(said(&bench.seat).0, whole);
    // What was not flushed is not there.
    assert_eq!(pixel(&file, scanout, 0, 0), [0; 4]);
    driver.flush().unwrap();
    assert_eq!(said(&bench.seat).0, whole);
    assert_eq!(pixel(&file, scanout, 0, 0), [0x55; 4]);
    assert_eq!(pixel(&file, scanout, WIDTH - 1, HEIGHT - 1), [0x55; 4]);

    // The pointer, with its picture in a file of its own.
    let picture: Vec<u8> = (0..64 * 64 * 4_u32).map(|at| (at % 251) as u8).collect();
    driver.setup_cursor(&picture, 10, 20, 1, 2).unwrap();
    let (cursor, shape) = loop {
        match said(&bench.seat) {
            (Picture::Damage(..), _) => {}
            other => break other,
        }
    };
    assert_eq!(cursor, Picture::Cursor(id, (1, 2)));
    let mut kept = vec![0; picture.len()];
    shape.unwrap().read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(kept, picture);
    assert_eq!(said(&bench.seat).0, Picture::CursorAt(id, (10, 20)));
    driver.move_cursor(30, 40).unwrap();
    assert_eq!(said(&bench.seat).0, Picture::CursorAt(id, (30, 40)));

    // Another mode; then the driver goes, and with it the picture.
    driver.change_resolution(320, 200).unwrap();
    let mut shown = None;
    while shown.is_none() {
        if let (Picture::Shown(_, scanout), _) = said(&bench.seat)
            && scanout.mode().width() == 320
        {
            shown = Some(scanout);
        }
    }
    assert_eq!(bench.card.lock().unwrap().device().refused(), 0);
    drop(driver);
    bench.machine.bus.reset();
    while said(&bench.seat).0 != Picture::Off(id) {}
    assert!(bench.display.lock().unwrap().picture().is_none());
    worker.stop().unwrap();
}

/// A request by hand: words behind the command's number, after an empty header.
struct Hand {
    driver: Driver,
    ring: virtio_fixture::ring::Ring,
    worker: sekisho_vmm::worker::Worker,
    request: u64,
    answer: u64,
}

impl Hand {
    fn new(bench: &Bench) -> Self {
        let worker = bench.machine.start();
        let transport = BarTransport::find(&bench.machine, bench.slot);
        let mut driver = Driver::start(transport, VERSION_1);
        let ring = driver.ring(0, 16);
        driver.ring(1, 16);
        driver.go();
        Self {
            driver,
            ring,
            worker,
            request: take_pages(1),
            answer: take_pages(1),
        }
    }

    /// Says it, and gives the answer's first word.
    fn say(&mut self, kind: u32, words: &[u32]) -> u32 {
        // With a fence, which the answer repeats.
        let header = [kind, 1, 0x5e71_5e70, 7, 3, 0];
        let bytes: Vec<u8> = header
            .iter()
            .chain(words)
            .flat_map(|word| word.to_le_bytes())
            .collect();
        put(self.request, &bytes);
        let buffers = [
            (self.request, bytes.len() as u32, 0),
            (self.answer, 1056, WRITE),
        ];
        self.ring.offer(0, &buffers);
        self.driver.kick(&self.ring);
        settle(&mut self.worker, 100);
        assert!(!self.driver.needs_reset());
        assert!(self.ring.take_used().is_some(), "no answer");
        let fence = get(self.answer + 4, 16);
        let expected = [1_u32, 0x5e71_5e70, 7, 3].map(u32::to_le_bytes);
        assert_eq!(fence, expected.as_flattened());
        get_u32(self.answer)
    }
}

const DONE: u32 = 0x1100;
const CREATE: u32 = 0x101;
const UNREF: u32 = 0x102;
const SET_SCANOUT: u32 = 0x103;
const FLUSH: u32 = 0x104;
const TRANSFER: u32 = 0x105;
const ATTACH: u32 = 0x106;
const DETACH: u32 = 0x107;

/// Firmware's frame buffer is shown until the driver shows something; from then on the screen is the driver's,
/// also while it shows nothing, until it goes.
#[test]
fn the_screen_is_the_drivers_from_its_first_picture_until_it_goes() {
    let bench = Bench::new();
    let mut hand = Hand::new(&bench);
    let set = |index: u64, value: u16| {
        let mut display = bench.display.lock().unwrap();
        display.write_bar(2, 0x500 + 2 * index, &value.to_le_bytes());
    };
    for (index, value) in [(1, 800), (2, 600), (3, 32), (4, 0x41)] {
        set(index, value);
    }
    let width = || {
        let display = bench.display.lock().unwrap();
        display.picture().map(|(scanout, _)| scanout.mode().width())
    };
    assert_eq!(width(), Some(800));
    assert_eq!(hand.say(CREATE, &[1, 2, 100, 100]), DONE);
    assert_eq!(width(), Some(800));
    assert_eq!(hand.say(SET_SCANOUT, &[0, 0, 100, 100, 0, 1]), DONE);
    assert_eq!(width(), Some(100));
    assert_eq!(hand.say(SET_SCANOUT, &[0, 0, 0, 0, 0, 0]), DONE);
    assert_eq!(width(), None);
    hand.driver.transport.set_common(0x14, &[0]);
    assert_eq!(width(), Some(800));
    let mut told = Vec::new();
    for _ in 0..50 {
        let time = std::time::Duration::from_millis(20);
        hand.worker.turn(Some(time)).unwrap();
        while let Some((picture, _)) = bench.seat.picture().unwrap() {
            told.push(picture);
        }
    }
    let mode = Mode::new(800, 600).unwrap();
    let shown = Scanout::new(mode, 3200, 0).unwrap();
    assert!(
        told.contains(&Picture::Shown(ScanoutId::FIRST, shown)),
        "{told:?}"
    );
}

/// What breaks the rules is answered with the error that the specification has for it, and what is around
/// it works; memory is bounded whatever is asked.
#[test]
fn requests_that_break_the_rules_are_refused_and_memory_is_bounded() {
    let bench = Bench::new();
    let mut hand = Hand::new(&bench);
    let [unspecified, out_of_memory, no_scanout, no_resource, bad] =
        [0x1200, 0x1201, 0x1202, 0x1203, 0x1205];
    assert_eq!(hand.say(CREATE, &[1, 2, 100, 100]), DONE);
    for (kind, words, answer) in [
        (0x999, &[][..], unspecified),
        (0x108, &[0, 0], unspecified),
        (CREATE, &[2, 2, 100], bad),
        (CREATE, &[0, 2, 100, 100], no_resource),
        (CREATE, &[1, 2, 100, 100], no_resource),
        (CREATE, &[2, 67, 100, 100], bad),
        (CREATE, &[2, 2, 0, 100], bad),
        (CREATE, &[2, 2, u32::MAX, u32::MAX], bad),
        (CREATE, &[2, 2, 8192, 8192], out_of_memory),
        (UNREF, &[9, 0], no_resource),
        (SET_SCANOUT, &[0, 0, 100, 100, 1, 1], no_scanout),
        (SET_SCANOUT, &[0, 0, 100, 100, 0, 9], no_resource),
        (SET_SCANOUT, &[0, 0, 101, 100, 0, 1], bad),
        (SET_SCANOUT, &[u32::MAX, 0, 2, 1, 0, 1], bad),
        (SET_SCANOUT, &[0, 0, 0, 0, 0, 1], bad),
        (FLUSH, &[0, 0, 100, 101, 1, 0], bad),
        (FLUSH, &[1, u32::MAX, 1, 1, 1, 0], bad),
        (TRANSFER, &[0, 0, 100, 100, 0, 0, 1, 0], bad),
        (ATTACH, &[1, u32::MAX], out_of_memory),
        (ATTACH, &[1, 1], bad),
        (ATTACH, &[1, 1, 0, 0xffff_ffff, 4096, 0], bad),
        (ATTACH, &[9, 0], no_resource),
        (DETACH, &[9], no_resource),
        (0x10a, &[1], no_scanout),
    ] {
        assert_eq!(hand.say(kind, words), answer, "{kind:#x} {words:?}");
    }
    // A part of a picture is shown, and what of it was flushed is told, moved to where it is seen.
    let pixels = take_pages(10);
    put(pixels, &vec![0xaa; 40_000]);
    let place = (pixels as u32, (pixels >> 32) as u32);
    assert_eq!(hand.say(ATTACH, &[1, 1, place.0, place.1, 40_000, 0]), DONE);
    assert_eq!(hand.say(SET_SCANOUT, &[10, 20, 50, 60, 0, 1]), DONE);
    let mut heard = Vec::new();
    let mut hear = |hand: &mut Hand| {
        for _ in 0..20 {
            hand.worker
                .turn(Some(std::time::Duration::from_millis(20)))
                .unwrap();
            while let Some((picture, _)) = bench.seat.picture().unwrap() {
                heard.push(picture);
                if matches!(picture, Picture::Damage(..)) {
                    bench.seat.tell(Input::Presented(ScanoutId::FIRST)).unwrap();
                }
            }
        }
        std::mem::take(&mut heard)
    };
    let id = ScanoutId::FIRST;
    let shown = Scanout::new(Mode::new(50, 60).unwrap(), 400, (20 * 100 + 10) * 4).unwrap();
    let part = |x, y, width, height| {
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        Picture::Damage(id, rect)
    };
    let told = hear(&mut hand);
    assert_eq!(
        told[told.len() - 2..],
        [Picture::Shown(id, shown), part(0, 0, 50, 60)]
    );
    assert_eq!(hand.say(TRANSFER, &[0, 0, 30, 30, 0, 0, 1, 0]), DONE);
    assert_eq!(hand.say(FLUSH, &[0, 0, 30, 30, 1, 0]), DONE);
    assert_eq!(hear(&mut hand), [part(0, 0, 20, 10)]);
    // Outside what is seen: nothing.
    assert_eq!(hand.say(FLUSH, &[0, 0, 10, 100, 1, 0]), DONE);
    assert_eq!(hear(&mut hand), []);
    // The picture that is shown goes.
    assert_eq!(hand.say(UNREF, &[1, 0]), DONE);
    assert_eq!(hear(&mut hand), [Picture::Off(id)]);

    // As many pictures as there is memory for, however often it is tried.
    let mut made = 0;
    for id in 1..200 {
        match hand.say(CREATE, &[id, 1, 256, 256]) {
            DONE => made += 1,
            answer => assert_eq!(answer, out_of_memory),
        }
    }
    assert_eq!(made * 256 * 256 * 4, MEMORY);
    assert!(bench.card.lock().unwrap().device().refused() > 100);
}
