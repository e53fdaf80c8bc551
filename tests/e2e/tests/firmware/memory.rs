//! A program of other people's that has nothing but the screen to say what it does.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sekisho_laptop::{build, start_disk};

use crate::bench::*;
use crate::picture::decode;

const VIEW: &str = "/run/view";
/// A character's place on the screen.
const CELL: (usize, usize) = (8, 16);
/// "A" and "B" as the first PC's adapter drew them, which its heirs still have.
const A_AND_B: [u8; 32] = [
    0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0, //
    0, 0, 0xfc, 0x66, 0x66, 0x66, 0x7c, 0x66, 0x66, 0x66, 0x66, 0xfc, 0, 0, 0, 0,
];

/// The letters that a program draws.
struct Letters(HashMap<[u8; 16], char>);

impl Letters {
    /// Takes them from the program itself.
    fn of(program: &[u8]) -> Self {
        let place = |letters: &[u8]| letters == A_AND_B;
        let at = program
            .windows(A_AND_B.len())
            .position(place)
            .expect("its letters");
        let font = &program[at - usize::from(b'A') * CELL.1..];
        let (glyphs, _) = font.as_chunks::<16>();
        Self(
            (' '..='~')
                .map(|letter| (glyphs[letter as usize], letter))
                .collect(),
        )
    }

    /// The lines of text in a picture; what is no letter is a dot.
    fn read(&self, picture: &Path) -> String {
        let ((width, height), pixels) = decode(picture);
        let (width, height) = (width as usize, height as usize);
        let pixel = |x: usize, y: usize| &pixels[(y * width + x) * 3..][..3];
        let letter = |(left, top): (usize, usize)| {
            // Paper is what the upper left corner is: no letter begins there.
            let paper = pixel(left, top);
            let row = |y: usize| {
                let ink = |x: usize| u8::from(pixel(left + x, top + y) != paper);
                (0..CELL.0).fold(0, |bits, x| bits << 1 | ink(x))
            };
            let drawn = std::array::from_fn(row);
            self.0.get(&drawn).copied().unwrap_or('.')
        };
        // 80 by 25 in the middle of the screen.
        let (left, top) = ((width - 80 * CELL.0) / 2, (height - 25 * CELL.1) / 2);
        let line = |row: usize| -> String {
            let place = |column: usize| (left + column * CELL.0, top + row * CELL.1);
            (0..80).map(|column| letter(place(column))).collect()
        };
        (0..25).map(|row| line(row) + "\n").collect()
    }
}

/// The word after a label.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.split_once(label)?.1.split_whitespace().next()
}

/// `memtest86+` by the firmware from a disk: it draws with its own letters, by which what is on the screen
/// is read, and counts the tests and the seconds.
#[test]
fn memtest_tests_the_memory_and_shows_it() {
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.fd");
    let folder = bench.laptop.folder().to_owned();
    let (disk, file) = (folder.join("memtest.img"), folder.join("memtest.png"));
    let program = Bench::package_file("memtest86+", "boot/memtest86+x64.efi");
    start_disk::make(&disk, 64 << 20, &[("EFI/BOOT/BOOTX64.EFI", &program)]).expect("disk");
    let letters = Letters::of(&fs::read(&program).expect("memtest86+"));
    let disk = format!("path={},device=nvme,readonly=on", disk.display());
    let display = format!("mode=1024x768,view={VIEW}");
    let began = Instant::now();
    let _vmm = bench.start_machine(&variables, &["--disk", &disk, "--display", &display]);
    let vmm = build::target_dir().join("debug/sekisho-vmm");
    let [vmm, picture] = [&vmm, &file].map(|path| path.to_string_lossy());
    let mut text = String::new();
    let mut first = None;
    loop {
        let line = [&*vmm, "screenshot", "--socket", VIEW, &*picture];
        if bench
            .laptop
            .run(&line)
            .expect("a screenshot")
            .status
            .success()
        {
            text = letters.read(&file);
        }
        let time = after(&text, "Time:").map(str::to_owned);
        let tests = text.contains("Memtest86") && after(&text, "Status:") == Some("Testing");
        match &first {
            None if tests => first = time,
            // It counts on: so timers and interrupts are there, and not only a picture.
            Some(first) if tests && time.as_ref() > Some(first) => break,
            _ => {}
        }
        assert!(began.elapsed() < BOOT, "it does not run: {text}");
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("{:?}:\n{text}", began.elapsed());
    assert_eq!(after(&text, "Errors:"), Some("0"), "{text}");
    // What the board has told it, by E820 and SMBIOS.
    assert_eq!(after(&text, "Memory  :"), Some("508MB"), "{text}");
    assert!(text.contains("Sekisho work OS machine"), "{text}");
}
