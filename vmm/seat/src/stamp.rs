//! A text as a small picture of how much ink each pixel gets.
//!
//! The letters are dark and have a light edge. Over any background `v` the dark becomes
//! `v·(1 − a)` and the light `v·(1 − a) + 255·a`: the two differ by `255·a`, whatever the guest
//! paints below them, so that no background hides the text.

use zeno::{Join, Mask, Origin, Stroke, Transform};

use crate::font::Line;

/// How wide the light edge is, in parts of the height of a line: two pixels where a line has
/// twenty-four.
const EDGE: f32 = 1.0 / 12.0;

/// What is laid over one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ink {
    /// How much of what is below goes away, of 255.
    pub alpha: u8,
    /// How much light comes instead, of 255; never more than `alpha`.
    pub light: u8,
}

impl Ink {
    /// What becomes of a pixel (XRGB8888).
    pub fn over(self, pixel: u32) -> u32 {
        let [blue, green, red, _] = pixel.to_le_bytes();
        let channel = |below: u8| {
            let kept = u32::from(below) * (255 - u32::from(self.alpha));
            let ink = 255 * u32::from(self.light);
            // At most 255: the light is never more than what went away.
            u8::try_from((kept + ink + 127) / 255).unwrap_or(u8::MAX)
        };
        u32::from_le_bytes([channel(blue), channel(green), channel(red), 0])
    }
}

/// How a text is inked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tone {
    /// Dark letters with a light edge, so much opaque (0 to 1).
    Mark(f32),
    /// White letters.
    White,
}

/// A text's picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The left and the upper edge, seen from the text's middle.
    pub corner: (i32, i32),
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    inks: Vec<Ink>,
}

impl Stamp {
    /// Draws a line of text about its middle, turned clockwise by `degrees`.
    pub fn new(line: &Line, degrees: f32, tone: Tone) -> Self {
        let (down, right) = degrees.to_radians().sin_cos();
        let middle = (line.width / 2.0, line.middle);
        let turn = Transform {
            xx: right,
            xy: down,
            yx: -down,
            yy: right,
            x: -(middle.0 * right - middle.1 * down),
            y: -(middle.0 * down + middle.1 * right),
        };
        let mut edge = Stroke::new(line.height * EDGE * 2.0);
        edge.join(Join::Round);
        let edge = Mask::new(&line.outlines)
            .style(edge)
            .origin(Origin::TopLeft)
            .transform(Some(turn))
            .render();
        let fill = Mask::new(&line.outlines)
            .origin(Origin::TopLeft)
            .transform(Some(turn))
            .render();
        let (left, top) = (edge.1.left.min(fill.1.left), edge.1.top.min(fill.1.top));
        let right =
            |mask: &(Vec<u8>, zeno::Placement)| mask.1.left.saturating_add_unsigned(mask.1.width);
        let bottom =
            |mask: &(Vec<u8>, zeno::Placement)| mask.1.top.saturating_add_unsigned(mask.1.height);
        let width = right(&edge).max(right(&fill)).abs_diff(left);
        let height = bottom(&edge).max(bottom(&fill)).abs_diff(top);
        let inks = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .map(|(x, y)| {
                let at = (
                    left.saturating_add_unsigned(x),
                    top.saturating_add_unsigned(y),
                );
                tone.ink(coverage(&fill, at), coverage(&edge, at))
            })
            .collect();
        Self {
            corner: (left, top),
            width,
            height,
            inks,
        }
    }

    /// The ink of one line, from the left; nothing below the last.
    pub fn line(&self, y: u32) -> &[Ink] {
        let width = widen(self.width);
        let start = widen(y) * width;
        self.inks.get(start..start + width).unwrap_or_default()
    }
}

impl Tone {
    /// The ink where the letters cover so much, and the edge.
    fn ink(self, fill: u8, edge: u8) -> Ink {
        let (fill, edge) = (f32::from(fill) / 255.0, f32::from(edge) / 255.0);
        let (alpha, light) = match self {
            Self::Mark(opacity) => {
                let light = opacity * edge * (1.0 - fill);
                (opacity * fill + light, light)
            }
            Self::White => (fill, fill),
        };
        let light = part(light);
        Ink {
            alpha: part(alpha).max(light),
            light,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 255, rounded"
)]
fn part(of_one: f32) -> u8 {
    (of_one.clamp(0.0, 1.0) * 255.0).round() as u8
}

fn coverage((bytes, place): &(Vec<u8>, zeno::Placement), (x, y): (i32, i32)) -> u8 {
    let inside = |at: i32, start: i32, length: u32| {
        u32::try_from(at.checked_sub(start)?)
            .ok()
            .filter(|at| *at < length)
    };
    let place = inside(x, place.left, place.width)
        .zip(inside(y, place.top, place.height))
        .map(|(x, y)| widen(y) * widen(place.width) + widen(x));
    place
        .and_then(|place| bytes.get(place))
        .copied()
        .unwrap_or(0)
}

/// Sides are below 2^16 and the target has 64 bits.
pub(crate) fn widen(side: u32) -> usize {
    usize::try_from(side).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::font::tests::font;

    fn stamp(degrees: f32) -> Stamp {
        let line = font().line("山田 PC-0042", 24.0).unwrap();
        Stamp::new(&line, degrees, Tone::Mark(0.06))
    }

    #[test]
    fn the_text_lies_about_its_middle_and_turns_clockwise() {
        let flat = stamp(0.0);
        assert!(flat.width > flat.height * 4);
        assert!(flat.corner.0 < 0 && flat.corner.1 < 0);
        // Turned by a quarter: the first character is above.
        let down = stamp(90.0);
        assert!(down.height > down.width * 4);
        let inked = |stamp: &Stamp, lines: std::ops::Range<u32>| {
            let lines = lines.flat_map(|y| stamp.line(y));
            lines.filter(|ink| ink.alpha > 0).count()
        };
        // Two wide characters at the start, half as wide ones at the end.
        let third = down.height / 3;
        assert!(inked(&down, 0..third) > inked(&down, down.height - third..down.height));
    }

    #[test]
    fn light_and_dark_stand_side_by_side_everywhere() {
        for degrees in [0.0, -30.0, 45.0] {
            let stamp = stamp(degrees);
            let inks = (0..stamp.height).flat_map(|y| stamp.line(y));
            let full = inks.clone().map(|ink| ink.alpha).max().unwrap();
            assert_eq!(full, 15);
            let dark = inks.clone().filter(|ink| ink.alpha == 15 && ink.light == 0);
            let light = inks.clone().filter(|ink| ink.light == 15);
            assert!(dark.count() > 200);
            assert!(light.count() > 200);
        }
    }

    proptest! {
        /// What the mark does to a pixel is bounded, and no background makes its two tones alike.
        #[test]
        fn no_background_hides_the_mark(pixel: u32, alpha: u8, light: u8) {
            let ink = Ink { alpha, light: light.min(alpha) };
            let channels = pixel.to_le_bytes().into_iter().zip(ink.over(pixel).to_le_bytes());
            for (below, result) in channels.take(3) {
                prop_assert!(below.abs_diff(result) <= alpha);
            }
            let dark = Ink { alpha, light: 0 }.over(pixel).to_le_bytes();
            let bright = Ink { alpha, light: alpha }.over(pixel).to_le_bytes();
            for (dark, bright) in dark.into_iter().zip(bright).take(3) {
                prop_assert_eq!(bright - dark, alpha);
            }
            prop_assert_eq!(Ink::default().over(pixel), pixel & 0x00ff_ffff);
        }
    }
}
