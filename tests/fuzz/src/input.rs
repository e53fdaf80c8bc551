//! Takes an input apart from its front.

use sekisho_framelink::{Offloads, Rules};

/// What is left of an input. What lies past its end is zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let front = self.bytes(N);
        std::array::from_fn(|index| front.get(index).copied().unwrap_or(0))
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// What a peer may send: one byte of grants and the MTU.
    pub(crate) fn rules(&mut self) -> Rules {
        let grants = self.byte();
        Rules {
            offloads: Offloads {
                csum: grants & 1 != 0,
                tso4: grants & 2 != 0,
                tso6: grants & 4 != 0,
                uso: grants & 8 != 0,
            },
            mtu: self.short(),
        }
    }
}
