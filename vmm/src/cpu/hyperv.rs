//! Hyper-V's CPUID leaves: what Windows asks for before it uses clocks and interrupts that cost no
//! exits. KVM does the work (reference TSC page, `SynIC`, synthetic timers, TLB flush and IPI by
//! hypercall); it only has to be said.
//!
//! Source: Hypervisor Top-Level Functional Specification 6.0b, chapter 2 "Feature and Interface
//! Discovery"; Linux `Documentation/virt/kvm/api.rst`, `KVM_GET_SUPPORTED_HV_CPUID`.

use kvm_bindings::{
    CpuId, KVM_CAP_HYPERV_SYNIC2, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_enable_cap,
};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_mut_ptr;

use super::cpuid::{HYPERVISOR, Topology};
use super::{CpuError, kvm};

/// `KVM_GET_SUPPORTED_HV_CPUID`, which `kvm-ioctls` does not have.
const KVM_GET_SUPPORTED_HV_CPUID: u64 = 0xc008_aec1;

/// Where KVM's own leaves go, which Linux finds there too.
pub(super) const KVM_AT: u32 = HYPERVISOR + 0x100;

const INTERFACE: u32 = HYPERVISOR + 1;
const VERSION: u32 = HYPERVISOR + 2;
const FEATURES: u32 = HYPERVISOR + 3;
const HINTS: u32 = HYPERVISOR + 4;
const LIMITS: u32 = HYPERVISOR + 5;
const HARDWARE: u32 = HYPERVISOR + 6;

/// Partition privileges (EAX of [`FEATURES`]): run time, reference counter, `SynIC`, synthetic timers,
/// APIC registers, hypercalls, the processor's number, the reference TSC page, frequencies. Without
/// hypercalls and numbers Windows 11 never turns to the reference TSC page.
const PRIVILEGES: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
/// Features (EDX of [`FEATURES`]): hypercall input in XMM registers, frequency registers, timers that
/// interrupt by a vector of their own.
const WAYS: u32 = 1 << 4 | 1 << 8 | 1 << 19;
/// Recommendations (EAX of [`HINTS`]): flush a TLB by hypercall, here and elsewhere, APIC registers as
/// MSRs, no watchdog for late timers, no automatic end of interrupt (it would take the hardware's
/// virtual APIC away), interrupts to many by hypercall, sets of more than 64 processors.
const RECOMMENDED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11;
/// How often a processor tries for a spinlock before it tells the hypervisor.
const SPINS: u32 = 0xfff;
/// A build of Windows Server 2016, the first whose hypervisor had all of this.
const BUILD: (u32, u32) = (14393, 10 << 16);

/// What the host's KVM can play of Hyper-V.
pub(super) fn supported(host: &Kvm) -> Result<CpuId, CpuError> {
    let mut leaves =
        CpuId::new(KVM_MAX_CPUID_ENTRIES).map_err(|_| CpuError::TooMany("CPUID leaves"))?;
    // SAFETY: the kernel fills at most as many entries as the structure says that it has, and the
    // structure lives until it has done so.
    let outcome = unsafe {
        ioctl_with_mut_ptr(
            host,
            KVM_GET_SUPPORTED_HV_CPUID,
            leaves.as_mut_fam_struct_ptr(),
        )
    };
    if outcome < 0 {
        let error = kvm_ioctls::Error::last();
        return Err(kvm("tell what it can play of Hyper-V")(error));
    }
    Ok(leaves)
}

/// Turns the vCPU's `SynIC` on.
pub(super) fn enable(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let cap = kvm_enable_cap {
        cap: KVM_CAP_HYPERV_SYNIC2,
        ..kvm_enable_cap::default()
    };
    vcpu.enable_cap(&cap)
        .map_err(kvm("give a processor Hyper-V's interrupt controller"))
}

/// The leaves of Hyper-V: no more than KVM supports, and of that what a guest of ours is to use.
pub(super) fn leaves(supported: &[kvm_cpuid_entry2], cpu: &Topology) -> Vec<kvm_cpuid_entry2> {
    let of = |function| {
        let found = supported.iter().find(|leaf| leaf.function == function);
        found.copied().unwrap_or_default()
    };
    let leaf = |function, [eax, ebx, ecx, edx]: [u32; 4]| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    };
    let four = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let vendor = [four(b"Micr"), four(b"osof"), four(b"t Hv")];
    let (features, hints) = (of(FEATURES), of(HINTS));
    vec![
        leaf(HYPERVISOR, [HARDWARE, vendor[0], vendor[1], vendor[2]]),
        leaf(INTERFACE, [four(b"Hv#1"), 0, 0, 0]),
        leaf(VERSION, [BUILD.0, BUILD.1, 0, 0]),
        leaf(
            FEATURES,
            [features.eax & PRIVILEGES, 0, 0, features.edx & WAYS],
        ),
        leaf(HINTS, [hints.eax & RECOMMENDED, SPINS, 0, 0]),
        leaf(LIMITS, [cpu.count.into(), u32::from(cpu.count), 0, 0]),
        leaf(HARDWARE, [0, 0, 0, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_that_kvm_does_not_keep() {
        let cpu = Topology {
            index: 0,
            count: 4,
            tsc_khz: None,
            tsc_deadline: true,
        };
        let kvm = |function, eax, edx| kvm_cpuid_entry2 {
            function,
            eax,
            edx,
            ..kvm_cpuid_entry2::default()
        };
        // All but the reference TSC page and the direct timers; and what nobody asked for.
        let host = [
            kvm(FEATURES, !(1 << 9), !(1 << 19)),
            kvm(HINTS, 1 << 5 | 1, 0),
        ];
        let leaves = leaves(&host, &cpu);
        let of = |function| {
            leaves
                .iter()
                .find(|leaf| leaf.function == function)
                .unwrap()
        };
        assert_eq!(of(FEATURES).eax, PRIVILEGES & !(1 << 9));
        assert_eq!(of(FEATURES).edx, 1 << 4 | 1 << 8);
        assert_eq!(of(HINTS).eax, 1 << 5);
        assert_eq!((of(LIMITS).eax, of(HYPERVISOR).eax), (4, HARDWARE));
        let vendor = [of(HYPERVISOR).ebx, of(HYPERVISOR).ecx, of(HYPERVISOR).edx];
        let vendor: Vec<u8> = vendor.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(vendor, b"Microsoft Hv");
    }
}
