//! One `UDP_SEGMENT` batch: equal datagrams back to back, only the last may be shorter.

use super::Form;

/// Payload bytes of one batch. The kernel takes what fits one IPv4 UDP datagram: 65535 minus 28.
const CAPACITY: usize = 65_507;
/// `UDP_MAX_SEGMENTS` of Linux before 6.7; later kernels take 128.
const MAX_SEGMENTS: usize = 64;

/// A buffer that sealed datagrams are written into, to leave with one `sendmsg`.
#[derive(Debug)]
pub struct SegBatch {
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    closed: bool,
    form: Form,
    /// Bytes that are gone already.
    sent: usize,
}

impl Default for SegBatch {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(CAPACITY),
            segment: 0,
            count: 0,
            closed: false,
            form: Form::Sealed,
            sent: 0,
        }
    }
}

impl SegBatch {
    /// What the datagrams are.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Says what the first datagram, and so all others, will be. Only while there is none.
    pub fn begin(&mut self, form: Form) {
        debug_assert!(self.count == 0, "a batch is of one form");
        self.form = form;
    }

    /// Whether a datagram of `len` bytes may follow the ones that are in.
    pub const fn fits(&self, len: usize) -> bool {
        if self.count == 0 {
            return len <= CAPACITY;
        }
        !self.closed
            && self.sent == 0
            && len <= self.segment
            && self.count < MAX_SEGMENTS
            && self.bytes.len() + len <= CAPACITY
    }

    /// Whether nothing that is as long as the first datagram may follow.
    pub const fn is_closed(&self) -> bool {
        self.count > 0 && !self.fits(self.segment)
    }

    /// Appends one datagram. The caller asked [`fits`](Self::fits) first; what does not fit is
    /// dropped, as a full queue would.
    pub fn push(&mut self, datagram: &[u8]) {
        self.push_parts(datagram, &[]);
    }

    /// The same, for a datagram in two parts.
    pub fn push_parts(&mut self, head: &[u8], tail: &[u8]) {
        let len = head.len() + tail.len();
        if !self.fits(len) {
            debug_assert!(false, "pushed what does not fit");
            return;
        }
        if self.count == 0 {
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
        self.count += 1;
    }

    /// The datagrams that are not gone yet, back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first of them is gone.
    pub fn advance(&mut self) {
        let first = self.segment.min(self.bytes().len());
        self.sent += first;
        self.count -= usize::from(self.count > 0);
    }

    /// Length of each datagram but the last, which may be shorter.
    pub const fn segment(&self) -> usize {
        self.segment
    }

    /// Datagrams that are not gone yet.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets the datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.segment = 0;
        self.count = 0;
        self.closed = false;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_sent_again() {
        let mut batch = SegBatch::default();
        batch.begin(Form::Plain);
        for datagram in [&b"one"[..], b"two", b"3"] {
            batch.push(datagram);
        }
        batch.advance();
        assert_eq!((batch.bytes(), batch.count()), (&b"two3"[..], 2));
        assert!(
            !batch.fits(1),
            "what follows a half-sent batch waits for the next"
        );
        batch.advance();
        assert_eq!((batch.bytes(), batch.count()), (&b"3"[..], 1));
        batch.advance();
        assert!(batch.is_empty() && batch.bytes().is_empty());
        batch.clear();
        batch.begin(Form::Sealed);
        batch.push(b"more");
        assert_eq!(batch.bytes(), b"more");
    }
}
