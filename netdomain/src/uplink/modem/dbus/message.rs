//! One message: a header of fields, and a body.

use super::{Malformed, Reader, Writer};

/// Longest message that is taken. What ModemManager says of one modem is some 5 KiB; a laptop has
/// one, and this leaves room for a dozen.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// The part of a message that says how long the rest is.
pub(super) const FIXED: usize = 16;

/// Header fields (D-Bus specification, "Header Fields").
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
#[cfg(test)]
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

const METHOD_CALL: u8 = 1;
/// A service that does not run is not to be started for us.
const NO_AUTO_START: u8 = 2;
const VERSION: u8 = 1;

/// What a message is, as far as it is of interest here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// The answer to the call with this serial number.
    Return(u32),
    /// The refusal of the call with this serial number, and why.
    Error(u32, &'a str),
    /// Something happened.
    Signal,
    /// Somebody calls us, or a kind of a later version; both are passed over.
    Other,
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind<'a>,
    signature: &'a str,
    body: Reader<'a>,
}

impl<'a> Message<'a> {
    /// Length of the message that begins with these bytes; `None` if there are too few to tell.
    ///
    /// # Errors
    /// It is longer than any message that is taken, or none.
    pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(fixed) = bytes.get(..FIXED) else {
            return Ok(None);
        };
        let mut reader = Reader::new(fixed, big_endian(fixed[0])?);
        reader.u32()?;
        let body = reader.u32()? as usize;
        reader.u32()?;
        let fields = reader.u32()? as usize;
        // Neither can overflow: both come from 32 bits.
        let length = (FIXED + fields).next_multiple_of(8) + body;
        if length > MAX_MESSAGE {
            return Err(Malformed("it is longer than any that is taken"));
        }
        Ok(Some(length))
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// It is malformed; whoever sends such a thing is no bus.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let endian = big_endian(*bytes.first().ok_or(Malformed("it is empty"))?)?;
        if Self::length(bytes)? != Some(bytes.len()) {
            return Err(Malformed("it is cut"));
        }
        let mut header = Reader::new(bytes, endian);
        header.byte()?;
        let kind = header.byte()?;
        header.byte()?;
        if header.byte()? != VERSION {
            return Err(Malformed("it is of another version"));
        }
        header.u32()?;
        header.u32()?;
        let (mut reply_serial, mut error, mut signature) = (None, None, "");
        let mut fields = header.array("(yv)")?;
        while !fields.is_empty() {
            fields.align(8)?;
            let code = fields.byte()?;
            let value = fields.variant()?;
            match code {
                REPLY_SERIAL => reply_serial = Some(value.of("u")?.u32()?),
                ERROR_NAME => error = Some(value.of("s")?.text()?),
                SIGNATURE => signature = value.of("g")?.signature()?,
                _ => {}
            }
        }
        header.align(8)?;
        let missing = Malformed("a header field is missing");
        let kind = match kind {
            2 => Kind::Return(reply_serial.ok_or(missing)?),
            3 => Kind::Error(reply_serial.ok_or(missing)?, error.ok_or(missing)?),
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        Ok(Self {
            kind,
            signature,
            body: Reader::new(&bytes[header.at()..], endian),
        })
    }

    /// A reader of its body, if it is of these types.
    ///
    /// # Errors
    /// It is of others.
    pub(crate) fn body(&self, signature: &str) -> Result<Reader<'a>, Malformed> {
        if self.signature == signature {
            Ok(self.body)
        } else {
            Err(Malformed("an answer has another type"))
        }
    }
}

fn big_endian(mark: u8) -> Result<bool, Malformed> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(Malformed("it has no byte order")),
    }
}

/// Which method of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// The call of a method, as bytes.
pub(super) fn call(serial: u32, method: &Method<'_>, arguments: &Writer) -> Vec<u8> {
    let mut message = Writer::default();
    let body = arguments.bytes();
    message.raw(&[b'l', METHOD_CALL, NO_AUTO_START, VERSION]);
    message.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    message.put_u32(serial);
    message.put_u32(0);
    for (code, kind, text) in [
        (PATH, "o", method.path),
        (INTERFACE, "s", method.interface),
        (MEMBER, "s", method.member),
        (DESTINATION, "s", method.destination),
    ] {
        message.pad(8);
        message.raw(&[code]);
        message.put_signature(kind);
        message.put_text(text);
    }
    if !arguments.types().is_empty() {
        message.pad(8);
        message.raw(&[SIGNATURE]);
        message.put_signature("g");
        message.put_signature(arguments.types());
    }
    finish(message, body)
}

fn finish(mut message: Writer, body: &[u8]) -> Vec<u8> {
    let fields = message.bytes().len() - FIXED;
    message.pad(8);
    message.raw(body);
    let mut bytes = message.bytes().to_vec();
    bytes[12..16].copy_from_slice(&u32::try_from(fields).unwrap_or(u32::MAX).to_le_bytes());
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer to the call `serial`, of one type with these bytes.
    pub(crate) fn answer(serial: u32, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut message = Writer::default();
        message.raw(&[b'l', 2, 0, VERSION]);
        message.put_u32(u32::try_from(body.len()).unwrap());
        message.put_u32(9);
        message.put_u32(0);
        message.raw(&[REPLY_SERIAL]);
        message.put_signature("u");
        message.put_u32(serial);
        message.pad(8);
        message.raw(&[SENDER]);
        message.put_signature("s");
        message.put_text(":1.7");
        message.pad(8);
        message.raw(&[SIGNATURE]);
        message.put_signature("g");
        message.put_signature(signature);
        finish(message, body)
    }

    #[test]
    fn an_answer_is_read_back() {
        let bytes = answer(4, "b", &[1, 0, 0, 0]);
        assert_eq!(Message::length(&bytes[..15]), Ok(None));
        assert_eq!(Message::length(&bytes), Ok(Some(bytes.len())));
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Return(4));
        assert!(message.body("u").is_err());
        assert_eq!(message.body("b").unwrap().bool(), Ok(true));
        assert!(Message::parse(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_message_that_claims_to_be_endless_is_refused_by_its_header() {
        let mut bytes = answer(4, "b", &[1, 0, 0, 0]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Message::length(&bytes).is_err());
    }

    #[test]
    fn a_call_is_what_the_specification_says() {
        let method = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        let bytes = call(1, &method, &Writer::default());
        // Ours is a call, which is read as what it is: of no interest.
        assert_eq!(Message::parse(&bytes).unwrap().kind, Kind::Other);
        assert_eq!(&bytes[..12], b"l\x01\x02\x01\0\0\0\0\x01\0\0\0");
    }
}
