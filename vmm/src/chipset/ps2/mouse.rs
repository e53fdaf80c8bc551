//! The mouse: three or five buttons and a wheel, as the `IntelliMouse` protocols have them.

use std::collections::VecDeque;

use super::{ACK, RESEND, SELF_TEST_PASSED};

/// Bytes that wait for the guest: one movement of four, and the longest answers of two commands.
const LIMIT: usize = 16;
/// Movements that wait, each with other buttons than the one before.
const MOVEMENTS: usize = 16;
/// What the nine bits of a movement hold.
const FARTHEST: i32 = 255;
/// What the four bits of the wheel hold.
const TURNED: i32 = 7;
/// Movement that is kept at most while the guest does not ask: a few screens.
const KEPT: i32 = 1 << 15;

/// What the guest has made of the mouse by the magic sequences of sample rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Three buttons.
    Standard = 0,
    /// And a wheel.
    Wheel = 3,
    /// And two more buttons.
    Explorer = 4,
}

/// Buttons as `input-event-codes.h` numbers them from `BTN_LEFT`: left, right, middle, side, extra.
const BTN_LEFT: u16 = 0x110;
const BUTTONS: u16 = 5;

/// Movement with these buttons held.
#[derive(Debug, Clone, Copy, Default)]
struct Movement {
    dx: i32,
    dy: i32,
    wheel: i32,
    buttons: u8,
}

/// The mouse.
#[derive(Debug)]
pub(super) struct Mouse {
    queue: VecDeque<u8>,
    movements: VecDeque<Movement>,
    /// Buttons as of the last movement.
    buttons: u8,
    /// A command that wants a parameter.
    parameter: Option<u8>,
    protocol: Protocol,
    rates: [u8; 3],
    resolution: u8,
    scaled: bool,
    reporting: bool,
    /// The guest asks for each movement by itself.
    remote: bool,
}

impl Mouse {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(LIMIT),
            movements: VecDeque::with_capacity(MOVEMENTS),
            buttons: 0,
            parameter: None,
            protocol: Protocol::Standard,
            rates: [100; 3],
            resolution: 2,
            scaled: false,
            reporting: false,
            remote: false,
        }
    }

    /// The next byte for the guest.
    pub(super) fn take(&mut self) -> Option<u8> {
        if self.queue.is_empty() && self.reporting && !self.remote && !self.movements.is_empty() {
            self.send();
        }
        self.queue.pop_front()
    }

    /// Right and down, and clicks of the wheel away from the person.
    pub(super) fn moved(&mut self, dx: i32, dy: i32, wheel: i32) {
        if !self.reporting {
            return;
        }
        let add = |sum: &mut i32, more: i32| *sum = sum.saturating_add(more).clamp(-KEPT, KEPT);
        let last = self.last(self.buttons);
        add(&mut last.dx, dx);
        add(&mut last.dy, dy);
        add(&mut last.wheel, wheel);
    }

    /// A button went down or up. Whether the mouse has it.
    pub(super) fn button(&mut self, code: u16, down: bool) -> bool {
        let Some(bit) = code.checked_sub(BTN_LEFT).filter(|bit| *bit < BUTTONS) else {
            return false;
        };
        let bit = 1 << bit;
        let buttons = if down {
            self.buttons | bit
        } else {
            self.buttons & !bit
        };
        self.hold(buttons);
        true
    }

    /// Every button is up.
    pub(super) fn all_up(&mut self) {
        self.hold(0);
    }

    fn hold(&mut self, buttons: u8) {
        let changed = std::mem::replace(&mut self.buttons, buttons) != buttons;
        if changed && self.reporting {
            self.last(buttons);
        }
    }

    /// The movement with these buttons that waits last; where all places are taken it is the last of
    /// them, whose buttons become these: what is held in the end is always right.
    fn last(&mut self, buttons: u8) -> &mut Movement {
        let full = self.movements.len() >= MOVEMENTS;
        let same = self
            .movements
            .back()
            .is_some_and(|last| last.buttons == buttons);
        if !full && !same {
            self.movements.push_back(Movement::default());
        }
        // There is one: either it was there, or it was put there.
        let place = self.movements.len().saturating_sub(1);
        let last = &mut self.movements[place];
        last.buttons = buttons;
        last
    }

    /// Sends the first movement, or as much of it as a packet holds.
    fn send(&mut self) {
        let mut rest = self.movements.pop_front().unwrap_or(Movement {
            buttons: self.buttons,
            ..Movement::default()
        });
        let part = |sum: &mut i32, most: i32| {
            let part = (*sum).clamp(-most, most);
            *sum -= part;
            part
        };
        let (dx, dy) = (part(&mut rest.dx, FARTHEST), -part(&mut rest.dy, FARTHEST));
        // Positive is towards the person.
        let wheel = -part(&mut rest.wheel, TURNED);
        let [x, ..] = dx.to_le_bytes();
        let [y, ..] = dy.to_le_bytes();
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        self.queue.extend([rest.buttons & 7 | 1 << 3 | signs, x, y]);
        let [turned, ..] = wheel.to_le_bytes();
        match self.protocol {
            Protocol::Standard => rest.wheel = 0,
            Protocol::Wheel => self.queue.push_back(turned),
            Protocol::Explorer => self
                .queue
                .push_back(turned & 0xf | (rest.buttons & 0x18) << 1),
        }
        if (rest.dx, rest.dy, rest.wheel) != (0, 0, 0) {
            self.movements.push_front(rest);
        }
    }

    /// A byte from the guest.
    pub(super) fn command(&mut self, byte: u8) {
        // What is under way is thrown away, as a mouse does.
        self.queue.clear();
        if let Some(command) = self.parameter.take() {
            return self.parameter(command, byte);
        }
        match byte {
            0xe6 => self.scaled = false,
            0xe7 => self.scaled = true,
            0xe8 | 0xf3 => self.parameter = Some(byte),
            0xe9 => {
                let flags = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.scaled) << 4
                    // Left, middle, right, in this order alone.
                    | (self.buttons & 1) << 2
                    | (self.buttons >> 2 & 1) << 1
                    | self.buttons >> 1 & 1;
                return self.answer(&[ACK, flags, self.resolution, self.rates[2]]);
            }
            0xea => self.remote = false,
            0xeb => {
                self.answer(&[ACK]);
                return self.send();
            }
            0xf0 => self.remote = true,
            0xf2 => return self.answer(&[ACK, self.protocol as u8]),
            0xf4 => self.reporting = true,
            0xf5 => self.silence(),
            0xf6 => self.defaults(),
            0xff => {
                self.defaults();
                self.protocol = Protocol::Standard;
                return self.answer(&[ACK, SELF_TEST_PASSED, 0]);
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACK]);
    }

    fn parameter(&mut self, command: u8, value: u8) {
        if command == 0xe8 {
            self.resolution = value;
        } else {
            self.rates = [self.rates[1], self.rates[2], value];
            match (self.rates, self.protocol) {
                ([200, 100, 80], _) => self.protocol = Protocol::Wheel,
                ([200, 200, 80], Protocol::Wheel) => self.protocol = Protocol::Explorer,
                _ => {}
            }
        }
        self.answer(&[ACK]);
    }

    fn silence(&mut self) {
        self.reporting = false;
        self.movements.clear();
    }

    fn defaults(&mut self) {
        self.silence();
        (self.rates, self.resolution) = ([100; 3], 2);
        (self.scaled, self.remote) = (false, false);
    }

    fn answer(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.queue.len() < LIMIT {
                self.queue.push_back(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.take()).collect()
    }

    fn asked(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|byte| {
                mouse.command(*byte);
                taken(mouse)
            })
            .collect()
    }

    const WHEEL: [u8; 6] = [0xf3, 200, 0xf3, 100, 0xf3, 80];
    const EXPLORER: [u8; 6] = [0xf3, 200, 0xf3, 200, 0xf3, 80];

    #[test]
    fn it_becomes_what_the_guest_asks_for() {
        let mut mouse = Mouse::new();
        assert_eq!(asked(&mut mouse, &[0xf2]), [ACK, 0]);
        // The second step only after the first.
        asked(&mut mouse, &EXPLORER);
        assert_eq!(asked(&mut mouse, &[0xf2]), [ACK, 0]);
        asked(&mut mouse, &WHEEL);
        assert_eq!(asked(&mut mouse, &[0xf2]), [ACK, 3]);
        asked(&mut mouse, &EXPLORER);
        assert_eq!(asked(&mut mouse, &[0xf2]), [ACK, 4]);
        assert_eq!(asked(&mut mouse, &[0xff]), [ACK, SELF_TEST_PASSED, 0]);
        assert_eq!(asked(&mut mouse, &[0xf2]), [ACK, 0]);
        assert_eq!(asked(&mut mouse, &[0xe9]), [ACK, 0, 2, 100]);
        assert_eq!(asked(&mut mouse, &[0x77]), [RESEND]);
    }

    #[test]
    fn movement_is_added_up_and_clicks_are_not() {
        let mut mouse = Mouse::new();
        mouse.moved(5, 5, 0);
        assert_eq!(asked(&mut mouse, &[0xf4]), [ACK], "nothing before it is on");
        mouse.moved(3, 1, 0);
        mouse.moved(1, 1, 0);
        // Right four, down two: y is up in the packet.
        assert_eq!(taken(&mut mouse), [0x28, 4, 0xfe]);
        for down in [true, false] {
            assert!(mouse.button(BTN_LEFT, down));
        }
        assert_eq!(taken(&mut mouse), [9, 0, 0, 8, 0, 0]);
        mouse.moved(-300, 0, 0);
        assert_eq!(taken(&mut mouse), [0x18, 1, 0, 0x18, 0xd3, 0]);
        assert!(!mouse.button(BTN_LEFT + BUTTONS, true));
        assert!(!mouse.button(30, true));
    }

    #[test]
    fn wheel_and_side_buttons_need_their_protocol() {
        let mut mouse = Mouse::new();
        asked(&mut mouse, &[0xf4]);
        mouse.moved(0, 0, 1);
        assert_eq!(taken(&mut mouse), [8, 0, 0]);
        asked(&mut mouse, &WHEEL);
        mouse.moved(0, 0, 1);
        assert_eq!(taken(&mut mouse), [8, 0, 0, 0xff]);
        asked(&mut mouse, &EXPLORER);
        mouse.moved(0, 0, -9);
        mouse.button(BTN_LEFT + 3, true);
        assert_eq!(taken(&mut mouse), [8, 0, 0, 7, 8, 0, 0, 2, 8, 0, 0, 0x10]);
    }

    #[test]
    fn buttons_are_right_in_the_end_however_few_were_told() {
        let mut mouse = Mouse::new();
        asked(&mut mouse, &[0xf4]);
        for round in 0..1001 {
            mouse.button(BTN_LEFT, round % 2 == 0);
            mouse.moved(i32::MAX, i32::MIN, 0);
        }
        assert!(mouse.movements.len() <= MOVEMENTS);
        let bytes = taken(&mut mouse);
        assert_eq!(bytes[bytes.len() - 3] & 1, 1);
        mouse.all_up();
        assert_eq!(taken(&mut mouse), [8, 0, 0]);
    }

    #[test]
    fn in_remote_mode_it_speaks_when_asked() {
        let mut mouse = Mouse::new();
        asked(&mut mouse, &[0xf4, 0xf0]);
        mouse.moved(1, 0, 0);
        assert!(taken(&mut mouse).is_empty());
        assert_eq!(asked(&mut mouse, &[0xeb]), [ACK, 8, 1, 0]);
        assert_eq!(asked(&mut mouse, &[0xeb]), [ACK, 8, 0, 0]);
    }
}
