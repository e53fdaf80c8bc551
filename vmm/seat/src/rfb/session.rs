//! One viewer, from its greeting on: bytes in, events out; a frame in, bytes out.

use sekisho_seatlink::{Mode, Rect};

use super::encode::{Zrle, raw};
use super::keysym::{self, Layout};
use super::message::{Message, RfbError, parse};
use super::pixel::Format;
use super::scancode;
use crate::frame::Frame;

const VERSION: &[u8; 12] = b"RFB 003.008\n";
const NAME: &[u8] = b"Sekisho";
/// The one way to be let in (RFC 6143 §7.2.1): who may open the socket may look.
const NO_AUTHENTICATION: u8 = 1;
/// Bytes that wait to be understood: the longest message has 4 + 4 · 256.
const MAX_UNREAD: usize = 4096;

/// Encodings (RFC 6143 §7.7, §7.8, and the registry of rfbproto).
const RAW: i32 = 0;
const ZRLE: i32 = 16;
const DESKTOP_SIZE: i32 = -223;
const CURSOR: i32 = -239;
const EXTENDED_KEYS: i32 = -258;

/// `BTN_LEFT`, `BTN_MIDDLE`, `BTN_RIGHT`: the first three bits of a viewer's buttons.
const BUTTONS: [u16; 3] = [0x110, 0x112, 0x111];
const WHEEL_UP: u8 = 1 << 3;
const WHEEL_DOWN: u8 = 1 << 4;

/// What the person at the viewer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A key or a button.
    Key {
        /// Its number.
        code: u16,
        /// Down.
        down: bool,
    },
    /// The pointer is here, in pixels of the frame.
    At {
        /// From the left.
        x: u32,
        /// From the top.
        y: u32,
    },
    /// The wheel was turned, up being positive.
    Wheel(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Version,
    /// Since 3.7 the viewer chooses; since 3.8 it hears that it was let in.
    Security {
        answered: bool,
    },
    Start,
    Open,
}

/// One viewer.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether the viewer has told one thing"
)]
#[derive(Debug)]
pub struct Session {
    layout: Layout,
    step: Step,
    unread: Vec<u8>,
    /// Bytes of text that are still to come and are not wanted.
    skip: usize,
    unsent: Vec<u8>,
    sent: usize,
    format: Format,
    zrle: Option<Zrle>,
    wants_zrle: bool,
    follows_size: bool,
    /// Pseudo-encodings that are to be answered once.
    hide_pointer: bool,
    offer_keys: bool,
    extended_keys: bool,
    /// The size that the viewer knows.
    size: Mode,
    /// The viewer waits for an update.
    asked: bool,
    changed: Option<Rect>,
    buttons: u8,
}

impl Session {
    /// A viewer that has just come.
    pub fn new(layout: Layout, size: Mode) -> Self {
        Self {
            layout,
            step: Step::Version,
            unread: Vec::new(),
            skip: 0,
            unsent: VERSION.to_vec(),
            sent: 0,
            format: Format::OWN,
            zrle: None,
            wants_zrle: false,
            follows_size: false,
            hide_pointer: false,
            offer_keys: false,
            extended_keys: false,
            size,
            asked: false,
            changed: None,
            buttons: 0,
        }
    }

    /// Whether it has got through its greeting.
    pub fn is_open(&self) -> bool {
        self.step == Step::Open
    }

    /// What is to be sent.
    pub fn unsent(&self) -> &[u8] {
        self.unsent.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.unsent().is_empty() {
            self.unsent.clear();
            self.sent = 0;
        }
    }

    /// Takes what the viewer sent; at most [`Session::room`] bytes.
    ///
    /// # Errors
    /// It is to be sent away.
    pub fn receive(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), RfbError> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.unread.extend_from_slice(&bytes[skipped..]);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.as_slice();
        while let Some(used) = self.take(rest, events)? {
            rest = rest.get(used..).unwrap_or_default();
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
        }
        self.unread = rest.to_vec();
        Ok(())
    }

    /// How many bytes it takes now.
    pub fn room(&self) -> usize {
        MAX_UNREAD - self.unread.len().min(MAX_UNREAD - 1)
    }

    /// Takes one message; its length, or none if it is not all there.
    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<Option<usize>, RfbError> {
        match self.step {
            Step::Version => {
                let Some(version) = bytes.get(..VERSION.len()) else {
                    return Ok(None);
                };
                self.greet(version)?;
                Ok(Some(VERSION.len()))
            }
            Step::Security { answered } => {
                let Some(kind) = bytes.first() else {
                    return Ok(None);
                };
                if *kind != NO_AUTHENTICATION {
                    return Err(RfbError::Security(*kind));
                }
                if answered {
                    self.unsent.extend_from_slice(&[0; 4]);
                }
                self.step = Step::Start;
                Ok(Some(1))
            }
            Step::Start => {
                // Whether others may stay: they may.
                if bytes.is_empty() {
                    return Ok(None);
                }
                self.start();
                Ok(Some(1))
            }
            Step::Open => {
                let Some((message, length)) = parse(bytes)? else {
                    return Ok(None);
                };
                self.hear(message, events);
                Ok(Some(length))
            }
        }
    }

    fn greet(&mut self, version: &[u8]) -> Result<(), RfbError> {
        self.step = match version {
            b"RFB 003.008\n" => Step::Security { answered: true },
            b"RFB 003.007\n" => Step::Security { answered: false },
            // Whatever else counts as 3.3 (RFC 6143 §7.1.1): the server decides.
            [b'R', b'F', b'B', b' ', b'0', b'0', b'3', b'.', .., b'\n'] => {
                let kind = u32::from(NO_AUTHENTICATION);
                self.unsent.extend_from_slice(&kind.to_be_bytes());
                self.step = Step::Start;
                return Ok(());
            }
            _ => return Err(RfbError::Version),
        };
        self.unsent.extend_from_slice(&[1, NO_AUTHENTICATION]);
        Ok(())
    }

    fn start(&mut self) {
        self.unsent.extend_from_slice(&side(self.size.width()));
        self.unsent.extend_from_slice(&side(self.size.height()));
        self.unsent.extend_from_slice(&Format::OWN.bytes());
        let length = u32::try_from(NAME.len()).unwrap_or(0);
        self.unsent.extend_from_slice(&length.to_be_bytes());
        self.unsent.extend_from_slice(NAME);
        self.step = Step::Open;
    }

    fn hear(&mut self, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Format(format) => self.format = format,
            Message::Encodings(list) => self.encodings(&list),
            Message::Update {
                incremental,
                x,
                y,
                width,
                height,
            } => {
                self.asked = true;
                if !incremental {
                    self.change(Rect {
                        x: x.into(),
                        y: y.into(),
                        width: width.into(),
                        height: height.into(),
                    });
                }
            }
            Message::Key { down, keysym } => {
                let code = keysym::key(keysym, self.layout);
                events.extend(code.map(|code| Event::Key { code, down }));
            }
            Message::Scancode { down, keysym, code } => {
                let key = scancode::key(code).or_else(|| keysym::key(keysym, self.layout));
                if self.extended_keys {
                    events.extend(key.map(|code| Event::Key { code, down }));
                }
            }
            Message::Pointer { buttons, x, y } => {
                events.push(Event::At {
                    x: x.into(),
                    y: y.into(),
                });
                self.press(buttons, events);
            }
            Message::Text(length) => self.skip = usize::try_from(length).unwrap_or(0),
        }
    }

    fn encodings(&mut self, list: &[i32]) {
        let place = |encoding: i32| list.iter().position(|named| *named == encoding);
        self.wants_zrle = match (place(ZRLE), place(RAW)) {
            (Some(zrle), Some(raw)) => zrle < raw,
            (zrle, _) => zrle.is_some(),
        };
        self.follows_size = place(DESKTOP_SIZE).is_some();
        // The seat draws the pointer itself, with the watermark over it.
        self.hide_pointer = place(CURSOR).is_some();
        self.offer_keys = place(EXTENDED_KEYS).is_some();
        self.extended_keys = self.offer_keys;
    }

    fn press(&mut self, buttons: u8, events: &mut Vec<Event>) {
        let (before, now) = (std::mem::replace(&mut self.buttons, buttons), buttons);
        for (bit, code) in (0..).zip(BUTTONS) {
            let (was, is) = (before >> bit & 1, now >> bit & 1);
            if was != is {
                events.push(Event::Key {
                    code,
                    down: is == 1,
                });
            }
        }
        // A click of the wheel is a button that goes down and up.
        let pressed = now & !before;
        if pressed & WHEEL_UP != 0 {
            events.push(Event::Wheel(1));
        }
        if pressed & WHEEL_DOWN != 0 {
            events.push(Event::Wheel(-1));
        }
    }

    /// This part of the frame is new.
    pub fn change(&mut self, part: Rect) {
        self.changed = Some(match self.changed {
            Some(before) => before.union(part),
            None => part,
        });
    }

    /// Writes an update, if the viewer waits for one, has taken the last one, and there is news.
    pub fn update(&mut self, frame: &Frame) {
        if !self.is_open() || !self.asked || !self.unsent().is_empty() {
            return;
        }
        let resized = self.follows_size && self.size != frame.screen();
        if resized {
            self.size = frame.screen();
            self.changed = Some(Rect::whole(self.size));
        }
        let part = self.changed.and_then(|part| part.within(self.size));
        let hide = std::mem::take(&mut self.hide_pointer);
        let offer = std::mem::take(&mut self.offer_keys);
        let notes = [resized, hide, offer, part.is_some()];
        let count = notes.into_iter().map(u16::from).sum::<u16>();
        if count == 0 {
            return;
        }
        self.asked = false;
        self.changed = None;
        self.unsent.extend_from_slice(&[0, 0]);
        self.unsent.extend_from_slice(&count.to_be_bytes());
        let nothing = Rect {
            x: 0,
            y: 0,
            width: 0,
            height: 0,
        };
        if resized {
            self.rectangle(Rect::whole(self.size), DESKTOP_SIZE);
        }
        if hide {
            self.rectangle(nothing, CURSOR);
        }
        if offer {
            self.rectangle(nothing, EXTENDED_KEYS);
        }
        if let Some(part) = part {
            self.pixels(frame, part);
        }
    }

    fn pixels(&mut self, frame: &Frame, part: Rect) {
        if self.wants_zrle {
            self.rectangle(part, ZRLE);
            let zrle = self.zrle.get_or_insert_with(Zrle::new);
            zrle.write(frame, part, self.format, &mut self.unsent);
        } else {
            self.rectangle(part, RAW);
            raw(frame, part, self.format, &mut self.unsent);
        }
    }

    fn rectangle(&mut self, part: Rect, encoding: i32) {
        for number in [part.x, part.y, part.width, part.height] {
            self.unsent.extend_from_slice(&side(number));
        }
        self.unsent.extend_from_slice(&encoding.to_be_bytes());
    }
}

/// Sides and places are below 2^14.
fn side(number: u32) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(width: u32, height: u32) -> Mode {
        Mode::new(width, height).unwrap()
    }

    fn open(frame: &Frame) -> Session {
        let mut session = Session::new(Layout::Japanese, frame.screen());
        for bytes in [&b"RFB 003.008\n"[..], &[1], &[1]] {
            session.receive(bytes, &mut Vec::new()).unwrap();
        }
        assert!(session.is_open());
        take(&mut session);
        session
    }

    fn take(session: &mut Session) -> Vec<u8> {
        let bytes = session.unsent().to_vec();
        session.sent(bytes.len());
        bytes
    }

    fn hear(session: &mut Session, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        session.receive(bytes, &mut events).unwrap();
        events
    }

    #[test]
    fn viewers_of_all_versions_are_greeted() {
        let greeted = |bytes: &[&[u8]]| {
            let mut session = Session::new(Layout::Us, mode(2, 3));
            for bytes in bytes {
                // Byte by byte, as a network may bring them.
                for byte in *bytes {
                    session.receive(&[*byte], &mut Vec::new()).unwrap();
                }
            }
            assert!(session.is_open());
            take(&mut session)
        };
        let start = [&[0, 2, 0, 3][..], &Format::OWN.bytes(), &[0, 0, 0, 7], NAME].concat();
        let said = |middle: &[u8]| [&VERSION[..], middle, &start].concat();
        assert_eq!(
            greeted(&[b"RFB 003.008\n", &[1], &[0]]),
            said(&[1, 1, 0, 0, 0, 0])
        );
        assert_eq!(greeted(&[b"RFB 003.007\n", &[1], &[1]]), said(&[1, 1]));
        assert_eq!(greeted(&[b"RFB 003.003\n", &[1]]), said(&[0, 0, 0, 1]));
        assert_eq!(greeted(&[b"RFB 003.889\n", &[1]]), said(&[0, 0, 0, 1]));
    }

    #[test]
    fn who_is_no_viewer_is_sent_away() {
        let refused = |bytes: &[u8]| {
            let mut session = Session::new(Layout::Us, mode(2, 3));
            session.receive(bytes, &mut Vec::new()).unwrap_err()
        };
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), RfbError::Version);
        assert_eq!(refused(b"RFB 003.008\n\x02"), RfbError::Security(2));
        assert_eq!(
            refused(b"RFB 003.008\n\x01\x01\x63"),
            RfbError::Message(0x63)
        );
    }

    #[test]
    fn an_update_is_sent_when_asked_for_and_there_is_news() {
        let frame = Frame::new(mode(4, 2));
        let mut session = open(&frame);
        session.change(Rect::whole(frame.screen()));
        session.update(&frame);
        assert!(session.unsent().is_empty());
        hear(&mut session, &[3, 1, 0, 0, 0, 0, 0, 4, 0, 2]);
        session.update(&frame);
        let head = [0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 2, 0, 0, 0, 0];
        assert_eq!(take(&mut session), [&head[..], &[0; 32]].concat());
        hear(&mut session, &[3, 1, 0, 0, 0, 0, 0, 4, 0, 2]);
        session.update(&frame);
        assert!(session.unsent().is_empty());
        // What is asked for anew is news, cut to what there is.
        hear(&mut session, &[3, 0, 0, 3, 0, 1, 0, 9, 0, 9]);
        session.update(&frame);
        assert_eq!(take(&mut session)[4..12], [0, 3, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_viewer_that_does_not_read_gets_one_update_and_no_more() {
        let frame = Frame::new(mode(100, 100));
        let mut session = open(&frame);
        let ask = [3, 0, 0, 0, 0, 0, 0, 100, 0, 100];
        hear(&mut session, &ask);
        session.update(&frame);
        let length = session.unsent().len();
        for _ in 0..100 {
            hear(&mut session, &ask);
            session.update(&frame);
        }
        assert_eq!(session.unsent().len(), length);
    }

    #[test]
    fn a_new_size_is_told_to_who_follows_it_and_others_keep_theirs() {
        let (small, large) = (Frame::new(mode(4, 2)), Frame::new(mode(6, 5)));
        let ask = [3, 1, 0, 0, 0, 0, 0, 4, 0, 2];
        let mut follows = open(&small);
        hear(&mut follows, &[2, 0, 0, 1, 255, 255, 255, 33]);
        hear(&mut follows, &ask);
        follows.update(&large);
        let sent = take(&mut follows);
        assert_eq!(
            sent[..16],
            [0, 0, 0, 2, 0, 0, 0, 0, 0, 6, 0, 5, 255, 255, 255, 33]
        );
        assert_eq!(sent.len(), 16 + 12 + 6 * 5 * 4);
        let mut stays = open(&large);
        hear(&mut stays, &ask);
        stays.change(Rect::whole(small.screen()));
        stays.change(Rect::whole(large.screen()));
        stays.update(&small);
        // Its own size, black where there is nothing any more.
        assert_eq!(take(&mut stays).len(), 4 + 12 + 6 * 5 * 4);
    }

    #[test]
    fn pseudo_encodings_are_answered_once() {
        let frame = Frame::new(mode(4, 2));
        let mut session = open(&frame);
        hear(
            &mut session,
            &[2, 0, 0, 2, 255, 255, 255, 17, 255, 255, 254, 254],
        );
        hear(&mut session, &[3, 1, 0, 0, 0, 0, 0, 4, 0, 2]);
        session.update(&frame);
        let pointer = [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 17];
        let keys = [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 254, 254];
        let sent = take(&mut session);
        assert_eq!(sent, [&[0, 0, 0, 2][..], &pointer, &keys].concat());
        hear(&mut session, &[3, 1, 0, 0, 0, 0, 0, 4, 0, 2]);
        session.update(&frame);
        assert!(session.unsent().is_empty());
    }

    #[test]
    fn keys_buttons_and_the_wheel_become_events() {
        let frame = Frame::new(mode(4, 2));
        let mut session = open(&frame);
        let key = |code, down| Event::Key { code, down };
        let at = |x, y| Event::At { x, y };
        let typed = hear(
            &mut session,
            &[4, 1, 0, 0, 0, 0, 0, 0x40, 4, 0, 0, 0, 0, 0, 0, 0x40],
        );
        assert_eq!(typed, [key(26, true), key(26, false)]);
        let code = [255, 0, 0, 1, 0, 0, 0xff, 0x23, 0, 0, 0, 0x79];
        // Not before it was offered.
        assert_eq!(hear(&mut session, &code), []);
        hear(&mut session, &[2, 0, 0, 1, 255, 255, 254, 254]);
        assert_eq!(hear(&mut session, &code), [key(92, true)]);
        assert_eq!(
            hear(
                &mut session,
                &[5, 5, 0, 1, 0, 1, 5, 9, 0, 2, 0, 1, 5, 0, 0, 2, 0, 1]
            ),
            [
                at(1, 1),
                key(0x110, true),
                key(0x111, true),
                at(2, 1),
                key(0x111, false),
                Event::Wheel(1),
                at(2, 1),
                key(0x110, false),
            ]
        );
    }

    #[test]
    fn text_for_the_clipboard_goes_nowhere() {
        let frame = Frame::new(mode(4, 2));
        let mut session = open(&frame);
        hear(&mut session, &[6, 0, 0, 0, 0, 1, 0, 0]);
        for _ in 0..16 {
            assert_eq!(hear(&mut session, &[4; 4096]), []);
        }
        let mut rest = vec![4, 1, 0, 0, 0, 0, 0, 0x61];
        assert_eq!(hear(&mut session, &rest).len(), 1);
        // The end of the text and a key in one piece.
        rest.splice(0..0, [6, 0, 0, 0, 0, 0, 0, 2, 9, 9]);
        assert_eq!(hear(&mut session, &rest).len(), 1);
    }
}
