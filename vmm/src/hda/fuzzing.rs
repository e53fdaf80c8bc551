//! Entry point for fuzzers: arbitrary bytes as a guest's accesses to the sound card and as what it
//! leaves in memory for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vm_memory::{Bytes as _, GuestAddress};

use super::controller::BAR_SIZE;
use super::sound::Sound;
use super::stream::MAX_TURN;
use super::{Format, Hda};
use crate::pci::{Nowhere, PciDevice as _};
use crate::virtio::GuestRam;
use crate::worker::{Serve as _, Turn};

const RAM_LEN: usize = 64 * 1024;

/// Holds what it is given against what a turn may be.
struct Judge;

impl Sound for Judge {
    fn play(&mut self, _format: Format, frames: &[u8]) {
        assert!(frames.len() <= MAX_TURN && frames.len().is_multiple_of(Format::FRAME));
    }

    fn record(&mut self, _format: Format, frames: &mut [u8]) {
        assert!(frames.len() <= MAX_TURN && frames.len().is_multiple_of(Format::FRAME));
        frames.fill(0x5a);
    }
}

/// Reads `data` as steps of 8 bytes: kind, length, a place of two bytes and four of content. The card
/// is out of reset and may use memory at the start.
///
/// # Panics
/// If more is moved than a turn may move, or in other than whole frames: what a fuzzer is to find.
pub fn hda(data: &[u8]) {
    let Ok(ram) = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]) else {
        return;
    };
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let clock = move || Duration::from_micros(clock.load(Ordering::Relaxed));
    let made = Hda::new(
        Box::new(Judge),
        Box::new(clock),
        ram.clone(),
        Arc::new(Nowhere),
    );
    let Ok(mut card) = made else {
        return;
    };
    card.write_config(0x04, &[6, 0]);
    card.write_bar(0, 0x08, &[1, 0, 0, 0]);
    for step in data.chunks_exact(8) {
        let [kind, length, low, high, content @ ..] = step else {
            return;
        };
        let place = u64::from(u16::from_le_bytes([*low, *high]));
        let length = 1 << (length % 3);
        match kind % 6 {
            // Most registers are at the beginning.
            0 | 1 => card.write_bar(0, place % 0xc0, &content[..length]),
            2 => card.read_bar(0, place % BAR_SIZE, &mut [0; 8]),
            3 => {
                // The last bytes of memory are not there for all four.
                let _ = ram.write_slice(content, GuestAddress(place));
            }
            4 => {
                let register = u16::try_from(place % 256).unwrap_or(0) & !3;
                card.write_config(register, content);
            }
            _ => {
                time.fetch_add(place, Ordering::Relaxed);
                card.ready(0);
                assert_eq!(card.serve(), Turn::Idle);
            }
        }
    }
}
