//! What the seat hears: from a viewer that nobody let in for certain, and from a VMM that fell.

use sekisho_seat::frame::Frame;
use sekisho_seat::rfb::keysym::Layout;
use sekisho_seat::rfb::{Event, Session};
use sekisho_seatlink::{Input as SeatInput, Mode, Picture, Rect};

use crate::input::Input;

/// Bytes that a viewer may leave unread before the next update: one update of this small screen.
const MAX_UNSENT: usize = 64 * 1024;
const SCREEN: (u32, u32) = (100, 70);

/// A viewer's bytes, in pieces of at most 64.
///
/// # Panics
/// When more waits to be sent than one update, a session takes more than it has room for, or a key
/// has a number that no key has.
pub fn viewer_messages(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mode) = Mode::new(SCREEN.0, SCREEN.1) else {
        return;
    };
    let frame = Frame::new(mode);
    let mut session = Session::new(Layout::Japanese, mode);
    session.change(Rect::whole(mode));
    let mut events = Vec::new();
    while !input.is_empty() {
        let piece = input.bytes(64);
        assert!(session.room() > 0);
        let piece = &piece[..piece.len().min(session.room())];
        if session.receive(piece, &mut events).is_err() {
            return;
        }
        session.update(&frame);
        assert!(session.unsent().len() < MAX_UNSENT);
        // A viewer that reads half of what it is sent.
        session.sent(session.unsent().len() / 2);
        for event in events.drain(..) {
            if let Event::Key { code, .. } = event {
                assert!((1..0x200).contains(&code));
            }
        }
    }
}

/// One packet, as the seat and the VMM read it.
///
/// # Panics
/// When a picture lies outside what its numbers may say.
pub fn seat_messages(data: &[u8]) {
    match Picture::decode(data) {
        Ok(Picture::Shown(_, scanout)) => {
            let line = u64::from(scanout.mode().width()) * 4;
            assert!(scanout.end() >= u64::from(scanout.offset()) + line);
        }
        Ok(Picture::Damage(_, part)) => {
            if let Some(mode) = Mode::new(SCREEN.0, SCREEN.1)
                && let Some(inside) = part.within(mode)
            {
                assert_eq!(inside.within(mode), Some(inside));
                assert_eq!(inside.union(Rect::whole(mode)), Rect::whole(mode));
            }
        }
        _ => {}
    }
    if let Ok(SeatInput::At { x, y, .. }) = SeatInput::decode(data) {
        assert!(x.max(y) <= sekisho_seatlink::AXIS_MAX);
    }
}
