//! The sound card on a bus without a VM: a driver's accesses, guest memory, a clock that the test turns
//! and a sound that it hears.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, where a surprise ends the test"
)]

mod virtio_fixture;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sekisho_vmm::hda::sound::Sound;
use sekisho_vmm::hda::{Format, Hda};
use sekisho_vmm::pci::Slot;
use sekisho_vmm::virtio::GuestRam;
use sekisho_vmm::worker::{Serve as _, Turn};
use virtio_fixture::{ECAM, Machine, mmio_read};
use vm_memory::{Bytes as _, GuestAddress};

const REGISTERS: u64 = 0xc000_0000;
const RAM: usize = 1 << 20;
const COMMANDS: u64 = 0x1000;
const ANSWERS: u64 = 0x2000;
const POSITIONS: u64 = 0x3000;
const LIST: u64 = 0x4000;
const BUFFER: u64 = 0x1_0000;
/// Registers of the input and the output stream.
const INPUT: u64 = 0x80;
const OUTPUT: u64 = 0xa0;
const MESSAGE: u32 = 0x41;
/// 48 kHz, 16 bits, two channels.
const FORMAT: u16 = 0x0011;
const RUN: u8 = 0b1_1110;

#[derive(Default)]
struct Room {
    heard: Vec<u8>,
    /// What is said: a byte that counts up.
    said: u8,
}

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Room>>);

impl Sound for Ear {
    fn play(&mut self, format: Format, frames: &[u8]) {
        assert_eq!(format.rate, 48_000);
        self.0.lock().unwrap().heard.extend_from_slice(frames);
    }

    fn record(&mut self, _format: Format, frames: &mut [u8]) {
        let mut room = self.0.lock().unwrap();
        for byte in frames {
            room.said = room.said.wrapping_add(1);
            *byte = room.said;
        }
    }
}

struct Bench {
    machine: Machine,
    card: Arc<Mutex<Hda>>,
    ram: GuestRam,
    ear: Ear,
    micros: Arc<AtomicU64>,
    slot: Slot,
}

impl Bench {
    /// A card whose driver has taken it out of reset, with rings and MSI.
    fn new() -> Self {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let (ear, micros) = (Ear::default(), Arc::new(AtomicU64::new(0)));
        let mut machine = Machine::new();
        let time = Arc::clone(&micros);
        let clock = Box::new(move || Duration::from_micros(time.load(Ordering::Relaxed)));
        let platform = machine.platform.clone();
        let card = Hda::new(Box::new(ear.clone()), clock, ram.clone(), platform).unwrap();
        let (slot, card) = machine.insert(card);
        let bench = Self {
            machine,
            card,
            ram,
            ear,
            micros,
            slot,
        };
        bench.config(0x10, REGISTERS as u32);
        bench.config(0x14, 0);
        bench.config(0x04, 6);
        bench.config(0x64, 0xfee0_0000);
        bench.config(0x6c, MESSAGE);
        bench.config(0x60, 1 << 16);
        bench.write(0x08, &1_u32.to_le_bytes());
        bench.write(0x40, &(COMMANDS as u32).to_le_bytes());
        bench.write(0x50, &(ANSWERS as u32).to_le_bytes());
        bench.write(0x5a, &1_u16.to_le_bytes());
        bench.write(0x4c, &[2]);
        bench.write(0x5c, &[3]);
        bench.write(0x20, &0xc000_0003_u32.to_le_bytes());
        bench
    }

    fn config(&self, register: u64, value: u32) {
        let address = ECAM + (u64::from(self.slot.devfn()) << 12) + register;
        assert!(self.machine.bus.mmio_write(address, &value.to_le_bytes()));
    }

    fn write(&self, register: u64, data: &[u8]) {
        assert!(self.machine.bus.mmio_write(REGISTERS + register, data));
    }

    fn read(&self, register: u64) -> u32 {
        u32::from_le_bytes(mmio_read(&self.machine.bus, REGISTERS + register))
    }

    fn word(&self, address: u64) -> u32 {
        self.ram.read_obj(GuestAddress(address)).unwrap()
    }

    fn messages(&self) -> usize {
        self.machine.platform.signals(MESSAGE)
    }

    /// Sends a command by the ring and gives the answer.
    fn command(&self, command: u32) -> u32 {
        let [at, ..] = self.read(0x48).to_le_bytes();
        let next = at.wrapping_add(1);
        let place = GuestAddress(COMMANDS + u64::from(next) * 4);
        self.ram.write_obj(command, place).unwrap();
        self.write(0x48, &[next]);
        let answered = self.read(0x58) & 0xff;
        self.write(0x5d, &[5]);
        self.word(ANSWERS + u64::from(answered) * 8)
    }

    /// Lets time pass and gives the card its turn.
    fn pass(&self, micros: u64) {
        self.micros.fetch_add(micros, Ordering::Relaxed);
        let mut card = self.card.lock().unwrap();
        card.ready(0);
        assert_eq!(card.serve(), Turn::Idle);
    }

    /// Lists buffers, each by address, bytes and flags.
    fn list(&self, buffers: &[(u64, u32, u32)]) {
        for (index, (address, length, flags)) in (0..).zip(buffers) {
            let entry = u128::from(*address) | u128::from(*length) << 64 | u128::from(*flags) << 96;
            let place = GuestAddress(LIST + index * 16);
            self.ram.write_slice(&entry.to_le_bytes(), place).unwrap();
        }
    }

    /// Sets a stream up on the list and lets it run, under number 1.
    fn start(&self, stream: u64, length: u32, entries: u8, format: u16) {
        self.write(stream, &[1]);
        assert_eq!(self.read(stream) & 1, 1, "the reset reads back");
        self.write(stream, &[0]);
        self.write(stream + 0x08, &length.to_le_bytes());
        self.write(stream + 0x0c, &u16::from(entries - 1).to_le_bytes());
        self.write(stream + 0x12, &format.to_le_bytes());
        self.write(stream + 0x18, &(LIST as u32).to_le_bytes());
        self.write(stream + 0x1c, &0_u32.to_le_bytes());
        self.write(stream + 2, &[0x10]);
        self.write(stream, &[RUN]);
    }

    /// Has the converters take stream 1.
    fn connect(&self) {
        for node in [2, 4] {
            self.command(node << 20 | 0x70610);
        }
    }

    fn heard(&self) -> Vec<u8> {
        std::mem::take(&mut self.ear.0.lock().unwrap().heard)
    }

    fn status(&self, stream: u64) -> u32 {
        self.read(stream) >> 24
    }
}

#[test]
fn a_driver_finds_the_codec_and_its_paths() {
    let bench = Bench::new();
    assert_eq!(bench.read(0x0c) >> 16, 1, "one codec told of itself");
    assert_eq!(bench.command(0x000f_0000), 0x1af4_0022);
    assert_eq!(bench.command(0x000f_0004), 0x0001_0001);
    assert_eq!(bench.command(0x001f_0005), 1, "an audio function group");
    // Speaker and microphone, and the converters at the other ends.
    assert_eq!(bench.command(0x003f_0200), 2);
    assert_eq!(bench.command(0x004f_0200), 5);
    assert_eq!(bench.command(0x003f_1c00), 0x9017_0110);
    assert_eq!(bench.command(0x002f_0009) >> 20, 0);
    assert_eq!(bench.command(0x004f_0009) >> 20, 1);
    // Gains: the left one alone, and never more than the loudest.
    bench.command(0x0023_a0ff);
    assert_eq!(bench.command(0x002b_a000), 0xca);
    assert_eq!(bench.command(0x002b_8000), 0x4a);
    // A node that is not there, and one past four bits.
    assert_eq!(bench.command(0x0fff_0009), 0);
    // The same past the rings.
    bench.write(0x60, &0x000f_0000_u32.to_le_bytes());
    bench.write(0x68, &[1]);
    assert_eq!((bench.read(0x68), bench.read(0x64)), (2, 0x1af4_0022));
    // A codec that is not there does not answer.
    bench.write(0x68, &[2]);
    bench.write(0x60, &0x100f_0000_u32.to_le_bytes());
    bench.write(0x68, &[1]);
    assert_eq!(bench.read(0x68), 0);
}

#[test]
fn what_is_played_is_heard_in_time() {
    let bench = Bench::new();
    bench.connect();
    let tone: Vec<u8> = (0..7680_u32).map(|at| (at % 251) as u8).collect();
    bench.ram.write_slice(&tone, GuestAddress(BUFFER)).unwrap();
    bench.list(&[(BUFFER, 3840, 1), (BUFFER + 3840, 3840, 1)]);
    bench.write(0x70, &(POSITIONS as u32 | 1).to_le_bytes());
    bench.start(OUTPUT, 7680, 2, FORMAT);
    let before = bench.messages();
    // 10 ms are 1,920 bytes; a buffer is 20 ms.
    bench.pass(10_000);
    assert_eq!(bench.heard(), tone[..1920]);
    assert_eq!(bench.read(OUTPUT + 4), 1920);
    assert_eq!(bench.word(POSITIONS + 8), 1920);
    assert_eq!(bench.messages(), before, "no buffer is complete");
    bench.pass(10_000);
    assert_eq!(bench.messages(), before + 1);
    assert_eq!(bench.read(0x24), 0x8000_0002);
    assert_eq!(bench.read(0x30), 24 * 20_000, "the wall clock goes along");
    bench.write(OUTPUT + 3, &[0x1c]);
    assert_eq!(bench.read(0x24), 0);
    // Round the end.
    bench.pass(30_000);
    assert_eq!(bench.messages(), before + 2);
    assert_eq!(bench.read(OUTPUT + 4), 1920);
    assert_eq!(bench.read(0x20a4), 1920);
    let mut expected = tone[1920..].to_vec();
    expected.extend_from_slice(&tone[..1920]);
    assert_eq!(bench.heard(), expected);
    // Stopped, nothing moves; the time that passes is not made up for.
    bench.write(OUTPUT, &[0]);
    bench.pass(30_000);
    assert_eq!((bench.heard(), bench.read(OUTPUT + 4)), (vec![], 1920));
}

#[test]
fn mute_gain_and_another_streams_number_are_obeyed() {
    let bench = Bench::new();
    let loud = 10_000_i16.to_le_bytes().repeat(480);
    bench.ram.write_slice(&loud, GuestAddress(BUFFER)).unwrap();
    bench.list(&[(BUFFER, 960, 0)]);
    bench.start(OUTPUT, 960, 1, FORMAT);
    let sample = || {
        bench.pass(5_000);
        let heard = bench.heard();
        assert_eq!(heard.len(), 960);
        i16::from_le_bytes([heard[0], heard[1]])
    };
    assert_eq!(sample(), 0, "no converter listens to it");
    bench.connect();
    assert_eq!(sample(), 10_000);
    // Twenty steps of a decibel are a tenth.
    bench.command(0x0023_b000 | 0x36);
    assert!((995..=1000).contains(&sample()), "20 dB less");
    bench.command(0x0023_b0ca);
    assert_eq!(sample(), 0, "mute");
    bench.command(0x0023_b04a);
    bench.command(0x0037_0700);
    assert_eq!(sample(), 0, "the speaker is off");
}

#[test]
fn what_is_said_is_recorded() {
    let bench = Bench::new();
    bench.connect();
    bench.list(&[(BUFFER, 960, 1), (BUFFER + 0x1000, 960, 1)]);
    bench.start(INPUT, 1920, 2, 0x4011);
    // 44.1 kHz: 5 ms are 220 whole frames.
    bench.pass(5_000);
    assert_eq!(bench.read(INPUT + 4), 880);
    bench.pass(5_000);
    assert_eq!(bench.read(INPUT + 4), 1764);
    let mut got = [0; 960];
    bench
        .ram
        .read_slice(&mut got, GuestAddress(BUFFER))
        .unwrap();
    let said: Vec<u8> = (1..=960_u32).map(|at| at as u8).collect();
    assert_eq!(got[..], said);
    assert_eq!(bench.status(INPUT) & 4, 4);
    assert_eq!(bench.word(BUFFER + 0x1000), 0xc4c3_c2c1);
}

#[test]
fn a_list_that_is_none_stops_its_stream_with_an_error() {
    let bench = Bench::new();
    bench.connect();
    let end = RAM as u64;
    let lists = [
        (BUFFER, 0, 1, 960),
        (end, 960, 1, 960),
        (end - 4, 960, 1, 960),
        (u64::MAX - 8, 960, 1, 960),
        // A cyclic buffer of no length.
        (BUFFER, 960, 1, 0),
    ];
    for stream in [INPUT, OUTPUT] {
        for (address, length, flags, cyclic) in lists {
            bench.list(&[(address, length, flags)]);
            bench.start(stream, cyclic, 1, FORMAT);
            let before = bench.messages();
            bench.pass(5_000);
            assert_eq!(bench.status(stream), 0x10, "{address:#x} {length}");
            assert_eq!(bench.read(stream) & 2, 0, "it does not run");
            assert_eq!(bench.messages(), before + 1);
            bench.write(stream + 3, &[0x1c]);
        }
        // The list itself lies outside.
        bench.start(stream, 960, 1, FORMAT);
        bench.write(stream, &[0]);
        bench.write(stream + 0x18, &(end as u32).to_le_bytes());
        bench.write(stream, &[RUN]);
        bench.pass(5_000);
        assert_eq!(bench.status(stream), 0x10);
        // The control: after all that, a good one runs.
        bench.list(&[(BUFFER, 960, 1)]);
        bench.start(stream, 960, 1, FORMAT);
        bench.pass(5_000);
        assert_eq!(bench.status(stream), 0x24);
    }
}

#[test]
fn a_turn_is_bounded_whatever_is_listed_and_however_long_it_was_away() {
    let bench = Bench::new();
    bench.connect();
    // Bytes one by one: 512 descriptors a turn, and the rest is left out.
    let bytes: Vec<_> = (0..256).map(|at| (BUFFER + at, 1, 1)).collect();
    bench.list(&bytes);
    bench.start(OUTPUT, 256, 255, FORMAT);
    bench.pass(20_000);
    assert_eq!(bench.heard().len(), 512);
    // An hour asleep is 50 ms.
    bench.list(&[(BUFFER, 0x1_0000, 0)]);
    bench.start(OUTPUT, 0x1_0000, 1, FORMAT);
    bench.pass(3_600_000_000);
    assert_eq!(bench.heard().len(), 9600);
    bench.pass(5_000);
    assert_eq!(bench.heard().len(), 960, "and then it goes on as before");
}

#[test]
fn formats_that_the_codec_does_not_offer_do_not_move() {
    let bench = Bench::new();
    bench.connect();
    bench.list(&[(BUFFER, 960, 1)]);
    for format in [0, 0x0010, 0x001f, 0x0031, 0x7fff, 0x8011, 0xffff] {
        bench.start(OUTPUT, 960, 1, format);
        bench.pass(20_000);
        assert_eq!((bench.read(OUTPUT + 4), bench.heard()), (0, vec![]));
    }
    bench.start(OUTPUT, 960, 1, FORMAT);
    // What is set while it runs is not taken.
    bench.write(OUTPUT + 0x12, &[0xff, 0xff]);
    bench.write(OUTPUT + 0x08, &[0; 4]);
    bench.pass(2_500);
    assert_eq!(bench.heard().len(), 480);
}

#[test]
fn a_storm_of_commands_is_answered_once_each() {
    let bench = Bench::new();
    for index in 0..256 {
        let place = GuestAddress(COMMANDS + index * 4);
        bench.ram.write_obj(0x000f_0000_u32, place).unwrap();
    }
    let before = bench.messages();
    bench.write(0x48, &[0xff]);
    assert_eq!(bench.read(0x58) & 0xff, 0xff);
    // The same place again is no command.
    for _ in 0..1000 {
        bench.write(0x48, &[0xff]);
    }
    assert_eq!(bench.read(0x58) & 0xff, 0xff);
    assert_eq!(bench.messages(), before + 1, "and told once until cleared");
    // Rings outside memory stop, and start again where they are not.
    for (register, inside) in [(0x40, COMMANDS), (0x50, ANSWERS)] {
        bench.write(register, &(RAM as u32).to_le_bytes());
        bench.write(0x48, &[0x10]);
        assert_eq!(bench.read(0x4c) & 0x102, 0x100, "stopped by an error");
        bench.write(register, &(inside as u32).to_le_bytes());
        bench.write(0x4d, &[1]);
        bench.write(0x4c, &[2]);
        assert_eq!(bench.command(0x000f_0000), 0x1af4_0022);
        bench.write(0x48, &[0xff]);
    }
}

#[test]
fn without_bus_mastering_and_in_reset_memory_is_left_alone() {
    let bench = Bench::new();
    bench.connect();
    bench.list(&[(BUFFER, 960, 1)]);
    bench.start(INPUT, 960, 1, FORMAT);
    bench.write(0x70, &(POSITIONS as u32 | 1).to_le_bytes());
    bench.config(0x04, 2);
    let answered = bench.read(0x58);
    bench.write(0x48, &[0x80]);
    bench.pass(5_000);
    assert_eq!((bench.word(BUFFER), bench.word(POSITIONS)), (0, 0));
    assert_eq!(bench.read(0x58), answered);
    bench.config(0x04, 6);
    bench.write(0x08, &[0; 4]);
    bench.write(INPUT, &[RUN]);
    bench.pass(5_000);
    assert_eq!((bench.word(BUFFER), bench.read(INPUT)), (0, 0));
    // The control.
    bench.write(0x08, &[1, 0, 0, 0]);
    bench.write(0x40, &(COMMANDS as u32).to_le_bytes());
    bench.write(0x50, &(ANSWERS as u32).to_le_bytes());
    bench.write(0x4c, &[2]);
    bench.write(0x5c, &[2]);
    bench.connect();
    bench.start(INPUT, 960, 1, FORMAT);
    bench.pass(5_000);
    assert_ne!(bench.word(BUFFER), 0);
}
