//! From the gateway to the guest.

use std::os::fd::AsFd;

use bytes::BytesMut;
use rustix::io::Errno;
use sekisho_control::PathId;

use super::admit::{Origin, Refusal, Subject};
use super::edge::Heard;
use super::engine::Gate;
use super::family::Family;
use super::packet::{Malformed, Offload, Packet, Transport};
use super::path::{Coalescer, Inbox, Outlet};
use super::situation::{Event, Situation};
use super::sockets::Far;
use crate::moment::Moment;
use crate::tunnel::{AnyTunnel, Opened, Roaming as _};

/// System calls for datagrams in one turn and path: 64 datagrams, or eight of 64 KiB where the
/// kernel joins them.
const READS: usize = 4;
/// Bytes that are opened before they are given to the guest: a full super-frame, and no more, so that
/// they are still in the processor's cache.
const AT_ONCE: usize = 65_536;

/// What a batch of datagrams showed about the path that they came over.
#[derive(Default)]
struct Signs {
    heard: bool,
    handshake: bool,
    /// The second key was answered.
    checked: bool,
}

impl Gate {
    /// Reads the socket at `index`, if it is still this path's, until it is empty, the budget is
    /// spent or the guest's link is full. Whether there was anything to read.
    pub(super) fn read_path(&mut self, index: usize, id: PathId, now: Moment) -> bool {
        let mut any = false;
        let Some(mut inbox) = self.inbox.take() else {
            return any;
        };
        for _ in 0..READS {
            let Some(socket) = self.sockets.reader(index, id) else {
                break;
            };
            let received = match socket.outlet() {
                Outlet::Gateway => inbox.receive(socket.as_fd(), true),
                Outlet::Engine => inbox.receive(socket.as_fd(), false),
                Outlet::Tun => inbox.read_packets(socket.as_fd()),
            };
            let (messages, more) = match received {
                Ok((0, _)) => break,
                Ok(received) => received,
                // An ICMP message about something sent earlier, which anybody can forge. What has come
                // besides is read in the same turn, or a stream of them would keep it out.
                Err(Errno::MSGSIZE) => {
                    if self.machine.situation().path() == Some(id) {
                        self.narrow(id, now);
                    }
                    continue;
                }
                Err(_) => {
                    self.findings.unreachable(id);
                    continue;
                }
            };
            any = true;
            self.datagrams(id, index, (&mut inbox, messages), now);
            if self.guest.is_full() || !more {
                break;
            }
        }
        self.inbox = Some(inbox);
        any
    }

    /// Closes a socket that somebody else has shut down. A path that was in use is lost.
    pub(super) fn cut(&mut self, index: usize, id: PathId, now: Moment) {
        let Some(far) = self.sockets.reader(index, id).map(|socket| socket.far) else {
            return;
        };
        if self.sockets.close_at(index) {
            let lost = match far {
                Far::Gateway(_) => Event::PathLost(id),
                // Whoever held the other end is gone.
                Far::Engine | Far::Tun => Event::EngineCrashed(id),
            };
            self.happen(lost, now);
        }
    }

    fn datagrams(
        &mut self,
        id: PathId,
        index: usize,
        (inbox, messages): (&mut Inbox, usize),
        now: Moment,
    ) {
        let mut signs = Signs::default();
        let mut waiting = 0;
        for message in 0..messages {
            waiting += self.open_each(id, index, inbox.take(message), &mut signs, now);
            if waiting >= AT_ONCE || message + 1 == messages {
                // What a handshake proved counts before what follows it is admitted.
                self.signs(id, &mut signs, now);
                let opened = std::mem::take(&mut self.opened);
                self.deliver_all(&opened, now);
                self.opened = opened;
                self.opened.clear();
                waiting = 0;
            }
        }
    }

    fn signs(&mut self, id: PathId, signs: &mut Signs, now: Moment) {
        let Signs {
            heard,
            handshake,
            checked,
        } = std::mem::take(signs);
        if checked {
            self.checked(id, now);
        }
        if heard {
            self.findings.heard(id);
            self.happen(
                Event::Heard {
                    path: id,
                    handshake,
                },
                now,
            );
        }
    }

    /// Opens datagrams of one message. Inner packets end up in `opened`; returns their bytes.
    fn open_each(
        &mut self,
        id: PathId,
        index: usize,
        datagrams: impl Iterator<Item = BytesMut>,
        signs: &mut Signs,
        now: Moment,
    ) -> usize {
        let mut bytes = 0;
        let Some(socket) = self.sockets.reader(index, id) else {
            return bytes;
        };
        let tunnel = self.tunnels.get_mut(usize::from(socket.gateway.0));
        let (tunnel, peer) = match (tunnel, socket.far) {
            (Some(AnyTunnel::WireGuard(tunnel)), Far::Gateway(peer)) => (tunnel, peer),
            (Some(AnyTunnel::IpFd(_)), Far::Engine | Far::Tun) => {
                for packet in datagrams {
                    bytes += packet.len();
                    self.opened.push(packet);
                }
                return bytes;
            }
            _ => return bytes,
        };
        for datagram in datagrams {
            if let Some(standby) = &mut self.standby
                && standby.is_for(id, &datagram)
            {
                signs.checked |= standby.answers(id, datagram, peer, now);
                continue;
            }
            match tunnel.open(datagram, peer, &mut self.datagram, now) {
                Opened::Inner(packet) => {
                    signs.heard = true;
                    bytes += packet.len();
                    self.opened.push(packet);
                }
                Opened::Alive => signs.heard = true,
                Opened::Answer { proven } => {
                    signs.heard |= proven;
                    signs.handshake |= proven;
                    let _ = super::path::send_datagram(socket.as_fd(), self.datagram.bytes());
                }
                Opened::Refused => {
                    tracing::trace!(?id, "a datagram that is not the gateway's");
                    self.findings.unproven(id);
                }
            }
        }
        bytes
    }

    fn deliver_all(&mut self, opened: &[BytesMut], now: Moment) {
        let ethernet = self.edge.ethernet();
        let situation = self.machine.situation();
        let mut coalescer = Coalescer::new(ethernet, self.room.mtu());
        let mut coalescer6 = None;
        let mut names = false;
        for bytes in opened {
            if is_ipv6(bytes) {
                let packet = Packet::parse_v6(bytes, Offload::None);
                if let Some(packet) = self.parsed(packet, now) {
                    let coalescer =
                        coalescer6.get_or_insert_with(|| Coalescer::new(ethernet, self.room.mtu()));
                    self.deliver(packet, situation, coalescer, now);
                }
                continue;
            }
            let Some(packet) = self.parsed(Packet::parse(bytes, Offload::None), now) else {
                continue;
            };
            // A path that was lost is still read: while the gate is closed, or packets go another
            // way, nothing of it reaches the guest, and admission says so.
            let tunnelled = matches!(situation, Situation::Tunnelled { .. });
            if tunnelled && self.answers_name(&packet, now) {
                names = true;
                continue;
            }
            self.deliver(packet, situation, &mut coalescer, now);
        }
        coalescer.flush(&mut self.guest);
        if let Some(mut coalescer) = coalescer6 {
            coalescer.flush(&mut self.guest);
        }
        if names {
            self.serve_connections(now);
        }
    }

    /// The packet, if what came out of the tunnel is one.
    fn parsed<'a, A: Family>(
        &mut self,
        parsed: Result<Packet<'a, A>, Malformed>,
        now: Moment,
    ) -> Option<Packet<'a, A>> {
        parsed
            .map_err(|malformed| {
                let refusal = Refusal {
                    rule: malformed.into(),
                    subject: Subject::Frame {
                        ether_type: A::ETHER_TYPE,
                    },
                };
                self.refused(&refusal, now);
            })
            .ok()
    }

    /// Admits a packet and gives it to the guest, joined with its neighbours.
    fn deliver<'a, A: Family>(
        &mut self,
        packet: Packet<'a, A>,
        situation: Situation,
        coalescer: &mut Coalescer<'a, A>,
        now: Moment,
    ) {
        match self.keeper.admit(packet, Origin::Tunnel, &situation, now) {
            Ok(admitted) => {
                if matches!(packet.transport(), Transport::Tcp { .. }) {
                    self.findings.server_answered();
                }
                coalescer.offer(&admitted, &mut self.guest);
            }
            Err(refusal) => self.refused(&refusal, now),
        }
    }

    /// Whether it is about a question of the resolver's, which has dealt with it.
    pub(super) fn answers_name(&mut self, packet: &Packet<'_>, now: Moment) -> bool {
        let ethernet = self.edge.ethernet();
        let heard = self
            .resolver
            .answer(packet, &ethernet, &mut self.reply, now);
        if heard == Heard::Nothing {
            return false;
        }
        self.findings.name_answered();
        self.send_reply();
        if let Heard::Refused(rule) = heard {
            let subject = Subject::inbound(&packet.flow());
            self.refused(&Refusal { rule, subject }, now);
        }
        true
    }
}

/// Whether a packet says that it is one of IPv6; whether it is one, its parser finds out.
fn is_ipv6(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 6)
}
