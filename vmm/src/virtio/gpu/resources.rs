//! The driver's pictures. All lie in one memory of fixed size, which bounds what a guest can make the
//! host keep, and which the seat has for reading already when one of them is shown.

use std::collections::BTreeMap;
use std::ops::Range;

use sekisho_seatlink::{Mode, Rect, Scanout};
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::protocol::Answer;
use crate::display::vram::Vram;
use crate::virtio::{GuestRam, Piece};

/// Pictures at once: a desktop has two or three and a pointer's.
const MAX_RESOURCES: usize = 64;
/// Pieces of guest memory behind all pictures together: two of 36 MiB in pages of their own. They cost the
/// host 16 bytes each.
const MAX_PIECES: usize = 2 * (36 << 20) / 4096;
/// Pictures begin on a page of their own, so that those who read one in pages read no other.
const ALIGN: u64 = 4096;
/// `VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM` and `VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM`.
const FORMATS: Range<u32> = 1..3;
const PIXEL: u64 = 4;

/// A picture.
pub(super) struct Resource {
    mode: Mode,
    /// Its first byte in the memory.
    start: u64,
    /// Where the driver draws it, in order.
    backing: Vec<Piece>,
}

impl Resource {
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    fn stride(&self) -> u64 {
        u64::from(self.mode.width()) * PIXEL
    }

    fn len(&self) -> u64 {
        self.stride() * u64::from(self.mode.height())
    }

    /// Whether the part lies in it.
    fn holds(&self, part: Rect) -> bool {
        part.within(self.mode) == Some(part)
    }

    /// The picture that a part of it makes.
    pub(super) fn scanout(&self, part: Rect) -> Option<Scanout> {
        if !self.holds(part) {
            return None;
        }
        let offset = self.start + u64::from(part.y) * self.stride() + u64::from(part.x) * PIXEL;
        let mode = Mode::new(part.width, part.height)?;
        let stride = u32::try_from(self.stride()).ok()?;
        Scanout::new(mode, stride, u32::try_from(offset).ok()?)
    }

    /// Copies a part out of what backs it, `offset` being where the part's first pixel lies there. Returns
    /// how many bytes were copied.
    pub(super) fn transfer(
        &self,
        ram: &GuestRam,
        memory: &Vram,
        part: Rect,
        offset: u64,
    ) -> Result<u64, Answer> {
        if !self.holds(part) {
            return Err(Answer::InvalidParameter);
        }
        let backed: u64 = self.backing.iter().map(|piece| u64::from(piece.len)).sum();
        let line = u64::from(part.width) * PIXEL;
        let last = u64::from(part.height - 1) * self.stride() + line;
        if offset.checked_add(last).is_none_or(|end| end > backed) {
            return Err(Answer::InvalidParameter);
        }
        let whole = part.x == 0 && part.width == self.mode.width();
        let (lines, line) = if whole {
            (1, last)
        } else {
            (u64::from(part.height), line)
        };
        let mut source = Source::new(&self.backing);
        let first = self.start + u64::from(part.y) * self.stride() + u64::from(part.x) * PIXEL;
        for index in 0..lines {
            let step = index * self.stride();
            source.copy(ram, offset + step, line, memory, first + step)?;
        }
        Ok(lines * line)
    }
}

/// A list of pieces that is read forwards.
struct Source<'a> {
    pieces: &'a [Piece],
    /// Bytes before them.
    before: u64,
}

impl<'a> Source<'a> {
    fn new(pieces: &'a [Piece]) -> Self {
        Self { pieces, before: 0 }
    }

    /// Copies `len` bytes from `offset` on, which is not before that of the last call.
    fn copy(
        &mut self,
        ram: &GuestRam,
        mut offset: u64,
        mut len: u64,
        memory: &Vram,
        mut to: u64,
    ) -> Result<(), Answer> {
        while len > 0 {
            let (piece, rest) = self.pieces.split_first().ok_or(Answer::InvalidParameter)?;
            let skip = offset - self.before;
            let left = u64::from(piece.len).saturating_sub(skip);
            if left == 0 {
                self.before += u64::from(piece.len);
                self.pieces = rest;
                continue;
            }
            let part = left.min(len);
            let address = GuestAddress(piece.address.0 + skip);
            let bytes = usize::try_from(part).map_err(|_| Answer::InvalidParameter)?;
            let mut at = to;
            for slice in ram.get_slices(address, bytes) {
                let slice = slice.map_err(|_| Answer::InvalidParameter)?;
                let target = memory.slice(at, slice.len());
                slice.copy_to_volatile_slice(target.ok_or(Answer::InvalidParameter)?);
                at += slice.len() as u64;
            }
            (offset, len, to) = (offset + part, len - part, to + part);
        }
        Ok(())
    }
}

/// The pictures by the driver's numbers.
pub(super) struct Resources {
    /// Bytes of the memory.
    size: u64,
    by_id: BTreeMap<u32, Resource>,
    pieces: usize,
}

impl Resources {
    /// None, in a memory of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            by_id: BTreeMap::new(),
            pieces: 0,
        }
    }

    pub(super) fn get(&self, id: u32) -> Result<&Resource, Answer> {
        self.by_id.get(&id).ok_or(Answer::InvalidResource)
    }

    /// Makes one; its place in the memory, which holds what was there before.
    pub(super) fn create(
        &mut self,
        id: u32,
        format: u32,
        (width, height): (u32, u32),
    ) -> Result<&Resource, Answer> {
        if id == 0 || self.by_id.contains_key(&id) {
            return Err(Answer::InvalidResource);
        }
        let mode = Mode::new(width, height).ok_or(Answer::InvalidParameter)?;
        if !FORMATS.contains(&format) {
            return Err(Answer::InvalidParameter);
        }
        let mut resource = Resource {
            mode,
            start: 0,
            backing: Vec::new(),
        };
        if self.by_id.len() >= MAX_RESOURCES {
            return Err(Answer::OutOfMemory);
        }
        resource.start = self.room(resource.len()).ok_or(Answer::OutOfMemory)?;
        Ok(self.by_id.entry(id).or_insert(resource))
    }

    /// The first gap of at least `len` bytes.
    fn room(&self, len: u64) -> Option<u64> {
        let mut taken: Vec<Range<u64>> = self.by_id.values().map(place).collect();
        taken.sort_by_key(|place| place.start);
        let mut start = 0;
        for place in taken {
            if place.start - start >= len {
                return Some(start);
            }
            start = place.end;
        }
        (self.size.checked_sub(start)? >= len).then_some(start)
    }

    pub(super) fn remove(&mut self, id: u32) -> Result<(), Answer> {
        let gone = self.by_id.remove(&id).ok_or(Answer::InvalidResource)?;
        self.pieces -= gone.backing.len();
        Ok(())
    }

    /// Gives one its backing: `entries` pieces of guest memory.
    pub(super) fn attach(
        &mut self,
        ram: &GuestRam,
        id: u32,
        entries: u32,
        entry: impl Fn(u32) -> Option<(u64, u32)>,
    ) -> Result<(), Answer> {
        let resource = self.by_id.get_mut(&id).ok_or(Answer::InvalidResource)?;
        if !resource.backing.is_empty() {
            return Err(Answer::Unspecified);
        }
        let count = usize::try_from(entries).unwrap_or(usize::MAX);
        if count > MAX_PIECES - self.pieces {
            return Err(Answer::OutOfMemory);
        }
        let piece = |index| {
            let (address, len) = entry(index)?;
            let address = GuestAddress(address);
            let bytes = usize::try_from(len).ok()?;
            let inside = bytes > 0 && ram.check_range(address, bytes);
            inside.then_some(Piece { address, len })
        };
        let backing: Option<Vec<Piece>> = (0..entries).map(piece).collect();
        resource.backing = backing.ok_or(Answer::InvalidParameter)?;
        self.pieces += resource.backing.len();
        Ok(())
    }

    pub(super) fn detach(&mut self, id: u32) -> Result<(), Answer> {
        let resource = self.by_id.get_mut(&id).ok_or(Answer::InvalidResource)?;
        self.pieces -= std::mem::take(&mut resource.backing).len();
        Ok(())
    }
}

fn place(resource: &Resource) -> Range<u64> {
    let end = resource.start + resource.len();
    resource.start..end.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 << 20;

    #[test]
    fn pictures_share_the_memory_and_are_no_more_than_it() {
        let mut resources = Resources::new(SIZE);
        // 16 MiB each.
        for id in 1..=4 {
            let start = resources.create(id, 2, (2048, 2048)).unwrap().start();
            assert_eq!(start, u64::from(id - 1) << 24);
        }
        let more = resources.create(5, 2, (1, 1));
        assert_eq!(more.err(), Some(Answer::OutOfMemory));
        resources.remove(2).unwrap();
        assert_eq!(resources.create(5, 1, (64, 64)).unwrap().start(), 1 << 24);
        let small = resources.create(6, 1, (1, 1)).unwrap().start();
        assert_eq!(small, (1 << 24) + 64 * 64 * 4);
        assert_eq!(
            resources.create(7, 1, (2048, 2048)).err(),
            Some(Answer::OutOfMemory)
        );
        let mut resources = Resources::new(SIZE);
        for id in 1..=64 {
            resources.create(id, 1, (1, 1)).unwrap();
        }
        let more = resources.create(65, 1, (1, 1));
        assert_eq!(more.err(), Some(Answer::OutOfMemory));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let mut resources = Resources::new(SIZE);
        resources.create(1, 1, (10, 10)).unwrap();
        for (id, format, sides, answer) in [
            (0, 1, (10, 10), Answer::InvalidResource),
            (1, 1, (10, 10), Answer::InvalidResource),
            (2, 3, (10, 10), Answer::InvalidParameter),
            (2, 1, (0, 10), Answer::InvalidParameter),
            (2, 1, (10, u32::MAX), Answer::InvalidParameter),
            (2, 1, (8192, 8192), Answer::OutOfMemory),
        ] {
            assert_eq!(resources.create(id, format, sides).err(), Some(answer));
        }
        let ten = resources.get(1).unwrap();
        let part = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        assert!(ten.scanout(part(0, 0, 10, 10)).is_some());
        for outside in [
            part(0, 0, 11, 1),
            part(1, 0, 10, 1),
            part(u32::MAX, 0, 2, 1),
            part(0, 0, 0, 0),
        ] {
            assert_eq!(ten.scanout(outside), None);
        }
    }

    #[test]
    fn backing_is_bounded_and_copied_from_wherever_it_lies() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let memory = Vram::new(1 << 20).unwrap();
        let mut resources = Resources::new(1 << 20);
        resources.create(1, 1, (4, 2)).unwrap();
        let attach = |resources: &mut Resources, pieces: &[(u64, u32)]| {
            let entry = |index: u32| pieces.get(index as usize).copied();
            resources.attach(&ram, 1, u32::try_from(pieces.len()).unwrap(), entry)
        };
        for outside in [(1 << 20, 1), ((1 << 20) - 1, 2), (0, 0), (u64::MAX, 2)] {
            let refused = attach(&mut resources, &[(0, 8), outside]);
            assert_eq!(refused, Err(Answer::InvalidParameter));
        }
        let flood = resources.attach(&ram, 1, u32::MAX, |_| Some((0, 1)));
        assert_eq!(flood, Err(Answer::OutOfMemory));
        // 32 bytes in three pieces, out of order.
        let pieces = [(0x2000, 10), (0x1000, 4), (0x3000, 18)];
        attach(&mut resources, &pieces).unwrap();
        assert_eq!(attach(&mut resources, &pieces), Err(Answer::Unspecified));
        let mut value = 0_u8;
        for (address, len) in pieces {
            for at in 0..u64::from(len) {
                let byte = vm_memory::Bytes::write_obj(&ram, value, GuestAddress(address + at));
                byte.unwrap();
                value += 1;
            }
        }
        let picture = |memory: &Vram| {
            let mut bytes = [0; 32];
            memory.read(0, &mut bytes);
            bytes
        };
        let resource = resources.get(1).unwrap();
        // The two pixels in the middle of both lines.
        let part = Rect {
            x: 1,
            y: 0,
            width: 2,
            height: 2,
        };
        assert_eq!(resource.transfer(&ram, &memory, part, 4), Ok(16));
        let mut expected = [0; 32];
        for at in (4..12).chain(20..28) {
            expected[at] = u8::try_from(at).unwrap();
        }
        assert_eq!(picture(&memory), expected);
        let whole = Rect::whole(resource.mode());
        assert_eq!(resource.transfer(&ram, &memory, whole, 0), Ok(32));
        assert_eq!(
            picture(&memory),
            std::array::from_fn(|at| u8::try_from(at).unwrap())
        );
        // More than there is.
        for (part, offset) in [(whole, 1), (part, 9), (whole, u64::MAX)] {
            let refused = resource.transfer(&ram, &memory, part, offset);
            assert_eq!(refused, Err(Answer::InvalidParameter));
        }
        resources.detach(1).unwrap();
        let refused = resources.get(1).unwrap().transfer(&ram, &memory, whole, 0);
        assert_eq!(refused, Err(Answer::InvalidParameter));
        assert_eq!(resources.pieces, 0);
    }
}
