//! Lines out of a byte stream, bounded.

/// Longest line that is accepted. A message carries at most 32 KiB of bytes, 43.7 KiB as base64;
/// an argv may be long but not longer than this.
pub const MAX_LINE: usize = 128 * 1024;

/// Cuts a byte stream into lines. A line longer than [`MAX_LINE`] is dropped whole.
#[derive(Debug, Default)]
pub struct LineReader {
    line: Vec<u8>,
    overlong: bool,
}

impl LineReader {
    /// Takes bytes and calls `each` for every line that they complete, without its newline. Empty
    /// lines are skipped: they only separate.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (body, ended) = match piece.split_last() {
                Some((b'\n', body)) => (body, true),
                _ => (piece, false),
            };
            if self.line.len() + body.len() > MAX_LINE {
                self.overlong = true;
                self.line.clear();
            }
            if !self.overlong {
                self.line.extend_from_slice(body);
            }
            if ended {
                if !self.overlong && !self.line.is_empty() {
                    each(&self.line);
                }
                self.line.clear();
                self.overlong = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(reader: &mut LineReader, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        reader.push(bytes, |line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn an_overlong_line_is_dropped_and_the_next_one_arrives() {
        let mut reader = LineReader::default();
        let mut bytes = vec![b'x'; MAX_LINE + 1];
        bytes.extend_from_slice(b"\nnext\n");
        let mut found = Vec::new();
        for piece in bytes.chunks(1000) {
            found.extend(lines(&mut reader, piece));
        }
        assert_eq!(found, [b"next".to_vec()]);
    }

    proptest! {
        #[test]
        fn how_the_stream_is_cut_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            cut in 1usize..20,
        ) {
            let whole = lines(&mut LineReader::default(), &bytes);
            let mut reader = LineReader::default();
            let mut pieces = Vec::new();
            for piece in bytes.chunks(cut) {
                pieces.extend(lines(&mut reader, piece));
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
