//! Virtio over PCI as a driver sees it: capabilities are found through ECAM, structures reached
//! through the BAR.

use std::sync::Arc;

use sekisho_vmm::pci::{PciBus, Slot};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{ECAM, FakePlatform, Machine, mmio_read, mmio_write};

/// Where one structure lies.
#[derive(Debug, Clone, Copy, Default)]
struct Structure {
    address: u64,
    length: u64,
}

/// One function, found by its capabilities.
pub struct BarTransport {
    bus: Arc<PciBus>,
    platform: Arc<FakePlatform>,
    config: u64,
    common: Structure,
    notify: Structure,
    multiplier: u64,
    isr: Structure,
    device: Structure,
    pub table: u64,
}

impl BarTransport {
    pub fn find(machine: &Machine, slot: Slot) -> Self {
        let bus = machine.bus.clone();
        let config = ECAM + (u64::from(slot.devfn()) << 12);
        let mut found = Self {
            bus,
            platform: machine.platform.clone(),
            config,
            common: Structure::default(),
            notify: Structure::default(),
            multiplier: 0,
            isr: Structure::default(),
            device: Structure::default(),
            table: 0,
        };
        assert_eq!(found.config_u16(0), 0x1af4);
        assert_eq!(found.config_u16(0x2c), 0x1af4);
        assert_eq!(found.config_u16(0x2e), 0x1100);
        // Memory and bus mastering on, as each driver does first.
        found.set_config(4, &[6, 0]);
        let mut at = found.config_u8(0x34);
        while at != 0 {
            found.take_capability(u64::from(at));
            at = found.config_u8(u64::from(at) + 1);
        }
        for structure in [found.common, found.notify, found.isr, found.device] {
            assert!(structure.length > 0, "a structure is missing");
        }
        found
    }

    fn take_capability(&mut self, at: u64) {
        match self.config_u8(at) {
            0x09 => {
                let structure = Structure {
                    address: self.bar(self.config_u8(at + 4)) + u64::from(self.config_u32(at + 8)),
                    length: u64::from(self.config_u32(at + 12)),
                };
                match self.config_u8(at + 3) {
                    1 => self.common = structure,
                    2 => {
                        self.notify = structure;
                        self.multiplier = u64::from(self.config_u32(at + 16));
                    }
                    3 => self.isr = structure,
                    4 => self.device = structure,
                    5 => {}
                    kind => panic!("unknown structure {kind}"),
                }
            }
            0x11 => {
                let table = self.config_u32(at + 4);
                self.table = self.bar((table & 7) as u8) + u64::from(table & !7);
                // Enable, all vectors open.
                let control = self.config_u16(at + 2) | 0x8000;
                self.set_config(at + 2, &control.to_le_bytes());
            }
            id => panic!("unknown capability {id:#x}"),
        }
    }

    fn bar(&self, index: u8) -> u64 {
        let register = 0x10 + u64::from(index) * 4;
        let low = u64::from(self.config_u32(register) & !0xf);
        low | u64::from(self.config_u32(register + 4)) << 32
    }

    pub fn config_u8(&self, at: u64) -> u8 {
        mmio_read::<1>(&self.bus, self.config + at)[0]
    }

    pub fn config_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(mmio_read(&self.bus, self.config + at))
    }

    pub fn config_u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(mmio_read(&self.bus, self.config + at))
    }

    pub fn set_config(&self, at: u64, data: &[u8]) {
        assert!(self.bus.mmio_write(self.config + at, data));
    }

    pub fn common<const N: usize>(&self, at: u64) -> [u8; N] {
        mmio_read(&self.bus, self.common.address + at)
    }

    pub fn set_common(&self, at: u64, data: &[u8]) {
        mmio_write(&self.platform, &self.bus, self.common.address + at, data);
    }

    pub fn select(&self, queue: u16) {
        self.set_common(0x16, &queue.to_le_bytes());
    }

    /// Lets `vector` send a message with this data, unmasked, and gives it to queue or
    /// configuration.
    pub fn set_vector(&self, vector: u16, data: u32, queue: Option<u16>) {
        let entry = self.table + u64::from(vector) * 16;
        let write = |at: u64, value: u32| {
            assert!(self.bus.mmio_write(entry + at, &value.to_le_bytes()));
        };
        write(0, 0xfee0_0000);
        write(4, 0);
        write(8, data);
        write(12, 0);
        if let Some(queue) = queue {
            self.select(queue);
            self.set_common(0x1a, &vector.to_le_bytes());
            assert_eq!(self.common(0x1a), vector.to_le_bytes());
        } else {
            self.set_common(0x10, &vector.to_le_bytes());
            assert_eq!(self.common(0x10), vector.to_le_bytes());
        }
    }

    pub fn status(&self) -> u8 {
        self.common::<1>(0x14)[0]
    }

    pub fn device_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(mmio_read(&self.bus, self.device.address + at))
    }

    pub fn notify_address(&self, queue: u16) -> u64 {
        self.select(queue);
        let offset = u64::from(u16::from_le_bytes(self.common(0x1e)));
        self.notify.address + offset * self.multiplier
    }
}

impl Transport for BarTransport {
    fn device_type(&self) -> DeviceType {
        DeviceType::try_from(self.config_u16(2) - 0x1040).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |select: u32| {
            self.set_common(0x00, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.common(0x04)))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        let bytes = features.to_le_bytes();
        for (select, half) in (0_u32..).zip([&bytes[..4], &bytes[4..]]) {
            self.set_common(0x08, &select.to_le_bytes());
            self.set_common(0x0c, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        u16::from_le_bytes(self.common(0x18)).into()
    }

    fn notify(&mut self, queue: u16) {
        let address = self.notify_address(queue);
        mmio_write(&self.platform, &self.bus, address, &queue.to_le_bytes());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.status().into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set_common(0x14, &[status.bits() as u8]);
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.set_common(0x18, &u16::try_from(size).unwrap().to_le_bytes());
        for (at, address) in [
            (0x20, descriptors),
            (0x28, driver_area),
            (0x30, device_area),
        ] {
            let bytes = address.to_le_bytes();
            self.set_common(at, &bytes[..4]);
            self.set_common(at + 4, &bytes[4..]);
        }
        self.set_common(0x1c, &[1, 0]);
        assert_eq!(self.common(0x1c), [1, 0], "the queue was refused");
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.common(0x1c) == [1, 0]
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let isr = mmio_read::<1>(&self.bus, self.isr.address)[0];
        InterruptStatus::from_bits_truncate(isr.into())
    }

    fn read_config_generation(&self) -> u32 {
        self.common::<1>(0x15)[0].into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        let mut address = self.device.address + offset as u64;
        for piece in value.as_mut_bytes().chunks_mut(8) {
            assert!(self.bus.mmio_read(address, piece));
            address += piece.len() as u64;
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let address = self.device.address + offset as u64;
        assert!(self.bus.mmio_write(address, value.as_bytes()));
        Ok(())
    }
}
