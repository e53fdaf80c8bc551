//! Entry points for fuzzers: arbitrary bytes as accesses of a guest to `fw_cfg`, to the flash chip, to the
//! PS/2 controller, to power management with the laptop's window, and to the TPM, whose answers they are as
//! well.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{Bytes as _, GuestAddress};

use super::flash::{BLOCK, Flash, Store};
use super::fw_cfg::{FwCfg, Items, PORTS, key};
use super::laptop::Laptop;
use super::pm::{GPE0, GPE0_LEN, PowerManagement};
use super::ps2::{Ps2Controller, Ps2Port};
use super::tpm::command::{HEADER_LEN, Incoming};
use super::tpm::crb::BUFFER_LEN;
use super::tpm::{Command, Crb, Executor};
use crate::board::layout::{PM_LEN, TPM};
use crate::board::memory::GuestRam;
use crate::board::power::Power;
use crate::bus::BusDevice as _;
use crate::irq::Line;
use crate::supply::Power as Supplies;

/// Guest memory of a fuzzed machine.
const RAM_LEN: usize = 64 * 1024;
/// What of an input is guest memory.
const MEMORY_LEN: usize = 64;
/// Blocks of a fuzzed chip.
const BLOCKS: usize = 3;

/// Reads `data` as guest memory and then as accesses to the ports: kind, port, length and a value of
/// four bytes.
///
/// # Panics
/// If a transfer wrote behind the end of memory or the device finds no end: what a fuzzer is to find.
pub fn fw_cfg(data: &[u8]) {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]);
    let (Ok(ram), Some((memory, accesses))) = (ram, data.split_at_checked(MEMORY_LEN)) else {
        return;
    };
    if ram.write_slice(memory, GuestAddress(0)).is_err() {
        return;
    }
    let mut items = Items::new();
    items.add(key::KERNEL, vec![0x5a; 1000]);
    items.add_file("etc/e820", vec![1; 20]);
    let mut made = 0;
    let refresh = move || {
        made += 1;
        Some(vec![("etc/table-loader", vec![7; made % 512])])
    };
    let mut device = FwCfg::new(ram, items, Box::new(refresh));
    for access in accesses.chunks_exact(7) {
        let [kind, port, length, value @ ..] = access else {
            return;
        };
        let offset = u64::from(*port) % PORTS;
        let length = 1_usize << (length & 3);
        let mut wide = [0; 8];
        wide[..4].copy_from_slice(value);
        if kind & 1 == 0 {
            device.read(offset, &mut wide[..length]);
        } else {
            device.write(offset, &wide[..length]);
        }
    }
}

/// A store that fails now and then.
#[derive(Clone)]
struct File(Arc<Mutex<(Vec<u8>, u32)>>);

impl Store for File {
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1 += 1;
        if kept.1.is_multiple_of(3) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        kept.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Reads `data` as accesses to the chip: kind, a place of two bytes, and a value.
///
/// # Panics
/// If what is kept is in the end not what the guest reads: what a fuzzer is to find.
pub fn flash(data: &[u8]) {
    let size = BLOCKS * BLOCK;
    // The chip keeps its cells for ever; so all chips of a thread have the same.
    thread_local! {
        static CELLS: &'static [AtomicU8] =
            Vec::leak((0..BLOCKS * BLOCK).map(|_| AtomicU8::new(0)).collect());
    }
    let cells = CELLS.with(|cells| *cells);
    for cell in cells {
        cell.store(0xff, Ordering::Relaxed);
    }
    let file = File(Arc::new(Mutex::new((vec![0xff; size], 0))));
    let mut chip = Flash::new(cells, Box::new(file.clone()));
    for access in data.chunks_exact(4) {
        let [kind, low, high, value] = access else {
            return;
        };
        let offset = u64::from(u16::from_le_bytes([*low, *high]));
        let length = 1_usize << (kind >> 1 & 3);
        if kind & 1 == 0 {
            chip.read(offset, &mut [0; 8][..length]);
        } else {
            chip.write(offset, &[*value; 8][..length]);
        }
    }
    // Whatever mode it was in, the last of these reads the array; and what failed is tried again.
    for _ in 0..4 {
        chip.write(0, &[0xff]);
    }
    let kept = file.0.lock().unwrap_or_else(PoisonError::into_inner);
    let read = |cell: &AtomicU8| cell.load(Ordering::Relaxed);
    assert!(cells.iter().map(read).eq(kept.0.iter().copied()));
}

/// A wire that leads nowhere.
struct Cut;

impl Line for Cut {
    fn set(&self, _high: bool) {}
}

/// Reads `data` as what guest and person do with the PS/2 controller in turns: who and what, and a
/// value of two bytes.
///
/// # Panics
/// If there is no end to what the guest may read: what a fuzzer is to find.
pub fn ps2(data: &[u8]) {
    /// More bytes than keyboard, mouse and controller may keep together: a movement of the farthest
    /// kept is some hundred packets, for each button that was pressed between.
    const MOST: usize = 1 << 16;
    let Ok(power) = Power::new() else {
        return;
    };
    let controller = Ps2Controller::new(Box::new(Cut), Box::new(Cut), Arc::new(power));
    let controller = Arc::new(Mutex::new(controller));
    let (mut port, mut command) = Ps2Port::pair(&controller);
    let person = || controller.lock().unwrap_or_else(PoisonError::into_inner);
    for act in data.chunks_exact(3) {
        let [who, low, high] = act else {
            return;
        };
        let value = u16::from_le_bytes([*low, *high]);
        let (signed, turned) = (
            i32::from(value.cast_signed()),
            i32::from(high.cast_signed()),
        );
        match who & 7 {
            0 => port.write(0, &[*low]),
            1 => command.write(0, &[*low]),
            2 | 3 => port.read(0, &mut [0]),
            4 => command.read(0, &mut [0]),
            5 => person().key(value & 0x3ff, who & 8 != 0),
            6 => person().moved(signed, turned, turned >> 4),
            _ => person().all_up(),
        }
    }
    // Keyboard and mouse on, no interrupts: all that waits is read.
    command.write(0, &[0x60]);
    port.write(0, &[0]);
    person().all_up();
    for _ in 0..MOST {
        let mut status = [0];
        command.read(0, &mut status);
        if status[0] & 1 == 0 {
            return;
        }
        port.read(0, &mut [0]);
    }
    panic!("the guest may read without end");
}

/// A wire that shows its level.
#[derive(Clone, Default)]
struct Lamp(Arc<AtomicBool>);

impl Line for Lamp {
    fn set(&self, high: bool) {
        self.0.store(high, Ordering::Relaxed);
    }
}

/// Reads `data` as what guest and laptop do in turns: who and what, a place, and a value of four bytes.
///
/// # Panics
/// If the interrupt is not what status and enable registers say, an event that the board does not have can
/// be enabled, or the window keeps something: what a fuzzer is to find.
pub fn power_management(data: &[u8]) {
    const ENABLED: u64 = GPE0 as u64 + GPE0_LEN as u64 / 2;
    let Ok(power) = Power::new() else {
        return;
    };
    let lamp = Lamp::default();
    let block = PowerManagement::new(Box::new(lamp.clone()), Arc::new(power));
    let block = Arc::new(Mutex::new(block));
    let mut window = Laptop::new(Box::new(Arc::clone(&block)));
    for act in data.chunks_exact(6) {
        let [who, place, value @ ..] = act else {
            return;
        };
        let mut wide = [0; 8];
        wide[..4].copy_from_slice(value);
        let length = 1_usize << (who >> 4 & 3);
        let guest = || block.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = u64::from(*place) % u64::from(PM_LEN);
        match who & 7 {
            0 => guest().read(offset, &mut wide[..length]),
            1 | 2 => guest().write(offset, &wide[..length]),
            3 => window.read(offset, &mut wide[..length]),
            4 => {
                let (mut before, mut after) = ([0; 64], [0; 64]);
                window.read(0, &mut before);
                window.write(offset, &wide[..length]);
                window.read(0, &mut after);
                assert_eq!(before, after);
            }
            5 => window.set_lid(place & 1 == 0),
            6 => window.set_power(Supplies {
                online: place & 1 == 0,
                battery: None,
            }),
            _ => match place & 3 {
                0 => window.press_sleep_button(),
                1 => guest().rtc_alarm(),
                _ => guest().press_power_button(),
            },
        }
        let read = |offset| {
            let mut bytes = [0; 8];
            guest().read(offset, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let fixed = read(0);
        let enabled = read(ENABLED);
        assert_eq!(enabled & !0b11_1110, 0);
        let due = fixed & fixed >> 16 & 0xffff != 0 || read(GPE0.into()) & enabled != 0;
        assert_eq!(lamp.0.load(Ordering::Relaxed), due);
    }
}

/// What a TPM was asked last.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Option<Command>>>);

impl Executor for Asked {
    fn execute(&mut self, command: Command) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(asked.is_none(), "there is never more than one command");
        *asked = Some(command);
    }

    fn cancel(&mut self) {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(asked.is_some(), "there is something to cancel");
    }
}

/// Reads `data` as accesses to the TPM's registers and as pieces of what swtpm answers: kind, length, a
/// place of two bytes, and as many bytes as the length tells.
///
/// # Panics
/// If a command goes on that is not in order, the registers tell of another state than the TPM is in, or
/// an answer comes that is not in order: what a fuzzer is to find.
pub fn tpm(mut data: &[u8]) {
    const STATUS: u64 = 0x44;
    const START: u64 = 0x4c;
    let asked = Asked::default();
    let mut device = Crb::new(Box::new(asked.clone()), false);
    let mut incoming = Incoming::default();
    let mut failed = false;
    while let Some(([kind, length, low, high], rest)) = data.split_first_chunk() {
        let offset = u64::from(u16::from_le_bytes([*low, *high])) % (TPM.end - TPM.start);
        let most = if kind & 2 == 0 { 8 } else { 255 };
        let length = usize::from(*length).min(most).min(rest.len());
        let (bytes, behind) = rest.split_at(length);
        data = behind;
        match kind & 3 {
            0 => device.read(offset, &mut [0; 8][..length]),
            2 => {
                let mut command = asked.0.lock().unwrap_or_else(PoisonError::into_inner);
                match incoming.take(bytes) {
                    // What nobody asked for ends the connection before it comes here.
                    _ if command.is_none() => incoming = Incoming::default(),
                    Ok(None) => {}
                    Ok(Some(response)) => {
                        let length = response.bytes().len();
                        assert!((HEADER_LEN..=BUFFER_LEN).contains(&length));
                        device.complete(&response);
                        *command = None;
                    }
                    Err(_) => {
                        device.fail();
                        (failed, *command) = (true, None);
                    }
                }
            }
            _ => device.write(offset, bytes),
        }
        let command = asked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(command) = &*command {
            assert!(!failed, "no command goes to a TPM that has failed");
            assert!((HEADER_LEN..=BUFFER_LEN).contains(&command.bytes().len()));
            assert_eq!(command.bytes()[0], 0x80);
        }
        let (mut start, mut status) = ([0xff], [0xff]);
        device.read(START, &mut start);
        device.read(STATUS, &mut status);
        assert_eq!(start[0] == 1, command.is_some());
        assert_eq!(status[0] & 1 == 1, failed);
    }
}
