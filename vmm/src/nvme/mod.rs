//! NVMe controller (NVM Express Base Specification 1.4, here called NVMe) with one namespace over a
//! disk image: the disk that Windows and stock UEFI firmware know without a driver of ours.
//!
//! [`Nvme`] is the PCI function: registers, doorbells, MSI-X. Behind it the controller's queues, which
//! the I/O thread serves: admin commands are answered at once, reads, writes, flushes and
//! deallocations go to the [`crate::disk`]. What the guest wrote is hostile: a command is copied out
//! of its queue once, every address it names is checked before the kernel sees it, and what breaks the
//! rules is answered with the status that the specification gives it, or, where there is nobody to
//! answer, stops the controller (`CSTS.CFS`).

mod admin;
mod command;
mod controller;
mod event;
mod features;
mod identify;
mod io;
mod prp;
mod queue;
mod regs;

pub mod fuzzing;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::controller::{Controller, VECTORS};
use self::regs::{Configuration, Registers, Shutdown, Write};
use crate::disk::{Counters, Disk, DiskError, Store};
use crate::pci::{Bar, BarShape, Class, ConfigSpace, Identity, Msix, PciDevice, Platform};
use crate::virtio::GuestRam;
use crate::worker::{Serve, Source, Turn, event_fd};

/// Ids that Red Hat keeps for devices which have none of their own; drivers look for the class.
const VENDOR: u16 = 0x1af4;
const DEVICE: u16 = 0x10f0;
const SUBSYSTEM: u16 = 0x1100;
/// Mass storage, non-volatile memory, NVM Express I/O controller.
const CLASS: Class = Class {
    base: 0x01,
    sub: 0x08,
    interface: 0x02,
};

/// An NVMe controller on PCI.
///
/// The board locks it for accesses from vCPUs, the worker for turns.
pub struct Nvme {
    space: ConfigSpace,
    msix: Msix,
    ram: GuestRam,
    wake: EventFd,
    registers: Registers,
    controller: Controller,
    /// The controller is being disabled and requests are still under way.
    draining: bool,
    /// How often it was left in a state that only a reset ends.
    faults: u64,
}

impl Nvme {
    /// A controller whose namespace is `store`, which is open for what `read_only` says. `serial` is
    /// its serial number, ASCII, cut to 20 bytes; `index` tells its namespace from that of the guest's
    /// other disks.
    pub fn new(
        store: impl Into<Store>,
        read_only: bool,
        (serial, index): (&str, u8),
        ram: GuestRam,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, DiskError> {
        let mut space = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: DEVICE,
            revision: 1,
            class: CLASS,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
            multifunction: false,
        });
        space.add_bar(BarShape {
            index: regs::BAR,
            size: regs::BAR_SIZE,
            wide: true,
            prefetchable: false,
        });
        let msix = Msix::new(
            &mut space,
            platform,
            VECTORS,
            regs::BAR,
            regs::MSIX_TABLE,
            regs::MSIX_PENDING,
        );
        let disk = Disk::new(store, read_only)?;
        Ok(Self {
            space,
            msix: msix.map_err(DiskError::Board)?,
            ram,
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(DiskError::Board)?,
            registers: Registers::default(),
            controller: Controller::new(disk, identify::Names::new(serial, index)),
            draining: false,
            faults: 0,
        })
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.controller.counters()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.controller.busy()
    }

    fn wake_worker(&self) {
        // A full counter is signalled already.
        let _ = self.wake.write(1);
    }

    /// Whether it is enabled and alive.
    fn alive(&self) -> bool {
        self.registers.ready() && !self.draining
    }

    /// Whether commands are served: it is alive, and allowed to touch memory at all.
    fn running(&self) -> bool {
        self.alive() && self.space.bus_master()
    }

    /// Only a reset helps now. Told ever more seldom: a guest may go on for ever, and the log is the
    /// host's.
    fn fail(&mut self) {
        self.registers.fail();
        self.faults += 1;
        if self.faults.is_power_of_two() {
            let faults = self.faults;
            tracing::warn!(faults, "the guest's NVMe queues are none: it has to reset");
        }
    }

    fn configure(&mut self, before: Configuration) {
        let now = self.registers.configuration();
        match (before.enabled(), now.enabled()) {
            (false, true) if !self.draining => self.enable(),
            (true, false) => self.disable(),
            // Enabled while it drains: it starts when it is done.
            _ => {}
        }
        if before.shutdown() != now.shutdown() && now.shutdown() {
            if self.alive() {
                self.registers.set_shutdown(Shutdown::Occurring);
                self.controller.ask_shutdown();
                self.wake_worker();
            } else {
                self.registers.set_shutdown(Shutdown::Complete);
            }
        }
    }

    fn enable(&mut self) {
        let queues = self.registers.admin_queues();
        let started = self.registers.configuration().supported()
            && self.controller.start(&self.ram, &queues).is_ok();
        if started {
            self.registers.set_ready(true);
        } else {
            self.fail();
        }
    }

    fn disable(&mut self) {
        self.controller.stop();
        self.registers.set_shutdown(Shutdown::Not);
        self.draining = true;
        self.drain();
        if self.draining {
            self.wake_worker();
        }
    }

    fn drain(&mut self) {
        if !self.draining || !self.controller.abandon() {
            return;
        }
        self.draining = false;
        self.registers.clear_status();
        if self.registers.configuration().enabled() {
            self.enable();
            self.wake_worker();
        }
    }

    fn write_register(&mut self, offset: u64, data: &[u8]) {
        match self.registers.write(offset, data) {
            Write::Configuration(before) => self.configure(before),
            Write::Doorbell { queue, tail, value } => {
                let wake = self.alive()
                    && if tail {
                        self.controller.submitted(queue, value)
                    } else {
                        self.controller.consumed(queue, value)
                    };
                if wake {
                    self.wake_worker();
                }
            }
            Write::Nothing => {}
        }
    }
}

impl PciDevice for Nvme {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let bus_master = self.space.bus_master();
        self.space.write(offset, data);
        self.msix.config_written(&self.space);
        if self.space.bus_master() != bus_master {
            self.wake_worker();
        }
    }

    fn bars(&self) -> Vec<Bar> {
        self.space.bars()
    }

    fn read_bar(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        match regs::area(offset) {
            regs::Area::Registers => self.registers.read(offset, data),
            regs::Area::Table(at) => self.msix.read_table(at, data),
            regs::Area::Pending(at) => self.msix.read_pending(at, data),
        }
    }

    fn write_bar(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        match regs::area(offset) {
            regs::Area::Registers => self.write_register(offset, data),
            regs::Area::Table(at) => self.msix.write_table(at, data),
            regs::Area::Pending(_) => {}
        }
    }

    fn reset(&mut self) {
        self.space.reset();
        self.msix.reset();
        self.registers = Registers::default();
        self.disable();
    }

    fn quiet(&self) -> bool {
        !self.draining
    }
}

impl Serve for Nvme {
    fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        // A doorbell's value matters, and an event carries none: each write comes to `write_bar`.
        Vec::new()
    }

    fn wake(&self) -> BorrowedFd<'_> {
        event_fd(&self.wake)
    }

    fn notified(&mut self, _index: usize) {}

    fn woken(&mut self) {
        // Only the count goes; empty means that another wake-up took it.
        let _ = self.wake.read();
    }

    fn ready(&mut self, _token: u32) {}

    fn serve(&mut self) -> Turn {
        if self.draining {
            let turn = self.controller.submit();
            self.drain();
            if self.draining {
                return turn;
            }
        }
        if !self.alive() {
            return Turn::Idle;
        }
        let turn = if self.running() {
            let sizes = self.registers.configuration().entry_sizes();
            self.controller.turn(&self.ram, sizes)
        } else {
            Ok(self.controller.turn_shutdown())
        };
        for vector in self.controller.interrupts() {
            // Without MSI-X the driver looks at the queues by itself, as firmware does.
            self.msix.signal(vector);
        }
        if self.controller.is_shut_down() && self.registers.shutting_down() {
            self.registers.set_shutdown(Shutdown::Complete);
        }
        turn.unwrap_or_else(|controller::Fatal| {
            self.fail();
            Turn::Idle
        })
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        if self.running() || self.draining || self.controller.is_flushing() {
            list.push(self.controller.source());
        }
    }
}
