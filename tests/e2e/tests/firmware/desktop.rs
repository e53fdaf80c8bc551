//! A work OS as a person has it: Debian on its disk, started by its signed chain, on a screen with a
//! watermark, with a keyboard and a pointer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, ExecError, Input, Start};
use sekisho_laptop::{Cache, InstalledDebian, Running, build};

use crate::bench::*;
use crate::picture::decode;

/// From power-on to the login's picture, where everything is emulated twice.
const LOGIN: Duration = Duration::from_mins(8);
/// Where the greeter has its fields on a screen of 1024 by 768, and a place in its window.
const NAME: (u16, u16) = (640, 344);
const PASSWORD: (u16, u16) = (640, 384);
const LOG_IN: (u16, u16) = (624, 430);
const WINDOW: (u32, u32) = (350, 320);
/// Where the last letter of the name is to be seen, where the password's field says what it is for until
/// it is chosen, and where the password's last dot is; without carets and the pointer.
const NAME_END: Part = ((505, 335), (517, 352));
const PASSWORD_HINT: Part = ((580, 376), (608, 390));
const PASSWORD_END: Part = ((507, 376), (516, 390));

/// The upper left and the lower right corner of a part of the screen.
type Part = ((u32, u32), (u32, u32));

const SEAT: &str = "/tmp/seat";
const VNC: &str = "/tmp/vnc";
const VIEW: &str = "/tmp/view";

/// Somebody who looks and types by the remote framebuffer protocol.
struct Viewer {
    running: Running,
    input: Input,
    folder: PathBuf,
}

impl Viewer {
    fn start(bench: &Bench) -> Self {
        let program = program("screen-viewer");
        let mut running = bench
            .laptop
            .spawn_with(Start {
                argv: vec![program, VNC.to_owned()],
                stdin: true,
                ..Start::default()
            })
            .expect("viewer");
        running.wait_for("done", SOON).expect("let in");
        let input = running.input();
        let folder = bench.laptop.folder().to_owned();
        Self {
            running,
            input,
            folder,
        }
    }

    fn does(&mut self, what: &str) {
        let line = format!("{what}\n");
        self.input.write(line.as_bytes()).expect("viewer");
        self.running.wait_for("done", SOON).expect(what);
    }

    fn clicks(&mut self, (x, y): (u16, u16)) {
        self.does(&format!("click {x} {y}"));
    }

    /// What the person sees.
    fn sees(&mut self) -> ((u32, u32), Vec<u8>) {
        let file = self.folder.join("seen.png");
        self.does(&format!("shot {}", file.display()));
        decode(&file)
    }
}

fn program(name: &str) -> String {
    let path = build::target_dir().join("debug").join(name);
    path.to_string_lossy().into_owned()
}

fn start_seat(bench: &Bench) -> Running {
    let seat = [
        &program("sekisho-seat"),
        "--link",
        SEAT,
        "--vnc",
        &format!("unix:{VNC}"),
        "--font",
        "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
        "--user-name",
        "山田 花子",
        "--device-name",
        "PC-0042",
        "--keyboard",
        "us",
    ];
    let running = bench.laptop.spawn(&seat).expect("seat");
    let there = format!("until [ -S {SEAT} ] && [ -S {VNC} ]; do sleep 0.1; done");
    let there = bench.laptop.run(&["sh", "-c", &there]).expect("seat");
    assert!(there.status.success(), "{}", there.said());
    running
}

/// Waits for the greeter's window, which is bright.
fn wait_for_login(viewer: &mut Viewer) {
    let deadline = Instant::now() + LOGIN;
    loop {
        let ((width, height), pixels) = viewer.sees();
        if (width, height) == (1024, 768) {
            let at = ((WINDOW.1 * width + WINDOW.0) * 3) as usize;
            if pixels[at..at + 3].iter().all(|part| *part > 0xc0) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "no login is to be seen");
        // The screen is emulated: looking at it all the time would only take its time.
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// Waits until something is drawn in a part of the screen, or nothing is any more.
fn wait_for_ink(bench: &Bench, part: Part, ink: bool) {
    let deadline = Instant::now() + LOGIN;
    loop {
        let ((width, _), pixels) = decode(&screenshot(bench));
        let ((left, top), (right, bottom)) = part;
        let line = |y: u32| {
            let from = ((y * width + left) * 3) as usize;
            &pixels[from..from + ((right - left) * 3) as usize]
        };
        let mut inside = (top..bottom).flat_map(|y| line(y).chunks(3));
        let first = inside.next();
        if inside.any(|pixel| Some(pixel) != first) == ink {
            return;
        }
        assert!(Instant::now() < deadline, "no change at {part:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How many pixels of two pictures differ, of a thousand.
fn difference(one: &[u8], other: &[u8]) -> usize {
    assert_eq!(one.len(), other.len());
    let differ = |(one, other): &(&[u8], &[u8])| one != other;
    let pairs = one.chunks(3).zip(other.chunks(3));
    pairs.filter(differ).count() * 1000 / (one.len() / 3)
}

/// With Secure Boot on, from an NVMe disk to a graphical login, typed in by the PS/2 keyboard and
/// clicked by the tablet; under the watermark, of which the work OS has nothing. Then it starts again by
/// itself, from an entry that it put into the firmware's list, and the power button ends it.
#[test]
fn an_installed_debian_is_logged_in_to_on_a_screen_with_a_watermark() {
    let cache = Cache::open().expect("cache");
    let debian = InstalledDebian::fetch(&cache).expect("installed");
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.ms.fd");
    let image = bench.laptop.folder().join("debian.img");
    debian.copy(&image).expect("copy");
    let disk = format!("path={},device=nvme", image.display());
    let screen = format!("mode=1024x768,seat={SEAT},view={VIEW}");
    let _seat = start_seat(&bench);
    let mut viewer = Viewer::start(&bench);

    let began = Instant::now();
    let machine = ["--disk", &disk, "--memory", "1G", "--display", &screen];
    let mut vmm = bench.start_machine(&variables, &machine);
    let guest = bench.guest_within(LOGIN);
    println!("from the VMM's start to a command: {:?}", began.elapsed());
    assert_eq!(
        said(&guest, "mokutil --sb-state").trim(),
        "SecureBoot enabled"
    );
    wait_for_login(&mut viewer);
    println!("to the login: {:?}", began.elapsed());

    // The person sees the watermark; what the work OS has drawn has none (the control).
    let bare = screenshot(&bench);
    let (_, seen) = viewer.sees();
    let marked = difference(&seen, &decode(&bare).1);
    println!("{marked} of 1000 pixels carry the watermark");
    assert!((3..300).contains(&marked), "{marked} of 1000");

    let (person, password) = InstalledDebian::PERSON;
    // The window manager of the person's session.
    let session = "ls -l /proc/[0-9]*/exe 2> /dev/null | grep /usr/bin/openbox$ | \
                   { read -r _ _ owner _ && echo $owner; }";
    let nobody = guest.run(&["sh", "-c", session], SOON).expect("run");
    assert!(!nobody.status.success(), "{}", nobody.said());
    // Each step once the one before is to be seen, as a person does it.
    viewer.clicks(NAME);
    viewer.does(&format!("type {person}"));
    wait_for_ink(&bench, NAME_END, true);
    viewer.clicks(PASSWORD);
    wait_for_ink(&bench, PASSWORD_HINT, false);
    viewer.does(&format!("type {password}"));
    wait_for_ink(&bench, PASSWORD_END, true);
    viewer.clicks(LOG_IN);
    let deadline = Instant::now() + LOGIN;
    let owner = loop {
        let owner = guest.run(&["sh", "-c", session], SOON).expect("run");
        if owner.status.success() {
            break owner.text();
        }
        let drawn = screenshot(&bench);
        assert!(
            Instant::now() < deadline,
            "no session begins; {} shows what is there instead: {}",
            drawn.display(),
            said(&guest, "tail -n 40 /var/log/lightdm/lightdm.log")
        );
        std::thread::sleep(Duration::from_secs(5));
    };
    assert_eq!(owner.trim(), person);
    println!("logged in: {:?}", began.elapsed());

    println!(
        "{}",
        said(
            &guest,
            "systemd-analyze; systemd-analyze blame | head -n 12"
        )
    );
    let entry = other_peoples_tools_find_nothing_wrong(&guest, &image);
    println!("looked at: {:?}", began.elapsed());

    let _asked = asks_for(&guest, "reboot");
    assert_eq!(ended_within(&mut vmm, LOGIN), Some(RESET_STATUS));
    let mut vmm = bench.start_supervised(&variables, &["--disk", &disk, "--memory", "1G"]);
    guest.sync(LOGIN).expect("the work OS answers again");
    println!("started again: {:?}", began.elapsed());
    // The firmware took the new entry, once.
    let boots = said(&guest, "efibootmgr -v");
    println!("{boots}");
    assert!(
        boots.contains(&format!("BootCurrent: {entry}\n")),
        "{boots}"
    );
    assert!(!boots.contains("BootNext"), "{boots}");
    let label = boots
        .lines()
        .find(|line| line.starts_with(&format!("Boot{entry}")));
    assert!(label.is_some_and(|label| label.contains(LABEL)), "{boots}");

    // The button is logind's to hear, once it has the device.
    let hears = "until journalctl -b -u systemd-logind | grep -q 'Watching system buttons'; \
                 do sleep 1; done";
    let hears = guest.run(&["sh", "-c", hears], LOGIN).expect("run");
    assert!(hears.status.success(), "{}", hears.said());
    vmm.input().write(b"\n").expect("pressed");
    assert_eq!(ended_within(&mut vmm, LOGIN), Some(0));
    println!("switched off: {:?}", began.elapsed());
    is_clean(&image);
}

/// What the entry of the test's own in the firmware's list is called.
const LABEL: &str = "Once more";

/// Tools of other people's look at the machine. One of them makes a new entry in the firmware's list,
/// and has it started next; its number.
fn other_peoples_tools_find_nothing_wrong(guest: &ExecClient, image: &Path) -> String {
    // A build machine that is busy lets an emulated processor stand still for seconds.
    let complaints = said(
        guest,
        "dmesg --level=err,crit,alert,emerg | grep -v -i -e rcu -e lockup -e 'blocked for' || true",
    );
    assert_eq!(complaints, "", "the kernel complains");
    println!("{}", said(guest, "dmesg --level=warn"));

    let controller = said(guest, "nvme id-ctrl /dev/nvme0");
    let namespace = said(guest, "nvme id-ns /dev/nvme0n1");
    let health = said(guest, "nvme smart-log /dev/nvme0");
    let blocks = fs::metadata(image).expect("disk").len() / 512;
    for (said, field, value) in [
        (&controller, "mn", "Sekisho NVMe disk"),
        (&controller, "nn", "1"),
        (&controller, "sqes", "0x66"),
        (&controller, "cqes", "0x44"),
        (&controller, "vwc", "0x7"),
        (&namespace, "nsze", &format!("{blocks:#x}")),
        (&health, "critical_warning", "0"),
        (&health, "media_errors", "0"),
    ] {
        let line = said.lines().filter_map(|line| line.split_once(':'));
        let mut found = line.filter(|(name, _)| name.trim() == field);
        let found = found.next().map(|(_, value)| value.trim());
        assert!(
            found.is_some_and(|found| found.starts_with(value)),
            "{field}: {found:?}, not {value}"
        );
    }
    // Its complaints are comments between the tables.
    let tables = said(guest, "dmidecode 2>&1");
    for complaint in [
        "Invalid",
        "Wrong",
        "BROKEN",
        "TRUNCATED",
        "<BAD",
        "<OUT OF SPEC>",
    ] {
        assert!(!tables.contains(complaint), "{complaint}: {tables}");
    }
    assert!(tables.contains("Manufacturer: Sekisho"), "{tables}");

    println!("{}", said(guest, "efibootmgr -v"));
    let made = said(
        guest,
        &format!(
            "efibootmgr --create --disk /dev/nvme0n1 --part 1 --label '{LABEL}' \
             --loader '\\EFI\\debian\\shimx64.efi'"
        ),
    );
    let entry = made.lines().find(|line| line.contains(LABEL)).expect(&made);
    let entry = entry.strip_prefix("Boot").and_then(|rest| rest.get(..4));
    let entry = entry.expect(&made).to_owned();
    said(guest, &format!("efibootmgr --bootnext {entry}"));
    entry
}

/// Has the work OS end, which may be so fast that nothing is answered. Who lets go of the command ends it.
fn asks_for(guest: &ExecClient, end: &str) -> Result<Running, ExecError> {
    guest.spawn(Start {
        argv: ["systemctl", end].map(str::to_owned).to_vec(),
        ..Start::default()
    })
}

/// The file system was unmounted, and not just left.
fn is_clean(image: &Path) {
    let root = format!(
        "{}?offset={}",
        image.display(),
        InstalledDebian::ROOT_OFFSET
    );
    let output = Command::new("dumpe2fs").args(["-h", &root]).output();
    let output = output.expect("dumpe2fs");
    let header = String::from_utf8_lossy(&output.stdout);
    let line = |name: &str| header.lines().find(|line| line.starts_with(name));
    let state = line("Filesystem state:").unwrap_or_default();
    let features = line("Filesystem features:").unwrap_or_default();
    assert!(state.ends_with(" clean"), "{header}");
    assert!(!features.contains("needs_recovery"), "{header}");
}

/// What the work OS has drawn.
fn screenshot(bench: &Bench) -> PathBuf {
    let file = bench.laptop.folder().join("drawn.png");
    let (vmm, path) = (program("sekisho-vmm"), file.to_string_lossy());
    let taken = bench
        .laptop
        .run(&[&vmm, "screenshot", "--socket", VIEW, &path]);
    let taken = taken.expect("screenshot");
    assert!(taken.status.success(), "{}", taken.said());
    file
}
