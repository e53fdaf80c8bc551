//! The MADT: local APICs, the I/O APIC, and how the SCI is wired.

use super::header;
use crate::board::layout::{IO_APIC, LOCAL_APIC, SCI_IRQ};

/// Flags: there are also two 8259s.
const PCAT_COMPAT: u32 = 1;
const LOCAL_APIC_ENABLED: u32 = 1;
/// MPS INTI flags: active high, level-triggered.
const ACTIVE_HIGH_LEVEL: u16 = 1 | 3 << 2;
/// Every processor, in a local APIC NMI structure.
const ALL_PROCESSORS: u8 = 0xff;

/// The table for `cpus` processors (ACPI 6.5, 5.2.12).
pub(super) fn table(cpus: u8) -> Vec<u8> {
    let mut table = header(*b"APIC", 5);
    table.append_slice(&LOCAL_APIC.to_le_bytes());
    table.append_slice(&PCAT_COMPAT.to_le_bytes());
    for cpu in 0..cpus {
        table.append_slice(&[0, 8, cpu, cpu]);
        table.append_slice(&LOCAL_APIC_ENABLED.to_le_bytes());
    }
    // The I/O APIC's identifier follows the processors', as KVM's own does.
    table.append_slice(&[1, 12, cpus, 0]);
    table.append_slice(&IO_APIC.to_le_bytes());
    table.append_slice(&0u32.to_le_bytes());
    // Interrupt source override: bus ISA, source IRQ 9, the same GSI.
    let sci = SCI_IRQ.to_le_bytes();
    table.append_slice(&[2, 10, 0, sci[0]]);
    table.append_slice(&sci);
    table.append_slice(&ACTIVE_HIGH_LEVEL.to_le_bytes());
    // NMI at LINT1.
    table.append_slice(&[4, 6, ALL_PROCESSORS, 0, 0, 1]);
    table.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_has_its_local_apic() {
        let bytes = table(3);
        assert_eq!(bytes.len(), 36 + 8 + 3 * 8 + 12 + 10 + 6);
        assert_eq!(bytes[36 + 8 + 16..][..8], [0, 8, 2, 2, 1, 0, 0, 0]);
    }
}
