//! All connections to a service, without a socket: bounds of number, size, rate and patience.
//!
//! What a client can cost: [`MAX_CALL`] bytes in, one reply of at most [`MAX_OUTPUT`] out, a few
//! replies a second. One that asks faster is read slower; one that does not read, says nothing, or
//! says what is no call, is dropped.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::{
    bucket::Bucket,
    message::{Call, encode, take_message},
    service::{Answer, Service},
};

/// Connections at one time: a person with a terminal or two, IT beside them, a tray icon.
pub const MAX_PEERS: usize = 16;
/// Of these, for each user: nobody keeps the others out.
pub const MAX_PER_USER: usize = 4;
/// Longest call, in bytes. The longest of ours is below 200.
pub const MAX_CALL: usize = 4096;
/// Longest reply, its end included, in bytes: a full ledger of the laptop in characters of four bytes stays
/// below.
pub const MAX_OUTPUT: usize = 64 * 1024;

/// Calls of one client: a burst for a program that looks around, then as fast as eyes.
const CALLS: (u32, Duration) = (8, Duration::from_millis(250));
/// Connections of all: each costs the service a few system calls.
pub const ACCEPTS: (u32, Duration) = (32, Duration::from_millis(50));
/// A stream of changes is not faster than this: while somebody scans ports inside, refusals change
/// sixteen times a second.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// A client that does not take its reply for so long has stopped reading.
const TAKES_WITHIN: Duration = Duration::from_secs(10);
/// One that says nothing for so long, and does not watch, has nothing to say.
const SPEAKS_WITHIN: Duration = Duration::from_mins(1);

/// Names a connection while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u8);

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// No call, as far as can be read.
    NoCall,
    /// Longer than [`MAX_CALL`].
    TooLong,
    /// It did not take its reply.
    Stalled,
    /// It said nothing.
    Idle,
}

/// What a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// To have something to say.
    pub read: bool,
    /// To have room for a reply.
    pub write: bool,
}

#[derive(Debug)]
struct Watch {
    /// The revision that it has, or is being sent.
    told: u64,
    next: Duration,
}

#[derive(Debug)]
struct Peer {
    user: u32,
    calls: Bucket,
    /// With room for all that it may ever hold, so that it leaves no copy behind by growing.
    input: Zeroizing<Vec<u8>>,
    output: Vec<u8>,
    written: usize,
    watch: Option<Watch>,
    /// When it was last heard, or took something.
    active: Duration,
}

/// All connections.
#[derive(Debug)]
pub struct Server {
    peers: [Option<Peer>; MAX_PEERS],
    accepts: Bucket,
}

impl Server {
    /// No connection yet.
    pub fn new(now: Duration) -> Self {
        Self {
            peers: [const { None }; MAX_PEERS],
            accepts: Bucket::new(ACCEPTS.0, ACCEPTS.1, now),
        }
    }

    /// Whether a connection may be accepted now; the others wait in the kernel's bounded queue.
    pub fn may_accept(&self, now: Duration) -> bool {
        self.accepts.empty_until(now).is_none()
    }

    /// Takes up a connection of this user, if there is room for one.
    pub fn accept(&mut self, user: u32, now: Duration) -> Option<PeerId> {
        let allowed = self.accepts.take(now);
        let theirs = self.peers().filter(|(_, peer)| peer.user == user).count();
        if !allowed || theirs >= MAX_PER_USER {
            return None;
        }
        let slot = self.peers.iter().position(Option::is_none)?;
        self.peers[slot] = Some(Peer {
            user,
            calls: Bucket::new(CALLS.0, CALLS.1, now),
            input: Zeroizing::new(Vec::with_capacity(MAX_CALL)),
            output: Vec::new(),
            written: 0,
            watch: None,
            active: now,
        });
        u8::try_from(slot).ok().map(PeerId)
    }

    /// One could not be taken up; that counts as well, so that the reason is not met with again
    /// and again without a pause.
    pub fn missed(&mut self, now: Duration) {
        self.accepts.take(now);
    }

    /// The connection is gone.
    pub fn close(&mut self, id: PeerId) {
        if let Some(slot) = self.peers.get_mut(usize::from(id.0)) {
            *slot = None;
        }
    }

    /// Bytes that may be read from the connection now; zero: it is not read.
    pub fn room(&self, id: PeerId, now: Duration) -> usize {
        self.peer(id)
            .filter(|peer| peer.listens(now))
            .map_or(0, |peer| MAX_CALL - peer.input.len())
    }

    /// Takes what was read, at most [`Server::room`] bytes, and answers as far as it may.
    pub fn received(
        &mut self,
        id: PeerId,
        bytes: &[u8],
        service: &mut impl Service,
        now: Duration,
    ) -> Result<(), Dropped> {
        let Some(peer) = self.peer_mut(id) else {
            return Ok(());
        };
        peer.active = now;
        if peer.input.len() + bytes.len() > MAX_CALL {
            return Err(Dropped::TooLong);
        }
        peer.input.extend_from_slice(bytes);
        self.advance(id, service, now)
    }

    /// What is to be written to the connection.
    pub fn output(&self, id: PeerId) -> &[u8] {
        self.peer(id).map_or(&[], Peer::unwritten)
    }

    /// So much of it was written.
    pub fn wrote(
        &mut self,
        id: PeerId,
        length: usize,
        service: &mut impl Service,
        now: Duration,
    ) -> Result<(), Dropped> {
        let Some(peer) = self.peer_mut(id) else {
            return Ok(());
        };
        peer.active = now;
        peer.written = peer.written.saturating_add(length).min(peer.output.len());
        if peer.unwritten().is_empty() {
            // Its memory is given back: a reply is rare.
            peer.output = Vec::new();
            peer.written = 0;
        }
        self.advance(id, service, now)
    }

    /// What the connection is waited for.
    pub fn interest(&self, id: PeerId, now: Duration) -> Interest {
        self.peer(id)
            .map_or_else(Interest::default, |peer| Interest {
                read: peer.listens(now),
                write: !peer.unwritten().is_empty(),
            })
    }

    /// When something is to be done though nothing comes; `revision` is the service's.
    pub fn due(&self, revision: u64, now: Duration) -> Option<Duration> {
        let each = self.peers().filter_map(|(_, peer)| peer.due(revision, now));
        each.chain(self.accepts.empty_until(now)).min()
    }

    /// Does what time and news have brought to every connection; those to be closed come
    /// out.
    pub fn tick(&mut self, service: &mut impl Service, now: Duration) -> Vec<(PeerId, Dropped)> {
        let ids: Vec<PeerId> = self.peers().map(|(id, _)| id).collect();
        ids.into_iter()
            .filter_map(|id| {
                let overdue = self.peer(id).and_then(|peer| peer.overdue(now));
                let dropped = overdue.or_else(|| self.advance(id, service, now).err());
                dropped.map(|why| (id, why))
            })
            .collect()
    }

    /// Connections at present.
    pub fn len(&self) -> usize {
        self.peers().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Answers calls one after the other: the next is looked at when the last reply is written.
    fn advance(
        &mut self,
        id: PeerId,
        service: &mut impl Service,
        now: Duration,
    ) -> Result<(), Dropped> {
        let slot = self.peers.get_mut(usize::from(id.0));
        let Some(peer) = slot.and_then(Option::as_mut) else {
            return Ok(());
        };
        while peer.output.is_empty() && peer.watch.is_none() {
            if peer.calls.empty_until(now).is_some() {
                return Ok(());
            }
            let Some(message) = take_message(&mut peer.input) else {
                return if peer.input.len() < MAX_CALL {
                    Ok(())
                } else {
                    Err(Dropped::TooLong)
                };
            };
            peer.calls.take(now);
            let call: Call = serde_json::from_slice(&message).map_err(|_| Dropped::NoCall)?;
            peer.answer(call, service, now);
        }
        if let Some(watch) = &mut peer.watch {
            // Whoever watches has nothing else to say on this connection.
            if !peer.input.is_empty() {
                return Err(Dropped::NoCall);
            }
            let news = watch.told != service.revision() && watch.next <= now;
            if peer.output.is_empty() && news {
                watch.told = service.revision();
                watch.next = now + WATCH_EVERY;
                peer.output = encode(&service.news(now).and_more());
                peer.active = now;
            }
        }
        Ok(())
    }

    fn peers(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        (0u8..)
            .zip(&self.peers)
            .filter_map(|(slot, peer)| Some((PeerId(slot), peer.as_ref()?)))
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(usize::from(id.0))?.as_ref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(id.0))?.as_mut()
    }
}

impl Peer {
    fn unwritten(&self) -> &[u8] {
        self.output.get(self.written..).unwrap_or(&[])
    }

    /// Whether it is read: not before it has taken its reply, nor faster than it may call.
    fn listens(&self, now: Duration) -> bool {
        self.output.is_empty()
            && self.input.len() < MAX_CALL
            && self.calls.empty_until(now).is_none()
    }

    fn answer(&mut self, call: Call, service: &mut impl Service, now: Duration) {
        let oneway = call.oneway;
        let reply = match service.call(call, self.user, now) {
            Answer::Reply(reply) => reply,
            Answer::Watch(_) if oneway => return,
            Answer::Watch(first) => {
                self.watch = Some(Watch {
                    told: service.revision(),
                    next: now + WATCH_EVERY,
                });
                first.and_more()
            }
        };
        if !oneway {
            self.output = encode(&reply);
        }
    }

    fn overdue(&self, now: Duration) -> Option<Dropped> {
        let (within, why) = self.patience()?;
        (self.active + within <= now).then_some(why)
    }

    /// How long it may keep still now.
    fn patience(&self) -> Option<(Duration, Dropped)> {
        if !self.output.is_empty() {
            Some((TAKES_WITHIN, Dropped::Stalled))
        } else if self.watch.is_none() {
            Some((SPEAKS_WITHIN, Dropped::Idle))
        } else {
            None
        }
    }

    fn due(&self, revision: u64, now: Duration) -> Option<Duration> {
        let patience = self.patience().map(|(within, _)| self.active + within);
        let calls = (self.output.is_empty() && self.watch.is_none())
            .then(|| self.calls.empty_until(now))
            .flatten();
        let news = self
            .watch
            .as_ref()
            .filter(|watch| self.output.is_empty() && watch.told != revision)
            .map(|watch| watch.next);
        [patience, calls, news].into_iter().flatten().min()
    }
}
