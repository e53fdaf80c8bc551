//! The frame link itself: copies, indices, bells.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{Ordering, fence},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};
use sekisho_framelink::{
    FrameArena, FrameLink, HEADER_LEN, LinkError, MAX_MESSAGE, MIN_FRAME, Message, Rules, Stats,
};

use crate::{
    Broken, CAPACITY,
    index::{Bell, Consumer, LEAD, Producer, offset, record},
    memory::{Own, Theirs, Word},
};

/// Bytes after which the index is published also within a batch, so that the peer can copy one
/// super-frame while the next one is written.
const PUBLISH: u64 = 32 * 1024;

const LENGTH: u64 = CAPACITY as u64;

/// The direction that this end fills.
#[derive(Debug)]
pub(super) struct Outward {
    ring: Own,
    peer: Theirs,
    producer: Producer,
    published: u64,
    bell: Bell,
}

impl Outward {
    pub(super) fn new(ring: Own, peer: Theirs) -> Self {
        Self {
            ring,
            peer,
            producer: Producer::new(LENGTH),
            published: 0,
            bell: Bell::default(),
        }
    }

    /// Room for a record, or none; then the consumer knows that this end waits.
    fn room(&mut self, record: u64) -> Result<Option<u64>, Broken> {
        if let Some(start) = self.producer.push(record) {
            return Ok(Some(start));
        }
        self.producer.hear(self.peer.load(Word::Index))?;
        if let Some(start) = self.producer.push(record) {
            return Ok(Some(start));
        }
        self.ring.publish(Word::Want, self.producer.want());
        // The consumer publishes its index, then looks whether somebody waits; here it is the
        // other way round. With a fence between, one of both sees the other.
        fence(Ordering::SeqCst);
        self.producer.hear(self.peer.load(Word::Index))?;
        let start = self.producer.push(record);
        if start.is_some() {
            self.ring.publish(Word::Want, 0);
        }
        Ok(start)
    }

    /// Copies a message into the ring; false when it has no room.
    fn push(&mut self, message: Message<'_>, len: usize) -> Result<bool, Broken> {
        let Some(start) = self.room(record(len))? else {
            return Ok(false);
        };
        self.ring
            .set_len(offset(start, LENGTH), u32::try_from(len).unwrap_or(0));
        let mut at = start + LEAD as u64;
        for piece in message {
            self.ring.write(offset(at, LENGTH), *piece);
            at += piece.len() as u64;
        }
        Ok(true)
    }

    fn unpublished(&self) -> u64 {
        self.producer.head() - self.published
    }

    /// Shows the consumer what was written; whether it is to be rung.
    fn publish(&mut self) -> bool {
        self.published = self.producer.head();
        self.ring.publish(Word::Index, self.published);
        fence(Ordering::SeqCst);
        self.bell.is_due(self.peer.load(Word::Want), self.published)
    }
}

/// The direction that the peer fills.
#[derive(Debug)]
pub(super) struct Inward {
    ring: Theirs,
    own: Own,
    consumer: Consumer,
    published: u64,
    bell: Bell,
    /// This end said that it sleeps and has not looked for a bell since.
    asleep: bool,
}

impl Inward {
    pub(super) fn new(ring: Theirs, own: Own) -> Self {
        Self {
            ring,
            own,
            consumer: Consumer::new(LENGTH),
            published: 0,
            bell: Bell::default(),
            asleep: false,
        }
    }

    fn hear(&mut self) -> Result<(), Broken> {
        self.consumer.hear(self.ring.load(Word::Index))
    }

    /// Tells the producer that this end is about to sleep, and looks once more.
    fn sleep(&mut self) -> Result<(), Broken> {
        self.own.publish(Word::Want, self.consumer.want());
        fence(Ordering::SeqCst);
        self.hear()?;
        self.asleep = self.consumer.is_drained();
        if !self.asleep {
            self.own.publish(Word::Want, 0);
        }
        Ok(())
    }

    /// Gives room back to the producer; whether it is to be rung.
    fn publish(&mut self) -> bool {
        self.published = self.consumer.tail();
        self.own.publish(Word::Index, self.published);
        fence(Ordering::SeqCst);
        self.bell.is_due(self.ring.load(Word::Want), self.published)
    }
}

/// Where the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Here,
    /// It has closed its socket; its last frames are still to be read.
    Left,
    /// All is over.
    Gone,
}

/// One end of a ring in each direction. [`Offer`](crate::Offer) makes it.
#[derive(Debug)]
pub struct Ring {
    socket: OwnedFd,
    rules: Rules,
    stats: Stats,
    peer: Peer,
    broken: Option<Broken>,
    outward: Outward,
    inward: Inward,
}

impl Ring {
    pub(super) fn new(socket: OwnedFd, rules: Rules, outward: Outward, inward: Inward) -> Self {
        Self {
            socket,
            rules,
            stats: Stats::default(),
            peer: Peer::Here,
            broken: None,
            outward,
            inward,
        }
    }

    /// What the peer may send.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Sets what the peer may send from now on, after a new negotiation with the guest.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What the peer did, where the link ended because of that.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Ends the link with a peer that cannot be followed any more.
    fn end(&mut self, broken: Broken) -> LinkError {
        self.broken = Some(broken);
        self.close()
    }

    /// Ends the link: the peer hears of it, and so does whoever waits for this end.
    fn close(&mut self) -> LinkError {
        self.peer = Peer::Gone;
        let _ = shutdown(&self.socket, Shutdown::Both);
        LinkError::Closed
    }

    fn ring_bell(&mut self) -> Result<(), LinkError> {
        match send(
            &self.socket,
            &[0],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            // So many bells wait for the peer that one more would tell it nothing.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                self.peer = Peer::Left;
                Ok(())
            }
            Err(errno) => Err(LinkError::Socket(errno)),
        }
    }

    /// Takes one bell off the socket, or finds its end. Descriptors that come with it are closed
    /// by the kernel, as there is no room for them.
    fn hear_bell(&mut self) -> Result<(), LinkError> {
        self.inward.asleep = false;
        match recv(&self.socket, &mut [0_u8; 1], RecvFlags::DONTWAIT) {
            // End of file, or an empty packet, which no healthy peer sends.
            Ok((0, _)) | Err(Errno::CONNRESET) => self.peer = Peer::Left,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(LinkError::Socket(errno)),
        }
        Ok(())
    }

    fn publish_outward(&mut self) -> Result<(), LinkError> {
        if self.outward.unpublished() > 0 && self.outward.publish() {
            self.ring_bell()?;
        }
        Ok(())
    }

    fn publish_inward(&mut self) -> Result<(), LinkError> {
        let unpublished = self.inward.consumer.tail() - self.inward.published;
        if unpublished > 0 && self.inward.publish() {
            self.ring_bell()?;
        }
        Ok(())
    }

    /// Takes what was heard of into the arena; gives the bytes of records that broke the rules.
    fn fill(&mut self, arena: &mut FrameArena) -> Result<u64, LinkError> {
        let mut refused = 0;
        while arena.len() < arena.slots() && !self.inward.consumer.is_drained() {
            let start = self.inward.consumer.tail();
            let said = self.inward.ring.len_at(offset(start, LENGTH));
            let len = match self.inward.consumer.take(said) {
                Ok(len) => len,
                Err(broken) => return Err(self.end(broken)),
            };
            let at = offset(start + LEAD as u64, LENGTH);
            let ring = &self.inward.ring;
            if arena.put(len, &self.rules, |slot| ring.read(at, slot)) {
                self.stats.received += 1;
                self.stats.received_bytes += len as u64;
            } else {
                self.stats.flawed += 1;
                refused += record(len);
            }
            if self.inward.consumer.tail() - self.inward.published >= PUBLISH {
                self.publish_inward()?;
            }
        }
        Ok(refused)
    }
}

/// The bytes of a message that a receiver may take; `None` for one that no receiver takes.
fn sendable(message: Message<'_>) -> Option<usize> {
    message
        .iter()
        .try_fold(0_usize, |sum, segment| sum.checked_add(segment.len()))
        .filter(|total| (HEADER_LEN + MIN_FRAME..=MAX_MESSAGE).contains(total))
}

impl FrameLink for Ring {
    fn send_batch(&mut self, messages: &[Message<'_>]) -> Result<usize, LinkError> {
        let mut dealt_with = 0;
        for message in messages {
            if self.peer != Peer::Here {
                return Err(LinkError::Closed);
            }
            let Some(len) = sendable(message) else {
                self.stats.unsendable += 1;
                dealt_with += 1;
                continue;
            };
            match self.outward.push(message, len) {
                Ok(true) => {}
                Ok(false) => break,
                Err(broken) => return Err(self.end(broken)),
            }
            self.stats.sent += 1;
            self.stats.sent_bytes += len as u64;
            dealt_with += 1;
            if self.outward.unpublished() >= PUBLISH {
                self.publish_outward()?;
            }
        }
        self.publish_outward()?;
        Ok(dealt_with)
    }

    fn recv_batch(&mut self, arena: &mut FrameArena) -> Result<usize, LinkError> {
        arena.clear();
        if self.peer == Peer::Gone {
            return Err(LinkError::Closed);
        }
        let mut refused = 0;
        if let Err(broken) = self.inward.hear() {
            return Err(self.end(broken));
        }
        loop {
            refused += self.fill(arena)?;
            self.publish_inward()?;
            if arena.len() == arena.slots() {
                return Ok(arena.len());
            }
            if refused > LENGTH {
                return Err(self.end(Broken::Flood));
            }
            // Before it says that it sleeps: a bell that comes after that must stay to wake it.
            if self.inward.asleep || arena.is_empty() {
                self.hear_bell()?;
            }
            if let Err(broken) = self.inward.sleep() {
                return Err(self.end(broken));
            }
            if self.inward.consumer.is_drained() {
                if self.peer == Peer::Left && arena.is_empty() {
                    return Err(self.close());
                }
                return Ok(arena.len());
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
