//! A machine without a VM: PCI bus 0, guest memory, a platform of plain memory, and the devices.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "part of tests, where a surprise ends the test"
)]

pub mod card;
pub mod disk;
pub mod hal;
pub mod ring;
pub mod transport;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use sekisho_vmm::pci::{
    HostBridge, MsiMessage, PciBus, PciDevice, Platform, Slot, Vector, Windows,
};
use sekisho_vmm::virtio::{Device, GuestRam, VirtioPci};
use sekisho_vmm::worker::{Serve, Shared, Worker};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

pub const ECAM: u64 = 0xe000_0000;
pub const WINDOW: u64 = 0x40_0000_0000;
/// No test waits longer for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(10);
const RAM_LEN: usize = 64 << 20;

/// Guest memory, one for all machines of the program, as `virtio-drivers` has one `Hal`.
pub fn ram() -> &'static GuestRam {
    static RAM: OnceLock<GuestRam> = OnceLock::new();
    RAM.get_or_init(|| GuestRam::from_ranges(&[(GuestAddress(0), RAM_LEN)]).unwrap())
}

/// What KVM would do: routes, signals and doorbells, in plain memory.
#[derive(Default)]
pub struct FakePlatform {
    state: Mutex<PlatformState>,
    changed: Condvar,
}

#[derive(Default)]
pub struct PlatformState {
    vectors: u32,
    pub routes: HashMap<Vector, MsiMessage>,
    pub signals: HashMap<u32, usize>,
    doorbells: Vec<(u64, EventFd)>,
}

impl FakePlatform {
    /// How often the message with this data was sent.
    pub fn signals(&self, data: u32) -> usize {
        let state = self.state.lock().unwrap();
        state.signals.get(&data).copied().unwrap_or(0)
    }

    /// Waits until the message with this data was sent at least `count` times.
    pub fn await_signals(&self, data: u32, count: usize) {
        let state = self.state.lock().unwrap();
        let missing =
            |state: &mut PlatformState| state.signals.get(&data).copied().unwrap_or(0) < count;
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(state, PATIENCE, missing)
            .unwrap();
        assert!(!timeout.timed_out(), "interrupt {data:#x} did not come");
    }

    pub fn routes(&self) -> usize {
        self.state.lock().unwrap().routes.len()
    }

    pub fn doorbell_addresses(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state
            .doorbells
            .iter()
            .map(|(address, _)| *address)
            .collect()
    }

    fn ring(&self, address: u64) -> bool {
        let state = self.state.lock().unwrap();
        let hit = state.doorbells.iter().find(|(at, _)| *at == address);
        hit.is_some_and(|(_, event)| event.write(1).is_ok())
    }
}

impl Platform for FakePlatform {
    fn allocate_vectors(&self, count: u16) -> io::Result<Vec<Vector>> {
        let mut state = self.state.lock().unwrap();
        let first = state.vectors;
        state.vectors += u32::from(count);
        Ok((first..state.vectors).map(Vector).collect())
    }

    fn route(&self, vector: Vector, message: Option<MsiMessage>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match message {
            Some(message) => state.routes.insert(vector, message),
            None => state.routes.remove(&vector),
        };
        Ok(())
    }

    fn signal(&self, vector: Vector) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let message = state.routes.get(&vector).copied();
        let message = message.ok_or_else(|| io::Error::other("no route"))?;
        *state.signals.entry(message.data).or_default() += 1;
        self.changed.notify_all();
        Ok(())
    }

    fn map_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let event = event.try_clone()?;
        self.state.lock().unwrap().doorbells.push((address, event));
        Ok(())
    }

    fn unmap_doorbell(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let before = state.doorbells.len();
        state.doorbells.retain(|(at, _)| *at != address);
        if state.doorbells.len() == before {
            return Err(io::Error::other("no such doorbell"));
        }
        Ok(())
    }
}

/// Bus and platform.
pub struct Machine {
    pub bus: Arc<PciBus>,
    pub platform: Arc<FakePlatform>,
    devices: Vec<Shared>,
}

impl Machine {
    pub fn new() -> Self {
        let windows = Windows {
            mmio32: 0xc000_0000..0xe000_0000,
            mmio64: WINDOW..WINDOW + 0x1000_0000,
        };
        Self {
            bus: Arc::new(PciBus::new(HostBridge::new(Some(ECAM)), windows)),
            platform: Arc::default(),
            devices: Vec::new(),
        }
    }

    /// Puts a device into the next slot.
    pub fn add<D: Device + 'static>(&mut self, device: D) -> (Slot, Arc<Mutex<VirtioPci<D>>>) {
        self.insert(VirtioPci::new(device, ram().clone(), self.platform.clone()).unwrap())
    }

    /// Puts a function into the next slot.
    pub fn insert<F: PciDevice + Serve + 'static>(&mut self, function: F) -> (Slot, Arc<Mutex<F>>) {
        let device = Arc::new(Mutex::new(function));
        let slot = Slot::new(u8::try_from(self.devices.len() + 1).unwrap(), 0);
        let function: Arc<Mutex<dyn PciDevice>> = device.clone();
        self.bus.attach(slot, function).unwrap();
        self.devices.push(device.clone());
        (slot, device)
    }

    /// Places the BARs and makes the event loop.
    pub fn start(&self) -> Worker {
        self.bus.place_bars().unwrap();
        Worker::new(self.devices.clone()).unwrap()
    }
}

/// Turns the loop until `done`, which some event has to bring about.
pub fn turn_until(worker: &mut Worker, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "what has to come did not come");
        assert!(worker.turn(Some(Duration::from_millis(100))).unwrap());
    }
}

/// Turns the loop until there is nothing to do now; at most `limit` turns, else the work is not
/// bounded.
pub fn settle(worker: &mut Worker, limit: usize) {
    for _ in 0..limit {
        let before = Instant::now();
        worker.turn(Some(Duration::from_millis(5))).unwrap();
        if before.elapsed() >= Duration::from_millis(5) {
            return;
        }
    }
    panic!("the devices still work after {limit} turns");
}

/// Reads from guest physical address space, as a vCPU would.
pub fn mmio_read<const N: usize>(bus: &PciBus, address: u64) -> [u8; N] {
    let mut data = [0; N];
    assert!(bus.mmio_read(address, &mut data), "nobody at {address:#x}");
    data
}

/// Writes to guest physical address space: doorbells first, as KVM does.
pub fn mmio_write(machine: &FakePlatform, bus: &PciBus, address: u64, data: &[u8]) {
    if !machine.ring(address) {
        assert!(bus.mmio_write(address, data), "nobody at {address:#x}");
    }
}
