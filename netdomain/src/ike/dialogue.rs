//! What charon is told for one tunnel, in which order, and what its answers mean: a pure machine.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::encapsulation::{NAT_T, OUTER};
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

/// A gateway as charon must know it.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) address: SocketAddrV4,
    pub(super) remote_id: String,
    /// Certificate (DER) of the authority that must have issued the gateway's.
    pub(super) authority: Vec<u8>,
}

/// What proves this laptop.
#[derive(Clone)]
pub(super) struct Identity {
    /// Certificate, DER.
    pub(super) certificate: Vec<u8>,
    /// Private key, PEM.
    pub(super) key: Vec<u8>,
    /// The inner address that is this laptop's everywhere.
    pub(super) address: Ipv4Addr,
}

/// What follows from something that charon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Follows {
    Nothing,
    Ask(Asked),
    /// It is over.
    Down(String),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Events(usize),
    Key,
    Connection,
    Initiated,
    Up,
    Over,
}

/// Kinds of events that charon is to tell of.
const EVENTS: [&str; 2] = ["ike-updown", "child-updown"];

/// The conversation about one tunnel.
pub(super) struct Dialogue {
    gateway: Gateway,
    identity: Identity,
    /// Seconds without a packet after which the gateway is asked for a sign of life.
    ask_after: u64,
    stage: Stage,
    /// It came up, and nobody was told.
    news: bool,
}

impl Dialogue {
    /// The machine and the first thing to say.
    pub(super) fn begin(gateway: Gateway, identity: Identity, ask_after: u64) -> (Self, Asked) {
        let dialogue = Self {
            gateway,
            identity,
            ask_after,
            stage: Stage::Events(0),
            news: false,
        };
        (dialogue, Asked::Events(EVENTS[0]))
    }

    /// Takes what charon said.
    pub(super) fn on(&mut self, said: Said) -> Follows {
        match (self.stage, said) {
            (Stage::Over, _) => Follows::Nothing,
            (Stage::Events(done), Said::WillTell) => {
                let next = done + 1;
                if let Some(event) = EVENTS.get(next) {
                    self.stage = Stage::Events(next);
                    return Follows::Ask(Asked::Events(event));
                }
                self.stage = Stage::Key;
                let key = Message::default()
                    .value("type", "any")
                    .value("data", self.identity.key.clone());
                Follows::Ask(Asked::Command("load-key", key))
            }
            (Stage::Key, Said::Answer(answer)) if succeeded(&answer) => {
                self.stage = Stage::Connection;
                Follows::Ask(Asked::Command("load-conn", self.connection()))
            }
            (Stage::Connection, Said::Answer(answer)) if succeeded(&answer) => {
                self.stage = Stage::Initiated;
                let initiate = Message::default()
                    .value("ike", CONNECTION)
                    .value("child", CHILD);
                Follows::Ask(Asked::Command("initiate", initiate))
            }
            // The event told what came of it, or will.
            (Stage::Initiated | Stage::Up, Said::Answer(answer)) if succeeded(&answer) => {
                Follows::Nothing
            }
            (_, Said::Answer(answer)) => {
                self.over(answer.text("errmsg").unwrap_or("charon refuses"))
            }
            (_, Said::Unknown) => self.over("charon knows no such command"),
            (_, Said::Event(name, event)) => self.event(&name, &event),
            (_, Said::WillTell) => self.over("charon answers what was not asked"),
        }
    }

    /// Whether the gateway has proven itself and given what is this laptop's; told once.
    pub(super) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
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
        let address = self.identity.address.to_string();
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

    fn connection(&self) -> Message {
        let gateway = &self.gateway;
        let port = gateway.address.port().to_string();
        let local = Message::default()
            .value("auth", "pubkey")
            .list("certs", [self.identity.certificate.clone()]);
        let remote = Message::default()
            .value("auth", "pubkey")
            // A name, never a pattern or another kind of identity.
            .value("id", format!("fqdn:{}", gateway.remote_id))
            .list("cacerts", [gateway.authority.clone()]);
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
            .list("local_addrs", [OUTER.to_string()])
            .list("remote_addrs", [gateway.address.ip().to_string()])
            .value("local_port", NAT_T.to_string())
            .value("remote_port", port)
            // ESP always in UDP: it is what the uplink's socket carries.
            .value("encap", "yes")
            .value("mobike", "no")
            .value("fragmentation", "yes")
            .value("keyingtries", "1")
            .value("dpd_delay", format!("{}s", self.ask_after))
            .list("vips", [self.identity.address.to_string()])
            .list("proposals", IKE)
            .section("local", local)
            .section("remote", remote)
            .section("children", Message::default().section(CHILD, child));
        Message::default().section(CONNECTION, connection)
    }
}

fn succeeded(answer: &Message) -> bool {
    answer.text("success") == Some("yes")
}
