//! From the guest to the gateway.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use sekisho_control::WireId;
use sekisho_framelink::Frame;

use super::admit::{Admitted, Origin, Refusal, Rule, Subject};
use super::edge::{Edge, Reply, Taken};
use super::engine::Gate;
use super::family::Family;
use super::packet::{Packet, Packet6, Transport};
use super::path::Flushed;
use super::situation::{Event, Situation};
use crate::moment::Moment;
use crate::tunnel::{AnyTunnel, SealError};

/// System calls for frames in one turn. With sixteen frames each: a turn's budget of 64.
const READS: usize = 4;

/// What is done with a packet of one family and not of the other.
pub(super) trait Outward: Family {
    /// Tells the guest that a packet is not allowed.
    fn prohibit(edge: &mut Edge, packet: &Packet<'_, Self>, reply: &mut Reply, now: Moment);

    /// Tells the guest that a packet is too long.
    fn too_long(
        edge: &mut Edge,
        packet: &Packet<'_, Self>,
        mtu: u16,
        reply: &mut Reply,
        now: Moment,
    );

    /// Writes an admitted packet to the wire of the office.
    fn onto_wire(gate: &mut Gate, wire: WireId, admitted: &Admitted<Packet<'_, Self>>, now: Moment);
}

impl Outward for Ipv4Addr {
    fn prohibit(edge: &mut Edge, packet: &Packet<'_>, reply: &mut Reply, now: Moment) {
        edge.prohibit(packet, reply, now);
    }

    fn too_long(edge: &mut Edge, packet: &Packet<'_>, mtu: u16, reply: &mut Reply, now: Moment) {
        edge.too_long(packet, mtu, reply, now);
    }

    fn onto_wire(gate: &mut Gate, wire: WireId, admitted: &Admitted<Packet<'_>>, now: Moment) {
        gate.send_direct(wire, admitted, now);
    }
}

impl Outward for Ipv6Addr {
    fn prohibit(edge: &mut Edge, packet: &Packet6<'_>, reply: &mut Reply, now: Moment) {
        edge.prohibit_v6(packet, reply, now);
    }

    fn too_long(edge: &mut Edge, packet: &Packet6<'_>, mtu: u16, reply: &mut Reply, now: Moment) {
        edge.too_long_v6(packet, mtu, reply, now);
    }

    /// No wire carries it, and admission has said so: what comes here all the same is lost.
    fn onto_wire(gate: &mut Gate, _: WireId, _: &Admitted<Packet6<'_>>, _: Moment) {
        gate.path.dropped += 1;
    }
}

impl Gate {
    /// Reads frames until there are none, the budget is spent or the way out is full.
    pub(super) fn read_guest(&mut self, now: Moment) {
        let Some(mut arena) = self.arena.take() else {
            return;
        };
        for _ in 0..READS {
            if !self.path.has_room() || !self.guest.receive(&mut arena) {
                break;
            }
            self.count_flawed(now);
            if arena.is_empty() {
                break;
            }
            self.watch_carrier(now);
            let short = arena.len() < arena.slots();
            for frame in arena.frames() {
                self.guest_frame(&frame, now);
                if self.path.is_ripe() {
                    self.flush(now);
                }
            }
            if short {
                break;
            }
        }
        arena.clear();
        self.arena = Some(arena);
        self.flush(now);
    }

    /// Messages that the link itself dropped (T39, T40): their headers lie, or they are no frames.
    fn count_flawed(&mut self, now: Moment) {
        let refused = self.guest.stats().refused();
        // A fresh link counts from zero.
        let before = std::mem::replace(&mut self.flawed, refused);
        for _ in before..refused {
            let refusal = Refusal {
                rule: Rule::Malformed,
                subject: Subject::Frame { ether_type: 0 },
            };
            self.refused(&refusal, now);
        }
    }

    fn guest_frame(&mut self, frame: &Frame<'_>, now: Moment) {
        match self
            .edge
            .take(&frame.hdr, frame.frame, &mut self.reply, now)
        {
            Taken::Transit(packet) => self.transit(packet, now),
            Taken::Transit6(packet) => self.transit(packet, now),
            Taken::Question(packet) => self.question(&packet, now),
            Taken::Segment(packet) => self.resolver_segment(&packet, now),
            Taken::Probe(packet) => self.probe(&packet, now),
            Taken::Done => {}
            Taken::Refused(refusal) => self.refused(&refusal, now),
        }
        self.send_reply();
    }

    fn transit<A: Outward>(&mut self, packet: Packet<'_, A>, now: Moment) {
        let situation = self.machine.situation();
        self.findings.address();
        match self.keeper.admit(packet, Origin::Guest, &situation, now) {
            Ok(admitted) => {
                if matches!(packet.transport(), Transport::Tcp { flags, .. } if flags.syn) {
                    self.findings.asks_server(now);
                }
                self.send(&admitted, situation, now);
            }
            Err(refusal) => {
                // While closed the guest is left to try again, as on a wire without a plug; what
                // policy forbids it is told at once.
                match refusal.rule {
                    Rule::Policy(_) | Rule::NotServed => {
                        A::prohibit(&mut self.edge, &packet, &mut self.reply, now);
                    }
                    Rule::TooLong => {
                        let mtu = self.room.mtu();
                        A::too_long(&mut self.edge, &packet, mtu, &mut self.reply, now);
                    }
                    _ => {}
                }
                self.refused(&refusal, now);
            }
        }
    }

    /// Passes an admitted packet to the tunnel, or the wire, of the situation.
    pub(super) fn send<A: Outward>(
        &mut self,
        admitted: &Admitted<Packet<'_, A>>,
        situation: Situation,
        now: Moment,
    ) {
        let gateway = match situation {
            Situation::Tunnelled { gateway, .. } => gateway,
            Situation::Direct { wire } => return A::onto_wire(self, wire, admitted, now),
            Situation::Closed(_) => return,
        };
        let Some(tunnel) = self.tunnels.get_mut(usize::from(gateway.0)) else {
            return;
        };
        let sealed = match tunnel {
            AnyTunnel::WireGuard(tunnel) => self.path.send(admitted, tunnel, self.room.mtu(), now),
            AnyTunnel::IpFd(tunnel) => self.path.send(admitted, tunnel, self.room.mtu(), now),
        };
        match sealed {
            Ok(()) => self.machine.handle(Event::Sent, now, &mut self.actions),
            Err(SealError::NoSession) => self.happen(Event::SessionGone, now),
        }
    }

    /// The work OS asks whether it has a network: it has while there is a way out.
    fn probe(&mut self, packet: &Packet<'_>, now: Moment) {
        if self.machine.situation().scope().is_some() {
            self.edge.serve_probe(packet, &mut self.reply);
        } else {
            let refusal = self.edge.not_served(packet, &mut self.reply, now);
            self.refused(&refusal, now);
        }
    }

    fn question(&mut self, packet: &Packet<'_>, now: Moment) {
        self.findings.address();
        let ethernet = self.edge.ethernet();
        let connected = self.machine.situation().scope().is_some();
        let asked = self
            .resolver
            .ask(packet, connected, &ethernet, &mut self.reply, now);
        self.asked(asked, Subject::outbound(&packet.flow()), now);
    }

    /// Sends the waiting batches over the path in use.
    pub(super) fn flush(&mut self, now: Moment) {
        if self.path.is_empty() {
            return;
        }
        let Situation::Tunnelled { path, .. } = self.machine.situation() else {
            return self.path.clear();
        };
        let Some(socket) = self.sockets.sender(path) else {
            return self.path.clear();
        };
        match self.path.flush(socket.as_fd(), socket.outlet()) {
            Ok(Flushed::All | Flushed::Full) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::info!(?path, %error, "cannot send over this path");
                self.happen(Event::SendFailed(path), now);
            }
        }
        if self.path.was_too_long() {
            self.narrow(path, now);
        }
    }
}
