//! The PS/2 controller with a keyboard and a mouse that nobody touches yet: what firmware and
//! operating systems ask of them at start, and the reset line at command 0xFE.
//!
//! Source: IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller"; Adam
//! Chapweske's notes on the PS/2 keyboard and mouse.

use std::collections::VecDeque;
use std::sync::Arc;

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

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;

/// Answers that may wait: the longest is a mouse's status report of four bytes, and a driver
/// reads one answer before it asks for the next.
const QUEUE_LIMIT: usize = 16;

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
    queue: VecDeque<(Source, u8)>,
    /// The keyboard's or mouse's last command wants a parameter.
    keyboard_parameter: bool,
    mouse_parameter: bool,
}

impl Ps2Controller {
    /// After power-on.
    pub fn new(keyboard_line: Box<dyn Line>, mouse_line: Box<dyn Line>, power: Arc<Power>) -> Self {
        Self {
            keyboard_line,
            mouse_line,
            power,
            configuration: SYSTEM | KEYBOARD_OFF | MOUSE_OFF,
            expect: Expect::Keyboard,
            last_was_command: false,
            queue: VecDeque::with_capacity(QUEUE_LIMIT),
            keyboard_parameter: false,
            mouse_parameter: false,
        }
    }

    fn status(&self) -> u8 {
        let waiting = match self.queue.front() {
            None => 0,
            Some((Source::Keyboard, _)) => OUTPUT_FULL,
            Some((Source::Mouse, _)) => OUTPUT_FULL | FROM_MOUSE,
        };
        let command = if self.last_was_command { COMMAND } else { 0 };
        SYSTEM | UNLOCKED | waiting | command
    }

    fn take(&mut self) -> u8 {
        let byte = self.queue.pop_front().map_or(0, |(_, byte)| byte);
        self.interrupt();
        byte
    }

    fn push(&mut self, source: Source, bytes: &[u8]) {
        let was_empty = self.queue.is_empty();
        for byte in bytes {
            if self.queue.len() < QUEUE_LIMIT {
                self.queue.push_back((source, *byte));
            }
        }
        if was_empty {
            self.interrupt();
        }
    }

    /// Tells the guest of the byte at the front, if it wants to hear of it.
    fn interrupt(&self) {
        match self.queue.front() {
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
            0x20 => self.push(Source::Keyboard, &[self.configuration]),
            0x60 => self.expect = Expect::Configuration,
            0xa7 => self.configuration |= MOUSE_OFF,
            0xa8 => self.configuration &= !MOUSE_OFF,
            // Interface tests: nothing is wrong.
            0xa9 | 0xab => self.push(Source::Keyboard, &[0]),
            0xaa => {
                self.queue.clear();
                self.push(Source::Keyboard, &[0x55]);
            }
            0xad => self.configuration |= KEYBOARD_OFF,
            0xae => self.configuration &= !KEYBOARD_OFF,
            // Output port: not in reset, A20 open.
            0xd0 => self.push(Source::Keyboard, &[3]),
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 => self.expect = Expect::LoopKeyboard,
            0xd3 => self.expect = Expect::LoopMouse,
            0xd4 => self.expect = Expect::Mouse,
            // Pulse output lines that are zero; line 0 is the reset.
            0xf0..=0xff if command & 1 == 0 => self.power.end(Ending::Reset),
            _ => {}
        }
    }

    fn data(&mut self, byte: u8) {
        self.last_was_command = false;
        match std::mem::replace(&mut self.expect, Expect::Keyboard) {
            Expect::Keyboard => self.command_keyboard(byte),
            Expect::Configuration => {
                self.configuration = byte;
                self.interrupt();
            }
            Expect::OutputPort => {
                if byte & 1 == 0 {
                    self.power.end(Ending::Reset);
                }
            }
            Expect::LoopKeyboard => self.push(Source::Keyboard, &[byte]),
            Expect::LoopMouse => self.push(Source::Mouse, &[byte]),
            Expect::Mouse => self.command_mouse(byte),
        }
    }

    fn command_keyboard(&mut self, byte: u8) {
        self.configuration &= !KEYBOARD_OFF;
        if std::mem::take(&mut self.keyboard_parameter) {
            return self.push(Source::Keyboard, &[ACK]);
        }
        // LEDs, scan code set, typematic rate: a parameter follows.
        self.keyboard_parameter = matches!(byte, 0xed | 0xf0 | 0xf3);
        let answer: &[u8] = match byte {
            0xee => &[0xee],
            0xf2 => &[ACK, 0xab, 0x83],
            0xff => &[ACK, SELF_TEST_PASSED],
            0xed | 0xf0 | 0xf3..=0xf6 => &[ACK],
            _ => &[RESEND],
        };
        self.push(Source::Keyboard, answer);
    }

    fn command_mouse(&mut self, byte: u8) {
        self.configuration &= !MOUSE_OFF;
        if std::mem::take(&mut self.mouse_parameter) {
            return self.push(Source::Mouse, &[ACK]);
        }
        // Resolution and sample rate: a parameter follows.
        self.mouse_parameter = matches!(byte, 0xe8 | 0xf3);
        let answer: &[u8] = match byte {
            // Status: stream mode, off, 1:1; resolution 4 per mm; 100 samples a second.
            0xe9 => &[ACK, 0, 2, 100],
            0xeb => &[ACK, 0, 0, 0],
            0xf2 => &[ACK, 0],
            0xff => &[ACK, SELF_TEST_PASSED, 0],
            0xe6..=0xe8 | 0xea | 0xf0 | 0xf3..=0xf6 => &[ACK],
            _ => &[RESEND],
        };
        self.push(Source::Mouse, answer);
    }
}

/// One of the controller's two ports on the bus, between which other devices' ports lie.
pub struct Ps2Port {
    controller: Arc<std::sync::Mutex<Ps2Controller>>,
    command: bool,
}

impl Ps2Port {
    /// The data port and the command port of `controller`.
    pub fn pair(controller: Ps2Controller) -> (Self, Self) {
        let controller = Arc::new(std::sync::Mutex::new(controller));
        let port = |command| Self {
            controller: Arc::clone(&controller),
            command,
        };
        (port(false), port(true))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ps2Controller> {
        self.controller
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let (data, command) = Ps2Port::pair(controller);
        Pc {
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
        pc.data.write(0, &[0xf2]);
        assert_eq!(pc.answers(), [ACK, 0xab, 0x83]);
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
    fn a_guest_that_never_reads_fills_no_memory() {
        let mut pc = pc();
        for _ in 0..1000 {
            pc.data.write(0, &[0xf2]);
        }
        assert_eq!(pc.answers().len(), QUEUE_LIMIT);
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
