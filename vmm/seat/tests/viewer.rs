//! The real process, closed in, between a VMM that the test plays and real viewers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use sekisho_seat::font::Font;
use sekisho_seat::serve::minute;
use sekisho_seat::watermark::{Bearer, Style, Watermark};
use sekisho_seatlink::{Input, Link, LinkError, Mode, Picture, Rect, Scanout, ScanoutId};
use tempfile::TempDir;

const FONT: &str = "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf";
/// Nobody's user.
const USER: &str = "64059";
const SIDES: (u32, u32) = (640, 400);
/// A machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

struct Seat {
    process: Child,
    folder: TempDir,
}

impl Seat {
    fn start(vnc: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vnc = vnc.replace("FOLDER", folder.path().to_str().unwrap());
        let process = Command::new(env!("CARGO_BIN_EXE_sekisho-seat"))
            .arg("--link")
            .arg(folder.path().join("link"))
            .args(["--vnc", &vnc, "--font", FONT, "--user", USER])
            .args(["--user-name", "山田 花子", "--device-name", "PC-0042"])
            .args(["--watermark-text", "{user} {device} {datetime} 見本市"])
            .args(["--spacing-px", "60"])
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn vmm(&self) -> Vmm {
        let place = rustix::net::SocketAddrUnix::new(self.path("link")).unwrap();
        let link = until("the seat's socket", || {
            let flags = SocketFlags::CLOEXEC;
            let socket =
                socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            rustix::net::connect(&socket, &place).ok()?;
            Some(Link::new(socket).unwrap())
        });
        let vmm = Vmm(link);
        assert_eq!(vmm.hear(), Input::AllUp);
        vmm
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Vmm(Link);

impl Vmm {
    fn show(&self, pixels: &[u32], (width, height): (u32, u32)) {
        let lies = Scanout::new(Mode::new(width, height).unwrap(), width * 4, 0).unwrap();
        let file = sealed(pixels);
        let picture = Picture::Shown(ScanoutId::FIRST, lies);
        assert!(self.0.show(picture, Some(file.as_fd())).unwrap());
        let part = Rect::whole(lies.mode());
        let damage = Picture::Damage(ScanoutId::FIRST, part);
        assert!(self.0.show(damage, None).unwrap());
        assert_eq!(self.hear(), Input::Presented(ScanoutId::FIRST));
    }

    fn hear(&self) -> Input {
        until("a word from the seat", || self.0.input().unwrap())
    }

    fn is_alone(&self) {
        until("the end of the link", || {
            matches!(self.0.input(), Err(LinkError::Closed)).then_some(())
        });
    }
}

fn sealed(pixels: &[u32]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("picture", flags).unwrap();
    let bytes: Vec<u8> = pixels
        .iter()
        .flat_map(|pixel| pixel.to_le_bytes())
        .collect();
    rustix::io::pwrite(&file, &bytes, 0).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
    file
}

fn until<T>(what: &str, mut try_it: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = try_it() {
            return done;
        }
        assert!(Instant::now() < end, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A desktop of a kind: shades, stripes, and many colours, so that every encoding is met.
fn desktop() -> Vec<u32> {
    let (width, height) = SIDES;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    places
        .map(|(x, y)| match (x / 160, y / 200) {
            (0, 0) => 0xff_ffff,
            (1, 0) => 0,
            (2, 0) => x * 255 / 640 * 0x01_0101,
            (3, 0) => {
                if (x / 3 + y / 5) % 2 == 0 {
                    0xc0_2040
                } else {
                    0x20_c080
                }
            }
            _ => (x * 0x01_0307) ^ (y * 0x03_0501) & 0xff_ffff,
        })
        .map(|pixel| pixel & 0xff_ffff)
        .collect()
}

fn marked(below: &[u32]) -> Vec<u32> {
    let style = Style {
        text: "{user} {device} {datetime} 見本市".parse().unwrap(),
        opacity_percent: 6,
        angle_degrees: -30,
        spacing_px: 60,
        size_px: 20,
    };
    let bearer = Bearer {
        user: "山田 花子".to_owned(),
        device: "PC-0042".to_owned(),
    };
    let font = Font::open(Path::new(FONT)).unwrap();
    let marks = Watermark::new(font, style, bearer)
        .and_then(|watermark| watermark.marks(&minute(&TimeZone::system())))
        .unwrap();
    let screen = Mode::new(SIDES.0, SIDES.1).unwrap();
    let mut pixels = below.to_vec();
    marks.blend(screen, Rect::whole(screen), &mut pixels);
    pixels
}

/// The pixels of a BMP file as gdk-pixbuf writes them: 24 bits, from the lowest line on.
fn bitmap(path: &Path) -> ((u32, u32), Vec<u32>) {
    let bytes = std::fs::read(path).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((&bytes[..2], bytes[28]), (&b"BM"[..], 24));
    let (start, width, height) = (number(10) as usize, number(18), number(22));
    let line = (width as usize * 3).next_multiple_of(4);
    let lines = (0..height as usize)
        .rev()
        .map(|y| &bytes[start + y * line..]);
    let pixels = lines.flat_map(|line| line[..width as usize * 3].chunks_exact(3));
    let pixels = pixels.map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]));
    ((width, height), pixels.collect())
}

/// A display number whose port is free, and that no other test here has.
fn free_display() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10);
    let mut displays = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    let free = displays.find(|display| TcpListener::bind(("127.0.0.1", 5900 + display)).is_ok());
    free.unwrap()
}

fn capture(display: u16, to: &Path) -> ((u32, u32), Vec<u32>) {
    let captured = Command::new("gvnccapture")
        .args(["--quiet", &format!("127.0.0.1:{display}")])
        .arg(to)
        .status()
        .unwrap();
    assert!(captured.success());
    bitmap(to)
}

/// gtk-vnc's own capture, of a process that is closed in: what it gets is what the guest drew, with
/// the watermark of this minute over it.
#[test]
fn a_real_viewer_sees_the_guests_picture_with_the_watermark() {
    let display = free_display();
    let seat = Seat::start(&format!("tcp:127.0.0.1:{}", 5900 + display));
    let vmm = seat.vmm();
    let guest = desktop();
    vmm.show(&guest, SIDES);
    let mut right = false;
    // The minute may end between the two looks at the clock.
    for _ in 0..2 {
        let (sides, seen) = capture(display, &seat.path("seen.bmp"));
        assert_eq!(sides, SIDES);
        let differs = seen
            .iter()
            .zip(&guest)
            .filter(|(seen, drawn)| seen != drawn);
        assert!(differs.count() > 10_000);
        right |= seen == marked(&guest);
        if right {
            break;
        }
    }
    assert!(
        right,
        "what the viewer saw is not the picture with the watermark"
    );
}

/// The VMM goes: the screen is blank but for a notice, and another VMM may come.
#[test]
fn a_lost_vmm_leaves_a_notice_and_another_may_come() {
    let display = free_display();
    let seat = Seat::start(&format!("tcp:127.0.0.1:{}", 5900 + display));
    let white = vec![0xff_ffff; desktop().len()];
    let vmm = seat.vmm();
    vmm.show(&white, SIDES);
    drop(vmm);
    let bright = |seen: &[u32]| seen.iter().filter(|pixel| **pixel & 0xff > 0xc0).count();
    until("the notice", || {
        let (_, seen) = capture(display, &seat.path("seen.bmp"));
        (bright(&seen) < seen.len() / 10).then_some(())
    });
    // Words that are none end the link, and no more than that.
    let hostile = seat.vmm();
    let lies = Scanout::new(Mode::new(64, 64).unwrap(), 256, 0).unwrap();
    let short = sealed(&[0; 16]);
    let picture = Picture::Shown(ScanoutId::FIRST, lies);
    hostile.0.show(picture, Some(short.as_fd())).unwrap();
    hostile.is_alone();
    let vmm = seat.vmm();
    vmm.show(&white, SIDES);
    let (_, seen) = capture(display, &seat.path("seen.bmp"));
    assert!(bright(&seen) > seen.len() * 9 / 10);
}

/// gtk-vnc's library types over the Unix socket, and goes with a key down.
#[test]
fn a_real_viewer_types_and_points() {
    let seat = Seat::start("unix:FOLDER/vnc");
    let vmm = seat.vmm();
    vmm.show(&desktop(), SIDES);
    let file_type = std::fs::metadata(seat.path("vnc")).unwrap().file_type();
    assert!(file_type.is_socket());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/viewer/type.py");
    let mut viewer = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(seat.path("vnc"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = BufReader::new(viewer.stdout.take().unwrap());
    let mut word = String::new();
    words.read_line(&mut word).unwrap();
    assert_eq!(word.trim(), "open");
    let mut orders = viewer.stdin.take().unwrap();
    let mut order = |order: &str| writeln!(orders, "{order}").unwrap();
    let key = |code, down| Input::Key { code, down };
    // Enter, and Henkan.
    order("key 0xff0d 0x1c 1");
    order("key 0xff0d 0x1c 0");
    order("key 0xff23 0x79 1");
    for input in [key(28, true), key(28, false), key(92, true)] {
        assert_eq!(vmm.hear(), input);
    }
    order("point 639 0 1");
    let corner = Input::At {
        scanout: ScanoutId::FIRST,
        x: sekisho_seatlink::AXIS_MAX,
        y: 0,
    };
    assert_eq!(vmm.hear(), corner);
    assert_eq!(vmm.hear(), key(0x110, true));
    // The viewer goes with a key and a button down.
    drop(orders);
    assert_eq!(vmm.hear(), Input::AllUp);
    assert!(viewer.wait().unwrap().success());
}

/// Without its watermark the seat shows nothing: it ends, and says why.
#[test]
fn without_a_font_or_a_glyph_there_is_no_seat() {
    let folder = tempfile::tempdir().unwrap();
    for (font, text, reason) in [
        ("/nonexistent.ttf", "{user}", "cannot be read"),
        (FONT, "{user} \u{13000}", "no glyph"),
        (FONT, " ", "without anything to be seen"),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_sekisho-seat"))
            .arg("--link")
            .arg(folder.path().join("link"))
            .arg("--vnc")
            .arg(format!("unix:{}/vnc", folder.path().display()))
            .args(["--font", font, "--watermark-text", text])
            .args(["--user-name", "山田", "--device-name", "PC"])
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains(reason), "{said}");
        assert!(!folder.path().join("vnc").exists());
    }
}

/// A VMM that says damage after damage without waiting for an answer is heard a bounded number of
/// times each frame: its socket is full most of the time, and others are served.
#[test]
fn a_flood_of_words_costs_a_bounded_number_each_frame() {
    let display = free_display();
    let seat = Seat::start(&format!("tcp:127.0.0.1:{}", 5900 + display));
    let vmm = seat.vmm();
    vmm.show(&desktop(), SIDES);
    let damage = Picture::Damage(ScanoutId::FIRST, Rect::whole(Mode::new(8, 8).unwrap()));
    let (mut said, started) = (0_u32, Instant::now());
    let mut full = 0;
    while started.elapsed() < Duration::from_secs(2) {
        if vmm.0.show(damage, None).unwrap() {
            said += 1;
        } else {
            full += 1;
            std::thread::yield_now();
        }
        while let Some(input) = vmm.0.input().unwrap() {
            assert_eq!(input, Input::Presented(ScanoutId::FIRST));
        }
    }
    // Sixty-four words a frame, sixty frames a second; and what the socket itself holds.
    assert!(said < 64 * 60 * 3 + 2000, "{said}");
    assert!(full > 0);
    let (sides, _) = capture(display, &seat.path("seen.bmp"));
    assert_eq!(sides, SIDES);
}
