//! The FADT: where the fixed hardware is.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{Hardware, OEM, OEM_REVISION, OEM_TABLE};
use crate::board::layout::{PM_BASE, RESET_PORT, SCI_IRQ};
use crate::chipset::{pm, rtc};

/// Value that resets by [`RESET_PORT`].
const RESET_VALUE: u8 = 6;
/// Latencies above these limits say that there is no C2 and no C3.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11).
const LEGACY_DEVICES: u16 = 1;
const I8042: u16 = 1 << 1;
const NO_VGA: u16 = 1 << 2;
const NO_ASPM: u16 = 1 << 4;

/// The table, pointing to FACS and DSDT.
pub(super) fn fadt(hardware: &Hardware, facs: u64, dsdt: u64) -> FADT {
    let keyboard = if hardware.ps2 { I8042 } else { 0 };
    let event = PM_BASE + pm::PM1_EVENT;
    let control = PM_BASE + pm::PM1_CONTROL;
    let timer = PM_BASE + pm::TIMER;
    let gpe0 = PM_BASE + pm::GPE0;
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .preferred_pm_profile(PmProfile::Mobile)
        .gpe_info(gpe0.into(), 0, pm::GPE0_LEN, 0, 0);
    table.sci_int = u16::try_from(SCI_IRQ).unwrap_or(0).into();
    table.pm1a_evt_blk = u32::from(event).into();
    table.pm1a_cnt_blk = u32::from(control).into();
    table.pm_tmr_blk = u32::from(timer).into();
    table.pm1_evt_len = 4;
    table.pm1_cnt_len = 2;
    table.pm_tmr_len = 4;
    table.p_lvl2_lat = NO_C2.into();
    table.p_lvl3_lat = NO_C3.into();
    table.century = rtc::CENTURY;
    table.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_ASPM | keyboard).into();
    table.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    table.reset_value = RESET_VALUE;
    table.x_pm1a_evt_blk = port(event, 32, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk = port(control, 16, AccessSize::WordAccess);
    table.x_pm_tmr_blk = port(timer, 32, AccessSize::DwordAccess);
    table.x_gpe0_blk = port(gpe0, pm::GPE0_LEN * 8, AccessSize::ByteAccess);
    table.finalize()
}

fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, address.into())
}
