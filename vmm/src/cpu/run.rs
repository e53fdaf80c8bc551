//! The loop of one vCPU thread: run, answer the exit, run again.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use tracing::{debug, error};

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
}

/// Runs `vcpu` until the guest has ended.
pub fn run(mut vcpu: VcpuFd, exits: &Exits) {
    while !exits.power.ended() {
        let crash = match vcpu.run() {
            Ok(exit) => match answer(exit, exits) {
                Ok(()) => continue,
                Err(crash) => crash,
            },
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => continue,
            Err(error) => Crash::Host(error.errno()),
        };
        report(&vcpu, &crash);
        exits.power.crash(crash);
    }
}

fn answer(exit: VcpuExit<'_>, exits: &Exits) -> Result<(), Crash> {
    match exit {
        VcpuExit::IoIn(port, data) => exits.ports.read(port.into(), data),
        VcpuExit::IoOut(port, data) => exits.ports.write(port.into(), data),
        VcpuExit::MmioRead(address, data) => exits.mmio.read(address, data),
        VcpuExit::MmioWrite(address, data) => exits.mmio.write(address, data),
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

/// Says where the guest was, for whoever has to find out why.
fn report(vcpu: &VcpuFd, crash: &Crash) {
    error!("the work OS crashed: {crash}");
    if let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) {
        debug!(
            "rip={:#x} rsp={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
            regs.rip, regs.rsp, sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer
        );
    }
}
