//! The resolver's connections, to the guest and to the servers, as the gate drives them.

use super::question::{MAX_QUERY, repeats};
use super::stream::MAX_LONG;
use super::wire::{FLAG_ANSWER, HEADER, OPCODE};
use super::{Asked, Back, Heard, Resolver};
use crate::gate::edge::reply::Reply;
use crate::gate::packet::{Packet, Transport};
use crate::gate::path::Ethernet;
use crate::moment::Moment;

/// Ethernet's number for IPv4.
const IPV4: u16 = 0x0800;

impl Resolver {
    /// Takes a segment of a connection of the guest's, checksum checked. What it asks comes by
    /// [`Resolver::ask_next`].
    pub fn segment(&mut self, packet: &Packet<'_>, now: Moment) {
        let begins = matches!(
            packet.transport(),
            Transport::Tcp { flags, .. } if flags.syn && !flags.ack
        );
        self.streams.segment(packet.bytes(), begins, now);
    }

    /// The next question of a connection, as [`Resolver::ask`] takes one of a datagram.
    pub fn ask_next(
        &mut self,
        connected: bool,
        ethernet: &Ethernet,
        reply: &mut Reply,
        now: Moment,
    ) -> Option<Asked> {
        let mut query = [0; MAX_QUERY];
        let (ticket, len) = self.streams.question(&mut query, now)?;
        let back = Back::Stream(ticket);
        Some(self.put(&query[..len], back, connected, (ethernet, reply), now))
    }

    /// The next long answer that came over TCP, or will not come. The guest's is on its connection.
    pub fn answer_next(
        &mut self,
        ethernet: &Ethernet,
        reply: &mut Reply,
        now: Moment,
    ) -> Option<Heard> {
        self.upstream.tick(now);
        let mut long = std::mem::take(&mut self.long);
        let heard = self.upstream.finished(&mut long, now).map(|held| {
            let whole = long.len() >= HEADER
                && long[..2] == held.id.to_be_bytes()
                && long[2] & (FLAG_ANSWER | OPCODE) == FLAG_ANSWER
                && long[4..6] == [0, 1]
                && repeats(&long[HEADER..], held.question());
            match held.guest.back {
                // The connection ends, and the guest may ask again.
                Back::Stream(ticket) if !whole => {
                    self.streams.drop(ticket, now);
                    Heard::More
                }
                _ => self.pass_on(&long, &held, MAX_LONG, (ethernet, reply), now),
            }
        });
        self.long = long;
        heard
    }

    /// Does what is due on connections.
    pub fn tick(&mut self, now: Moment) {
        self.streams.tick(now);
        self.upstream.tick(now);
    }

    /// When [`Resolver::tick`] is due, and what follows from it is to be looked at.
    pub fn due(&mut self, now: Moment) -> Option<Moment> {
        let upstream = self.upstream.due(now);
        self.streams.due(now).into_iter().chain(upstream).min()
    }

    /// Whether a packet of a connection waits for the guest, which is then in `reply`.
    pub fn segment_for_guest(&mut self, ethernet: &Ethernet, reply: &mut Reply) -> bool {
        let Some(packet) = self.streams.packet() else {
            return false;
        };
        reply
            .ethernet(ethernet, IPV4, packet.len())
            .copy_from_slice(&packet);
        self.streams.sent(packet);
        true
    }

    /// The next packet of a connection to a server. Given back with [`Resolver::sent`].
    pub fn segment_for_tunnel(&mut self) -> Option<Vec<u8>> {
        self.upstream.packet()
    }

    /// Gives a packet's memory back.
    pub fn sent(&mut self, packet: Vec<u8>) {
        self.upstream.sent(packet);
    }
}
