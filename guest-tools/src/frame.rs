//! Messages cut out of a byte stream.
//!
//! A message is its length (4 bytes, big endian) and that many bytes of JSON. A *marker* of five
//! bytes 0xFF may stand between messages; it makes a receiver whole again that lost its place
//! because the other side was killed in the middle of a message, as qemu-ga's
//! `guest-sync-delimited` does. It always works: 0xFF occurs in no UTF-8 text, so in a body the
//! first byte of a marker ends the message; and a length field holds four bytes, so at least one
//! byte of a marker is left over for the body, or the length is out of bounds.

/// Longest message in bytes of JSON, from the protocol's description.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Makes a receiver whole again. Sent first on every connection.
pub const MARKER: [u8; 5] = [0xff; 5];

/// Puts a message behind its length.
///
/// # Errors
/// The body back, if it is longer than [`MAX_MESSAGE`].
pub fn encode(body: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
    match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_MESSAGE => Ok([&length.to_be_bytes()[..], &body].concat()),
        _ => Err(body),
    }
}

/// Something that came out of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The body of a message.
    Message(Vec<u8>),
    /// Bytes that were no message: a length out of bounds, or a message that a marker cut.
    /// Said once until the next marker.
    Garbage,
}

/// Cuts a stream into messages, however it arrives. Holds [`MAX_MESSAGE`] bytes at most.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the length field, with this many bytes of it.
    Length { bytes: [u8; 4], have: usize },
    /// In a message.
    Body { body: Vec<u8>, length: usize },
    /// The place is lost: nothing counts before the next 0xFF.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Length {
            bytes: [0; 4],
            have: 0,
        }
    }
}

impl Decoder {
    /// Takes bytes and calls `each` for what they complete.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece)) {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Length { have: 0, .. } if first == 0xff => bytes = rest,
                State::Length { bytes: field, have } => {
                    field[*have] = first;
                    *have += 1;
                    bytes = rest;
                    if *have == field.len() {
                        self.state = Self::after_length(*field, &mut each);
                    }
                }
                State::Body { body, length } => {
                    let wanted = (*length - body.len()).min(bytes.len());
                    let (part, rest) = bytes.split_at(wanted);
                    if let Some(marker) = part.iter().position(|byte| *byte == 0xff) {
                        each(Piece::Garbage);
                        bytes = &bytes[marker..];
                        self.state = State::default();
                        continue;
                    }
                    body.extend_from_slice(part);
                    bytes = rest;
                    if body.len() == *length {
                        each(Piece::Message(std::mem::take(body)));
                        self.state = State::default();
                    }
                }
                State::Lost => match bytes.iter().position(|byte| *byte == 0xff) {
                    Some(marker) => {
                        bytes = &bytes[marker..];
                        self.state = State::default();
                    }
                    None => return,
                },
            }
        }
    }

    fn after_length(field: [u8; 4], each: &mut impl FnMut(Piece)) -> State {
        if let Ok(length @ 1..=MAX_MESSAGE) = usize::try_from(u32::from_be_bytes(field)) {
            let body = Vec::new();
            return State::Body { body, length };
        }
        each(Piece::Garbage);
        State::Lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(decoder: &mut Decoder, bytes: &[u8], cut: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for part in bytes.chunks(cut) {
            decoder.push(part, |piece| pieces.push(piece));
        }
        pieces
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        "\\PC{1,80}".prop_map(String::into_bytes)
    }

    #[test]
    fn a_length_out_of_bounds_is_garbage_once_and_a_marker_heals() {
        let mut decoder = Decoder::default();
        let mut bytes = vec![0x7f; 1000];
        bytes.extend(MARKER);
        bytes.extend(encode(b"{}".to_vec()).expect("short"));
        assert_eq!(
            pieces(&mut decoder, &bytes, 7),
            [Piece::Garbage, Piece::Message(b"{}".to_vec())]
        );
        assert_eq!(pieces(&mut decoder, &[0, 0, 0, 0], 4), [Piece::Garbage]);
    }

    #[test]
    fn the_longest_message_passes_and_a_longer_one_is_not_encoded() {
        let frame = encode(vec![b'x'; MAX_MESSAGE]).expect("longest");
        let found = pieces(&mut Decoder::default(), &frame, 4096);
        assert_eq!(found, [Piece::Message(vec![b'x'; MAX_MESSAGE])]);
        assert!(encode(vec![b'x'; MAX_MESSAGE + 1]).is_err());
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            bodies in proptest::collection::vec(body(), 0..10),
            cut in 1usize..50,
        ) {
            let mut stream = MARKER.to_vec();
            for body in &bodies {
                stream.extend(encode(body.clone()).expect("short"));
            }
            let expected: Vec<_> = bodies.into_iter().map(Piece::Message).collect();
            prop_assert_eq!(pieces(&mut Decoder::default(), &stream, cut), expected);
        }

        /// Whatever was there before, and wherever a message was cut: after a marker all is well.
        #[test]
        fn a_marker_heals_everything(
            before in proptest::collection::vec(any::<u8>(), 0..200),
            cut_message in body(),
            keep in 0usize..84,
            after in body(),
            cut in 1usize..50,
        ) {
            let mut stream = before;
            stream.extend(encode(cut_message).expect("short").into_iter().take(keep));
            let mut decoder = Decoder::default();
            let _ = pieces(&mut decoder, &stream, cut);
            let mut healed = MARKER.to_vec();
            healed.extend(encode(after.clone()).expect("short"));
            let found = pieces(&mut decoder, &healed, cut);
            prop_assert_eq!(found.last(), Some(&Piece::Message(after)));
            prop_assert!(found.len() <= 2);
        }
    }
}
