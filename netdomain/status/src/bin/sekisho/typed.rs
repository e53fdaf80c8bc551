//! What a person types and nobody reads over their shoulder: without echo in a terminal, plain from a
//! pipe. No buffer of the standard library sees it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sekisho_control::{MAX_ANSWER, Secret};
use zeroize::Zeroizing;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Typed {
    /// An answer.
    Answer(Secret),
    /// The person thought better of it.
    Cancelled,
    /// What cannot be one.
    NoAnswer,
}

/// End of text and of transmission (^C, ^D), backspace and delete, ^U: as terminals send them.
const ETX: u8 = 0x03;
const EOT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const KILL_LINE: u8 = 0x15;

/// A line that is being typed.
#[derive(Debug)]
struct Line {
    /// With room for all that it may ever hold.
    text: Zeroizing<String>,
    /// It has more, or other, characters than an answer.
    spoilt: bool,
}

/// Whether the line is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Cancelled,
}

impl Line {
    fn new() -> Self {
        Self {
            text: Zeroizing::new(String::with_capacity(MAX_ANSWER)),
            spoilt: false,
        }
    }

    /// Takes a byte. `edits` where a terminal sends keys rather than text.
    fn take(&mut self, byte: u8, edits: bool) -> Option<End> {
        match byte {
            b'\n' | b'\r' => return Some(End::Whole),
            ETX if edits => return Some(End::Cancelled),
            EOT if edits && self.text.is_empty() => return Some(End::Cancelled),
            EOT if edits => return Some(End::Whole),
            BACKSPACE | DELETE if edits => drop(self.text.pop()),
            KILL_LINE if edits => {
                self.text.clear();
                self.spoilt = false;
            }
            _ if byte.is_ascii_graphic() && self.text.len() < MAX_ANSWER => {
                self.text.push(char::from(byte));
            }
            _ => self.spoilt = true,
        }
        None
    }

    fn typed(mut self) -> Typed {
        if self.spoilt {
            return Typed::NoAnswer;
        }
        Secret::new(std::mem::take(&mut *self.text)).map_or(Typed::NoAnswer, Typed::Answer)
    }
}

/// Reads an answer from the standard input; in a terminal `prompt` is shown before.
pub(crate) fn secret(prompt: &str) -> io::Result<Typed> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read(&input, false);
    }
    let mut screen = io::stderr();
    screen.write_all(prompt.as_bytes())?;
    screen.flush()?;
    let quiet = Quiet::new(&input)?;
    let typed = read(&input, true);
    drop(quiet);
    screen.write_all(b"\n")?;
    typed
}

fn read(input: &impl AsFd, edits: bool) -> io::Result<Typed> {
    let mut line = Line::new();
    let mut byte = Zeroizing::new([0]);
    loop {
        let end = match rustix::io::retry_on_intr(|| rustix::io::read(input, &mut *byte))? {
            0 if line.text.is_empty() => Some(End::Cancelled),
            0 => Some(End::Whole),
            _ => line.take(byte[0], edits),
        };
        match end {
            Some(End::Whole) => return Ok(line.typed()),
            Some(End::Cancelled) => return Ok(Typed::Cancelled),
            None => {}
        }
    }
}

/// A terminal that shows nothing of what is typed, and sends each key as it comes, until this is
/// dropped. Also those that would end or stop us: it would stay as it is now then.
struct Quiet<'t, T: AsFd> {
    terminal: &'t T,
    before: Termios,
}

impl<'t, T: AsFd> Quiet<'t, T> {
    fn new(terminal: &'t T) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes -=
            LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        // What was typed ahead was typed with echo.
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for Quiet<'_, T> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8], edits: bool) -> Option<String> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(keys).unwrap();
        drop(writer);
        match read(&reader, edits).unwrap() {
            Typed::Answer(answer) => Some(answer.expose().to_owned()),
            Typed::Cancelled => None,
            Typed::NoAnswer => Some(String::new()),
        }
    }

    #[test]
    fn a_line_of_a_pipe_is_taken_as_it_is() {
        assert_eq!(typed(b"755224\n287082\n", false).unwrap(), "755224");
        assert_eq!(typed(b"755224", false).unwrap(), "755224");
        assert_eq!(typed(b"75 5224\n", false).unwrap(), "");
        assert_eq!(typed(b"75\x085224\n", false).unwrap(), "");
        assert_eq!(typed(&[b'7'; MAX_ANSWER + 1], false).unwrap(), "");
        assert_eq!(typed(b"", false), None);
    }

    #[test]
    fn a_terminal_sends_keys() {
        assert_eq!(typed(b"754\x7f5224\r", true).unwrap(), "755224");
        assert_eq!(typed(b"wrong\x15755224\r", true).unwrap(), "755224");
        assert_eq!(typed(b"7552\x03", true), None);
        assert_eq!(typed(b"\x04", true), None);
        assert_eq!(typed(b"\x7f\x7f755224\x04", true).unwrap(), "755224");
    }
}
