//! The guest's side of DNS over TCP (RFC 7766): a few connections to the resolver's address, each of
//! which asks one question after the other.
//!
//! A connection holds nothing but its place: buffers are made once, for all of them. Who keeps one
//! without asking loses it, sooner where others wait: a handshake that does not end, a question that
//! comes a byte at a time, an answer that is not read each have their time. There is nobody on this
//! wire but the guest, so whatever it does here it does to itself; the bounds are for the gate.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::question::MAX_QUERY;
use super::segments::{Host, Sums};
use super::{DNS, PATIENCE};
use crate::moment::Moment;

/// Connections at a time. A stub resolver has one or two; a browser's own may have some more.
const CONNECTIONS: usize = 8;
/// Bytes of the length before each message (RFC 1035, section 4.2.2).
pub(super) const LENGTH: usize = 2;
/// Room for the longest question that is read, and its length.
const RECEIVE: usize = LENGTH + MAX_QUERY;
/// The longest answer that is passed on. What does not fit 1,232 bytes is most often signatures and
/// long lists of servers, some KiB; the whole 64 KiB that TCP could carry is nobody's.
pub(super) const MAX_LONG: usize = 16 * 1024;
/// Room for one such answer.
const SEND: usize = LENGTH + MAX_LONG;
/// From the first segment to the end of the handshake, and from there to the end of a question. The
/// guest is next to us.
const SPEAKS_WITHIN: Duration = Duration::from_secs(5);
/// From one question to the next (RFC 7766, section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// From a question to its answer: by datagram, and again over TCP.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
/// From our end to the guest's.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A connection that waits for an answer. It is not another one that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    slot: usize,
    life: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody is there.
    Listening,
    /// A handshake, or a question, is under way; it is to be whole by then.
    Reading { by: Moment },
    /// The answer is under way, and everything before it was sent. It is to be there by then.
    Waiting { by: Moment },
    /// It is to be gone by then.
    Ending { by: Moment },
}

impl Phase {
    const fn by(self) -> Option<Moment> {
        match self {
            Self::Listening => None,
            Self::Reading { by } | Self::Waiting { by } | Self::Ending { by } => Some(by),
        }
    }
}

#[derive(Debug)]
struct Slot {
    handle: SocketHandle,
    phase: Phase,
    life: u32,
}

/// The connections.
pub(super) struct Streams {
    host: Host,
    slots: Vec<Slot>,
}

impl Streams {
    /// Nobody is connected.
    pub(super) fn new(router: Ipv4Addr, mtu: u16, seed: u64, now: Moment) -> Self {
        let mut host = Host::new(router, mtu, seed, Sums::Known, now);
        let slots = (0..CONNECTIONS).map(|_| Slot {
            handle: host.add(RECEIVE, SEND),
            phase: Phase::Listening,
            life: 0,
        });
        let slots = slots.collect();
        let mut streams = Self { host, slots };
        streams.listen();
        streams
    }

    /// Takes a segment of the guest's, sums checked. `begins`: it asks for a connection.
    pub(super) fn segment(&mut self, packet: &[u8], begins: bool, now: Moment) {
        if begins {
            self.make_room(now);
        }
        self.host.turn(Some(packet), now);
        self.look(now);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Moment) {
        self.host.turn(None, now);
        self.look(now);
    }

    /// When [`Streams::tick`] is due.
    pub(super) fn due(&mut self, now: Moment) -> Option<Moment> {
        let phases = self.slots.iter().filter_map(|slot| slot.phase.by());
        // Where nobody is connected, nothing is due, and nothing more is looked at.
        let soonest = phases.min()?;
        let sooner = self.host.due(now);
        Some(sooner.map_or(soonest, |due| due.min(soonest)))
    }

    /// Where all places are taken, the connection that has been silent for longest makes way: one
    /// that is being answered last of all.
    fn make_room(&mut self, now: Moment) {
        if self.slots.iter().any(|slot| slot.phase == Phase::Listening) {
            return;
        }
        let worth = |phase| match phase {
            Phase::Listening | Phase::Ending { .. } => (0, Moment::default()),
            Phase::Reading { by } => (1, by),
            Phase::Waiting { by } => (2, by),
        };
        if let Some(slot) = self.slots.iter().min_by_key(|slot| worth(slot.phase)) {
            let handle = slot.handle;
            self.host.socket(handle).abort();
            // It is told so before its place is another's.
            self.host.turn(None, now);
            self.listen();
        }
    }

    /// Every socket that has ended listens again.
    fn listen(&mut self) {
        for slot in &mut self.slots {
            let socket = self.host.socket(slot.handle);
            if !socket.is_open() {
                slot.phase = Phase::Listening;
                slot.life = slot.life.wrapping_add(1);
                // A port that is not zero, on a socket that is closed: it cannot fail.
                let _ = socket.listen(DNS);
            }
        }
    }

    /// Brings the phases in line with what the connections have become, and ends those whose time
    /// is over.
    fn look(&mut self, now: Moment) {
        let mut ended = false;
        for slot in &mut self.slots {
            let socket = self.host.socket(slot.handle);
            let state = socket.state();
            match slot.phase {
                // A handshake that was taken back.
                Phase::Reading { .. } if state == State::Listen => slot.phase = Phase::Listening,
                Phase::Listening if state != State::Listen => {
                    let by = now + SPEAKS_WITHIN;
                    slot.phase = Phase::Reading { by };
                }
                Phase::Reading { .. } if state == State::CloseWait && !socket.can_recv() => {
                    // The guest has said all that it will.
                    socket.close();
                    let by = now + ENDS_WITHIN;
                    slot.phase = Phase::Ending { by };
                }
                phase if phase.by().is_some_and(|by| by <= now) => socket.abort(),
                _ => {}
            }
            // Nothing more comes of it: not even its last segment is waited for.
            if state == State::TimeWait {
                socket.abort();
            }
            ended |= !socket.is_open();
        }
        if ended {
            // What ended by us says so first.
            self.host.turn(None, now);
            self.listen();
        }
    }

    /// The next whole question, written over `out`; its length and whose it is. The connection then
    /// waits for [`Streams::answer`] or [`Streams::drop`], and reads nothing more until then.
    pub(super) fn question(
        &mut self,
        out: &mut [u8; MAX_QUERY],
        now: Moment,
    ) -> Option<(Ticket, usize)> {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Phase::Reading { .. } = slot.phase else {
                continue;
            };
            let socket = self.host.socket(slot.handle);
            let mut length = [0; LENGTH];
            if socket.peek_slice(&mut length) != Ok(LENGTH) {
                continue;
            }
            let length = usize::from(u16::from_be_bytes(length));
            if length > MAX_QUERY {
                // No question of any program; there is no use in reading on.
                socket.abort();
                continue;
            }
            // What was sent before must have been read: one answer lies here at most.
            if socket.recv_queue() < LENGTH + length || socket.send_queue() > 0 {
                continue;
            }
            let _ = socket.recv_slice(&mut [0; LENGTH]);
            let whole = socket.recv_slice(&mut out[..length]) == Ok(length);
            let by = now + ANSWERED_WITHIN;
            slot.phase = Phase::Waiting { by };
            if whole {
                let ticket = Ticket {
                    slot: at,
                    life: slot.life,
                };
                return Some((ticket, length));
            }
        }
        // Connections that were ended above.
        self.look(now);
        None
    }

    /// Answers. An answer to a connection that is gone is dropped.
    pub(super) fn answer(&mut self, ticket: Ticket, message: &[u8], now: Moment) {
        let Some(handle) = self.waiting(ticket) else {
            return;
        };
        let socket = self.host.socket(handle);
        let length = u16::try_from(message.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        // It fits: nothing else lies in the buffer.
        let sent = socket
            .send_slice(&length)
            .and_then(|_| socket.send_slice(message));
        if sent != Ok(message.len()) {
            socket.abort();
        }
        self.slots[ticket.slot].phase = Phase::Reading { by: now + IDLE };
        self.tick(now);
    }

    /// There will be no answer: the connection ends, and the guest may ask again on another.
    pub(super) fn drop(&mut self, ticket: Ticket, now: Moment) {
        if let Some(handle) = self.waiting(ticket) {
            self.host.socket(handle).abort();
            self.tick(now);
        }
    }

    fn waiting(&self, ticket: Ticket) -> Option<SocketHandle> {
        let slot = self.slots.get(ticket.slot)?;
        let same = slot.life == ticket.life && matches!(slot.phase, Phase::Waiting { .. });
        same.then_some(slot.handle)
    }

    /// The next packet for the guest. Given back with [`Streams::sent`].
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        self.host.packet()
    }

    /// Gives a packet's memory back.
    pub(super) fn sent(&mut self, packet: Vec<u8>) {
        self.host.sent(packet);
    }
}

#[cfg(test)]
mod tests;
