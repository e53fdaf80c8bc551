//! One `UDP_SEGMENT` batch: equal datagrams back to back, only the last may be shorter.

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
}

impl Default for SegBatch {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(CAPACITY),
            segment: 0,
            count: 0,
            closed: false,
        }
    }
}

impl SegBatch {
    /// Whether a datagram of `len` bytes may follow the ones that are in.
    pub const fn fits(&self, len: usize) -> bool {
        if self.count == 0 {
            return len <= CAPACITY;
        }
        !self.closed
            && len <= self.segment
            && self.count < MAX_SEGMENTS
            && self.bytes.len() + len <= CAPACITY
    }

    /// Appends one datagram. The caller asked [`fits`](Self::fits) first; what does not fit is
    /// dropped, as a full queue would.
    pub fn push(&mut self, datagram: &[u8]) {
        if !self.fits(datagram.len()) {
            debug_assert!(false, "pushed what does not fit");
            return;
        }
        if self.count == 0 {
            self.segment = datagram.len();
        }
        self.closed = datagram.len() < self.segment;
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }

    /// All datagrams, back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Length of each datagram but the last, which may be shorter.
    pub const fn segment(&self) -> usize {
        self.segment
    }

    /// Datagrams in the batch.
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
    }
}
