//! Writing values, always with the low byte first.

/// Values of a body, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    signature: String,
}

/// A value inside a dictionary of variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Bool(bool),
}

impl Writer {
    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of which types.
    pub(super) fn types(&self) -> &str {
        &self.signature
    }

    pub(super) fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// `u`, without a mention in the signature.
    pub(super) fn put_u32(&mut self, value: u32) {
        self.pad(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// `s` or `o`, likewise. All that is written here is our own, and short.
    pub(super) fn put_text(&mut self, text: &str) {
        self.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// `g`, likewise.
    pub(super) fn put_signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// A `s` argument.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.put_text(text);
        self
    }

    /// An `o` argument.
    pub(crate) fn path(mut self, path: &str) -> Self {
        self.signature.push('o');
        self.put_text(path);
        self
    }

    /// A `b` argument.
    pub(crate) fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        self.put_u32(u32::from(value));
        self
    }

    /// An `a{sv}` argument.
    pub(crate) fn dictionary(mut self, entries: &[(&str, Value<'_>)]) -> Self {
        self.signature.push_str("a{sv}");
        self.put_u32(0);
        let length_at = self.bytes.len() - 4;
        self.pad(8);
        let start = self.bytes.len();
        for (key, value) in entries {
            self.pad(8);
            self.put_text(key);
            match value {
                Value::Text(text) => {
                    self.put_signature("s");
                    self.put_text(text);
                }
                Value::Bool(value) => {
                    self.put_signature("b");
                    self.put_u32(u32::from(*value));
                }
            }
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }
}
