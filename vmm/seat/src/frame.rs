//! The seat's own copy of what is on the screen: the guest's picture or a notice, the pointer, and
//! the watermark over all of it. The guest never sees it.

use sekisho_seatlink::{Mode, Rect};

use crate::notice::{Notices, Reason};
use crate::picture::{PictureError, Shape, Source};
use crate::place::Place;
use crate::stamp::widen;
use crate::watermark::Marks;

/// What lies lowest.
#[derive(Debug)]
pub enum Base {
    /// A notice.
    Notice(Reason),
    /// The guest's picture.
    Picture(Source),
}

/// What is to be seen, from below.
#[derive(Debug)]
pub struct Scene {
    /// What lies lowest.
    pub base: Base,
    /// The guest's pointer and the place of its point in the guest's picture.
    pub pointer: Option<(Shape, (u32, u32))>,
    /// The notices.
    pub notices: Notices,
    /// The watermark.
    pub marks: Marks,
}

/// The pixels of a screen, XRGB8888.
#[derive(Debug)]
pub struct Frame {
    screen: Mode,
    pixels: Vec<u32>,
    /// One line of the guest's picture.
    line: Vec<u32>,
    bytes: Vec<u8>,
    columns: Vec<usize>,
}

impl Frame {
    /// A black screen.
    pub fn new(screen: Mode) -> Self {
        Self {
            screen,
            pixels: vec![0; widen(screen.width()) * widen(screen.height())],
            line: Vec::new(),
            bytes: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// Its size.
    pub fn screen(&self) -> Mode {
        self.screen
    }

    /// The pixels of a line, from column `x` on, at most `width`.
    pub fn line(&self, y: u32, x: u32, width: u32) -> &[u32] {
        let start = widen(y) * widen(self.screen.width()) + widen(x);
        let line = self.pixels.get(start..).unwrap_or_default();
        &line[..widen(width).min(line.len())]
    }

    /// Makes a part anew: below, pointer, watermark, in this order, so that nothing is ever without
    /// the watermark once this has returned.
    ///
    /// # Errors
    /// The picture cannot be read; then the part is not to be shown.
    pub fn compose(&mut self, scene: &Scene, part: Rect) -> Result<(), PictureError> {
        let Some(part) = part.within(self.screen) else {
            return Ok(());
        };
        match &scene.base {
            Base::Notice(reason) => {
                scene
                    .notices
                    .paint(*reason, self.screen, part, &mut self.pixels);
            }
            Base::Picture(source) => self.copy(source, scene.pointer.as_ref(), part)?,
        }
        scene.marks.blend(self.screen, part, &mut self.pixels);
        Ok(())
    }

    /// Copies the guest's picture, with its pointer, into a part; the rest of the part is black.
    fn copy(
        &mut self,
        source: &Source,
        pointer: Option<&(Shape, (u32, u32))>,
        part: Rect,
    ) -> Result<(), PictureError> {
        let place = Place::new(source.scanout().mode(), self.screen);
        let inside = meet(part, place.on());
        if inside != Some(part) {
            for y in part.y..part.y + part.height {
                self.row(part, y).fill(0);
            }
        }
        let Some(inside) = inside else {
            return Ok(());
        };
        let on = place.on();
        let first = place.column(inside.x - on.x);
        let last = place.column(inside.x + inside.width - 1 - on.x);
        let mut line = std::mem::take(&mut self.line);
        let mut columns = std::mem::take(&mut self.columns);
        line.resize(widen(last - first + 1), 0);
        columns.clear();
        columns.extend((0..inside.width).map(|x| widen(place.column(inside.x - on.x + x) - first)));
        let mut held = None;
        for y in inside.y..inside.y + inside.height {
            let from = place.line(y - on.y);
            if held != Some(from) {
                source.read(first, from, &mut line, &mut self.bytes)?;
                if let Some((shape, at)) = pointer {
                    lay(shape, *at, (first, from), &mut line);
                }
                held = Some(from);
            }
            for (pixel, column) in self.row(inside, y).iter_mut().zip(&columns) {
                *pixel = line.get(*column).copied().unwrap_or(0);
            }
        }
        (self.line, self.columns) = (line, columns);
        Ok(())
    }

    fn row(&mut self, part: Rect, y: u32) -> &mut [u32] {
        let start = widen(y) * widen(self.screen.width()) + widen(part.x);
        let line = self.pixels.get_mut(start..).unwrap_or_default();
        let width = widen(part.width).min(line.len());
        &mut line[..width]
    }
}

/// Lays the pointer over pixels of a line of the guest's picture, which start at `x`.
fn lay(shape: &Shape, at: (u32, u32), (x, y): (u32, u32), line: &mut [u32]) {
    let covers = shape.covers(at);
    if !(covers.y..covers.y.saturating_add(covers.height)).contains(&y) {
        return;
    }
    for (pixel, x) in line.iter_mut().zip(x..) {
        *pixel = shape.over(at, (x, y), *pixel);
    }
}

/// The part that lies in both.
fn meet(one: Rect, other: Rect) -> Option<Rect> {
    let (x, y) = (one.x.max(other.x), one.y.max(other.y));
    let right = (one.x + one.width).min(other.x + other.width);
    let bottom = (one.y + one.height).min(other.y + other.height);
    let (width, height) = (right.checked_sub(x)?, bottom.checked_sub(y)?);
    (width > 0 && height > 0).then_some(Rect {
        x,
        y,
        width,
        height,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::font::tests::font;
    use crate::notice::Language;
    use crate::picture::tests::{pixels, scanout};
    use crate::watermark::tests::{minute, style, watermark};

    const SIDES: (u32, u32) = (300, 200);

    fn marks() -> Marks {
        watermark(style()).marks(&minute()).unwrap()
    }

    fn scene(base: Base, pointer: Option<(Shape, (u32, u32))>) -> Scene {
        Scene {
            base,
            pointer,
            notices: Notices::new(&font(), Language::Japanese).unwrap(),
            marks: marks(),
        }
    }

    fn whole(frame: &Frame) -> Rect {
        Rect::whole(frame.screen())
    }

    /// What a guest may draw: shades and single colours, by a seed.
    fn drawn(seed: u32, width: u32, height: u32) -> Vec<u32> {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        places
            .map(|(x, y)| match seed % 4 {
                0 => 0,
                1 => 0xff_ffff,
                2 => (x / 8 * 7 + y * 3).wrapping_mul(0x01_0101) & 0xff_ffff,
                _ => (x ^ y).wrapping_mul(seed | 1) & 0xff_ffff,
            })
            .collect()
    }

    fn pointer() -> Shape {
        Shape::new(&pixels(&vec![0x80ff_00ff; 64 * 64]), (3, 5)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Outside the marks each pixel is the guest's, within them it is the guest's with one ink
        /// over it: nothing else comes upon the screen.
        #[test]
        fn the_picture_is_the_guests_but_for_the_marks(seed: u32) {
            let (width, height) = SIDES;
            let guest = drawn(seed, width, height);
            let source = Source::new(pixels(&guest), scanout(width, height)).unwrap();
            let mut frame = Frame::new(Mode::new(width, height).unwrap());
            let everything = whole(&frame);
            frame.compose(&scene(Base::Picture(source), None), everything).unwrap();
            // The same marks over black and over white tell which pixels they touch.
            let blend = |below: u32| {
                let mut alone = vec![below; guest.len()];
                marks().blend(frame.screen(), everything, &mut alone);
                alone
            };
            let (black, white) = (blend(0), blend(0xff_ffff));
            let mut marked = 0;
            for (place, (pixel, below)) in frame.pixels.iter().zip(&guest).enumerate() {
                if black[place] == 0 && white[place] == 0xff_ffff {
                    prop_assert_eq!(pixel, below);
                    continue;
                }
                marked += 1;
                for (now, was) in pixel.to_le_bytes().into_iter().zip(below.to_le_bytes()) {
                    // Six per cent of 255, rounded.
                    prop_assert!(now.abs_diff(was) <= 15);
                }
            }
            prop_assert!(marked > 2000, "{}", marked);
        }

        /// Composing only what has changed leaves the same frame as composing everything.
        #[test]
        fn composing_the_damage_alone_gives_the_whole_frame(
            seed: u32,
            screen in prop_oneof![Just(SIDES), Just((640, 480)), Just((150, 180))],
            changes in prop::collection::vec((0_u32..320, 0_u32..220, 1_u32..90, 1_u32..70), 1..6),
            at in (0_u32..300, 0_u32..200),
        ) {
            let (width, height) = SIDES;
            let mut guest = drawn(seed, width, height);
            let file = pixels(&guest);
            let guests = rustix::io::dup(&file).unwrap();
            let source = Source::new(file, scanout(width, height)).unwrap();
            let screen = Mode::new(screen.0, screen.1).unwrap();
            let place = Place::new(source.scanout().mode(), screen);
            let scene = scene(Base::Picture(source), Some((pointer(), at)));
            let mut frame = Frame::new(screen);
            frame.compose(&scene, Rect::whole(screen)).unwrap();
            for (x, y, width, height) in changes {
                let part = Rect { x, y, width, height };
                let Some(part) = part.within(Mode::new(SIDES.0, SIDES.1).unwrap()) else { continue };
                for y in part.y..part.y + part.height {
                    for x in part.x..part.x + part.width {
                        guest[widen(y * SIDES.0 + x)] ^= 0x5a_a55a;
                    }
                }
                let bytes: Vec<u8> = guest.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
                rustix::io::pwrite(&guests, &bytes, 0).unwrap();
                frame.compose(&scene, place.shown(part).unwrap()).unwrap();
            }
            let mut anew = Frame::new(screen);
            anew.compose(&scene, Rect::whole(screen)).unwrap();
            prop_assert!(frame.pixels == anew.pixels);
        }
    }

    #[test]
    fn a_notice_bears_the_watermark_too() {
        let screen = Mode::new(800, 600).unwrap();
        let mut frame = Frame::new(screen);
        let scene = scene(Base::Notice(Reason::Lost), None);
        frame.compose(&scene, Rect::whole(screen)).unwrap();
        let mut bare = vec![0; 800 * 600];
        scene
            .notices
            .paint(Reason::Lost, screen, Rect::whole(screen), &mut bare);
        let changed = frame.pixels.iter().zip(&bare).filter(|(a, b)| a != b);
        assert!(changed.count() > 20_000);
    }

    #[test]
    fn an_enlarged_picture_has_black_around_it_and_whole_pixels() {
        let source = Source::new(pixels(&[0x11, 0x22, 0x33, 0x44]), scanout(2, 2)).unwrap();
        let mut frame = Frame::new(Mode::new(7, 5).unwrap());
        let part = whole(&frame);
        frame.copy(&source, None, part).unwrap();
        let (a, b, c, d) = (0x11, 0x22, 0x33, 0x44);
        #[rustfmt::skip]
        assert_eq!(frame.pixels, [
            0, a, a, b, b, 0, 0,
            0, a, a, b, b, 0, 0,
            0, c, c, d, d, 0, 0,
            0, c, c, d, d, 0, 0,
            0, 0, 0, 0, 0, 0, 0,
        ]);
    }
}
