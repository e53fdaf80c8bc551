//! What a viewer says (RFC 6143 §7.5).

use thiserror::Error;

use super::pixel::Format;

/// Encodings that a viewer names. Known viewers name some thirty.
const MAX_ENCODINGS: usize = 256;
/// Text for the clipboard, which is not taken: only its length has to be believed.
const MAX_TEXT: u32 = 1 << 20;

/// Why a viewer is sent away.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RfbError {
    /// It speaks something else.
    #[error("the viewer does not speak RFB")]
    Version,
    /// It chose a way to be let in that was not offered.
    #[error("the viewer chose the security type {0}, which was not offered")]
    Security(u8),
    /// A message that there is not.
    #[error("the viewer sent the unknown message {0}")]
    Message(u8),
    /// Pixels that cannot be made.
    #[error("the viewer asks for pixels that cannot be made")]
    Format,
    /// Longer than anybody needs.
    #[error("the viewer's message is too long")]
    Length,
}

/// A viewer's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Format(Format),
    Encodings(Vec<i32>),
    Update {
        incremental: bool,
        x: u16,
        y: u16,
        width: u16,
        height: u16,
    },
    Key {
        down: bool,
        keysym: u32,
    },
    /// QEMU's message: the key itself beside what is written on it.
    Scancode {
        down: bool,
        keysym: u32,
        code: u32,
    },
    Pointer {
        buttons: u8,
        x: u16,
        y: u16,
    },
    /// So many bytes of text follow.
    Text(u32),
}

fn short(bytes: &[u8], at: usize) -> u16 {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    u16::from_be_bytes([byte(at), byte(at + 1)])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(short(bytes, at)) << 16 | u32::from(short(bytes, at + 2))
}

/// The first message and its length; none if it is not all there yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, RfbError> {
    let Some(kind) = bytes.first().copied() else {
        return Ok(None);
    };
    let length = match kind {
        0 => 20,
        2 => 4,
        3 => 10,
        4 | 6 => 8,
        5 => 6,
        255 => 12,
        _ => return Err(RfbError::Message(kind)),
    };
    let Some(head) = bytes.get(..length) else {
        return Ok(None);
    };
    let message = match kind {
        0 => Message::Format(Format::parse(&head[4..]).ok_or(RfbError::Format)?),
        2 => return encodings(bytes, usize::from(short(head, 2))),
        3 => Message::Update {
            incremental: head[1] != 0,
            x: short(head, 2),
            y: short(head, 4),
            width: short(head, 6),
            height: short(head, 8),
        },
        4 => Message::Key {
            down: head[1] != 0,
            keysym: long(head, 4),
        },
        5 => Message::Pointer {
            buttons: head[1],
            x: short(head, 2),
            y: short(head, 4),
        },
        6 => {
            let length = long(head, 4);
            if length > MAX_TEXT {
                return Err(RfbError::Length);
            }
            Message::Text(length)
        }
        // The one submessage that was offered.
        _ if head[1] == 0 => Message::Scancode {
            down: short(head, 2) != 0,
            keysym: long(head, 4),
            code: long(head, 8),
        },
        _ => return Err(RfbError::Message(kind)),
    };
    Ok(Some((message, length)))
}

fn encodings(bytes: &[u8], count: usize) -> Result<Option<(Message, usize)>, RfbError> {
    if count > MAX_ENCODINGS {
        return Err(RfbError::Length);
    }
    let length = 4 + 4 * count;
    let Some(list) = bytes.get(4..length) else {
        return Ok(None);
    };
    let numbers = list.chunks_exact(4);
    let numbers = numbers
        .map(|number| long(number, 0).cast_signed())
        .collect();
    Ok(Some((Message::Encodings(numbers), length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_read_as_the_rfc_writes_them() {
        let read = |bytes: &[u8]| parse(bytes).unwrap().unwrap();
        assert_eq!(
            read(&[3, 1, 0, 1, 0, 2, 0, 3, 1, 4, 99]),
            (
                Message::Update {
                    incremental: true,
                    x: 1,
                    y: 2,
                    width: 3,
                    height: 0x104,
                },
                10
            )
        );
        assert_eq!(
            read(&[2, 0, 0, 2, 0, 0, 0, 16, 255, 255, 255, 33]),
            (Message::Encodings(vec![16, -223]), 12)
        );
        let keysym = 0xff0d;
        assert_eq!(
            read(&[4, 1, 0, 0, 0, 0, 0xff, 0x0d]),
            (Message::Key { down: true, keysym }, 8)
        );
        let (buttons, x, y) = (5, 0x102, 3);
        assert_eq!(
            read(&[5, 5, 1, 2, 0, 3]),
            (Message::Pointer { buttons, x, y }, 6)
        );
        assert_eq!(
            read(&[255, 0, 0, 1, 0, 0, 0xff, 0x0d, 0, 0, 0, 0x1c]),
            (
                Message::Scancode {
                    down: true,
                    keysym,
                    code: 0x1c
                },
                12
            )
        );
        assert_eq!(read(&[6, 0, 0, 0, 0, 0, 0, 5]), (Message::Text(5), 8));
    }

    #[test]
    fn what_is_unknown_or_endless_is_refused() {
        assert_eq!(parse(&[7]), Err(RfbError::Message(7)));
        assert_eq!(parse(&[8]), Err(RfbError::Message(8)));
        // Sound, which was not offered.
        assert!(parse(&[255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert_eq!(parse(&[2, 0, 255, 255]), Err(RfbError::Length));
        assert_eq!(
            parse(&[6, 0, 0, 0, 255, 255, 255, 255]),
            Err(RfbError::Length)
        );
        assert_eq!(parse(&[0; 20]), Err(RfbError::Format));
    }

    proptest! {
        /// A message is never longer than what was there, and a part of it is no message.
        #[test]
        fn any_bytes_are_a_message_an_error_or_too_few(
            kind in prop_oneof![0_u8..9, Just(255)],
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [&[kind], rest.as_slice()].concat();
            if let Ok(Some((message, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(parse(&bytes[..length]), Ok(Some((message, length))));
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(None));
            }
        }
    }
}
