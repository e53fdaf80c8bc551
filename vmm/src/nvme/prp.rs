//! Physical region pages: where in guest memory a command's data is (NVMe, section 4.3).

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use super::command::Status;
use crate::virtio::GuestRam;

/// The only page size (`CC.MPS` = 0).
pub(super) const PAGE: u64 = 4096;
/// Most bytes of one command: `MDTS` 9, which is 2 MiB. Windows asks for at most as much.
pub(super) const MAX_TRANSFER: u64 = PAGE << MDTS;
/// Maximum Data Transfer Size, a power of two of pages.
pub(super) const MDTS: u8 = 9;
const ENTRY: u64 = 8;

/// Reads where a command's data is: made once and filled again for each command.
#[derive(Debug, Default)]
pub(super) struct Regions {
    spans: Vec<(GuestAddress, usize)>,
    list: Vec<u8>,
}

impl Regions {
    /// The ranges that `prp1` and `prp2` name for `length` bytes (at most [`MAX_TRANSFER`]), all of
    /// them inside guest memory.
    pub(super) fn read(
        &mut self,
        ram: &GuestRam,
        (prp1, prp2): (u64, u64),
        length: u64,
    ) -> Result<&[(GuestAddress, usize)], Status> {
        self.spans.clear();
        if length > MAX_TRANSFER {
            return Err(Status::INVALID_FIELD);
        }
        if !prp1.is_multiple_of(4) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let first = length.min(PAGE - prp1 % PAGE);
        self.add(ram, prp1, first)?;
        let mut left = length - first;
        if left > 0 && left <= PAGE {
            self.add_page(ram, prp2, left)?;
        } else if left > 0 {
            let mut at = prp2;
            while left > 0 {
                (at, left) = self.walk(ram, at, left)?;
            }
        }
        Ok(&self.spans)
    }

    /// What was read last.
    pub(super) fn spans(&self) -> impl Iterator<Item = (GuestAddress, usize)> {
        self.spans.iter().copied()
    }

    /// Follows the list at `at` to the end of its page; gives where it goes on and what is left then.
    fn walk(&mut self, ram: &GuestRam, at: u64, mut left: u64) -> Result<(u64, u64), Status> {
        if !at.is_multiple_of(ENTRY) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let room = (PAGE - at % PAGE) / ENTRY;
        let wanted = left.div_ceil(PAGE);
        // The last entry of a page leads to the next list where more entries are wanted.
        let chained = wanted > room;
        let count = wanted.min(room);
        let mut list = std::mem::take(&mut self.list);
        list.resize(usize::try_from(count * ENTRY).unwrap_or(0), 0);
        let read = ram.read_slice(&mut list, GuestAddress(at));
        let mut entries = list
            .as_chunks::<8>()
            .0
            .iter()
            .map(|entry| u64::from_le_bytes(*entry));
        let result = read.map_err(|_| Status::DATA_TRANSFER).and_then(|()| {
            let data = usize::try_from(count - u64::from(chained)).unwrap_or(0);
            for page in entries.by_ref().take(data) {
                let part = left.min(PAGE);
                self.add_page(ram, page, part)?;
                left -= part;
            }
            Ok((entries.next().unwrap_or(0), left))
        });
        self.list = list;
        let (next, left) = result?;
        // Only the first list may begin inside a page; so every other one brings the transfer on.
        if left > 0 && !next.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        Ok((next, left))
    }

    fn add_page(&mut self, ram: &GuestRam, page: u64, length: u64) -> Result<(), Status> {
        if !page.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        self.add(ram, page, length)
    }

    /// Adds a range; neighbours become one.
    fn add(&mut self, ram: &GuestRam, start: u64, length: u64) -> Result<(), Status> {
        let length = usize::try_from(length).map_err(|_| Status::DATA_TRANSFER)?;
        if !ram.check_range(GuestAddress(start), length) {
            return Err(Status::DATA_TRANSFER);
        }
        match self.spans.last_mut() {
            Some((last, size)) if last.0 + *size as u64 == start => *size += length,
            _ => self.spans.push((GuestAddress(start), length)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ram: &GuestRam, prps: (u64, u64), length: u64) -> Result<Vec<(u64, usize)>, Status> {
        let mut regions = Regions::default();
        let spans = regions.read(ram, prps, length)?;
        Ok(spans.iter().map(|(at, size)| (at.0, *size)).collect())
    }

    fn ram() -> GuestRam {
        GuestRam::from_ranges(&[(GuestAddress(0), 0x80_0000)]).unwrap()
    }

    fn list(ram: &GuestRam, at: u64, entries: &[u64]) {
        for (entry, at) in entries.iter().zip((at..).step_by(8)) {
            ram.write_obj(*entry, GuestAddress(at)).unwrap();
        }
    }

    #[test]
    fn one_page_two_pages_and_a_list() {
        let ram = ram();
        assert_eq!(spans(&ram, (0x1200, 0), 512), Ok(vec![(0x1200, 512)]));
        let two = spans(&ram, (0x1e00, 0x9000), 4096);
        assert_eq!(two, Ok(vec![(0x1e00, 512), (0x9000, 3584)]));
        assert_eq!(
            spans(&ram, (0x1000, 0x2000), 8192),
            Ok(vec![(0x1000, 8192)])
        );
        list(&ram, 0x3008, &[0x8000, 0xa000, 0xb000]);
        let many = spans(&ram, (0x1800, 0x3008), 0x800 + 3 * 0x1000);
        let expected = vec![(0x1800, 0x800), (0x8000, 0x1000), (0xa000, 0x2000)];
        assert_eq!(many, Ok(expected));
    }

    #[test]
    fn a_list_goes_on_in_another_page() {
        let ram = ram();
        list(&ram, 0x3ff0, &[0x8000, 0x5000]);
        list(&ram, 0x5000, &[0xa000, 0xc000]);
        let many = spans(&ram, (0x1000, 0x3ff0), 4 * 0x1000);
        let pages = [0x1000, 0x8000, 0xa000, 0xc000].map(|at| (at, 0x1000));
        assert_eq!(many, Ok(pages.to_vec()));
        // Exactly to the end of the page there is no other list.
        list(&ram, 0x3ff0, &[0x8000, 0xe000]);
        let exact = spans(&ram, (0x1000, 0x3ff0), 3 * 0x1000);
        let pages = [0x1000, 0x8000, 0xe000].map(|at| (at, 0x1000));
        assert_eq!(exact, Ok(pages.to_vec()));
    }

    #[test]
    fn crooked_addresses_and_lists_without_end_are_refused() {
        let ram = ram();
        list(&ram, 0x3000, &[0x8000, 0xa004, 0x90_0000]);
        list(&ram, 0x6ff8, &[0x6ff8]);
        list(&ram, 0x4000, &[0x8000, 0x90_0000]);
        for (prps, length, status) in [
            ((0x1002, 0), 512, Status::INVALID_PRP_OFFSET),
            ((0x1000, 0x2004), 8192, Status::INVALID_PRP_OFFSET),
            ((0x1000, 0x3004), 0x4000, Status::INVALID_PRP_OFFSET),
            ((0x1000, 0x3000), 0x3000, Status::INVALID_PRP_OFFSET),
            ((0x1000, 0x4000), 0x3000, Status::DATA_TRANSFER),
            ((0x1000, 0x90_0000), 0x3000, Status::DATA_TRANSFER),
            ((!3, 0), 0x1000, Status::DATA_TRANSFER),
            ((0x1000, 0x6ff8), 0x4000, Status::INVALID_PRP_OFFSET),
            ((0, 0), MAX_TRANSFER + 512, Status::INVALID_FIELD),
        ] {
            assert_eq!(spans(&ram, prps, length), Err(status), "{prps:x?}");
        }
    }

    #[test]
    fn the_longest_transfer_with_the_worst_list() {
        let ram = ram();
        // Every second page, so that no two become one.
        let pages: Vec<u64> = (0..512).map(|index| 0x10_0000 + index * 0x2000).collect();
        list(&ram, 0x3ff8, &[0x5000]);
        list(&ram, 0x5000, &pages);
        let all = spans(&ram, (0x1ffc, 0x3ff8), MAX_TRANSFER).unwrap();
        assert_eq!(all.len(), 513);
        assert_eq!(all.iter().map(|(_, size)| size).sum::<usize>(), 2 << 20);
        // The kernel takes 1024.
        assert!(all.len() <= 1024);
    }
}
