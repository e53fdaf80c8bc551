//! The real-time clock and its CMOS memory: an MC146818 with alarm and update interrupt, and
//! without the periodic one and the square wave.
//!
//! Source: Motorola MC146818 data sheet; index port habits of PCs as in `machine.md` 1.1.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;
use crate::irq::Line;

const SECONDS: u8 = 0;
const SECONDS_ALARM: u8 = 1;
const MINUTES: u8 = 2;
const MINUTES_ALARM: u8 = 3;
const HOURS: u8 = 4;
const HOURS_ALARM: u8 = 5;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;
/// Where PCs keep the century; the FADT names it.
pub const CENTURY: u8 = 0x32;

/// A: an update is about to happen.
const A_UIP: u8 = 0x80;
/// B: updates are stopped while the time is set.
const B_SET: u8 = 0x80;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;
/// C: any enabled interrupt is pending.
const C_IRQ: u8 = 0x80;
/// D: the battery is good.
const D_VALID: u8 = 0x80;
/// Hours: afternoon, in 12-hour mode.
const PM: u8 = 0x80;
/// An alarm byte with both top bits set matches everything.
const ALARM_ANY: u8 = 0xc0;

/// Seconds of a day.
const DAY_SECONDS: i64 = 86_400;
/// How long before an update UIP is set: 244 µs.
const UPDATE_WARNING: Duration = Duration::from_micros(244);
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const EPOCH_DAYS: i64 = 719_468;

/// Where an alarm is told beside the interrupt (ACPI's `RTC_STS`).
pub trait Alarm: Send {
    /// The alarm's time has come.
    fn ring(&self);
}

/// Where the clock takes the time from.
pub type Now = Box<dyn Fn() -> SystemTime + Send>;

/// The clock. Time goes on by the host's clock plus what the guest set.
pub struct RealTimeClock {
    now: Now,
    line: Box<dyn Line>,
    alarm: Box<dyn Alarm>,
    index: u8,
    bytes: [u8; 128],
    /// Seconds that the guest's time is ahead of the host's.
    ahead: i64,
    /// The second in which interrupts were last looked at.
    last_tick: i64,
}

impl RealTimeClock {
    /// A clock that runs by `now` and interrupts by `line`.
    pub fn new(now: Now, line: Box<dyn Line>, alarm: Box<dyn Alarm>) -> Self {
        let mut bytes = [0; 128];
        bytes[usize::from(REG_A)] = 0x26;
        bytes[usize::from(REG_B)] = B_24H;
        bytes[usize::from(REG_D)] = D_VALID;
        Self {
            now,
            line,
            alarm,
            index: 0,
            bytes,
            ahead: 0,
            last_tick: 0,
        }
    }

    /// When [`RealTimeClock::tick`] is wanted next: `None` while no interrupt is enabled.
    pub fn next_tick(&self) -> Option<Duration> {
        let wanted = self.reg(REG_B) & (B_ALARM | B_UPDATE) != 0;
        wanted.then(|| Duration::from_secs(1).saturating_sub(self.fraction()))
    }

    /// Looks whether an interrupt is due in this second.
    pub fn tick(&mut self) {
        let now = self.seconds();
        if now == self.last_tick || self.reg(REG_B) & B_SET != 0 {
            return;
        }
        // All seconds since the last look: the host may have slept. An alarm comes once a day at least.
        let first = (self.last_tick + 1).clamp(now.saturating_sub(DAY_SECONDS - 1), now);
        self.last_tick = now;
        let mut cause = B_UPDATE;
        if self.reg(REG_B) & B_ALARM == 0 {
            // Nobody waits for it: this second is enough for who reads the flag.
            cause |= if self.is_alarm(now) { B_ALARM } else { 0 };
        } else if (first..=now).any(|second| self.is_alarm(second)) {
            cause |= B_ALARM;
        }
        self.bytes[usize::from(REG_C)] |= cause;
        let enabled = cause & self.reg(REG_B);
        if enabled & B_ALARM != 0 {
            self.alarm.ring();
        }
        if enabled != 0 {
            self.bytes[usize::from(REG_C)] |= C_IRQ;
            self.line.set(true);
        }
    }

    /// Whether the alarm is set to this second.
    fn is_alarm(&self, second: i64) -> bool {
        let time = Civil::from_seconds(second);
        let matches = |alarm: u8, shown: u8| {
            let want = self.reg(alarm);
            want & ALARM_ANY == ALARM_ANY || want == shown
        };
        matches(SECONDS_ALARM, self.encode(time.second))
            && matches(MINUTES_ALARM, self.encode(time.minute))
            && matches(HOURS_ALARM, self.encode_hour(time.hour))
    }

    fn reg(&self, index: u8) -> u8 {
        self.bytes[usize::from(index & 0x7f)]
    }

    fn since_epoch(&self) -> Duration {
        (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn seconds(&self) -> i64 {
        let host = i64::try_from(self.since_epoch().as_secs()).unwrap_or(0);
        host.saturating_add(self.ahead)
    }

    fn fraction(&self) -> Duration {
        Duration::from_nanos(self.since_epoch().subsec_nanos().into())
    }

    fn read_register(&mut self) -> u8 {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                self.time_register(self.index)
            }
            REG_A => {
                let updating = self.fraction() + UPDATE_WARNING >= Duration::from_secs(1)
                    && self.reg(REG_B) & B_SET == 0;
                self.reg(REG_A) & !A_UIP | if updating { A_UIP } else { 0 }
            }
            REG_C => {
                self.line.set(false);
                std::mem::take(&mut self.bytes[usize::from(REG_C)])
            }
            index => self.reg(index),
        }
    }

    fn write_register(&mut self, value: u8) {
        match self.index {
            SECONDS | MINUTES | HOURS | DAY | MONTH | YEAR | CENTURY => {
                self.set_time_register(self.index, value);
            }
            REG_A => self.bytes[usize::from(REG_A)] = value & !A_UIP,
            REG_B => {
                self.bytes[usize::from(REG_B)] = value;
                self.last_tick = self.seconds();
            }
            // Read-only, or derived.
            WEEKDAY | REG_C | REG_D => {}
            index => self.bytes[usize::from(index)] = value,
        }
    }

    fn time_register(&self, index: u8) -> u8 {
        let time = Civil::from_seconds(self.seconds());
        let value = match index {
            SECONDS => time.second,
            MINUTES => time.minute,
            HOURS => return self.encode_hour(time.hour),
            WEEKDAY => time.weekday,
            DAY => time.day,
            MONTH => time.month,
            YEAR => time.year.rem_euclid(100),
            _ => time.year.div_euclid(100),
        };
        self.encode(value)
    }

    fn set_time_register(&mut self, index: u8, value: u8) {
        let now = self.seconds();
        let mut time = Civil::from_seconds(now);
        let plain = self.decode(value);
        match index {
            SECONDS => time.second = plain.min(59),
            MINUTES => time.minute = plain.min(59),
            HOURS => time.hour = self.decode_hour(value).min(23),
            DAY => time.day = plain.clamp(1, 31),
            MONTH => time.month = plain.clamp(1, 12),
            YEAR => time.year = time.year.div_euclid(100) * 100 + plain.min(99),
            _ => time.year = plain.clamp(19, 99) * 100 + time.year.rem_euclid(100),
        }
        self.ahead = self.ahead.saturating_add(time.to_seconds() - now);
        // Time that the guest set did not pass.
        self.last_tick = self.seconds();
    }

    fn encode(&self, value: i64) -> u8 {
        let value = u8::try_from(value).unwrap_or(0);
        if self.reg(REG_B) & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> i64 {
        if self.reg(REG_B) & B_BINARY != 0 {
            value.into()
        } else {
            i64::from(value >> 4) * 10 + i64::from(value & 15)
        }
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.reg(REG_B) & B_24H != 0 {
            return self.encode(hour);
        }
        let half = (hour + 11) % 12 + 1;
        self.encode(half) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.reg(REG_B) & B_24H != 0 {
            return self.decode(value);
        }
        let half = self.decode(value & !PM) % 12;
        half + if value & PM != 0 { 12 } else { 0 }
    }
}

impl BusDevice for RealTimeClock {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = match offset {
                0 => self.index,
                _ => self.read_register(),
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // Bit 7 masks NMI, which the board does not have.
            (0, [index]) => self.index = index & 0x7f,
            (1, [value]) => self.write_register(*value),
            _ => {}
        }
    }
}

/// A date and time of the proleptic Gregorian calendar, UTC.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// 1 is Sunday.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// From seconds since 1970: days are counted from March, so that the leap day comes last.
    fn from_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + EPOCH_DAYS;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = (shifted_month + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7) + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    fn to_seconds(&self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - EPOCH_DAYS;
        days * 86_400 + self.hour * 3600 + self.minute * 60 + self.second
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Wires(Arc<Mutex<(bool, u32)>>);

    impl Line for Wires {
        fn set(&self, high: bool) {
            self.0.lock().unwrap().0 = high;
        }
    }

    impl Alarm for Wires {
        fn ring(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    /// 2026-02-28 23:59:58 UTC, a Saturday.
    const START: u64 = 1_772_323_198;

    fn clock() -> (RealTimeClock, Arc<AtomicU64>, Wires) {
        let (time, wires) = (Arc::new(AtomicU64::new(START)), Wires::default());
        let source = time.clone();
        let now = move || UNIX_EPOCH + Duration::from_secs(source.load(Ordering::Relaxed));
        let clock = RealTimeClock::new(
            Box::new(now),
            Box::new(wires.clone()),
            Box::new(wires.clone()),
        );
        (clock, time, wires)
    }

    fn get(clock: &mut RealTimeClock, index: u8) -> u8 {
        let mut data = [0xff];
        clock.write(0, &[index | 0x80]);
        clock.read(1, &mut data);
        data[0]
    }

    fn put(clock: &mut RealTimeClock, index: u8, value: u8) {
        clock.write(0, &[index]);
        clock.write(1, &[value]);
    }

    fn all(clock: &mut RealTimeClock) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|index| get(clock, index))
    }

    #[test]
    fn the_time_is_bcd_and_rolls_over_the_month() {
        let (mut clock, time, _) = clock();
        assert_eq!(
            all(&mut clock),
            [0x20, 0x26, 0x02, 0x28, 7, 0x23, 0x59, 0x58]
        );
        time.fetch_add(2, Ordering::Relaxed);
        assert_eq!(all(&mut clock), [0x20, 0x26, 0x03, 0x01, 1, 0, 0, 0]);
    }

    #[test]
    fn binary_and_12_hour_modes() {
        let (mut clock, _, _) = clock();
        put(&mut clock, REG_B, B_BINARY);
        assert_eq!(get(&mut clock, MINUTES), 59);
        assert_eq!(get(&mut clock, HOURS), 0x0b | PM);
        put(&mut clock, HOURS, 12);
        put(&mut clock, REG_B, B_BINARY | B_24H);
        assert_eq!(get(&mut clock, HOURS), 0);
    }

    #[test]
    fn the_guest_sets_the_time() {
        let (mut clock, time, _) = clock();
        for (index, value) in [(YEAR, 0x28), (MONTH, 0x02), (DAY, 0x29), (HOURS, 0x07)] {
            put(&mut clock, index, value);
        }
        time.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            all(&mut clock),
            [0x20, 0x28, 0x02, 0x29, 3, 0x07, 0x59, 0x59]
        );
    }

    #[test]
    fn the_alarm_rings_at_its_second_and_is_cleared_by_reading_c() {
        let (mut clock, time, wires) = clock();
        assert_eq!(clock.next_tick(), None);
        for (index, value) in [
            (SECONDS_ALARM, 0x00),
            (MINUTES_ALARM, 0),
            (HOURS_ALARM, 0xc0),
        ] {
            put(&mut clock, index, value);
        }
        put(&mut clock, REG_B, B_24H | B_ALARM);
        assert!(clock.next_tick().is_some());
        for _ in 0..2 {
            assert_eq!(*wires.0.lock().unwrap(), (false, 0));
            time.fetch_add(1, Ordering::Relaxed);
            clock.tick();
        }
        assert_eq!(*wires.0.lock().unwrap(), (true, 1));
        assert_eq!(get(&mut clock, REG_C), C_IRQ | B_ALARM | B_UPDATE);
        assert_eq!(*wires.0.lock().unwrap(), (false, 1));
    }

    #[test]
    fn an_alarm_that_the_host_slept_through_rings_when_it_wakes() {
        let (mut clock, time, wires) = clock();
        for (index, value) in [(SECONDS_ALARM, 0x30), (MINUTES_ALARM, 0), (HOURS_ALARM, 0)] {
            put(&mut clock, index, value);
        }
        put(&mut clock, REG_B, B_24H | B_ALARM);
        clock.tick();
        // Up to the second before it.
        time.fetch_add(31, Ordering::Relaxed);
        clock.tick();
        assert_eq!(wires.0.lock().unwrap().1, 0);
        time.fetch_add(3600, Ordering::Relaxed);
        clock.tick();
        assert_eq!(*wires.0.lock().unwrap(), (true, 1));
        // Once, however many days.
        time.fetch_add(1000 * 86_400, Ordering::Relaxed);
        clock.tick();
        assert_eq!(wires.0.lock().unwrap().1, 2);
        // Time that the guest skips by setting the clock has no alarms, nor has a clock set back.
        put(&mut clock, HOURS, 0x23);
        put(&mut clock, HOURS, 0x05);
        clock.tick();
        time.fetch_sub(86_400, Ordering::Relaxed);
        clock.tick();
        assert_eq!(wires.0.lock().unwrap().1, 2);
    }

    #[test]
    fn memory_is_kept_and_the_battery_is_good() {
        let (mut clock, _, _) = clock();
        put(&mut clock, 0x0f, 0x5a);
        assert_eq!(get(&mut clock, 0x0f), 0x5a);
        assert_eq!(get(&mut clock, REG_D), D_VALID);
    }
}
