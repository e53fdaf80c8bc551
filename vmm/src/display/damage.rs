//! From dirty pages to what of a picture has changed.

use sekisho_seatlink::{Rect, Scanout};

/// Bytes of a page, as KVM counts them.
pub const PAGE: u64 = 4096;
const PIXEL: u64 = 4;

/// A bit for each page of the memory, the first page lowest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages(Vec<u64>);

impl Pages {
    /// None dirty, of `bytes` of memory.
    pub fn new(bytes: u64) -> Self {
        let words = bytes.div_ceil(PAGE).div_ceil(64);
        Self(vec![0; usize::try_from(words).unwrap_or(0)])
    }

    /// Marks the pages of `length` bytes from `offset` on, as far as they are there.
    pub fn mark(&mut self, offset: u64, length: u64) {
        let Some(last) = length
            .checked_sub(1)
            .and_then(|rest| offset.checked_add(rest))
        else {
            return;
        };
        for page in offset / PAGE..=last / PAGE {
            let word = usize::try_from(page / 64).unwrap_or(usize::MAX);
            let Some(word) = self.0.get_mut(word) else {
                return;
            };
            *word |= 1 << (page % 64);
        }
    }

    /// Takes in other pages, by the same count.
    pub fn merge(&mut self, other: &[u64]) {
        for (word, more) in self.0.iter_mut().zip(other) {
            *word |= more;
        }
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// The dirty ones, by number.
    fn iter(&self) -> impl Iterator<Item = u64> {
        (0..).zip(&self.0).flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(index * 64 + u64::from(bit))
            })
        })
    }
}

/// The smallest part of the picture that covers every pixel on a dirty page; none if there is none.
pub fn damaged(pages: &Pages, scanout: Scanout) -> Option<Rect> {
    let parts = pages.iter().filter_map(|page| covered(page, scanout));
    parts.reduce(Rect::union)
}

/// What of the picture lies on a page.
fn covered(page: u64, scanout: Scanout) -> Option<Rect> {
    let stride = u64::from(scanout.stride());
    let width = u64::from(scanout.mode().width());
    let height = u64::from(scanout.mode().height());
    let origin = u64::from(scanout.offset());
    // Bytes of the picture, gaps behind its lines included.
    let end = ((page + 1) * PAGE).checked_sub(origin)?;
    let last = end.checked_sub(1)?;
    let first = (page * PAGE).saturating_sub(origin);
    let (top, mut bottom) = (first / stride, last / stride);
    if top >= height {
        return None;
    }
    let mut left = first % stride / PIXEL;
    let mut right = last % stride / PIXEL + 1;
    if bottom > top || bottom >= height {
        bottom = bottom.min(height - 1);
        (left, right) = (0, width);
    }
    // The whole of it in the gap behind a line.
    if left >= width {
        return None;
    }
    right = right.min(width);
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Some(Rect {
        x: number(left),
        y: number(top),
        width: number(right - left),
        height: number(bottom + 1 - top),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sekisho_seatlink::Mode;

    use super::*;

    fn scanout(width: u32, height: u32, stride: u32, offset: u32) -> Scanout {
        Scanout::new(Mode::new(width, height).unwrap(), stride, offset).unwrap()
    }

    fn after(writes: &[(u64, u64)], scanout: Scanout) -> Option<Rect> {
        let mut pages = Pages::new(16 << 20);
        for (offset, length) in writes {
            pages.mark(*offset, *length);
        }
        damaged(&pages, scanout)
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn a_page_is_its_part_of_a_line_or_the_lines_that_it_touches() {
        // Two pages a line.
        let picture = scanout(1600, 100, 8192, 0);
        assert_eq!(after(&[], picture), None);
        assert_eq!(after(&[(5, 1)], picture), Some(rect(0, 0, 1024, 1)));
        assert_eq!(
            after(&[(8192 + 4096, 1)], picture),
            Some(rect(1024, 1, 576, 1))
        );
        assert_eq!(after(&[(100 * 8192, 1)], picture), None);
        // A page is more than a line and begins within one.
        let picture = scanout(640, 480, 2560, 0);
        assert_eq!(after(&[(4096, 1)], picture), Some(rect(0, 1, 640, 3)));
        // The picture begins within the second page.
        let picture = scanout(64, 10, 256, 4096 + 1024);
        assert_eq!(after(&[(0, 4096)], picture), None);
        assert_eq!(after(&[(4096, 1)], picture), Some(rect(0, 0, 64, 10)));
        // Lines far from each other: what is between them does not matter.
        let picture = scanout(64, 10, 65536, 0);
        assert_eq!(after(&[(4096, 61440)], picture), None);
        assert_eq!(
            after(&[(65536, 1), (3 * 65536, 1)], picture),
            Some(rect(0, 1, 64, 3))
        );
    }

    #[test]
    fn marks_stay_in_the_memory() {
        let mut pages = Pages::new(PAGE);
        pages.mark(PAGE, u64::MAX - PAGE);
        pages.mark(u64::MAX, 2);
        pages.mark(0, 0);
        assert_eq!(
            pages.iter().next(),
            Some(1),
            "the rest of a word is nobody's"
        );
        assert_eq!(pages.0.len(), 1);
    }

    proptest! {
        /// Whatever is written, each pixel of it that is shown is told, and nothing outside the picture.
        #[test]
        fn every_changed_pixel_is_covered(
            width in 1_u32..3000,
            height in 1_u32..40,
            gap in prop_oneof![Just(0_u32), 1_u32..3000],
            offset in 0_u32..10_000,
            writes in prop::collection::vec((0_u64..600_000, 1_u64..9000), 1..4),
        ) {
            let stride = (width + gap) * 4;
            let picture = scanout(width, height, stride, offset * 4);
            let told = after(&writes, picture);
            if let Some(told) = told {
                prop_assert_eq!(told.within(picture.mode()), Some(told));
            }
            for (start, length) in writes {
                for byte in start..start + length {
                    let Some(place) = byte.checked_sub(u64::from(offset) * 4) else { continue };
                    let (x, y) = (place % u64::from(stride) / 4, place / u64::from(stride));
                    if x >= u64::from(width) || y >= u64::from(height) {
                        continue;
                    }
                    let told = told.expect("a pixel has changed");
                    prop_assert!((u64::from(told.x)..u64::from(told.x + told.width)).contains(&x));
                    prop_assert!((u64::from(told.y)..u64::from(told.y + told.height)).contains(&y));
                }
            }
        }
    }
}
