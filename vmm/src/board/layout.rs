//! Where everything is in the guest's address spaces. These addresses are the board's ABI: a
//! guest that is suspended or that caches them must find them again after an update of the VMM.

use std::ops::Range;

/// RAM below the hole ends here at the latest: OVMF puts the 32-bit PCI window at the next power
/// of two, and Debian's build of it wants ECAM at `0xB000_0000`.
pub const LOW_RAM_LIMIT: u64 = 0x8000_0000;
/// RAM goes on above the hole here.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;
/// Where conventional memory ends: the EBDA and the BIOS area follow.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// Where the BIOS area ends and extended memory starts.
pub const EXTENDED_START: u64 = 0x10_0000;

/// GDT of the boot vCPU in a direct boot.
pub const BOOT_GDT: u64 = 0x500;
/// The zero page (`struct boot_params`) of a direct boot.
pub const ZERO_PAGE: u64 = 0x7000;
/// The start information of a kernel that starts by PVH, with its lists behind it: in the place of
/// the zero page, which such a kernel does not get.
pub const PVH_START: u64 = ZERO_PAGE;
/// Page tables of a direct boot: a PML4, a PDPT and four directories, which map the low 4 GiB.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// Top of the stack that the kernel's first instructions find.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Kernel command line of a direct boot.
pub const COMMAND_LINE: u32 = 0x2_0000;
/// The longest command line, with its final zero: what x86 Linux keeps (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_MAX: usize = 2048;

/// The ACPI tables of a direct boot, RSDP first, inside the area that a PC's BIOS is searched
/// for them.
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0x10_0000;

/// ECAM window after reset; firmware may move it by PCIEXBAR.
pub const ECAM: Range<u64> = 0xb000_0000..0xc000_0000;
/// 32-bit PCI memory window.
pub const PCI_MMIO32: Range<u64> = 0xc000_0000..0xfc00_0000;
/// The I/O APIC in the kernel.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The TPM: five localities of a page each, of which the first is there.
pub const TPM: Range<u64> = 0xfed4_0000..0xfed4_5000;
/// The local APICs in the kernel.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// KVM's identity map page for Intel: below the 16 MiB that a flash part may take.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Flash ends at 4 GiB, where the processors start: firmware on top, its variables below it.
pub const FLASH_END: u64 = 0x1_0000_0000;
/// The most that both may take.
pub const FLASH_MAX: u64 = 16 << 20;
/// KVM's task state segment for Intel, three pages, behind the identity map.
pub const KVM_TSS: u64 = 0xfeff_d000;

/// The window for 64-bit BARs of a guest with `width` physical address bits: its top eighth, as
/// OVMF computes it, so that firmware and `_CRS` agree.
pub fn pci_mmio64(width: u32) -> Range<u64> {
    let top = 1u64 << width.clamp(36, 46);
    top - top / 8..top
}

/// ACPI power-management block.
pub const PM_BASE: u16 = 0x600;
/// Length of the power-management block: ICH9's 128 bytes.
pub const PM_LEN: u16 = 0x80;
/// The laptop's window of registers (`chipset/laptop.rs`), behind the power-management block, where drivers
/// for the ICH9 look for nothing.
pub const LAPTOP: u16 = PM_BASE + PM_LEN;
/// System control interrupt.
pub const SCI_IRQ: u32 = 9;
/// COM1.
pub const COM1_BASE: u16 = 0x3f8;
/// Interrupt of COM1.
pub const COM1_IRQ: u32 = 4;
/// CMOS index port; data follows it.
pub const CMOS_BASE: u16 = 0x70;
/// Interrupt of the real-time clock.
pub const RTC_IRQ: u32 = 8;
/// PS/2 controller, data port.
pub const I8042_DATA: u16 = 0x60;
/// PS/2 controller, command and status port.
pub const I8042_COMMAND: u16 = 0x64;
/// Interrupt of the PS/2 keyboard.
pub const KEYBOARD_IRQ: u32 = 1;
/// Interrupt of the PS/2 mouse.
pub const MOUSE_IRQ: u32 = 12;
/// Reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// System control port A: the A20 gate.
pub const PORT_A: u16 = 0x92;
/// `fw_cfg`, from its selector on.
pub const FW_CFG: u16 = 0x510;
/// PCI configuration mechanism #1.
pub const PCI_CONFIG: u16 = 0xcf8;

/// The first GSI that MSI routes may use; the I/O APIC's pins are below it.
pub const FIRST_MSI_GSI: u32 = 24;
