//! The PS/2 controller with its keyboard and mouse, and the reset line at command 0xFE.
//!
//! Source: IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller"; Adam
//! Chapweske's notes on the PS/2 keyboard and mouse.

mod keyboard;
mod mouse;
mod scancode;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::keyboard::Keyboard;
use self::mouse::Mouse;
use crate::board::power::{Ending, Power};
use crate::bus::BusDevice;
use crate::irq::Line;

/// Status: a byte waits in the output buffer.
const OUTPUT_FULL: u8 = 1;
/// Status: the self-test passed.
const SYSTEM: u8 = 1 << 2;
/// Status: the last write was a command.
const COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const UNLOCKED: u8 = 1 << 4;
/// Status: the waiting byte is the mouse's.
const FROM_MOUSE: u8 = 1 << 5;

/// Configuration byte: interrupt on a byte of the keyboard, of the mouse.
const KEYBOARD_INTERRUPT: u8 = 1;
const MOUSE_INTERRUPT: u8 = 1 << 1;
/// Configuration byte: clock of the keyboard, of the mouse is stopped.
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;
/// Configuration byte: scan codes of set 2 become those of set 1.
const TRANSLATE: u8 = 1 << 6;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;

/// Answers of the controller that may wait: each is one byte, and a driver reads one before it asks
/// for the next.
const ANSWERS: usize = 16;

/// Who sent a byte to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The controller itself or the keyboard.
    Keyboard,
    Mouse,
}

/// What the next byte at the data port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Keyboard,
    Configuration,
    OutputPort,
    LoopKeyboard,
    LoopMouse,
    Mouse,
}

/// The controller; data port at offset 0, command and status port at offset 4.
pub struct Ps2Controller {
    keyboard_line: Box<dyn Line>,
    mouse_line: Box<dyn Line>,
    power: Arc<Power>,
    configuration: u8,
    expect: Expect,
    last_was_command: bool,
    /// The byte that the guest reads next. Once there it stays, whoever else has one to send.
    output: Option<(Source, u8)>,
    answers: VecDeque<(Source, u8)>,
    keyboard: Keyboard,
    /// The keyboard sent the prefix of a key that went up, which translation keeps back.
    up: bool,
    mouse: Mouse,
}

impl Ps2Controller {
    /// After power-on.
    pub fn new(keyboard_line: Box<dyn Line>, mouse_line: Box<dyn Line>, power: Arc<Power>) -> Self {
        Self {
            keyboard_line,
            mouse_line,
            power,
            configuration: SYSTEM | KEYBOARD_OFF | MOUSE_OFF | TRANSLATE,
            expect: Expect::Keyboard,
            last_was_command: false,
            output: None,
            answers: VecDeque::with_capacity(ANSWERS),
            keyboard: Keyboard::new(),
            up: false,
            mouse: Mouse::new(),
        }
    }

    /// A key or a mouse button went down or up; a key that is down and goes down repeats. Numbers
    /// are those of `input-event-codes.h`.
    pub fn key(&mut self, code: u16, down: bool) {
        if !self.mouse.button(code, down) {
            self.keyboard.key(code, down);
        }
        self.offer();
    }

    /// Every key and button is up.
    pub fn all_up(&mut self) {
        self.keyboard.all_up();
        self.mouse.all_up();
        self.offer();
    }

    /// Every mouse button is up.
    pub fn buttons_up(&mut self) {
        self.mouse.all_up();
        self.offer();
    }

    /// The mouse was moved right and down, and its wheel turned away from the person.
    pub fn moved(&mut self, dx: i32, dy: i32, wheel: i32) {
        self.mouse.moved(dx, dy, wheel);
        self.offer();
    }

    fn status(&self) -> u8 {
        let waiting = match self.output {
            None => 0,
            Some((Source::Keyboard, _)) => OUTPUT_FULL,
            Some((Source::Mouse, _)) => OUTPUT_FULL | FROM_MOUSE,
        };
        let command = if self.last_was_command { COMMAND } else { 0 };
        SYSTEM | UNLOCKED | waiting | command
    }

    fn take(&mut self) -> u8 {
        let byte = self.output.take().map_or(0, |(_, byte)| byte);
        self.offer();
        byte
    }

    /// Puts the next byte where the guest reads it, if there is none, and tells the guest.
    fn offer(&mut self) {
        if self.output.is_none() {
            self.output = self.next();
            self.interrupt();
        }
    }

    fn next(&mut self) -> Option<(Source, u8)> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.configuration & KEYBOARD_OFF == 0
            && let Some(byte) = self.next_of_keyboard()
        {
            return Some((Source::Keyboard, byte));
        }
        if self.configuration & MOUSE_OFF == 0 {
            return Some((Source::Mouse, self.mouse.take()?));
        }
        None
    }

    fn next_of_keyboard(&mut self) -> Option<u8> {
        let byte = self.keyboard.take()?;
        if self.configuration & TRANSLATE == 0 {
            self.up = false;
            return Some(byte);
        }
        if !scancode::marks_break(byte) {
            let up = std::mem::take(&mut self.up);
            return Some(scancode::translate(byte, up));
        }
        self.up = true;
        // A prefix is never the last byte.
        let code = self.keyboard.take()?;
        let up = std::mem::take(&mut self.up);
        Some(scancode::translate(code, up))
    }

    fn answer(&mut self, source: Source, byte: u8) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back((source, byte));
        }
    }

    /// Tells the guest of the byte that waits, if it wants to hear of it.
    fn interrupt(&self) {
        match self.output {
            Some((Source::Keyboard, _)) if self.configuration & KEYBOARD_INTERRUPT != 0 => {
                self.keyboard_line.pulse();
            }
            Some((Source::Mouse, _)) if self.configuration & MOUSE_INTERRUPT != 0 => {
                self.mouse_line.pulse();
            }
            _ => {}
        }
    }

    fn command(&mut self, command: u8) {
        self.last_was_command = true;
        self.expect = Expect::Keyboard;
        match command {
            0x20 => self.answer(Source::Keyboard, self.configuration),
            0x60 => self.expect = Expect::Configuration,
            0xa7 => self.configuration |= MOUSE_OFF,
            0xa8 => self.configuration &= !MOUSE_OFF,
            // Interface tests: nothing is wrong.
            0xa9 | 0xab => self.answer(Source::Keyboard, 0),
            0xaa => {
                self.output = None;
                self.answers.clear();
                self.answer(Source::Keyboard, 0x55);
            }
            0xad => self.configuration |= KEYBOARD_OFF,
            0xae => self.configuration &= !KEYBOARD_OFF,
            // Output port: not in reset, A20 open.
            0xd0 => self.answer(Source::Keyboard, 3),
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 => self.expect = Expect::LoopKeyboard,
            0xd3 => self.expect = Expect::LoopMouse,
            0xd4 => self.expect = Expect::Mouse,
            // Pulse output lines that are zero; line 0 is the reset.
            0xf0..=0xff if command & 1 == 0 => self.power.end(Ending::Reset),
            _ => {}
        }
        self.offer();
    }

    fn data(&mut self, byte: u8) {
        self.last_was_command = false;
        match std::mem::replace(&mut self.expect, Expect::Keyboard) {
            Expect::Keyboard => {
                self.configuration &= !KEYBOARD_OFF;
                self.keyboard.command(byte);
            }
            Expect::Configuration => {
                self.configuration = byte;
                // What waits already is told of, if it is wanted now.
                self.interrupt();
            }
            Expect::OutputPort => {
                if byte & 1 == 0 {
                    self.power.end(Ending::Reset);
                }
            }
            Expect::LoopKeyboard => self.answer(Source::Keyboard, byte),
            Expect::LoopMouse => self.answer(Source::Mouse, byte),
            Expect::Mouse => {
                self.configuration &= !MOUSE_OFF;
                self.mouse.command(byte);
            }
        }
        self.offer();
    }
}

/// One of the controller's two ports on the bus, between which other devices' ports lie.
pub struct Ps2Port {
    controller: Arc<Mutex<Ps2Controller>>,
    command: bool,
}

impl Ps2Port {
    /// The data port and the command port of `controller`.
    pub fn pair(controller: &Arc<Mutex<Ps2Controller>>) -> (Self, Self) {
        let port = |command| Self {
            controller: Arc::clone(controller),
            command,
        };
        (port(false), port(true))
    }

    fn lock(&self) -> MutexGuard<'_, Ps2Controller> {
        self.controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command port of a board without keyboard and mouse: it resets, and reads as nothing there.
pub struct ResetLine(pub Ps2Port);

impl BusDevice for ResetLine {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

impl BusDevice for Ps2Port {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            let mut controller = self.lock();
            *byte = if self.command {
                controller.status()
            } else {
                controller.take()
            };
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [byte] = data {
            let mut controller = self.lock();
            if self.command {
                controller.command(*byte);
            } else {
                controller.data(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl Line for Count {
        fn set(&self, high: bool) {
            self.0.fetch_add(high.into(), Ordering::Relaxed);
        }
    }

    struct Pc {
        controller: Arc<Mutex<Ps2Controller>>,
        data: Ps2Port,
        command: Ps2Port,
        keyboard: Count,
        mouse: Count,
        power: Arc<Power>,
    }

    fn pc() -> Pc {
        let (keyboard, mouse) = (Count::default(), Count::default());
        let power = Arc::new(Power::new().unwrap());
        let controller = Ps2Controller::new(
            Box::new(keyboard.clone()),
            Box::new(mouse.clone()),
            power.clone(),
        );
        let controller = Arc::new(Mutex::new(controller));
        let (data, command) = Ps2Port::pair(&controller);
        Pc {
            controller,
            data,
            command,
            keyboard,
            mouse,
            power,
        }
    }

    impl Pc {
        fn status(&mut self) -> u8 {
            let mut byte = [0xff];
            self.command.read(0, &mut byte);
            byte[0]
        }

        fn answers(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.status() & OUTPUT_FULL != 0 {
                let mut byte = [0xff];
                self.data.read(0, &mut byte);
                bytes.push(byte[0]);
            }
            bytes
        }
    }

    #[test]
    fn the_controller_and_the_keyboard_pass_their_tests() {
        let mut pc = pc();
        pc.command.write(0, &[0xaa]);
        assert_eq!(pc.answers(), [0x55]);
        pc.data.write(0, &[0xff]);
        assert_eq!(pc.answers(), [ACK, SELF_TEST_PASSED]);
        // Translated, as on every PC: 0x83 of set 2 is 0x41 of set 1.
        pc.data.write(0, &[0xf2]);
        assert_eq!(pc.answers(), [ACK, 0xab, 0x41]);
        pc.data.write(0, &[0xed]);
        pc.data.write(0, &[7]);
        assert_eq!(pc.answers(), [ACK, ACK]);
    }

    #[test]
    fn the_mouse_answers_behind_its_prefix_with_its_interrupt() {
        let mut pc = pc();
        pc.command.write(0, &[0x60]);
        pc.data.write(0, &[KEYBOARD_INTERRUPT | MOUSE_INTERRUPT]);
        pc.command.write(0, &[0xd4]);
        pc.data.write(0, &[0xf2]);
        assert_eq!(pc.status() & FROM_MOUSE, FROM_MOUSE);
        assert_eq!(pc.answers(), [ACK, 0]);
        assert_eq!(pc.mouse.0.load(Ordering::Relaxed), 2);
        assert_eq!(pc.keyboard.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn keys_wait_for_a_keyboard_that_is_on_and_come_in_the_set_that_is_wanted() {
        let mut pc = pc();
        let key = |pc: &Pc, code, down| pc.controller.lock().unwrap().key(code, down);
        key(&pc, 30, true);
        assert!(pc.answers().is_empty());
        pc.command.write(0, &[0xae]);
        assert_eq!(pc.answers(), [0x1e]);
        key(&pc, 30, false);
        key(&pc, 103, true);
        key(&pc, 103, false);
        assert_eq!(pc.answers(), [0x9e, 0xe0, 0x48, 0xe0, 0xc8]);
        pc.command.write(0, &[0x60]);
        pc.data.write(0, &[KEYBOARD_INTERRUPT]);
        key(&pc, 30, true);
        key(&pc, 30, false);
        assert_eq!(pc.answers(), [0x1c, 0xf0, 0x1c]);
        assert_eq!(pc.keyboard.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_byte_that_was_announced_stays_whoever_else_has_one() {
        let mut pc = pc();
        pc.command.write(0, &[0x60]);
        pc.data.write(0, &[TRANSLATE]);
        pc.command.write(0, &[0xd4]);
        pc.data.write(0, &[0xf4]);
        assert_eq!(pc.answers(), [ACK]);
        pc.controller.lock().unwrap().moved(1, 0, 0);
        pc.controller.lock().unwrap().key(30, true);
        pc.controller.lock().unwrap().key(0x110, true);
        assert_eq!(pc.status() & FROM_MOUSE, FROM_MOUSE);
        let mut first = [0];
        pc.data.read(0, &mut first);
        assert_eq!((first, pc.status() & FROM_MOUSE), ([8], 0));
        assert_eq!(pc.answers(), [0x1e, 1, 0, 9, 0, 0]);
        pc.controller.lock().unwrap().all_up();
        assert_eq!(pc.answers(), [0x9e, 8, 0, 0]);
    }

    #[test]
    fn a_guest_that_never_reads_fills_no_memory() {
        let mut pc = pc();
        for _ in 0..1000 {
            pc.data.write(0, &[0xf2]);
            pc.command.write(0, &[0x20]);
        }
        assert!(pc.answers().len() < 200);
    }

    #[test]
    fn fe_resets_the_machine() {
        let mut pc = pc();
        pc.command.write(0, &[0xff]);
        assert!(!pc.power.ended());
        pc.command.write(0, &[0xfe]);
        assert_eq!(pc.power.ending(), Some(&Ending::Reset));
    }
}
