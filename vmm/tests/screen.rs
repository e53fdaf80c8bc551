//! The screen of whole machines: guests of a few instructions set a mode and draw, a seat is told, and
//! `sekisho-vmm screenshot` shows it. They run wherever `/dev/kvm` opens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use guest_fixture::code::{Code, PM1_STATUS, POWER_BUTTON};
use guest_fixture::{Watched, vmm, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use sekisho_control::{Command as Order, Port};
use sekisho_seatlink::{Input, Link, Mode, Picture, Rect, Scanout, ScanoutId};

/// Where a direct boot puts the screen's memory and registers: 16 MiB and 4 KiB, the only BARs of 32
/// bits of these machines.
const MEMORY: u32 = 0xc000_0000;
const REGISTERS: u32 = 0xc100_0000;
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const STRIDE: u32 = WIDTH * 4;
const PIXELS: u32 = WIDTH * HEIGHT;
const BLUE: u32 = 0x0020_40ff;
const LIMIT: Duration = Duration::from_secs(30);
/// After so long without a word the picture is still: longer than the slowest look.
const STILL: Duration = Duration::from_secs(1);
/// The function's place in ECAM: it is the first that is plugged in.
const CONFIG: u32 = 0xb000_8000;

fn set_mode() -> Code {
    let values: [(u32, u16); 4] = [(1, 640), (2, 480), (3, 32), (4, 0x41)];
    values.iter().fold(Code::default(), |code, (index, value)| {
        code.store16(REGISTERS + 0x500 + 2 * index, *value)
    })
}

/// Says so, and waits for the power button.
fn pause(code: Code, said: &str) -> Code {
    code.print(said)
        .wait_for(PM1_STATUS, POWER_BUTTON)
        .out16(PM1_STATUS, POWER_BUTTON)
}

fn wait_for_serial(guest: &Watched, text: &str) {
    let end = Instant::now() + LIMIT;
    while guest.bench.serial() != text.as_bytes() {
        assert!(Instant::now() < end, "{:?}", guest.bench.serial());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn press(guest: &Watched) {
    guest.supervisor.send(&Order::PowerButton, &[]).unwrap();
}

fn screenshot(socket: &Path, file: &Path) -> Output {
    let mut command = vmm();
    command
        .arg("screenshot")
        .arg("--socket")
        .args([socket, file]);
    command.output().unwrap()
}

/// Width, height, and red, green and blue of each pixel.
fn decode(file: &Path) -> (u32, u32, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(File::open(file).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, pixels)
}

/// A screen shows what the guest has drawn, black before it draws, and nothing before it sets a mode.
#[test]
fn a_screenshot_shows_what_the_guest_has_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (view, file) = (folder.path().join("view"), folder.path().join("screen.png"));
    let code = pause(Code::default(), "1").raw(&set_mode().0);
    let code = pause(code, "2")
        .fill32(MEMORY, PIXELS, BLUE)
        .store32(MEMORY + 3 * STRIDE + 8, 0x00ff_8000);
    let code = pause(code, "3").switch_off();
    let option = format!("mode=640x480,view={}", view.display());
    let Some(guest) = Watched::start(&code, &["--display", &option]) else {
        return;
    };
    assert_eq!(view.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    wait_for_serial(&guest, "1");
    let output = screenshot(&view, &file);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("screen shows nothing"), "{text}");
    assert!(!file.exists());

    press(&guest);
    wait_for_serial(&guest, "12");
    assert!(screenshot(&view, &file).status.success());
    let (width, height, pixels) = decode(&file);
    assert_eq!((width, height), (WIDTH, HEIGHT));
    assert!(pixels.iter().all(|byte| *byte == 0));

    press(&guest);
    wait_for_serial(&guest, "123");
    let output = screenshot(&view, &file);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "640x480\n");
    let (.., pixels) = decode(&file);
    let dot = usize::try_from(3 * WIDTH + 2).unwrap();
    for (index, pixel) in pixels.chunks_exact(3).enumerate() {
        let drawn = if index == dot {
            [0xff, 0x80, 0x00]
        } else {
            [0x20, 0x40, 0xff]
        };
        assert_eq!(pixel, drawn, "pixel {index}");
    }
    press(&guest);
    guest.assert_shut_down();
    wait(guest.child);
}

/// A seat's end.
struct Seat {
    link: Link,
    shown: Option<(Scanout, File)>,
}

impl Seat {
    fn new(link: Link) -> Self {
        Self { link, shown: None }
    }

    /// The next word, if it comes in time; a picture is kept.
    fn next(&mut self, time: Duration) -> Option<Picture> {
        let time = Timespec::try_from(time).unwrap();
        let mut fds = [PollFd::new(&self.link, PollFlags::IN)];
        if poll(&mut fds, Some(&time)).unwrap() == 0 {
            return None;
        }
        let (picture, file) = self.link.picture().unwrap()?;
        if let (Picture::Shown(_, scanout), Some(file)) = (picture, file) {
            self.shown = Some((scanout, file.into()));
        }
        Some(picture)
    }

    fn presented(&self) {
        self.link.tell(Input::Presented(ScanoutId::FIRST)).unwrap();
    }

    /// Presents until nothing changes any more.
    fn settle(&mut self) {
        while let Some(picture) = self.next(STILL) {
            if matches!(picture, Picture::Damage(..)) {
                self.presented();
            }
        }
    }

    /// The pixel of the memory that the seat was handed.
    fn pixel(&self, x: u32, y: u32) -> u32 {
        let (scanout, file) = self.shown.as_ref().unwrap();
        let place = scanout.offset() + y * scanout.stride() + x * 4;
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, place.into()).unwrap();
        u32::from_le_bytes(bytes)
    }
}

/// A duplicate that a child inherits; other tests' children may, too, which is no harm.
fn inheritable(link: &Link) -> OwnedFd {
    let copy = rustix::io::dup(link).unwrap();
    rustix::io::fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    copy
}

/// The guest draws a pixel, and the seat is told of the page that it lies on, found by KVM's log; the
/// seat dies, the guest draws on, and a fresh seat is told everything.
#[test]
fn a_seat_is_told_what_changes_and_a_fresh_one_everything() {
    let code = pause(set_mode().fill32(MEMORY, PIXELS, BLUE), "1");
    let code = code.store32(MEMORY + 100 * STRIDE + 40 * 4, 0x0012_3456);
    let code = pause(code, "2").store32(MEMORY, 0x0065_4321);
    let code = pause(code, "3").switch_off();
    let (ours, theirs) = Link::pair().unwrap();
    let inherited = inheritable(&theirs);
    let option = format!("mode=640x480,seat=fd:{}", inherited.as_raw_fd());
    let Some(guest) = Watched::start(&code, &["--display", &option]) else {
        return;
    };
    drop((theirs, inherited));
    wait_for_serial(&guest, "1");
    let mut seat = Seat::new(ours);
    seat.settle();
    let mode = Mode::new(WIDTH, HEIGHT).unwrap();
    let (scanout, _) = seat.shown.as_ref().unwrap();
    assert_eq!(*scanout, Scanout::new(mode, STRIDE, 0).unwrap());
    assert_eq!((seat.pixel(0, 0), seat.pixel(639, 479)), (BLUE, BLUE));

    press(&guest);
    let Some(Picture::Damage(_, part)) = seat.next(LIMIT) else {
        panic!("no damage");
    };
    println!("one pixel drawn, told: {part:?}");
    let dot = Rect {
        x: 40,
        y: 100,
        width: 1,
        height: 1,
    };
    assert_eq!(part.union(dot), part);
    assert!(part.height <= 3, "a page is no more than two lines");
    assert_eq!(seat.pixel(40, 100), 0x0012_3456);
    // It has not presented it: nothing more is told.
    wait_for_serial(&guest, "12");
    press(&guest);
    wait_for_serial(&guest, "123");
    assert_eq!(seat.next(STILL), None);
    drop(seat);

    let (ours, theirs) = Link::pair().unwrap();
    let attach = Order::Attach { port: Port::Seat };
    guest.supervisor.send(&attach, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let mut seat = Seat::new(ours);
    assert!(matches!(seat.next(LIMIT), Some(Picture::Shown(..))));
    let whole = Picture::Damage(ScanoutId::FIRST, Rect::whole(mode));
    assert_eq!(seat.next(LIMIT), Some(whole));
    assert_eq!(seat.pixel(0, 0), 0x0065_4321);
    press(&guest);
    guest.assert_shut_down();
    wait(guest.child);
}

/// The memory follows its BAR, as firmware and kernels move it; where the function does not decode, and
/// where the BAR was before, there is nothing.
#[test]
fn the_memory_follows_its_bar() {
    const AWAY: u32 = 0xd000_0000;
    let folder = tempfile::tempdir().unwrap();
    let (view, file) = (folder.path().join("view"), folder.path().join("screen.png"));
    let code = set_mode()
        .store32(MEMORY, u32::from_le_bytes(*b"one "))
        .echo_memory(MEMORY)
        // Does not decode.
        .store32(CONFIG + 4, 0)
        .store32(MEMORY, 0)
        .echo_memory(MEMORY)
        .store32(CONFIG + 0x10, AWAY)
        .store32(CONFIG + 4, 2)
        .echo_memory(MEMORY)
        .echo_memory(AWAY)
        .store32(AWAY + 4, BLUE)
        // Over RAM, where it is not let.
        .store32(CONFIG + 0x10, 0x0100_0000)
        .store32(0x0100_0000, u32::from_le_bytes(*b"ram "))
        .echo_memory(0x0100_0000)
        .store32(CONFIG + 0x10, MEMORY)
        .echo_memory(MEMORY);
    let code = pause(code, "!").switch_off();
    let option = format!("mode=640x480,view={}", view.display());
    let Some(guest) = Watched::start(&code, &["--display", &option]) else {
        return;
    };
    let end = Instant::now() + LIMIT;
    while !guest.bench.serial().ends_with(b"!") {
        assert!(Instant::now() < end, "{:?}", guest.bench.serial());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(guest.bench.serial(), b"o\xff\xfforo!");
    assert!(screenshot(&view, &file).status.success());
    let (.., pixels) = decode(&file);
    assert_eq!(pixels[..6], [b'e', b'n', b'o', 0x20, 0x40, 0xff]);
    press(&guest);
    guest.assert_shut_down();
    wait(guest.child);
}

#[test]
fn where_nobody_listens_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = screenshot(&folder.path().join("none"), &folder.path().join("file"));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cannot be asked"), "{text}");
}
