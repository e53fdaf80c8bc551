//! Admission: the one place where a packet becomes one that may pass.

mod bandwidth;
mod flows;
mod refusal;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::time::Duration;

use sekisho_policy::{Admission, ClassId, Direction, Protocol, Query, RuleId};

pub use flows::{Scope, TABLE_MEMORY};
pub use refusal::{Refusal, Rule, Subject};

use self::bandwidth::{Exceeded, Limits, Way};
use self::flows::{Allowed, Entry, FlowTable, Key};
use super::device::MIN_MTU;
use super::packet::{Flow, IcmpKind, Offload, Packet, TcpFlags, Transport};
use super::situation::Situation;
use crate::moment::Moment;

/// How long a young gate takes up connections in the middle at the word of the far end. The guest's
/// connections outlive a gate that was killed; where the server is the one with data to send, the
/// guest would otherwise never hear of them again. Only segments of connections that policy would
/// let the guest begin are taken up, and no SYN is.
const TAKE_UP: Duration = Duration::from_mins(2);

const DNS: u16 = 53;

/// A packet that was admitted. Nothing outside this module can make one, and nothing sends or
/// delivers anything else.
#[derive(Debug)]
pub struct Admitted<P> {
    packet: P,
}

impl<P> Admitted<P> {
    /// The packet.
    pub const fn packet(&self) -> &P {
        &self.packet
    }
}

/// Where a packet comes from, and so where it wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The work OS: it wants out.
    Guest,
    /// The gate's own resolver: it wants out, to a DNS server that policy names.
    Resolver,
    /// The tunnel: it wants to the work OS.
    Tunnel,
    /// The office LAN itself: it wants to the work OS.
    Wire,
}

impl Origin {
    /// The circumstances for a packet from here; none where nothing may come from here now. What
    /// left the one way is answered the same way: a tunnel's packet is none of the office LAN's, nor
    /// the other way about.
    const fn scope(self, situation: Situation) -> Option<Scope> {
        match (self, situation) {
            (Self::Tunnel, Situation::Direct { .. })
            | (Self::Wire, Situation::Tunnelled { .. }) => None,
            _ => situation.scope(),
        }
    }
}

/// What admission has to know besides policy.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The laptop's address: the inner one, or that of an office LAN.
    pub address: Ipv4Addr,
    /// Inner MTU.
    pub mtu: u16,
    /// The DNS servers of policy's segments.
    pub resolvers: Vec<Ipv4Addr>,
}

/// The class of bandwidth of an admitted packet, if its rule names one.
type Share = Option<ClassId>;

/// Admits packets by policy, situation and the connections that are under way.
pub struct Gatekeeper {
    rules: Admission,
    terms: Terms,
    flows: FlowTable,
    limits: Limits,
    began: Moment,
}

impl Gatekeeper {
    /// Admission under these rules, beginning now without any connection.
    pub fn new(rules: Admission, terms: Terms, now: Moment) -> Self {
        Self {
            limits: Limits::new(rules.bandwidth()),
            rules,
            terms,
            flows: FlowTable::default(),
            began: now,
        }
    }

    /// From now on the laptop has this address. Connections of the other one are none any more.
    pub fn readdress(&mut self, address: Ipv4Addr) {
        self.terms.address = address;
        self.flows = FlowTable::default();
    }

    /// The longest packet from now on, in bytes.
    pub const fn limit(&mut self, mtu: u16) {
        self.terms.mtu = mtu;
    }

    /// The rules in force.
    pub const fn rules(&self) -> &Admission {
        &self.rules
    }

    /// The name under which a rule is told.
    pub fn name(&self, rule: Rule) -> Cow<'_, str> {
        match rule {
            Rule::Policy(id) => self.rules.name(id).into(),
            Rule::Bandwidth(class) => self.rules.limit_name(class).into(),
            built_in => built_in.name().unwrap_or("unknown").into(),
        }
    }

    /// Admits `packet` or says which rule is against it. The only way to an [`Admitted`].
    pub fn admit<'a>(
        &mut self,
        packet: Packet<'a>,
        origin: Origin,
        situation: &Situation,
        now: Moment,
    ) -> Result<Admitted<Packet<'a>>, Refusal> {
        let flow = packet.flow();
        let subject = match origin {
            Origin::Guest | Origin::Resolver => Subject::outbound(&flow),
            Origin::Tunnel | Origin::Wire => Subject::inbound(&flow),
        };
        let decided = match origin.scope(*situation) {
            None => Err(Rule::Closed),
            Some(scope) => match origin {
                Origin::Guest => self.outbound(&packet, scope, now),
                Origin::Resolver => self.question(&flow),
                Origin::Tunnel | Origin::Wire => self.inbound(&packet, scope, now),
            },
        };
        let way = match origin {
            Origin::Guest | Origin::Resolver => Way::Up,
            Origin::Tunnel | Origin::Wire => Way::Down,
        };
        let paid = decided.and_then(|class| {
            let taken = self.limits.take(&packet, class, way, now);
            taken.map_err(|Exceeded(limit)| Rule::Bandwidth(limit))
        });
        match paid {
            Ok(()) => Ok(Admitted { packet }),
            Err(rule) => Err(Refusal { rule, subject }),
        }
    }

    fn outbound(&mut self, packet: &Packet<'_>, scope: Scope, now: Moment) -> Result<Share, Rule> {
        let flow = packet.flow();
        if flow.source != self.terms.address {
            return Err(Rule::AntiSpoof);
        }
        let cut = matches!(packet.offload(), Offload::Tcp { .. });
        if !cut && packet.bytes().len() > usize::from(self.terms.mtu) {
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
            } => self.error(packet, Direction::Out, scope, now),
            Transport::Icmp {
                kind: IcmpKind::EchoReply,
            } => self.known(&key, Direction::Out, None, scope, now),
            Transport::Icmp {
                kind: IcmpKind::Other,
            } => Err(Rule::NotServed),
            Transport::Icmp {
                kind: IcmpKind::EchoRequest,
            }
            | Transport::Udp => self.packet_of(key, Direction::Out, None, scope, now),
            Transport::Tcp { flags, .. } => {
                self.packet_of(key, Direction::Out, Some(flags), scope, now)
            }
        }
    }

    fn inbound(&mut self, packet: &Packet<'_>, scope: Scope, now: Moment) -> Result<Share, Rule> {
        let flow = packet.flow();
        if flow.destination != self.terms.address {
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
            } => self.error(packet, Direction::In, scope, now),
            Transport::Icmp {
                kind: IcmpKind::EchoReply,
            } => self.known(&key, Direction::In, None, scope, now),
            Transport::Icmp {
                kind: IcmpKind::Other,
            } => Err(Rule::NotServed),
            Transport::Icmp {
                kind: IcmpKind::EchoRequest,
            }
            | Transport::Udp => self.packet_of(key, Direction::In, None, scope, now),
            Transport::Tcp { flags, .. } => {
                self.packet_of(key, Direction::In, Some(flags), scope, now)
            }
        }
    }

    /// A packet that may begin a conversation, or belong to one.
    fn packet_of(
        &mut self,
        key: Key,
        direction: Direction,
        flags: Option<TcpFlags>,
        scope: Scope,
        now: Moment,
    ) -> Result<Share, Rule> {
        let first = flags.is_some_and(|flags| flags.syn && !flags.ack);
        let again = first && self.flows.find(&key, now).is_some_and(|held| held.ended());
        if !again {
            match self.known(&key, direction, flags, scope, now) {
                Err(Rule::NoFlow) => {}
                decided => return decided,
            }
        }
        // Who begins: the sender, but for a connection that is older than this gate.
        let begun = match (direction, flags) {
            (Direction::In, Some(flags)) if !first => {
                if flags.syn || flags.rst || now.since(self.began) > TAKE_UP {
                    return Err(Rule::NoFlow);
                }
                Direction::Out
            }
            _ => direction,
        };
        let decision = self.rules.decide(&query(&key, begun, scope));
        if !decision.is_allowed() {
            return Err(Rule::Policy(decision.rule()));
        }
        let class = self.rules.class(decision.rule());
        let allowed = Allowed {
            scope,
            begun,
            class,
        };
        self.flows
            .insert(key, allowed, direction, now)
            .map_err(|_| Rule::FlowTableFull)?;
        Ok(class)
    }

    /// A packet that must belong to a known conversation; it is decided again if the circumstances
    /// have changed since.
    fn known(
        &mut self,
        key: &Key,
        direction: Direction,
        flags: Option<TcpFlags>,
        scope: Scope,
        now: Moment,
    ) -> Result<Share, Rule> {
        let entry = self.standing(key, scope, now)?;
        entry.seen(direction, flags, now);
        Ok(entry.class)
    }

    /// The known conversation of this key, if policy allows it here and now.
    fn standing(&mut self, key: &Key, scope: Scope, now: Moment) -> Result<&mut Entry, Rule> {
        let entry = self.flows.find(key, now).ok_or(Rule::NoFlow)?;
        if entry.scope() != scope {
            let decision = self.rules.decide(&query(key, entry.begun, scope));
            if !decision.is_allowed() {
                entry.forget();
                return Err(Rule::Policy(decision.rule()));
            }
            entry.decided(scope, self.rules.class(decision.rule()));
        }
        Ok(entry)
    }

    /// An ICMP error passes if the packet that it quotes belongs to a known conversation that
    /// policy still allows. Any router on the way may send one to the guest, but none in a
    /// forbidden network; one of the guest's is for the sender of the packet that it quotes and for
    /// nobody else, or it would be a datagram to any address past every rule.
    fn error(
        &mut self,
        packet: &Packet<'_>,
        direction: Direction,
        scope: Scope,
        now: Moment,
    ) -> Result<Share, Rule> {
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
        if laptop != self.terms.address || astray {
            return Err(Rule::NoFlow);
        }
        let teller = Key {
            protocol: Protocol::Icmp,
            peer: packet.flow().source,
            peer_port: 0,
            local_port: 0,
        };
        let rule = self.rules.decide(&query(&teller, direction, scope)).rule();
        if rule == RuleId::FORBIDDEN {
            return Err(Rule::Policy(rule));
        }
        self.standing(&key, scope, now).map(|entry| entry.class)
    }

    /// The resolver's own questions go to policy's DNS servers and nowhere else.
    fn question(&self, flow: &Flow) -> Result<Share, Rule> {
        let fits = matches!(flow.protocol, Protocol::Udp | Protocol::Tcp)
            && flow.source == self.terms.address
            && flow.destination_port == DNS
            && self.terms.resolvers.contains(&flow.destination);
        if fits {
            Ok(None)
        } else {
            Err(Rule::DnsRefused)
        }
    }
}

const fn query(key: &Key, begun: Direction, scope: Scope) -> Query {
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
