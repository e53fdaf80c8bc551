//! The conversation with the seat: what it has been told, and whether it may be told more.
//!
//! The seat is hostile as the guest is. It may stall, which costs nothing but its own picture; lie,
//! of which nothing is believed but that it wants more; or die, after which another one is told
//! everything anew.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use sekisho_seatlink::{Input, Link, LinkError, Picture, Rect, Scanout, ScanoutId};

use super::pace::Pace;

/// Inputs taken in one turn: a mouse of 1000 reports a second stays far below, and a seat that floods
/// the link leaves the other devices their turns.
const INPUTS: usize = 64;

/// What the seat shows, as far as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Off,
    /// On the canvas of this number.
    Shown(u8, Scanout),
}

/// The guest's pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pointer {
    /// Whether it is to be seen.
    pub(super) seen: bool,
    /// Counts its pictures.
    pub(super) shape: u32,
    /// Its point, from the corner of its picture.
    pub(super) hot: (u32, u32),
    /// Where its point is.
    pub(super) at: (u32, u32),
}

/// A seat that is there.
pub(super) struct Seat {
    link: Link,
    told: Told,
    pointer: Pointer,
    /// A damage was told and is not presented yet.
    owed: bool,
    /// The socket had no room.
    full: bool,
    pace: Pace,
}

/// What a look at the memory is asked of.
pub(super) trait Canvas {
    /// Tells it from the other one.
    fn number(&self) -> u8;
    /// What is to be seen.
    fn scanout(&self) -> Option<Scanout>;
    /// The memory's file.
    fn file(&self) -> BorrowedFd<'_>;
    /// The pointer on it.
    fn pointer(&self) -> Pointer;
    /// The file of the pointer's picture.
    fn pointer_file(&self) -> BorrowedFd<'_>;
    /// Whether it wakes the thread when something changes, and need not be looked at.
    fn wakes(&self) -> bool;
    /// Everything counts as changed.
    fn soil(&mut self);
    /// What of this picture has changed since [`Canvas::told`].
    fn changed(&mut self, scanout: Scanout) -> Option<Rect>;
    /// The seat knows of all changes.
    fn told(&mut self);
}

impl Seat {
    /// A seat that knows nothing yet.
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            told: Told::Nothing,
            pointer: Pointer::default(),
            owed: false,
            full: false,
            pace: Pace::default(),
        }
    }

    /// Its socket, and whether to wait until it has room.
    pub(super) fn source(&self) -> (BorrowedFd<'_>, bool) {
        (self.link.as_fd(), self.full)
    }

    /// Takes in what it says, a bounded number of messages; whether there may be more now.
    pub(super) fn hear(&mut self, mut input: impl FnMut(Input)) -> Result<bool, LinkError> {
        for _ in 0..INPUTS {
            match self.link.input()? {
                None => return Ok(false),
                Some(Input::Presented(ScanoutId::FIRST)) => self.owed = false,
                // Another screen than there is.
                Some(Input::Presented(_)) => {}
                Some(said) => {
                    // What is typed is to be seen.
                    self.pace.hurry();
                    input(said);
                }
            }
        }
        Ok(true)
    }

    /// As if the last look were long ago.
    pub(super) fn forget_time(&mut self) {
        self.pace = Pace::default();
    }

    /// The socket has room again.
    pub(super) fn has_room(&mut self) {
        self.full = false;
    }

    /// Something is new: it is told as soon as the pace lets it.
    pub(super) fn hurry(&mut self) {
        self.pace.hurry();
    }

    /// Tells what is due now; when to be called again, if by the clock at all.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        canvas: &mut impl Canvas,
    ) -> Result<Option<Instant>, LinkError> {
        if self.owed || self.full {
            return Ok(None);
        }
        let due = self.pace.due(now);
        if due > now {
            return Ok(Some(due));
        }
        let current = canvas
            .scanout()
            .map_or(Told::Off, |scanout| Told::Shown(canvas.number(), scanout));
        let news = current != self.told;
        if news {
            let (picture, file) = match current {
                Told::Shown(_, scanout) => (
                    Picture::Shown(ScanoutId::FIRST, scanout),
                    Some(canvas.file()),
                ),
                _ => (Picture::Off(ScanoutId::FIRST), None),
            };
            if !self.link.show(picture, file)? {
                self.full = true;
                return Ok(None);
            }
            self.told = current;
            canvas.soil();
        }
        let moved = canvas.pointer() != self.pointer;
        if moved && !self.tell_pointer(canvas)? {
            self.full = true;
            return Ok(None);
        }
        let Told::Shown(_, scanout) = self.told else {
            // Whoever sets a mode wakes us.
            self.pace.looked(now, true);
            return Ok(None);
        };
        let changed = canvas.changed(scanout);
        self.pace.looked(now, moved || changed.is_some());
        let Some(part) = changed else {
            return Ok((!canvas.wakes()).then(|| self.pace.due(now)));
        };
        if self
            .link
            .show(Picture::Damage(ScanoutId::FIRST, part), None)?
        {
            canvas.told();
            self.owed = true;
        } else {
            self.full = true;
        }
        Ok(None)
    }

    /// Tells what is new of the pointer; false where there was no room for it.
    fn tell_pointer(&mut self, canvas: &impl Canvas) -> Result<bool, LinkError> {
        let id = ScanoutId::FIRST;
        let (before, now) = (self.pointer, canvas.pointer());
        let unseen = Pointer { seen: false, ..now };
        if !now.seen {
            let told = !before.seen || self.link.show(Picture::CursorHidden(id), None)?;
            if told {
                self.pointer = unseen;
            }
            return Ok(told);
        }
        if !before.seen || (before.shape, before.hot) != (now.shape, now.hot) {
            let file = canvas.pointer_file();
            if !self.link.show(Picture::Cursor(id, now.hot), Some(file))? {
                return Ok(false);
            }
        }
        // Told again where it was not seen, for the seat need not remember.
        if (!before.seen || before.at != now.at)
            && !self.link.show(Picture::CursorAt(id, now.at), None)?
        {
            return Ok(false);
        }
        self.pointer = now;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{MemfdFlags, memfd_create};
    use sekisho_seatlink::Mode;

    use super::super::pace::{FRAME, IDLE};
    use super::*;

    struct Paper {
        scanout: Option<Scanout>,
        file: std::os::fd::OwnedFd,
        dirty: Option<Rect>,
        pointer: Pointer,
        looks: usize,
    }

    impl Canvas for Paper {
        fn number(&self) -> u8 {
            0
        }

        fn pointer(&self) -> Pointer {
            self.pointer
        }

        fn pointer_file(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }

        fn wakes(&self) -> bool {
            false
        }

        fn scanout(&self) -> Option<Scanout> {
            self.scanout
        }

        fn file(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }

        fn soil(&mut self) {
            self.dirty = self.scanout.map(|scanout| Rect::whole(scanout.mode()));
        }

        fn changed(&mut self, _scanout: Scanout) -> Option<Rect> {
            self.looks += 1;
            self.dirty
        }

        fn told(&mut self) {
            self.dirty = None;
        }
    }

    fn scanout(width: u32) -> Scanout {
        Scanout::new(Mode::new(width, 10).unwrap(), 4 * width, 0).unwrap()
    }

    const PART: Rect = Rect {
        x: 1,
        y: 2,
        width: 3,
        height: 4,
    };

    /// A seat's two ends, paper, and a time.
    fn bench() -> (Seat, Link, Paper, Instant) {
        let (vmm, seat) = Link::pair().unwrap();
        let paper = Paper {
            scanout: Some(scanout(20)),
            file: memfd_create("paper", MemfdFlags::CLOEXEC).unwrap(),
            dirty: None,
            pointer: Pointer::default(),
            looks: 0,
        };
        (Seat::new(vmm), seat, paper, Instant::now())
    }

    fn said(link: &Link) -> Vec<Picture> {
        std::iter::from_fn(|| link.picture().unwrap().map(|(picture, _)| picture)).collect()
    }

    #[test]
    fn after_a_damage_nothing_is_said_before_it_is_presented() {
        let (mut seat, link, mut paper, mut now) = bench();
        assert_eq!(seat.tell(now, &mut paper).unwrap(), None);
        let id = ScanoutId::FIRST;
        let whole = Rect::whole(scanout(20).mode());
        assert_eq!(
            said(&link),
            [Picture::Shown(id, scanout(20)), Picture::Damage(id, whole)]
        );
        // The picture moves and the mode changes: the seat hears of it when it asks.
        let looks = paper.looks;
        for _ in 0..100 {
            now += IDLE;
            paper.dirty = Some(PART);
            paper.scanout = Some(scanout(30));
            seat.hurry();
            assert_eq!(seat.tell(now, &mut paper).unwrap(), None);
        }
        assert_eq!((said(&link), paper.looks), (vec![], looks));
        // Another screen's answer is none.
        link.tell(Input::Presented(ScanoutId::new(1).unwrap()))
            .unwrap();
        seat.hear(|_| panic!("no input")).unwrap();
        seat.tell(now, &mut paper).unwrap();
        assert_eq!(said(&link), []);
        link.tell(Input::Presented(id)).unwrap();
        seat.hear(|_| panic!("no input")).unwrap();
        seat.tell(now, &mut paper).unwrap();
        let whole = Rect::whole(scanout(30).mode());
        assert_eq!(
            said(&link),
            [Picture::Shown(id, scanout(30)), Picture::Damage(id, whole)]
        );
    }

    #[test]
    fn a_guest_that_changes_modes_without_end_is_told_sixty_times_a_second() {
        let (mut seat, link, mut paper, start) = bench();
        let mut told = 0;
        for step in 0..10_000 {
            let now = start + Duration::from_micros(100) * step;
            paper.scanout = (step % 2 == 0).then(|| scanout(20 + step % 7));
            seat.hurry();
            seat.tell(now, &mut paper).unwrap();
            for picture in said(&link) {
                told += 1;
                if let Picture::Damage(id, _) = picture {
                    link.tell(Input::Presented(id)).unwrap();
                }
            }
            seat.hear(|_| {}).unwrap();
        }
        // Each time a mode and its damage.
        assert!((60..=122).contains(&told), "{told}");
    }

    #[test]
    fn a_still_picture_is_looked_at_seldom_and_typing_makes_it_often() {
        let (mut seat, link, mut paper, start) = bench();
        seat.tell(start, &mut paper).unwrap();
        link.tell(Input::Presented(ScanoutId::FIRST)).unwrap();
        seat.hear(|_| {}).unwrap();
        let mut now = start;
        let end = start + Duration::from_secs(10);
        let (mut turns, mut last) = (0, start);
        while now < end {
            turns += 1;
            last = now;
            now = seat.tell(now, &mut paper).unwrap().unwrap();
        }
        // Five a second once it is slow.
        assert!((50..60).contains(&turns), "{turns}");
        assert_eq!(paper.looks, turns);
        link.tell(Input::AllUp).unwrap();
        let mut heard = Vec::new();
        seat.hear(|input| heard.push(input)).unwrap();
        assert_eq!(heard, [Input::AllUp]);
        paper.dirty = Some(PART);
        seat.tell(last + FRAME, &mut paper).unwrap();
        let last = said(&link).last().copied();
        assert_eq!(last, Some(Picture::Damage(ScanoutId::FIRST, PART)));
    }

    #[test]
    fn a_pointer_is_told_as_far_as_it_is_new() {
        let (mut seat, link, mut paper, mut now) = bench();
        let id = ScanoutId::FIRST;
        let mut turn = |paper: &mut Paper| {
            seat.tell(now, paper).unwrap();
            link.tell(Input::Presented(id)).unwrap();
            seat.hear(|_| {}).unwrap();
            now += IDLE;
            said(&link)
        };
        turn(&mut paper);
        paper.pointer.at = (5, 6);
        assert_eq!(turn(&mut paper), [], "it is not seen");
        paper.pointer.seen = true;
        let both = [Picture::Cursor(id, (0, 0)), Picture::CursorAt(id, (5, 6))];
        assert_eq!(turn(&mut paper), both);
        paper.pointer.at = (7, 8);
        assert_eq!(turn(&mut paper), [Picture::CursorAt(id, (7, 8))]);
        paper.pointer.shape += 1;
        assert_eq!(turn(&mut paper), [Picture::Cursor(id, (0, 0))]);
        assert_eq!(turn(&mut paper), []);
        paper.pointer.seen = false;
        assert_eq!(turn(&mut paper), [Picture::CursorHidden(id)]);
        paper.pointer.at = (1, 1);
        assert_eq!(turn(&mut paper), []);
    }

    #[test]
    fn a_screen_that_is_off_is_told_once_and_wakes_nobody() {
        let (mut seat, link, mut paper, now) = bench();
        paper.scanout = None;
        assert_eq!(seat.tell(now, &mut paper).unwrap(), None);
        assert_eq!(seat.tell(now + IDLE, &mut paper).unwrap(), None);
        assert_eq!(said(&link), [Picture::Off(ScanoutId::FIRST)]);
        assert_eq!(paper.looks, 0);
    }

    #[test]
    fn a_seat_that_floods_is_heard_in_pieces_and_one_that_lies_is_dropped() {
        let (mut seat, link, ..) = bench();
        let mut told = 0;
        while link.tell(Input::AllUp).unwrap() {
            told += 1;
        }
        let mut heard = 0;
        assert!(seat.hear(|_| heard += 1).unwrap());
        assert_eq!(heard, INPUTS);
        while seat.hear(|_| heard += 1).unwrap() {}
        assert_eq!(heard, told);
        rustix::net::send(&link, &[0; 32], rustix::net::SendFlags::empty()).unwrap();
        assert!(seat.hear(|_| panic!("no input")).is_err());
    }

    #[test]
    fn what_a_full_socket_did_not_take_is_said_when_there_is_room() {
        let (mut seat, link, mut paper, mut now) = bench();
        // Nobody reads, and somebody claims that all is presented.
        let mut turns = 0;
        while !seat.full {
            paper.scanout = (turns % 2 == 0).then(|| scanout(20));
            seat.tell(now, &mut paper).unwrap();
            seat.owed = false;
            now += IDLE;
            turns += 1;
            assert!(turns < 100_000);
        }
        assert_eq!(seat.tell(now, &mut paper).unwrap(), None);
        let _ = said(&link);
        seat.has_room();
        paper.scanout = Some(scanout(40));
        seat.tell(now + IDLE, &mut paper).unwrap();
        assert_eq!(
            said(&link).first(),
            Some(&Picture::Shown(ScanoutId::FIRST, scanout(40)))
        );
    }
}
