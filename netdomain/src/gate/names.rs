//! DNS over TCP: the resolver's connections, joined to guest and tunnel.

use super::admit::{Origin, Refusal, Subject};
use super::edge::{Asked, Heard};
use super::engine::Gate;
use super::packet::{Flow, Offload, Packet};
use crate::moment::Moment;

use sekisho_policy::Protocol;

const DNS: u16 = 53;
/// Questions, and long answers, that are looked at in one turn: more than there are connections.
const ROUNDS: usize = 16;

impl Gate {
    /// A segment of a connection to the resolver.
    pub(super) fn resolver_segment(&mut self, packet: &Packet<'_>, now: Moment) {
        self.findings.address();
        self.resolver.segment(packet, now);
        self.serve_connections(now);
    }

    /// Does what is due on the resolver's connections.
    pub(super) fn tick_connections(&mut self, now: Moment) {
        if self.resolver.due(now).is_some_and(|due| due <= now) {
            self.resolver.tick(now);
            self.serve_connections(now);
        }
    }

    /// Takes what the guest asks over its connections, hands it what came for them, and sends what
    /// wants out.
    pub(super) fn serve_connections(&mut self, now: Moment) {
        let ethernet = self.edge.ethernet();
        for _ in 0..ROUNDS {
            let Some(heard) = self.resolver.answer_next(&ethernet, &mut self.reply, now) else {
                break;
            };
            if let Heard::Refused(rule) = heard {
                let subject = self.asker();
                self.refused(&Refusal { rule, subject }, now);
            }
        }
        // Nothing that was read precedes what the clock brings: questions, and repeated segments.
        self.watch_carrier(now);
        let connected = self.machine.situation().scope().is_some();
        for _ in 0..ROUNDS {
            let Some(asked) = self
                .resolver
                .ask_next(connected, &ethernet, &mut self.reply, now)
            else {
                break;
            };
            let subject = self.asker();
            self.asked(asked, subject, now);
        }
        self.send_segments(now);
    }

    fn send_segments(&mut self, now: Moment) {
        let ethernet = self.edge.ethernet();
        while self.resolver.segment_for_guest(&ethernet, &mut self.reply) {
            self.send_reply();
        }
        let situation = self.machine.situation();
        while let Some(bytes) = self.resolver.segment_for_tunnel() {
            if let Ok(packet) = Packet::parse(&bytes, Offload::None) {
                match self.keeper.admit(packet, Origin::Resolver, &situation, now) {
                    Ok(admitted) => self.send(&admitted, situation, now),
                    Err(refused) => self.refused(&refused, now),
                }
                if !self.path.has_room() {
                    self.flush(now);
                }
            }
            self.resolver.sent(bytes);
        }
    }

    /// What became of a question: it is sent, or the refusal is counted.
    pub(super) fn asked(&mut self, asked: Asked, subject: Subject, now: Moment) {
        match asked {
            Asked::Answered => {}
            Asked::Refused(rule) => self.refused(&Refusal { rule, subject }, now),
            Asked::Forward => {
                let situation = self.machine.situation();
                let bytes = std::mem::take(self.resolver.packet_mut());
                if let Ok(question) = Packet::parse(&bytes, Offload::None) {
                    match self
                        .keeper
                        .admit(question, Origin::Resolver, &situation, now)
                    {
                        Ok(admitted) => {
                            self.findings.asks_name(now);
                            self.send(&admitted, situation, now);
                        }
                        Err(refused) => self.refused(&refused, now),
                    }
                }
                *self.resolver.packet_mut() = bytes;
            }
        }
    }

    /// Whoever asks over a connection, for the count of refusals.
    fn asker(&self) -> Subject {
        Subject::outbound(&Flow {
            protocol: Protocol::Tcp,
            source: self.edge.place().address,
            destination: self.edge.router(),
            source_port: 0,
            destination_port: DNS,
        })
    }
}
