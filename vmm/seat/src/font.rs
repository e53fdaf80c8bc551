//! Text as outlines. The font is a file that the administrator names; a glyph that it lacks is an
//! error and never a blank, because the text says who sat here.

use std::path::{Path, PathBuf};

use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::raw::tables::cmap::MapVariant;
use skrifa::{FontRef, GlyphId, MetadataProvider as _};
use thiserror::Error;
use zeno::{Command, PathBuilder as _};

/// Characters of one line: a name, a device and a place fit, and its picture stays below some
/// thirty megabytes at the largest size and any angle.
pub const MAX_CHARACTERS: usize = 128;
/// Bytes of a font: the largest collection for all of CJK is 20 MiB.
const MAX_FILE: u64 = 64 << 20;

/// Why a text cannot be drawn.
#[derive(Debug, Error)]
pub enum FontError {
    /// The file.
    #[error("the font {path} cannot be read: {source}")]
    Read {
        /// Its name.
        path: PathBuf,
        /// What the host answered.
        source: std::io::Error,
    },
    /// Not a font, or a damaged one.
    #[error("this is no font that can be used: {0}")]
    Font(String),
    /// A character that the font does not have.
    #[error(
        "the font has no glyph for `{0}` (U+{code:04X}): name one that has, as fonts-noto-cjk or \
         fonts-ipafont-gothic",
        code = u32::from(*.0)
    )]
    Glyph(char),
    /// More than [`MAX_CHARACTERS`].
    #[error("a text of {0} characters, at most {MAX_CHARACTERS} are drawn")]
    Length(usize),
    /// Nothing to be seen.
    #[error("a text without anything to be seen")]
    Blank,
}

/// A font in memory.
#[derive(Clone)]
pub struct Font {
    bytes: Vec<u8>,
}

/// One line of text as outlines in pixels: it starts at 0, the base line is 0, and down is positive.
#[derive(Debug, Clone)]
pub struct Line {
    /// The outlines.
    pub outlines: Vec<Command>,
    /// How far the next character would start.
    pub width: f32,
    /// From the highest to the lowest that any of the font's lines reaches.
    pub height: f32,
    /// The middle of that height, seen from the base line.
    pub middle: f32,
}

impl Font {
    /// Reads a font, or the first one of a collection.
    pub fn open(path: &Path) -> Result<Self, FontError> {
        let read = || {
            let length = std::fs::metadata(path)?.len();
            if length > MAX_FILE {
                return Err(std::io::Error::other("it is larger than any font"));
            }
            std::fs::read(path)
        };
        let bytes = read().map_err(|source| FontError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::new(bytes)
    }

    /// A font from the bytes of its file.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FontError> {
        let font = Self { bytes };
        font.parsed()?;
        Ok(font)
    }

    fn parsed(&self) -> Result<FontRef<'_>, FontError> {
        FontRef::from_index(&self.bytes, 0).map_err(|error| FontError::Font(error.to_string()))
    }

    /// Sets a line of text, horizontally and from the left, `size` pixels an em.
    pub fn line(&self, text: &str, size: f32) -> Result<Line, FontError> {
        let count = text.chars().count();
        if count > MAX_CHARACTERS {
            return Err(FontError::Length(count));
        }
        let font = self.parsed()?;
        let (size, place) = (Size::new(size), LocationRef::default());
        let (metrics, advances) = (font.metrics(size, place), font.glyph_metrics(size, place));
        let outlines = font.outline_glyphs();
        let mut pen = Pen::default();
        for glyph in glyphs(&font, text) {
            let glyph = glyph?;
            let outline = outlines
                .get(glyph)
                .ok_or_else(|| FontError::Font("a glyph without an outline".to_owned()))?;
            outline
                .draw(DrawSettings::unhinted(size, place), &mut pen)
                .map_err(|error| FontError::Font(error.to_string()))?;
            pen.at += advances.advance_width(glyph).unwrap_or_default();
        }
        if pen.path.is_empty() {
            return Err(FontError::Blank);
        }
        Ok(Line {
            outlines: pen.path,
            width: pen.at,
            height: metrics.ascent - metrics.descent,
            middle: -f32::midpoint(metrics.ascent, metrics.descent),
        })
    }
}

impl std::fmt::Debug for Font {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Font({} bytes)", self.bytes.len())
    }
}

/// The glyphs of a text. A variation selector (Unicode §23.4: names are written with them) chooses
/// another form of the character before it, and where the font has none, the usual form is right.
fn glyphs<'a>(
    font: &FontRef<'a>,
    text: &'a str,
) -> impl Iterator<Item = Result<GlyphId, FontError>> + use<'a> {
    let known = font.charmap();
    let mut characters = text.chars().peekable();
    std::iter::from_fn(move || {
        let character = characters.next()?;
        let selector = characters.next_if(|next| is_selector(*next));
        let variant = selector.and_then(|selector| known.map_variant(character, selector));
        let glyph = match variant {
            Some(MapVariant::Variant(glyph)) => Some(glyph),
            Some(MapVariant::UseDefault) | None => known.map(character),
        };
        let glyph = glyph.filter(|glyph| *glyph != GlyphId::NOTDEF);
        Some(glyph.ok_or(FontError::Glyph(character)))
    })
}

fn is_selector(character: char) -> bool {
    matches!(character, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Puts outlines side by side; fonts count upwards, pictures downwards.
#[derive(Default)]
struct Pen {
    path: Vec<Command>,
    at: f32,
}

impl Pen {
    fn point(&self, x: f32, y: f32) -> [f32; 2] {
        [self.at + x, -y]
    }
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.point(x, y));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.point(x, y));
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        self.path.quad_to(self.point(cx, cy), self.point(x, y));
    }

    fn curve_to(&mut self, ax: f32, ay: f32, bx: f32, by: f32, x: f32, y: f32) {
        self.path
            .curve_to(self.point(ax, ay), self.point(bx, by), self.point(x, y));
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Debian's fonts-ipafont-gothic.
    pub(crate) const JAPANESE: &str = "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf";

    pub(crate) fn font() -> Font {
        Font::open(Path::new(JAPANESE)).unwrap()
    }

    #[test]
    fn japanese_and_latin_are_set_side_by_side() {
        let font = font();
        let line = font.line("山田 花子 PC-0042", 20.0).unwrap();
        // Four full-width characters, and half-width ones for the rest.
        assert!((150.0..200.0).contains(&line.width), "{}", line.width);
        assert!(line.outlines.len() > 100);
        assert!((18.0..30.0).contains(&line.height), "{}", line.height);
    }

    #[test]
    fn a_missing_glyph_is_an_error_and_never_a_blank() {
        // Hieroglyphs, and a character that nobody has been given.
        for character in ['\u{13000}', '\u{378}', '\n'] {
            let text = format!("山田{character}");
            let error = font().line(&text, 20.0).unwrap_err();
            assert!(matches!(error, FontError::Glyph(missing) if missing == character));
        }
        assert!(matches!(
            font().line(" \u{3000} ", 20.0),
            Err(FontError::Blank)
        ));
        assert!(matches!(font().line("", 20.0), Err(FontError::Blank)));
        let long = "口".repeat(MAX_CHARACTERS + 1);
        assert!(matches!(
            font().line(&long, 20.0),
            Err(FontError::Length(_))
        ));
    }

    #[test]
    fn a_missing_or_damaged_font_is_an_error() {
        assert!(matches!(
            Font::open(Path::new("/nonexistent/font.ttf")),
            Err(FontError::Read { .. })
        ));
        let bytes = std::fs::read(JAPANESE).unwrap();
        assert!(Font::new(b"no font".to_vec()).is_err());
        // Cut off: it has a head, and no glyphs.
        let cut = Font::new(bytes[..4096].to_vec());
        assert!(cut.and_then(|font| font.line("山田", 20.0)).is_err());
    }

    /// 葛 with a variation selector: one glyph, not two.
    #[test]
    fn a_variation_selector_takes_no_room() {
        let plain = font().line("葛城", 20.0).unwrap();
        for selector in ['\u{e0100}', '\u{e0101}', '\u{fe00}'] {
            let varied = font().line(&format!("葛{selector}城"), 20.0).unwrap();
            assert!((varied.width - plain.width).abs() < 0.1);
        }
    }
}
