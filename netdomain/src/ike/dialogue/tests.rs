//! charon, played.

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);

fn dialogue() -> (Dialogue, Asked) {
    let gateway = Gateway {
        name: "honcho-1".into(),
        address: "203.0.113.10:4500".parse().unwrap(),
        lan: None,
        remote_id: "vpn1.mihon-city.example".into(),
        authority: b"authority".to_vec(),
        auth: IkeAuth::Certificate,
        revocation: Revocation::Relaxed,
    };
    Dialogue::begin(gateway, &identity(), 1)
}

fn identity() -> Identity {
    Identity {
        certificate: b"certificate".to_vec(),
        key: Key::Here(b"key".to_vec().into()),
        revoked: vec![b"list".to_vec()],
        address: ADDRESS,
    }
}

fn success() -> Said {
    Said::Answer(Message::default().value("success", "yes"))
}

/// Up to `initiate`, and what was asked on the way.
fn initiated() -> (Dialogue, Vec<Asked>) {
    let (mut dialogue, first) = dialogue();
    let mut asked = vec![first];
    for said in [
        Said::WillTell,
        Said::WillTell,
        success(),
        success(),
        success(),
    ] {
        let Follows::Ask(next) = dialogue.on(said) else {
            panic!("nothing follows {:?}", asked.last());
        };
        asked.push(next);
    }
    (dialogue, asked)
}

/// What charon 5.9.8 says of a tunnel that is up, as far as it is looked at.
fn up(change: (&str, &str)) -> Said {
    let of = |key: &str, usual: &str| if change.0 == key { change.1 } else { usual }.to_owned();
    let child = Message::default()
        .value("protocol", of("protocol", "ESP"))
        .value("mode", of("mode", "TUNNEL"))
        .value("encap", of("encap", "yes"))
        .list("local-ts", [of("local-ts", "10.250.7.23/32")])
        .list("remote-ts", ["10.12.0.0/16"]);
    let connection = Message::default()
        .value("remote-id", of("remote-id", "vpn1.mihon-city.example"))
        .list("local-vips", [of("local-vips", "10.250.7.23")])
        .section("child-sas", Message::default().section("inner-1", child));
    let event = Message::default()
        .value("up", "yes")
        .section(&of("name", CONNECTION), connection);
    Said::Event("child-updown".into(), event)
}

#[test]
fn charon_is_told_one_thing_after_the_other() {
    let (_, asked) = initiated();
    let commands: Vec<_> = asked
        .iter()
        .map(|asked| match asked {
            Asked::Events(name) | Asked::Command(name, _) => *name,
        })
        .collect();
    assert_eq!(
        commands,
        [
            "ike-updown",
            "child-updown",
            "load-key",
            "load-cert",
            "load-conn",
            "initiate"
        ]
    );
    let Asked::Command(_, message) = &asked[4] else {
        panic!("a command");
    };
    let connection = message.get(CONNECTION).unwrap();
    let remote = connection.get("remote").unwrap();
    assert_eq!(remote.text("id"), Some("fqdn:vpn1.mihon-city.example"));
    assert_eq!(remote.texts("cacerts"), Some(vec!["authority"]));
    assert_eq!(connection.text("encap"), Some("yes"));
    assert_eq!(connection.text("remote_port"), Some("4500"));
}

fn no() -> Said {
    Said::Answer(Message::default().value("success", "no"))
}

/// A key in a token, up to the look for it.
fn looking(pin: Pin) -> Dialogue {
    let (plain, _) = dialogue();
    let mut identity = identity();
    let id = "0a".into();
    identity.key = Key::Token { id, pin };
    let (mut dialogue, _) = Dialogue::begin(plain.gateway, &identity, 1);
    let _ = dialogue.on(Said::WillTell);
    let Follows::Ask(Asked::Command("load-token", token)) = dialogue.on(Said::WillTell) else {
        panic!("the token is looked for");
    };
    assert_eq!(token.text("handle"), Some("0a"));
    assert_eq!(token.text("pin"), None, "nothing is tried");
    dialogue
}

/// The same, and it was given a PIN.
fn trying() -> Dialogue {
    let mut dialogue = looking(Pin::Asked);
    assert_eq!(dialogue.on(no()), Follows::Weigh);
    assert_eq!(dialogue.weigh(Some(Found::Closed)), Follows::Pin);
    let Asked::Command("load-token", token) = dialogue.open(b"1234") else {
        panic!("the token is opened");
    };
    assert_eq!(token.text("handle"), Some("0a"));
    assert_eq!(token.text("pin"), Some("1234"));
    dialogue
}

#[test]
fn a_token_is_looked_for_first_and_then_opened() {
    let mut dialogue = trying();
    assert!(!dialogue.take_opened());
    assert!(matches!(dialogue.on(success()), Follows::Ask(_)));
    assert!(dialogue.take_opened());
    assert!(!dialogue.take_opened());
    // Of anything else the next attempt may be better.
    assert!(matches!(dialogue.on(no()), Follows::Down(_)));
}

#[test]
fn a_token_that_is_not_there_is_told_apart_from_one_that_does_not_open() {
    let mut dialogue = looking(Pin::Asked);
    assert_eq!(dialogue.on(no()), Follows::Weigh);
    let absent = Follows::Absent { tried: false };
    assert_eq!(dialogue.weigh(Some(Found::Absent)), absent);
    assert_eq!(dialogue.on(success()), Follows::Nothing);

    for (found, follows) in [
        (Some(Found::Absent), Follows::Absent { tried: true }),
        (Some(Found::Refused), Follows::Shut { locked: false }),
        (Some(Found::Locked), Follows::Shut { locked: true }),
        // The worst is assumed.
        (Some(Found::Closed), Follows::Shut { locked: false }),
        (None, Follows::Shut { locked: false }),
    ] {
        let mut dialogue = trying();
        assert_eq!(dialogue.on(no()), Follows::Weigh);
        assert_eq!(dialogue.weigh(found), follows);
        assert_eq!(dialogue.on(success()), Follows::Nothing);
        assert!(!dialogue.take_opened());
    }
}

#[test]
fn a_token_that_opens_for_anybody_is_no_second_factor() {
    let mut dialogue = looking(Pin::Asked);
    assert!(matches!(dialogue.on(success()), Follows::Down(_)));
    let mut dialogue = looking(Pin::File(b"1234".to_vec().into()));
    assert!(matches!(dialogue.on(success()), Follows::Ask(_)));
}

#[test]
fn a_tunnel_that_is_not_as_asked_is_not_up() {
    let (mut right, _) = initiated();
    assert_eq!(right.on(up(("", ""))), Follows::Nothing);
    assert!(right.take_news());
    assert!(!right.take_news());
    for change in [
        ("remote-id", "vpn2.mihon-city.example"),
        ("local-vips", "10.250.7.24"),
        ("local-ts", "0.0.0.0/0"),
        ("local-ts", "10.250.7.0/24"),
        ("protocol", "AH"),
        ("mode", "TRANSPORT"),
        ("encap", "no"),
        ("name", "another"),
    ] {
        let (mut dialogue, _) = initiated();
        assert!(
            matches!(dialogue.on(up(change)), Follows::Down(_)),
            "{change:?}"
        );
        assert!(!dialogue.take_news());
        // And it stays down.
        assert_eq!(dialogue.on(up(("", ""))), Follows::Nothing);
        assert!(!dialogue.take_news());
    }
}

#[test]
fn a_tunnel_is_not_up_before_it_was_asked_for_and_ends_with_its_end() {
    let (mut early, _) = dialogue();
    let _ = early.on(up(("", "")));
    assert!(!early.take_news());

    for event in ["ike-updown", "child-updown"] {
        let (mut dialogue, _) = initiated();
        let _ = dialogue.on(up(("", "")));
        let end = Said::Event(event.into(), Message::default());
        assert!(matches!(dialogue.on(end), Follows::Down(_)));
    }
    let (mut second, _) = initiated();
    let _ = second.on(up(("", "")));
    assert!(matches!(second.on(up(("", ""))), Follows::Down(_)));

    let (mut refused, _) = initiated();
    let no = Message::default()
        .value("success", "no")
        .value("errmsg", "no answer");
    assert_eq!(
        refused.on(Said::Answer(no)),
        Follows::Down("no answer".into())
    );
}
