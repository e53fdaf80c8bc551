//! A tunnel in the engine's own network, with a charon that is played.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;

use sekisho_policy::{IkeAuth, Revocation};

use super::*;
use crate::ike::place;
use crate::ike::token::{Found, Pin};
use crate::ike::vici::{Message, Said};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
/// What a card takes to look at a PIN.
const LOGIN: Duration = Duration::from_millis(100);
/// charon's answer to a command, `success = yes`, in VICI.
const SUCCESS: &[u8] = b"\0\0\0\x0f\x01\x03\x07success\0\x03yes";

fn gateway() -> Gateway {
    Gateway {
        name: "honcho-ikev2".into(),
        address: "203.0.113.10:4500".parse().unwrap(),
        lan: None,
        remote_id: "vpn1.mihon-city.example".into(),
        authority: vec![0x30],
        auth: IkeAuth::Certificate,
        revocation: Revocation::Relaxed,
    }
}

/// With a key in a token, and its PIN in a file.
fn settings() -> Option<Rc<Settings>> {
    let gateways = [*gateway().address.ip()].into();
    let place = match place::network(ADDRESS, gateways, Esp::User) {
        Ok(place) => place,
        Err(error) => {
            sekisho_skip::skip(format!("no network can be made here: {error}"));
            return None;
        }
    };
    Some(Rc::new(Settings {
        gateways: vec![gateway()],
        identity: Identity {
            certificate: vec![0x30],
            key: Key::Token {
                id: "0a".into(),
                pin: Pin::File(b"271828".to_vec().into()),
            },
            revoked: Vec::new(),
            address: ADDRESS,
        },
        silence: Duration::from_secs(10),
        esp: Esp::User,
        token: Some("/token.so".into()),
        known: RefCell::default(),
        outer: place.outer,
        inner: place.inner,
        xfrm: place.xfrm,
    }))
}

/// A tunnel of which the PIN was just given to charon, and the gate then wants it no more. Whether charon
/// says what it was, a while later.
fn cut_short(settings: &Rc<Settings>, answers: bool) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (mut dialogue, _) = Dialogue::begin(gateway(), &settings.identity, 1);
    let _ = dialogue.on(Said::WillTell);
    let _ = dialogue.on(Said::WillTell);
    let no = Message::default().value("success", "no");
    assert_eq!(dialogue.on(Said::Answer(no)), Follows::Weigh);
    assert_eq!(dialogue.weigh(Some(Found::Closed)), Follows::Pin);
    let mut session = Session {
        settings: Rc::clone(settings),
        gateway: gateway(),
        conversation: Conversation::On(Box::new((Vici::new(ours).unwrap(), dialogue))),
        way: Way::Awaited,
        token: Token::default(),
    };
    assert!(settings.known.borrow_mut().may_begin());
    session.try_pin(None).unwrap();
    let charon = thread::spawn(move || {
        let mut asked = [0; 512];
        let read = theirs.read(&mut asked).unwrap();
        assert!(asked[..read].windows(6).any(|part| part == b"271828"));
        thread::sleep(LOGIN);
        if answers {
            theirs.write_all(SUCCESS).unwrap();
        }
        theirs
    });
    let mut command = Command::new("/usr/bin/sleep");
    let mut program = Program::start("charon", command.arg("60"), None).unwrap();
    session.leave(&mut program);
    drop(session);
    charon.join().unwrap();
}

/// Whoever can cut the way just then, as the owner of an access point can, does not use the tries up.
#[test]
fn a_pin_that_opened_the_token_while_the_way_was_cut_costs_no_try() {
    let Some(settings) = settings() else { return };
    for _ in 0..4 {
        cut_short(&settings, true);
    }
    assert!(settings.known.borrow_mut().may_begin());
    // The control: of what it was nothing is heard.
    for _ in 0..2 {
        cut_short(&settings, false);
    }
    assert!(!settings.known.borrow_mut().may_begin());
}

#[test]
fn the_answer_that_is_played_is_charons() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(SUCCESS).unwrap();
    let said = Vici::new(ours).unwrap().hear().unwrap();
    let yes = Message::default().value("success", "yes");
    assert_eq!(said, Some(Said::Answer(yes)));
}
