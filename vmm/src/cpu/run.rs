//! The loop of one vCPU thread: run, answer the exit, run again.

use std::sync::Arc;

use kvm_bindings::{KVM_EXIT_HYPERV_HCALL, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use tracing::{debug, error};

use super::count::Counts;
use super::gate::Gate;
use crate::board::power::{Crash, Power};
use crate::bus::Bus;

/// What a vCPU thread needs to answer exits.
#[derive(Clone)]
pub struct Exits {
    /// Ports.
    pub ports: Arc<Bus>,
    /// Memory-mapped devices.
    pub mmio: Arc<Bus>,
    /// Where the end of the guest is told.
    pub power: Arc<Power>,
    /// Where processors stop while the guest is paused.
    pub gate: Arc<Gate>,
    /// What they left the guest for.
    pub counts: Arc<Counts>,
}

/// Runs `vcpu` until the guest has ended.
pub fn run(mut vcpu: VcpuFd, exits: &Exits) {
    let page = RunPage(vcpu.get_kvm_run());
    let pass = Arc::clone(&exits.gate).enter();
    let tally = exits.counts.join();
    while !exits.power.ended() {
        if pass.wait() {
            // Tells kvm-clock that it was stopped; a guest without it needs nothing.
            let _ = vcpu.kvmclock_ctrl();
        }
        let crash = match vcpu.run() {
            Ok(exit) => {
                tally.exit(&exit);
                match answer(exit, &page, exits) {
                    Ok(()) => continue,
                    Err(crash) => crash,
                }
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                tally.interrupted();
                continue;
            }
            Err(error) => Crash::Host(error.errno()),
        };
        report(&vcpu, &crash);
        exits.power.crash(crash);
    }
}

/// What KVM tells of an exit beside what [`VcpuExit`] has.
trait Told {
    /// Bytes of one element of the port access that made the vCPU exit.
    fn element(&self) -> usize;

    /// The vCPU came out for Hyper-V. KVM keeps `SynIC`'s registers and pages itself, and only tells of
    /// them; a hypercall that it leaves to us is one that nobody here plays.
    fn refuse_hypercall(&self);
}

/// The page that KVM shares with us for one vCPU.
struct RunPage(*mut kvm_run);

impl Told for RunPage {
    fn element(&self) -> usize {
        // SAFETY: the page is mapped while the vCPU lives, which `run` owns; nothing writes to it while
        // the vCPU stands at an exit. An exit for a port filled this part of the union.
        unsafe { (&raw const (*self.0).__bindgen_anon_1.io.size).read() }.into()
    }

    fn refuse_hypercall(&self) {
        /// `HV_STATUS_INVALID_HYPERCALL_CODE` (TLFS, appendix B).
        const INVALID_CODE: u64 = 2;
        // SAFETY: as above; an exit for Hyper-V filled this part of the union, and KVM reads the result
        // of a hypercall from it when the vCPU runs again.
        unsafe {
            let exit = &raw mut (*self.0).__bindgen_anon_1.hyperv;
            if (&raw const (*exit).type_).read() == KVM_EXIT_HYPERV_HCALL {
                (&raw mut (*exit).u.hcall.result).write(INVALID_CODE);
            }
        }
    }
}

/// Answers an exit.
fn answer(exit: VcpuExit<'_>, told: &impl Told, exits: &Exits) -> Result<(), Crash> {
    match exit {
        VcpuExit::IoIn(port, data) => ports_in(&exits.ports, port, told.element(), data),
        VcpuExit::IoOut(port, data) => ports_out(&exits.ports, port, told.element(), data),
        VcpuExit::MmioRead(address, data) => exits.mmio.read(address, data),
        VcpuExit::MmioWrite(address, data) => exits.mmio.write(address, data),
        VcpuExit::Hyperv => told.refuse_hypercall(),
        VcpuExit::Shutdown => return Err(Crash::TripleFault),
        VcpuExit::FailEntry(reason, cpu) => {
            error!("the processor refuses to enter the guest: reason {reason:#x} on cpu {cpu}");
            return Err(Crash::Entry(reason));
        }
        VcpuExit::InternalError => return Err(Crash::Internal),
        VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => {}
        other => {
            error!("KVM gave an exit that nobody asked for: {other:?}");
            return Err(Crash::Unexpected);
        }
    }
    Ok(())
}

/// Reads a port once for each element: `rep ins` comes as one exit with all its elements.
fn ports_in(ports: &Bus, port: u16, width: usize, data: &mut [u8]) {
    for element in data.chunks_mut(width.max(1)) {
        ports.read(port.into(), element);
    }
}

/// Writes a port once for each element, as [`ports_in`] reads.
fn ports_out(ports: &Bus, port: u16, width: usize, data: &[u8]) {
    for element in data.chunks(width.max(1)) {
        ports.write(port.into(), element);
    }
}

/// Says where the guest was, for whoever has to find out why.
fn report(vcpu: &VcpuFd, crash: &Crash) {
    error!(
        crash = crash.name(),
        "the work OS crashed: {crash}; {}",
        crash.advice()
    );
    if let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) {
        debug!(
            "rip={:#x} rsp={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
            regs.rip, regs.rsp, sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kvm_bindings::KVM_EXIT_HYPERV_SYNIC;

    use super::*;
    use crate::bus::BusDevice;

    /// Counts its reads and keeps what was written.
    #[derive(Default)]
    struct Register {
        reads: u8,
        written: Vec<Vec<u8>>,
    }

    impl BusDevice for Register {
        fn read(&mut self, _offset: u64, data: &mut [u8]) {
            self.reads += 1;
            data.fill(self.reads);
        }

        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.written.push(data.to_vec());
        }
    }

    #[test]
    fn a_hypercall_that_nobody_plays_is_refused_and_registers_need_nothing() {
        let exits = Exits {
            ports: Arc::new(Bus::new()),
            mmio: Arc::new(Bus::new()),
            power: Arc::new(Power::new().unwrap()),
            gate: Arc::default(),
            counts: Arc::default(),
        };
        for (kind, left) in [(KVM_EXIT_HYPERV_HCALL, 2), (KVM_EXIT_HYPERV_SYNIC, 77)] {
            let mut page = kvm_run::default();
            page.__bindgen_anon_1.hyperv.type_ = kind;
            page.__bindgen_anon_1.hyperv.u.hcall.result = 77;
            let told = RunPage(&raw mut page);
            assert_eq!(answer(VcpuExit::Hyperv, &told, &exits), Ok(()));
            // SAFETY: the test filled this part of the union.
            let result = unsafe { page.__bindgen_anon_1.hyperv.u.hcall.result };
            assert_eq!(result, left);
        }
    }

    #[test]
    fn a_string_of_elements_is_as_many_accesses_to_one_port() {
        let register = Arc::new(Mutex::new(Register::default()));
        let mut ports = Bus::new();
        ports.add(0x70, 4, register.clone()).unwrap();

        let mut data = [0; 6];
        ports_in(&ports, 0x70, 2, &mut data);
        ports_out(&ports, 0x70, 1, b"ab");
        ports_out(&ports, 0x70, 4, b"long");

        assert_eq!(data, [1, 1, 2, 2, 3, 3]);
        let written = std::mem::take(&mut register.lock().unwrap().written);
        assert_eq!(written, [&b"a"[..], b"b", b"long"]);
        // Not even a kernel that speaks of no width stops the loop.
        ports_in(&ports, 0x70, 0, &mut data);
    }
}
