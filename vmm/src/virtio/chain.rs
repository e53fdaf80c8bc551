//! One descriptor chain, read once out of guest memory and checked.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};

use super::{DriverFault, GuestRam};

/// A buffer of a chain: a range that lies inside guest memory and is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// The buffers of one request. Made once and filled again for each request, so that serving a
/// queue allocates nothing.
///
/// The *addresses* were read once and hold; the *bytes* behind them may change at any time, so
/// what is checked must first be copied out.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Piece>,
    writable: Vec<Piece>,
}

impl Chain {
    /// Index of the first descriptor, for the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Buffers that the device may read, in order.
    pub fn readable(&self) -> &[Piece] {
        &self.readable
    }

    /// Buffers that the device may write, in order.
    pub fn writable(&self) -> &[Piece] {
        &self.writable
    }

    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|piece| u64::from(piece.len)).sum()
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|piece| u64::from(piece.len)).sum()
    }

    /// Copies readable bytes from `offset` on into `data`; returns how many there were.
    pub fn read_at(&self, ram: &GuestRam, offset: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        for (address, len) in spans(&self.readable, offset, data.len()) {
            let Some(part) = data.get_mut(done..done + len) else {
                break;
            };
            if ram.read_slice(part, address).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Copies `data` into writable bytes from `offset` on; returns how many there was room for.
    pub fn write_at(&self, ram: &GuestRam, offset: u64, data: &[u8]) -> usize {
        let mut done = 0;
        for (address, len) in spans(&self.writable, offset, data.len()) {
            let Some(part) = data.get(done..done + len) else {
                break;
            };
            if ram.write_slice(part, address).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Reads all descriptors of `chain`, at most `limit` of them (the queue's size: virtio 1.2,
    /// section 2.7.5.3.1, allows no longer chain, not with an indirect table either).
    pub(super) fn fill(
        &mut self,
        ram: &GuestRam,
        chain: DescriptorChain<&GuestRam>,
        limit: u16,
    ) -> Result<(), DriverFault> {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        if self.head >= limit {
            return Err(DriverFault::Broken);
        }
        // The iterator ends early on a loop, a link past the table, an indirect table inside an
        // indirect one and a table outside memory: the last descriptor then still has a successor,
        // or there was none at all.
        let mut complete = false;
        for (count, descriptor) in chain.enumerate() {
            if count == usize::from(limit) {
                return Err(DriverFault::TooLong);
            }
            complete = !descriptor.has_next();
            let piece = Piece {
                address: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                self.writable.push(piece);
            } else if self.writable.is_empty() {
                self.readable.push(piece);
            } else {
                return Err(DriverFault::Direction);
            }
            if piece.len == 0 {
                // An empty buffer breaks no rule and says nothing.
                if descriptor.is_write_only() {
                    self.writable.pop();
                } else {
                    self.readable.pop();
                }
            } else if !inside(ram, piece) {
                return Err(DriverFault::Outside);
            }
        }
        if complete {
            Ok(())
        } else {
            Err(DriverFault::Broken)
        }
    }
}

fn inside(ram: &GuestRam, piece: Piece) -> bool {
    usize::try_from(piece.len).is_ok_and(|len| ram.check_range(piece.address, len))
}

/// The parts of `pieces` that hold `len` bytes from `offset` on.
pub(super) fn spans(
    pieces: &[Piece],
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    let mut skip = offset;
    let mut left = len;
    pieces.iter().filter_map(move |piece| {
        let length = u64::from(piece.len);
        if skip >= length {
            skip -= length;
            return None;
        }
        let start = std::mem::take(&mut skip);
        let part = usize::try_from(length - start)
            .unwrap_or(usize::MAX)
            .min(left);
        left -= part;
        // `check_range` has shown that the piece does not wrap around the address space.
        (part > 0).then(|| (GuestAddress(piece.address.0 + start), part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cut_pieces_at_offset_and_length() {
        let pieces = [(0x1000, 10), (0x2000, 20), (0x3000, 30)].map(|(address, len)| Piece {
            address: GuestAddress(address),
            len,
        });
        let cut = |offset, len| -> Vec<_> {
            spans(&pieces, offset, len)
                .map(|(address, len)| (address.0, len))
                .collect()
        };
        assert_eq!(cut(0, 5), [(0x1000, 5)]);
        assert_eq!(cut(4, 10), [(0x1004, 6), (0x2000, 4)]);
        assert_eq!(cut(10, 21), [(0x2000, 20), (0x3000, 1)]);
        assert_eq!(cut(59, 100), [(0x301d, 1)]);
        assert_eq!(cut(60, 1), []);
    }
}
