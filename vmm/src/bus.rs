//! The port and memory buses: which device answers at which address.
//!
//! A bus is built once, before the first vCPU runs, and is never changed after that, so that a
//! lookup needs no lock. What moves at run time (PCI BARs, the ECAM window) moves inside one device
//! that owns the whole range it may move in.

use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// A device on a bus. `offset` counts from the start of the range that the device was added with;
/// an access never crosses the end of the range.
pub trait BusDevice: Send {
    /// Reads `data.len()` bytes (1, 2, 4 or 8). `data` comes filled with ones: a device leaves
    /// alone what it does not implement.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data.len()` bytes (1, 2, 4 or 8). A device ignores what it does not implement.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// What a bus hands accesses to: a [`BusDevice`] behind its lock, or something that several vCPUs
/// may enter at once and that locks inside.
pub trait BusTarget: Send + Sync {
    /// As [`BusDevice::read`].
    fn read(&self, offset: u64, data: &mut [u8]);

    /// As [`BusDevice::write`].
    fn write(&self, offset: u64, data: &[u8]);
}

impl<D: BusDevice> BusTarget for Mutex<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data);
    }
}

/// Why a device could not be put on a bus.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty or runs past the end of the address space.
    #[error("a bus range of {len:#x} bytes at {start:#x} does not fit the address space")]
    Range {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Another device has the range already.
    #[error("a bus range of {len:#x} bytes at {start:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// Where the other range starts.
        other: u64,
    },
}

struct Slot {
    start: u64,
    /// Last address: inclusive, so that a range may end at the very top.
    last: u64,
    device: Arc<dyn BusTarget>,
}

/// An address space with devices in it. Reads that no device answers give all ones, as on the
/// bus of a PC; writes that no device takes are dropped.
#[derive(Default)]
pub struct Bus {
    /// Sorted by `start`, without overlap.
    slots: Vec<Slot>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `start`, `len` bytes long.
    pub fn add(
        &mut self,
        start: u64,
        len: u64,
        device: Arc<dyn BusTarget>,
    ) -> Result<(), BusError> {
        let last = len
            .checked_sub(1)
            .and_then(|rest| start.checked_add(rest))
            .ok_or(BusError::Range { start, len })?;
        let at = self.slots.partition_point(|slot| slot.start < start);
        let before = at.checked_sub(1).and_then(|index| self.slots.get(index));
        let clash = before
            .filter(|slot| slot.last >= start)
            .or_else(|| self.slots.get(at).filter(|slot| slot.start <= last));
        if let Some(other) = clash {
            let other = other.start;
            return Err(BusError::Overlap { start, len, other });
        }
        self.slots.insert(
            at,
            Slot {
                start,
                last,
                device,
            },
        );
        Ok(())
    }

    /// Reads from the device at `address`; all ones where there is none.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((slot, offset)) = self.find(address, data.len()) {
            slot.device.read(offset, data);
        }
    }

    /// Writes to the device at `address`; nothing happens where there is none.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((slot, offset)) = self.find(address, data.len()) {
            slot.device.write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(&Slot, u64)> {
        let end = address.checked_add(u64::try_from(len).ok()?.checked_sub(1)?)?;
        let index = self
            .slots
            .partition_point(|slot| slot.start <= address)
            .checked_sub(1)?;
        let slot = self.slots.get(index)?;
        (end <= slot.last).then(|| (slot, address - slot.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the offset and remembers what was written.
    #[derive(Default)]
    struct Probe(Vec<(u64, Vec<u8>)>);

    impl BusDevice for Probe {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data[0] = u8::try_from(offset).unwrap();
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    fn probe() -> Arc<Mutex<Probe>> {
        Arc::default()
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset() {
        let device = probe();
        let mut bus = Bus::new();
        bus.add(0x600, 0x10, device.clone()).unwrap();

        let mut data = [0; 4];
        bus.read(0x608, &mut data);
        bus.write(0x604, &[1, 2]);

        assert_eq!(data, [8, 0xff, 0xff, 0xff]);
        assert_eq!(device.lock().unwrap().0, [(4, vec![1, 2])]);
    }

    #[test]
    fn nothing_there_reads_as_ones() {
        let mut bus = Bus::new();
        bus.add(0x600, 0x10, probe()).unwrap();

        for address in [0, 0x5ff, 0x610, u64::MAX] {
            let mut data = [0; 2];
            bus.read(address, &mut data);
            assert_eq!(data, [0xff, 0xff], "at {address:#x}");
        }
    }

    #[test]
    fn an_access_across_the_end_is_not_the_devices() {
        let device = probe();
        let mut bus = Bus::new();
        bus.add(0x600, 0x10, device.clone()).unwrap();

        bus.write(0x60f, &[1, 2]);

        assert!(device.lock().unwrap().0.is_empty());
    }

    #[test]
    fn ranges_must_not_overlap() {
        let mut bus = Bus::new();
        bus.add(0x600, 0x10, probe()).unwrap();
        for (start, len) in [(0x5ff, 2), (0x600, 1), (0x60f, 8), (0x5f0, 0x100)] {
            let error = bus.add(start, len, probe()).unwrap_err();
            assert!(matches!(error, BusError::Overlap { other: 0x600, .. }));
        }
        bus.add(0x610, 1, probe()).unwrap();
        bus.add(0x5ff, 1, probe()).unwrap();
        assert!(bus.add(0, 0, probe()).is_err());
        assert!(bus.add(u64::MAX, 2, probe()).is_err());
    }
}
