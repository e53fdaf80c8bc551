//! The indices of one direction and when to ring: plain numbers, no memory, no system calls.
//!
//! An index counts bytes since the ring was made and never goes back. What lies in the ring is
//! between the consumer's index and the producer's. Each end believes its own index, which it
//! keeps to itself; the peer's it hears once, bounds it, and remembers what it heard.

use sekisho_framelink::{HEADER_LEN, MAX_MESSAGE, MIN_FRAME};

/// Records start cache lines, so that two cores do not fight over one.
pub(super) const LINE: usize = 64;

/// From a record's start to its message. The frame then starts a line, as it does in a
/// [`FrameArena`](sekisho_framelink::FrameArena), which keeps the copy between them fast.
pub(super) const LEAD: usize = LINE - HEADER_LEN;

/// What a peer did that no healthy one does. Nothing can be read after it, so the link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its index went back, past ours, further than the ring is long, or into a record.
    #[error("the peer's index is out of range")]
    Index,
    /// A record of a length that no message has, or that ends behind the producer's index.
    #[error("the peer's record has no possible length")]
    Length,
    /// A whole ring of messages that break the rules, faster than they are dropped.
    #[error("the peer floods the ring with messages that break the rules")]
    Flood,
}

/// Bytes that a message of `len` bytes takes in the ring.
pub(super) fn record(len: usize) -> u64 {
    (LEAD + len).next_multiple_of(LINE) as u64
}

/// A number of bytes that is within the ring.
#[expect(clippy::cast_possible_truncation, reason = "64-bit processors only")]
pub(super) fn offset(index: u64, capacity: u64) -> usize {
    (index % capacity) as usize
}

/// The producer's view of its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Producer {
    capacity: u64,
    head: u64,
    /// As last heard.
    tail: u64,
}

impl Producer {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            head: 0,
            tail: 0,
        }
    }

    /// Where the next record will start: what is published.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Takes the consumer's index.
    pub(super) fn hear(&mut self, tail: u64) -> Result<(), Broken> {
        if !(self.tail..=self.head).contains(&tail) || !tail.is_multiple_of(LINE as u64) {
            return Err(Broken::Index);
        }
        self.tail = tail;
        Ok(())
    }

    /// Room for `record` bytes, if there is, and where it starts.
    pub(super) fn push(&mut self, record: u64) -> Option<u64> {
        if self.capacity - (self.head - self.tail) < record {
            return None;
        }
        let start = self.head;
        self.head += record;
        Some(start)
    }

    /// The consumer's index from which on the producer wants to be woken: when half of the ring is
    /// read, so that it is not woken for each record.
    pub(super) fn want(&self) -> u64 {
        self.tail + self.capacity / 2
    }
}

/// The consumer's view of its peer's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Consumer {
    capacity: u64,
    tail: u64,
    /// As last heard.
    head: u64,
}

impl Consumer {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            tail: 0,
            head: 0,
        }
    }

    /// Where the next record starts: what is published.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether nothing is left of what was heard.
    pub(super) fn is_drained(&self) -> bool {
        self.head == self.tail
    }

    /// Takes the producer's index.
    pub(super) fn hear(&mut self, head: u64) -> Result<(), Broken> {
        let longest = self.tail.saturating_add(self.capacity);
        if !(self.head..=longest).contains(&head) || !head.is_multiple_of(LINE as u64) {
            return Err(Broken::Index);
        }
        self.head = head;
        Ok(())
    }

    /// Goes past the next record, whose length field said `len`, and gives the message's length.
    pub(super) fn take(&mut self, len: u32) -> Result<usize, Broken> {
        let len = usize::try_from(len).map_err(|_| Broken::Length)?;
        if !(HEADER_LEN + MIN_FRAME..=MAX_MESSAGE).contains(&len) {
            return Err(Broken::Length);
        }
        self.pass(record(len))?;
        Ok(len)
    }

    /// Goes past `record` bytes, if so many were heard of.
    pub(super) fn pass(&mut self, record: u64) -> Result<(), Broken> {
        if record > self.head - self.tail {
            return Err(Broken::Length);
        }
        self.tail += record;
        Ok(())
    }

    /// The producer's index from which on the consumer wants to be woken: at the next record.
    pub(super) fn want(&self) -> u64 {
        self.tail + 1
    }
}

/// When to ring a peer that may sleep.
///
/// A sleeper writes down from which index on it wants to be woken (0: it is awake). As indices
/// only grow, no two sleeps want the same, and each is rung for once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Bell {
    rung: u64,
}

impl Bell {
    /// Whether the peer, which wants what `want` says, is to be rung now that `index` is published.
    pub(super) fn is_due(&mut self, want: u64, index: u64) -> bool {
        let due = want != 0 && want != self.rung && index >= want;
        if due {
            self.rung = want;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Numbers near those that mean something, and any.
    fn hostile() -> impl Strategy<Value = u64> {
        prop_oneof![
            (0..40_u64).prop_map(|lines| lines * LINE as u64),
            0..3000_u64,
            Just(u64::MAX),
            any::<u64>()
        ]
    }

    proptest! {
        /// Whatever the peer says, what is read lies between the indices, and those within a ring.
        #[test]
        fn a_consumer_never_leaves_its_ring(moves in vec((any::<bool>(), hostile()), 0..60)) {
            const CAPACITY: u64 = 1024;
            let mut consumer = Consumer::new(CAPACITY);
            for (hears, said) in moves {
                let before = consumer;
                let outcome = if hears {
                    consumer.hear(said)
                } else {
                    consumer.take(said.to_le_bytes()[0].into()).map(drop)
                };
                if outcome.is_err() {
                    prop_assert_eq!(consumer, before);
                }
                prop_assert!(consumer.tail >= before.tail && consumer.head >= before.head);
                prop_assert!(consumer.tail <= consumer.head);
                prop_assert!(consumer.head - consumer.tail <= CAPACITY);
                prop_assert!(consumer.tail.is_multiple_of(LINE as u64));
            }
        }

        /// Whatever the peer says it has read, nothing is written over what it has not.
        #[test]
        fn a_producer_never_writes_over_what_is_unread(
            moves in vec((any::<bool>(), hostile(), 26..600_usize), 0..60),
        ) {
            const CAPACITY: u64 = 1024;
            let mut producer = Producer::new(CAPACITY);
            let mut read = 0;
            for (hears, said, len) in moves {
                if hears {
                    if producer.hear(said).is_ok() {
                        prop_assert!(said >= read && said <= producer.head);
                        read = said;
                    }
                } else if let Some(start) = producer.push(record(len)) {
                    prop_assert!(start + record(len) - read <= CAPACITY);
                }
            }
        }

        /// Nobody is rung twice for one sleep, nor before what it waits for is there.
        #[test]
        fn a_bell_rings_once_and_not_too_early(publications in vec(0..200_u64, 1..40), want in 1..4000_u64) {
            let mut bell = Bell::default();
            let mut index = 0;
            let mut rung = 0;
            for step in publications {
                index += step;
                if bell.is_due(want, index) {
                    rung += 1;
                    prop_assert!(index >= want);
                }
            }
            prop_assert_eq!(rung, u32::from(index >= want));
        }
    }
}
