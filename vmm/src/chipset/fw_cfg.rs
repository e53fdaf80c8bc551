//! `fw_cfg`: how firmware asks the board what it is made of, by a selector and a byte stream, or by
//! DMA.
//!
//! Source: QEMU `docs/specs/fw_cfg.rst`; which items firmware reads: `machine.md`, section 1.1. All
//! items are read-only here.

use std::collections::BTreeMap;

use vm_memory::{Address as _, Bytes as _, GuestAddress};

use crate::board::memory::GuestRam;
use crate::bus::BusDevice;

/// Ports, from the selector on.
pub const PORTS: u64 = 12;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the DMA register reads.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Keys of items without a name.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Which interfaces there are.
    pub const ID: u16 = 0x01;
    /// Number of processors that start.
    pub const CPUS: u16 = 0x05;
    /// Length of the kernel, or of another program, as one file.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Length of the initial RAM disk.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Whether a boot menu may be shown.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Number of processors there may ever be.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel, or another program, as one file.
    pub const KERNEL: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD: u16 = 0x12;
    /// Length of the command line with its final zero.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line.
    pub const CMDLINE: u16 = 0x15;
    /// The directory of items with names.
    pub const DIRECTORY: u16 = 0x19;
    /// The first item with a name.
    pub(super) const FIRST_FILE: u16 = 0x20;
}

/// Bit of [`key::ID`]: selector and data port; DMA.
const TRADITIONAL_AND_DMA: u32 = 1 | 1 << 1;
const FILE_NAME_LEN: usize = 56;

/// `FWCfgDmaAccess`: control, length, address, big-endian.
const DMA_ACCESS_LEN: usize = 16;
const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;
/// Zeros that a transfer gets behind an item's end, at most: who asks for more asks for work.
const DMA_MOST_BEHIND: usize = 64 << 10;

/// Makes items anew when firmware looks at the directory: names and contents, of the same names
/// each time; `None` where nothing has changed.
pub type Refresh = Box<dyn FnMut() -> Option<Vec<(&'static str, Vec<u8>)>> + Send>;

/// What is on offer.
#[derive(Debug, Default)]
pub struct Items {
    keyed: BTreeMap<u16, Vec<u8>>,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Items {
    /// The items that tell what this is.
    pub fn new() -> Self {
        let mut items = Self::default();
        items.add(key::SIGNATURE, b"QEMU".to_vec());
        items.add(key::ID, TRADITIONAL_AND_DMA.to_le_bytes().to_vec());
        items
    }

    /// Adds an item by its key.
    pub fn add(&mut self, key: u16, content: Vec<u8>) {
        self.keyed.insert(key, content);
    }

    /// Adds an item by its name, of at most 55 bytes, or replaces it.
    pub fn add_file(&mut self, name: &'static str, content: Vec<u8>) {
        match self.files.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = content,
            None => self.files.push((name, content)),
        }
    }

    fn directory(&self) -> Vec<u8> {
        let count = u32::try_from(self.files.len()).unwrap_or(0);
        let mut bytes = count.to_be_bytes().to_vec();
        for ((name, content), key) in self.files.iter().zip(key::FIRST_FILE..) {
            bytes.extend(
                u32::try_from(content.len())
                    .unwrap_or(u32::MAX)
                    .to_be_bytes(),
            );
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let end = bytes.len() + FILE_NAME_LEN;
            bytes.extend(name.bytes().take(FILE_NAME_LEN - 1));
            bytes.resize(end, 0);
        }
        bytes
    }

    fn get(&self, key: u16) -> &[u8] {
        let file = key
            .checked_sub(key::FIRST_FILE)
            .and_then(|index| self.files.get(usize::from(index)));
        match file {
            Some((_, content)) => content,
            None => self.keyed.get(&key).map_or(&[], Vec::as_slice),
        }
    }
}

/// The device.
pub struct FwCfg {
    ram: GuestRam,
    items: Items,
    refresh: Refresh,
    selected: u16,
    offset: usize,
    dma_high: u32,
}

impl FwCfg {
    /// Offers `items`, and what `refresh` makes.
    pub fn new(ram: GuestRam, items: Items, refresh: Refresh) -> Self {
        let mut device = Self {
            ram,
            items,
            refresh,
            selected: key::SIGNATURE,
            offset: 0,
            dma_high: 0,
        };
        device.look_again();
        device
    }

    fn look_again(&mut self) {
        for (name, content) in (self.refresh)().into_iter().flatten() {
            self.items.add_file(name, content);
        }
        let directory = self.items.directory();
        self.items.add(key::DIRECTORY, directory);
    }

    fn select(&mut self, key: u16) {
        if key == key::DIRECTORY {
            self.look_again();
        }
        self.selected = key;
        self.offset = 0;
    }

    fn rest(&self) -> &[u8] {
        self.items
            .get(self.selected)
            .get(self.offset..)
            .unwrap_or_default()
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied();
        if byte.is_some() {
            self.offset += 1;
        }
        byte.unwrap_or(0)
    }

    /// One DMA access; its result goes where its control word was.
    fn access(&mut self, address: u64) {
        let address = GuestAddress(address);
        let mut access = [0; DMA_ACCESS_LEN];
        if self.ram.read_slice(&mut access, address).is_err() {
            // There is no place for an answer either.
            tracing::debug!("a DMA access of fw_cfg lies outside memory");
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, target @ ..] = access;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let target = u64::from_be_bytes(target);
        let result = match self.perform(control, length, target) {
            Some(()) => 0,
            None => DMA_ERROR,
        };
        // It was readable a moment ago, and all of the guest's memory is writable.
        let _ = self.ram.write_slice(&result.to_be_bytes(), address);
    }

    fn perform(&mut self, control: u32, length: u32, target: u64) -> Option<()> {
        if control & DMA_SELECT != 0 {
            self.select(u16::try_from(control >> 16).ok()?);
        }
        let length = usize::try_from(length).ok()?;
        if control & DMA_READ != 0 {
            let item = self.rest();
            let taken = item.len().min(length);
            let behind = length - taken;
            if behind > DMA_MOST_BEHIND {
                return None;
            }
            let target = GuestAddress(target);
            self.ram.write_slice(&item[..taken], target).ok()?;
            if behind > 0 {
                let target = target.checked_add(u64::try_from(taken).ok()?)?;
                self.ram.write_slice(&vec![0; behind], target).ok()?;
            }
            self.offset += taken;
        } else if control & DMA_WRITE != 0 {
            return None;
        } else if control & DMA_SKIP != 0 {
            self.offset += self.rest().len().min(length);
        }
        Some(())
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            DATA => data.fill_with(|| self.next_byte()),
            DMA_HIGH.. => {
                let at = usize::try_from(offset - DMA_HIGH).unwrap_or(usize::MAX);
                let signature = DMA_SIGNATURE.iter().skip(at);
                for (byte, value) in data.iter_mut().zip(signature) {
                    *byte = *value;
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, [low, high]) => self.select(u16::from_le_bytes([*low, *high])),
            (DMA_HIGH, [b0, b1, b2, b3]) => {
                self.dma_high = u32::from_be_bytes([*b0, *b1, *b2, *b3]);
            }
            (DMA_LOW, [b0, b1, b2, b3]) => {
                let low = u32::from_be_bytes([*b0, *b1, *b2, *b3]);
                let high = std::mem::take(&mut self.dma_high);
                self.access(u64::from(high) << 32 | u64::from(low));
            }
            (DMA_HIGH, [b0, b1, b2, b3, b4, b5, b6, b7]) => {
                self.access(u64::from_be_bytes([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::memory::allocate;

    const ACCESS: u64 = 0x1000;
    const TARGET: u64 = 0x2000;

    fn device() -> FwCfg {
        let mut items = Items::new();
        items.add(key::CPUS, 2u16.to_le_bytes().to_vec());
        items.add_file("etc/first", b"first".to_vec());
        let mut times = 0;
        let refresh = move || {
            times += 1;
            Some(vec![("etc/lazy", vec![times; 3])])
        };
        FwCfg::new(allocate(32 << 20).unwrap(), items, Box::new(refresh))
    }

    fn bytes(device: &mut FwCfg, key: u16, count: usize) -> Vec<u8> {
        device.write(SELECTOR, &key.to_le_bytes());
        let mut read = || {
            let mut byte = [0xee];
            device.read(DATA, &mut byte);
            byte[0]
        };
        (0..count).map(|_| read()).collect()
    }

    /// One access by DMA; the control word afterwards.
    fn dma(device: &mut FwCfg, control: u32, length: u32, target: u64) -> u32 {
        let access = [
            &control.to_be_bytes()[..],
            &length.to_be_bytes(),
            &target.to_be_bytes(),
        ];
        let address = GuestAddress(ACCESS);
        device.ram.write_slice(&access.concat(), address).unwrap();
        device.write(DMA_HIGH, &0u32.to_be_bytes());
        device.write(DMA_LOW, &u32::try_from(ACCESS).unwrap().to_be_bytes());
        let mut result = [0; 4];
        device.ram.read_slice(&mut result, address).unwrap();
        u32::from_be_bytes(result)
    }

    fn memory(device: &FwCfg, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        device
            .ram
            .read_slice(&mut bytes, GuestAddress(TARGET))
            .unwrap();
        bytes
    }

    #[test]
    fn firmware_finds_it_and_reads_past_the_end_as_zeros() {
        let mut device = device();
        assert_eq!(bytes(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(bytes(&mut device, key::ID, 4), [3, 0, 0, 0]);
        assert_eq!(bytes(&mut device, key::CPUS, 2), [2, 0]);
        assert_eq!(bytes(&mut device, 0x7777, 2), [0, 0]);
        let mut signature = [0; 4];
        device.read(DMA_HIGH, &mut signature);
        assert_eq!(&signature, b"QEMU");
        device.read(DMA_LOW, &mut signature);
        assert_eq!(&signature, b" CFG");
    }

    #[test]
    fn the_directory_names_the_files_and_looking_at_it_makes_them_anew() {
        let mut device = device();
        let directory = bytes(&mut device, key::DIRECTORY, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..12], [0, 0, 0, 5, 0, 0x20, 0, 0]);
        assert!(directory[12..].starts_with(b"etc/first\0"));
        assert_eq!(directory[68..76], [0, 0, 0, 3, 0, 0x21, 0, 0]);
        assert!(directory[76..].starts_with(b"etc/lazy\0"));
        assert_eq!(bytes(&mut device, 0x20, 5), b"first");
        assert_eq!(bytes(&mut device, 0x21, 3), [2; 3]);
        assert_eq!(bytes(&mut device, 0x21, 3), [2; 3]);
        bytes(&mut device, key::DIRECTORY, 1);
        assert_eq!(bytes(&mut device, 0x21, 3), [3; 3]);
    }

    #[test]
    fn dma_selects_reads_and_skips() {
        let mut device = device();
        let select = 0x20 << 16 | DMA_SELECT;
        assert_eq!(dma(&mut device, select | DMA_READ, 2, TARGET), 0);
        assert_eq!(memory(&device, 2), b"fi");
        assert_eq!(dma(&mut device, DMA_SKIP, 1, 0), 0);
        assert_eq!(dma(&mut device, DMA_READ, 4, TARGET), 0);
        assert_eq!(memory(&device, 4), b"st\0\0");
        assert_eq!(dma(&mut device, select, 0, 0), 0);
        assert_eq!(bytes(&mut device, 0x20, 1), b"f");
    }

    #[test]
    fn what_dma_cannot_do_is_an_error() {
        let mut device = device();
        let select = 0x20 << 16 | DMA_SELECT;
        assert_eq!(dma(&mut device, select | DMA_WRITE, 1, TARGET), DMA_ERROR);
        for target in [u64::MAX, u64::MAX - 2, 32 << 20, (32 << 20) - 2] {
            let result = dma(&mut device, select | DMA_READ, 5, target);
            assert_eq!(result, DMA_ERROR, "{target:#x}");
        }
        assert_eq!(
            dma(&mut device, select | DMA_READ, u32::MAX, TARGET),
            DMA_ERROR
        );
        assert_eq!(dma(&mut device, select | DMA_SKIP, u32::MAX, 0), 0);
        // An access outside memory has no place for an answer.
        device.write(DMA_HIGH, &u64::MAX.to_be_bytes());
        device.write(DMA_LOW, &[0xff; 4]);
        device.write(DATA, &[1]);
        device.write(SELECTOR, &[1]);
        assert_eq!(bytes(&mut device, 0x20, 1), b"f");
    }
}
