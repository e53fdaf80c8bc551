//! An absolute pointer (virtio 1.2, section 5.8): a tablet of [`AXIS_MAX`] steps on each axis, with
//! five buttons and a wheel, as Linux' `virtio_input` and Windows' `vioinput` know it.
//!
//! Each event is eight bytes in a buffer of its own: type, code and value of Linux' input layer; a
//! report ends with `SYN_REPORT`.

use std::collections::VecDeque;

use sekisho_seatlink::AXIS_MAX;

use super::{Chain, Device, DriverFault, Io, Kind, Progress};
use crate::worker::Turn;

/// Queues: events to the driver, and lamps from it, of which a tablet has none.
const EVENTS: usize = 0;
const STATUS: usize = 1;
/// Entries of each queue, as many as Linux puts buffers into.
const QUEUE_SIZE: u16 = 64;

/// `virtio_input_config_select` (5.8.5).
const ID_NAME: u8 = 1;
const ID_DEVIDS: u8 = 3;
const EV_BITS: u8 = 0x11;
const ABS_INFO: u8 = 0x12;
/// Configuration: select, subselect, size, five reserved bytes, and what was asked for.
const CONFIG_SIZE: usize = 2;
const CONFIG_DATA: usize = 8;
/// The longest that can be asked for.
const CONFIG_UNION: usize = 128;

/// Event types and codes of `input-event-codes.h`.
const EV_SYN: u8 = 0;
const EV_KEY: u8 = 1;
const EV_REL: u8 = 2;
const EV_ABS: u8 = 3;
const REL_WHEEL: u16 = 8;
const ABS_X: u16 = 0;
const ABS_Y: u16 = 1;
const BTN_LEFT: u16 = 0x110;
/// Left, right, middle, side, extra.
const BUTTONS: u16 = 5;

const NAME: &[u8] = b"Sekisho absolute pointer";
/// Bus type "virtual" of `input.h`, the vendor of virtio devices, no product of anyone's.
const DEVIDS: [u16; 4] = [0x06, 0x1af4, 0x0003, 1];

/// Reports that wait, each with other buttons than the one before.
const REPORTS: usize = 32;
/// Bytes of an event.
const EVENT: usize = 8;
/// Turns of the wheel that a report tells at most.
const TURNED: i32 = 127;
/// Buffers that one turn gives back without looking up.
const BUDGET: usize = QUEUE_SIZE as usize;

/// Where the pointer is and what is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Report {
    x: u16,
    y: u16,
    buttons: u8,
    wheel: i32,
}

/// The device.
#[derive(Default)]
pub struct Tablet {
    active: bool,
    notified: [bool; 2],
    select: u8,
    subselect: u8,
    chain: Chain,
    /// As of the last report that was turned into events.
    told: Report,
    reports: VecDeque<Report>,
    /// Events of one report that found no buffer yet.
    events: VecDeque<[u8; EVENT]>,
}

impl Tablet {
    /// A tablet that nobody touches.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pointer is here now; up to [`AXIS_MAX`].
    pub fn at(&mut self, x: u16, y: u16) {
        let last = self.last();
        let (x, y) = (x.min(AXIS_MAX), y.min(AXIS_MAX));
        self.report(Report { x, y, ..last });
    }

    /// A button went down or up. Whether a tablet has it.
    pub fn button(&mut self, code: u16, down: bool) -> bool {
        let Some(bit) = code.checked_sub(BTN_LEFT).filter(|bit| *bit < BUTTONS) else {
            return false;
        };
        let last = self.last();
        let buttons = if down {
            last.buttons | 1 << bit
        } else {
            last.buttons & !(1 << bit)
        };
        self.report(Report { buttons, ..last });
        true
    }

    /// Every button is up.
    pub fn all_up(&mut self) {
        let last = self.last();
        self.report(Report { buttons: 0, ..last });
    }

    /// The wheel was turned away from the person by so many clicks.
    pub fn wheel(&mut self, clicks: i32) {
        let last = self.last();
        let wheel = last.wheel.saturating_add(clicks).clamp(-TURNED, TURNED);
        self.report(Report { wheel, ..last });
    }

    /// How things are once all is told.
    fn last(&self) -> Report {
        let last = self.reports.back();
        last.copied().unwrap_or(Report {
            wheel: 0,
            ..self.told
        })
    }

    /// Takes a report in: it replaces the last one where only the pointer and the wheel differ, or
    /// where there is no room, so that what is held in the end is always right.
    fn report(&mut self, report: Report) {
        if !self.active || report == self.last() {
            return;
        }
        let full = self.reports.len() >= REPORTS;
        match self.reports.back_mut() {
            Some(last) if full || last.buttons == report.buttons => *last = report,
            // Wheel clicks belong to the report before, which tells them.
            Some(_) => self.reports.push_back(Report { wheel: 0, ..report }),
            None => self.reports.push_back(report),
        }
    }

    /// Turns the next report into events; whether there was one.
    fn spell(&mut self) -> bool {
        let Some(next) = self.reports.pop_front() else {
            return false;
        };
        let told = std::mem::replace(&mut self.told, next);
        let events = &mut self.events;
        let mut say = |kind: u8, code: u16, value: i32| {
            let mut event = [0; EVENT];
            event[0] = kind;
            event[2..4].copy_from_slice(&code.to_le_bytes());
            event[4..].copy_from_slice(&value.to_le_bytes());
            events.push_back(event);
        };
        for (axis, before, now) in [(ABS_X, told.x, next.x), (ABS_Y, told.y, next.y)] {
            if before != now {
                say(EV_ABS, axis, now.into());
            }
        }
        for bit in 0..BUTTONS {
            let held = |report: Report| report.buttons >> bit & 1;
            if held(told) != held(next) {
                say(EV_KEY, BTN_LEFT + bit, held(next).into());
            }
        }
        if next.wheel != 0 {
            say(EV_REL, REL_WHEEL, next.wheel);
        }
        say(EV_SYN, 0, 0);
        true
    }

    /// What the driver asked for by select and subselect.
    fn answer(&self) -> Vec<u8> {
        let bits = |bits: &[u16]| {
            let length = bits
                .iter()
                .max()
                .map_or(0, |last| usize::from(last / 8) + 1);
            let mut map = vec![0; length];
            for bit in bits {
                map[usize::from(bit / 8)] |= 1 << (bit % 8);
            }
            map
        };
        let buttons: Vec<u16> = (BTN_LEFT..BTN_LEFT + BUTTONS).collect();
        match (self.select, self.subselect) {
            (ID_NAME, 0) => NAME.to_vec(),
            (ID_DEVIDS, 0) => DEVIDS.iter().flat_map(|id| id.to_le_bytes()).collect(),
            (EV_BITS, EV_KEY) => bits(&buttons),
            (EV_BITS, EV_REL) => bits(&[REL_WHEEL]),
            (EV_BITS, EV_ABS) => bits(&[ABS_X, ABS_Y]),
            (ABS_INFO, 0 | 1) => {
                // Least, most, and no fuzz, no flat middle, no resolution.
                let info = [0, u32::from(AXIS_MAX), 0, 0, 0];
                info.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Gives back what the driver says of lamps.
    fn status(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let Some(queue) = io.queues.get_mut(STATUS) else {
            return Ok(Turn::Idle);
        };
        for _ in 0..BUDGET {
            if queue.pop(io.ram, &mut self.chain)? {
                queue.push(io.ram, self.chain.head(), 0)?;
            } else if !queue.listen(io.ram)? {
                self.notified[STATUS] = false;
                return Ok(Turn::Idle);
            }
        }
        Ok(Turn::More)
    }

    fn events(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let Some(queue) = io.queues.get_mut(EVENTS) else {
            return Ok(Turn::Idle);
        };
        for _ in 0..BUDGET {
            if self.events.is_empty() && !self.spell() {
                return Ok(Turn::Idle);
            }
            if !queue.pop(io.ram, &mut self.chain)? {
                if !queue.listen(io.ram)? {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            // A buffer that is too short gets what fits, and the rest of the event is lost.
            let event = self.events.pop_front().unwrap_or_default();
            let written = self.chain.write_at(io.ram, 0, &event);
            let written = u32::try_from(written).unwrap_or(0);
            queue.push(io.ram, self.chain.head(), written)?;
        }
        Ok(Turn::More)
    }
}

impl Device for Tablet {
    fn kind(&self) -> Kind {
        Kind::Input
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let answer = self.answer();
        let mut config = [0; CONFIG_DATA + CONFIG_UNION];
        config[0] = self.select;
        config[1] = self.subselect;
        config[CONFIG_SIZE] = u8::try_from(answer.len()).unwrap_or(0);
        config[CONFIG_DATA..][..answer.len()].copy_from_slice(&answer);
        for (place, byte) in data.iter_mut().enumerate() {
            *byte = config
                .get(offset.saturating_add(place))
                .copied()
                .unwrap_or(0);
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        for (place, byte) in data.iter().enumerate() {
            match offset.saturating_add(place) {
                0 => self.select = *byte,
                1 => self.subselect = *byte,
                _ => {}
            }
        }
    }

    fn activate(&mut self, _features: u64) {
        self.active = true;
        self.notified = [true; 2];
    }

    fn reset(&mut self) -> Progress {
        *self = Self::default();
        Progress::Done
    }

    fn notified(&mut self, index: usize) {
        if let Some(notified) = self.notified.get_mut(index) {
            *notified = true;
        }
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        if !self.active {
            return Ok(Turn::Idle);
        }
        let events = self.events(io)?;
        let status = if self.notified[STATUS] {
            self.status(io)?
        } else {
            Turn::Idle
        };
        Ok(if status == Turn::More { status } else { events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(tablet: &mut Tablet) -> Vec<(u8, u16, i32)> {
        while tablet.spell() {}
        let event = |event: [u8; EVENT]| {
            let value = i32::from_le_bytes(event[4..].try_into().unwrap());
            (event[0], u16::from_le_bytes([event[2], event[3]]), value)
        };
        tablet.events.drain(..).map(event).collect()
    }

    fn active() -> Tablet {
        let mut tablet = Tablet::new();
        tablet.activate(0);
        tablet
    }

    const END: (u8, u16, i32) = (EV_SYN, 0, 0);

    #[test]
    fn a_click_is_told_where_it_was() {
        let mut tablet = active();
        tablet.at(100, 200);
        tablet.at(300, 200);
        assert!(tablet.button(BTN_LEFT, true));
        tablet.at(400, 200);
        tablet.wheel(-2);
        assert!(tablet.button(BTN_LEFT, false));
        assert!(!tablet.button(30, true));
        assert_eq!(
            spelled(&mut tablet),
            [
                (EV_ABS, ABS_X, 300),
                (EV_ABS, ABS_Y, 200),
                END,
                (EV_ABS, ABS_X, 400),
                (EV_KEY, BTN_LEFT, 1),
                (EV_REL, REL_WHEEL, -2),
                END,
                (EV_KEY, BTN_LEFT, 0),
                END,
            ]
        );
        // Nothing changed.
        tablet.at(400, 200);
        tablet.all_up();
        assert_eq!(spelled(&mut tablet), []);
    }

    #[test]
    fn a_driver_that_takes_nothing_costs_no_memory_and_no_button() {
        let mut tablet = active();
        for round in 0..10_001_u16 {
            tablet.button(BTN_LEFT + round % 5, round % 3 == 0);
            tablet.at(round, round);
            tablet.wheel(i32::MAX);
        }
        tablet.button(BTN_LEFT, true);
        assert!(tablet.reports.len() <= REPORTS);
        let told = spelled(&mut tablet);
        // Two axes, five buttons, the wheel and the end.
        assert!(told.len() <= REPORTS * 9);
        assert_eq!(tablet.told.buttons & 1, 1);
        tablet.all_up();
        spelled(&mut tablet);
        assert_eq!(tablet.told.buttons, 0);
    }

    #[test]
    fn nobody_listens_nothing_is_kept() {
        let mut tablet = Tablet::new();
        tablet.at(1, 1);
        tablet.button(BTN_LEFT, true);
        tablet.activate(0);
        assert_eq!(spelled(&mut tablet), []);
        tablet.at(u16::MAX, 1);
        let place = [(EV_ABS, ABS_X, AXIS_MAX.into()), (EV_ABS, ABS_Y, 1), END];
        assert_eq!(spelled(&mut tablet), place);
    }

    #[test]
    fn configuration_is_read_in_any_piece() {
        let mut tablet = Tablet::new();
        tablet.write_config(0, &[EV_BITS, EV_KEY]);
        let mut whole = [0xff; 256];
        tablet.read_config(0, &mut whole);
        assert_eq!(whole[..3], [EV_BITS, EV_KEY, 0x23]);
        assert_eq!(whole[CONFIG_DATA + 0x22], 0x1f);
        assert!(
            whole[CONFIG_DATA + CONFIG_UNION..]
                .iter()
                .all(|byte| *byte == 0)
        );
        tablet.write_config(usize::MAX, &[1, 2]);
        let mut past = [0xff; 2];
        tablet.read_config(usize::MAX, &mut past);
        for (select, subselect) in [(0, 0), (ABS_INFO, 2), (EV_BITS, 0), (ID_NAME, 1)] {
            tablet.write_config(0, &[select, subselect]);
            tablet.read_config(CONFIG_SIZE, &mut past[..1]);
            assert_eq!(past[0], 0, "{select:#x} {subselect:#x}");
        }
    }
}
