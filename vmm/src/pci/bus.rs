//! Root bus 0: configuration mechanism #1, ECAM, and the memory BARs of its functions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::host_bridge::{PCIEXBAR, PCIEXBAR_ENABLE};
use super::{Bar, BarShape, HostBridge, PciDevice, Slot};

/// Port of the configuration address register (dword accesses only; 0xCF9 is the board's reset).
pub const CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// First of the four ports of the configuration data register.
pub const CONFIG_DATA_PORT: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;
const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u8 = 1 << 1;
const BAR0: u16 = 0x10;
/// Address bits inside one function's ECAM page.
const ECAM_FUNCTION_BITS: u32 = 12;

/// Guest physical address ranges for BARs, as the board's memory map has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// For 32-bit BARs, below 4 GiB.
    pub mmio32: Range<u64>,
    /// For 64-bit BARs.
    pub mmio64: Range<u64>,
}

/// Why the bus cannot be set up.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BusError {
    /// Two devices were put in one slot.
    #[error("PCI slot {:02x}.{} is taken; give the device another slot", .0.device, .0.function)]
    Taken(Slot),
    /// A window is too small for the devices.
    #[error(
        "no room for BAR {bar} ({size:#x} bytes) of PCI slot {:02x}.{}; use fewer devices",
        .slot.device, .slot.function
    )]
    NoRoom {
        /// The function.
        slot: Slot,
        /// Its BAR.
        bar: u8,
        /// The size in bytes that was asked.
        size: u64,
    },
}

type Device = Arc<Mutex<dyn PciDevice>>;

struct Mapping {
    range: Range<u64>,
    slot: Slot,
    bar: u8,
    device: Device,
}

struct State {
    config_address: u32,
    ecam: Option<Range<u64>>,
    host_bridge: Arc<Mutex<HostBridge>>,
    devices: BTreeMap<Slot, Device>,
    mappings: Vec<Mapping>,
}

/// The bus. Shared by all vCPU threads; locks are taken in the order bus, device.
pub struct PciBus {
    state: Mutex<State>,
    windows: Windows,
}

impl PciBus {
    /// A bus with its host bridge at 00:00.0 and nothing else.
    pub fn new(host_bridge: HostBridge, windows: Windows) -> Self {
        let ecam = host_bridge.ecam();
        let host_bridge = Arc::new(Mutex::new(host_bridge));
        let first: Device = host_bridge.clone();
        Self {
            state: Mutex::new(State {
                config_address: 0,
                ecam,
                host_bridge,
                devices: BTreeMap::from([(Slot::new(0, 0), first)]),
                mappings: Vec::new(),
            }),
            windows,
        }
    }

    /// Puts a function into a slot.
    pub fn attach(&self, slot: Slot, device: Device) -> Result<(), BusError> {
        let mut state = lock(&self.state);
        if state.devices.contains_key(&slot) {
            return Err(BusError::Taken(slot));
        }
        state.devices.insert(slot, device);
        Ok(())
    }

    /// Opens the ECAM window at `base`, as firmware would: for direct boot.
    pub fn open_ecam(&self, base: u64) {
        let mut state = lock(&self.state);
        let value = (base | PCIEXBAR_ENABLE).to_le_bytes();
        state.write_function(Slot::new(0, 0), PCIEXBAR + 4, &value[4..]);
        state.write_function(Slot::new(0, 0), PCIEXBAR, &value[..4]);
    }

    /// Where the ECAM window is, while it is open.
    pub fn ecam(&self) -> Option<Range<u64>> {
        lock(&self.state).ecam.clone()
    }

    /// Gives each BAR an address in the windows and turns memory decoding on, as firmware would:
    /// for direct boot. Larger BARs first, so that natural alignment wastes nothing.
    pub fn place_bars(&self) -> Result<(), BusError> {
        let mut state = lock(&self.state);
        let mut wanted: Vec<(Slot, BarShape)> = Vec::new();
        for (slot, device) in &state.devices {
            wanted.extend(lock(device).bars().iter().map(|bar| (*slot, bar.shape)));
        }
        wanted.sort_by_key(|(slot, shape)| (std::cmp::Reverse(shape.size), *slot, shape.index));
        let (mut next32, mut next64) = (self.windows.mmio32.start, self.windows.mmio64.start);
        for (slot, shape) in wanted {
            let (next, end) = if shape.wide {
                (&mut next64, self.windows.mmio64.end)
            } else {
                (&mut next32, self.windows.mmio32.end)
            };
            let place = next
                .checked_next_multiple_of(shape.size)
                .and_then(|start| Some(start..start.checked_add(shape.size)?))
                .filter(|place| place.end <= end)
                .ok_or(BusError::NoRoom {
                    slot,
                    bar: shape.index,
                    size: shape.size,
                })?;
            *next = place.end;
            let register = BAR0 + u16::from(shape.index) * 4;
            let address = place.start.to_le_bytes();
            state.write_function(slot, register, &address[..4]);
            if shape.wide {
                state.write_function(slot, register + 4, &address[4..]);
            }
            state.write_function(slot, COMMAND, &[COMMAND_MEMORY]);
        }
        Ok(())
    }

    /// Where each function's BARs answer now, by slot.
    pub fn bars(&self) -> Vec<(Slot, Bar)> {
        let state = lock(&self.state);
        let mut all = Vec::new();
        for (slot, device) in &state.devices {
            all.extend(lock(device).bars().into_iter().map(|bar| (*slot, bar)));
        }
        all
    }

    /// Returns all functions to power-on and forgets the address map. The board follows with
    /// [`PciBus::place_bars`] for direct boot.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.config_address = 0;
        let slots: Vec<Slot> = state.devices.keys().copied().collect();
        for slot in slots {
            state.change(slot, |device| device.reset());
        }
    }

    /// Whether all functions have completed their reset. The board waits for it, with the I/O
    /// thread running, before it loads new contents into guest memory.
    pub fn quiet(&self) -> bool {
        let state = lock(&self.state);
        state.devices.values().all(|device| lock(device).quiet())
    }

    /// Serves a port read; whether the port is the bus's.
    pub fn port_read(&self, port: u16, data: &mut [u8]) -> bool {
        let mut state = lock(&self.state);
        match state.decode_port(port, data.len()) {
            Some(PortAccess::Address) => data.copy_from_slice(&state.config_address.to_le_bytes()),
            Some(PortAccess::Data(target)) => state.read_config(target, data),
            None => return false,
        }
        true
    }

    /// Serves a port write; whether the port is the bus's.
    pub fn port_write(&self, port: u16, data: &[u8]) -> bool {
        let mut state = lock(&self.state);
        match state.decode_port(port, data.len()) {
            Some(PortAccess::Address) => {
                let value = [data[0], data[1], data[2], data[3]];
                // Bits 30 to 24 and 1 to 0 are reserved and read zero.
                state.config_address = u32::from_le_bytes(value) & 0x80ff_fffc;
            }
            Some(PortAccess::Data(target)) => state.write_config(target, data),
            None => return false,
        }
        true
    }

    /// Serves a memory read from the ECAM window or a BAR; whether the address is the bus's.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        let mut state = lock(&self.state);
        if let Some(target) = state.decode_ecam(address) {
            state.read_config(target, data);
            return true;
        }
        let Some((device, bar, offset)) = state.decode_bar(address, data.len()) else {
            return false;
        };
        drop(state);
        lock(&device).read_bar(bar, offset, data);
        true
    }

    /// Serves a memory write to the ECAM window or a BAR; whether the address is the bus's.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        let mut state = lock(&self.state);
        if let Some(target) = state.decode_ecam(address) {
            state.write_config(target, data);
            return true;
        }
        let Some((device, bar, offset)) = state.decode_bar(address, data.len()) else {
            return false;
        };
        drop(state);
        lock(&device).write_bar(bar, offset, data);
        true
    }
}

/// A register of a function of some bus.
#[derive(Clone, Copy)]
struct Target {
    bus: u8,
    slot: Slot,
    register: u16,
}

enum PortAccess {
    Address,
    Data(Target),
}

impl State {
    fn decode_port(&self, port: u16, length: usize) -> Option<PortAccess> {
        if port == CONFIG_ADDRESS_PORT {
            return (length == 4).then_some(PortAccess::Address);
        }
        let byte = port.checked_sub(CONFIG_DATA_PORT)?;
        if usize::from(byte) + length > 4 {
            return None;
        }
        let [register, devfn, bus, _] = self.config_address.to_le_bytes();
        let enabled = self.config_address & CONFIG_ENABLE != 0;
        Some(PortAccess::Data(Target {
            // With the enable bit clear the access is to plain ports behind which nothing answers.
            bus: if enabled { bus } else { u8::MAX },
            slot: Slot::new(devfn >> 3, devfn),
            register: u16::from(register) + byte,
        }))
    }

    fn decode_ecam(&self, address: u64) -> Option<Target> {
        let window = self
            .ecam
            .as_ref()
            .filter(|window| window.contains(&address))?;
        let offset = address - window.start;
        let devfn = (offset >> ECAM_FUNCTION_BITS).to_le_bytes()[0];
        Some(Target {
            bus: (offset >> (ECAM_FUNCTION_BITS + 8)).to_le_bytes()[0],
            slot: Slot::new(devfn >> 3, devfn),
            register: u16::try_from(offset & 0xfff).unwrap_or(0),
        })
    }

    fn decode_bar(&self, address: u64, length: usize) -> Option<(Device, u8, u64)> {
        let last = address.checked_add(u64::try_from(length).ok()?.checked_sub(1)?)?;
        let hit = |mapping: &&Mapping| mapping.range.contains(&address);
        let mapping = self.mappings.iter().find(hit)?;
        let offset = address - mapping.range.start;
        (last < mapping.range.end).then(|| (mapping.device.clone(), mapping.bar, offset))
    }

    /// Reads at most 8 bytes, in pieces that stay inside their dword; absent functions and buses
    /// read all-ones.
    fn read_config(&mut self, target: Target, data: &mut [u8]) {
        let device = self.devices.get(&target.slot).filter(|_| target.bus == 0);
        let Some(device) = device else {
            data.fill(0xff);
            return;
        };
        let mut device = lock(device);
        let mut register = target.register;
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at_mut(piece_len(register, rest.len()));
            device.read_config(register, piece);
            register = register.saturating_add(u16::from(piece.len().to_le_bytes()[0]));
            rest = tail;
        }
    }

    fn write_config(&mut self, target: Target, data: &[u8]) {
        if target.bus != 0 || !self.devices.contains_key(&target.slot) {
            return;
        }
        let mut register = target.register;
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(piece_len(register, rest.len()));
            self.write_function(target.slot, register, piece);
            register = register.saturating_add(u16::from(piece.len().to_le_bytes()[0]));
            rest = tail;
        }
    }

    fn write_function(&mut self, slot: Slot, register: u16, data: &[u8]) {
        self.change(slot, |device| device.write_config(register, data));
        if slot == Slot::new(0, 0) {
            self.ecam = lock(&self.host_bridge).ecam();
        }
    }

    /// Does something to a function's registers and moves its BARs in the address map as it asks.
    fn change(&mut self, slot: Slot, action: impl FnOnce(&mut dyn PciDevice)) {
        let Some(device) = self.devices.get(&slot).cloned() else {
            return;
        };
        let mut function = lock(&device);
        let before = function.bars();
        action(&mut *function);
        for bar in moved(&before, &function.bars()) {
            let index = bar.shape.index;
            self.mappings
                .retain(|mapping| (mapping.slot, mapping.bar) != (slot, index));
            if let Some(start) = bar.address {
                self.mappings.push(Mapping {
                    range: start..start.saturating_add(bar.shape.size),
                    slot,
                    bar: index,
                    device: device.clone(),
                });
            }
            function.bar_moved(index, bar.address);
        }
    }
}

fn moved(before: &[Bar], after: &[Bar]) -> Vec<Bar> {
    let changed = |bar: &&Bar| !before.contains(bar);
    after.iter().filter(changed).copied().collect()
}

/// Length of the first piece of an access that has to stay inside one dword and be 1, 2 or 4 long.
fn piece_len(register: u16, length: usize) -> usize {
    let room = 4 - usize::from(register & 3);
    match room.min(length) {
        3 if register & 1 == 0 => 2,
        3 => 1,
        piece => piece,
    }
}

/// A poisoned lock means that another vCPU's thread panicked inside a device: its registers are
/// still plain data, and refusing them would only turn one panic into many.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{Class, ConfigSpace, Identity};

    struct Plain {
        space: ConfigSpace,
        byte: u8,
        moves: Vec<Option<u64>>,
    }

    impl Plain {
        fn new(size: u64) -> Self {
            let mut space = ConfigSpace::new(&Identity {
                vendor: 0x1af4,
                device: 0x1044,
                revision: 1,
                class: Class {
                    base: 0xff,
                    sub: 0,
                    interface: 0,
                },
                subsystem_vendor: 0x1af4,
                subsystem: 0x1100,
                multifunction: false,
            });
            space.add_bar(BarShape {
                index: 0,
                size,
                wide: true,
                prefetchable: true,
            });
            Self {
                space,
                byte: 0,
                moves: Vec::new(),
            }
        }
    }

    impl PciDevice for Plain {
        fn read_config(&mut self, offset: u16, data: &mut [u8]) {
            assert!(matches!(data.len(), 1 | 2 | 4));
            self.space.read(offset, data);
        }
        fn write_config(&mut self, offset: u16, data: &[u8]) {
            self.space.write(offset, data);
        }
        fn bars(&self) -> Vec<Bar> {
            self.space.bars()
        }
        fn read_bar(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
            data.fill(self.byte.wrapping_add(offset.to_le_bytes()[0]));
        }
        fn write_bar(&mut self, _bar: u8, _offset: u64, data: &[u8]) {
            self.byte = data[0];
        }
        fn bar_moved(&mut self, _bar: u8, address: Option<u64>) {
            self.moves.push(address);
        }
        fn reset(&mut self) {
            self.space.reset();
        }
    }

    const WINDOW: u64 = 0x40_0000_0000;
    const ECAM: u64 = 0xe000_0000;

    fn bus() -> (PciBus, Arc<Mutex<Plain>>) {
        let windows = Windows {
            mmio32: 0xc000_0000..0xe000_0000,
            mmio64: WINDOW..WINDOW + 0x10_0000,
        };
        let bus = PciBus::new(HostBridge::new(Some(ECAM)), windows);
        let device = Arc::new(Mutex::new(Plain::new(0x1000)));
        bus.attach(Slot::new(2, 0), device.clone()).unwrap();
        (bus, device)
    }

    fn config_read(bus: &PciBus, devfn: u32, port: u16, data: &mut [u8]) {
        let address = CONFIG_ENABLE | devfn << 8;
        assert!(bus.port_write(CONFIG_ADDRESS_PORT, &address.to_le_bytes()));
        assert!(bus.port_read(port, data));
    }

    #[test]
    fn mechanism_one_reads_parts_of_a_dword_and_absent_functions_as_ones() {
        let (bus, _device) = bus();
        let mut id = [0; 2];
        config_read(&bus, 0, CONFIG_DATA_PORT + 2, &mut id);
        assert_eq!(u16::from_le_bytes(id), 0x29c0);
        let mut dword = [0; 4];
        config_read(&bus, 2 << 3, CONFIG_DATA_PORT, &mut dword);
        assert_eq!(u32::from_le_bytes(dword), 0x1044_1af4);
        config_read(&bus, 3 << 3, CONFIG_DATA_PORT, &mut dword);
        assert_eq!(dword, [0xff; 4]);
        assert!(!bus.port_write(CONFIG_ADDRESS_PORT + 1, &[6]));
        assert!(!bus.port_read(CONFIG_DATA_PORT + 2, &mut dword));
    }

    #[test]
    fn ecam_serves_bus_zero_and_moves_with_pciexbar() {
        let (bus, _device) = bus();
        let mut long = [0; 8];
        assert!(bus.mmio_read(ECAM + (2 << 15), &mut long));
        assert_eq!(long[..4], 0x1044_1af4_u32.to_le_bytes());
        assert!(bus.mmio_read(ECAM + (1 << 20), &mut long));
        assert_eq!(long, [0xff; 8]);
        assert!(bus.mmio_write(ECAM + 0x60, &0xb000_0001_u32.to_le_bytes()));
        assert!(!bus.mmio_read(ECAM, &mut long));
        assert!(bus.mmio_read(0xb000_0000, &mut long));
        assert_eq!(long[..2], [0x86, 0x80]);
    }

    #[test]
    fn bars_are_placed_relocated_and_reset() {
        let (bus, device) = bus();
        let second = Arc::new(Mutex::new(Plain::new(0x8000)));
        bus.attach(Slot::new(3, 0), second).unwrap();
        bus.place_bars().unwrap();
        let mut byte = [0];
        assert!(bus.mmio_write(WINDOW + 0x8000, &[40]));
        assert!(bus.mmio_read(WINDOW + 0x8002, &mut byte));
        assert_eq!(byte, [42]);

        let function = ECAM + (2 << 15);
        bus.mmio_write(function + 4, &[0, 0]);
        assert!(!bus.mmio_read(WINDOW + 0x8002, &mut byte));
        bus.mmio_write(function + 0x10, &0xd000_0000_u32.to_le_bytes());
        bus.mmio_write(function + 0x14, &0_u32.to_le_bytes());
        bus.mmio_write(function + 4, &[2, 0]);
        assert!(bus.mmio_read(0xd000_0001, &mut byte));
        assert_eq!(byte, [41]);
        bus.reset();
        assert!(!bus.mmio_read(0xd000_0001, &mut byte));
        let moves = device.lock().unwrap().moves.clone();
        let first = Some(WINDOW + 0x8000);
        assert_eq!(moves, [first, None, Some(0xd000_0000), None]);
    }

    #[test]
    fn a_window_that_is_too_small_is_said() {
        let (bus, _device) = bus();
        let large = Arc::new(Mutex::new(Plain::new(0x10_0000)));
        bus.attach(Slot::new(4, 0), large).unwrap();
        assert!(matches!(bus.place_bars(), Err(BusError::NoRoom { .. })));
        let again = Arc::new(Mutex::new(Plain::new(0x1000)));
        assert_eq!(
            bus.attach(Slot::new(4, 0), again),
            Err(BusError::Taken(Slot::new(4, 0)))
        );
    }
}
