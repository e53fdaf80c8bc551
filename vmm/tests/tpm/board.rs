//! The whole program, with a guest of a few instructions and a real swtpm.

use crate::guest_fixture::Bench;
use crate::guest_fixture::code::Code;
use crate::swtpm::Place;

const REGISTERS: u32 = 0xfed4_0000;

fn looks() -> Code {
    Code::default()
        .echo_memory(REGISTERS)
        .echo_memory(REGISTERS + 0x30)
        .echo_memory(REGISTERS + 0x44)
        .echo_memory(REGISTERS + 0x1000)
}

/// Writes a byte to memory.
fn put(code: Code, address: u32, value: u8) -> Code {
    // mov ebx, address; mov byte [rbx], value
    code.raw(&[0xbb])
        .raw(&address.to_le_bytes())
        .raw(&[0xc6, 0x03, value])
}

/// Runs a command from its first byte to the first 10 of its response, which go to COM1.
fn runs(mut code: Code, command: &[u8]) -> Code {
    code = put(code, REGISTERS + 0x08, 1);
    code = put(code, REGISTERS + 0x40, 1);
    for (at, byte) in (REGISTERS + 0x80..).zip(command) {
        code = put(code, at, *byte);
    }
    code = put(code, REGISTERS + 0x4c, 1);
    // again: pause; test byte [rbx], 1; jnz again
    code = code.raw(&[0xf3, 0x90, 0xf6, 0x03, 0x01, 0x75, 0xf9]);
    (0..10).fold(code, |code, at| code.echo_memory(REGISTERS + 0x80 + at))
}

/// Through a processor's thread and the TPM's, both closed in.
#[test]
fn a_guest_starts_its_tpm_up_at_each_start_of_the_machine() {
    let Some(place) = Place::new() else { return };
    let _swtpm = place.start();
    let option = format!("socket={}", place.socket().display());
    let startup = crate::commands::startup();
    let code = runs(runs(Code::default(), &startup), &startup);
    let Some(bench) = Bench::new(&code.out8(0xcf9, 6).raw(&[0xf4])) else {
        return;
    };
    // Success, and then `TPM_RC_INITIALIZE`: it is started up already.
    let started = [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];
    let already = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0];
    for _ in 0..2 {
        let mut command = bench.command();
        command.args(["--tpm", &option]);
        let expected = [started, already].concat();
        assert_eq!(bench.run(&mut command), (3, expected));
    }
}

#[test]
fn a_guest_finds_the_tpm_and_its_end_is_swtpms_end() {
    let Some(place) = Place::new() else { return };
    let mut swtpm = place.start();
    let option = format!("socket={}", place.socket().display());
    for (code, status) in [
        (looks().out8(0xcf9, 6).raw(&[0xf4]), 3),
        (looks().switch_off(), 0),
    ] {
        let Some(bench) = Bench::new(&code) else {
            return;
        };
        let mut command = bench.command();
        command.args(["--tpm", &option]);
        // Valid and not established; CRB; idle; no second locality.
        let expected = vec![0x81, 0x11, 0x02, 0xff];
        assert_eq!(bench.run(&mut command), (status, expected));
        // A reset leaves it for the next start.
        assert_eq!(swtpm.running(), status == 3);
    }
    assert!(swtpm.ended().success());
}

#[test]
fn without_a_tpm_there_is_nothing() {
    let Some(bench) = Bench::new(&looks().switch_off()) else {
        return;
    };
    assert_eq!(bench.run(&mut bench.command()), (0, vec![0xff; 4]));
}

#[test]
fn a_machine_without_its_swtpm_is_refused_with_why() {
    let Some(bench) = Bench::new(&looks().switch_off()) else {
        return;
    };
    let mut command = bench.command();
    command.args(["--tpm", "socket=/nowhere"]);
    let output = crate::guest_fixture::wait(command.spawn().unwrap());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("swtpm's control socket /nowhere"), "{text}");
}
