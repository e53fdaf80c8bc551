//! The ACPI tables of the board: fixed hardware, not hardware-reduced, because Windows finds its
//! power button only there.
//!
//! Source: ACPI 6.5; what operating systems want of it: `machine.md` 1.2.

mod dsdt;
mod fixed;
#[cfg(test)]
mod judge;
mod laptop;
mod loader;
mod madt;

pub use loader::{Files, LOADER_FILE, RSDP_FILE, TABLES_FILE};

use std::ops::Range;

use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, facs::FACS, mcfg::MCFG, rsdp::Rsdp, xsdt::XSDT};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use crate::board::layout::ACPI_TABLES;
use crate::board::memory::GuestRam;
use crate::chipset::tpm::crb::CONTROL_AREA;

const OEM: [u8; 6] = *b"SEKISH";
const OEM_TABLE: [u8; 8] = *b"SEKISHO1";
const OEM_REVISION: u32 = 1;

/// ACPI 6.5, table 5.3: each table starts at a multiple of this here; FACS wants 64.
const TABLE_ALIGN: u64 = 64;

/// What differs from one guest to the next.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a part of its own, there or not"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Number of vCPUs.
    pub cpus: u8,
    /// Whether there is a PS/2 keyboard and mouse.
    pub ps2: bool,
    /// Whether COM1 is there.
    pub serial: bool,
    /// Whether a TPM is there.
    pub tpm: bool,
    /// Whether it is a laptop: battery, mains adapter, lid and sleep button.
    pub laptop: bool,
    /// The ECAM window of PCI bus 0.
    pub ecam: Range<u64>,
    /// The 64-bit PCI window.
    pub mmio64: Range<u64>,
}

/// The tables do not fit their place.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// Too many processors for the room below 1 MiB.
    #[error("the ACPI tables take {0:#x} bytes and have 0x20000: use fewer --cpus")]
    Room(u64),
    /// Guest memory refused a write.
    #[error("the ACPI tables cannot be written: {0}")]
    Memory(String),
}

/// One table at its address.
pub struct Placed {
    /// Signature, for people.
    pub name: &'static str,
    /// Guest physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Writes the tables into guest memory, the RSDP at the start of [`ACPI_TABLES`].
pub fn write(ram: &GuestRam, hardware: &Hardware) -> Result<(), AcpiError> {
    for table in build(hardware)? {
        ram.write_slice(&table.bytes, GuestAddress(table.address))
            .map_err(|error| AcpiError::Memory(error.to_string()))?;
    }
    Ok(())
}

/// Makes the tables, the RSDP first, for the area that a PC's BIOS is searched for them.
pub fn build(hardware: &Hardware) -> Result<Vec<Placed>, AcpiError> {
    let mut place = Place::from(ACPI_TABLES.start + TABLE_ALIGN);
    let xsdt = place.tables(hardware);
    if place.next > ACPI_TABLES.end {
        return Err(AcpiError::Room(place.next - ACPI_TABLES.start));
    }
    let rsdp = Placed {
        name: "RSDP",
        address: ACPI_TABLES.start,
        bytes: bytes_of(&Rsdp::new(OEM, xsdt)),
    };
    place.tables.insert(0, rsdp);
    Ok(place.tables)
}

/// Puts one table behind the other.
struct Place {
    next: u64,
    tables: Vec<Placed>,
}

impl Place {
    fn from(start: u64) -> Self {
        Self {
            next: start,
            tables: Vec::new(),
        }
    }

    /// All tables but the RSDP, which points to the XSDT: its address is the result.
    fn tables(&mut self, hardware: &Hardware) -> u64 {
        let facs = self.put("FACS", bytes_of(&FACS::new()));
        let dsdt = self.put("DSDT", dsdt::table(hardware));
        let mut leaves = vec![
            self.put("FACP", bytes_of(&fixed::fadt(hardware, facs, dsdt))),
            self.put("APIC", madt::table(hardware.cpus)),
            self.put("MCFG", mcfg(hardware.ecam.start)),
            self.put("WAET", waet()),
        ];
        if hardware.tpm {
            leaves.push(self.put("TPM2", tpm2()));
        }
        let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        for address in leaves {
            xsdt.add_entry(address);
        }
        self.put("XSDT", bytes_of(&xsdt))
    }

    fn put(&mut self, name: &'static str, bytes: Vec<u8>) -> u64 {
        let address = self.next;
        self.next = (address + bytes.len() as u64).next_multiple_of(TABLE_ALIGN);
        self.tables.push(Placed {
            name,
            address,
            bytes,
        });
        address
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// An empty table with a standard header.
fn header(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, 36, revision, OEM, OEM_TABLE, OEM_REVISION)
}

/// ECAM: bus 0 is the only one, its window is the first MiB.
fn mcfg(ecam: u64) -> Vec<u8> {
    let mut table = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    table.add_ecam(ecam, 0, 0, 0);
    bytes_of(&table)
}

/// Windows ACPI Emulated devices Table: clock and PM timer need no work-arounds, each of which
/// would cost exits.
fn waet() -> Vec<u8> {
    const RTC_GOOD: u32 = 1;
    const PM_TIMER_GOOD: u32 = 2;
    let mut table = header(*b"WAET", 1);
    table.append_slice(&(RTC_GOOD | PM_TIMER_GOOD).to_le_bytes());
    table.as_slice().to_vec()
}

/// TCG ACPI Specification 1.3, 8 "ACPI Table for TPM 2.0". There is no log area: OVMF keeps its measurements itself
/// and hands them over by `EFI_TCG2_PROTOCOL`, and a log area that nobody fills would hide them.
fn tpm2() -> Vec<u8> {
    const CLIENT: u16 = 0;
    const START_BY_CRB: u32 = 7;
    let mut table = header(*b"TPM2", 4);
    table.append_slice(&CLIENT.to_le_bytes());
    table.append_slice(&[0; 2]);
    table.append_slice(&CONTROL_AREA.to_le_bytes());
    table.append_slice(&START_BY_CRB.to_le_bytes());
    // Parameters of other start methods; length and address of the log area.
    table.append_slice(&[0; 12]);
    table.append_slice(&[0; 4 + 8]);
    table.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::layout::ECAM;

    pub(super) fn hardware(cpus: u8, ps2: bool) -> Hardware {
        Hardware {
            cpus,
            ps2,
            serial: true,
            tpm: false,
            laptop: false,
            ecam: ECAM,
            mmio64: 0xe0_0000_0000..0x100_0000_0000,
        }
    }

    #[test]
    fn tables_lie_apart_and_add_up() {
        let tables = build(&hardware(4, true)).unwrap();
        for pair in tables.windows(2) {
            assert!(pair[0].address + pair[0].bytes.len() as u64 <= pair[1].address);
        }
        for table in &tables {
            // The FACS has no checksum.
            if table.name != "FACS" {
                let sum = table
                    .bytes
                    .iter()
                    .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                assert_eq!(sum, 0, "{}", table.name);
            }
        }
        assert!(build(&hardware(254, true)).is_ok());
    }

    #[test]
    fn a_tpm_is_told_of_where_there_is_one() {
        let told = |tpm| {
            let hardware = Hardware {
                tpm,
                ..hardware(1, false)
            };
            let tables = build(&hardware).unwrap();
            let table = tables.iter().find(|table| table.name == "TPM2");
            let dsdt = tables.iter().find(|table| table.name == "DSDT").unwrap();
            let device = dsdt.bytes.windows(8).any(|name| name == b"MSFT0101");
            (table.map(|table| table.bytes.clone()), device)
        };
        let (table, device) = told(true);
        let table = table.unwrap();
        assert_eq!((table.len(), &table[..4], device), (76, &b"TPM2"[..], true));
        assert_eq!(table[40..48], 0xfed4_0040_u64.to_le_bytes());
        assert_eq!(told(false), (None, false));
    }
}
