//! The screen's memory in the guest's address space: a slot of KVM that follows a BAR.
//!
//! Slots are a guest's memory, and no thread that the guest keeps busy may change them: the system
//! call that does is left to one thread that does nothing else ([`Mapper`]), and that knows but one
//! slot and the window that it may lie in. A vCPU that moves the BAR waits for it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use super::Board;
use super::layout::{LOW_RAM_LIMIT, PCI_MMIO32};
use crate::display::Aperture;

/// Behind the slots of RAM (two at most) and of the firmware (two).
const SLOT: u32 = 8;

/// The slot, and where it may lie.
struct Region {
    vm: Arc<VmFd>,
    cells: &'static [AtomicU8],
    window: Range<u64>,
    placed: Mutex<Option<u64>>,
}

impl Region {
    fn place(&self, address: Option<u64>) -> io::Result<()> {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        // Outside the window there are RAM, firmware and the interrupt controllers.
        let address = address.filter(|start| self.may_lie_at(*start));
        if *placed == address {
            return Ok(());
        }
        if let Some(before) = *placed {
            self.set(before, 0)?;
            *placed = None;
        }
        if let Some(start) = address {
            self.set(start, self.cells.len() as u64)?;
            *placed = address;
        }
        Ok(())
    }

    fn may_lie_at(&self, start: u64) -> bool {
        let end = start.checked_add(self.cells.len() as u64);
        start >= self.window.start && end.is_some_and(|end| end <= self.window.end)
    }

    /// Puts the slot at `start`, or takes it away where `length` is zero.
    fn set(&self, start: u64, length: u64) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: SLOT,
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: start,
            memory_size: length,
            userspace_addr: self.cells.as_ptr() as u64,
        };
        // SAFETY: the cells are mapped as long as the process lives; KVM refuses what overlaps
        // another slot.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(io::Error::from)
    }

    fn written(&self) -> io::Result<Vec<u64>> {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if placed.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.vm.get_dirty_log(SLOT, self.cells.len())?)
    }
}

/// Where the slot is to be, and whom to tell what came of it.
struct Order {
    address: Option<u64>,
    done: SyncSender<io::Result<()>>,
}

/// The screen's hold on its slot.
struct Slot {
    region: Arc<Region>,
    orders: Sender<Order>,
    /// The thread is there; before, the one thread of the process does it.
    handed_over: Arc<AtomicBool>,
}

impl Aperture for Slot {
    fn place(&mut self, address: Option<u64>) -> io::Result<()> {
        if !self.handed_over.load(Ordering::Acquire) {
            return self.region.place(address);
        }
        let (done, outcome) = sync_channel(1);
        let gone = || io::Error::other("the thread that moves the guest's memory is gone");
        let order = Order { address, done };
        self.orders.send(order).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }

    fn written(&mut self) -> io::Result<Vec<u64>> {
        self.region.written()
    }
}

/// The work of the thread that moves the slot.
pub struct Mapper {
    region: Arc<Region>,
    orders: Receiver<Order>,
    handed_over: Arc<AtomicBool>,
}

impl Mapper {
    /// From now on orders wait for [`Mapper::run`].
    pub fn take_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    /// Carries out orders until there is no screen any more.
    pub fn run(&self) {
        for order in &self.orders {
            // Whoever ordered waits for it.
            let _ = order.done.send(self.region.place(order.address));
        }
    }
}

impl Board {
    /// The place of the screen's memory in the guest's address space, and the work of the thread that
    /// changes it. For the one screen of a board.
    pub fn aperture(&self, cells: &'static [AtomicU8]) -> (Box<dyn Aperture>, Mapper) {
        let region = Arc::new(Region {
            vm: Arc::clone(&self.vm),
            cells,
            window: LOW_RAM_LIMIT..PCI_MMIO32.end,
            placed: Mutex::new(None),
        });
        let (sender, orders) = channel();
        let handed_over = Arc::new(AtomicBool::new(false));
        let slot = Slot {
            region: Arc::clone(&region),
            orders: sender,
            handed_over: Arc::clone(&handed_over),
        };
        let mapper = Mapper {
            region,
            orders,
            handed_over,
        };
        (Box::new(slot), mapper)
    }
}
