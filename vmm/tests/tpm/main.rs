//! The TPM with a real swtpm behind it, through a driver that touches the registers byte by byte; and
//! with a peer that lies, hangs or dies.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

#[path = "../guest_fixture/mod.rs"]
mod guest_fixture;

mod board;
mod commands;
mod driver;
mod liar;
mod swtpm;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sekisho_vmm::chipset::tpm::Farewell;

use commands as tpm;
use driver::{Machine, code};
use swtpm::Place;

/// `TPM_PT_STARTUP_CLEAR` and `TPM_PT_MAX_RESPONSE_SIZE`.
const STARTUP_CLEAR: u32 = 0x201;
const MAX_RESPONSE: u32 = 0x11f;
/// `TPM_RC_INITIALIZE`: no startup since the reset, or a second one.
const INITIALIZE: u32 = 0x100;
const FAILURE: u32 = 0x101;
const CANCELED: u32 = 0x909;
const INDEX: u32 = 0x0180_0001;

#[test]
fn a_driver_of_single_bytes_has_a_working_tpm() {
    let Some(place) = Place::new() else { return };
    let swtpm = place.start();
    let machine = Machine::start(swtpm.connect());
    assert_eq!(code(&machine.run(&tpm::random(16))), INITIALIZE);
    machine.ask(&tpm::startup());
    machine.ask(&tpm::self_test());
    let numbers = [(); 2].map(|()| machine.ask(&tpm::random(16)));
    assert_eq!(numbers.each_ref().map(Vec::len), [18, 18]);
    assert_ne!(numbers[0], numbers[1]);
    // The TPM knows how long the buffer is.
    let longest = tpm::value(&machine.ask(&tpm::property(MAX_RESPONSE)));
    assert_eq!(longest, 0xf80);
    machine.off(Farewell::Off);
}

#[test]
fn what_is_sealed_and_what_is_in_nv_outlives_swtpm_and_the_machine() {
    let Some(place) = Place::new() else { return };
    let secret = b"only this TPM knows";
    let object = {
        let mut swtpm = place.start();
        let machine = Machine::start(swtpm.connect());
        machine.ask(&tpm::startup());
        let parent = tpm::handle(&machine.ask(&tpm::storage_key()));
        let object = tpm::sealed(&machine.ask(&tpm::seal(parent, secret)));
        machine.ask(&tpm::define(INDEX));
        machine.ask(&tpm::write(INDEX, *b"in order"));
        machine.off(Farewell::Off);
        assert!(swtpm.ended().success(), "the power went, and swtpm too");
        object
    };
    let swtpm = place.start();
    let machine = Machine::start(swtpm.connect());
    machine.ask(&tpm::startup());
    let parent = tpm::handle(&machine.ask(&tpm::storage_key()));
    let loaded = tpm::handle(&machine.ask(&tpm::load(parent, &object)));
    assert_eq!(tpm::secret(&machine.ask(&tpm::unseal(loaded))), secret);
    let kept = machine.ask(&tpm::read(INDEX));
    assert_eq!(&kept[6..14], b"in order");

    // Another TPM does not open it.
    let other = Place::new().unwrap();
    let swtpm = other.start();
    let stranger = Machine::start(swtpm.connect());
    stranger.ask(&tpm::startup());
    let parent = tpm::handle(&stranger.ask(&tpm::storage_key()));
    assert_ne!(code(&stranger.run(&tpm::load(parent, &object))), 0);
}

/// As a guest that reboots: another VMM takes over the same swtpm.
#[test]
fn each_start_of_the_machine_resets_the_tpm() {
    let Some(place) = Place::new() else { return };
    let mut swtpm = place.start();
    for _ in 0..3 {
        let machine = Machine::start(swtpm.connect());
        assert_eq!(code(&machine.run(&tpm::random(4))), INITIALIZE);
        machine.ask(&tpm::startup());
        assert_eq!(code(&machine.run(&tpm::startup())), INITIALIZE);
        machine.off(Farewell::Reset);
        assert!(swtpm.running(), "the machine is only reset");
    }
}

/// `TPM_PT_STARTUP_CLEAR` has bit 31 after an orderly shutdown. The control is a TPM whose power is cut.
#[test]
fn a_guest_that_does_not_shut_its_tpm_down_has_it_done() {
    const ORDERLY: u32 = 1 << 31;
    let Some(place) = Place::new() else { return };
    let orderly = |swtpm: &swtpm::Process| {
        let machine = Machine::start(swtpm.connect());
        machine.ask(&tpm::startup());
        let bits = tpm::value(&machine.ask(&tpm::property(STARTUP_CLEAR)));
        (machine, bits & ORDERLY != 0)
    };
    let swtpm = place.start();
    orderly(&swtpm).0.off(Farewell::Reset);
    let (machine, shut_down) = orderly(&swtpm);
    assert!(shut_down);
    swtpm.signal(Signal::KILL);
    drop((machine, swtpm));
    let (_machine, shut_down) = orderly(&place.start());
    assert!(!shut_down);
}

/// A VMM that was killed said no farewell: swtpm is still running, and at whatever locality.
#[test]
fn a_machine_that_was_killed_leaves_a_tpm_that_the_next_one_takes_over() {
    let Some(place) = Place::new() else { return };
    let swtpm = place.start();
    let before = swtpm.connect();
    // CMD_INIT, and CMD_SET_LOCALITY to 4, at which no command starts a TPM up.
    for message in [&[0, 0, 0, 2, 0, 0, 0, 0][..], &[0, 0, 0, 5, 4]] {
        rustix::io::write(&before, message).unwrap();
        let mut result = [0xff; 4];
        rustix::io::read(&before, &mut result).unwrap();
        assert_eq!(result, [0; 4]);
    }
    drop(before);
    let machine = Machine::start(swtpm.connect());
    machine.ask(&tpm::startup());
}

/// swtpm takes commands with a prefix that names a locality; a guest must not reach that.
#[test]
fn the_guest_has_locality_0_and_no_other() {
    let Some(place) = Place::new() else { return };
    let swtpm = place.start();
    let machine = Machine::start(swtpm.connect());
    let prefix = [0, 0, 0, 8, 3, 0, 0, 0, 12];
    let response = machine.run(&[&prefix[..], &tpm::random(4)].concat());
    assert_eq!(code(&response), 0x1e, "a bad tag");
    // At locality 3 this would not be allowed.
    machine.ask(&tpm::startup());
    assert!(!machine.failed());
}

/// A stopped process stands for one that makes a key for as long.
#[test]
fn a_command_that_takes_its_time_holds_nobody() {
    let Some(place) = Place::new() else { return };
    let swtpm = place.start();
    let machine = Machine::start(swtpm.connect());
    machine.ask(&tpm::startup());
    swtpm.signal(Signal::STOP);
    machine.send(&tpm::slow_key());
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        assert!(machine.busy(), "the answer is not there");
        // Nor do these wait.
        machine.cancel();
    }
    swtpm.signal(Signal::CONT);
    let began = Instant::now();
    let response = machine.receive();
    println!(
        "the slow key: {:?} with {:#x}",
        began.elapsed(),
        code(&response)
    );
    assert!([0, CANCELED].contains(&code(&response)));
    // The cancel was for that one and not for the next.
    if code(&response) == 0 {
        machine.ask(&tpm::random(4));
    }
    machine.ask(&tpm::slow_key());
}

#[test]
fn a_tpm_that_dies_under_a_command_fails_it_and_the_machine_goes_on() {
    let Some(place) = Place::new() else { return };
    for idle in [false, true] {
        let swtpm = place.start();
        let machine = Machine::start(swtpm.connect());
        machine.ask(&tpm::startup());
        if !idle {
            swtpm.signal(Signal::STOP);
            machine.send(&tpm::random(4));
        }
        swtpm.signal(Signal::KILL);
        let response = if idle {
            let end = Instant::now() + Duration::from_secs(10);
            while !machine.failed() {
                assert!(Instant::now() < end, "it is not seen to have failed");
                std::thread::sleep(Duration::from_millis(1));
            }
            machine.run(&tpm::random(4))
        } else {
            machine.receive()
        };
        assert_eq!(code(&response), FAILURE);
        assert!(machine.failed());
        assert_eq!(code(&machine.run(&tpm::random(4))), FAILURE);
        let began = Instant::now();
        machine.off(Farewell::Off);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "nobody is waited for"
        );
        // The next start of the machine has it back.
        drop(swtpm);
        let swtpm = place.start();
        Machine::start(swtpm.connect()).ask(&tpm::startup());
    }
}

/// The end of the machine waits a few seconds and no longer.
#[test]
fn a_tpm_that_hangs_does_not_keep_the_machine_from_ending() {
    let Some(place) = Place::new() else { return };
    let swtpm = place.start();
    let machine = Machine::start(swtpm.connect());
    machine.ask(&tpm::startup());
    swtpm.signal(Signal::STOP);
    machine.send(&tpm::random(4));
    let began = Instant::now();
    machine.off(Farewell::Off);
    println!("the end after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(12));
}
