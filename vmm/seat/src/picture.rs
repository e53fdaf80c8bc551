//! The guest's pictures, read out of the memory files that the VMM hands over.
//!
//! They are read with `pread` and never mapped: the kernel copies each byte once into memory that is
//! the seat's own, so that the guest, which draws at the same time, changes nothing that was looked
//! at, and a file that ends too early is an error and no signal.

use std::os::fd::OwnedFd;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use sekisho_seatlink::{CURSOR_SIDE, Rect, Scanout};
use thiserror::Error;

use crate::stamp::widen;

/// Bytes of a pixel.
const PIXEL: usize = 4;

/// Why a file holds no picture. The VMM that sent it is not spoken with any more.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PictureError {
    /// A pipe, a file of a file system, another process' secret: reading it could wait for ever.
    #[error("the picture's file is no memory file")]
    Kind,
    /// It could become shorter while it is shown.
    #[error("the picture's memory file is not sealed against shrinking")]
    Unsealed,
    /// The picture does not fit.
    #[error("the picture's memory file has {length} bytes, the picture ends at {end}")]
    Short {
        /// Bytes of the file.
        length: u64,
        /// Where the picture ends.
        end: u64,
    },
    /// The kernel.
    #[error("the picture cannot be read: {0}")]
    Read(#[from] Errno),
}

/// A picture that can be read.
#[derive(Debug)]
pub struct Source {
    file: OwnedFd,
    scanout: Scanout,
}

impl Source {
    /// The picture that lies in the file as `scanout` says.
    pub fn new(file: OwnedFd, scanout: Scanout) -> Result<Self, PictureError> {
        check(&file, scanout.end())?;
        Ok(Self { file, scanout })
    }

    /// Where it lies.
    pub fn scanout(&self) -> Scanout {
        self.scanout
    }

    /// Reads `into.len()` pixels of a line, from column `x` on, by way of `bytes`.
    pub fn read(
        &self,
        x: u32,
        y: u32,
        into: &mut [u32],
        bytes: &mut Vec<u8>,
    ) -> Result<(), PictureError> {
        let line = u64::from(y) * u64::from(self.scanout.stride());
        let start = u64::from(self.scanout.offset()) + line + u64::from(x) * 4;
        bytes.resize(into.len() * PIXEL, 0);
        read_exactly(&self.file, bytes, start)?;
        for (pixel, bytes) in into.iter_mut().zip(bytes.chunks_exact(PIXEL)) {
            *pixel = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        }
        Ok(())
    }
}

/// The pointer's picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    hot: (u32, u32),
    /// ARGB8888, not premultiplied.
    pixels: Vec<u32>,
}

impl Shape {
    /// Copies it out of its file.
    pub fn new(file: &OwnedFd, hot: (u32, u32)) -> Result<Self, PictureError> {
        let mut bytes = vec![0; widen(CURSOR_SIDE) * widen(CURSOR_SIDE) * PIXEL];
        check(file, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        read_exactly(file, &mut bytes, 0)?;
        let pixels = bytes.chunks_exact(PIXEL);
        let pixels = pixels
            .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        Ok(Self { hot, pixels })
    }

    /// What it covers of the guest's picture when its point is there; it may reach over the right
    /// and lower edge.
    pub fn covers(&self, at: (u32, u32)) -> Rect {
        let cut = |at: u32, hot: u32| (at.saturating_sub(hot), hot.saturating_sub(at));
        let ((x, left), (y, top)) = (cut(at.0, self.hot.0), cut(at.1, self.hot.1));
        Rect {
            x,
            y,
            width: CURSOR_SIDE - left,
            height: CURSOR_SIDE - top,
        }
    }

    /// What becomes of the pixel of the guest's picture at `x`, `y`.
    pub fn over(&self, at: (u32, u32), (x, y): (u32, u32), pixel: u32) -> u32 {
        let place = |here: u32, at: u32, hot: u32| {
            let place = i64::from(here) - i64::from(at) + i64::from(hot);
            usize::try_from(place)
                .ok()
                .filter(|place| *place < widen(CURSOR_SIDE))
        };
        let place = place(x, at.0, self.hot.0).zip(place(y, at.1, self.hot.1));
        let ink = place.and_then(|(x, y)| self.pixels.get(y * widen(CURSOR_SIDE) + x));
        let [blue, green, red, alpha] = ink.copied().unwrap_or(0).to_le_bytes();
        let [below_blue, below_green, below_red, _] = pixel.to_le_bytes();
        let mix = |ink: u8, below: u8| {
            let alpha = u32::from(alpha);
            let sum = u32::from(ink) * alpha + u32::from(below) * (255 - alpha);
            u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
        };
        u32::from_le_bytes([
            mix(blue, below_blue),
            mix(green, below_green),
            mix(red, below_red),
            0,
        ])
    }
}

/// A memory file that can never have fewer than `end` bytes.
fn check(file: &OwnedFd, end: u64) -> Result<(), PictureError> {
    // Only memory files have seals; everything else answers with an error.
    let seals = fcntl_get_seals(file).map_err(|_| PictureError::Kind)?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(PictureError::Unsealed);
    }
    let length = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    if length < end {
        return Err(PictureError::Short { length, end });
    }
    Ok(())
}

fn read_exactly(file: &OwnedFd, mut into: &mut [u8], mut at: u64) -> Result<(), PictureError> {
    while !into.is_empty() {
        match rustix::io::pread(file, &mut *into, at) {
            // It cannot become shorter; but nothing waits here for a kernel that says so.
            Ok(0) => return Err(Errno::IO.into()),
            Ok(count) => {
                into = into.split_at_mut(count.min(into.len())).1;
                at += u64::try_from(count).unwrap_or(0);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
    use sekisho_seatlink::Mode;

    use super::*;

    pub(crate) fn memory(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("picture", flags).unwrap();
        rustix::io::pwrite(&file, bytes, 0).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    /// A sealed file with these pixels, line after line.
    pub(crate) fn pixels(pixels: &[u32]) -> OwnedFd {
        let bytes: Vec<u8> = pixels
            .iter()
            .flat_map(|pixel| pixel.to_le_bytes())
            .collect();
        memory(&bytes, SealFlags::SHRINK)
    }

    pub(crate) fn scanout(width: u32, height: u32) -> Scanout {
        Scanout::new(Mode::new(width, height).unwrap(), width * 4, 0).unwrap()
    }

    #[test]
    fn a_file_that_could_shrink_or_is_too_short_or_no_memory_is_refused() {
        let open = |file| Source::new(file, scanout(4, 4)).map(|_| ());
        assert_eq!(open(pixels(&[0; 16])), Ok(()));
        assert_eq!(
            open(memory(&[0; 64], SealFlags::GROW)),
            Err(PictureError::Unsealed)
        );
        let short = PictureError::Short {
            length: 60,
            end: 64,
        };
        assert_eq!(open(pixels(&[0; 15])), Err(short));
        // The pipe has no end, the file could be one of a file system that answers never.
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(open(read), Err(PictureError::Kind));
        let file = tempfile::tempfile_in("/").unwrap();
        file.set_len(64).unwrap();
        assert_eq!(open(file.into()), Err(PictureError::Kind));
        let cursor = |file| Shape::new(&file, (0, 0)).map(|_| ());
        assert_eq!(cursor(pixels(&[0; 64 * 64])), Ok(()));
        assert!(cursor(pixels(&[0; 64 * 64 - 1])).is_err());
    }

    #[test]
    fn a_sealed_file_stays_readable_whatever_its_owner_does() {
        let file = pixels(&[0x0011_2233; 16]);
        let owner = rustix::io::dup(&file).unwrap();
        let source = Source::new(file, scanout(4, 4)).unwrap();
        assert_eq!(ftruncate(&owner, 0), Err(Errno::PERM));
        // A hole reads as black.
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&owner, punch, 32, 32).unwrap();
        let (mut line, mut bytes) = ([1; 4], Vec::new());
        source.read(0, 0, &mut line, &mut bytes).unwrap();
        assert_eq!(line, [0x0011_2233; 4]);
        source.read(0, 3, &mut line, &mut bytes).unwrap();
        assert_eq!(line, [0; 4]);
    }

    #[test]
    fn lines_are_found_by_offset_and_stride() {
        let file = pixels(&(0..64).collect::<Vec<u32>>());
        let mode = Mode::new(3, 4).unwrap();
        let source = Source::new(file, Scanout::new(mode, 40, 8).unwrap()).unwrap();
        let mut line = [0; 2];
        source.read(1, 2, &mut line, &mut Vec::new()).unwrap();
        // Two for the offset, twice ten for the lines, one for the column.
        assert_eq!(line, [23, 24]);
    }

    #[test]
    fn the_pointer_is_laid_over_by_its_alpha_and_cut_at_the_edges() {
        let mut picture = vec![0; 64 * 64];
        picture[0] = 0xffff_0000;
        picture[64] = 0x8000_00ff;
        let shape = Shape::new(&pixels(&picture), (0, 0)).unwrap();
        assert_eq!(shape.over((10, 10), (10, 10), 0x12_3456), 0xff_0000);
        assert_eq!(shape.over((10, 10), (10, 11), 0xff_0000), 0x7f_0080);
        for untouched in [(9, 10), (11, 10), (74, 10), (10, 9)] {
            assert_eq!(shape.over((10, 10), untouched, 0x12_3456), 0x12_3456);
        }
        let shape = Shape {
            hot: (5, 63),
            ..shape
        };
        let (x, y) = (0, 0);
        assert_eq!(
            shape.covers((2, 3)),
            Rect {
                x,
                y,
                width: 61,
                height: 4
            }
        );
        assert_eq!(shape.covers((u32::MAX, 63)).x, u32::MAX - 5);
    }
}
