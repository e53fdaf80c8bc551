//! What is on the screen while the guest shows nothing.

use sekisho_seatlink::{Mode, Rect};

use crate::font::{Font, FontError};
use crate::stamp::{Stamp, Tone, widen};

/// Pixels of an em.
const SIZE: f32 = 24.0;
/// A quiet dark blue.
const GROUND: u32 = 0x0010_1c2c;

/// The person's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Japanese.
    #[default]
    Japanese,
    /// English.
    English,
}

/// Why there is no picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The VMM has not come yet.
    Waiting,
    /// The VMM has gone, or was turned away.
    Lost,
    /// The guest has switched its screen off.
    Off,
}

impl Reason {
    fn text(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Waiting, Language::Japanese) => "業務用OSの起動を待っています",
            (Self::Waiting, Language::English) => "Waiting for the work OS to start",
            (Self::Lost, Language::Japanese) => {
                "業務用OSの画面との接続が切れました。再接続を待っています"
            }
            (Self::Lost, Language::English) => {
                "The screen of the work OS was disconnected. Waiting for it to come back"
            }
            (Self::Off, Language::Japanese) => "業務用OSは画面を表示していません",
            (Self::Off, Language::English) => "The work OS shows no picture",
        }
    }
}

/// The notices, drawn once.
#[derive(Debug, Clone)]
pub struct Notices([Stamp; 3]);

impl Notices {
    /// Draws them; the font must have their characters.
    pub fn new(font: &Font, language: Language) -> Result<Self, FontError> {
        let draw = |reason: Reason| {
            let line = font.line(reason.text(language), SIZE)?;
            Ok::<_, FontError>(Stamp::new(&line, 0.0, Tone::White))
        };
        Ok(Self([
            draw(Reason::Waiting)?,
            draw(Reason::Lost)?,
            draw(Reason::Off)?,
        ]))
    }

    /// Paints a part of a screen that has nothing else.
    pub fn paint(&self, reason: Reason, screen: Mode, part: Rect, pixels: &mut [u32]) {
        let [waiting, lost, off] = &self.0;
        let stamp = match reason {
            Reason::Waiting => waiting,
            Reason::Lost => lost,
            Reason::Off => off,
        };
        let middle = (
            i64::from(screen.width()) / 2,
            i64::from(screen.height()) / 2,
        );
        let corner = (
            middle.0 + i64::from(stamp.corner.0),
            middle.1 + i64::from(stamp.corner.1),
        );
        let behind = |at: u32, start: i64| u32::try_from(i64::from(at) - start).ok();
        for y in part.y..part.y + part.height {
            let inks = behind(y, corner.1)
                .map(|line| stamp.line(line))
                .unwrap_or_default();
            let first = widen(y) * widen(screen.width());
            for x in part.x..part.x + part.width {
                let ink = behind(x, corner.0).and_then(|at| inks.get(widen(at)));
                if let Some(pixel) = pixels.get_mut(first + widen(x)) {
                    *pixel = ink.map_or(GROUND, |ink| ink.over(GROUND));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::font::tests::font;

    #[test]
    fn every_notice_can_be_read_in_both_languages() {
        let screen = Mode::new(1024, 100).unwrap();
        let mut seen = Vec::new();
        for language in [Language::Japanese, Language::English] {
            let notices = Notices::new(&font(), language).unwrap();
            for reason in [Reason::Waiting, Reason::Lost, Reason::Off] {
                let mut pixels = vec![0; 1024 * 100];
                notices.paint(reason, screen, Rect::whole(screen), &mut pixels);
                let white = pixels.iter().filter(|pixel| **pixel == 0xff_ffff).count();
                assert!(white > 200, "{white}");
                assert_eq!(pixels[0], GROUND);
                assert!(!seen.contains(&pixels));
                seen.push(pixels);
            }
        }
    }
}
