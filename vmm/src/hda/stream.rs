//! One stream: its descriptor's registers, and its way through the buffers that the guest lists
//! (HDA 3.3.35 to 3.3.45, 3.6).

use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress};

use super::codec::{Codec, Format};
use super::sound::Sound;
use crate::virtio::GuestRam;

/// Most bytes that one turn moves: 50 ms at 48 kHz. What was due beyond that, because the host slept
/// or was busy, is left out.
pub(super) const MAX_TURN: usize = 9600;
/// Most descriptors that one turn fetches. Drivers' are of a page or more; a turn of the shortest
/// lawful ones would need `MAX_TURN / 2`.
const MAX_DESCRIPTORS: usize = 512;

const RESET: u32 = 1 << 0;
const RUN: u32 = 1 << 1;
const ENABLES: u8 = 0b1_1100;
/// What of the control register can be set: stream number, traffic priority, interrupts, run, reset.
const CONTROL: u32 = 0x00f4_001f;
/// Buffer complete; descriptor error.
const COMPLETE: u8 = 1 << 2;
const DESCRIPTOR_ERROR: u8 = 1 << 4;
const FIFO_READY: u8 = 1 << 5;
/// Bytes of FIFO that the register claims.
const FIFO: u32 = 0xc0;

/// Which way samples go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the microphone into guest memory.
    Input,
    /// From guest memory to the speaker.
    Output,
}

/// The rest of a buffer that a descriptor named.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    address: u64,
    left: u32,
    interrupts: bool,
}

/// A stream descriptor.
#[derive(Debug)]
pub(super) struct Stream {
    direction: Direction,
    control: u32,
    status: u8,
    position: u32,
    length: u32,
    last: u8,
    format: u16,
    list: u64,
    next: u8,
    buffer: Option<Buffer>,
    /// From when on bytes are counted, and how many have been moved since.
    since: (Duration, u64),
}

impl Stream {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            control: 0,
            status: 0,
            position: 0,
            length: 0,
            last: 0,
            format: 0,
            list: 0,
            next: 0,
            buffer: None,
            since: (Duration::ZERO, 0),
        }
    }

    pub(super) fn running(&self) -> bool {
        self.control & RUN != 0
    }

    /// Status bits whose interrupts are on.
    pub(super) fn interrupts(&self) -> bool {
        // Enables lie at the same places as what they enable.
        self.status & self.control.to_le_bytes()[0] & ENABLES != 0
    }

    /// Bytes moved since the beginning of the cyclic buffer.
    pub(super) fn position(&self) -> u32 {
        self.position
    }

    /// Registers at `offset` (0, 4, … 28) of the descriptor.
    pub(super) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.control | u32::from(self.status | self.ready()) << 24,
            0x04 => self.position,
            0x08 => self.length,
            0x0c => self.last.into(),
            0x10 => FIFO | u32::from(self.format) << 16,
            0x18 => low(self.list),
            0x1c => high(self.list),
            _ => 0,
        }
    }

    /// Writes the bits of `mask`. What must not change while the stream runs does not.
    pub(super) fn write(&mut self, offset: u64, value: u32, mask: u32, now: Duration) {
        let merge = |old: u32| old & !mask | value & mask;
        match offset {
            0x00 => {
                self.status &= !(value & mask).to_le_bytes()[3];
                self.set_control(merge(self.control) & CONTROL, now);
            }
            _ if self.running() => {}
            0x08 => self.length = merge(self.length),
            0x0c => self.last = merge(self.last.into()).to_le_bytes()[0],
            0x10 => {
                let [_, _, low, high] = merge(u32::from(self.format) << 16).to_le_bytes();
                self.format = u16::from_le_bytes([low, high]);
            }
            // The list is aligned to 128 bytes.
            0x18 => self.list = self.list & !0xffff_ffff | u64::from(merge(low(self.list)) & !0x7f),
            0x1c => self.list = u64::from(merge(high(self.list))) << 32 | u64::from(low(self.list)),
            _ => {}
        }
    }

    /// Lets the time up to `now` pass without a byte.
    pub(super) fn hold(&mut self, now: Duration) {
        self.since = (now, 0);
    }

    /// Moves what is due at `now`. `scratch` is working memory.
    pub(super) fn advance(
        &mut self,
        now: Duration,
        ram: &GuestRam,
        codec: &Codec,
        sound: &mut dyn Sound,
        scratch: &mut [u8; MAX_TURN],
    ) {
        // A format that the codec does not offer has no speed.
        let Some(format) = Format::parse(self.format).filter(|_| self.running()) else {
            return self.hold(now);
        };
        let due = self.due(now, format);
        let Some(bytes) = scratch.get_mut(..due).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        let tag = self.control.to_le_bytes()[2] >> 4;
        if self.direction == Direction::Input {
            sound.record(format, bytes);
            codec.record(tag, bytes);
        }
        let moved = match self.walk(bytes, ram) {
            Ok(moved) => moved,
            Err(moved) => {
                self.status |= DESCRIPTOR_ERROR;
                self.control &= !RUN;
                moved
            }
        };
        if self.direction == Direction::Output {
            let whole = moved / Format::FRAME * Format::FRAME;
            let bytes = &mut bytes[..whole];
            codec.play(tag, bytes);
            sound.play(format, bytes);
        }
    }

    fn ready(&self) -> u8 {
        if self.running() { FIFO_READY } else { 0 }
    }

    fn set_control(&mut self, control: u32, now: Duration) {
        if control & RESET != 0 {
            *self = Self::new(self.direction);
            self.control = RESET;
            return;
        }
        if control & RUN != 0 && !self.running() {
            self.hold(now);
        }
        self.control = control;
    }

    /// Whole frames that are due, in bytes, and taken as moved.
    fn due(&mut self, now: Duration, format: Format) -> usize {
        let (since, moved) = self.since;
        let speed = u128::from(format.bytes_per_second());
        let elapsed = now.saturating_sub(since).as_nanos();
        let total = u64::try_from(elapsed * speed / 1_000_000_000).unwrap_or(u64::MAX);
        let frame = Format::FRAME as u64;
        let due = total.saturating_sub(moved) / frame * frame;
        match usize::try_from(due) {
            Ok(due) if due <= MAX_TURN => {
                self.since.1 += due as u64;
                due
            }
            _ => {
                self.hold(now);
                MAX_TURN
            }
        }
    }

    /// Carries bytes from or to the guest's buffers. How many; as an error, where the list is none.
    fn walk(&mut self, bytes: &mut [u8], ram: &GuestRam) -> Result<usize, usize> {
        let mut done = 0;
        let mut fetched = 0;
        while done < bytes.len() {
            if self.buffer.is_none() {
                if fetched == MAX_DESCRIPTORS {
                    break;
                }
                fetched += 1;
                self.buffer = Some(self.fetch(ram).ok_or(done)?);
            }
            let Some(buffer) = &mut self.buffer else {
                break;
            };
            let room = self.length.saturating_sub(self.position).min(buffer.left);
            let count = (bytes.len() - done).min(usize::try_from(room).unwrap_or(usize::MAX));
            if count == 0 {
                // A cyclic buffer of no length.
                return Err(done);
            }
            let part = &mut bytes[done..done + count];
            let place = GuestAddress(buffer.address);
            let moved = match self.direction {
                Direction::Input => ram.write_slice(part, place),
                Direction::Output => ram.read_slice(part, place),
            };
            moved.map_err(|_| done)?;
            done += count;
            // As large as `room` at most.
            let count = u32::try_from(count).unwrap_or(room);
            buffer.address += u64::from(count);
            buffer.left -= count;
            self.position += count;
            if self.position == self.length {
                self.position = 0;
            }
            if buffer.left == 0 {
                if buffer.interrupts {
                    self.status |= COMPLETE;
                }
                self.buffer = None;
                self.next = if self.next >= self.last {
                    0
                } else {
                    self.next + 1
                };
            }
        }
        Ok(done)
    }

    /// Copies the next descriptor out of memory; `None` where it is none.
    fn fetch(&self, ram: &GuestRam) -> Option<Buffer> {
        let place = self.list.checked_add(u64::from(self.next) * 16)?;
        let mut bytes = [0; 16];
        ram.read_slice(&mut bytes, GuestAddress(place)).ok()?;
        let value = u128::from_le_bytes(bytes);
        let word = |shift: u32| u32::try_from(value >> shift & 0xffff_ffff).unwrap_or_default();
        let buffer = Buffer {
            address: u64::from(word(0)) | u64::from(word(32)) << 32,
            left: word(64),
            interrupts: word(96) & 1 != 0,
        };
        buffer.address.checked_add(buffer.left.into())?;
        (buffer.left != 0).then_some(buffer)
    }
}

pub(super) fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

pub(super) fn high(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or_default()
}
