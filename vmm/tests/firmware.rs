//! Firmware of a few instructions, in a flash of two blocks: it starts where a processor starts, asks
//! `fw_cfg`, and drives the flash chip as OVMF does. It runs wherever `/dev/kvm` opens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::fs;
use std::process::Command;

use guest_fixture::code::{COM1, PM1_CONTROL};
use guest_fixture::{Bench, wait};

const BLOCK: usize = 4096;
/// Offsets in the segment that a processor starts in, whose base is 0xFFFF0000: the variables' block
/// and the code's, which ends at 4 GiB.
const VARIABLES: u16 = 0xe000;
const CODE: u16 = 0xf000;
const RESET_VECTOR: usize = 0xff0;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;

/// Machine code of a processor that has just started: 16 bits wide.
#[derive(Default)]
struct Early(Vec<u8>);

impl Early {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn port(self, port: u16) -> Self {
        // mov dx, port
        self.raw(&[0xba]).raw(&port.to_le_bytes())
    }

    fn out8(self, port: u16, value: u8) -> Self {
        self.port(port).raw(&[0xb0, value, 0xee])
    }

    fn out16(self, port: u16, value: u16) -> Self {
        let [low, high] = value.to_le_bytes();
        self.port(port).raw(&[0xb8, low, high, 0xef])
    }

    /// Reads a byte from a port and writes it to COM1.
    fn echo8(self, port: u16) -> Self {
        self.port(port).raw(&[0xec]).port(COM1).raw(&[0xee])
    }

    /// Reads a byte of the variables and writes it to COM1.
    fn echo_flash(self, offset: u16) -> Self {
        // mov al, cs:[offset]
        let [low, high] = (VARIABLES + offset).to_le_bytes();
        self.raw(&[0x2e, 0xa0, low, high]).port(COM1).raw(&[0xee])
    }

    fn flash(self, offset: u16, value: u8) -> Self {
        // mov byte cs:[offset], value
        let [low, high] = (VARIABLES + offset).to_le_bytes();
        self.raw(&[0x2e, 0xc6, 0x06, low, high, value])
    }

    fn reset(self) -> Self {
        self.out8(0xcf9, 6).raw(&[0xf4])
    }

    fn switch_off(self) -> Self {
        self.out16(PM1_CONTROL, 1 << 13).raw(&[0xf4])
    }

    /// The block with this code and the jump to it.
    fn image(&self) -> Vec<u8> {
        let mut image = self.0.clone();
        assert!(image.len() < RESET_VECTOR);
        image.resize(RESET_VECTOR, 0xf4);
        // jmp CODE, from behind the instruction
        let distance = CODE.wrapping_sub(0xfff3).to_le_bytes();
        image.extend([0xe9, distance[0], distance[1]]);
        image.resize(BLOCK, 0xf4);
        image
    }
}

/// A machine with this firmware and erased variables; `None` where guests cannot run.
fn bench(firmware: &Early) -> Option<Bench> {
    let bench = Bench::with_kernel(b"not used")?;
    fs::write(bench.path("code"), firmware.image()).unwrap();
    fs::write(bench.path("vars"), vec![0xff; BLOCK]).unwrap();
    Some(bench)
}

fn start(bench: &Bench) -> Command {
    let mut command = guest_fixture::vmm();
    let files = ["code", "vars"].map(|name| format!("{name}={}", bench.path(name).display()));
    command.args(["run", "--memory", "32M", "--firmware", &files.join(",")]);
    command.args([
        "--serial",
        &format!("file={}", bench.path("serial").display()),
    ]);
    command.stderr(std::process::Stdio::piped());
    command
}

#[test]
fn it_starts_at_the_reset_vector_and_asks_what_the_board_is() {
    let firmware = (0..4)
        .fold(Early::default().out16(SELECTOR, 0), |code, _| {
            code.echo8(DATA)
        })
        .switch_off();
    let Some(bench) = bench(&firmware) else {
        return;
    };
    assert_eq!(bench.run(&mut start(&bench)), (0, b"QEMU".to_vec()));
}

#[test]
fn what_it_programs_outlives_the_machine_and_what_it_writes_to_itself_does_not() {
    let firmware = Early::default()
        .flash(7, 0x50)
        .flash(7, 0x70)
        .echo_flash(7)
        .flash(7, 0xff)
        .echo_flash(7)
        .flash(8, 0x10)
        .flash(8, b'k')
        .flash(8, 0xff)
        .echo_flash(8)
        // The code's own block takes no command and no byte.
        .flash(0x1000, 0x10)
        .flash(0x1000, 0)
        .reset();
    let Some(bench) = bench(&firmware) else {
        return;
    };
    let code = fs::read(bench.path("code")).unwrap();
    for first in [[0, 0xff, b'k'], [0, 0xff, b'k']] {
        assert_eq!(bench.run(&mut start(&bench)), (3, first.to_vec()));
    }
    let mut kept = vec![0xff; BLOCK];
    kept[8] = b'k';
    assert_eq!(fs::read(bench.path("vars")).unwrap(), kept);
    assert_eq!(fs::read(bench.path("code")).unwrap(), code);
}

#[test]
fn what_is_no_firmware_is_refused_with_what_to_give() {
    let Some(bench) = bench(&Early::default()) else {
        return;
    };
    let refused = |bench: &Bench| {
        let output = wait(start(bench).spawn().unwrap());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    fs::write(bench.path("vars"), vec![0xff; BLOCK + 1]).unwrap();
    let text = refused(&bench);
    assert!(
        text.contains("vars has 4097 bytes") && text.contains("a copy of its VARS file"),
        "{text}"
    );
    fs::remove_file(bench.path("vars")).unwrap();
    let text = refused(&bench);
    assert!(text.contains("--firmware vars"), "{text}");
}

#[test]
fn two_machines_cannot_have_the_same_variables() {
    // Waits for ever.
    let Some(bench) = bench(&Early::default().echo8(0x3f9).raw(&[0xeb, 0xfe])) else {
        return;
    };
    let mut first = start(&bench).spawn().unwrap();
    while bench.serial().is_empty() {
        assert!(first.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = wait(start(&bench).spawn().unwrap());
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("give each its own copy"), "{text}");
}
