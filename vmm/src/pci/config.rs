//! Configuration space of a type 0 function (PCI Local Bus 3.0, section 6.1).

use super::{BAR_COUNT, Bar, BarShape};

/// Bytes of PCI Express extended configuration space.
const SPACE_LEN: usize = 4096;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// First byte after the type 0 header, where capabilities start.
const FIRST_CAPABILITY: usize = 0x40;
/// Capabilities live in the first 256 bytes; extended ones are not offered.
const CAPABILITY_END: usize = 0x100;
/// Memory space enable, in the command register.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Bus master enable, in the command register.
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// What of the command register a guest may set: I/O, memory, bus master, parity, SERR, `INTx` off.
const COMMAND_WRITABLE: u16 = 0x0547;
/// Capabilities list present, in the status register.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Base class, sub-class and programming interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Base class, for example 0x02 for a network controller.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

/// The identity that a function shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor, for example 0x8086.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code.
    pub class: Class,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem device.
    pub subsystem: u16,
    /// Whether further functions of this device may exist.
    pub multifunction: bool,
}

/// Registers of a function with a mask of the bits that the guest may write.
pub struct ConfigSpace {
    bytes: Box<[u8; SPACE_LEN]>,
    writable: Box<[u8; SPACE_LEN]>,
    shapes: Vec<BarShape>,
    next_capability: usize,
    last_link: usize,
}

impl ConfigSpace {
    /// A type 0 header with no BARs and no capabilities.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: Box::new([0; SPACE_LEN]),
            writable: Box::new([0; SPACE_LEN]),
            shapes: Vec::new(),
            next_capability: FIRST_CAPABILITY,
            last_link: CAPABILITIES,
        };
        space.set_u16(0x00, identity.vendor);
        space.set_u16(0x02, identity.device);
        space.bytes[0x08] = identity.revision;
        space.bytes[0x09] = identity.class.interface;
        space.bytes[0x0a] = identity.class.sub;
        space.bytes[0x0b] = identity.class.base;
        space.bytes[HEADER_TYPE] = if identity.multifunction { 0x80 } else { 0 };
        space.set_u16(0x2c, identity.subsystem_vendor);
        space.set_u16(0x2e, identity.subsystem);
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // Cache line size and the interrupt line are scratch registers of the guest.
        space.allow(0x0c, &[0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a memory BAR, at address zero.
    ///
    /// # Panics
    /// If the shape is no power of two of 16 or more, or its index is taken: the board's mistake,
    /// never a guest's.
    pub fn add_bar(&mut self, shape: BarShape) {
        let index = usize::from(shape.index);
        let width = if shape.wide { 2 } else { 1 };
        assert!(shape.size.is_power_of_two() && shape.size >= 16);
        assert!(index + width <= BAR_COUNT);
        assert!(shape.wide || shape.size <= 1 << 31);
        let offset = BAR0 + index * 4;
        let mask = (!(shape.size - 1)).to_le_bytes();
        self.allow(offset, &mask[..width * 4]);
        self.bytes[offset] = u8::from(shape.wide) << 2 | u8::from(shape.prefetchable) << 3;
        self.shapes.push(shape);
    }

    /// Has the capabilities start at `offset`, where a device's own registers lie before them. Before
    /// the first one is added; cut to what has room for them.
    pub fn start_capabilities(&mut self, offset: u16) {
        let offset = usize::from(offset).next_multiple_of(4);
        self.next_capability = offset.clamp(FIRST_CAPABILITY, CAPABILITY_END);
    }

    /// Appends a capability with this id and `body` (what follows id and next pointer); returns its
    /// offset. `writable` masks the body's bits that the guest may write.
    ///
    /// # Panics
    /// If the 192 bytes for capabilities are used up: the board's mistake.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        assert!(end <= CAPABILITY_END && writable.len() <= body.len());
        self.bytes[offset] = id;
        self.bytes[offset + 2..end].copy_from_slice(body);
        self.allow(offset + 2, writable);
        let offset = u16::try_from(offset).unwrap_or(0);
        self.bytes[self.last_link] = offset.to_le_bytes()[0];
        self.last_link = usize::from(offset) + 1;
        self.next_capability = end.next_multiple_of(4);
        let status = self.u16_at(STATUS) | STATUS_CAPABILITIES;
        self.set_u16(STATUS, status);
        offset
    }

    /// Lets the guest write the bits set in `mask` from `offset` on.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (slot, bits) in self.writable.iter_mut().skip(offset).zip(mask) {
            *slot |= bits;
        }
    }

    /// Sets register bytes, past the guest's mask.
    pub fn set(&mut self, offset: usize, value: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(offset).zip(value) {
            *slot = *byte;
        }
    }

    /// Copies registers out; bytes past the end read all-ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Writes what the mask allows.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(self.writable.iter());
        for ((slot, mask), value) in places.skip(usize::from(offset)).zip(data) {
            *slot = *slot & !mask | value & mask;
        }
    }

    /// Clears all bits that the guest may write, as at power-on. Registers whose power-on value is
    /// another one are set again by their device.
    pub fn reset(&mut self) {
        for (slot, mask) in self.bytes.iter_mut().zip(self.writable.iter()) {
            *slot &= !mask;
        }
    }

    /// Sixteen bits, little endian, at `offset`; zero past the end.
    pub fn u16_at(&self, offset: usize) -> u16 {
        let mut value = [0; 2];
        if let Some(bytes) = self.bytes.get(offset..offset + 2) {
            value.copy_from_slice(bytes);
        }
        u16::from_le_bytes(value)
    }

    /// Thirty-two bits, little endian, at `offset`; zero past the end.
    pub fn u32_at(&self, offset: usize) -> u32 {
        u32::from(self.u16_at(offset)) | u32::from(self.u16_at(offset + 2)) << 16
    }

    /// The memory BARs and where they answer: nowhere while memory decoding is off, or while a BAR
    /// holds zero or the all-ones of a size probe.
    pub fn bars(&self) -> Vec<Bar> {
        let decodes = self.u16_at(COMMAND) & COMMAND_MEMORY != 0;
        let place = |shape: &BarShape| Bar {
            shape: *shape,
            address: decodes.then(|| self.bar_address(shape)).flatten(),
        };
        self.shapes.iter().map(place).collect()
    }

    /// Whether the function may write and read memory of its own accord, which takes in the
    /// messages of its interrupts (PCI Local Bus 3.0, sections 6.2.2 and 6.8.3.1).
    pub fn bus_master(&self) -> bool {
        self.u16_at(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    fn bar_address(&self, shape: &BarShape) -> Option<u64> {
        let offset = BAR0 + usize::from(shape.index) * 4;
        let mask = !(shape.size - 1);
        let low = u64::from(self.u32_at(offset)) & mask;
        // The low half full of ones is a size probe, also while the high half still holds the old
        // address: between the two writes the BAR must not jump to the top of the first 4 GiB.
        if shape.size <= 1 << 31 && low == mask & u64::from(u32::MAX) {
            return None;
        }
        let high = if shape.wide {
            u64::from(self.u32_at(offset + 4))
        } else {
            0
        };
        let address = high << 32 & mask | low;
        address.checked_add(shape.size - 1)?;
        (address != 0).then_some(address)
    }

    fn set_u16(&mut self, offset: usize, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x1af4,
            device: 0x1041,
            revision: 1,
            class: Class {
                base: 2,
                sub: 0,
                interface: 0,
            },
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            multifunction: false,
        });
        space.add_bar(BarShape {
            index: 0,
            size: 0x8000,
            wide: true,
            prefetchable: true,
        });
        space
    }

    #[test]
    fn a_size_probe_reads_back_the_mask_and_is_no_place() {
        let mut space = space();
        space.write(0x04, &[2, 0]);
        space.write(0x10, &[0xff; 4]);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(space.u32_at(0x10), 0xffff_800c);
        assert_eq!(space.u32_at(0x14), 0xffff_ffff);
        assert_eq!(space.bars()[0].address, None);
        space.write(0x10, &0xe000_0000_u32.to_le_bytes());
        space.write(0x14, &0x10_u32.to_le_bytes());
        assert_eq!(space.bars()[0].address, Some(0x10_e000_0000));
        space.write(0x04, &[0, 0]);
        assert_eq!(space.bars()[0].address, None);
    }

    #[test]
    fn identity_is_read_only_and_capabilities_are_linked() {
        let mut space = space();
        space.write(0x00, &[0; 4]);
        assert_eq!(space.u16_at(0x00), 0x1af4);
        let first = space.add_capability(0x09, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0; 10], &[]);
        assert_eq!((first, second), (0x40, 0x48));
        let mut next = [0];
        space.read(0x34, &mut next);
        assert_eq!(next, [0x40]);
        space.read(0x41, &mut next);
        assert_eq!(next, [0x48]);
        assert_eq!(space.u16_at(0x06) & 0x10, 0x10);
    }
}
