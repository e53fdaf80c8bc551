//! The seat's state: what is shown, what has changed, and what the VMM is to hear. No sockets, no
//! clock, no screen.

use std::os::fd::OwnedFd;

use sekisho_seatlink::{Mode, Picture, Rect, ScanoutId};
use thiserror::Error;

use crate::frame::{Base, Frame, Scene};
use crate::notice::{Notices, Reason};
use crate::outbox::Outbox;
use crate::picture::{PictureError, Shape, Source};
use crate::place::Place;
use crate::watermark::{Minute, Watermark, WatermarkError};

/// The size of a screen that follows the guest's picture, until there is one.
const FIRST_SIZE: Mode = match Mode::new(1024, 768) {
    Some(mode) => mode,
    None => panic!("both sides are possible"),
};

/// What decides the size of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizing {
    /// The guest's picture: a window, a remote viewer.
    Picture,
    /// The screen that stands there.
    Screen(Mode),
}

/// Why the VMM is turned away.
#[derive(Debug, Error)]
pub enum SeatError {
    /// Its picture cannot be shown.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A picture without its file.
    #[error("a picture without its memory file")]
    File,
}

/// The seat of one person: the guest's first screen, keyboard and pointer. Further screens are
/// answered and not shown.
#[derive(Debug)]
pub struct Seat {
    frame: Frame,
    scene: Scene,
    watermark: Watermark,
    minute: Minute,
    sizing: Sizing,
    shape: Option<Shape>,
    point: Option<(u32, u32)>,
    /// What of the screen is to be composed.
    changed: Option<Rect>,
    /// The VMM waits for the answer to a damage that is not composed yet.
    asked: bool,
    /// It waits for the frame that is on its way.
    composed: bool,
    /// What the VMM is to hear.
    pub outbox: Outbox,
}

impl Seat {
    /// A seat that waits for its VMM.
    pub fn new(
        watermark: Watermark,
        notices: Notices,
        sizing: Sizing,
        minute: Minute,
    ) -> Result<Self, WatermarkError> {
        let scene = Scene {
            base: Base::Notice(Reason::Waiting),
            pointer: None,
            notices,
            marks: watermark.marks(&minute)?,
        };
        let screen = match sizing {
            Sizing::Screen(screen) => screen,
            Sizing::Picture => FIRST_SIZE,
        };
        let mut seat = Self {
            frame: Frame::new(screen),
            scene,
            watermark,
            minute,
            sizing,
            shape: None,
            point: None,
            changed: None,
            asked: false,
            composed: false,
            outbox: Outbox::default(),
        };
        seat.everything();
        Ok(seat)
    }

    /// A VMM has come.
    pub fn linked(&mut self) {
        self.outbox.start();
        if let Sizing::Screen(screen) = self.sizing {
            self.outbox.size(screen);
        }
        self.blank(Reason::Waiting);
    }

    /// The VMM has gone or was turned away: nothing of its picture stays.
    pub fn lost(&mut self) {
        self.outbox = Outbox::default();
        self.blank(Reason::Lost);
    }

    fn blank(&mut self, reason: Reason) {
        self.scene.base = Base::Notice(reason);
        (self.shape, self.point) = (None, None);
        (self.asked, self.composed) = (false, false);
        self.everything();
    }

    /// The screen that stands there has another size now.
    pub fn resized(&mut self, screen: Mode) {
        if self.sizing != Sizing::Screen(screen) {
            self.sizing = Sizing::Screen(screen);
            self.outbox.size(screen);
            self.everything();
        }
    }

    /// What the clock says. A new minute is written all over the screen.
    pub fn minute(&mut self, minute: Minute) -> Result<(), WatermarkError> {
        if minute != self.minute {
            self.scene.marks = self.watermark.marks(&minute)?;
            self.minute = minute;
            self.everything();
        }
        Ok(())
    }

    /// What the VMM says, with its file.
    ///
    /// # Errors
    /// It is not to be spoken with any more.
    pub fn heard(&mut self, picture: Picture, file: Option<OwnedFd>) -> Result<(), SeatError> {
        match picture {
            Picture::Shown(ScanoutId::FIRST, scanout) => {
                let source = Source::new(file.ok_or(SeatError::File)?, scanout)?;
                self.scene.base = Base::Picture(source);
                self.everything();
            }
            Picture::Off(ScanoutId::FIRST) => {
                self.scene.base = Base::Notice(Reason::Off);
                self.everything();
            }
            Picture::Damage(ScanoutId::FIRST, part) => {
                self.asked = true;
                self.changed_in_picture(part);
            }
            Picture::Damage(other, _) => self.outbox.presented(other),
            Picture::Cursor(ScanoutId::FIRST, hot) => {
                let shape = Shape::new(&file.ok_or(SeatError::File)?, hot)?;
                self.pointer(Some(shape), self.point);
            }
            Picture::CursorAt(ScanoutId::FIRST, at) => {
                let shape = self.shape.take();
                self.pointer(shape, Some(at));
            }
            Picture::CursorHidden(ScanoutId::FIRST) => self.pointer(None, self.point),
            Picture::Shown(..)
            | Picture::Off(_)
            | Picture::Cursor(..)
            | Picture::CursorAt(..)
            | Picture::CursorHidden(_) => {}
        }
        Ok(())
    }

    /// The pointer has this shape and this place now.
    fn pointer(&mut self, shape: Option<Shape>, point: Option<(u32, u32)>) {
        let before = self.scene.pointer.take();
        (self.shape, self.point) = (shape, point);
        self.scene.pointer = self.shape.clone().zip(point);
        let now = self.scene.pointer.clone();
        for (shape, at) in before.into_iter().chain(now) {
            self.changed_in_picture(shape.covers(at));
        }
    }

    fn changed_in_picture(&mut self, part: Rect) {
        if let Base::Picture(source) = &self.scene.base {
            let place = Place::new(source.scanout().mode(), self.size());
            self.changed(place.shown(part));
        }
    }

    /// The size of the screen, from the next frame on.
    fn size(&self) -> Mode {
        match (self.sizing, &self.scene.base) {
            (Sizing::Screen(screen), _) => screen,
            (Sizing::Picture, Base::Picture(source)) => source.scanout().mode(),
            (Sizing::Picture, Base::Notice(_)) => self.frame.screen(),
        }
    }

    fn everything(&mut self) {
        self.changed = None;
        self.changed(Some(Rect::whole(self.size())));
    }

    fn changed(&mut self, part: Option<Rect>) {
        self.changed = match (self.changed, part) {
            (Some(one), Some(other)) => Some(one.union(other)),
            (one, other) => one.or(other),
        };
    }

    /// Where the pointer of the person's desk is on the screen, as the VMM counts.
    pub fn axes(&self, x: u32, y: u32) -> (u16, u16) {
        let picture = match &self.scene.base {
            Base::Picture(source) => source.scanout().mode(),
            Base::Notice(_) => self.frame.screen(),
        };
        Place::new(picture, self.frame.screen()).axes(x, y)
    }

    /// Whether there is something to compose or to answer.
    pub fn is_due(&self) -> bool {
        self.changed.is_some() || self.asked
    }

    /// Composes what has changed. The part of the screen that is new; none if there is none.
    ///
    /// # Errors
    /// The picture cannot be read. The VMM is to be turned away, and nothing of the frame is to be
    /// shown before [`Self::lost`] and the next `compose`.
    pub fn compose(&mut self) -> Result<Option<Rect>, SeatError> {
        let asked = std::mem::take(&mut self.asked);
        self.composed |= asked;
        let size = self.size();
        let new = size != self.frame.screen();
        if new {
            self.frame = Frame::new(size);
        }
        let Some(part) = self.changed.take().and_then(|part| part.within(size)) else {
            return Ok(None);
        };
        let part = if new { Rect::whole(size) } else { part };
        self.frame.compose(&self.scene, part)?;
        Ok(Some(part))
    }

    /// What was composed is on the screen.
    pub fn presented(&mut self) {
        if std::mem::take(&mut self.composed) {
            self.outbox.presented(ScanoutId::FIRST);
        }
    }

    /// What is on the screen, or will be with the next frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sekisho_seatlink::{Input, Scanout};

    use super::*;
    use crate::font::tests::font;
    use crate::notice::Language;
    use crate::picture::tests::{memory, pixels, scanout};
    use crate::watermark::tests::{minute, style, watermark};

    fn seat(sizing: Sizing) -> Seat {
        let notices = Notices::new(&font(), Language::Japanese).unwrap();
        Seat::new(watermark(style()), notices, sizing, minute()).unwrap()
    }

    fn mode(width: u32, height: u32) -> Mode {
        Mode::new(width, height).unwrap()
    }

    fn shown(width: u32, height: u32) -> (Picture, Option<OwnedFd>) {
        let file = pixels(&vec![0x80_8080; usize::try_from(width * height).unwrap()]);
        let picture = Picture::Shown(ScanoutId::FIRST, scanout(width, height));
        (picture, Some(file))
    }

    fn damage(x: u32, y: u32, width: u32, height: u32) -> (Picture, Option<OwnedFd>) {
        let part = Rect {
            x,
            y,
            width,
            height,
        };
        (Picture::Damage(ScanoutId::FIRST, part), None)
    }

    fn say(seat: &mut Seat, (picture, file): (Picture, Option<OwnedFd>)) {
        seat.heard(picture, file).unwrap();
    }

    fn told(seat: &mut Seat) -> Vec<Input> {
        std::iter::from_fn(|| {
            let next = seat.outbox.next();
            seat.outbox.said();
            next
        })
        .collect()
    }

    #[test]
    fn damage_is_answered_when_it_is_on_the_screen_and_not_before() {
        let mut seat = seat(Sizing::Picture);
        seat.linked();
        assert_eq!(told(&mut seat), [Input::AllUp]);
        say(&mut seat, shown(200, 100));
        assert_eq!(seat.compose().unwrap(), Some(Rect::whole(mode(200, 100))));
        seat.presented();
        assert_eq!(told(&mut seat), []);
        say(&mut seat, damage(10, 20, 30, 40));
        let part = seat.compose().unwrap().unwrap();
        assert_eq!((part.x, part.y), (10, 20));
        assert!(part.width <= 31 && part.height <= 41);
        assert_eq!(told(&mut seat), []);
        // Comes while the frame is on its way: answered with the next.
        say(&mut seat, damage(0, 0, 1, 1));
        seat.presented();
        let presented = [Input::Presented(ScanoutId::FIRST)];
        assert_eq!(told(&mut seat), presented);
        assert!(seat.is_due());
        seat.compose().unwrap().unwrap();
        seat.presented();
        assert_eq!(told(&mut seat), presented);
        // Damage of nothing is answered too, or the guest's screen would stand still.
        say(&mut seat, damage(500, 500, 1, 1));
        assert_eq!(seat.compose().unwrap(), None);
        seat.presented();
        assert_eq!(told(&mut seat), presented);
        assert!(!seat.is_due());
    }

    #[test]
    fn another_screen_is_answered_and_not_shown() {
        let mut seat = seat(Sizing::Picture);
        seat.compose().unwrap();
        let other = ScanoutId::new(3).unwrap();
        let Picture::Shown(_, lies) = shown(8, 8).0 else {
            unreachable!()
        };
        say(&mut seat, (Picture::Shown(other, lies), shown(8, 8).1));
        let part = Rect::whole(mode(8, 8));
        say(&mut seat, (Picture::Damage(other, part), None));
        assert_eq!(told(&mut seat), [Input::Presented(other)]);
        assert!(!seat.is_due());
    }

    #[test]
    fn a_lost_link_leaves_a_notice_and_nothing_of_the_picture() {
        let mut seat = seat(Sizing::Picture);
        seat.linked();
        let white = pixels(&vec![0xff_ffff; 600 * 300]);
        let picture = Picture::Shown(ScanoutId::FIRST, scanout(600, 300));
        say(&mut seat, (picture, Some(white)));
        say(&mut seat, damage(0, 0, 600, 300));
        seat.compose().unwrap();
        seat.outbox.key(30, true);
        seat.lost();
        assert_eq!(seat.compose().unwrap(), Some(Rect::whole(mode(600, 300))));
        seat.presented();
        // Nobody is there to hear anything.
        assert_eq!(told(&mut seat), []);
        let light = (0..300).flat_map(|y| seat.frame().line(y, 0, 600));
        let light = light.filter(|pixel| **pixel & 0xff > 0xc0).count();
        // The letters of the notice, and no white ground.
        assert!((300..30_000).contains(&light), "{light}");
        seat.linked();
        assert_eq!(told(&mut seat), [Input::AllUp]);
    }

    #[test]
    fn a_new_minute_is_written_all_over() {
        let mut seat = seat(Sizing::Picture);
        say(&mut seat, shown(400, 300));
        seat.compose().unwrap();
        let before: Vec<u32> = (0..300)
            .flat_map(|y| seat.frame().line(y, 0, 400).to_vec())
            .collect();
        seat.minute(minute()).unwrap();
        assert!(!seat.is_due());
        let next = Minute {
            time: "09:06".to_owned(),
            ..minute()
        };
        seat.minute(next).unwrap();
        assert_eq!(seat.compose().unwrap(), Some(Rect::whole(mode(400, 300))));
        let after: Vec<u32> = (0..300)
            .flat_map(|y| seat.frame().line(y, 0, 400).to_vec())
            .collect();
        assert!(before != after);
    }

    #[test]
    fn a_screen_that_stands_there_keeps_its_size_and_tells_it() {
        let screen = mode(1280, 800);
        let mut seat = seat(Sizing::Screen(screen));
        seat.linked();
        let size = Input::Size(ScanoutId::FIRST, screen);
        assert_eq!(told(&mut seat), [size, Input::AllUp]);
        say(&mut seat, shown(640, 400));
        seat.compose().unwrap();
        assert_eq!(seat.frame().screen(), screen);
        say(&mut seat, damage(1, 1, 1, 1));
        let part = seat.compose().unwrap().unwrap();
        assert_eq!((part.x, part.y), (2, 2));
        seat.resized(mode(1920, 1080));
        let size = Input::Size(ScanoutId::FIRST, mode(1920, 1080));
        assert_eq!(told(&mut seat), [size]);
        seat.compose().unwrap();
        assert_eq!(seat.frame().screen(), mode(1920, 1080));
    }

    #[test]
    fn the_pointer_moves_and_leaves_no_trace() {
        let mut seat = seat(Sizing::Picture);
        say(&mut seat, shown(300, 200));
        seat.compose().unwrap();
        let picture = |seat: &Seat| -> Vec<u32> {
            (0..200)
                .flat_map(|y| seat.frame().line(y, 0, 300).to_vec())
                .collect()
        };
        let bare = picture(&seat);
        let red = pixels(&vec![0xffff_0000; 64 * 64]);
        say(
            &mut seat,
            (Picture::Cursor(ScanoutId::FIRST, (0, 0)), Some(red)),
        );
        assert!(!seat.is_due());
        say(
            &mut seat,
            (Picture::CursorAt(ScanoutId::FIRST, (50, 50)), None),
        );
        seat.compose().unwrap().unwrap();
        assert!(seat.frame().line(60, 60, 1)[0] >> 16 > 0xe0);
        say(
            &mut seat,
            (Picture::CursorAt(ScanoutId::FIRST, (290, 190)), None),
        );
        seat.compose().unwrap().unwrap();
        assert!(seat.frame().line(195, 295, 1)[0] >> 16 > 0xe0);
        assert_eq!(seat.frame().line(60, 60, 1)[0], bare[60 * 300 + 60]);
        say(&mut seat, (Picture::CursorHidden(ScanoutId::FIRST), None));
        seat.compose().unwrap().unwrap();
        assert!(picture(&seat) == bare);
    }

    #[test]
    fn a_picture_that_cannot_be_trusted_is_refused() {
        let mut seat = seat(Sizing::Picture);
        let (picture, _) = shown(16, 16);
        let unsealed = memory(&[0; 1024], rustix::fs::SealFlags::empty());
        for file in [None, Some(unsealed), Some(pixels(&[0; 255]))] {
            assert!(seat.heard(picture, file).is_err());
        }
        let cursor = Picture::Cursor(ScanoutId::FIRST, (0, 0));
        assert!(seat.heard(cursor, Some(pixels(&[0; 16]))).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the VMM says in whatever order: what is composed piece by piece is the frame
        /// that would be composed at once.
        #[test]
        fn any_words_leave_the_frame_whole(
            words in prop::collection::vec((0_u8..7, 0_u32..260, 0_u32..180, any::<u16>()), 1..24),
        ) {
            let mut seat = seat(Sizing::Screen(mode(240, 160)));
            seat.linked();
            for (kind, x, y, more) in words {
                let (width, height) = (u32::from(more & 0xff), u32::from(more >> 8));
                match kind {
                    0 => say(&mut seat, shown(x.max(1), y.max(1))),
                    1 => say(&mut seat, (Picture::Off(ScanoutId::FIRST), None)),
                    2 => say(&mut seat, damage(x, y, width, height)),
                    3 => {
                        let shape = pixels(&vec![u32::from(more) << 16 | 0xff; 64 * 64]);
                        let picture = Picture::Cursor(ScanoutId::FIRST, (x % 64, y % 64));
                        say(&mut seat, (picture, Some(shape)));
                    }
                    4 => say(&mut seat, (Picture::CursorAt(ScanoutId::FIRST, (x, y)), None)),
                    5 => say(&mut seat, (Picture::CursorHidden(ScanoutId::FIRST), None)),
                    _ => {
                        seat.compose().unwrap();
                        seat.presented();
                    }
                }
            }
            seat.compose().unwrap();
            let lines = |seat: &Seat| -> Vec<u32> {
                (0..160).flat_map(|y| seat.frame().line(y, 0, 240).to_vec()).collect()
            };
            let pieces = lines(&seat);
            seat.everything();
            seat.compose().unwrap();
            prop_assert!(pieces == lines(&seat));
        }
    }

    #[test]
    fn the_largest_picture_is_taken_by_its_length_alone() {
        let lies = Scanout::new(mode(8192, 8192), !3, 0).unwrap();
        let error = seat(Sizing::Picture)
            .heard(
                Picture::Shown(ScanoutId::FIRST, lies),
                Some(pixels(&[0; 16])),
            )
            .unwrap_err();
        assert!(matches!(
            error,
            SeatError::Picture(PictureError::Short { length: 64, .. })
        ));
    }
}
