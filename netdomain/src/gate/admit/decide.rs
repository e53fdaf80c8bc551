//! The decision about one packet, for either family: by the connection that it belongs to, or by
//! policy.

use std::time::Duration;

use sekisho_policy::{Admission, Direction, Protocol, Query, RuleId};

use super::flows::{Allowed, Entry, Key, Scope};
use super::{DNS, Party, Rule, Share};
use crate::gate::device::MIN_MTU;
use crate::gate::family::Family;
use crate::gate::packet::{Flow, IcmpKind, Offload, Packet, TcpFlags, Transport};
use crate::moment::Moment;

/// How long a young gate takes up connections in the middle at the word of the far end. The guest's
/// connections outlive a gate that was killed; where the server is the one with data to send, the
/// guest would otherwise never hear of them again. Only segments of connections that policy would
/// let the guest begin are taken up, and no SYN is.
const TAKE_UP: Duration = Duration::from_mins(2);

/// What a packet of one family is decided with.
pub(super) struct Desk<'a, A> {
    pub(super) rules: &'a Admission,
    pub(super) mtu: u16,
    /// When this gate began.
    pub(super) began: Moment,
    pub(super) party: &'a mut Party<A>,
    pub(super) scope: Scope,
    pub(super) now: Moment,
}

impl<A: Family> Desk<'_, A> {
    pub(super) fn outbound(&mut self, packet: &Packet<'_, A>) -> Result<Share, Rule> {
        let flow = packet.flow();
        if flow.source != self.party.address {
            return Err(Rule::AntiSpoof);
        }
        let cut = matches!(packet.offload(), Offload::Tcp { .. });
        if !cut && packet.bytes().len() > usize::from(self.mtu) {
            return Err(Rule::TooLong);
        }
        let key = Key {
            protocol: flow.protocol,
            peer: flow.destination,
            peer_port: flow.destination_port,
            local_port: flow.source_port,
        };
        match packet.transport() {
            Transport::Icmp {
                kind: IcmpKind::Error,
            } => self.error(packet, Direction::Out),
            Transport::Icmp {
                kind: IcmpKind::EchoReply,
            } => self.known(&key, Direction::Out, None),
            Transport::Icmp {
                kind: IcmpKind::Other,
            } => Err(Rule::NotServed),
            Transport::Icmp {
                kind: IcmpKind::EchoRequest,
            }
            | Transport::Udp => self.packet_of(key, Direction::Out, None),
            Transport::Tcp { flags, .. } => self.packet_of(key, Direction::Out, Some(flags)),
        }
    }

    pub(super) fn inbound(&mut self, packet: &Packet<'_, A>) -> Result<Share, Rule> {
        let flow = packet.flow();
        if flow.destination != self.party.address {
            return Err(Rule::NoFlow);
        }
        let key = Key {
            protocol: flow.protocol,
            peer: flow.source,
            peer_port: flow.source_port,
            local_port: flow.destination_port,
        };
        match packet.transport() {
            Transport::Icmp {
                kind: IcmpKind::Error,
            } => self.error(packet, Direction::In),
            Transport::Icmp {
                kind: IcmpKind::EchoReply,
            } => self.known(&key, Direction::In, None),
            Transport::Icmp {
                kind: IcmpKind::Other,
            } => Err(Rule::NotServed),
            Transport::Icmp {
                kind: IcmpKind::EchoRequest,
            }
            | Transport::Udp => self.packet_of(key, Direction::In, None),
            Transport::Tcp { flags, .. } => self.packet_of(key, Direction::In, Some(flags)),
        }
    }

    /// A packet that may begin a conversation, or belong to one.
    fn packet_of(
        &mut self,
        key: Key<A>,
        direction: Direction,
        flags: Option<TcpFlags>,
    ) -> Result<Share, Rule> {
        let first = flags.is_some_and(|flags| flags.syn && !flags.ack);
        let again = first
            && self
                .party
                .flows
                .find(&key, self.now)
                .is_some_and(|held| held.ended());
        if !again {
            match self.known(&key, direction, flags) {
                Err(Rule::NoFlow) => {}
                decided => return decided,
            }
        }
        // Who begins: the sender, but for a connection that is older than this gate.
        let begun = match (direction, flags) {
            (Direction::In, Some(flags)) if !first => {
                if flags.syn || flags.rst || self.now.since(self.began) > TAKE_UP {
                    return Err(Rule::NoFlow);
                }
                Direction::Out
            }
            _ => direction,
        };
        let decision = self.rules.decide(&query(&key, begun, self.scope));
        if !decision.is_allowed() {
            return Err(Rule::Policy(decision.rule()));
        }
        let class = self.rules.class(decision.rule());
        let allowed = Allowed {
            scope: self.scope,
            begun,
            class,
        };
        self.party
            .flows
            .insert(key, allowed, direction, self.now)
            .map_err(|_| Rule::FlowTableFull)?;
        Ok(class)
    }

    /// A packet that must belong to a known conversation; it is decided again if the circumstances
    /// have changed since.
    fn known(
        &mut self,
        key: &Key<A>,
        direction: Direction,
        flags: Option<TcpFlags>,
    ) -> Result<Share, Rule> {
        let now = self.now;
        let entry = self.standing(key)?;
        entry.seen(direction, flags, now);
        Ok(entry.class)
    }

    /// The known conversation of this key, if policy allows it here and now.
    fn standing(&mut self, key: &Key<A>) -> Result<&mut Entry<A>, Rule> {
        let entry = self.party.flows.find(key, self.now).ok_or(Rule::NoFlow)?;
        if entry.scope() != self.scope {
            let decision = self.rules.decide(&query(key, entry.begun, self.scope));
            if !decision.is_allowed() {
                entry.forget();
                return Err(Rule::Policy(decision.rule()));
            }
            entry.decided(self.scope, self.rules.class(decision.rule()));
        }
        Ok(entry)
    }

    /// An ICMP error passes if the packet that it quotes belongs to a known conversation that
    /// policy still allows. Any router on the way may send one to the guest, but none in a
    /// forbidden network; one of the guest's is for the sender of the packet that it quotes and for
    /// nobody else, or it would be a datagram to any address past every rule.
    fn error(&mut self, packet: &Packet<'_, A>, direction: Direction) -> Result<Share, Rule> {
        let quoted = packet.quoted().ok_or(Rule::NoFlow)?;
        let shrinks = packet.told_mtu().is_some_and(|mtu| mtu < MIN_MTU);
        if direction == Direction::In && shrinks {
            return Err(Rule::LowMtu);
        }
        // The quoted packet went the other way.
        let (laptop, laptop_port, peer, peer_port) = match direction {
            Direction::In => (
                quoted.source,
                quoted.source_port,
                quoted.destination,
                quoted.destination_port,
            ),
            Direction::Out => (
                quoted.destination,
                quoted.destination_port,
                quoted.source,
                quoted.source_port,
            ),
        };
        let key = Key {
            protocol: quoted.protocol,
            peer,
            peer_port,
            local_port: laptop_port,
        };
        let astray = direction == Direction::Out && packet.flow().destination != peer;
        if laptop != self.party.address || astray {
            return Err(Rule::NoFlow);
        }
        let teller = Key {
            protocol: Protocol::Icmp,
            peer: packet.flow().source,
            peer_port: 0,
            local_port: 0,
        };
        let rule = self
            .rules
            .decide(&query(&teller, direction, self.scope))
            .rule();
        if rule == RuleId::FORBIDDEN {
            return Err(Rule::Policy(rule));
        }
        self.standing(&key).map(|entry| entry.class)
    }

    /// The resolver's own questions go to policy's DNS servers and nowhere else.
    pub(super) fn question(&self, flow: &Flow<A>) -> Result<Share, Rule> {
        let fits = matches!(flow.protocol, Protocol::Udp | Protocol::Tcp)
            && flow.source == self.party.address
            && flow.destination_port == DNS
            && self.party.resolvers.contains(&flow.destination);
        if fits {
            Ok(None)
        } else {
            Err(Rule::DnsRefused)
        }
    }
}

const fn query<A: Family>(key: &Key<A>, begun: Direction, scope: Scope) -> Query<A> {
    Query {
        direction: begun,
        protocol: key.protocol,
        peer: key.peer,
        port: match (key.protocol, begun) {
            (Protocol::Icmp, _) => 0,
            (_, Direction::Out) => key.peer_port,
            (_, Direction::In) => key.local_port,
        },
        place: scope.place,
        uplink: scope.uplink,
    }
}
