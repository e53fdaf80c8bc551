//! Host bridge 00:00.0: the identity of Q35's memory controller hub (8086:29C0) and its PCIEXBAR
//! (Intel 3 Series datasheet, section 5.1.15), which firmware moves.

use std::ops::Range;

use super::{Class, ConfigSpace, Identity, PciDevice};

pub(super) const PCIEXBAR: u16 = 0x60;
pub(super) const PCIEXBAR_ENABLE: u64 = 1;
/// Address bits of PCIEXBAR, 38 to 26.
const PCIEXBAR_BASE: u64 = 0x7f_fc00_0000;
/// What the guest may write: enable, length, base.
const PCIEXBAR_WRITABLE: u64 = PCIEXBAR_BASE | 0x7;

/// The host bridge. Of the hub's many registers it has the header and PCIEXBAR: firmware asks for
/// no other (`machine.md`, section 1.1).
pub struct HostBridge {
    space: ConfigSpace,
    power_on: u64,
}

impl HostBridge {
    /// A host bridge whose ECAM window is at `ecam` from power-on (direct boot, where nobody else
    /// would open it), or closed until the firmware writes PCIEXBAR.
    pub fn new(ecam: Option<u64>) -> Self {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x29c0,
            revision: 0,
            class: Class {
                base: 0x06,
                sub: 0,
                interface: 0,
            },
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            multifunction: false,
        });
        space.allow(PCIEXBAR.into(), &PCIEXBAR_WRITABLE.to_le_bytes());
        let power_on = ecam.map_or(0, |base| base & PCIEXBAR_BASE | PCIEXBAR_ENABLE);
        space.set(PCIEXBAR.into(), &power_on.to_le_bytes());
        Self { space, power_on }
    }

    /// Guest physical range of the ECAM window, `None` while it is closed. Bus 0 is its first MiB.
    pub fn ecam(&self) -> Option<Range<u64>> {
        let at = usize::from(PCIEXBAR);
        let value = u64::from(self.space.u32_at(at)) | u64::from(self.space.u32_at(at + 4)) << 32;
        if value & PCIEXBAR_ENABLE == 0 {
            return None;
        }
        // Length: 256, 128 or 64 MiB; the fourth encoding is reserved.
        let length = match value >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = value & PCIEXBAR_BASE & !(length - 1);
        Some(base..base + length)
    }
}

impl PciDevice for HostBridge {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
    }

    fn reset(&mut self) {
        self.space.reset();
        self.space
            .set(PCIEXBAR.into(), &self.power_on.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ecam_window_follows_pciexbar() {
        let mut bridge = HostBridge::new(None);
        assert_eq!(bridge.ecam(), None);
        bridge.write_config(PCIEXBAR + 4, &[0; 4]);
        bridge.write_config(PCIEXBAR, &0xe000_0001_u32.to_le_bytes());
        assert_eq!(bridge.ecam(), Some(0xe000_0000..0xf000_0000));
        let mut read_back = [0; 4];
        bridge.read_config(PCIEXBAR, &mut read_back);
        assert_eq!(u32::from_le_bytes(read_back), 0xe000_0001);
        bridge.reset();
        assert_eq!(bridge.ecam(), None);
    }
}
