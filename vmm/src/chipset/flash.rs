//! The flash chip that keeps the firmware's variables: what it takes in outlives the power.
//!
//! Of a real chip's commands it has those that stock OVMF gives (`machine.md`, section 1.1): read
//! array, read and clear status, single-byte program, block erase. The guest reads the array without
//! an exit, through memory that KVM maps read-only. A driver that asks for the status reads it where
//! it asked: so it lies over that one cell until the next command, and nothing has to be mapped anew,
//! which no thread could do once the guest runs.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bus::BusDevice;

/// Bytes that are erased at once.
pub const BLOCK: usize = 4096;

const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: u8 = 0x10;
const PROGRAM_ALTERNATE: u8 = 0x40;
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xd0;

/// Status bits: an erase or a program failed. The chip is always ready, and OVMF takes a chip
/// whose cleared status is not zero for RAM: so "ready" is not shown.
const ERASE_ERROR: u8 = 1 << 5;
const PROGRAM_ERROR: u8 = 1 << 4;

/// Where the chip's content outlives the process.
pub trait Store: Send {
    /// Writes `bytes` at `offset`; on return they survive a power cut.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The next write is a command.
    Command,
    /// The next write is a byte to program.
    Program,
    /// The next write confirms.
    Erase,
}

/// The chip.
pub struct Flash {
    /// The array, which the guest reads by itself.
    cells: &'static [AtomicU8],
    store: Box<dyn Store>,
    mode: Mode,
    status: u8,
    /// The cell that shows the status, and what belongs there.
    covered: Option<(usize, u8)>,
    /// Programmed and not yet in the store.
    dirty: Range<usize>,
    failures: u64,
}

impl Flash {
    /// A chip whose array is `cells`, with what is in `store` in them.
    pub fn new(cells: &'static [AtomicU8], store: Box<dyn Store>) -> Self {
        Self {
            cells,
            store,
            mode: Mode::Command,
            status: 0,
            covered: None,
            dirty: 0..0,
            failures: 0,
        }
    }

    fn command(&mut self, offset: usize, command: u8) {
        match command {
            PROGRAM | PROGRAM_ALTERNATE => self.mode = Mode::Program,
            ERASE => {
                self.commit(PROGRAM_ERROR);
                self.mode = Mode::Erase;
            }
            READ_STATUS => {
                self.commit(PROGRAM_ERROR);
                self.cover(offset);
            }
            CLEAR_STATUS => self.status = 0,
            // "Read array" is 0xff; what is no command reads the array, too.
            _ => self.commit(PROGRAM_ERROR),
        }
    }

    fn cover(&mut self, offset: usize) {
        let belongs = self.cells[offset].swap(self.status, Ordering::Relaxed);
        self.covered = Some((offset, belongs));
    }

    fn uncover(&mut self) {
        if let Some((offset, belongs)) = self.covered.take() {
            self.cells[offset].store(belongs, Ordering::Relaxed);
        }
    }

    /// Programming can only clear bits.
    fn program(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        let joined = self.dirty.is_empty() || (self.dirty.start..=self.dirty.end).contains(&offset);
        if !joined {
            self.commit(PROGRAM_ERROR);
        }
        for (cell, byte) in self.cells[offset..end].iter().zip(bytes) {
            cell.fetch_and(*byte, Ordering::Relaxed);
        }
        self.soil(offset..end);
    }

    fn erase(&mut self, offset: usize) {
        let start = offset - offset % BLOCK;
        let end = (start + BLOCK).min(self.cells.len());
        for cell in &self.cells[start..end] {
            cell.store(0xff, Ordering::Relaxed);
        }
        self.soil(start..end);
        self.commit(ERASE_ERROR);
    }

    fn soil(&mut self, cells: Range<usize>) {
        self.dirty = if self.dirty.is_empty() {
            cells
        } else {
            self.dirty.start.min(cells.start)..self.dirty.end.max(cells.end)
        };
    }

    /// Puts what was programmed into the store. What fails stays to be written with what follows.
    fn commit(&mut self, error_bit: u8) {
        if self.dirty.is_empty() {
            return;
        }
        let cells = &self.cells[self.dirty.clone()];
        let bytes: Vec<u8> = cells
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect();
        match self.store.write(self.dirty.start, &bytes) {
            Ok(()) => self.dirty = 0..0,
            Err(error) => {
                self.status |= error_bit;
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    let failures = self.failures;
                    tracing::error!(
                        %error,
                        failures,
                        "the firmware's variables cannot be kept: what it changed is lost when the \
                         power goes"
                    );
                }
            }
        }
    }
}

impl BusDevice for Flash {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let Some(cells) = place(self.cells, offset, data.len()) else {
            return;
        };
        for (byte, cell) in data.iter_mut().zip(&self.cells[cells]) {
            *byte = cell.load(Ordering::Relaxed);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Some(cells), Some(first)) = (place(self.cells, offset, data.len()), data.first())
        else {
            return;
        };
        self.uncover();
        match std::mem::replace(&mut self.mode, Mode::Command) {
            // The bytes of one write by the driver come one after the other, and "read array" after
            // them: then all are kept at once.
            Mode::Program => self.program(cells.start, data),
            Mode::Erase if *first == ERASE_CONFIRM => self.erase(cells.start),
            Mode::Erase | Mode::Command => self.command(cells.start, *first),
        }
    }
}

/// Where an access lies in the array, if it does wholly.
fn place(cells: &[AtomicU8], offset: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(length)?;
    (end <= cells.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const READ_ARRAY: u8 = 0xff;

    /// A file in memory, and whether it takes anything.
    #[derive(Default)]
    struct Kept {
        writes: Vec<(usize, Vec<u8>)>,
        full: bool,
    }

    #[derive(Clone, Default)]
    struct Bench(Arc<Mutex<Kept>>);

    impl Store for Bench {
        fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
            let mut kept = self.0.lock().unwrap();
            if kept.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            kept.writes.push((offset, bytes.to_vec()));
            Ok(())
        }
    }

    fn chip(content: u8, blocks: usize) -> (Flash, Bench) {
        let cells: Vec<AtomicU8> = (0..blocks * BLOCK)
            .map(|_| AtomicU8::new(content))
            .collect();
        let bench = Bench::default();
        let flash = Flash::new(cells.leak(), Box::new(bench.clone()));
        (flash, bench)
    }

    fn read(flash: &mut Flash, offset: u64) -> u8 {
        let mut byte = [0xee];
        flash.read(offset, &mut byte);
        byte[0]
    }

    fn program(flash: &mut Flash, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            flash.write(at, &[PROGRAM]);
            flash.write(at, &[*byte]);
        }
        flash.write(offset, &[READ_ARRAY]);
    }

    /// `QemuFlashDetected` of edk2 2022.11, then the test for a chip that is write-protected, which
    /// newer ones make.
    #[test]
    fn ovmf_takes_it_for_a_flash_chip() {
        let (mut flash, bench) = chip(0x5a, 2);
        flash.write(16, &[CLEAR_STATUS]);
        flash.write(16, &[READ_STATUS]);
        assert_eq!(read(&mut flash, 16), 0);
        flash.write(16, &[READ_ARRAY]);
        assert_eq!(read(&mut flash, 16), 0x5a);
        flash.write(16, &[PROGRAM]);
        flash.write(16, &[0x5a]);
        flash.write(16, &[READ_STATUS]);
        assert_eq!(read(&mut flash, 16) & PROGRAM_ERROR, 0);
        flash.write(16, &[READ_ARRAY]);
        assert_eq!(read(&mut flash, 16), 0x5a);
        assert_eq!(bench.0.lock().unwrap().writes, [(16, vec![0x5a])]);
    }

    #[test]
    fn programming_clears_bits_and_erasing_sets_a_block() {
        let (mut flash, _) = chip(0xff, 2);
        program(&mut flash, 8, &[0x0f]);
        program(&mut flash, 8, &[0x3c]);
        assert_eq!(read(&mut flash, 8), 0x0c);
        program(&mut flash, BLOCK as u64, &[1]);
        flash.write(100, &[ERASE]);
        flash.write(100, &[ERASE_CONFIRM]);
        assert_eq!(read(&mut flash, 8), 0xff);
        assert_eq!(read(&mut flash, BLOCK as u64), 1, "another block");
        flash.write(BLOCK as u64, &[ERASE]);
        flash.write(BLOCK as u64, &[READ_ARRAY]);
        assert_eq!(read(&mut flash, BLOCK as u64), 1, "not confirmed");
    }

    #[test]
    fn one_write_of_the_driver_is_one_write_to_the_store() {
        let (mut flash, bench) = chip(0xff, 1);
        program(&mut flash, 40, b"BootOrder");
        assert_eq!(
            bench.0.lock().unwrap().writes,
            [(40, b"BootOrder".to_vec())]
        );
        flash.write(0, &[ERASE]);
        flash.write(0, &[ERASE_CONFIRM]);
        let kept = bench.0.lock().unwrap();
        assert_eq!(kept.writes[1], (0, vec![0xff; BLOCK]));
    }

    #[test]
    fn a_byte_elsewhere_keeps_the_order_of_writes() {
        let (mut flash, bench) = chip(0xff, 1);
        for (at, byte) in [(10, 1), (11, 2), (200, 3), (201, 4), (5, 6)] {
            flash.write(at, &[PROGRAM]);
            flash.write(at, &[byte]);
        }
        flash.write(5, &[READ_STATUS]);
        let kept = bench.0.lock().unwrap();
        assert_eq!(
            kept.writes,
            [(10, vec![1, 2]), (200, vec![3, 4]), (5, vec![6])]
        );
    }

    /// Each write of the driver is one in the store: so whatever moment the power goes at, the store
    /// has all writes before some moment and none after it, and of the one between a part.
    #[test]
    fn a_power_cut_loses_at_most_the_write_that_it_cuts() {
        let (mut flash, bench) = chip(0xff, 2);
        let mut states = vec![vec![0xff; 2 * BLOCK]];
        let mut random = 7_u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        for _ in 0..200 {
            let offset = u64::from(next(2 * 4096 - 64));
            if next(10) == 0 {
                flash.write(offset, &[ERASE]);
                flash.write(offset, &[ERASE_CONFIRM]);
            } else {
                let length = next(64) + 1;
                let bytes: Vec<u8> = (0..length).map(|_| next(256).to_le_bytes()[0]).collect();
                program(&mut flash, offset, &bytes);
            }
            let mut state = vec![0; 2 * BLOCK];
            flash.read(0, &mut state);
            states.push(state);
        }
        let kept = bench.0.lock().unwrap();
        assert_eq!(kept.writes.len(), 200);
        let mut image = vec![0xff; 2 * BLOCK];
        for ((offset, bytes), state) in kept.writes.iter().zip(&states[1..]) {
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
            assert!(image == *state);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_told_and_tried_again() {
        let (mut flash, bench) = chip(0xff, 1);
        bench.0.lock().unwrap().full = true;
        program(&mut flash, 0, &[7]);
        flash.write(0, &[READ_STATUS]);
        assert_eq!(read(&mut flash, 0), PROGRAM_ERROR);
        flash.write(0, &[CLEAR_STATUS]);
        bench.0.lock().unwrap().full = false;
        flash.write(0, &[READ_ARRAY]);
        flash.write(0, &[READ_STATUS]);
        assert_eq!(read(&mut flash, 0), 0);
        assert_eq!(bench.0.lock().unwrap().writes, [(0, vec![7])]);
    }

    #[test]
    fn accesses_past_the_end_are_nobodys() {
        let (mut flash, bench) = chip(0xff, 1);
        let last = BLOCK as u64 - 1;
        flash.write(last, &[PROGRAM, 0]);
        flash.write(u64::MAX, &[PROGRAM]);
        flash.write(0, &[]);
        let mut bytes = [0xee; 8];
        flash.read(last, &mut bytes);
        assert_eq!(bytes, [0xee; 8]);
        assert!(bench.0.lock().unwrap().writes.is_empty());
    }
}
