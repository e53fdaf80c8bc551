//! The controller's registers (HDA 3.3), as ICH9 has them: one input and one output stream, rings of
//! 256 commands and answers.

use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress};

use super::codec::Codec;
use super::sound::Sound;
use super::stream::{Direction, MAX_TURN, Stream, high, low};
use crate::virtio::GuestRam;

/// Bytes of the register file.
pub(super) const BAR_SIZE: u64 = 0x4000;

/// One output, one input, 64-bit addresses.
const CAPABILITIES: u32 = 0x1101;
const VERSION: u32 = 1 << 24;
/// Words a frame of the link carries out and in.
const PAYLOAD: u32 = 0x001d_003c;
const RUNS: u32 = 1;
/// The codec's place on the link.
const CODEC: u32 = 1;
const RING_SIZE: u32 = 0x42 << 16;
const RING_RESET: u32 = 1 << 15;
const RING_RUNS: u8 = 1 << 1;
const COMMAND_ERROR: u8 = 1 << 0;
const ANSWERS_INTERRUPT: u8 = 1 << 0;
/// An answer came; one found no room, which does not happen here.
const ANSWERED: u8 = 1 << 0;
const CONTROLLER_INTERRUPT: u32 = 1 << 30;
const GLOBAL_INTERRUPT: u32 = 1 << 31;
const IMMEDIATE_BUSY: u32 = 1 << 0;
const IMMEDIATE_VALID: u32 = 1 << 1;
const POSITIONS_ON: u32 = 1;
const STREAMS: u64 = 0x80;
const STREAM_LEN: u64 = 0x20;
/// The link's clock in MHz, which the wall clock counts.
const CLOCK_MHZ: u128 = 24;

/// A ring of commands or answers: 256 entries.
#[derive(Debug, Default)]
struct Ring {
    base: u64,
    control: u8,
    status: u8,
    written: u8,
    read: u8,
    /// The read pointer is held at zero; the bit reads back until the driver takes it away.
    held: bool,
}

impl Ring {
    fn runs(&self) -> bool {
        self.control & RING_RUNS != 0
    }

    /// Writes a half of the address, which is aligned to 128 bytes.
    fn set_base(&mut self, upper: bool, value: u32, mask: u32) {
        let old = if upper {
            high(self.base)
        } else {
            low(self.base)
        };
        let new = old & !mask | value & mask;
        self.base = if upper {
            u64::from(new) << 32 | u64::from(low(self.base))
        } else {
            self.base & !0xffff_ffff | u64::from(new & !0x7f)
        };
    }
}

/// Registers that a controller reset clears.
#[derive(Debug)]
struct State {
    codec: Codec,
    codecs_changed: u32,
    wakes: u32,
    global: u32,
    enables: u32,
    halted: u32,
    commands: Ring,
    answers: Ring,
    /// Answers after which an interrupt comes; zero is 256.
    answer_count: u8,
    answers_since: u16,
    immediate: [u32; 3],
    positions: [u32; 2],
    streams: [Stream; 2],
    began: Duration,
}

impl State {
    fn new(global: u32, now: Duration) -> Self {
        Self {
            codec: Codec::default(),
            codecs_changed: if global & RUNS != 0 { CODEC } else { 0 },
            wakes: 0,
            global,
            enables: 0,
            halted: 0,
            commands: Ring::default(),
            answers: Ring::default(),
            answer_count: 0,
            answers_since: 0,
            immediate: [0; 3],
            positions: [0; 2],
            // Inputs come first.
            streams: [Direction::Input, Direction::Output].map(Stream::new),
            began: now,
        }
    }
}

/// The controller with its codec.
pub(super) struct Controller {
    state: State,
    ram: GuestRam,
    scratch: Box<[u8; MAX_TURN]>,
}

impl Controller {
    pub(super) fn new(ram: GuestRam) -> Self {
        Self {
            state: State::new(0, Duration::ZERO),
            ram,
            scratch: Box::new([0; MAX_TURN]),
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::new(0, Duration::ZERO);
    }

    /// Whether a stream moves.
    pub(super) fn running(&self) -> bool {
        self.state.streams.iter().any(Stream::running)
    }

    /// Causes of an interrupt that are there and let through, a bit each.
    pub(super) fn interrupts(&self) -> u32 {
        if self.state.enables & GLOBAL_INTERRUPT == 0 {
            return 0;
        }
        self.causes() & self.state.enables
    }

    /// Moves what is due. `master` says whether the function may touch memory.
    pub(super) fn advance(&mut self, now: Duration, master: bool, sound: &mut dyn Sound) {
        let state = &mut self.state;
        for (stream, bit) in state.streams.iter_mut().zip(0..) {
            if !master || state.halted & 1 << bit != 0 {
                stream.hold(now);
                continue;
            }
            stream.advance(now, &self.ram, &state.codec, sound, &mut self.scratch);
        }
        let [base, upper] = state.positions;
        if !master || base & POSITIONS_ON == 0 {
            return;
        }
        let base = u64::from(upper) << 32 | u64::from(base & !0x7f);
        for (stream, offset) in state.streams.iter().zip([0, 8]) {
            // A place outside memory gets nothing, as on a real bus.
            let place = GuestAddress(base.saturating_add(offset));
            let _ = self
                .ram
                .write_slice(&stream.position().to_le_bytes(), place);
        }
    }

    /// The four bytes of registers at `offset`, a multiple of four.
    pub(super) fn read(&self, offset: u64, now: Duration) -> u32 {
        let state = &self.state;
        let (commands, answers) = (&state.commands, &state.answers);
        match offset {
            0x00 => CAPABILITIES | VERSION,
            0x04 | 0x18 => PAYLOAD,
            0x08 => state.global,
            0x0c => state.wakes | state.codecs_changed << 16,
            0x20 => state.enables,
            0x24 => {
                let causes = self.causes();
                let global = causes & state.enables != 0;
                causes | if global { GLOBAL_INTERRUPT } else { 0 }
            }
            0x30 | 0x2030 => self.wall_clock(now),
            0x34 | 0x38 => state.halted,
            0x40 => low(commands.base),
            0x44 => high(commands.base),
            0x48 => {
                u32::from(commands.written)
                    | u32::from(commands.read) << 16
                    | u32::from(commands.held) << 31
            }
            0x4c => ring_word(commands),
            0x50 => low(answers.base),
            0x54 => high(answers.base),
            0x58 => u32::from(answers.written) | u32::from(state.answer_count) << 16,
            0x5c => ring_word(answers),
            0x60 => state.immediate[0],
            0x64 => state.immediate[1],
            0x68 => state.immediate[2],
            0x70 => state.positions[0],
            0x74 => state.positions[1],
            // Positions once more, in a page that a driver may give to programs.
            0x2084 => state.streams[0].position(),
            0x20a4 => state.streams[1].position(),
            _ => match stream(offset) {
                Some((index, register)) => state.streams[index].read(register),
                None => 0,
            },
        }
    }

    /// Writes the bits of `mask` to the four bytes at `offset`.
    pub(super) fn write(
        &mut self,
        offset: u64,
        value: u32,
        mask: u32,
        now: Duration,
        master: bool,
    ) {
        let state = &mut self.state;
        if offset == 0x08 {
            return self.set_global(value, mask, now);
        }
        if state.global & RUNS == 0 {
            return;
        }
        let merge = |old: u32| old & !mask | value & mask;
        let byte = |index: usize| (value & mask).to_le_bytes()[index];
        match offset {
            0x0c => {
                state.wakes = merge(state.wakes) & CODEC;
                state.codecs_changed &= !((value & mask) >> 16);
            }
            0x20 => state.enables = merge(state.enables) & 0xc000_0003,
            0x34 | 0x38 => state.halted = merge(state.halted) & 3,
            0x40 | 0x44 => state.commands.set_base(offset == 0x44, value, mask),
            0x48 => self.set_command_pointers(value, mask, master),
            0x4c => {
                let commands = &mut state.commands;
                commands.control = merge(commands.control.into()).to_le_bytes()[0] & 3;
                commands.status &= !byte(1);
                self.run_commands(master);
            }
            0x50 | 0x54 => state.answers.set_base(offset == 0x54, value, mask),
            0x58 => {
                if value & mask & RING_RESET != 0 {
                    state.answers.written = 0;
                }
                let count = merge(u32::from(state.answer_count) << 16);
                state.answer_count = count.to_le_bytes()[2];
            }
            0x5c => {
                let answers = &mut state.answers;
                answers.control = merge(answers.control.into()).to_le_bytes()[0] & 7;
                answers.status &= !byte(1);
                self.run_commands(master);
            }
            0x60 => state.immediate[0] = merge(state.immediate[0]),
            0x68 => self.immediate(value & mask),
            0x70 => state.positions[0] = merge(state.positions[0]) & !0x7e,
            0x74 => state.positions[1] = merge(state.positions[1]),
            _ => {
                if let Some((index, register)) = stream(offset) {
                    state.streams[index].write(register, value, mask, now);
                }
            }
        }
    }

    fn causes(&self) -> u32 {
        let state = &self.state;
        let answered = state.answers.status & state.answers.control & ANSWERED != 0;
        let failed = state.commands.status & state.commands.control & COMMAND_ERROR != 0;
        let woken = state.codecs_changed & state.wakes != 0;
        let own = answered || failed || woken;
        let streams = state.streams.iter().zip(0..);
        let own = if own { CONTROLLER_INTERRUPT } else { 0 };
        streams.fold(own, |causes, (stream, bit)| {
            causes | u32::from(stream.interrupts()) << bit
        })
    }

    fn wall_clock(&self, now: Duration) -> u32 {
        let ticks = now.saturating_sub(self.state.began).as_nanos() * CLOCK_MHZ / 1000;
        u32::try_from(ticks & 0xffff_ffff).unwrap_or_default()
    }

    fn set_global(&mut self, value: u32, mask: u32, now: Duration) {
        let global = (self.state.global & !mask | value & mask) & 0x101;
        if (global ^ self.state.global) & RUNS != 0 {
            self.state = State::new(global, now);
        }
        self.state.global = global;
    }

    fn set_command_pointers(&mut self, value: u32, mask: u32, master: bool) {
        let commands = &mut self.state.commands;
        if mask & RING_RESET << 16 != 0 {
            commands.held = value & RING_RESET << 16 != 0;
            if commands.held {
                commands.read = 0;
            }
        }
        if mask & 0xff != 0 {
            commands.written = value.to_le_bytes()[0];
            self.run_commands(master);
        }
    }

    /// Answers all commands of the ring: 255 at most, however often the driver rings.
    fn run_commands(&mut self, master: bool) {
        let state = &mut self.state;
        if !master || state.commands.held || !state.commands.runs() || !state.answers.runs() {
            return;
        }
        while state.commands.read != state.commands.written {
            let next = state.commands.read.wrapping_add(1);
            let mut command = [0; 4];
            let place = state.commands.base.saturating_add(u64::from(next) * 4);
            if self
                .ram
                .read_slice(&mut command, GuestAddress(place))
                .is_err()
            {
                state.commands.status |= COMMAND_ERROR;
                state.commands.control &= !RING_RUNS;
                return;
            }
            state.commands.read = next;
            let Some(answer) = state.codec.command(u32::from_le_bytes(command)) else {
                continue;
            };
            let written = state.answers.written.wrapping_add(1);
            let place = state.answers.base.saturating_add(u64::from(written) * 8);
            // Codec 0, asked for: the upper half is zero.
            let entry = u64::from(answer).to_le_bytes();
            if self.ram.write_slice(&entry, GuestAddress(place)).is_err() {
                state.commands.status |= COMMAND_ERROR;
                state.commands.control &= !RING_RUNS;
                return;
            }
            state.answers.written = written;
            state.answers_since += 1;
            let enough = match state.answer_count {
                0 => 256,
                count => count.into(),
            };
            // The interrupt also comes when no more answers do.
            if state.answers_since >= enough || next == state.commands.written {
                state.answers_since = 0;
                if state.answers.control & ANSWERS_INTERRUPT != 0 {
                    state.answers.status |= ANSWERED;
                }
            }
        }
    }

    /// A single command past the rings.
    fn immediate(&mut self, value: u32) {
        let state = &mut self.state;
        let [command, answer, status] = &mut state.immediate;
        if value & IMMEDIATE_VALID != 0 {
            *status &= !IMMEDIATE_VALID;
        }
        if value & IMMEDIATE_BUSY != 0
            && let Some(word) = state.codec.command(*command)
        {
            *answer = word;
            *status |= IMMEDIATE_VALID;
        }
    }
}

/// Control, status and size of a ring.
fn ring_word(ring: &Ring) -> u32 {
    u32::from(ring.control) | u32::from(ring.status) << 8 | RING_SIZE
}

/// The stream whose register lies at `offset`, and which it is.
fn stream(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(STREAMS)?;
    let index = usize::try_from(offset / STREAM_LEN).ok()?;
    (index < 2).then_some((index, offset % STREAM_LEN))
}
