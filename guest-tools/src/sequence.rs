//! What both ends do alike: hello, numbers, signs of life.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bucket::Bucket;
use crate::frame::{Decoder, MARKER, Piece, encode};
use crate::message::{Greets, Hello, Numbered, VERSION};

/// Hellos that are answered at once, and how soon the next one. A peer that starts anew says one
/// or two; a hostile one could make us answer all day.
const HELLO_BURST: u32 = 5;
const HELLO_EVERY: Duration = Duration::from_secs(2);

/// Capabilities that are read of a hello.
const MAX_CAPABILITIES: usize = 32;

/// One end's half of the conversation: `Tx` out, `Rx` in.
#[derive(Debug)]
pub(crate) struct Sequence {
    session: u64,
    sent: u64,
    decoder: Decoder,
    peer: Option<Peer>,
    answers: Bucket,
    capabilities: &'static [&'static str],
}

/// The other end, once it said hello.
#[derive(Debug)]
struct Peer {
    session: u64,
    received: u64,
    capabilities: Vec<String>,
}

/// Something that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<Rx> {
    /// The peer began a conversation.
    Began(Hello),
    /// It speaks another version of the protocol; this conversation is none.
    OtherVersion(u16),
    /// It said something.
    Said(Rx),
    /// What came was no message, or of an unknown kind.
    Malformed,
    /// A message came twice, or out of order; it was dropped.
    Replayed,
    /// A message came before the hello; it was dropped.
    Unannounced,
}

impl Sequence {
    pub(crate) fn new(session: u64, capabilities: &'static [&'static str]) -> Self {
        Self {
            session,
            sent: 0,
            decoder: Decoder::default(),
            peer: None,
            answers: Bucket::new(HELLO_BURST, HELLO_EVERY),
            capabilities,
        }
    }

    /// Whether a conversation goes on.
    pub(crate) fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether the peer said that it can do this.
    pub(crate) fn peer_can(&self, capability: &str) -> bool {
        let can = |peer: &Peer| peer.capabilities.iter().any(|known| known == capability);
        self.peer.as_ref().is_some_and(can)
    }

    /// The first bytes of a connection.
    pub(crate) fn greeting<Tx: Greets + Serialize>(&mut self) -> Vec<u8> {
        let mut bytes = MARKER.to_vec();
        bytes.extend(self.hello::<Tx>());
        bytes
    }

    /// A message, ready for the stream.
    pub(crate) fn message<Tx: Serialize>(&mut self, body: Tx) -> Vec<u8> {
        self.sent += 1;
        framed(&Numbered {
            seq: self.sent,
            body,
        })
    }

    /// Takes bytes; gives what they said. Bytes for the stream are appended to `out`.
    pub(crate) fn received<Tx, Rx>(
        &mut self,
        bytes: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Vec<Incoming<Rx>>
    where
        Tx: Greets + Serialize,
        Rx: Greets + DeserializeOwned,
    {
        let mut pieces = Vec::new();
        self.decoder.push(bytes, |piece| pieces.push(piece));
        pieces
            .into_iter()
            .filter_map(|piece| self.piece::<Tx, Rx>(&piece, now, out))
            .collect()
    }

    fn piece<Tx, Rx>(
        &mut self,
        piece: &Piece,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Option<Incoming<Rx>>
    where
        Tx: Greets + Serialize,
        Rx: Greets + DeserializeOwned,
    {
        let Piece::Message(body) = piece else {
            return Some(Incoming::Malformed);
        };
        let Ok(Numbered { seq, body }) = serde_json::from_slice::<Numbered<Rx>>(body) else {
            return Some(Incoming::Malformed);
        };
        if let Some(hello) = body.as_hello() {
            return self.greeted::<Tx, Rx>(hello, now, out);
        }
        let Some(peer) = &mut self.peer else {
            return Some(Incoming::Unannounced);
        };
        if seq <= peer.received {
            return Some(Incoming::Replayed);
        }
        // A gap is what this side's own full buffers did; there is nothing to be asked for again.
        peer.received = seq;
        Some(Incoming::Said(body))
    }

    fn greeted<Tx, Rx>(
        &mut self,
        hello: &Hello,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Option<Incoming<Rx>>
    where
        Tx: Greets + Serialize,
    {
        let known = self
            .peer
            .as_ref()
            .is_some_and(|peer| peer.session == hello.session);
        let may_answer = known || self.answers.take(now);
        if hello.version != VERSION {
            return may_answer.then_some(Incoming::OtherVersion(hello.version));
        }
        // Beyond the limit not even a new conversation begins: each one resets the numbers.
        if !may_answer {
            return Some(Incoming::Malformed);
        }
        let began = if known {
            None
        } else {
            let capabilities = hello
                .capabilities
                .iter()
                .take(MAX_CAPABILITIES)
                .cloned()
                .collect();
            self.peer = Some(Peer {
                session: hello.session,
                received: 0,
                capabilities,
            });
            Some(Incoming::Began(hello.clone()))
        };
        let answered = hello.answers == Some(self.session);
        if !answered && (!known || self.answers.take(now)) {
            out.extend(self.hello::<Tx>());
        }
        began
    }

    fn hello<Tx: Greets + Serialize>(&mut self) -> Vec<u8> {
        let hello = Hello {
            version: VERSION,
            session: self.session,
            answers: self.peer.as_ref().map(|peer| peer.session),
            capabilities: self
                .capabilities
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        framed(&Numbered {
            seq: 0,
            body: Tx::hello(hello),
        })
    }
}

/// Nothing that our side says comes near the longest message: notices are cut before.
fn framed<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message)
        .ok()
        .and_then(|body| encode(body).ok())
        .unwrap_or_default()
}
