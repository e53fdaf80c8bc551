//! Interrupts and doorbells: what devices need of KVM, behind [`Platform`] and [`Line`].
//!
//! Each MSI-X vector is a GSI of its own behind the I/O APIC's pins, with an irqfd. KVM takes the
//! routes of all GSIs at once, so that each change hands over the whole table.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::board::layout::FIRST_MSI_GSI;
use crate::pci::{MsiMessage, Platform, Vector};

/// Pins of the two 8259s.
const PIC_PINS: u32 = 16;
/// Vectors of the whole board. KVM takes 4096 routes; 32 functions of 2·pairs+1 vectors need far
/// fewer, and each costs an eventfd.
const MAX_VECTORS: usize = 1024;

/// One wire into the interrupt controllers.
pub trait Line: Send {
    /// Raises or lowers the wire.
    fn set(&self, high: bool);

    /// Raises and lowers it: one interrupt on an edge-triggered pin.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// A wire into KVM's 8259s and I/O APIC.
pub struct KvmLine {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl KvmLine {
    /// The wire to pin `gsi`.
    pub fn new(vm: Arc<VmFd>, gsi: u32) -> Self {
        Self { vm, gsi }
    }
}

impl Line for KvmLine {
    fn set(&self, high: bool) {
        if let Err(error) = self.vm.set_irq_line(self.gsi, high) {
            // Only a missing interrupt controller or a wrong pin fails: a mistake of ours.
            tracing::error!("interrupt {} cannot be set: {error}", self.gsi);
        }
    }
}

/// Vectors and doorbells in KVM.
pub struct KvmPlatform {
    vm: Arc<VmFd>,
    events: RwLock<Vec<EventFd>>,
    routes: Mutex<Routes>,
}

impl KvmPlatform {
    /// No vectors yet.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            events: RwLock::default(),
            routes: Mutex::default(),
        }
    }
}

fn gsi(index: usize) -> u32 {
    // MAX_VECTORS bounds the index.
    FIRST_MSI_GSI + u32::try_from(index).unwrap_or(0)
}

fn unknown(vector: Vector) -> io::Error {
    io::Error::other(format!("interrupt vector {} was never reserved", vector.0))
}

impl Platform for KvmPlatform {
    fn allocate_vectors(&self, count: u16) -> io::Result<Vec<Vector>> {
        let mut events = self.events.write().unwrap_or_else(PoisonError::into_inner);
        let mut routes = lock(&self.routes);
        if events.len() + usize::from(count) > MAX_VECTORS {
            return Err(io::Error::other(format!(
                "the devices want more than {MAX_VECTORS} interrupt vectors; use fewer devices"
            )));
        }
        let mut vectors = Vec::with_capacity(count.into());
        for _ in 0..count {
            let index = events.len();
            let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            self.vm.register_irqfd(&event, gsi(index))?;
            events.push(event);
            routes.messages.push(None);
            vectors.push(Vector(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        Ok(vectors)
    }

    fn route(&self, vector: Vector, message: Option<MsiMessage>) -> io::Result<()> {
        lock(&self.routes).change(vector, message, |table| {
            let table = KvmIrqRouting::from_entries(table)
                .map_err(|_| io::Error::other("too many interrupt routes"))?;
            Ok(self.vm.set_gsi_routing(&table)?)
        })
    }

    fn signal(&self, vector: Vector) -> io::Result<()> {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let event = usize::try_from(vector.0)
            .ok()
            .and_then(|index| events.get(index))
            .ok_or_else(|| unknown(vector))?;
        event.write(1)
    }

    fn map_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self.vm.register_ioevent(event, &address, NoDatamatch)?)
    }

    fn unmap_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        Ok(self.vm.unregister_ioevent(event, &address, NoDatamatch)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The messages of the vectors, as KVM last took them.
#[derive(Default)]
struct Routes {
    messages: Vec<Option<MsiMessage>>,
}

impl Routes {
    /// Sets a vector's message and hands the whole table to `take`. Where that refuses, the vector
    /// keeps what it had: the next change, of whatever vector, must not bring the refused message
    /// along.
    fn change(
        &mut self,
        vector: Vector,
        message: Option<MsiMessage>,
        take: impl FnOnce(&[kvm_irq_routing_entry]) -> io::Result<()>,
    ) -> io::Result<()> {
        let index = usize::try_from(vector.0).map_err(|_| unknown(vector))?;
        let slot = self.messages.get_mut(index);
        let before = std::mem::replace(slot.ok_or_else(|| unknown(vector))?, message);
        let taken = take(&self.table());
        if taken.is_err()
            && let Some(slot) = self.messages.get_mut(index)
        {
            *slot = before;
        }
        taken
    }

    /// KVM's default routes of the pins, and the vectors that have a message.
    fn table(&self) -> Vec<kvm_irq_routing_entry> {
        let mut table = Vec::with_capacity(40 + self.messages.len());
        for pin in 0..FIRST_MSI_GSI {
            if pin < PIC_PINS / 2 {
                table.push(pin_route(pin, KVM_IRQCHIP_PIC_MASTER, pin));
            } else if pin < PIC_PINS {
                table.push(pin_route(pin, KVM_IRQCHIP_PIC_SLAVE, pin - PIC_PINS / 2));
            }
            table.push(pin_route(pin, KVM_IRQCHIP_IOAPIC, pin));
        }
        for (index, message) in self.messages.iter().enumerate() {
            table.extend(message.map(|message| msi_route(gsi(index), message)));
        }
        table
    }
}

fn pin_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..kvm_irq_routing_entry::default()
    }
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let [low, high] = [message.address, message.address >> 32];
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: u32::try_from(low & 0xffff_ffff).unwrap_or(0),
                address_hi: u32::try_from(high).unwrap_or(0),
                data: message.data,
                ..kvm_irq_routing_msi::default()
            },
        },
        ..kvm_irq_routing_entry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: MsiMessage = MsiMessage {
        address: 0x1_fee0_1000,
        data: 0x4031,
    };

    #[test]
    fn routes_keep_the_pins_and_add_the_vectors_that_have_a_message() {
        let routes = Routes {
            messages: vec![None, Some(MESSAGE)],
        };
        let table = routes.table();
        assert_eq!(table.len(), 16 + 24 + 1);
        let last = table.last().unwrap();
        assert_eq!((last.gsi, last.type_), (25, KVM_IRQ_ROUTING_MSI));
        // SAFETY: the type says that it is an MSI route.
        let msi = unsafe { last.u.msi };
        assert_eq!((msi.address_lo, msi.address_hi), (0xfee0_1000, 1));
        assert_eq!(msi.data, 0x4031);
    }

    #[test]
    fn a_refused_message_is_not_in_the_next_table() {
        let mut routes = Routes {
            messages: vec![None, None],
        };
        let refuse = |_: &[kvm_irq_routing_entry]| Err(io::Error::other("refused"));
        assert!(routes.change(Vector(0), Some(MESSAGE), refuse).is_err());
        let mut length = 0;
        let mut take = |table: &[kvm_irq_routing_entry]| {
            length = table.len();
            Ok(())
        };
        routes.change(Vector(1), Some(MESSAGE), &mut take).unwrap();
        assert_eq!(length, 16 + 24 + 1);
        // What was there stays, also where its end was refused.
        assert!(routes.change(Vector(1), None, refuse).is_err());
        assert_eq!(routes.messages, [None, Some(MESSAGE)]);
        assert!(routes.change(Vector(2), None, |_| Ok(())).is_err());
    }
}
