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
mod tests;
