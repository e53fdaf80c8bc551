//! Entry point for fuzzers: arbitrary bytes as a guest's accesses to the screen, and as a seat's
//! messages.

use std::io;

use rustix::net::SendFlags;
use sekisho_seatlink::{Link, Mode, Picture};

use super::{Aperture, Display, InputSink, MIN_PREFERRED, Vram, vram_size};
use crate::pci::PciDevice as _;
use crate::worker::{Serve as _, Turn};

/// A guest that leaves the memory to the function.
struct Nowhere;

impl Aperture for Nowhere {
    fn place(&mut self, _address: Option<u64>) -> io::Result<()> {
        Ok(())
    }

    fn written(&mut self) -> io::Result<Vec<u64>> {
        Ok(Vec::new())
    }
}

struct Deaf;

impl InputSink for Deaf {
    fn input(&mut self, _input: sekisho_seatlink::Input) {}
}

/// Reads `data` as accesses and messages of 12 bytes: kind, length, a place of two bytes and eight of
/// content.
///
/// # Panics
/// If the seat is told of a picture outside the memory or of a change outside the picture: what a
/// fuzzer is to find.
pub fn display(data: &[u8]) {
    // A screen keeps its memory for ever; so all screens of a thread are one, which is reset.
    thread_local! {
        static SCREEN: std::cell::RefCell<Option<Display>> = std::cell::RefCell::default();
    }
    SCREEN.with_borrow_mut(|screen| {
        if screen.is_none() {
            *screen = fresh();
        }
        if let (Some(screen), Ok((vmm, seat))) = (screen, Link::pair()) {
            screen.reset();
            screen.set_sink(Box::new(Deaf));
            run(screen, vmm, &seat, data);
        }
    });
}

fn fresh() -> Option<Display> {
    let mode = Mode::new(MIN_PREFERRED.0, MIN_PREFERRED.1)?;
    let vram = Vram::new(vram_size(mode)).ok()?;
    Display::new(mode, vram, Box::new(Nowhere)).ok()
}

fn run(screen: &mut Display, vmm: Link, seat: &Link, data: &[u8]) {
    let size = screen.screen.vram.cells().len() as u64;
    screen.seat = Some(super::Seat::new(vmm));
    let mut shown = None;
    for step in data.chunks_exact(12) {
        let [kind, length, low, high, content @ ..] = step else {
            return;
        };
        let offset = u64::from(u16::from_le_bytes([*low, *high]));
        let length = 1_usize << (length & 3);
        let register = offset % super::regs::BAR_SIZE;
        match kind % 7 {
            0 => screen.write_bar(2, register, &content[..length]),
            1 => screen.read_bar(2, register, &mut [0; 8][..length]),
            2 => screen.write_bar(0, offset << 9, &content[..length]),
            3 => screen.read_bar(0, offset << 9, &mut [0; 8][..length]),
            4 => {
                let register = u16::try_from(offset % 4096).unwrap_or(0) & !3;
                screen.write_config(register, &content[..4]);
                screen.bar_moved(0, None);
            }
            5 => {
                // A message of the seat's, most of it zero.
                let mut message = [0; 32];
                message[0] = content[0] % 9;
                message[4] = content[1] & 1;
                message[8..10].copy_from_slice(&content[2..4]);
                message[12..14].copy_from_slice(&content[4..6]);
                let _ =
                    rustix::net::send(seat, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
            _ => {
                screen.ready(super::SEAT);
                // As if a frame had passed.
                if let Some(seat) = &mut screen.seat {
                    seat.forget_time();
                }
                for _ in 0..100 {
                    if screen.serve() == Turn::Idle {
                        break;
                    }
                }
            }
        }
        while let Ok(Some((picture, _))) = seat.picture() {
            match picture {
                Picture::Shown(_, scanout) => {
                    assert!(scanout.end() <= size);
                    shown = Some(scanout.mode());
                }
                Picture::Damage(_, part) => {
                    assert_eq!(shown.and_then(|mode| part.within(mode)), Some(part));
                }
                _ => shown = None,
            }
        }
    }
}
