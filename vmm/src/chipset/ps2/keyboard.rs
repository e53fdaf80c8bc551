//! The keyboard: its commands, and the codes of the keys that went down and up.

use std::collections::VecDeque;

use super::scancode::{self, LONGEST};
use super::{ACK, RESEND, SELF_TEST_PASSED};

/// Bytes that wait for the guest: some sixty keys that it has not asked about, and more than any
/// answer.
const LIMIT: usize = 128;
/// Of which keys leave so much to answers.
const ANSWERS: usize = 16;
/// Keys of `input-event-codes.h` that a PS/2 keyboard has are below this.
const CODES: usize = 256;

/// A command that waits for its second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    /// Lamps and typematic rate: whatever it is.
    Any,
    /// Scan code set.
    Set,
}

/// The keyboard, in scan code set 2.
#[derive(Debug)]
pub(super) struct Keyboard {
    queue: VecDeque<u8>,
    parameter: Option<Parameter>,
    scanning: bool,
    /// Keys of which the guest knows that they are down.
    told: [bool; CODES],
    /// Keys that went up when there was no room to say so: they are said first.
    owed: [bool; CODES],
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(LIMIT),
            parameter: None,
            scanning: true,
            told: [false; CODES],
            owed: [false; CODES],
        }
    }

    /// The next byte for the guest.
    pub(super) fn take(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front();
        if byte.is_some() && self.owed.contains(&true) {
            self.pay();
        }
        byte
    }

    /// A key went down or up, or is still down and repeats. A key that finds no room is lost; one
    /// that is let go is not.
    pub(super) fn key(&mut self, code: u16, down: bool) {
        let place = usize::from(code);
        if !self.scanning || place >= CODES {
            return;
        }
        let known = self.told[place];
        if !down && !known {
            return;
        }
        let Some(sequence) = scancode::sequence(code, down) else {
            return;
        };
        if self.queue.len() + sequence.bytes().len() > LIMIT - ANSWERS || self.owed[place] {
            self.owed[place] = known && !down || self.owed[place];
            return;
        }
        self.queue.extend(sequence.bytes());
        self.told[place] = down;
    }

    /// Every key is up.
    pub(super) fn all_up(&mut self) {
        for code in 0..CODES {
            if self.told[code] {
                self.key(u16::try_from(code).unwrap_or(u16::MAX), false);
            }
        }
    }

    /// Says what is owed, as far as there is room.
    fn pay(&mut self) {
        for code in 0..CODES {
            if self.queue.len() + LONGEST > LIMIT - ANSWERS {
                return;
            }
            if std::mem::take(&mut self.owed[code]) {
                self.key(u16::try_from(code).unwrap_or(u16::MAX), false);
            }
        }
    }

    /// A byte from the guest.
    pub(super) fn command(&mut self, byte: u8) {
        if let Some(parameter) = self.parameter.take() {
            return match (parameter, byte) {
                (Parameter::Any, _) | (Parameter::Set, 2) => self.answer(&[ACK]),
                (Parameter::Set, 0) => self.answer(&[ACK, 2]),
                // Set 2 is the only one that every operating system asks for.
                (Parameter::Set, _) => self.answer(&[RESEND]),
            };
        }
        let answer: &[u8] = match byte {
            0xed | 0xf3 => {
                self.parameter = Some(Parameter::Any);
                &[ACK]
            }
            0xf0 => {
                self.parameter = Some(Parameter::Set);
                &[ACK]
            }
            0xee => &[0xee],
            0xf2 => &[ACK, 0xab, 0x83],
            // On, off, and the defaults, which include on.
            0xf4..=0xf6 => {
                self.forget(byte != 0xf5);
                &[ACK]
            }
            0xff => {
                self.forget(true);
                &[ACK, SELF_TEST_PASSED]
            }
            _ => &[RESEND],
        };
        self.answer(answer);
    }

    /// Starts afresh: the guest takes all keys for up.
    fn forget(&mut self, scanning: bool) {
        self.queue.clear();
        self.scanning = scanning;
        self.told = [false; CODES];
        self.owed = [false; CODES];
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

    fn taken(keyboard: &mut Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.take()).collect()
    }

    #[test]
    fn keys_are_codes_of_set_2() {
        let mut keyboard = Keyboard::new();
        keyboard.key(30, true);
        keyboard.key(30, true);
        keyboard.key(30, false);
        // Nobody held it, and there is no such key.
        keyboard.key(31, false);
        keyboard.key(0x110, true);
        keyboard.key(u16::MAX, true);
        assert_eq!(taken(&mut keyboard), [0x1c, 0x1c, 0xf0, 0x1c]);
    }

    #[test]
    fn a_key_that_is_let_go_is_told_however_late() {
        let mut keyboard = Keyboard::new();
        keyboard.key(42, true);
        for _ in 0..1000 {
            keyboard.key(30, true);
        }
        keyboard.key(42, false);
        keyboard.key(30, false);
        assert!(keyboard.queue.len() <= LIMIT - ANSWERS);
        let bytes = taken(&mut keyboard);
        for code in [0x12, 0x1c] {
            let downs = bytes.windows(2).filter(|two| *two == [0xf0, code]).count();
            assert_eq!(downs, 1, "{code:#x} in {bytes:x?}");
            assert_eq!(bytes.iter().rposition(|byte| *byte == code), {
                let up = bytes.windows(2).position(|two| *two == [0xf0, code]);
                up.map(|at| at + 1)
            });
        }
        keyboard.key(42, true);
        assert_eq!(taken(&mut keyboard), [0x12]);
        keyboard.all_up();
        assert_eq!(taken(&mut keyboard), [0xf0, 0x12]);
        keyboard.all_up();
        assert!(taken(&mut keyboard).is_empty());
    }

    #[test]
    fn commands_are_answered() {
        let mut keyboard = Keyboard::new();
        for (bytes, answer) in [
            (&[0xed, 7][..], &[ACK, ACK][..]),
            (&[0xf0, 0], &[ACK, ACK, 2]),
            (&[0xf0, 2], &[ACK, ACK]),
            (&[0xf0, 3], &[ACK, RESEND]),
            (&[0xf2], &[ACK, 0xab, 0x83]),
            (&[0xee], &[0xee]),
            (&[0xff], &[ACK, SELF_TEST_PASSED]),
            (&[0x00], &[RESEND]),
        ] {
            for byte in bytes {
                keyboard.command(*byte);
            }
            assert_eq!(taken(&mut keyboard), answer, "{bytes:x?}");
        }
        keyboard.command(0xf5);
        keyboard.key(30, true);
        assert_eq!(taken(&mut keyboard), [ACK]);
        keyboard.command(0xf4);
        keyboard.key(30, true);
        assert_eq!(taken(&mut keyboard), [ACK, 0x1c]);
    }
}
