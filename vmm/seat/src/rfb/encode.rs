//! Rectangles of pixels: raw (RFC 6143 §7.7.1) and ZRLE (§7.7.6).

use flate2::{Compress, Compression, FlushCompress, Status};
use sekisho_seatlink::Rect;

use super::pixel::Format;
use crate::frame::Frame;

/// Sides of a ZRLE tile.
const TILE: u32 = 64;
/// Colours of a packed palette.
const PALETTE: usize = 16;
/// Bytes beyond what is compressed, for a stream that does not get smaller.
const ROOM: usize = 1024;

/// All pixels of a part, one after the other.
pub(super) fn raw(frame: &Frame, part: Rect, format: Format, into: &mut Vec<u8>) {
    for y in part.y..part.y + part.height {
        for pixel in padded(frame, part, y) {
            format.write(pixel, into);
        }
    }
}

/// A line of a part; black where the frame has less.
fn padded(frame: &Frame, part: Rect, y: u32) -> impl Iterator<Item = u32> {
    let room = frame.screen().width().saturating_sub(part.x);
    let line = frame.line(y, part.x, part.width.min(room));
    let width = crate::stamp::widen(part.width);
    line.iter().copied().chain(std::iter::repeat(0)).take(width)
}

/// The viewer's one stream of ZRLE.
#[derive(Debug)]
pub(super) struct Zrle {
    stream: Compress,
    tiles: Vec<u8>,
}

impl Zrle {
    pub(super) fn new() -> Self {
        Self {
            stream: Compress::new(Compression::fast(), true),
            tiles: Vec::new(),
        }
    }

    /// A part as length and compressed tiles.
    pub(super) fn write(&mut self, frame: &Frame, part: Rect, format: Format, into: &mut Vec<u8>) {
        self.tiles.clear();
        let mut pixels = Vec::new();
        for y in (0..part.height).step_by(64) {
            for x in (0..part.width).step_by(64) {
                let tile = Rect {
                    x: part.x + x,
                    y: part.y + y,
                    width: TILE.min(part.width - x),
                    height: TILE.min(part.height - y),
                };
                pixels.clear();
                for y in tile.y..tile.y + tile.height {
                    pixels.extend(padded(frame, tile, y));
                }
                write_tile(&pixels, tile.width, format, &mut self.tiles);
            }
        }
        let start = into.len();
        into.extend_from_slice(&[0; 4]);
        self.deflate(into);
        let length = u32::try_from(into.len() - start - 4).unwrap_or(u32::MAX);
        into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// In one call with room for all of it: with less, the library needs a number of further calls
    /// that it does not tell.
    fn deflate(&mut self, into: &mut Vec<u8>) {
        // Stored blocks cost five bytes for each 31 KiB, and the flush at the end as many.
        into.reserve(self.tiles.len() + self.tiles.len() / 1024 + ROOM);
        let outcome = self
            .stream
            .compress_vec(&self.tiles, into, FlushCompress::Sync);
        debug_assert!(matches!(outcome, Ok(Status::Ok)));
    }
}

fn write_tile(pixels: &[u32], width: u32, format: Format, into: &mut Vec<u8>) {
    let mut palette: Vec<u32> = Vec::with_capacity(PALETTE);
    for pixel in pixels {
        if !palette.contains(pixel) {
            if palette.len() == PALETTE {
                palette.clear();
                break;
            }
            palette.push(*pixel);
        }
    }
    // 0 is raw, 1 a single colour, 2 to 16 a packed palette.
    into.push(u8::try_from(palette.len()).unwrap_or(0));
    for pixel in if palette.is_empty() { pixels } else { &palette } {
        format.write_compressed(*pixel, into);
    }
    let bits = match palette.len() {
        0 | 1 => return,
        2 => 1,
        3 | 4 => 2,
        _ => 4,
    };
    // Each line starts with a new byte.
    for line in pixels.chunks(crate::stamp::widen(width)) {
        let (mut byte, mut used) = (0_u8, 0);
        for pixel in line {
            let index = palette.iter().position(|colour| colour == pixel);
            byte = byte << bits | index.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
            used += bits;
            if used == 8 {
                into.push(byte);
                (byte, used) = (0, 0);
            }
        }
        if used > 0 {
            into.push(byte << (8 - used));
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    /// A tile by the RFC, read from the other side: only what the seat writes.
    fn read_tile(bytes: &mut &[u8], width: usize, height: usize) -> Vec<u32> {
        fn pixel(bytes: &mut &[u8]) -> u32 {
            let (front, rest) = bytes.split_at(3);
            *bytes = rest;
            u32::from_le_bytes([front[0], front[1], front[2], 0])
        }
        let (kind, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        let palette: Vec<u32> = (0..*kind).map(|_| pixel(bytes)).collect();
        match palette.len() {
            0 => (0..width * height).map(|_| pixel(bytes)).collect(),
            1 => vec![palette[0]; width * height],
            colours => {
                let bits = match colours {
                    2 => 1,
                    3..=4 => 2,
                    _ => 4,
                };
                let mut pixels = Vec::new();
                for _ in 0..height {
                    let (line, rest) = bytes.split_at((width * bits).div_ceil(8));
                    *bytes = rest;
                    pixels.extend((0..width).map(|x| {
                        let shift = 8 - bits - x * bits % 8;
                        let index = usize::from(line[x * bits / 8]) >> shift & ((1 << bits) - 1);
                        palette[index]
                    }));
                }
                pixels
            }
        }
    }

    proptest! {
        #[test]
        fn a_tile_is_read_as_it_was_written(
            colours in 1_u32..40,
            (width, height) in (1_usize..=64, 1_usize..=64),
            seed: u32,
        ) {
            let pixels: Vec<u32> = (0..width * height)
                .map(|at| (u32::try_from(at).unwrap().wrapping_mul(seed | 1) >> 7) % colours * 0x01_0203)
                .collect();
            let mut bytes = Vec::new();
            write_tile(&pixels, u32::try_from(width).unwrap(), Format::OWN, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read_tile(&mut rest, width, height), pixels);
            prop_assert!(rest.is_empty());
        }

        /// The stream goes on from one rectangle to the next, and each is complete by itself.
        #[test]
        fn the_stream_gives_each_rectangle_whole(sizes in prop::collection::vec(0_usize..200_000, 1..5), seed: u64) {
            let (mut zrle, mut inflate) = (Zrle::new(), Decompress::new(true));
            let mut state = seed | 1;
            for size in sizes {
                zrle.tiles = (0..size).map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    state.to_be_bytes()[0]
                }).collect();
                let mut out = Vec::new();
                zrle.deflate(&mut out);
                let mut back = Vec::with_capacity(size + 64);
                // What ends with the marker of a flush is complete (RFC 1951 §3.2.4: an empty block).
                prop_assert!(out.ends_with(&[0, 0, 255, 255]));
                let mut taken = 0;
                while taken < out.len() || back.len() < size {
                    let before = inflate.total_in();
                    inflate.decompress_vec(&out[taken..], &mut back, FlushDecompress::Sync).unwrap();
                    prop_assert!(inflate.total_in() > before || back.len() == size);
                    taken += usize::try_from(inflate.total_in() - before).unwrap();
                }
                let same = back.iter().zip(&zrle.tiles).take_while(|(a, b)| a == b).count();
                prop_assert_eq!((back.len(), same), (size, size));
            }
        }
    }
}
