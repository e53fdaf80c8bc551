//! ACPI fixed hardware: the `PM1a` event and control registers, the PM timer, and a GPE0 block with the
//! laptop's events; always in ACPI mode.
//!
//! Source: ACPI 6.5, 4.8.3 "Fixed Hardware Features" and 4.8.4.1 "General-Purpose Event Register Blocks";
//! register offsets as ICH9 has them
//! (datasheet 13.8).

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::board::power::{Ending, Power};
use crate::bus::BusDevice;
use crate::chipset::laptop::{Event, Signal};
use crate::irq::Line;

/// Offset of `PM1a_STS` and `PM1a_EN`.
pub const PM1_EVENT: u16 = 0x00;
/// Offset of `PM1a_CNT`.
pub const PM1_CONTROL: u16 = 0x04;
/// Offset of the PM timer.
pub const TIMER: u16 = 0x08;
/// Offset of GPE0: 8 status and 8 enable bytes.
pub const GPE0: u16 = 0x20;
/// Length of GPE0 in bytes.
pub const GPE0_LEN: u8 = 16;

/// `SLP_TYP` values of `_S5`: what the DSDT gives and OVMF uses.
pub const SLEEP_S5: u8 = 0;

const TIMER_HZ: u128 = 3_579_545;
const TIMER_MASK: u128 = 0xff_ffff;

/// `PM1_STS` and `PM1_EN`: timer, global lock, power button, sleep button, RTC.
const PWRBTN: u16 = 1 << 8;
const RTC: u16 = 1 << 10;
/// Writing a one clears these status bits.
const STATUS_BITS: u16 = 1 | 1 << 4 | 1 << 5 | PWRBTN | 1 << 9 | RTC | 1 << 14 | 1 << 15;
const ENABLE_BITS: u16 = 1 | 1 << 5 | PWRBTN | 1 << 9 | RTC;

/// Offset of GPE0's enable bytes, behind as many status bytes.
const GPE0_ENABLE: usize = GPE0 as usize + GPE0_LEN as usize / 2;
/// The events that the board has.
const GPE0_EVENTS: u64 = {
    let (mut bits, mut index) = (0, 0);
    while index < Event::ALL.len() {
        bits |= Event::ALL[index].bit();
        index += 1;
    }
    bits
};
/// Bytes of the block up to the end of its last register.
const REGISTERS: usize = GPE0 as usize + GPE0_LEN as usize;

const SCI_EN: u16 = 1;
const SLP_TYP_SHIFT: u16 = 10;
const SLP_EN: u16 = 1 << 13;
/// `PM1_CNT` bits that read back: `SCI_EN` is always on, `SLP_EN` is write-only.
const CONTROL_BITS: u16 = 1 << 1 | 7 << SLP_TYP_SHIFT;

/// The power-management block.
pub struct PowerManagement {
    sci: Box<dyn Line>,
    power: Arc<Power>,
    start: Instant,
    status: u16,
    enable: u16,
    control: u16,
    events: u64,
    events_enabled: u64,
    /// The log heard of a sleep type that the board does not have: once, whatever the guest does.
    told: bool,
}

impl PowerManagement {
    /// After power-on; `sci` is the system control interrupt, level-triggered.
    pub fn new(sci: Box<dyn Line>, power: Arc<Power>) -> Self {
        Self {
            sci,
            power,
            start: Instant::now(),
            status: 0,
            enable: 0,
            control: 0,
            events: 0,
            events_enabled: 0,
            told: false,
        }
    }

    /// Somebody pressed the power button.
    pub fn press_power_button(&mut self) {
        self.raise(PWRBTN);
    }

    /// The real-time clock's alarm went off.
    pub fn rtc_alarm(&mut self) {
        self.raise(RTC);
    }

    fn raise(&mut self, bit: u16) {
        self.status |= bit;
        self.update_sci();
    }

    /// Something of the laptop's changed.
    pub fn raise_event(&mut self, event: Event) {
        self.events |= event.bit();
        self.update_sci();
    }

    fn update_sci(&self) {
        let fixed = self.status & self.enable & ENABLE_BITS != 0;
        self.sci
            .set(fixed || self.events & self.events_enabled != 0);
    }

    fn timer(&self) -> u32 {
        let nanos = self.start.elapsed().as_nanos();
        u32::try_from((nanos * TIMER_HZ / 1_000_000_000) & TIMER_MASK).unwrap_or(0)
    }

    /// The registers; those between them read as zero.
    fn registers(&self, with_timer: bool) -> [u8; REGISTERS] {
        let mut bytes = [0; REGISTERS];
        bytes[0..2].copy_from_slice(&self.status.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.enable.to_le_bytes());
        bytes[4..6].copy_from_slice(&(self.control | SCI_EN).to_le_bytes());
        if with_timer {
            bytes[8..12].copy_from_slice(&self.timer().to_le_bytes());
        }
        bytes[GPE0.into()..GPE0_ENABLE].copy_from_slice(&self.events.to_le_bytes());
        bytes[GPE0_ENABLE..].copy_from_slice(&self.events_enabled.to_le_bytes());
        bytes
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & CONTROL_BITS;
        if value & SLP_EN == 0 {
            return;
        }
        let sleep = value >> SLP_TYP_SHIFT & 7;
        if sleep == u16::from(SLEEP_S5) {
            self.power.end(Ending::Shutdown);
        } else if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("the guest asks for sleep type {sleep}, which the board does not have");
        }
    }
}

impl BusDevice for PowerManagement {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers = self.registers((4..12).contains(&(offset + data.len() as u64 - 1)));
        for (at, byte) in (offset..).zip(data) {
            // The rest of the block is empty.
            *byte = usize::try_from(at)
                .ok()
                .and_then(|at| registers.get(at))
                .copied()
                .unwrap_or(0);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // An access may cover several registers: each is written with the bytes meant for it.
        let mut merged = self.registers(false);
        let mut touched = [0; REGISTERS];
        for (at, byte) in (offset..).zip(data) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            if let (Some(slot), Some(mask)) = (merged.get_mut(at), touched.get_mut(at)) {
                (*slot, *mask) = (*byte, 0xff);
            }
        }
        let word =
            |bytes: &[u8; REGISTERS], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |bytes: &[u8; REGISTERS], at: usize| {
            u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
        };
        // A one clears a status bit; nothing else of it changes.
        self.status &= !(word(&merged, 0) & word(&touched, 0) & STATUS_BITS);
        self.enable = word(&merged, 2) & ENABLE_BITS;
        let cleared = long(&merged, GPE0.into()) & long(&touched, GPE0.into());
        self.events &= !cleared;
        self.events_enabled = long(&merged, GPE0_ENABLE) & GPE0_EVENTS;
        self.update_sci();
        if word(&touched, 4) != 0 {
            self.write_control(word(&merged, 4));
        }
    }
}

impl Signal for Arc<Mutex<PowerManagement>> {
    fn raise(&self, event: Event) {
        self.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .raise_event(event);
    }
}

/// The real-time clock tells its alarm here.
impl crate::chipset::rtc::Alarm for Arc<Mutex<PowerManagement>> {
    fn ring(&self) {
        self.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .rtc_alarm();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Level(Arc<AtomicBool>);

    impl Line for Level {
        fn set(&self, high: bool) {
            self.0.store(high, Ordering::Relaxed);
        }
    }

    fn block() -> (PowerManagement, Level, Arc<Power>) {
        let (level, power) = (Level::default(), Arc::new(Power::new().unwrap()));
        let block = PowerManagement::new(Box::new(level.clone()), power.clone());
        (block, level, power)
    }

    fn word(block: &mut PowerManagement, offset: u64) -> u16 {
        let mut data = [0xff; 2];
        block.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn the_power_button_raises_the_sci_until_it_is_acknowledged() {
        let (mut block, sci, _) = block();
        block.press_power_button();
        assert!(!sci.0.load(Ordering::Relaxed), "not enabled yet");
        block.write(2, &PWRBTN.to_le_bytes());
        assert!(sci.0.load(Ordering::Relaxed));
        assert_eq!(word(&mut block, 0), PWRBTN);
        block.write(0, &PWRBTN.to_le_bytes());
        assert!(!sci.0.load(Ordering::Relaxed));
        assert_eq!((word(&mut block, 0), word(&mut block, 2)), (0, PWRBTN));
    }

    #[test]
    fn enabling_does_not_acknowledge() {
        let (mut block, sci, _) = block();
        block.press_power_button();
        block.write(3, &[1]);
        assert!(sci.0.load(Ordering::Relaxed));
        assert_eq!(word(&mut block, 0), PWRBTN);
    }

    #[test]
    fn an_event_of_the_laptop_raises_the_sci_until_it_is_cleared() {
        const STATUS: u64 = GPE0 as u64;
        const ENABLE: u64 = GPE0_ENABLE as u64;
        let (mut block, sci, _) = block();
        let byte = |block: &mut PowerManagement, offset| {
            let mut data = [0xff];
            block.read(offset, &mut data);
            data[0]
        };
        block.raise_event(Event::Lid);
        assert!(!sci.0.load(Ordering::Relaxed), "not enabled yet");
        block.write(ENABLE, &[0xff]);
        assert_eq!(byte(&mut block, ENABLE), 0b11_1110, "there are five");
        assert!(sci.0.load(Ordering::Relaxed));
        block.raise_event(Event::Mains);
        // Clearing one leaves the other; what was enabled stays, and so do the fixed events.
        block.write(STATUS, &[1 << Event::Lid as u8]);
        assert_eq!(byte(&mut block, STATUS), 1 << Event::Mains as u8);
        assert!(sci.0.load(Ordering::Relaxed));
        block.write(STATUS, &[0xff]);
        assert!(!sci.0.load(Ordering::Relaxed));
        assert_eq!(byte(&mut block, ENABLE), 0b11_1110);
        block.press_power_button();
        block.write(STATUS, &[0xff; 8]);
        assert_eq!(word(&mut block, 0), PWRBTN);
    }

    #[test]
    fn s5_switches_off() {
        let (mut block, _, power) = block();
        assert_eq!(word(&mut block, 4) & SCI_EN, SCI_EN);
        block.write(4, &(5u16 << SLP_TYP_SHIFT | SLP_EN).to_le_bytes());
        assert!(!power.ended(), "there is no S3");
        block.write(4, &(SLP_EN | SCI_EN).to_le_bytes());
        assert_eq!(power.ending(), Some(&Ending::Shutdown));
    }

    #[test]
    fn a_guest_that_asks_for_s3_for_ever_fills_no_log() {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Log {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (mut block, _, _) = block();
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                block.write(4, &(5u16 << SLP_TYP_SHIFT | SLP_EN).to_le_bytes());
            }
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
    }

    #[test]
    fn the_timer_counts_24_bits() {
        let (mut block, _, _) = block();
        let mut read = || {
            let mut data = [0; 4];
            block.read(8, &mut data);
            u32::from_le_bytes(data)
        };
        let first = read();
        let later = (0..1_000_000)
            .map(|_| read())
            .find(|value| *value != first)
            .unwrap();
        assert!(later > first && later < 1 << 24);
    }
}
