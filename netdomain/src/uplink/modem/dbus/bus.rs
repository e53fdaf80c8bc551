//! The connection to the bus: never blocks once it is signed in, and reads and writes within bounds.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use super::{
    Malformed, Message, Writer,
    message::{MAX_MESSAGE, Method, call},
};

/// Longest line of the signing-in: `OK` and the bus's name for itself, 37 bytes.
const MAX_LINE: usize = 128;
/// The bus is on the same machine and has nothing else to do first.
const SIGN_IN_WITHIN: Duration = Duration::from_secs(5);
/// What may lie unsent. One call is some hundred bytes, and there is one at a time.
const MAX_UNSENT: usize = 16 * 1024;

/// Why there is no bus, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The socket.
    #[error("the D-Bus socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The bus does not take this process for its user.
    #[error("the D-Bus daemon does not let this user in: it said `{0}`")]
    SignIn(String),
    /// It closed the connection.
    #[error("the D-Bus daemon closed the connection")]
    Closed,
    /// It does not read what it is sent.
    #[error("the D-Bus daemon does not read")]
    Full,
    /// What it sent is no message.
    #[error("the D-Bus daemon sent something else than a message: {0}")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Malformed> for BusError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.into())
    }
}

/// A connection to a message bus.
#[derive(Debug)]
pub(crate) struct Bus {
    socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    serial: u32,
}

impl Bus {
    /// Connects and signs in as `user`, which this process must be (D-Bus specification,
    /// "Authentication Protocol", EXTERNAL).
    ///
    /// # Errors
    /// [`BusError`].
    pub(crate) fn connect(path: &Path, user: u32) -> Result<Self, BusError> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(SIGN_IN_WITHIN))?;
        socket.set_write_timeout(Some(SIGN_IN_WITHIN))?;
        let digits = user
            .to_string()
            .bytes()
            .fold(String::new(), |hex, digit| hex + &format!("{digit:02x}"));
        socket.write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let answer = line(&mut socket)?;
        if !answer.starts_with("OK ") {
            return Err(BusError::SignIn(answer.escape_debug().to_string()));
        }
        socket.write_all(b"BEGIN\r\n")?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            received: Vec::new(),
            unsent: Vec::new(),
            serial: 0,
        })
    }

    /// Sends a call; its serial number.
    ///
    /// # Errors
    /// [`BusError`]; the connection is of no use then.
    pub(crate) fn call(
        &mut self,
        method: &Method<'_>,
        arguments: &Writer,
    ) -> Result<u32, BusError> {
        // Zero is no serial number.
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let bytes = call(self.serial, method, arguments);
        if self.unsent.len() + bytes.len() > MAX_UNSENT {
            return Err(BusError::Full);
        }
        self.unsent.extend(bytes);
        self.flush()?;
        Ok(self.serial)
    }

    /// Whether it waits to be written to.
    pub(crate) const fn unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what could not be sent before.
    ///
    /// # Errors
    /// [`BusError`].
    pub(crate) fn flush(&mut self) -> Result<(), BusError> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is, as much as one message may be long, and hands each whole message to
    /// `each`. What is left comes with the next turn, so that a flood does not keep the caller.
    ///
    /// # Errors
    /// [`BusError`]; the connection is of no use then.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<(), BusError> {
        let mut buffer = [0; 16 * 1024];
        while self.received.len() < MAX_MESSAGE {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(BusError::Closed),
                Ok(read) => self.received.extend(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut at = 0;
        while let Some(length) = Message::length(&self.received[at..])? {
            let Some(bytes) = self.received.get(at..at + length) else {
                break;
            };
            each(&Message::parse(bytes)?);
            at += length;
        }
        self.received.drain(..at);
        Ok(())
    }
}

impl AsFd for Bus {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One line of the signing-in. Nothing follows it until we say so, so it is read a byte at a time.
fn line(socket: &mut UnixStream) -> Result<String, BusError> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n") && text.len() < MAX_LINE {
        if socket.read(&mut byte)? == 0 {
            return Err(BusError::Closed);
        }
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}
