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
