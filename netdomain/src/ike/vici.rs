//! VICI, charon's own protocol for those who tell it what to do (`strongSwan`,
//! `src/libcharon/plugins/vici/README.md`): packets over a Unix stream, messages of keys and values.
//!
//! Written out here: the crate that speaks it brings an asynchronous runtime for what is one request
//! at a time, in a process that is one poll loop. What charon says is read with bounds, because charon
//! itself reads the network: an engine that was taken over must not take its keeper along.
//!
//! Among the values there are a PIN and a private key. All values are erased when they are dropped, and
//! so is what is written; nothing that prints a message shows one.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// The longest packet that is taken. The longest of charon's that we ask for, the state of one
/// tunnel, has some 2 KiB.
const MAX_PACKET: usize = 64 << 10;
/// Sections within sections; charon's have four.
const MAX_DEPTH: usize = 8;
/// Room for a packet from the start. One that is longer is moved while it grows, which leaves pieces of it
/// behind: those with a PIN or a key in them are shorter.
const ROOM: usize = 8 << 10;
/// The packet's length, before each packet.
const LENGTH: usize = 4;

/// Why the conversation cannot go on.
#[derive(Debug, Error)]
pub(super) enum ViciError {
    /// charon closed it.
    #[error("charon closed the conversation")]
    Closed,
    /// The socket failed.
    #[error("charon cannot be spoken to: {0}")]
    Socket(#[from] io::Error),
    /// What came is not VICI, or too much of it.
    #[error("charon does not speak VICI")]
    Malformed,
    /// A key or a value that VICI has no room for.
    #[error("a value is too long for VICI")]
    TooLong,
}

/// A value.
#[derive(Clone, PartialEq, Eq)]
struct Value(Zeroizing<Vec<u8>>);

impl Value {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Value(Value),
    List(Vec<Value>),
    Section(Message),
}

/// Keys and what they stand for, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Message(Vec<(String, Node)>);

impl Message {
    /// Adds a value.
    pub(super) fn value(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.0
            .push((key.to_owned(), Node::Value(Value::new(value))));
        self
    }

    /// Adds a list.
    pub(super) fn list<V: Into<Vec<u8>>>(
        mut self,
        key: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Value::new).collect();
        self.0.push((key.to_owned(), Node::List(values)));
        self
    }

    /// Adds a section.
    pub(super) fn section(mut self, key: &str, section: Self) -> Self {
        self.0.push((key.to_owned(), Node::Section(section)));
        self
    }

    fn node(&self, key: &str) -> Option<&Node> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, node)| node)
    }

    /// The text of this key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.node(key)? {
            Node::Value(value) => value.text(),
            _ => None,
        }
    }

    /// The texts of this list; nothing if there is none, or one is no text.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&str>> {
        match self.node(key)? {
            Node::List(values) => values.iter().map(Value::text).collect(),
            _ => None,
        }
    }

    /// The section of this key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self.node(key)? {
            Node::Section(section) => Some(section),
            _ => None,
        }
    }

    /// All sections.
    pub(super) fn sections(&self) -> impl Iterator<Item = &Self> {
        self.0.iter().filter_map(|(_, node)| match node {
            Node::Section(section) => Some(section),
            _ => None,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), ViciError> {
        for (key, node) in &self.0 {
            match node {
                Node::Value(value) => {
                    out.push(element::VALUE);
                    name(out, key)?;
                    long(out, &value.0)?;
                }
                Node::List(values) => {
                    out.push(element::LIST);
                    name(out, key)?;
                    for value in values {
                        out.push(element::ITEM);
                        long(out, &value.0)?;
                    }
                    out.push(element::LIST_END);
                }
                Node::Section(section) => {
                    out.push(element::SECTION);
                    name(out, key)?;
                    section.encode(out)?;
                    out.push(element::SECTION_END);
                }
            }
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let message = reader.message(0)?;
        reader.0.is_empty().then_some(message)
    }
}

/// Whether a message, written, is read as the same again.
pub(super) fn reads_back(message: &Message) -> bool {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).is_ok() && Message::decode(&bytes).as_ref() == Some(message)
}

/// Kinds of elements of a message.
mod element {
    pub(super) const SECTION: u8 = 1;
    pub(super) const SECTION_END: u8 = 2;
    pub(super) const VALUE: u8 = 3;
    pub(super) const LIST: u8 = 4;
    pub(super) const ITEM: u8 = 5;
    pub(super) const LIST_END: u8 = 6;
}

fn name(out: &mut Vec<u8>, name: &str) -> Result<(), ViciError> {
    out.push(u8::try_from(name.len()).map_err(|_| ViciError::TooLong)?);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn long(out: &mut Vec<u8>, value: &[u8]) -> Result<(), ViciError> {
    let length = u16::try_from(value.len()).map_err(|_| ViciError::TooLong)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

/// What is left to be read. Every step takes at least a byte, so that the work is bounded by the
/// packet's length.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|one| one[0])
    }

    fn name(&mut self) -> Option<String> {
        let length = self.byte()?;
        let name = self.take(length.into())?;
        String::from_utf8(name.to_vec()).ok()
    }

    fn long(&mut self) -> Option<Value> {
        let length = self.take(2)?;
        let length = u16::from_be_bytes([length[0], length[1]]);
        self.take(length.into()).map(Value::new)
    }

    /// Elements up to the end of their section; of the outermost it is the end of all.
    fn message(&mut self, depth: usize) -> Option<Message> {
        let mut message = Message::default();
        loop {
            if depth == 0 && self.0.is_empty() {
                return Some(message);
            }
            let node = match self.byte()? {
                element::SECTION_END if depth > 0 => return Some(message),
                element::SECTION if depth < MAX_DEPTH => {
                    let name = self.name()?;
                    (name, Node::Section(self.message(depth + 1)?))
                }
                element::VALUE => (self.name()?, Node::Value(self.long()?)),
                element::LIST => (self.name()?, Node::List(self.items()?)),
                _ => return None,
            };
            message.0.push(node);
        }
    }

    fn items(&mut self) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        loop {
            match self.byte()? {
                element::ITEM => items.push(self.long()?),
                element::LIST_END => return Some(items),
                _ => return None,
            }
        }
    }
}

/// What is said to charon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A command.
    Command(&'static str, Message),
    /// To be told of this kind of event.
    Events(&'static str),
}

/// What charon says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The answer to a command.
    Answer(Message),
    /// It will tell of the events.
    WillTell,
    /// It knows no such command, or no such events.
    Unknown,
    /// Something happened.
    Event(String, Message),
}

/// Kinds of packets.
mod packet {
    pub(super) const COMMAND: u8 = 0;
    pub(super) const ANSWER: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const REGISTER: u8 = 3;
    pub(super) const CONFIRM: u8 = 5;
    pub(super) const UNKNOWN_EVENT: u8 = 6;
    pub(super) const EVENT: u8 = 7;
}

fn encode(asked: &Asked) -> Result<Zeroizing<Vec<u8>>, ViciError> {
    let mut out = Zeroizing::new(Vec::with_capacity(ROOM));
    out.resize(LENGTH, 0);
    match asked {
        Asked::Command(command, message) => {
            out.push(packet::COMMAND);
            name(&mut out, command)?;
            message.encode(&mut out)?;
        }
        Asked::Events(event) => {
            out.push(packet::REGISTER);
            name(&mut out, event)?;
        }
    }
    let length = u32::try_from(out.len() - LENGTH).map_err(|_| ViciError::TooLong)?;
    out[..LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// One packet, without its length.
fn decode(bytes: &[u8]) -> Option<Said> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        packet::ANSWER => Message::decode(reader.0).map(Said::Answer),
        packet::CONFIRM => Some(Said::WillTell),
        packet::UNKNOWN | packet::UNKNOWN_EVENT => Some(Said::Unknown),
        packet::EVENT => {
            let name = reader.name()?;
            Message::decode(reader.0).map(|message| Said::Event(name, message))
        }
        _ => None,
    }
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Vici {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Zeroizing<Vec<u8>>,
}

impl Vici {
    /// Takes a connected stream.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            outbox: Zeroizing::default(),
        })
    }

    /// Whether something waits to be written.
    pub(super) fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Says something; what does not go out now goes with the next [`flush`](Self::flush).
    pub(super) fn ask(&mut self, asked: &Asked) -> Result<(), ViciError> {
        let packet = encode(asked)?;
        if self.outbox.is_empty() {
            // Where it is, so that nothing is left of an outbox that grows.
            self.outbox = packet;
        } else {
            self.outbox.extend_from_slice(&packet);
        }
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Result<(), ViciError> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.zeroize();
        Ok(())
    }

    /// The next packet, if there is a whole one.
    pub(super) fn hear(&mut self) -> Result<Option<Said>, ViciError> {
        loop {
            if let Some((length, rest)) = self.inbox.split_first_chunk::<LENGTH>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > MAX_PACKET {
                    return Err(ViciError::Malformed);
                }
                if let Some(packet) = rest.get(..length) {
                    let said = decode(packet).ok_or(ViciError::Malformed)?;
                    self.inbox.drain(..LENGTH + length);
                    return Ok(Some(said));
                }
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ViciError::Closed),
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Vici {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the protocol's own documentation, "Encoding Example".
    #[test]
    fn a_message_is_written_as_documented() {
        let sub = Message::default().value("key2", "value2");
        let section = Message::default()
            .section("sub-section", sub)
            .list("list1", ["item1", "item2"]);
        let message = Message::default()
            .value("key1", "value1")
            .section("section1", section);
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        let expected: &[&[u8]] = &[
            b"\x03\x04key1\x00\x06value1",
            b"\x01\x08section1",
            b"\x01\x0bsub-section",
            b"\x03\x04key2\x00\x06value2",
            b"\x02",
            b"\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06",
            b"\x02",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(Message::decode(&bytes), Some(message));
    }

    #[test]
    fn sections_without_end_are_refused() {
        let deep = b"\x01\x01s".repeat(MAX_DEPTH + 1);
        assert_eq!(Message::decode(&deep), None);
        let closed = [&b"\x01\x01s".repeat(9)[..], &[2; 9]].concat();
        assert_eq!(Message::decode(&closed), None);
        assert_eq!(Message::decode(&[2]), None);
    }

    #[test]
    fn a_packet_comes_in_pieces_and_an_endless_one_is_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut vici = Vici::new(ours).unwrap();
        let packet = [&6u32.to_be_bytes()[..], &[packet::EVENT, 4], b"name"].concat();
        for byte in &packet[..packet.len() - 1] {
            theirs.write_all(&[*byte]).unwrap();
            assert_eq!(vici.hear().unwrap(), None);
        }
        theirs.write_all(&packet[packet.len() - 1..]).unwrap();
        let event = Said::Event("name".into(), Message::default());
        assert_eq!(vici.hear().unwrap(), Some(event));
        theirs.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(vici.hear(), Err(ViciError::Malformed)));
    }

    proptest! {
        #[test]
        fn whatever_charon_says_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn what_is_written_is_read(keys in prop::collection::vec(("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..40)), 0..9)) {
            let message = keys.iter().fold(Message::default(), |message, (key, value)| {
                message
                    .value(key, value.clone())
                    .list(key, [value.clone()])
                    .section(key, Message::default().value(key, value.clone()))
            });
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            prop_assert_eq!(Message::decode(&bytes), Some(message));
        }
    }
}
