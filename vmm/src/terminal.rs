//! The terminal as the guest's serial console: keys go to the guest one by one, and what the
//! terminal was is put back at the end. Ctrl-C stays the person's.

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// A terminal in single-key mode, put back when dropped.
pub struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    /// Takes the terminal on standard input; where that is none, nothing happens.
    pub fn take() -> Self {
        if !stdin().is_terminal() {
            return Self { before: None };
        }
        let before = tcgetattr(stdin().as_fd()).ok();
        if let Some(settings) = &before {
            let mut keys = settings.clone();
            keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            keys.input_modes -= InputModes::ICRNL;
            let _ = tcsetattr(stdin().as_fd(), OptionalActions::Now, &keys);
        }
        Self { before }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            let _ = tcsetattr(stdin().as_fd(), OptionalActions::Now, settings);
        }
    }
}
