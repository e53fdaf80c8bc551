//! Modern virtio-pci (virtio 1.2, section 4.1): one BAR, MSI-X, no legacy interface, no `INTx`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue::NO_VECTOR;
use super::regs::{self, Command, CommonRegs, View};
use super::{Device, DriverFault, GuestRam, Io, Progress, VirtQueue};
use crate::pci::{Bar, BarShape, ConfigSpace, Identity, Msix, PciDevice, Platform};
use crate::worker::{Serve, Source, Turn, event_fd};

const VENDOR: u16 = 0x1af4;
/// PCI device id of virtio device id 0.
const DEVICE_BASE: u16 = 0x1040;
/// Subsystem and revision that the drivers for Windows look for (`machine.md`, section 1.2).
const SUBSYSTEM: u16 = 0x1100;
const REVISION: u8 = 1;
/// Vendor-specific capability.
const CAPABILITY_VENDOR: u8 = 0x09;
/// Length of a `virtio_pci_cap`, with id and next pointer.
const CAP_LEN: usize = 16;
/// Offsets inside a `virtio_pci_cfg_cap`.
const CAP_BAR: usize = 4;
const CAP_OFFSET: usize = 8;
const CAP_LENGTH: usize = 12;
const CAP_DATA: u16 = 16;
/// Queues that the notification page has room for, far more than any device here has.
const MAX_QUEUES: usize = 1024;

/// A virtio device on PCI.
///
/// The board locks it for accesses from vCPUs, the worker for turns, the control thread for
/// [`VirtioPci::update`].
pub struct VirtioPci<D> {
    space: ConfigSpace,
    msix: Msix,
    /// Offset of the capability that reaches the BAR through configuration space.
    window: u16,
    common: CommonRegs,
    queues: Vec<VirtQueue>,
    doorbells: Vec<EventFd>,
    wake: EventFd,
    platform: Arc<dyn Platform>,
    ram: GuestRam,
    device: D,
    status: u8,
    generation: u8,
    config_vector: u16,
    isr: u8,
    /// Address of the BAR for which doorbells are mapped.
    doorbell_base: Option<u64>,
    /// The driver asked for a reset and the device still has operations under way.
    resetting: bool,
    faults: u64,
}

impl<D: Device> VirtioPci<D> {
    /// Puts `device` behind a PCI function that works on `ram`.
    pub fn new(device: D, ram: GuestRam, platform: Arc<dyn Platform>) -> io::Result<Self> {
        let kind = device.kind();
        let sizes = device.queue_sizes();
        if sizes.len() > MAX_QUEUES {
            return Err(io::Error::other("a virtio device has too many queues"));
        }
        let mut space = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + kind.id(),
            revision: REVISION,
            class: kind.class(),
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
            multifunction: false,
        });
        space.add_bar(BarShape {
            index: regs::BAR,
            size: regs::BAR_SIZE,
            wide: true,
            prefetchable: true,
        });
        add_structure(&mut space, regs::CFG_COMMON, regs::COMMON, &[]);
        add_structure(&mut space, regs::CFG_ISR, regs::ISR, &[]);
        add_structure(&mut space, regs::CFG_DEVICE, regs::DEVICE, &[]);
        let multiplier = regs::NOTIFY_MULTIPLIER.to_le_bytes();
        add_structure(&mut space, regs::CFG_NOTIFY, regs::NOTIFY, &multiplier);
        let window = add_window(&mut space);
        let msix = Msix::new(
            &mut space,
            platform.clone(),
            device.vectors(),
            regs::BAR,
            low32(regs::MSIX_TABLE),
            low32(regs::MSIX_PENDING),
        )?;
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let queue = |size: &u16| VirtQueue::new(*size).map_err(io::Error::other);
        Ok(Self {
            space,
            msix,
            window,
            common: CommonRegs::new(&sizes),
            queues: sizes.iter().map(queue).collect::<Result<_, _>>()?,
            doorbells: sizes.iter().map(|_| event()).collect::<Result<_, _>>()?,
            wake: event()?,
            platform,
            ram,
            device,
            status: 0,
            generation: 0,
            config_vector: NO_VECTOR,
            isr: 0,
            doorbell_base: None,
            resetting: false,
            faults: 0,
        })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Changes the device from outside (a fresh back end, a new limit), tells the driver where its
    /// configuration changed, and wakes the worker.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut D) -> R) -> R {
        let result = change(&mut self.device);
        self.flush_config_change();
        self.wake_worker();
        result
    }

    /// How often a driver broke the rules of the rings and was told to reset, since power-on.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Whether the device waits for its driver to reset it.
    pub fn needs_reset(&self) -> bool {
        self.status & regs::STATUS_NEEDS_RESET != 0
    }

    fn offered(&self) -> u64 {
        self.device.features() | regs::F_INDIRECT | regs::F_EVENT_IDX | regs::F_VERSION_1
    }

    /// Whether the device may work on rings and buffers: its driver is ready, and the function may
    /// touch memory at all (bus mastering, PCI Local Bus 3.0, section 6.2.2). What a device handed
    /// to the host before ends as a transaction under way does; its completion waits.
    pub fn running(&self) -> bool {
        self.started() && self.space.bus_master()
    }

    fn started(&self) -> bool {
        let stopped = regs::STATUS_NEEDS_RESET | regs::STATUS_FAILED;
        self.status & (regs::STATUS_DRIVER_OK | stopped) == regs::STATUS_DRIVER_OK
            && !self.resetting
    }

    fn wake_worker(&self) {
        ring(&self.wake);
    }

    fn set_status(&mut self, value: u8) {
        if self.resetting {
            // The driver has to wait until the status reads 0 (section 4.1.4.3.2).
            return;
        }
        if value == 0 {
            self.start_reset();
            return;
        }
        let kept = self.status & regs::STATUS_NEEDS_RESET;
        let mut next = value & !regs::STATUS_NEEDS_RESET | kept | self.status;
        let fresh = next & !self.status;
        if fresh & regs::STATUS_FEATURES_OK != 0 && !self.features_hold() {
            next &= !regs::STATUS_FEATURES_OK;
        }
        let start = fresh & regs::STATUS_DRIVER_OK != 0;
        let ready = regs::STATUS_ACKNOWLEDGE | regs::STATUS_DRIVER | regs::STATUS_FEATURES_OK;
        if start && next & ready != ready {
            next &= !regs::STATUS_DRIVER_OK;
        }
        self.status = next;
        if start && next & regs::STATUS_DRIVER_OK != 0 {
            self.device.activate(self.common.driver_features);
            for index in 0..self.queues.len() {
                self.device.notified(index);
            }
            self.wake_worker();
        }
    }

    fn features_hold(&self) -> bool {
        let accepted = self.common.driver_features;
        accepted & !self.offered() == 0
            && accepted & regs::F_VERSION_1 != 0
            && self.device.accepts(accepted)
    }

    fn enable_queue(&mut self) {
        let index = usize::from(self.common.queue_select);
        let event_idx = self.common.driver_features & regs::F_EVENT_IDX != 0;
        let negotiated = self.status & regs::STATUS_FEATURES_OK != 0;
        let (Some(queue), Some(place)) =
            (self.queues.get_mut(index), self.common.places.get(index))
        else {
            return;
        };
        let enabled = if negotiated {
            queue.enable(&self.ram, place, event_idx)
        } else {
            // Without negotiated features it is not known what the ring means.
            Err(DriverFault::Ring)
        };
        if let Err(fault) = enabled {
            self.fail(fault);
        }
    }

    fn start_reset(&mut self) {
        for queue in &mut self.queues {
            queue.reset();
        }
        self.common.reset();
        self.config_vector = NO_VECTOR;
        self.isr = 0;
        self.resetting = true;
        self.continue_reset();
        if self.resetting {
            self.wake_worker();
        }
    }

    fn continue_reset(&mut self) {
        if self.resetting && self.device.reset() == Progress::Done {
            self.resetting = false;
            self.status = 0;
        }
    }

    /// The driver broke the rules: nothing is served until it resets the device.
    fn fail(&mut self, fault: DriverFault) {
        self.faults += 1;
        if self.needs_reset() {
            return;
        }
        // Ever more seldom: a driver may go on for ever, and the log is the host's.
        if self.faults.is_power_of_two() {
            let (kind, faults) = (self.device.kind(), self.faults);
            tracing::warn!(?kind, %fault, faults, "the guest's driver has to reset");
        }
        self.status |= regs::STATUS_NEEDS_RESET;
        if self.status & regs::STATUS_DRIVER_OK != 0 {
            self.interrupt_config();
        }
    }

    fn flush_config_change(&mut self) {
        if self.device.take_config_change() {
            self.generation = self.generation.wrapping_add(1);
            if self.started() {
                self.interrupt_config();
            }
        }
    }

    fn interrupt_config(&mut self) {
        if !self.msix.signal(self.config_vector) {
            self.isr |= regs::ISR_CONFIG;
        }
    }

    fn interrupt_queues(&mut self) {
        for queue in &mut self.queues {
            if queue.wants_interrupt(&self.ram) && !self.msix.signal(queue.vector) {
                self.isr |= regs::ISR_QUEUE;
            }
        }
    }

    fn known_vector(&self, vector: u16) -> u16 {
        if vector < self.msix.count() {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let selected = self.queues.get(usize::from(self.common.queue_select));
        let view = View {
            status: self.status,
            generation: self.generation,
            device_features: self.offered(),
            queue_count: u16::try_from(self.queues.len()).unwrap_or(u16::MAX),
            config_vector: self.config_vector,
            queue: selected.map(|queue| (queue.vector, queue.ready())),
        };
        self.common.read(&view, offset, data);
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) {
        let index = usize::from(self.common.queue_select);
        let features_open = self.status & regs::STATUS_FEATURES_OK == 0;
        let queue_open = !self.resetting
            && !self.needs_reset()
            && self.queues.get(index).is_some_and(|queue| !queue.ready());
        match self.common.write(offset, data, features_open, queue_open) {
            Command::None => {}
            Command::Status(value) => self.set_status(value),
            Command::ConfigVector(vector) => self.config_vector = self.known_vector(vector),
            Command::QueueVector(vector) => {
                let vector = self.known_vector(vector);
                if let Some(queue) = self.queues.get_mut(index) {
                    queue.vector = vector;
                }
            }
            Command::Enable => self.enable_queue(),
        }
    }

    fn move_doorbells(&mut self, base: Option<u64>) {
        if self.doorbell_base == base {
            return;
        }
        if let Some(old) = self.doorbell_base.take() {
            for (address, event) in doorbell_addresses(old, &self.doorbells) {
                // One that could not be mapped cannot be unmapped either.
                let _ = self.platform.unmap_doorbell(address, event);
            }
        }
        if let Some(new) = base {
            for (address, event) in doorbell_addresses(new, &self.doorbells) {
                if let Err(error) = self.platform.map_doorbell(address, event) {
                    // The write then exits to `write_bar`, which rings the same event. The guest
                    // chose the address, so that this may come as often as it likes.
                    tracing::debug!(address, %error, "a doorbell stays slow");
                }
            }
        }
        self.doorbell_base = base;
    }

    /// The BAR access that the window in configuration space asks for: offset and length.
    fn window_target(&self) -> Option<(u64, usize)> {
        let at = usize::from(self.window);
        let bar = self.space.u32_at(at + CAP_BAR).to_le_bytes()[0];
        let offset = self.space.u32_at(at + CAP_OFFSET);
        let length = usize::try_from(self.space.u32_at(at + CAP_LENGTH)).ok()?;
        let aligned = matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(self.space.u32_at(at + CAP_LENGTH));
        (bar == regs::BAR && aligned).then_some((offset.into(), length))
    }

    fn touches_window(&self, offset: u16) -> bool {
        let data = self.window + CAP_DATA;
        (data..data + 4).contains(&offset)
    }
}

impl<D: Device> PciDevice for VirtioPci<D> {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if self.touches_window(offset)
            && let Some((target, length)) = self.window_target()
        {
            let mut value = [0; 4];
            self.read_bar(regs::BAR, target, &mut value[..length]);
            self.space.set((self.window + CAP_DATA).into(), &value);
        }
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let bus_master = self.space.bus_master();
        self.space.write(offset, data);
        self.msix.config_written(&self.space);
        if self.space.bus_master() != bus_master {
            // What waited may go on, or what is waited for is not of interest now.
            self.wake_worker();
        }
        if self.touches_window(offset)
            && let Some((target, length)) = self.window_target()
        {
            let value = self
                .space
                .u32_at((self.window + CAP_DATA).into())
                .to_le_bytes();
            self.write_bar(regs::BAR, target, &value[..length]);
        }
    }

    fn bars(&self) -> Vec<Bar> {
        self.space.bars()
    }

    fn read_bar(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        let at = offset % regs::PAGE;
        data.fill(0);
        match offset - at {
            regs::COMMON => self.read_common(at, data),
            regs::ISR if at == 0 => {
                if let Some(byte) = data.first_mut() {
                    *byte = std::mem::take(&mut self.isr);
                }
            }
            regs::DEVICE => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                self.device.read_config(at, data);
            }
            regs::MSIX_TABLE => self.msix.read_table(at, data),
            regs::MSIX_PENDING => self.msix.read_pending(at, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        let at = offset % regs::PAGE;
        match offset - at {
            regs::COMMON => self.write_common(at, data),
            regs::DEVICE => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                self.device.write_config(at, data);
                self.wake_worker();
            }
            regs::NOTIFY => {
                let index = usize::try_from(at / u64::from(regs::NOTIFY_MULTIPLIER));
                if let Some(event) = index.ok().and_then(|index| self.doorbells.get(index)) {
                    ring(event);
                }
            }
            regs::MSIX_TABLE => self.msix.write_table(at, data),
            _ => {}
        }
    }

    fn bar_moved(&mut self, bar: u8, address: Option<u64>) {
        if bar == regs::BAR {
            self.move_doorbells(address);
        }
    }

    fn reset(&mut self) {
        self.space.reset();
        self.msix.reset();
        if !self.resetting {
            self.start_reset();
        }
    }

    fn quiet(&self) -> bool {
        !self.resetting
    }
}

impl<D: Device> Serve for VirtioPci<D> {
    fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        self.doorbells.iter().map(event_fd).collect()
    }

    fn wake(&self) -> BorrowedFd<'_> {
        event_fd(&self.wake)
    }

    fn notified(&mut self, index: usize) {
        if let Some(event) = self.doorbells.get(index) {
            // Only the count goes; empty means that another wake-up took it.
            let _ = event.read();
        }
        self.device.notified(index);
    }

    fn woken(&mut self) {
        let _ = self.wake.read();
    }

    fn ready(&mut self, token: u32) {
        self.device.ready(token);
    }

    fn serve(&mut self) -> Turn {
        if self.resetting {
            let turn = self.device.drain();
            self.continue_reset();
            if self.resetting {
                return turn;
            }
        }
        if !self.running() {
            return Turn::Idle;
        }
        let mut io = Io {
            ram: &self.ram,
            queues: &mut self.queues,
        };
        let turn = self.device.turn(&mut io);
        // What was completed before a fault is the driver's.
        self.interrupt_queues();
        self.flush_config_change();
        turn.unwrap_or_else(|fault| {
            self.fail(fault);
            Turn::Idle
        })
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        if self.running() || self.resetting {
            self.device.sources(list);
        }
    }
}

/// Adds a `virtio_pci_cap` for one page of the BAR, with `tail` behind it.
fn add_structure(space: &mut ConfigSpace, kind: u8, offset: u64, tail: &[u8]) {
    let mut body = [0; CAP_LEN - 2 + 4];
    let length = CAP_LEN - 2 + tail.len();
    body[0] = u8::try_from(CAP_LEN + tail.len()).unwrap_or(0);
    body[1] = kind;
    body[2] = regs::BAR;
    body[6..10].copy_from_slice(&low32(offset).to_le_bytes());
    body[10..14].copy_from_slice(&low32(regs::PAGE).to_le_bytes());
    body[CAP_LEN - 2..length].copy_from_slice(tail);
    space.add_capability(CAPABILITY_VENDOR, &body[..length], &[]);
}

/// Adds the `virtio_pci_cfg_cap`, of which the driver writes bar, offset, length and data.
fn add_window(space: &mut ConfigSpace) -> u16 {
    let mut body = [0; CAP_LEN - 2 + 4];
    body[0] = u8::try_from(CAP_LEN + 4).unwrap_or(0);
    body[1] = regs::CFG_PCI;
    let mut writable = [0xff; CAP_LEN - 2 + 4];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    space.add_capability(CAPABILITY_VENDOR, &body, &writable)
}

fn doorbell_addresses(base: u64, events: &[EventFd]) -> impl Iterator<Item = (u64, &EventFd)> {
    let step = u64::from(regs::NOTIFY_MULTIPLIER);
    let addresses = (0..).map(move |index: u64| base + regs::NOTIFY + index * step);
    addresses.zip(events)
}

/// Adds one to an event; a full counter is signalled already.
fn ring(event: &EventFd) {
    let _ = event.write(1);
}

/// Offsets inside the BAR are small.
fn low32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
