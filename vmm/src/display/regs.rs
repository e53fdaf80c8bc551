//! The registers of the second BAR, as plain data: EDID, the VGA ports that drivers touch, DISPI
//! (the "Bochs VBE extensions"), and the order of bytes.
//!
//! Any value can be written at any time; what it makes of the screen is decided in one place,
//! [`Registers::scanout`].

use sekisho_seatlink::{Mode, Scanout};

use super::edid::{EDID_LEN, Edid};

/// Length of the BAR.
pub const BAR_SIZE: u64 = 4096;

/// VGA's ports 0x3C0 to 0x3DF lie here.
const VGA: u64 = 0x400;
const VGA_LEN: u64 = 0x20;
/// The DISPI registers, two bytes each.
const DISPI: u64 = 0x500;
/// Where what QEMU has beyond Bochs lies: its own length, then the order of bytes.
const EXTENDED: u64 = 0x600;
const EXTENDED_LEN: u32 = 8;
/// "Little endian", which is all that this screen is.
const LITTLE_ENDIAN: u32 = 0x1e1e_1e1e;

/// VGA's attribute controller: index and data by turns.
const ATTRIBUTE: u64 = VGA;
/// VGA's input status; a read of it makes the attribute controller take an index next.
const INPUT_STATUS: u64 = VGA + 0x1a;
/// In the attribute index: the palette is shown. Clear, the screen is blank.
const PALETTE_SHOWN: u8 = 1 << 5;

const ID: usize = 0;
const XRES: usize = 1;
const YRES: usize = 2;
const BPP: usize = 3;
const ENABLE: usize = 4;
const VIRT_WIDTH: usize = 6;
const X_OFFSET: usize = 8;
const Y_OFFSET: usize = 9;
const VIDEO_MEMORY: usize = 10;
const DISPI_COUNT: usize = 11;
/// The newest version of DISPI.
const ID5: u16 = 0xb0c5;
/// In `ENABLE`: the mode is shown.
const ENABLED: u16 = 1;
/// The one depth that is shown.
const DEPTH: u16 = 32;
const PIXEL: u64 = 4;

/// The registers.
pub struct Registers {
    edid: Edid,
    dispi: [u16; DISPI_COUNT],
    vram: u64,
    blank: bool,
    /// The attribute controller takes data next.
    attribute_data: bool,
}

impl Registers {
    /// After power-on, beside `vram` bytes of memory.
    pub fn new(edid: Edid, vram: u64) -> Self {
        let mut registers = Self {
            edid,
            dispi: [0; DISPI_COUNT],
            vram,
            blank: false,
            attribute_data: false,
        };
        registers.reset();
        registers
    }

    /// Returns to power-on.
    pub fn reset(&mut self) {
        self.dispi = [0; DISPI_COUNT];
        self.dispi[ID] = ID5;
        // In units of 64 KiB.
        self.dispi[VIDEO_MEMORY] = u16::try_from(self.vram >> 16).unwrap_or(u16::MAX);
        self.blank = false;
        self.attribute_data = false;
    }

    /// What is shown: nothing where no mode is set, where the screen is blank, or where the mode
    /// has another depth than 32 bits or a pixel outside the memory.
    pub fn scanout(&self) -> Option<Scanout> {
        let register = |index: usize| u32::from(self.dispi[index]);
        if self.dispi[ENABLE] & ENABLED == 0 || self.blank || self.dispi[BPP] != DEPTH {
            return None;
        }
        let mode = Mode::new(register(XRES), register(YRES))?;
        // Drivers leave it zero for "as wide as the mode".
        let line = u64::from(register(VIRT_WIDTH).max(mode.width()));
        let first = u64::from(register(Y_OFFSET)) * line + u64::from(register(X_OFFSET));
        let stride = u32::try_from(line * PIXEL).ok()?;
        let offset = u32::try_from(first * PIXEL).ok()?;
        Scanout::new(mode, stride, offset).filter(|scanout| scanout.end() <= self.vram)
    }

    /// Reads at `offset` of the BAR. What is no register reads zero.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset == INPUT_STATUS {
            self.attribute_data = false;
        }
        for (at, byte) in (offset..).zip(data) {
            *byte = self.byte(at);
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let place = |start: u64| {
            let place = at.checked_sub(start)?;
            usize::try_from(place).ok()
        };
        if let Some(index) = place(EXTENDED) {
            let [length, order] = [EXTENDED_LEN, LITTLE_ENDIAN].map(u32::to_le_bytes);
            return length.iter().chain(&order).nth(index).copied().unwrap_or(0);
        }
        if let Some(index) = place(DISPI) {
            let register = self.dispi.get(index / 2).copied().unwrap_or(0);
            return register.to_le_bytes()[index % 2];
        }
        if (VGA..VGA + VGA_LEN).contains(&at) {
            return 0;
        }
        let index = usize::try_from(at).unwrap_or(EDID_LEN);
        self.edid.bytes().get(index).copied().unwrap_or(0)
    }

    /// Writes at `offset` of the BAR, DISPI registers in whole ones.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (ATTRIBUTE, [value]) => {
                if !self.attribute_data {
                    self.blank = value & PALETTE_SHOWN == 0;
                }
                self.attribute_data = !self.attribute_data;
            }
            (DISPI..EXTENDED, _) if offset.is_multiple_of(2) => {
                for (index, value) in ((offset - DISPI) / 2..).zip(data.chunks_exact(2)) {
                    self.write_dispi(index, u16::from_le_bytes([value[0], value[1]]));
                }
            }
            // Also the order of bytes: the other one is not there.
            _ => {}
        }
    }

    fn write_dispi(&mut self, index: u64, value: u16) {
        let index = usize::try_from(index).unwrap_or(DISPI_COUNT);
        if matches!(index, ID | VIDEO_MEMORY) {
            return;
        }
        if let Some(register) = self.dispi.get_mut(index) {
            *register = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VRAM: u64 = 16 << 20;

    fn registers() -> Registers {
        Registers::new(Edid::new(Mode::new(1280, 800).unwrap()), VRAM)
    }

    fn set(registers: &mut Registers, index: usize, value: u16) {
        let offset = DISPI + 2 * index as u64;
        registers.write(offset, &value.to_le_bytes());
    }

    fn shown(values: &[(usize, u16)]) -> Option<Scanout> {
        let mut registers = registers();
        for (index, value) in [(XRES, 1024), (YRES, 768), (BPP, 32), (ENABLE, 0x41)] {
            set(&mut registers, index, value);
        }
        for (index, value) in values {
            set(&mut registers, *index, *value);
        }
        registers.scanout()
    }

    fn scanout(width: u32, height: u32, stride: u32, offset: u32) -> Option<Scanout> {
        Scanout::new(Mode::new(width, height).unwrap(), stride, offset)
    }

    #[test]
    fn a_mode_is_shown_once_it_is_enabled() {
        assert_eq!(registers().scanout(), None);
        assert_eq!(shown(&[]), scanout(1024, 768, 4096, 0));
        assert_eq!(shown(&[(ENABLE, 0)]), None);
        let panned = shown(&[(VIRT_WIDTH, 2048), (X_OFFSET, 3), (Y_OFFSET, 2)]);
        assert_eq!(panned, scanout(1024, 768, 8192, 2 * 8192 + 12));
        // Narrower than the mode: as wide as it.
        assert_eq!(shown(&[(VIRT_WIDTH, 8)]), scanout(1024, 768, 4096, 0));
    }

    #[test]
    fn what_leaves_the_memory_or_has_another_depth_is_not_shown() {
        for values in [
            &[(BPP, 24)][..],
            &[(BPP, 0)],
            &[(XRES, 0)],
            &[(YRES, 0)],
            &[(XRES, 8193)],
            // 16 MiB are 4096 lines of 4 KiB.
            &[(Y_OFFSET, 4096 - 767)],
            &[(Y_OFFSET, 4096 - 768), (X_OFFSET, 1)],
            &[(VIRT_WIDTH, 65535)],
            &[(VIRT_WIDTH, 65535), (Y_OFFSET, 65535), (X_OFFSET, 65535)],
        ] {
            assert_eq!(shown(values), None, "{values:?}");
        }
        // The last pixel may be the last of the memory.
        assert!(shown(&[(Y_OFFSET, 4096 - 768)]).is_some());
    }

    #[test]
    fn the_attribute_controller_blanks() {
        let mut registers = registers();
        for (index, value) in [(XRES, 640), (YRES, 480), (BPP, 32), (ENABLE, 0x41)] {
            set(&mut registers, index, value);
        }
        let mut status = [0];
        registers.read(INPUT_STATUS, &mut status);
        registers.write(ATTRIBUTE, &[0]);
        assert_eq!(registers.scanout(), None);
        // This is data, not an index.
        registers.write(ATTRIBUTE, &[PALETTE_SHOWN]);
        assert_eq!(registers.scanout(), None);
        registers.read(INPUT_STATUS, &mut status);
        registers.write(ATTRIBUTE, &[PALETTE_SHOWN]);
        assert!(registers.scanout().is_some());
        registers.reset();
        assert_eq!(registers.scanout(), None);
    }

    #[test]
    fn drivers_find_what_they_look_for() {
        let mut registers = registers();
        let mut word = |offset| {
            let mut data = [0xee; 4];
            registers.read(offset, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!(word(0), 0xffff_ff00);
        // Behind the EDID there is no more.
        assert_eq!(word(0x80), 0);
        assert_eq!(word(DISPI) & 0xffff, 0xb0c5);
        assert_eq!(word(DISPI + 20) & 0xffff, 256);
        assert_eq!(word(EXTENDED), 8);
        assert_eq!(word(EXTENDED + 4), LITTLE_ENDIAN);
        assert_eq!(word(EXTENDED + 8), 0);
        // Neither can be changed, whoever writes them.
        for (offset, value) in [(DISPI, 0), (DISPI + 20, 0), (EXTENDED + 4, 0xbebe_bebe)] {
            registers.write(offset, &u32::to_le_bytes(value));
        }
        let mut id = [0; 2];
        registers.read(DISPI, &mut id);
        assert_eq!(id, ID5.to_le_bytes());
        registers.read(DISPI + 20, &mut id);
        assert_eq!(id, 256_u16.to_le_bytes());
        registers.read(EXTENDED + 4, &mut id);
        assert_eq!(id, [0x1e, 0x1e]);
    }

    proptest! {
        /// Whatever a guest writes: what is shown lies in the memory.
        #[test]
        fn what_is_shown_lies_in_the_memory(
            values in prop::collection::vec((0..DISPI_COUNT, prop_oneof![0_u16..2048, any::<u16>()]), 0..20)
        ) {
            if let Some(scanout) = shown(&values) {
                prop_assert!(scanout.end() <= VRAM);
                prop_assert!(u64::from(scanout.offset()) < scanout.end());
            }
        }
    }
}
