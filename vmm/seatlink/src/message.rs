//! The messages: a kind, a scan-out, and 32-bit little-endian words.

use thiserror::Error;

/// Screens of one guest: as many as `virtio-gpu` may have (`VIRTIO_GPU_MAX_SCANOUTS`, virtio 1.2
/// §5.7.4).
pub const MAX_SCANOUTS: u8 = 16;
/// The longest side of a picture, in pixels: an 8K screen fits, and four bytes for each pixel of the
/// largest picture stay within 32 bits.
pub const MAX_SIDE: u32 = 8192;
/// The sides of a pointer's picture, in pixels (virtio 1.2 §5.7.6.10).
pub const CURSOR_SIDE: u32 = 64;
/// Absolute positions go from 0 to this on both axes, whatever the mode.
pub const AXIS_MAX: u16 = 0x7fff;
/// Bytes of a pixel: XRGB8888 as DRM calls it, blue first.
const PIXEL: u64 = 4;
/// Bytes of a message, of every kind.
pub(crate) const MESSAGE: usize = 32;

/// One of the guest's screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanoutId(u8);

impl ScanoutId {
    /// The first screen.
    pub const FIRST: Self = Self(0);

    /// The screen of that number, if it is below [`MAX_SCANOUTS`].
    pub fn new(number: u8) -> Option<Self> {
        (number < MAX_SCANOUTS).then_some(Self(number))
    }

    /// Its number, from 0.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Width and height in pixels, neither zero nor above [`MAX_SIDE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    width: u32,
    height: u32,
}

impl Mode {
    /// 1920 by 1080 pixels.
    pub const FULL_HD: Self = Self {
        width: 1920,
        height: 1080,
    };

    /// A mode, if both sides are possible.
    pub const fn new(width: u32, height: u32) -> Option<Self> {
        if width == 0 || width > MAX_SIDE || height == 0 || height > MAX_SIDE {
            return None;
        }
        Some(Self { width, height })
    }

    /// Pixels of a line.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Lines.
    pub fn height(self) -> u32 {
        self.height
    }
}

/// A part of a picture, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// The left edge.
    pub x: u32,
    /// The upper edge.
    pub y: u32,
    /// Pixels of a line of it.
    pub width: u32,
    /// Lines of it.
    pub height: u32,
}

impl Rect {
    /// The whole of a picture.
    pub fn whole(mode: Mode) -> Self {
        Self {
            x: 0,
            y: 0,
            width: mode.width,
            height: mode.height,
        }
    }

    /// The part of it that lies in a picture; none where they do not meet.
    pub fn within(self, mode: Mode) -> Option<Self> {
        let width = self.width.min(mode.width.checked_sub(self.x)?);
        let height = self.height.min(mode.height.checked_sub(self.y)?);
        (width > 0 && height > 0).then_some(Self {
            width,
            height,
            ..self
        })
    }

    /// The smallest part that covers both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let right = |rect: Self| rect.x.saturating_add(rect.width);
        let bottom = |rect: Self| rect.y.saturating_add(rect.height);
        Self {
            x,
            y,
            width: right(self).max(right(other)) - x,
            height: bottom(self).max(bottom(other)) - y,
        }
    }
}

/// Where a picture lies in the memory file that comes with it: XRGB8888, blue in the lowest byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanout {
    mode: Mode,
    stride: u32,
    offset: u32,
}

impl Scanout {
    /// A picture of that mode, its lines `stride` bytes apart, from byte `offset` of the file; none
    /// where lines would overlap or a pixel would lie across words.
    pub fn new(mode: Mode, stride: u32, offset: u32) -> Option<Self> {
        let line = u64::from(mode.width) * PIXEL;
        let aligned = u64::from(stride) % PIXEL == 0 && u64::from(offset) % PIXEL == 0;
        (aligned && u64::from(stride) >= line).then_some(Self {
            mode,
            stride,
            offset,
        })
    }

    /// Its sides.
    pub fn mode(self) -> Mode {
        self.mode
    }

    /// Bytes from one line to the next.
    pub fn stride(self) -> u32 {
        self.stride
    }

    /// The first byte of it in the file.
    pub fn offset(self) -> u32 {
        self.offset
    }

    /// The byte behind its last pixel: the file is at least as long, or the picture is refused.
    pub fn end(self) -> u64 {
        let lines = u64::from(self.mode.height) - 1;
        u64::from(self.offset) + lines * u64::from(self.stride) + u64::from(self.mode.width) * PIXEL
    }
}

/// What the VMM says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// From now on this is the picture; its memory file comes with the message.
    Shown(ScanoutId, Scanout),
    /// The screen shows nothing.
    Off(ScanoutId),
    /// This part of the picture has changed.
    Damage(ScanoutId, Rect),
    /// The pointer has a new picture, whose point is at `hot` from its corner. It comes with the
    /// message: a memory file of [`CURSOR_SIDE`] lines, ARGB8888, not premultiplied.
    Cursor(ScanoutId, (u32, u32)),
    /// The pointer's point is here now.
    CursorAt(ScanoutId, (u32, u32)),
    /// The pointer is not to be seen.
    CursorHidden(ScanoutId),
}

/// What the seat says. Keys and buttons have the numbers of Linux' `input-event-codes.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The last damage of this screen has been presented: there may be more.
    Presented(ScanoutId),
    /// The screen is of this size now.
    Size(ScanoutId, Mode),
    /// A key or a button went down or up.
    Key {
        /// `KEY_*` or `BTN_*`.
        code: u16,
        /// Down.
        down: bool,
    },
    /// Every key and button is up: the person looks elsewhere.
    AllUp,
    /// The pointer was moved by so much, right and down.
    Moved {
        /// Right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// The pointer is here now, from 0 to [`AXIS_MAX`] on each axis.
    At {
        /// On this screen.
        scanout: ScanoutId,
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// The wheel was turned by so many clicks, up being positive.
    Wheel {
        /// Clicks.
        clicks: i32,
    },
}

/// A packet that is no message.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// Not of the length that every message has.
    #[error("a message of {0} bytes instead of {MESSAGE}")]
    Length(usize),
    /// A kind that this side does not hear.
    #[error("a message of the unknown kind {0}")]
    Kind(u32),
    /// A screen that cannot be.
    #[error("there is no screen {0}")]
    Screen(u32),
    /// A value that the kind does not have.
    #[error("kind {0} with a value that it cannot have")]
    Value(u32),
}

/// A kind, a screen, and what else is to be said.
type Words = [u32; MESSAGE / 4];

fn bytes(words: Words) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words(packet: &[u8]) -> Result<Words, MessageError> {
    let packet: &[u8; MESSAGE] = packet
        .try_into()
        .map_err(|_| MessageError::Length(packet.len()))?;
    let mut words = [0; MESSAGE / 4];
    for (word, place) in words.iter_mut().zip(packet.chunks_exact(4)) {
        *word = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
    }
    Ok(words)
}

fn screen(number: u32) -> Result<ScanoutId, MessageError> {
    let known = u8::try_from(number).ok().and_then(ScanoutId::new);
    known.ok_or(MessageError::Screen(number))
}

/// Words with nothing behind the given ones: what has no meaning yet must be zero, so that it can be
/// given one.
fn only<const N: usize>(kind: u32, rest: &[u32]) -> Result<[u32; N], MessageError> {
    let (said, silent) = rest.split_at(N);
    if silent.iter().any(|word| *word != 0) {
        return Err(MessageError::Value(kind));
    }
    said.try_into().map_err(|_| MessageError::Value(kind))
}

impl Picture {
    /// The packet that says it.
    pub(crate) fn encode(self) -> [u8; MESSAGE] {
        let screen = |id: ScanoutId| u32::from(id.0);
        bytes(match self {
            Self::Shown(
                id,
                Scanout {
                    mode,
                    stride,
                    offset,
                },
            ) => [1, screen(id), mode.width, mode.height, stride, offset, 0, 0],
            Self::Off(id) => [2, screen(id), 0, 0, 0, 0, 0, 0],
            Self::Damage(
                id,
                Rect {
                    x,
                    y,
                    width,
                    height,
                },
            ) => [3, screen(id), x, y, width, height, 0, 0],
            Self::Cursor(id, (x, y)) => [4, screen(id), x, y, 0, 0, 0, 0],
            Self::CursorAt(id, (x, y)) => [5, screen(id), x, y, 0, 0, 0, 0],
            Self::CursorHidden(id) => [6, screen(id), 0, 0, 0, 0, 0, 0],
        })
    }

    /// What a packet says.
    pub fn decode(packet: &[u8]) -> Result<Self, MessageError> {
        let [kind, id, rest @ ..] = words(packet)?;
        let id = screen(id)?;
        let bad = MessageError::Value(kind);
        match kind {
            1 => {
                let [width, height, stride, offset] = only(kind, &rest)?;
                let mode = Mode::new(width, height).ok_or(bad)?;
                let scanout = Scanout::new(mode, stride, offset).ok_or(bad)?;
                Ok(Self::Shown(id, scanout))
            }
            2 => only::<0>(kind, &rest).map(|_| Self::Off(id)),
            3 => {
                let [x, y, width, height] = only(kind, &rest)?;
                let part = Rect {
                    x,
                    y,
                    width,
                    height,
                };
                Ok(Self::Damage(id, part))
            }
            4 => {
                let [x, y] = only(kind, &rest)?;
                if x >= CURSOR_SIDE || y >= CURSOR_SIDE {
                    return Err(bad);
                }
                Ok(Self::Cursor(id, (x, y)))
            }
            5 => only(kind, &rest).map(|[x, y]| Self::CursorAt(id, (x, y))),
            6 => only::<0>(kind, &rest).map(|_| Self::CursorHidden(id)),
            _ => Err(MessageError::Kind(kind)),
        }
    }

    /// Whether a memory file comes with it.
    pub fn has_file(self) -> bool {
        matches!(self, Self::Shown(..) | Self::Cursor(..))
    }
}

impl Input {
    /// The packet that says it.
    pub(crate) fn encode(self) -> [u8; MESSAGE] {
        let screen = |id: ScanoutId| u32::from(id.0);
        bytes(match self {
            Self::Presented(id) => [1, screen(id), 0, 0, 0, 0, 0, 0],
            Self::Size(id, Mode { width, height }) => [2, screen(id), width, height, 0, 0, 0, 0],
            Self::Key { code, down } => [3, 0, code.into(), down.into(), 0, 0, 0, 0],
            Self::AllUp => [4, 0, 0, 0, 0, 0, 0, 0],
            Self::Moved { dx, dy } => [5, 0, dx.cast_unsigned(), dy.cast_unsigned(), 0, 0, 0, 0],
            Self::At { scanout, x, y } => [6, screen(scanout), x.into(), y.into(), 0, 0, 0, 0],
            Self::Wheel { clicks } => [7, 0, clicks.cast_unsigned(), 0, 0, 0, 0, 0],
        })
    }

    /// What a packet says.
    pub fn decode(packet: &[u8]) -> Result<Self, MessageError> {
        let [kind, id, rest @ ..] = words(packet)?;
        let id = screen(id)?;
        let bad = MessageError::Value(kind);
        let axis = |value: u32| u16::try_from(value).ok().filter(|at| *at <= AXIS_MAX);
        match kind {
            1 => only::<0>(kind, &rest).map(|_| Self::Presented(id)),
            2 => {
                let [width, height] = only(kind, &rest)?;
                Ok(Self::Size(id, Mode::new(width, height).ok_or(bad)?))
            }
            3 => {
                let [code, down] = only(kind, &rest)?;
                let code = u16::try_from(code).map_err(|_| bad)?;
                let down = match down {
                    0 => false,
                    1 => true,
                    _ => return Err(bad),
                };
                Ok(Self::Key { code, down })
            }
            4 => only::<0>(kind, &rest).map(|_| Self::AllUp),
            5 => only(kind, &rest).map(|[dx, dy]: [u32; 2]| Self::Moved {
                dx: dx.cast_signed(),
                dy: dy.cast_signed(),
            }),
            6 => {
                let [x, y] = only(kind, &rest)?;
                let (x, y) = (axis(x).ok_or(bad)?, axis(y).ok_or(bad)?);
                Ok(Self::At { scanout: id, x, y })
            }
            7 => only(kind, &rest).map(|[clicks]: [u32; 1]| Self::Wheel {
                clicks: clicks.cast_signed(),
            }),
            _ => Err(MessageError::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mode(width: u32, height: u32) -> Mode {
        Mode::new(width, height).unwrap()
    }

    #[test]
    fn what_is_said_is_heard() {
        let last = ScanoutId::new(MAX_SCANOUTS - 1).unwrap();
        let scanout = Scanout::new(mode(1920, 1080), 7680, 4096).unwrap();
        let rect = Rect {
            x: 1,
            y: 2,
            width: 3,
            height: 4,
        };
        for picture in [
            Picture::Shown(last, scanout),
            Picture::Off(last),
            Picture::Damage(ScanoutId::FIRST, rect),
            Picture::Cursor(last, (63, 0)),
            Picture::CursorAt(last, (100, 200)),
            Picture::CursorHidden(last),
        ] {
            assert_eq!(Picture::decode(&picture.encode()), Ok(picture));
        }
        for input in [
            Input::Presented(last),
            Input::Size(last, mode(MAX_SIDE, 1)),
            Input::Key {
                code: 0x110,
                down: true,
            },
            Input::AllUp,
            Input::Moved { dx: -3, dy: 4 },
            Input::At {
                scanout: last,
                x: AXIS_MAX,
                y: 0,
            },
            Input::Wheel { clicks: -1 },
        ] {
            assert_eq!(Input::decode(&input.encode()), Ok(input));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let said = |words: Words| Picture::decode(&bytes(words));
        assert_eq!(Picture::decode(&[0; 31]), Err(MessageError::Length(31)));
        assert_eq!(said([9, 0, 0, 0, 0, 0, 0, 0]), Err(MessageError::Kind(9)));
        assert_eq!(
            said([2, 16, 0, 0, 0, 0, 0, 0]),
            Err(MessageError::Screen(16))
        );
        for shown in [
            [1, 0, 0, 1, 4, 0, 0, 0],
            [1, 0, 1, MAX_SIDE + 1, 4, 0, 0, 0],
            // Lines over each other, a pixel across words, a word without meaning.
            [1, 0, 2, 2, 4, 0, 0, 0],
            [1, 0, 1, 1, 6, 0, 0, 0],
            [1, 0, 1, 1, 4, 2, 0, 0],
            [1, 0, 1, 1, 4, 0, 0, 1],
        ] {
            assert_eq!(said(shown), Err(MessageError::Value(1)), "{shown:?}");
        }
        let heard = |words: Words| Input::decode(&bytes(words));
        for input in [
            [3, 0, 0x1_0000, 0, 0, 0, 0, 0],
            [3, 0, 30, 2, 0, 0, 0, 0],
            [6, 0, 0x8000, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(heard(input), Err(MessageError::Value(input[0])));
        }
    }

    #[test]
    fn a_part_is_cut_to_the_picture() {
        let rect = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        let picture = mode(100, 50);
        assert_eq!(
            rect(90, 40, u32::MAX, u32::MAX).within(picture),
            Some(rect(90, 40, 10, 10))
        );
        assert_eq!(rect(100, 0, 1, 1).within(picture), None);
        assert_eq!(rect(u32::MAX, 0, 1, 1).within(picture), None);
        assert_eq!(rect(0, 0, 0, 1).within(picture), None);
        assert_eq!(
            rect(10, 10, 5, 5).union(rect(2, 30, 4, 4)),
            rect(2, 10, 13, 24)
        );
    }

    proptest! {
        /// Whatever arrives: an error, or a message that is said in the same bytes.
        #[test]
        fn any_packet_is_a_message_or_an_error(
            kind in 0_u32..9,
            rest in prop::array::uniform7(prop_oneof![0_u32..20, any::<u32>()]),
        ) {
            let [id, a, b, c, d, e, f] = rest;
            let packet = bytes([kind, id, a, b, c, d, e, f]);
            if let Ok(picture) = Picture::decode(&packet) {
                prop_assert_eq!(picture.encode(), packet);
                if let Picture::Shown(_, scanout) = picture {
                    prop_assert!(scanout.end() > u64::from(scanout.offset()));
                }
            }
            if let Ok(input) = Input::decode(&packet) {
                prop_assert_eq!(input.encode(), packet);
            }
        }
    }
}
