//! The watermark: who sits at which device and when, all over the screen.

use sekisho_seatlink::{Mode, Rect};
use thiserror::Error;

use crate::font::{Font, FontError, MAX_CHARACTERS};
use crate::stamp::{Stamp, Tone, widen};

/// Digits and signs of a time: looked up in the font before the first minute is drawn.
const CLOCK: &str = "0123456789-: ";

/// What the text consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    User,
    Device,
    /// The date and the time to the minute.
    DateTime,
    /// The time to the minute.
    Time,
}

/// The text with its `{user}`, `{device}`, `{datetime}` and `{time}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// Why a watermark cannot be drawn; no picture is shown then.
#[derive(Debug, Error)]
pub enum WatermarkError {
    /// An unknown word in braces, or an open brace.
    #[error(
        "`{0}` in the watermark's text: {{user}}, {{device}}, {{datetime}} and {{time}} are known"
    )]
    Placeholder(String),
    /// A number that it cannot have.
    #[error("the watermark's {key} is {value}, it must be from {least} to {most}")]
    Range {
        /// As in the policy.
        key: &'static str,
        /// What was given.
        value: i64,
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
    /// The text cannot be drawn.
    #[error("the watermark cannot be drawn: {0}")]
    Font(#[from] FontError),
}

impl std::str::FromStr for Template {
    type Err = WatermarkError;

    fn from_str(text: &str) -> Result<Self, WatermarkError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let unknown = || WatermarkError::Placeholder(format!("{{{after}"));
            let (name, after) = after.split_once('}').ok_or_else(unknown)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name {
                "user" => Piece::User,
                "device" => Piece::Device,
                "datetime" => Piece::DateTime,
                "time" => Piece::Time,
                _ => return Err(WatermarkError::Placeholder(format!("{{{name}}}"))),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

/// How the watermark looks: the keys of `[watermark]` in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// What it says.
    pub text: Template,
    /// How much it covers.
    pub opacity_percent: u8,
    /// How it is turned, clockwise.
    pub angle_degrees: i16,
    /// Pixels between two texts, along and across.
    pub spacing_px: u16,
    /// Pixels of an em.
    pub size_px: u16,
}

impl Style {
    /// Whether every number is one that it can have.
    fn check(&self) -> Result<(), WatermarkError> {
        let keys = [
            // Below three, eight bits show steps that no eye sees; above fifty nobody can work.
            ("opacity_percent", i64::from(self.opacity_percent), 3, 50),
            ("angle_degrees", self.angle_degrees.into(), -90, 90),
            // Texts do not touch, and a part of a screen that is worth a photograph has one.
            ("spacing_px", self.spacing_px.into(), 40, 1000),
            ("size_px", self.size_px.into(), 12, 48),
        ];
        for (key, value, least, most) in keys {
            if !(least..=most).contains(&value) {
                return Err(WatermarkError::Range {
                    key,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// Whose watermark it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Who sits here.
    pub user: String,
    /// Which device this is.
    pub device: String,
}

/// A minute, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minute {
    /// `2026-04-01`.
    pub date: String,
    /// `09:05`.
    pub time: String,
}

/// Makes the marks of each minute.
#[derive(Debug, Clone)]
pub struct Watermark {
    font: Font,
    style: Style,
    bearer: Bearer,
}

impl Watermark {
    /// A watermark whose every character the font has.
    pub fn new(font: Font, style: Style, bearer: Bearer) -> Result<Self, WatermarkError> {
        style.check()?;
        font.line(CLOCK, style.size_px.into())?;
        let watermark = Self {
            font,
            style,
            bearer,
        };
        let longest = Minute {
            date: "0000-00-00".to_owned(),
            time: "00:00".to_owned(),
        };
        watermark.marks(&longest)?;
        Ok(watermark)
    }

    /// What it says in that minute.
    pub fn text(&self, minute: &Minute) -> String {
        let pieces = self.style.text.0.iter();
        pieces
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::User => self.bearer.user.clone(),
                Piece::Device => self.bearer.device.clone(),
                Piece::DateTime => format!("{} {}", minute.date, minute.time),
                Piece::Time => minute.time.clone(),
            })
            .collect()
    }

    /// The marks of that minute.
    pub fn marks(&self, minute: &Minute) -> Result<Marks, WatermarkError> {
        let Style {
            opacity_percent,
            angle_degrees,
            spacing_px,
            size_px,
            ..
        } = self.style;
        let line = self.font.line(&self.text(minute), size_px.into())?;
        let degrees = f32::from(angle_degrees);
        let stamp = Stamp::new(
            &line,
            degrees,
            Tone::Mark(f32::from(opacity_percent) / 100.0),
        );
        let (down, right) = degrees.to_radians().sin_cos();
        let along = line.width + f32::from(spacing_px);
        let across = line.height + f32::from(spacing_px);
        Ok(Marks {
            stamp,
            along: (along * right, along * down),
            across: (across * -down, across * right),
        })
    }
}

/// The marks of one minute: the same stamp at every point of a grid that is turned as the text is,
/// every other line of it by half a step. The grid starts in the middle of the screen, so that the
/// smallest screen has a mark.
#[derive(Debug, Clone, PartialEq)]
pub struct Marks {
    stamp: Stamp,
    along: (f32, f32),
    across: (f32, f32),
}

impl Marks {
    /// Where stamps meet that part of a screen: their corners, in pixels from the screen's.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "sides are below 2^14 and steps at least 40"
    )]
    fn corners(&self, screen: Mode, part: Rect) -> Vec<(i32, i32)> {
        let middle = (screen.width() as f32 / 2.0, screen.height() as f32 / 2.0);
        let long = |side: (f32, f32)| side.0.hypot(side.1);
        let reach = long(middle) + long((self.stamp.width as f32, self.stamp.height as f32));
        let lines = (reach / long(self.across)).ceil() as i32;
        let columns = (reach / long(self.along)).ceil() as i32 + 1;
        let grid = (-lines..=lines).flat_map(|line| (-columns..=columns).map(move |at| (line, at)));
        grid.map(|(line, at)| {
            let shift = if line % 2 == 0 { 0.0 } else { 0.5 };
            let (at, line) = (at as f32 + shift, line as f32);
            let point = (
                middle.0 + at * self.along.0 + line * self.across.0,
                middle.1 + at * self.along.1 + line * self.across.1,
            );
            (
                point.0.round() as i32 + self.stamp.corner.0,
                point.1.round() as i32 + self.stamp.corner.1,
            )
        })
        .filter(|(x, y)| {
            meets(*x, self.stamp.width, part.x, part.width)
                && meets(*y, self.stamp.height, part.y, part.height)
        })
        .collect()
    }

    /// Lays the marks over a part of a screen's pixels, which holds nothing but what was below them.
    pub fn blend(&self, screen: Mode, part: Rect, pixels: &mut [u32]) {
        for (left, top) in self.corners(screen, part) {
            for y in part.y..part.y + part.height {
                let Some(line) = distance(y, top) else {
                    continue;
                };
                let inks = self.stamp.line(line);
                let first = widen(y) * widen(screen.width());
                let xs = part.x..part.x + part.width;
                for x in xs {
                    let ink = distance(x, left).and_then(|at| inks.get(widen(at)));
                    if let Some(ink) = ink.filter(|ink| ink.alpha > 0)
                        && let Some(pixel) = pixels.get_mut(first + widen(x))
                    {
                        *pixel = ink.over(*pixel);
                    }
                }
            }
        }
    }
}

/// How far `at` lies behind `start`; nothing where it lies before.
fn distance(at: u32, start: i32) -> Option<u32> {
    u32::try_from(i64::from(at) - i64::from(start)).ok()
}

fn meets(start: i32, length: u32, other: u32, other_length: u32) -> bool {
    let (start, other) = (i64::from(start), i64::from(other));
    start < other + i64::from(other_length) && other < start + i64::from(length)
}

/// The longest text: a template, a user and a device that go beyond it are refused at the start.
pub const MAX_TEXT: usize = MAX_CHARACTERS;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::font::tests::font;

    pub(crate) fn style() -> Style {
        Style {
            text: "{user} {device} {datetime}".parse().unwrap(),
            opacity_percent: 6,
            angle_degrees: -30,
            spacing_px: 60,
            size_px: 16,
        }
    }

    pub(crate) fn minute() -> Minute {
        Minute {
            date: "2026-04-01".to_owned(),
            time: "09:05".to_owned(),
        }
    }

    fn bearer() -> Bearer {
        Bearer {
            user: "山田 花子".to_owned(),
            device: "端末42".to_owned(),
        }
    }

    pub(crate) fn watermark(style: Style) -> Watermark {
        Watermark::new(font(), style, bearer()).unwrap()
    }

    #[test]
    fn the_text_names_user_device_and_time() {
        let said = |template: &str| {
            let text = template.parse().unwrap();
            watermark(Style { text, ..style() }).text(&minute())
        };
        assert_eq!(
            said("{user} {device} {datetime} 見本市"),
            "山田 花子 端末42 2026-04-01 09:05 見本市"
        );
        assert_eq!(said("{time}に{user}"), "09:05に山田 花子");
        for wrong in ["{users}", "{user", "a {} b"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_watermark_that_cannot_be_seen_is_refused() {
        let refused = |style: Style| Watermark::new(font(), style, bearer()).is_err();
        let text = |text: &str| text.parse().unwrap();
        assert!(!refused(style()));
        for wrong in [
            Style {
                opacity_percent: 2,
                ..style()
            },
            Style {
                opacity_percent: 51,
                ..style()
            },
            Style {
                angle_degrees: 91,
                ..style()
            },
            Style {
                spacing_px: 39,
                ..style()
            },
            Style {
                spacing_px: 1001,
                ..style()
            },
            Style {
                size_px: 11,
                ..style()
            },
            Style {
                size_px: 49,
                ..style()
            },
            Style {
                text: text(""),
                ..style()
            },
            Style {
                text: text("\u{3000} "),
                ..style()
            },
            Style {
                text: text(&"見".repeat(MAX_TEXT + 1)),
                ..style()
            },
            // A glyph that the font does not have.
            Style {
                text: text("{user}\u{13000}"),
                ..style()
            },
        ] {
            assert!(refused(wrong.clone()), "{wrong:?}");
        }
    }

    #[test]
    fn the_smallest_screen_has_a_mark() {
        let style = Style {
            spacing_px: 1000,
            ..style()
        };
        let marks = watermark(style).marks(&minute()).unwrap();
        for (width, height) in [(1, 1), (64, 48), (8192, 1), (1920, 1080)] {
            let screen = Mode::new(width, height).unwrap();
            assert!(!marks.corners(screen, Rect::whole(screen)).is_empty());
        }
        let screen = Mode::new(160, 100).unwrap();
        let mut pixels = vec![0x80_8080; 160 * 100];
        marks.blend(screen, Rect::whole(screen), &mut pixels);
        assert!(pixels.iter().filter(|pixel| **pixel != 0x80_8080).count() > 200);
    }

    /// A square of twice the step has a whole text's worth of ink, wherever it lies.
    #[test]
    fn every_part_of_the_screen_is_marked() {
        let marks = watermark(style()).marks(&minute()).unwrap();
        let screen = Mode::new(1920, 1080).unwrap();
        let mut pixels = vec![0; 1920 * 1080];
        marks.blend(screen, Rect::whole(screen), &mut pixels);
        let step = 400;
        for top in (0..1080 - step).step_by(100) {
            for left in (0..1920 - step).step_by(100) {
                let lines = (top..top + step).map(|y| &pixels[y * 1920 + left..][..step]);
                let inked = lines.flatten().filter(|pixel| **pixel != 0).count();
                assert!(inked > 1000, "{inked} at {left}, {top}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Stamps do not overlap, whatever the style: each pixel is inked once at most, and so the
        /// result is within the bounds of one ink.
        #[test]
        fn no_pixel_is_marked_twice(
            opacity_percent in 3_u8..=50,
            angle_degrees in -90_i16..=90,
            spacing_px in 40_u16..200,
            size_px in 12_u16..=48,
            shade: u8,
        ) {
            let style = Style { opacity_percent, angle_degrees, spacing_px, size_px, ..style() };
            let marks = watermark(style).marks(&minute()).unwrap();
            let screen = Mode::new(700, 500).unwrap();
            let below = u32::from_le_bytes([shade, shade, shade, 0]);
            let mut pixels = vec![below; 700 * 500];
            marks.blend(screen, Rect::whole(screen), &mut pixels);
            let most = (u16::from(opacity_percent) * 255).div_ceil(100);
            let mut marked = 0;
            for pixel in &pixels {
                let [blue, green, red, rest] = pixel.to_le_bytes();
                prop_assert_eq!((blue, green, rest), (green, red, 0));
                prop_assert!(u16::from(blue.abs_diff(shade)) <= most);
                marked += usize::from(blue != shade);
            }
            prop_assert!(marked > 500);
        }
    }
}
