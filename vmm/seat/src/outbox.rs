//! What waits to be told to the VMM. A VMM that does not listen costs a bounded number of words.

use std::collections::{BTreeSet, VecDeque};

use sekisho_seatlink::{Input, Link, LinkError, Mode, ScanoutId};

/// Keys and movements that wait: a second of fast typing and pointing. What comes on top would be
/// heard long after it was done, so that all is forgotten then and every key is up.
const MAX_WAITING: usize = 256;

/// Words for the VMM, and which keys it believes to be down.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Screens whose damage has been presented, one bit each: these are never lost.
    presented: u16,
    size: Option<Mode>,
    waiting: VecDeque<Input>,
    held: BTreeSet<u16>,
}

impl Outbox {
    /// For a new VMM: it hears first that every key is up.
    pub fn start(&mut self) {
        *self = Self {
            waiting: VecDeque::from([Input::AllUp]),
            ..Self::default()
        };
    }

    /// The damage of that screen has been presented.
    pub fn presented(&mut self, screen: ScanoutId) {
        self.presented |= 1 << screen.number();
    }

    /// The first screen has that size.
    pub fn size(&mut self, screen: Mode) {
        self.size = Some(screen);
    }

    /// A key or a button; one that is up already does not go up again.
    pub fn key(&mut self, code: u16, down: bool) {
        let news = if down {
            self.held.insert(code);
            true
        } else {
            self.held.remove(&code)
        };
        if news {
            self.push(Input::Key { code, down });
        }
    }

    /// The person looks elsewhere.
    pub fn all_up(&mut self) {
        if !std::mem::take(&mut self.held).is_empty() {
            self.push(Input::AllUp);
        }
    }

    /// The pointer is here on the first screen.
    pub fn at(&mut self, (x, y): (u16, u16)) {
        let here = Input::At {
            scanout: ScanoutId::FIRST,
            x,
            y,
        };
        match self.waiting.back_mut() {
            Some(last @ Input::At { .. }) => *last = here,
            _ => self.push(here),
        }
    }

    /// The pointer was moved.
    pub fn moved(&mut self, right: i32, down: i32) {
        match self.waiting.back_mut() {
            Some(Input::Moved { dx, dy }) => {
                (*dx, *dy) = (dx.saturating_add(right), dy.saturating_add(down));
            }
            _ => self.push(Input::Moved {
                dx: right,
                dy: down,
            }),
        }
    }

    /// The wheel was turned.
    pub fn wheel(&mut self, clicks: i32) {
        self.push(Input::Wheel { clicks });
    }

    fn push(&mut self, input: Input) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.clear();
            self.held.clear();
            self.waiting.push_back(Input::AllUp);
        } else {
            self.waiting.push_back(input);
        }
    }

    /// The next word.
    pub fn next(&self) -> Option<Input> {
        let screen = u8::try_from(self.presented.trailing_zeros()).ok();
        if let Some(screen) = screen.and_then(ScanoutId::new) {
            return Some(Input::Presented(screen));
        }
        let size = self.size.map(|size| Input::Size(ScanoutId::FIRST, size));
        size.or_else(|| self.waiting.front().copied())
    }

    /// Takes the next word out: it was said.
    pub fn said(&mut self) {
        if self.presented != 0 {
            self.presented &= self.presented - 1;
        } else if self.size.take().is_none() {
            self.waiting.pop_front();
        }
    }

    /// Says what waits, as long as there is room.
    pub fn flush(&mut self, link: &Link) -> Result<(), LinkError> {
        while let Some(input) = self.next() {
            if !link.tell(input)? {
                break;
            }
            self.said();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(outbox: &mut Outbox) -> Vec<Input> {
        std::iter::from_fn(|| {
            let next = outbox.next();
            outbox.said();
            next
        })
        .collect()
    }

    fn key(code: u16, down: bool) -> Input {
        Input::Key { code, down }
    }

    #[test]
    fn keys_that_are_down_go_up_together_and_once() {
        let mut outbox = Outbox::default();
        outbox.start();
        outbox.key(30, true);
        outbox.key(42, true);
        outbox.key(30, false);
        outbox.key(30, false);
        outbox.all_up();
        outbox.all_up();
        outbox.key(42, false);
        let said = [
            Input::AllUp,
            key(30, true),
            key(42, true),
            key(30, false),
            Input::AllUp,
        ];
        assert_eq!(all(&mut outbox), said);
    }

    #[test]
    fn movements_are_put_together_and_never_across_a_button() {
        let mut outbox = Outbox::default();
        outbox.at((1, 1));
        outbox.at((2, 2));
        outbox.key(0x110, true);
        outbox.at((3, 3));
        outbox.moved(1, 2);
        outbox.moved(i32::MAX, -3);
        let at = |x, y| Input::At {
            scanout: ScanoutId::FIRST,
            x,
            y,
        };
        let moved = Input::Moved {
            dx: i32::MAX,
            dy: -1,
        };
        let said = [at(2, 2), key(0x110, true), at(3, 3), moved];
        assert_eq!(all(&mut outbox), said);
    }

    #[test]
    fn a_vmm_that_does_not_listen_leaves_no_key_down_and_loses_no_answer() {
        let mut outbox = Outbox::default();
        outbox.presented(ScanoutId::FIRST);
        outbox.presented(ScanoutId::new(15).unwrap());
        let mode = Mode::new(640, 480).unwrap();
        outbox.size(mode);
        for turn in 0..10_000 {
            outbox.key(30, turn % 2 == 0);
            assert!(outbox.waiting.len() <= MAX_WAITING);
        }
        let said = all(&mut outbox);
        let first = [
            Input::Presented(ScanoutId::FIRST),
            Input::Presented(ScanoutId::new(15).unwrap()),
            Input::Size(ScanoutId::FIRST, mode),
            Input::AllUp,
        ];
        assert_eq!(said[..4], first);
    }

    #[test]
    fn a_full_socket_keeps_what_was_not_said() {
        let (vmm, seat) = Link::pair().unwrap();
        let mut outbox = Outbox::default();
        let mut heard = 0;
        for _ in 0..5000 {
            outbox.wheel(1);
            outbox.flush(&seat).unwrap();
            if outbox.next().is_some() {
                break;
            }
        }
        assert!(outbox.next().is_some());
        while vmm.input().unwrap().is_some() {
            heard += 1;
        }
        assert!(heard > 0);
        outbox.flush(&seat).unwrap();
        assert_eq!(vmm.input().unwrap(), Some(Input::Wheel { clicks: 1 }));
    }
}
