//! What the first vCPU finds in its registers in a direct boot: 64-bit mode, flat segments and
//! the low 4 GiB mapped one to one.
//!
//! Source: Linux `Documentation/x86/boot.rst`, "64-bit Boot Protocol".

use kvm_bindings::{kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::board::layout::{BOOT_GDT, BOOT_PAGE_TABLES};
use crate::board::memory::GuestRam;

/// Where the first vCPU starts and what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootEntry {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Address of the zero page.
    pub rsi: u64,
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Present and writable, in every level of the page tables.
const PAGE_PRESENT_WRITE: u64 = 3;
/// A directory entry that maps 2 MiB.
const PAGE_LARGE: u64 = 1 << 7;

/// Selector of the code segment (`__BOOT_CS`).
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment (`__BOOT_DS`).
const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
const TASK_SELECTOR: u16 = 0x20;

/// GDT entries: two unused, 64-bit code, data, and a task state segment without a limit of use.
const GDT: [u64; 5] = [
    0,
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x008f_8b00_0000_ffff,
];

/// Writes the page tables and the GDT that [`boot_sregs`] points to.
pub fn write_tables(ram: &GuestRam) -> Result<(), BootError> {
    let put = |address: u64, value: u64| {
        ram.write_obj(value, GuestAddress(address))
            .map_err(|error| BootError::Memory {
                address,
                reason: error.to_string(),
            })
    };
    for (index, entry) in (0..).zip(GDT) {
        put(BOOT_GDT + index * 8, entry)?;
    }
    let pdpt = BOOT_PAGE_TABLES + 0x1000;
    put(BOOT_PAGE_TABLES, pdpt | PAGE_PRESENT_WRITE)?;
    for gib in 0..4 {
        let directory = pdpt + 0x1000 * (gib + 1);
        put(pdpt + gib * 8, directory | PAGE_PRESENT_WRITE)?;
        for entry in 0..512 {
            let target = (gib << 30) + (entry << 21);
            put(
                directory + entry * 8,
                target | PAGE_PRESENT_WRITE | PAGE_LARGE,
            )?;
        }
    }
    Ok(())
}

/// The special registers of the first vCPU, made from the reset values in `sregs`.
pub fn boot_sregs(mut sregs: kvm_sregs) -> kvm_sregs {
    let code = segment(CODE_SELECTOR, 0xb, true);
    let data = segment(DATA_SELECTOR, 0x3, true);
    sregs.cs = code;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = segment(TASK_SELECTOR, 0xb, false);
    sregs.gdt.base = BOOT_GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = BOOT_PAGE_TABLES;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    sregs
}

fn segment(selector: u16, type_: u8, code_or_data: bool) -> kvm_segment {
    let long = u8::from(selector == CODE_SELECTOR);
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(selector == DATA_SELECTOR),
        s: u8::from(code_or_data),
        l: long,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::memory;

    #[test]
    fn the_low_4_gib_are_mapped_one_to_one() {
        let ram = memory::allocate(32 << 20).unwrap();
        write_tables(&ram).unwrap();
        let entry = |table: u64, index: u64| -> u64 {
            ram.read_obj::<u64>(GuestAddress((table & !0xfff) + index * 8))
                .unwrap()
        };
        for address in [0, 0x10_0000, 0x8000_0000u64, 0xffe0_0000] {
            let pdpt = entry(BOOT_PAGE_TABLES, 0);
            let directory = entry(pdpt, address >> 30);
            let page = entry(directory, (address >> 21) & 511);
            assert_eq!(page, (address & !0x1f_ffff) | 0x83);
        }
    }

    #[test]
    fn the_first_instruction_runs_in_long_mode() {
        let sregs = boot_sregs(kvm_sregs::default());
        assert_eq!(sregs.efer & EFER_LMA, EFER_LMA);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.selector), (1, 0, 0x10));
        assert_eq!((sregs.ds.l, sregs.ds.db, sregs.ds.selector), (0, 1, 0x18));
    }
}
