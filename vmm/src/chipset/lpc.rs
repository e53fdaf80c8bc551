//! The LPC bridge at 00:1f.0, as far as firmware and operating systems look at it: identity,
//! PMBASE, ACPI control, PIRQ routing and RCBA.
//!
//! Source: Intel ICH9 datasheet, 13.1 "LPC Interface PCI Configuration Registers". What moves
//! nothing on this board is kept and read back.

use crate::board::layout::PM_BASE;
use crate::pci::{Class, ConfigSpace, Identity, PciDevice};

const PMBASE: usize = 0x40;
const ACPI_CNTL: usize = 0x44;
const PIRQ_A: usize = 0x60;
const PIRQ_E: usize = 0x68;
const RCBA: usize = 0xf0;

/// PMBASE: an I/O address.
const PMBASE_IO: u32 = 1;
/// `ACPI_CNTL`: the block at PMBASE answers.
const ACPI_EN: u8 = 1 << 7;
/// PIRQ routing: not routed to the 8259s.
const PIRQ_OFF: u8 = 0x80;

/// The bridge. The power-management block stays at its address: PMBASE takes no other.
pub struct LpcBridge {
    space: ConfigSpace,
}

impl LpcBridge {
    /// After power-on.
    pub fn new() -> Self {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x2918,
            revision: 2,
            class: Class {
                base: 0x06,
                sub: 0x01,
                interface: 0,
            },
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            multifunction: false,
        });
        space.allow(ACPI_CNTL, &[ACPI_EN | 7]);
        space.allow(PIRQ_A, &[0x8f; 4]);
        space.allow(PIRQ_E, &[0x8f; 4]);
        space.allow(RCBA, &0xffff_c001u32.to_le_bytes());
        let mut bridge = Self { space };
        bridge.power_on();
        bridge
    }

    fn power_on(&mut self) {
        let base = u32::from(PM_BASE) | PMBASE_IO;
        self.space.set(PMBASE, &base.to_le_bytes());
        self.space.set(ACPI_CNTL, &[ACPI_EN]);
        self.space.set(PIRQ_A, &[PIRQ_OFF; 4]);
        self.space.set(PIRQ_E, &[PIRQ_OFF; 4]);
    }
}

impl Default for LpcBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for LpcBridge {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
    }

    fn reset(&mut self) {
        self.space.reset();
        self.power_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bridge: &mut LpcBridge, offset: u16) -> u32 {
        let mut data = [0; 4];
        bridge.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn firmware_finds_the_power_management_block() {
        let mut bridge = LpcBridge::new();
        assert_eq!(read(&mut bridge, 0), 0x2918_8086);
        assert_eq!(read(&mut bridge, 8) >> 16, 0x0601);
        bridge.write_config(0x40, &0x601u32.to_le_bytes());
        assert_eq!(read(&mut bridge, 0x40), 0x601);
        bridge.write_config(0x60, &[0x0a]);
        assert_eq!(read(&mut bridge, 0x60) & 0xff, 0x0a);
        bridge.reset();
        assert_eq!(read(&mut bridge, 0x60), 0x8080_8080);
        assert_eq!(read(&mut bridge, 0x44) & 0xff, u32::from(ACPI_EN));
    }
}
