//! CPUID as the guest sees it: the host's processor as KVM offers it, with a topology of one
//! socket, clocks whose frequency is told rather than measured, and without what a guest of ours
//! has no use for.
//!
//! Source: Intel SDM 2A "CPUID", AMD APM 3 appendix E, Linux `Documentation/virt/kvm/x86/cpuid.rst`.

use kvm_bindings::kvm_cpuid_entry2;

use super::hyperv;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: the leaf has sub-leaves.
const HAS_INDEX: u32 = 1;
/// First leaf of the hypervisor's range.
pub(super) const HYPERVISOR: u32 = 0x4000_0000;
/// Frequencies of TSC and local APIC timer in kHz (EAX, EBX), as other hypervisors give them.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// KVM's local APIC timer ticks once a nanosecond.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// The crystal that leaf 0x15 tells: with it, the ratio's numerator is the TSC's kHz.
const CRYSTAL_HZ: u32 = 1_000_000;

/// What a vCPU is told about itself and its like.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Number of the vCPU, which is also its APIC identifier.
    pub index: u8,
    /// How many there are.
    pub count: u8,
    /// TSC frequency, where the host knows it.
    pub tsc_khz: Option<u32>,
    /// Whether KVM's local APIC has the TSC deadline timer.
    pub tsc_deadline: bool,
}

/// Which hypervisor the guest finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paravirt {
    /// KVM: what Linux looks for.
    #[default]
    Kvm,
    /// Hyper-V, which Windows looks for, and KVM behind it; KVM alone where the host plays no Hyper-V.
    Both,
    /// Hyper-V alone.
    HyperV,
}

/// The CPUID of one vCPU, made from what KVM supports on this host, of its own and of Hyper-V's.
pub fn tailor(
    supported: &[kvm_cpuid_entry2],
    of_hyperv: &[kvm_cpuid_entry2],
    paravirt: Paravirt,
    cpu: &Topology,
) -> Vec<kvm_cpuid_entry2> {
    let amd = is_amd(supported);
    let bits = physical_bits(supported);
    let mut leaves: Vec<_> = supported
        .iter()
        .filter(|leaf| !matches!(leaf.function, 0xb | 0x15 | 0x1f | HYPERVISOR_TIMING))
        .copied()
        .collect();
    for leaf in &mut leaves {
        tailor_leaf(leaf, cpu, bits);
    }
    add_topology(&mut leaves, cpu);
    if let (Some(khz), false) = (cpu.tsc_khz, amd) {
        add_crystal(&mut leaves, khz);
    }
    match paravirt {
        Paravirt::Kvm => {
            if let Some(khz) = cpu.tsc_khz {
                add_timing(&mut leaves, khz);
            }
        }
        Paravirt::Both => {
            for leaf in leaves.iter_mut().filter(|leaf| is_hypervisors(leaf)) {
                leaf.function += hyperv::KVM_AT - HYPERVISOR;
            }
            raise_max(&mut leaves, hyperv::KVM_AT, hyperv::KVM_AT + 1);
            leaves.extend(hyperv::leaves(of_hyperv, cpu));
        }
        Paravirt::HyperV => {
            leaves.retain(|leaf| !is_hypervisors(leaf));
            leaves.extend(hyperv::leaves(of_hyperv, cpu));
        }
    }
    leaves
}

fn is_hypervisors(leaf: &kvm_cpuid_entry2) -> bool {
    (HYPERVISOR..HYPERVISOR + 0x100).contains(&leaf.function)
}

/// Width of a guest physical address: 40 bits on AMD and 39 on Intel at most, which is what
/// every firmware and Windows take as an ordinary laptop's.
pub fn physical_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    let host = supported
        .iter()
        .find(|leaf| leaf.function == 0x8000_0008)
        .map_or(36, |leaf| leaf.eax & 0xff);
    host.min(if is_amd(supported) { 40 } else { 39 })
}

fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    // "Auth" of AuthenticAMD and "Hygo" of HygonGenuine.
    supported
        .iter()
        .find(|leaf| leaf.function == 0)
        .is_some_and(|leaf| matches!(&leaf.ebx.to_le_bytes(), b"Auth" | b"Hygo"))
}

fn tailor_leaf(leaf: &mut kvm_cpuid_entry2, cpu: &Topology, bits: u32) {
    let id = u32::from(cpu.index);
    let count = u32::from(cpu.count);
    match leaf.function {
        1 => {
            leaf.ebx = leaf.ebx & 0xffff | count << 16 | id << 24;
            // No nested guests; a hypervisor is present.
            set(&mut leaf.ecx, 5, false);
            set(&mut leaf.ecx, 31, true);
            set(&mut leaf.ecx, 24, cpu.tsc_deadline);
            // HTT: the count in EBX is valid.
            set(&mut leaf.edx, 28, count > 1);
        }
        // Caches: the first level is the core's own, the last is everyone's.
        4 | 0x8000_001d => {
            let level = leaf.eax >> 5 & 7;
            let sharing = if level >= 3 { count - 1 } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | sharing << 14;
            if leaf.function == 4 && leaf.eax & 0x1f != 0 {
                leaf.eax |= (count - 1) << 26;
            }
        }
        // ARAT: the local APIC timer never stops. No thermal sensors.
        6 => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (1 << 2, 0, 0, 0),
        // No performance counters.
        0xa => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        0x8000_0001 => {
            // No nested guests, no extended performance counters.
            set(&mut leaf.ecx, 2, false);
            set(&mut leaf.ecx, 23, false);
            // CmpLegacy: several cores without threads, only where there are several.
            let legacy = leaf.ecx >> 1 & 1 != 0;
            set(&mut leaf.ecx, 1, count > 1 && legacy);
        }
        0x8000_0008 => {
            leaf.eax = leaf.eax & !0xff | bits;
            let width = u32::BITS - (count - 1).leading_zeros();
            leaf.ecx = width << 12 | (count - 1);
        }
        0x8000_001e => {
            leaf.eax = id;
            leaf.ebx = leaf.ebx & !0xffff | id;
            leaf.ecx &= !0x7ff;
        }
        _ => {}
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

/// Leaf 0xb: one thread a core, all cores in one socket.
fn add_topology(leaves: &mut Vec<kvm_cpuid_entry2>, cpu: &Topology) {
    let count = u32::from(cpu.count);
    let shift = u32::BITS - (count - 1).leading_zeros();
    // (sub-leaf, shift to the next level, logical processors, level type)
    for (index, shift, logical, level) in [(0, 0, 1, 1), (1, shift, count, 2), (2, 0, 0, 0)] {
        leaves.push(kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: HAS_INDEX,
            eax: shift,
            ebx: logical,
            ecx: level << 8 | index,
            edx: cpu.index.into(),
            ..kvm_cpuid_entry2::default()
        });
    }
    raise_max(leaves, 0, 0xb);
}

fn add_timing(leaves: &mut Vec<kvm_cpuid_entry2>, khz: u32) {
    leaves.push(kvm_cpuid_entry2 {
        function: HYPERVISOR_TIMING,
        eax: khz,
        ebx: APIC_BUS_KHZ,
        ..kvm_cpuid_entry2::default()
    });
    raise_max(leaves, HYPERVISOR, HYPERVISOR_TIMING);
}

fn add_crystal(leaves: &mut Vec<kvm_cpuid_entry2>, khz: u32) {
    leaves.push(kvm_cpuid_entry2 {
        function: 0x15,
        eax: 1000,
        ebx: khz,
        ecx: CRYSTAL_HZ,
        ..kvm_cpuid_entry2::default()
    });
    raise_max(leaves, 0, 0x15);
}

/// Makes the range of leaves that starts at `base` reach `leaf`.
fn raise_max(leaves: &mut [kvm_cpuid_entry2], base: u32, leaf: u32) {
    if let Some(first) = leaves.iter_mut().find(|entry| entry.function == base) {
        first.eax = first.eax.max(leaf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<kvm_cpuid_entry2> {
        let leaf = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..kvm_cpuid_entry2::default()
        };
        vec![
            leaf(0, 0xd, u32::from_le_bytes(*b"Auth"), 0, 0),
            leaf(1, 0x0080_0f12, 0x0302_0800, 0x21, 0),
            leaf(6, 0x77, 2, 9, 0),
            leaf(0xb, 1, 2, 3, 4),
            leaf(
                HYPERVISOR,
                HYPERVISOR + 1,
                u32::from_le_bytes(*b"KVMK"),
                0,
                0,
            ),
            leaf(HYPERVISOR + 1, 0x0100_0007, 0, 0, 0),
            leaf(0x8000_0001, 0, 0, 1 << 2, 0),
            leaf(0x8000_0008, 0x3030, 0, 0, 0),
        ]
    }

    fn guest(index: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
        seeing(Paravirt::Kvm, index, count)
    }

    fn seeing(paravirt: Paravirt, index: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
        let cpu = Topology {
            index,
            count,
            tsc_khz: Some(2_000_000),
            tsc_deadline: true,
        };
        tailor(&host(), &[], paravirt, &cpu)
    }

    fn leaf(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *leaves
            .iter()
            .find(|leaf| (leaf.function, leaf.index) == (function, index))
            .unwrap()
    }

    #[test]
    fn each_vcpu_knows_its_number() {
        let leaves = guest(2, 3);
        assert_eq!(leaf(&leaves, 1, 0).ebx, 0x0203_0800);
        assert_eq!(leaf(&leaves, 0xb, 1).edx, 2);
        assert_eq!(
            (leaf(&leaves, 0xb, 1).eax, leaf(&leaves, 0xb, 1).ebx),
            (2, 3)
        );
    }

    #[test]
    fn nothing_needs_to_be_calibrated() {
        let leaves = guest(0, 1);
        assert_ne!(leaf(&leaves, 1, 0).ecx & 1 << 24, 0, "TSC deadline timer");
        assert_eq!(leaf(&leaves, 6, 0).eax, 1 << 2, "ARAT");
        let timing = leaf(&leaves, HYPERVISOR_TIMING, 0);
        assert_eq!((timing.eax, timing.ebx), (2_000_000, 1_000_000));
        assert_eq!(leaf(&leaves, HYPERVISOR, 0).eax, HYPERVISOR_TIMING);
    }

    #[test]
    fn the_guest_finds_the_hypervisor_that_it_is_to_find() {
        let vendor = |leaves: &[_], function| leaf(leaves, function, 0).ebx.to_le_bytes();
        let both = seeing(Paravirt::Both, 0, 1);
        assert_eq!(&vendor(&both, HYPERVISOR), b"Micr");
        assert_eq!(&vendor(&both, HYPERVISOR + 0x100), b"KVMK");
        assert_eq!(leaf(&both, HYPERVISOR + 0x100, 0).eax, HYPERVISOR + 0x101);
        assert_eq!(leaf(&both, HYPERVISOR + 0x101, 0).eax, 0x0100_0007);
        let hyperv = seeing(Paravirt::HyperV, 0, 1);
        assert_eq!(&vendor(&hyperv, HYPERVISOR), b"Micr");
        assert!(
            hyperv
                .iter()
                .all(|leaf| leaf.function & !0xff != HYPERVISOR + 0x100)
        );
        assert_eq!(&vendor(&guest(0, 1), HYPERVISOR), b"KVMK");
        for leaves in [both, hyperv] {
            let mut functions: Vec<_> = leaves
                .iter()
                .map(|leaf| (leaf.function, leaf.index))
                .collect();
            let all = functions.len();
            functions.sort_unstable();
            functions.dedup();
            assert_eq!(functions.len(), all);
        }
    }

    #[test]
    fn there_are_no_nested_guests() {
        let leaves = guest(0, 1);
        assert_eq!(leaf(&leaves, 1, 0).ecx & 1 << 5, 0);
        assert_eq!(leaf(&leaves, 0x8000_0001, 0).ecx & 1 << 2, 0);
    }

    #[test]
    fn addresses_are_as_wide_as_an_ordinary_laptops() {
        assert_eq!(physical_bits(&host()), 40);
        assert_eq!(leaf(&guest(0, 1), 0x8000_0008, 0).eax, 0x3028);
    }
}
