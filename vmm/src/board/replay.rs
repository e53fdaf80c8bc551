//! A stock OVMF's own accesses, in their order, on our chipset without KVM: recorded from Debian's
//! OVMF 2022.11 on an emulated Q35 that had nothing but what it cannot be without. What the other
//! board answered, ours has to answer, where the answer does not depend on what else is plugged in.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};

use super::firmware::lazy_tables;
use super::layout::{ECAM, FLASH_END, FW_CFG, LOW_RAM_LIMIT, PCI_MMIO32, pci_mmio64};
use super::memory::allocate;
use super::ports::PciMemory;
use super::power::Power;
use super::{Equipment, LPC_SLOT, solder};
use crate::acpi::Hardware;
use crate::boot;
use crate::bus::Bus;
use crate::chipset::flash::{Flash, Store};
use crate::chipset::fw_cfg::{self, FwCfg};
use crate::chipset::lpc::LpcBridge;
use crate::irq::Line;
use crate::pci::{HostBridge, PciBus, Windows};

/// One access a line: `io` or `mem`, `r` or `w`, address and length; what is written, or read where
/// that is compared.
const TRACE: &str = include_str!("ovmf-2022.11.trace");
/// `OVMF_VARS_4M.fd` and `OVMF_CODE_4M.fd`.
const VARIABLES_LEN: usize = 540_672;
const CODE_LEN: u64 = 3_653_632;
const MEMORY: u64 = 512 << 20;

struct Unconnected;

impl Line for Unconnected {
    fn set(&self, _high: bool) {}
}

/// A store that keeps nothing.
struct Nothing;

impl Store for Nothing {
    fn write(&mut self, _offset: usize, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Port bus and memory bus.
fn board() -> (Bus, Bus) {
    let mmio64 = pci_mmio64(40);
    let windows = Windows {
        mmio32: PCI_MMIO32,
        mmio64: mmio64.clone(),
    };
    let pci = Arc::new(PciBus::new(HostBridge::new(None), windows));
    pci.attach(LPC_SLOT, Arc::new(Mutex::new(LpcBridge::new())))
        .unwrap();
    let equipment = Equipment {
        paravirt: crate::cpu::Paravirt::Kvm,
        memory: MEMORY,
        cpus: 1,
        ps2: false,
        laptop: false,
        serial: None,
    };
    let (mut ports, mut memory) = (Bus::new(), Bus::new());
    let line = |_| -> Box<dyn Line> { Box::new(Unconnected) };
    let power = Arc::new(Power::new().unwrap());
    solder(&mut ports, &line, &pci, power, equipment).unwrap();

    let hardware = Hardware {
        cpus: 1,
        ps2: false,
        serial: false,
        tpm: false,
        laptop: false,
        ecam: ECAM,
        mmio64,
    };
    let items = boot::items(MEMORY, 1, &[], None).unwrap();
    let ram = allocate(MEMORY).unwrap();
    let device = FwCfg::new(ram, items, lazy_tables(Arc::clone(&pci), hardware));
    let device = Arc::new(Mutex::new(device));
    ports.add(FW_CFG.into(), fw_cfg::PORTS, device).unwrap();

    let windows: Range<u64> = LOW_RAM_LIMIT..PCI_MMIO32.end;
    let target = Arc::new(PciMemory::new(pci, windows.start));
    memory
        .add(windows.start, windows.end - windows.start, target)
        .unwrap();
    let cells: Vec<AtomicU8> = (0..VARIABLES_LEN).map(|_| AtomicU8::new(0xff)).collect();
    let flash = Flash::new(cells.leak(), Box::new(Nothing));
    let length = VARIABLES_LEN as u64;
    let flash = Arc::new(Mutex::new(flash));
    memory
        .add(FLASH_END - CODE_LEN - length, length, flash)
        .unwrap();
    (ports, memory)
}

fn hex(word: Option<&str>) -> u64 {
    u64::from_str_radix(word.unwrap(), 16).unwrap()
}

#[test]
fn ovmf_finds_the_board_that_it_was_built_for() {
    let (ports, memory) = board();
    let (mut accesses, mut compared) = (0, 0);
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(TRACE.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(space) = words.next() else {
            continue;
        };
        let bus = if space == "io" { &ports } else { &memory };
        let direction = words.next().unwrap();
        let (address, length) = (hex(words.next()), hex(words.next()));
        let length = usize::try_from(length).unwrap();
        let value = words.next().map(|word| hex(Some(word)));
        accesses += 1;
        if direction == "w" {
            bus.write(address, &value.unwrap().to_le_bytes()[..length]);
            continue;
        }
        let mut data = [0; 8];
        bus.read(address, &mut data[..length]);
        if let Some(expected) = value {
            compared += 1;
            let found = u64::from_le_bytes(data);
            if found != expected {
                wrong.push(format!("line {number}: {line}: {found:x}"));
            }
        }
    }
    println!("{accesses} accesses, {compared} answers compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accesses > 1000 && compared > 300);
}
