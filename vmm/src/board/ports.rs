//! The PCI bus as the port and memory buses see it.

use std::sync::{Arc, Mutex};

use super::layout::{PCI_CONFIG, RESET_PORT};
use super::power::Power;
use crate::bus::BusTarget;
use crate::chipset::reset::ResetControl;
use crate::pci::PciBus;

/// Offset of the reset control register inside the configuration ports.
const RESET_OFFSET: u64 = (RESET_PORT - PCI_CONFIG) as u64;

/// Ports 0xCF8 to 0xCFF: configuration mechanism #1, and the reset control register among it.
pub(super) struct ConfigPorts {
    pci: Arc<PciBus>,
    reset: Mutex<ResetControl>,
}

impl ConfigPorts {
    pub(super) fn new(pci: Arc<PciBus>, power: Arc<Power>) -> Self {
        Self {
            pci,
            reset: Mutex::new(ResetControl::new(power)),
        }
    }
}

fn port(offset: u64) -> u16 {
    // The range is 8 ports long.
    PCI_CONFIG + u16::try_from(offset).unwrap_or(0)
}

impl BusTarget for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == RESET_OFFSET && data.len() == 1 {
            self.reset.read(0, data);
        } else if !self.pci.port_read(port(offset), data) {
            data.fill(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset == RESET_OFFSET && data.len() == 1 {
            self.reset.write(0, data);
        } else {
            self.pci.port_write(port(offset), data);
        }
    }
}

/// A range of memory addresses that BARs and the ECAM window move about in.
pub(super) struct PciMemory {
    pci: Arc<PciBus>,
    start: u64,
}

impl PciMemory {
    pub(super) fn new(pci: Arc<PciBus>, start: u64) -> Self {
        Self { pci, start }
    }
}

impl BusTarget for PciMemory {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if !self.pci.mmio_read(self.start + offset, data) {
            data.fill(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.pci.mmio_write(self.start + offset, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::power::Ending;
    use crate::pci::{HostBridge, Windows};

    fn config_ports() -> (ConfigPorts, Arc<Power>) {
        let power = Arc::new(Power::new().unwrap());
        let windows = Windows {
            mmio32: 0..0,
            mmio64: 0..0,
        };
        let pci = Arc::new(PciBus::new(HostBridge::new(None), windows));
        (ConfigPorts::new(pci, power.clone()), power)
    }

    /// ACPI 6.5, 4.8.3.6: an operating system writes the FADT's value to the FADT's register.
    #[test]
    fn what_the_fadt_says_resets() {
        const FLAGS: usize = 112;
        const RESET_REG: usize = 116;
        const RESET_VALUE: usize = 128;
        const RESET_REG_SUP: u8 = 1 << 2;
        let tables = crate::acpi::build(&crate::acpi::Hardware {
            cpus: 1,
            ps2: false,
            serial: false,
            tpm: false,
            laptop: false,
            ecam: 0xb000_0000..0xc000_0000,
            mmio64: 0..1,
        })
        .unwrap();
        let fadt = tables.iter().find(|table| table.name == "FACP").unwrap();
        assert_eq!(fadt.bytes[FLAGS + 1] & RESET_REG_SUP, RESET_REG_SUP);
        // A port, eight bits of it.
        assert_eq!(fadt.bytes[RESET_REG..][..3], [1, 8, 0]);
        let address = fadt.bytes[RESET_REG + 4..][..8].try_into().unwrap();
        let offset = u64::from_le_bytes(address) - u64::from(PCI_CONFIG);
        let (ports, power) = config_ports();
        ports.write(offset, &[0]);
        assert!(!power.ended());
        ports.write(offset, &[fadt.bytes[RESET_VALUE]]);
        assert_eq!(power.ending(), Some(&Ending::Reset));
    }

    #[test]
    fn cf9_resets_and_cf8_configures() {
        let (ports, power) = config_ports();

        ports.write(0, &0x8000_0000u32.to_le_bytes());
        let mut id = [0; 4];
        ports.read(4, &mut id);
        assert_eq!(u32::from_le_bytes(id), 0x29c0_8086);
        assert!(!power.ended());
        ports.write(1, &[6]);
        assert_eq!(power.ending(), Some(&Ending::Reset));
    }
}
