//! The tables as firmware takes them from `fw_cfg`: three files, of which one is a script that tells
//! where the others go and which of their bytes point where.
//!
//! Source: the commands are QEMU's `BiosLinkerLoaderEntry`, as OVMF (`AcpiPlatformDxe`) and `SeaBIOS`
//! follow them; ACPI 6.5 for what is in the tables.

use acpi_tables::rsdp::Rsdp;

use super::{Hardware, OEM, Place, TABLE_ALIGN, bytes_of};

/// Name of the script.
pub const LOADER_FILE: &str = "etc/table-loader";
/// Name of the root pointer's file.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// Name of the file with all other tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

const COMMAND_LEN: usize = 128;
const NAME_LEN: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Zones of an allocation: anywhere, or where a BIOS is searched for the RSDP.
const HIGH: u8 = 1;
const F_SEGMENT: u8 = 2;
const RSDP_ALIGN: u32 = 16;
const POINTER_LEN: u8 = 8;

/// Offset of the checksum in a table's header (ACPI 6.5, 5.2.6).
const CHECKSUM: usize = 9;
const HEADER_LEN: usize = 36;
/// `X_FIRMWARE_CTRL` and `X_DSDT` of the FADT (ACPI 6.5, 5.2.9).
const FADT_POINTERS: [usize; 2] = [132, 140];
/// `XsdtAddress` of the RSDP and the checksum that covers it (ACPI 6.5, 5.2.5.3).
const RSDP_XSDT: usize = 24;
const RSDP_CHECKSUM: usize = 32;

/// The three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// [`LOADER_FILE`].
    pub loader: Vec<u8>,
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
}

impl Files {
    /// Makes them. A pointer holds its target's offset in the file with the tables until the script
    /// adds the place that the firmware chose.
    pub fn new(hardware: &Hardware) -> Self {
        let mut place = Place::from(0);
        let xsdt = place.tables(hardware);
        let mut script = Script::default();
        script.allocate(RSDP_FILE, RSDP_ALIGN, F_SEGMENT);
        script.allocate(TABLES_FILE, u32::try_from(TABLE_ALIGN).unwrap_or(0), HIGH);

        let mut tables = Vec::new();
        for mut table in place.tables {
            let start = usize::try_from(table.address).unwrap_or(usize::MAX);
            tables.resize(start, 0);
            let pointers: Vec<usize> = match table.name {
                "FACP" => FADT_POINTERS.to_vec(),
                "XSDT" => (HEADER_LEN..table.bytes.len()).step_by(8).collect(),
                _ => Vec::new(),
            };
            for pointer in &pointers {
                script.add_pointer(TABLES_FILE, start + pointer);
            }
            if !pointers.is_empty() {
                table.bytes[CHECKSUM] = 0;
                script.add_checksum(TABLES_FILE, start + CHECKSUM, start, table.bytes.len());
            }
            tables.extend(table.bytes);
        }
        let mut rsdp = bytes_of(&Rsdp::new(OEM, xsdt));
        rsdp[RSDP_CHECKSUM] = 0;
        script.add_pointer(RSDP_FILE, RSDP_XSDT);
        script.add_checksum(RSDP_FILE, RSDP_CHECKSUM, 0, rsdp.len());
        Self {
            loader: script.0,
            rsdp,
            tables,
        }
    }
}

/// The script, one command of 128 bytes after the other.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, command: u32, fields: &[&[u8]]) {
        let start = self.0.len();
        self.0.extend(command.to_le_bytes());
        for field in fields {
            self.0.extend(*field);
        }
        self.0.resize(start + COMMAND_LEN, 0);
    }

    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.command(ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone]]);
    }

    /// At `offset` in `file` there is an offset in [`TABLES_FILE`], which becomes an address.
    fn add_pointer(&mut self, file: &str, offset: usize) {
        let fields: [&[u8]; 4] = [
            &name(file),
            &name(TABLES_FILE),
            &number(offset),
            &[POINTER_LEN],
        ];
        self.command(ADD_POINTER, &fields);
    }

    fn add_checksum(&mut self, file: &str, result: usize, start: usize, length: usize) {
        let fields: [&[u8]; 4] = [
            &name(file),
            &number(result),
            &number(start),
            &number(length),
        ];
        self.command(ADD_CHECKSUM, &fields);
    }
}

fn name(file: &str) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    for (slot, byte) in name.iter_mut().zip(file.bytes()) {
        *slot = byte;
    }
    name
}

/// Offsets in tables of some kilobytes.
fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tests::hardware;
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn text(bytes: &[u8]) -> String {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Follows the script as OVMF does; the files with their addresses.
    fn follow(files: &Files) -> HashMap<String, (u64, Vec<u8>)> {
        let mut placed: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
        for command in files.loader.chunks_exact(COMMAND_LEN) {
            let file = text(&command[4..]);
            match u32_at(command, 0) {
                ALLOCATE => {
                    let (address, bytes) = match file.as_str() {
                        RSDP_FILE => (0xf_5000, files.rsdp.clone()),
                        TABLES_FILE => (0x7e00_0000, files.tables.clone()),
                        _ => panic!("{file}"),
                    };
                    placed.insert(file, (address, bytes));
                }
                ADD_POINTER => {
                    let (base, size) = {
                        let (base, bytes) = &placed[&text(&command[4 + NAME_LEN..])];
                        (*base, bytes.len() as u64)
                    };
                    let at = u32_at(command, 4 + 2 * NAME_LEN) as usize;
                    assert_eq!(command[4 + 2 * NAME_LEN + 4], 8);
                    let bytes = &mut placed.get_mut(&file).unwrap().1;
                    let offset = u64_at(bytes, at);
                    assert!(offset < size);
                    bytes[at..at + 8].copy_from_slice(&(base + offset).to_le_bytes());
                }
                ADD_CHECKSUM => {
                    let [result, start, length] =
                        [0, 4, 8].map(|at| u32_at(command, 4 + NAME_LEN + at) as usize);
                    let bytes = &mut placed.get_mut(&file).unwrap().1;
                    bytes[result] = 0u8.wrapping_sub(sum(&bytes[start..start + length]));
                }
                other => panic!("command {other}"),
            }
        }
        placed
    }

    #[test]
    fn a_firmware_that_follows_the_script_has_whole_tables() {
        let placed = follow(&Files::new(&hardware(2, true)));
        let rsdp = &placed[RSDP_FILE].1;
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        let (base, tables) = &placed[TABLES_FILE];
        let table = |address: u64| {
            let start = usize::try_from(address - base).unwrap();
            assert_eq!(start % 64, 0);
            let length = u32_at(tables, start + 4) as usize;
            &tables[start..start + length]
        };
        let xsdt = table(u64_at(rsdp, RSDP_XSDT));
        assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
        let mut names = Vec::new();
        for entry in (HEADER_LEN..xsdt.len()).step_by(8) {
            let leaf = table(u64_at(xsdt, entry));
            assert_eq!(sum(leaf), 0);
            names.push(String::from_utf8(leaf[..4].to_vec()).unwrap());
            if &leaf[..4] == b"FACP" {
                let [facs, dsdt] = FADT_POINTERS.map(|at| table(u64_at(leaf, at)));
                assert_eq!(&facs[..4], b"FACS");
                assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
            }
        }
        assert_eq!(names, ["FACP", "APIC", "MCFG", "WAET"]);
    }

    #[test]
    fn where_ecam_lies_changes_no_length() {
        let lengths = |ecam| {
            let files = Files::new(&Hardware {
                ecam,
                ..hardware(4, true)
            });
            [files.loader, files.rsdp, files.tables].map(|file| file.len())
        };
        assert_eq!(
            lengths(0xb000_0000..0xc000_0000),
            lengths(0xe000_0000..0xf000_0000)
        );
    }
}
