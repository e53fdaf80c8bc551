//! What the first vCPU finds in its registers in a direct boot: flat segments, and either 64-bit
//! mode with the low 4 GiB mapped one to one or 32-bit mode without paging.
//!
//! Sources: Linux `Documentation/x86/boot.rst`, "64-bit Boot Protocol"; Xen `docs/misc/pvh.pandoc`,
//! "x86/HVM direct boot ABI".

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::payload::memory_error;
use crate::board::layout::{BOOT_GDT, BOOT_PAGE_TABLES};
use crate::board::memory::GuestRam;

/// Where the first vCPU starts and what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootEntry {
    /// In 64-bit mode, by Linux's boot protocol.
    Long {
        /// Instruction pointer.
        rip: u64,
        /// Stack pointer.
        rsp: u64,
        /// Address of the zero page.
        rsi: u64,
    },
    /// In 32-bit protected mode without paging, by Xen's PVH protocol.
    Protected {
        /// Instruction pointer.
        rip: u32,
        /// Address of the start information.
        rbx: u32,
    },
}

impl BootEntry {
    /// The general registers of the first vCPU.
    pub fn regs(&self) -> kvm_regs {
        let clear = kvm_regs {
            rflags: RFLAGS_RESERVED,
            ..kvm_regs::default()
        };
        match *self {
            Self::Long { rip, rsp, rsi } => kvm_regs {
                rip,
                rsp,
                rsi,
                ..clear
            },
            Self::Protected { rip, rbx } => kvm_regs {
                rip: rip.into(),
                rbx: rbx.into(),
                ..clear
            },
        }
    }

    /// The special registers of the first vCPU, made from the reset values in `sregs`. They point
    /// to what `write_gdt` and `write_page_tables` wrote.
    pub fn sregs(&self, mut sregs: kvm_sregs) -> kvm_sregs {
        let long = matches!(self, Self::Long { .. });
        let data = segment(DATA_SELECTOR, TYPE_DATA, Width::Bits32);
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.tr = segment(TASK_SELECTOR, TYPE_TASK, Width::System);
        sregs.gdt.base = BOOT_GDT;
        sregs.gdt.limit = 5 * 8 - 1;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        if long {
            sregs.cs = segment(CODE_SELECTOR, TYPE_CODE, Width::Bits64);
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = BOOT_PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        } else {
            sregs.cs = segment(CODE_32_SELECTOR, TYPE_CODE, Width::Bits32);
            sregs.tr.limit = TASK_LIMIT;
            sregs.tr.g = 0;
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
        sregs
    }
}

/// The bit of the flags register that is always set; all others clear: no interrupts.
const RFLAGS_RESERVED: u64 = 2;
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

/// Segment types of the processor: code that was accessed, data likewise, a busy task.
const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TASK: u8 = 0xb;
/// Last byte of a 32-bit task state segment, which PVH asks for.
const TASK_LIMIT: u32 = 0x67;

/// Selector of the code segment of the 32-bit entry.
const CODE_32_SELECTOR: u16 = 0x08;
/// Selector of the code segment (`__BOOT_CS`).
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment (`__BOOT_DS`).
const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
const TASK_SELECTOR: u16 = 0x20;

/// GDT entries: one unused, 32-bit code, 64-bit code, data, and a task state segment without a limit
/// of use.
const GDT: [u64; 5] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x008f_8b00_0000_ffff,
];

/// Writes the GDT that [`BootEntry::sregs`] points to.
pub(super) fn write_gdt(ram: &GuestRam) -> Result<(), BootError> {
    for (index, entry) in (0..).zip(GDT) {
        put(ram, BOOT_GDT + index * 8, entry)?;
    }
    Ok(())
}

/// Writes the page tables that [`BootEntry::sregs`] points to in 64-bit mode.
pub(super) fn write_page_tables(ram: &GuestRam) -> Result<(), BootError> {
    let put = |address, value| put(ram, address, value);
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

fn put(ram: &GuestRam, address: u64, value: u64) -> Result<(), BootError> {
    ram.write_obj(value, GuestAddress(address))
        .map_err(|error| memory_error(address, &error))
}

/// How wide a segment's code or data is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
    /// No code and no data.
    System,
}

/// A flat segment.
fn segment(selector: u16, type_: u8, width: Width) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(width == Width::Bits32),
        s: u8::from(width != Width::System),
        l: u8::from(width == Width::Bits64),
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
        write_page_tables(&ram).unwrap();
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
    fn a_bzimage_starts_in_long_mode() {
        let entry = BootEntry::Long {
            rip: 0x10_0200,
            rsp: 0x8ff0,
            rsi: 0x7000,
        };
        let sregs = entry.sregs(kvm_sregs::default());
        assert_eq!(sregs.efer & EFER_LMA, EFER_LMA);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.selector), (1, 0, 0x10));
        assert_eq!((sregs.ds.l, sregs.ds.db, sregs.ds.selector), (0, 1, 0x18));
        let regs = entry.regs();
        assert_eq!((regs.rip, regs.rsp, regs.rsi), (0x10_0200, 0x8ff0, 0x7000));
    }

    #[test]
    fn a_pvh_kernel_starts_in_flat_32_bit_mode_without_paging() {
        let entry = BootEntry::Protected {
            rip: 0x100_0000,
            rbx: 0x7000,
        };
        let sregs = entry.sregs(kvm_sregs::default());
        assert_eq!(sregs.cr0 & (CR0_PE | CR0_PG), CR0_PE);
        assert_eq!((sregs.cr4, sregs.efer), (0, 0));
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.limit), (0, 1, u32::MAX));
        assert_eq!((sregs.tr.limit, sregs.tr.g, sregs.tr.s), (0x67, 0, 0));
        let regs = entry.regs();
        assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0000, 0x7000, 2));
    }
}
