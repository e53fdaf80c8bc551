//! What charon is told for one tunnel, in which order, and what its answers mean: a pure machine.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use sekisho_policy::{IkeAuth, Revocation};
use zeroize::Zeroizing;

use super::encapsulation::NAT_T;
use super::token::{Found, Pin};
use super::vici::{Asked, Message, Said};

/// IKE proposals in order: AES-256-GCM with a curve of NIST's, which every gateway of the last ten
/// years knows. What is weaker has no name here.
const IKE: [&str; 2] = [
    "aes256gcm16-prfsha384-ecp384",
    "aes256gcm16-prfsha256-ecp256",
];
/// The same for ESP, with fresh keys for each key exchange.
const ESP: [&str; 2] = ["aes256gcm16-ecp384", "aes256gcm16-ecp256"];
/// Names of the connection and its tunnel in charon.
const CONNECTION: &str = "gateway";
const CHILD: &str = "inner";
/// Name of the token's module in charon's configuration.
pub(super) const TOKEN: &str = "token";

/// A gateway as charon must know it.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) address: SocketAddrV4,
    /// Its address on the office LAN; charon does not know it.
    pub(super) lan: Option<SocketAddrV4>,
    pub(super) remote_id: String,
    /// Certificate (DER) of the authority that must have issued the gateway's.
    pub(super) authority: Vec<u8>,
    /// How the laptop proves itself.
    pub(super) auth: IkeAuth,
    /// What is asked about its certificate.
    pub(super) revocation: Revocation,
}

/// What proves this laptop.
pub(super) struct Identity {
    /// Certificate, DER.
    pub(super) certificate: Vec<u8>,
    /// Private key.
    pub(super) key: Key,
    /// What authorities have revoked: lists (DER), each signed by its own.
    pub(super) revoked: Vec<Vec<u8>>,
    /// The inner address that is this laptop's everywhere.
    pub(super) address: Ipv4Addr,
}

/// Where the private key is.
pub(super) enum Key {
    /// Here, in PEM.
    Here(Zeroizing<Vec<u8>>),
    /// In a token, which uses it and never gives it away (PKCS #11).
    Token {
        /// Its `CKA_ID`, in hex.
        id: String,
        /// What opens the token.
        pin: Pin,
    },
}

/// What follows from something that charon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Follows {
    Nothing,
    Ask(Asked),
    /// It is over.
    Down(String),
    /// charon cannot use the token; its log says why, and [`Dialogue::weigh`] what follows.
    Weigh,
    /// The token wants its PIN: [`Dialogue::open`].
    Pin,
    /// It is over: the token is not there. `tried` where charon was given a PIN for it.
    Absent {
        tried: bool,
    },
    /// It is over: the token did not open. Where it is `locked`, no PIN opens it any more.
    Shut {
        locked: bool,
    },
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// charon is being told; this is how it agrees to what it was told last.
    Telling(Agrees),
    Initiated,
    Up,
    Over,
}

/// How charon agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agrees {
    /// It will tell of events.
    WillTell,
    /// It has done something.
    Success,
}

/// How far it is with the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// charon is not at the token.
    No,
    /// It looks whether it is there, and is given no PIN.
    Looking,
    /// It was given a PIN, and may have tried it.
    Trying,
}

/// The conversation about one tunnel.
pub(super) struct Dialogue {
    gateway: Gateway,
    address: Ipv4Addr,
    /// What charon is still to be told, in order; the last is to begin.
    script: VecDeque<Asked>,
    stage: Stage,
    /// The token that holds the key, by the key's `CKA_ID`.
    token: Option<String>,
    /// Whether it is the person who has its PIN.
    asked: bool,
    opening: Opening,
    /// The token opened, and nobody was told.
    opened: bool,
    /// It came up, and nobody was told.
    news: bool,
}

impl Dialogue {
    /// The machine and the first thing to say. A gateway that was silent for `ask_after` seconds is
    /// asked for a sign of life.
    pub(super) fn begin(gateway: Gateway, identity: &Identity, ask_after: u64) -> (Self, Asked) {
        let load = |kind: &str, data: &[u8]| {
            let message = Message::default().value("type", kind);
            message.value("data", data.to_vec())
        };
        let (key, token, asked) = match &identity.key {
            Key::Here(pem) => (Asked::Command("load-key", load("any", pem)), None, false),
            Key::Token { id, pin } => {
                let asked = matches!(pin, Pin::Asked);
                (look(id), Some(id.clone()), asked)
            }
        };
        let revoked = identity.revoked.iter();
        let revoked = revoked.map(|list| Asked::Command("load-cert", load("X509_CRL", list)));
        let connection = connection(&gateway, identity, ask_after);
        let initiate = Message::default()
            .value("ike", CONNECTION)
            .value("child", CHILD);
        let script = [Asked::Events("child-updown"), key]
            .into_iter()
            .chain(revoked)
            .chain([
                Asked::Command("load-conn", connection),
                Asked::Command("initiate", initiate),
            ])
            .collect();
        let dialogue = Self {
            gateway,
            address: identity.address,
            script,
            stage: Stage::Telling(Agrees::WillTell),
            token,
            asked,
            opening: Opening::No,
            opened: false,
            news: false,
        };
        (dialogue, Asked::Events("ike-updown"))
    }

    /// Takes what charon said.
    pub(super) fn on(&mut self, said: Said) -> Follows {
        match (self.stage, said) {
            (Stage::Over, _) => Follows::Nothing,
            (Stage::Telling(Agrees::WillTell), Said::WillTell) => self.tell(),
            (Stage::Telling(Agrees::Success), Said::Answer(answer)) if succeeded(&answer) => {
                match self.opening {
                    Opening::Looking if self.asked => self.over("the token opens without a PIN"),
                    Opening::Looking | Opening::No => self.tell(),
                    Opening::Trying => {
                        self.opened = true;
                        self.tell()
                    }
                }
            }
            // The event told what came of it, or will.
            (Stage::Initiated | Stage::Up, Said::Answer(answer)) if succeeded(&answer) => {
                Follows::Nothing
            }
            (_, Said::Answer(_)) if self.opening != Opening::No => Follows::Weigh,
            (_, Said::Answer(answer)) => {
                self.over(answer.text("errmsg").unwrap_or("charon refuses"))
            }
            (_, Said::Unknown) => self.over("charon knows no such command"),
            (_, Said::Event(name, event)) => self.event(&name, &event),
            (_, Said::WillTell) => self.over("charon answers what was not asked"),
        }
    }

    /// The next thing to tell charon.
    fn tell(&mut self) -> Follows {
        let Some(next) = self.script.pop_front() else {
            return Follows::Nothing;
        };
        self.opening = match next {
            Asked::Command("load-token", _) => Opening::Looking,
            _ => Opening::No,
        };
        self.stage = match (&next, self.script.is_empty()) {
            (_, true) => Stage::Initiated,
            (Asked::Events(_), false) => Stage::Telling(Agrees::WillTell),
            (Asked::Command(..), false) => Stage::Telling(Agrees::Success),
        };
        Follows::Ask(next)
    }

    /// Whether the gateway has proven itself and given what is this laptop's; told once.
    pub(super) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// What follows from what charon's log says of the token, after [`Follows::Weigh`].
    pub(super) fn weigh(&mut self, found: Option<Found>) -> Follows {
        let tried = self.opening == Opening::Trying;
        match found {
            Some(Found::Absent) => {
                self.stage = Stage::Over;
                Follows::Absent { tried }
            }
            // Whatever it said: without a PIN none was wrong.
            _ if !tried => Follows::Pin,
            found => {
                self.stage = Stage::Over;
                let locked = found == Some(Found::Locked);
                Follows::Shut { locked }
            }
        }
    }

    /// Opens the token with a PIN, after [`Follows::Pin`].
    pub(super) fn open(&mut self, pin: &[u8]) -> Asked {
        self.opening = Opening::Trying;
        let id = self.token.as_deref().unwrap_or_default();
        Asked::Command("load-token", token(id).value("pin", pin))
    }

    /// Whether the token has opened with a PIN; told once.
    pub(super) const fn take_opened(&mut self) -> bool {
        std::mem::replace(&mut self.opened, false)
    }

    fn over(&mut self, why: &str) -> Follows {
        self.stage = Stage::Over;
        Follows::Down(why.to_owned())
    }

    fn event(&mut self, name: &str, event: &Message) -> Follows {
        let up = event.text("up") == Some("yes");
        match (self.stage, name, up) {
            (Stage::Initiated, "child-updown", true) => match self.flaw(event) {
                None => {
                    self.stage = Stage::Up;
                    self.news = true;
                    Follows::Nothing
                }
                Some(flaw) => self.over(flaw),
            },
            // One tunnel was asked for. Another one may have other addresses in it.
            (Stage::Up, "child-updown", true) => self.over("the gateway makes another tunnel"),
            (_, _, false) => self.over("the tunnel has ended"),
            _ => Follows::Nothing,
        }
    }

    /// What is wrong with the tunnel that is up, if anything. charon proved the name and the
    /// authority; whether the addresses are this laptop's is for us to look at.
    fn flaw(&self, event: &Message) -> Option<&'static str> {
        let Some(connection) = event.get(CONNECTION) else {
            return Some("charon tells of another connection");
        };
        if connection.text("remote-id") != Some(&self.gateway.remote_id) {
            return Some("charon proved another name than the gateway's");
        }
        let address = self.address.to_string();
        if connection.texts("local-vips").as_deref() != Some(&[&*address]) {
            return Some("the gateway gives another address than the device file says");
        }
        let child = connection
            .get("child-sas")
            .and_then(|children| children.sections().next());
        let Some(child) = child else {
            return Some("charon tells of no tunnel");
        };
        let own = format!("{address}/32");
        if child.texts("local-ts").as_deref() != Some(&[&*own]) {
            return Some("the tunnel is for other addresses than the device file's");
        }
        let sealed = child.text("protocol") == Some("ESP")
            && child.text("mode") == Some("TUNNEL")
            && child.text("encap") == Some("yes");
        (!sealed).then_some("the tunnel is not ESP in UDP")
    }
}

/// The token, as charon knows it.
fn token(id: &str) -> Message {
    Message::default()
        .value("handle", id)
        .value("module", TOKEN)
}

/// A look for the token.
fn look(id: &str) -> Asked {
    Asked::Command("load-token", token(id))
}

/// What charon is told of the gateway.
fn connection(gateway: &Gateway, identity: &Identity, ask_after: u64) -> Message {
    let port = gateway.address.port().to_string();
    let local = Message::default()
        .value(
            "auth",
            match gateway.auth {
                IkeAuth::Certificate => "pubkey",
                IkeAuth::EapTls => "eap-tls",
            },
        )
        .list("certs", [identity.certificate.clone()]);
    let remote = Message::default()
        .value("auth", "pubkey")
        // A name, never a pattern or another kind of identity.
        .value("id", format!("fqdn:{}", gateway.remote_id))
        .list("cacerts", [gateway.authority.clone()])
        .value(
            "revocation",
            match gateway.revocation {
                Revocation::Relaxed => "relaxed",
                Revocation::Strict => "strict",
            },
        );
    let child = Message::default()
        .value("mode", "tunnel")
        .list("remote_ts", ["0.0.0.0/0"])
        .list("esp_proposals", ESP)
        .value("updown", "")
        .value("start_action", "none")
        .value("close_action", "none")
        .value("dpd_action", "clear");
    let connection = Message::default()
        .value("version", "2")
        // The one that the route to the gateway names.
        .list("local_addrs", ["%any"])
        .list("remote_addrs", [gateway.address.ip().to_string()])
        .value("local_port", NAT_T.to_string())
        .value("remote_port", port)
        // ESP always in UDP: it is what the uplink's socket carries.
        .value("encap", "yes")
        // The tunnel goes on over another path (RFC 4555).
        .value("mobike", "yes")
        .value("fragmentation", "yes")
        .value("keyingtries", "1")
        .value("dpd_delay", format!("{ask_after}s"))
        .list("vips", [identity.address.to_string()])
        .list("proposals", IKE)
        .section("local", local)
        .section("remote", remote)
        .section("children", Message::default().section(CHILD, child));
    Message::default().section(CONNECTION, connection)
}

fn succeeded(answer: &Message) -> bool {
    answer.text("success") == Some("yes")
}

#[cfg(test)]
mod tests {
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
}
