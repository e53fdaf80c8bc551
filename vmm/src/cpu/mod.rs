//! The processors: what they claim to be, how they start, and the loop that runs each of them.

mod count;
mod cpuid;
mod gate;
mod hyperv;
mod run;

pub use count::{Count, Counts};
pub use cpuid::{Paravirt, Topology, physical_bits, tailor};
pub use gate::{Gate, Stuck, prepare};
pub use run::{Exits, run};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_lapic_state, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use thiserror::Error;

use crate::boot::BootEntry;

/// The most vCPUs of a guest: xAPIC identifiers are 8 bits wide and 255 is the broadcast.
pub const MAX_CPUS: u8 = 254;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, everything write-back: the guest's RAM is; KVM decides for device memory.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// Offsets of the local vector table entries in the local APIC's page (Intel SDM 3A, 10.4.1).
const APIC_LVT0: usize = 0x350;
const APIC_LVT1: usize = 0x360;
const APIC_MODE_NMI: u32 = 4 << 8;
const APIC_MODE_EXTINT: u32 = 7 << 8;

/// Why a processor could not be made.
#[derive(Debug, Error)]
pub enum CpuError {
    /// KVM refused.
    #[error("KVM refuses to {what}: {source}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: kvm_ioctls::Error,
    },
    /// A fixed-size list of `kvm-bindings` overflowed.
    #[error("the list of {0} is longer than KVM takes")]
    TooMany(&'static str),
}

/// Names what KVM was asked for in its error.
fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |source| CpuError::Kvm { what, source }
}

/// What the host's KVM offers its guests, and which hypervisor they find.
pub struct Offer {
    cpuid: CpuId,
    hyperv: Option<CpuId>,
    paravirt: Paravirt,
}

impl Offer {
    /// Asks the host.
    pub fn of(host: &Kvm, paravirt: Paravirt) -> Result<Self, CpuError> {
        let cpuid = host
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(kvm("tell the CPUID that it supports"))?;
        let (hyperv, paravirt) = match (paravirt, hyperv::supported(host)) {
            (Paravirt::Kvm, _) => (None, paravirt),
            (Paravirt::Both, Err(error)) => {
                tracing::warn!("{error}: Windows would be slow on this host");
                (None, Paravirt::Kvm)
            }
            (Paravirt::HyperV | Paravirt::Both, leaves) => (Some(leaves?), paravirt),
        };
        Ok(Self {
            cpuid,
            hyperv,
            paravirt,
        })
    }

    /// Width of a guest physical address.
    pub fn physical_bits(&self) -> u32 {
        physical_bits(self.cpuid.as_slice())
    }
}

/// Makes vCPU `index` of `count` with CPUID and local APIC set; the first also gets the registers of
/// `entry`, and without one starts in the firmware. The others wait for INIT and SIPI.
pub fn create(
    host: &Kvm,
    vm: &VmFd,
    offer: &Offer,
    index: u8,
    count: u8,
    entry: Option<&BootEntry>,
) -> Result<VcpuFd, CpuError> {
    let vcpu = vm
        .create_vcpu(index.into())
        .map_err(kvm("make a virtual processor"))?;
    let topology = Topology {
        index,
        count,
        tsc_khz: vcpu.get_tsc_khz().ok().filter(|khz| *khz > 0),
        tsc_deadline: host.check_extension(Cap::TscDeadlineTimer),
    };
    let entries = tailor(
        offer.cpuid.as_slice(),
        offer.hyperv.as_ref().map_or(&[], CpuId::as_slice),
        offer.paravirt,
        &topology,
    );
    let cpuid = CpuId::from_entries(&entries).map_err(|_| CpuError::TooMany("CPUID leaves"))?;
    vcpu.set_cpuid2(&cpuid).map_err(kvm("set CPUID"))?;
    if offer.paravirt != Paravirt::Kvm {
        hyperv::enable(&vcpu)?;
    }
    set_lapic(&vcpu)?;
    if entry.is_some() {
        set_msrs(&vcpu)?;
    }
    if let (0, Some(entry)) = (index, entry) {
        let reset = vcpu.get_sregs().map_err(kvm("tell special registers"))?;
        vcpu.set_sregs(&entry.sregs(reset))
            .map_err(kvm("set special registers"))?;
        vcpu.set_regs(&entry.regs()).map_err(kvm("set registers"))?;
    }
    Ok(vcpu)
}

/// What firmware sets on each processor, where there is none.
fn set_msrs(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    };
    let msrs = Msrs::from_entries(&[
        entry(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS),
        entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ])
    .map_err(|_| CpuError::TooMany("MSRs"))?;
    vcpu.set_msrs(&msrs).map_err(kvm("set MSRs"))?;
    Ok(())
}

/// Wires LINT0 to the 8259 and LINT1 to NMI, as firmware does.
fn set_lapic(vcpu: &VcpuFd) -> Result<(), CpuError> {
    let mut lapic = vcpu.get_lapic().map_err(kvm("tell the local APIC"))?;
    put_lapic(&mut lapic, APIC_LVT0, APIC_MODE_EXTINT);
    put_lapic(&mut lapic, APIC_LVT1, APIC_MODE_NMI);
    vcpu.set_lapic(&lapic).map_err(kvm("set the local APIC"))
}

fn put_lapic(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (slot, byte) in lapic.regs[offset..offset + 4]
        .iter_mut()
        .zip(value.to_le_bytes())
    {
        *slot = byte.cast_signed();
    }
}
