//! What a laptop has and a desk does not: battery, mains adapter, lid and sleep button, as one window of
//! registers that the AML of [`crate::acpi`] reads, and general-purpose events that tell of changes.
//!
//! The window is this board's own. It is read-only: a write does nothing, a read changes nothing, and every
//! width at every offset gives the bytes that lie there, so that there is no state that a guest could
//! bring the device into.
//!
//! | offset | 32 bits |
//! |---|---|
//! | 0x00 | bit 0: on the mains; bit 1: lid open; bit 2: a battery is there |
//! | 0x04 | battery state as in `_BST`: bit 0 discharging, bit 1 charging, bit 2 critical |
//! | 0x08 | rate, mW |
//! | 0x0c | remaining capacity, mWh |
//! | 0x10 | voltage, mV |
//! | 0x14 | design capacity, mWh |
//! | 0x18 | last full charge capacity, mWh |
//! | 0x1c | design voltage, mV |
//! | 0x20 | capacity at which to warn, mWh |
//! | 0x24 | capacity at which it is low, mWh |
//! | 0x28 | cycles |
//!
//! What is not known reads as ones, as ACPI has it (ACPI 6.5, 10.2.2).

use crate::bus::BusDevice;
use crate::supply::Power;
use crate::supply::uevent::{Battery, Flow};

/// Length of the window in bytes.
pub const WINDOW: u8 = 0x2c;
const WORDS: usize = WINDOW as usize / 4;
/// ACPI 6.5, 10.2.2.2: a number that is not known.
const UNKNOWN: u32 = u32::MAX;

/// Bits of the first register.
pub mod status {
    /// On the mains.
    pub const ONLINE: u32 = 1;
    /// The lid is open.
    pub const LID_OPEN: u32 = 1 << 1;
    /// A battery is there.
    pub const BATTERY: u32 = 1 << 2;
}

/// General-purpose events, by number. Number 0 is left to whoever looks for a wire of its own there:
/// ACPICA's `acpiexec` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Plugged in, or unplugged.
    Mains = 1,
    /// A whole percent, or the direction of the current.
    Battery = 2,
    /// Another battery, or none.
    BatteryInfo = 3,
    /// The lid.
    Lid = 4,
    /// Somebody pressed the sleep button.
    SleepButton = 5,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Mains,
        Self::Battery,
        Self::BatteryInfo,
        Self::Lid,
        Self::SleepButton,
    ];

    /// Its bit in the event block.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Where events go.
pub trait Signal: Send {
    /// Latches this event.
    fn raise(&self, event: Event);
}

/// The window.
pub struct Laptop {
    signal: Box<dyn Signal>,
    power: Power,
    lid_open: bool,
}

impl Laptop {
    /// A laptop on the mains, without battery, open.
    pub fn new(signal: Box<dyn Signal>) -> Self {
        Self {
            signal,
            power: Power::default(),
            lid_open: true,
        }
    }

    /// This is so now. Tells of what a person would see: the plug, which way it flows, whole percents.
    pub fn set_power(&mut self, power: Power) {
        let before = std::mem::replace(&mut self.power, power);
        if before.online != power.online {
            self.signal.raise(Event::Mains);
        }
        let lasting = |battery: &Battery| {
            (
                battery.design,
                battery.full,
                battery.design_voltage,
                battery.cycles,
            )
        };
        let shown = |battery: &Battery| (battery.flow, battery.critical, battery.percent());
        if before.battery.as_ref().map(lasting) != power.battery.as_ref().map(lasting) {
            self.signal.raise(Event::BatteryInfo);
        }
        if before.battery.as_ref().map(shown) != power.battery.as_ref().map(shown) {
            self.signal.raise(Event::Battery);
        }
    }

    /// The lid is so now.
    pub fn set_lid(&mut self, open: bool) {
        if std::mem::replace(&mut self.lid_open, open) != open {
            self.signal.raise(Event::Lid);
        }
    }

    /// Somebody pressed the sleep button.
    pub fn press_sleep_button(&self) {
        self.signal.raise(Event::SleepButton);
    }

    fn words(&self) -> [u32; WORDS] {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let status = flag(self.power.online, status::ONLINE)
            | flag(self.lid_open, status::LID_OPEN)
            | flag(self.power.battery.is_some(), status::BATTERY);
        let Some(battery) = &self.power.battery else {
            let mut words = [UNKNOWN; WORDS];
            (words[0], words[1]) = (status, 0);
            return words;
        };
        let state = match battery.flow {
            Flow::Out => 1,
            Flow::In => 2,
            Flow::Idle => 0,
        };
        [
            status,
            state | flag(battery.critical, 4),
            battery.rate.unwrap_or(UNKNOWN),
            battery.now,
            battery.voltage.unwrap_or(UNKNOWN),
            battery.design,
            battery.full,
            battery.design_voltage.unwrap_or(UNKNOWN),
            // Where desktops begin to speak of it, and where they act.
            battery.full / 10,
            battery.full / 20,
            battery.cycles,
        ]
    }
}

impl BusDevice for Laptop {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let bytes = self.words().map(u32::to_le_bytes);
        let bytes = bytes.as_flattened();
        for (at, byte) in (offset..).zip(data) {
            let found = usize::try_from(at).ok().and_then(|at| bytes.get(at));
            *byte = found.copied().unwrap_or(0xff);
        }
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Event>>>);

    impl Signal for Told {
        fn raise(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Told {
        fn take(&self) -> Vec<Event> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn battery(now: u32) -> Battery {
        Battery {
            flow: Flow::Out,
            critical: false,
            rate: None,
            now,
            full: 50_000,
            design: 60_000,
            voltage: Some(12_000),
            design_voltage: Some(11_400),
            cycles: 3,
        }
    }

    fn with(online: bool, battery: Option<Battery>) -> Power {
        Power { online, battery }
    }

    #[test]
    fn each_change_that_a_person_sees_is_told_once() {
        let told = Told::default();
        let mut laptop = Laptop::new(Box::new(told.clone()));
        laptop.set_power(with(true, Some(battery(40_000))));
        assert_eq!(told.take(), [Event::BatteryInfo, Event::Battery]);
        laptop.set_power(with(true, Some(battery(40_300))));
        assert_eq!(told.take(), [], "less than a percent");
        laptop.set_power(with(false, Some(battery(39_400))));
        assert_eq!(told.take(), [Event::Mains, Event::Battery]);
        laptop.set_power(with(false, None));
        assert_eq!(told.take(), [Event::BatteryInfo, Event::Battery]);
        laptop.set_lid(true);
        laptop.set_lid(false);
        laptop.press_sleep_button();
        assert_eq!(told.take(), [Event::Lid, Event::SleepButton]);
    }

    #[test]
    fn the_window_reads_at_every_width_and_keeps_nothing_that_is_written() {
        let mut laptop = Laptop::new(Box::new(Told::default()));
        let read = |laptop: &mut Laptop, offset: u64| {
            let mut data = [0; 4];
            laptop.read(offset, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!(read(&mut laptop, 0), status::ONLINE | status::LID_OPEN);
        assert_eq!(read(&mut laptop, 0x0c), UNKNOWN);
        laptop.set_power(with(false, Some(battery(40_000))));
        laptop.set_lid(false);
        for offset in (0..u64::from(WINDOW)).step_by(4) {
            laptop.write(offset, &[0xff; 4]);
        }
        let found: Vec<u32> = (0..u64::from(WINDOW))
            .step_by(4)
            .map(|offset| read(&mut laptop, offset))
            .collect();
        let expected = [
            status::BATTERY,
            1,
            UNKNOWN,
            40_000,
            12_000,
            60_000,
            50_000,
            11_400,
            5000,
            2500,
            3,
        ];
        assert_eq!(found, expected);
        // Across two registers, and across the end.
        assert_eq!(read(&mut laptop, 0x0e), 12_000 << 16);
        assert_eq!(read(&mut laptop, 0x2a), 0xffff_0000);
    }
}
