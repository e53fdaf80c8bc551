//! SMBIOS tables: who made the machine and what is in it, for asset management and for people who
//! look. Firmware takes them from `fw_cfg` and puts its own BIOS information (type 0) in front.
//!
//! Source: DMTF DSP0134 3.0.

/// What differs from one guest to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// Number of processors.
    pub cpus: u8,
    /// Where memory is, in bytes: start and length.
    pub low: (u64, u64),
    /// Memory above 4 GiB, if any.
    pub high: Option<(u64, u64)>,
}

/// The tables, and the entry point that will point to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// The 64-bit entry point; its address field is the firmware's to fill.
    pub anchor: Vec<u8>,
    /// The structures.
    pub structures: Vec<u8>,
}

const MAKER: &str = "Sekisho";
const PRODUCT: &str = "Sekisho work OS machine";
const VERSION: &str = env!("CARGO_PKG_VERSION");

const ANCHOR_LEN: usize = 24;
const ANCHOR_CHECKSUM: usize = 5;

/// "None of these", of many enumerations.
const OTHER: u8 = 1;
/// No handle, or no error information.
const NONE: u16 = 0xfffe;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Handles, by kind; each kind has room for 256.
const SYSTEM: u16 = 0x100;
const CHASSIS: u16 = 0x300;
const PROCESSOR: u16 = 0x400;
const MEMORY_ARRAY: u16 = 0x1000;
const MEMORY_DEVICE: u16 = 0x1100;
const MAPPED_ARRAY: u16 = 0x1300;
const BOOT_INFORMATION: u16 = 0x2000;
const END: u16 = 0x7f00;

/// Makes the tables.
pub fn build(inventory: &Inventory) -> Tables {
    let mut list = List::default();
    system(&mut list);
    chassis(&mut list);
    for index in 0..inventory.cpus {
        processor(&mut list, index);
    }
    memory(&mut list, inventory);
    // System boot information: no error.
    list.add(32, BOOT_INFORMATION, &[&[0; 7]], &[]);
    list.add(127, END, &[], &[]);
    let structures = list.0;
    Tables {
        anchor: anchor(structures.len()),
        structures,
    }
}

fn anchor(length: usize) -> Vec<u8> {
    let mut anchor = b"_SM3_".to_vec();
    // Checksum, length, version 3.0, revision of the document and of this structure, reserved.
    anchor.extend([0, 24, 3, 0, 0, 1, 0]);
    anchor.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    anchor.resize(ANCHOR_LEN, 0);
    let sum = anchor.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    anchor[ANCHOR_CHECKSUM] = 0u8.wrapping_sub(sum);
    anchor
}

/// Structures, one behind the other.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    /// Adds a structure: its formatted area behind the header, and its strings, which the area names
    /// by number from 1 on.
    fn add(&mut self, kind: u8, handle: u16, area: &[&[u8]], strings: &[&str]) {
        let length: usize = 4 + area.iter().map(|field| field.len()).sum::<usize>();
        self.0.push(kind);
        self.0.push(u8::try_from(length).unwrap_or(u8::MAX));
        self.0.extend(handle.to_le_bytes());
        for field in area {
            self.0.extend(*field);
        }
        for string in strings {
            self.0.extend(string.bytes());
            self.0.push(0);
        }
        // The list of strings ends by an empty one, and is two zeros where there is none.
        let end: &[u8] = if strings.is_empty() { &[0, 0] } else { &[0] };
        self.0.extend(end);
    }
}

/// Type 1.
fn system(list: &mut List) {
    const WAKE_UP_BY_POWER_SWITCH: u8 = 6;
    // Maker, product, version; no serial number; an identifier of zeros is none.
    let strings: [u8; 4] = [1, 2, 3, 0];
    let rest = [WAKE_UP_BY_POWER_SWITCH, 0, 0];
    let area: [&[u8]; 3] = [&strings, &[0; 16], &rest];
    list.add(1, SYSTEM, &area, &[MAKER, PRODUCT, VERSION]);
}

/// Type 3.
fn chassis(list: &mut List) {
    const NOTEBOOK: u8 = 10;
    const SAFE: u8 = 3;
    const NO_SECURITY: u8 = 3;
    // Maker, type, version, serial number, asset tag.
    let names = [1, NOTEBOOK, 0, 0, 0];
    // Boot-up, power supply and thermal state.
    let states = [SAFE, SAFE, SAFE, NO_SECURITY];
    // OEM, height, power cords, contained elements and their length, SKU number.
    let rest = [0, 0, 0, 0, 0, 1, 0, 0, 0];
    list.add(3, CHASSIS, &[&names, &states, &rest], &[MAKER]);
}

/// Type 4: one socket with one core, as CPUID has one socket with all of them; a work OS counts by
/// CPUID.
fn processor(list: &mut List, index: u8) {
    const CENTRAL: u8 = 3;
    /// Populated, and enabled.
    const RUNS: u8 = 1 << 6 | 1;
    const NO_CACHE: [u8; 6] = [0xff; 6];
    let socket = format!("CPU {index}");
    let area: [&[u8]; 10] = [
        // Socket, type, family, maker.
        &[1, CENTRAL, OTHER, 2],
        // Processor id, version, voltage, external clock, the highest and the present speed.
        &[0; 8],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[RUNS, OTHER],
        &NO_CACHE,
        // Serial number, asset tag, part number.
        &[0, 0, 0],
        // Cores, enabled ones, threads; 64-bit capable.
        &[1, 1, 1],
        &4u16.to_le_bytes(),
        // Family, cores, enabled ones and threads once more, in wider fields.
        &u16::from(OTHER).to_le_bytes(),
        &[1, 0, 1, 0, 1, 0],
    ];
    list.add(4, PROCESSOR + u16::from(index), &area, &[&socket, MAKER]);
}

/// Types 16, 17 and 19: one array with one module, mapped at one or two places.
fn memory(list: &mut List, inventory: &Inventory) {
    const ON_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const NO_ECC: u8 = 3;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    /// Sizes that a narrow field cannot tell are told by a wide one.
    const SEE_WIDE_KIB: u32 = 0x8000_0000;
    const SEE_WIDE_MIB: u16 = 0x7fff;
    let total = inventory.low.1 + inventory.high.map_or(0, |(_, length)| length);

    let (narrow, wide) = match u32::try_from(total / KIB) {
        Ok(kib) if kib < SEE_WIDE_KIB => (kib, 0),
        _ => (SEE_WIDE_KIB, total),
    };
    let area: [&[u8]; 5] = [
        &[ON_BOARD, SYSTEM_MEMORY, NO_ECC],
        &narrow.to_le_bytes(),
        &NONE.to_le_bytes(),
        &1u16.to_le_bytes(),
        &wide.to_le_bytes(),
    ];
    list.add(16, MEMORY_ARRAY, &area, &[]);

    let (narrow, wide) = match u16::try_from(total / MIB) {
        Ok(mib) if mib < SEE_WIDE_MIB => (mib, 0),
        _ => (SEE_WIDE_MIB, u32::try_from(total / MIB).unwrap_or(u32::MAX)),
    };
    let area: [&[u8]; 10] = [
        &MEMORY_ARRAY.to_le_bytes(),
        &NONE.to_le_bytes(),
        // Total and data width.
        &[0xff; 4],
        &narrow.to_le_bytes(),
        // Form, set, place, bank, type, and "no special kind".
        &[DIMM, 0, 1, 0, RAM],
        &(1u16 << 2).to_le_bytes(),
        // Speed; maker, serial number, asset tag, part number; attributes.
        &[0, 0, 2, 0, 0, 0, 0],
        &wide.to_le_bytes(),
        // Configured speed; lowest, highest and configured voltage.
        &[0; 2],
        &[0; 6],
    ];
    list.add(17, MEMORY_DEVICE, &area, &["DIMM 0", MAKER]);

    let places = [Some(inventory.low), inventory.high];
    for ((start, length), handle) in places.into_iter().flatten().zip(MAPPED_ARRAY..) {
        let end = start + length - 1;
        // In KiB where that fits, and else in bytes.
        let narrow = (u32::try_from(start / KIB), u32::try_from(end / KIB));
        let (from, to, wide) = match narrow {
            (Ok(from), Ok(to)) if to != u32::MAX => (from, to, [0, 0]),
            _ => (u32::MAX, u32::MAX, [start, end]),
        };
        let area: [&[u8]; 6] = [
            &from.to_le_bytes(),
            &to.to_le_bytes(),
            &MEMORY_ARRAY.to_le_bytes(),
            // Partition width.
            &[1],
            &wide[0].to_le_bytes(),
            &wide[1].to_le_bytes(),
        ];
        list.add(19, handle, &area, &[]);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn inventory(gib: u64) -> Inventory {
        let (low, high) = (gib.min(2) << 30, gib.saturating_sub(2) << 30);
        Inventory {
            cpus: 2,
            low: (0, low),
            high: (high > 0).then_some((4 << 30, high)),
        }
    }

    #[test]
    fn structures_follow_each_other_to_the_end() {
        let tables = build(&inventory(8));
        assert_eq!(tables.anchor.len(), ANCHOR_LEN);
        let sum = tables
            .anchor
            .iter()
            .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
        let mut rest = tables.structures.as_slice();
        let mut kinds = Vec::new();
        while let [kind, length, ..] = *rest {
            kinds.push(kind);
            let strings = &rest[usize::from(length)..];
            let end = strings.windows(2).position(|pair| pair == [0, 0]).unwrap();
            rest = &strings[end + 2..];
        }
        assert_eq!(kinds, [1, 3, 4, 4, 16, 17, 19, 19, 32, 127]);
        assert!(rest.is_empty());
    }

    /// The judge is dmidecode, which names what it cannot make sense of.
    #[test]
    fn dmidecode_finds_no_error() {
        if Command::new("dmidecode").arg("--version").output().is_err() {
            sekisho_skip::skip("dmidecode is not installed (Debian package dmidecode)");
            return;
        }
        for gib in [1, 8, 48] {
            let Tables {
                mut anchor,
                structures,
            } = build(&inventory(gib));
            // dmidecode's dump: the entry point, then at 32 the structures, to which it points.
            anchor[16..24].copy_from_slice(&32u64.to_le_bytes());
            let sum = anchor.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            anchor[ANCHOR_CHECKSUM] = anchor[ANCHOR_CHECKSUM].wrapping_sub(sum);
            anchor.resize(32, 0);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), [anchor, structures].concat()).unwrap();
            let output = Command::new("dmidecode")
                .arg("--from-dump")
                .arg(file.path())
                .output()
                .unwrap();
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{text}");
            for bad in [
                "Invalid",
                "Wrong",
                "OUT OF SPEC",
                "TRUNCATED",
                "BAD INDEX",
                "broken",
            ] {
                assert!(!text.contains(bad), "{bad}: {text}");
            }
            assert!(text.contains(&format!("Size: {gib} GB")), "{text}");
            assert!(
                text.contains("Product Name: Sekisho work OS machine"),
                "{text}"
            );
            assert!(text.contains("Type: Notebook"), "{text}");
        }
    }
}
