//! Admission: the one place where a packet becomes one that may pass.

mod bandwidth;
mod decide;
mod flows;
mod refusal;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_v6;

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use sekisho_policy::{Admission, ClassId};

pub use flows::{Scope, TABLE_MEMORY, TABLE_MEMORY_V6};
pub use refusal::{Refusal, Rule, Subject};

use self::bandwidth::{Exceeded, Limits, Way};
use self::decide::Desk;
use self::flows::FlowTable;
use super::family::Family;
use super::packet::Packet;
use super::situation::Situation;
use crate::moment::Moment;

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
    /// The one of IPv6; `None`: IPv6 is not carried.
    pub v6: Option<Ipv6Addr>,
    /// Inner MTU.
    pub mtu: u16,
    /// The DNS servers of policy's segments.
    pub resolvers: Vec<Ipv4Addr>,
}

/// The class of bandwidth of an admitted packet, if its rule names one.
type Share = Option<ClassId>;

/// What admission knows of one family.
pub struct Party<A> {
    /// The laptop's inner address.
    address: A,
    /// Whom the resolver may ask.
    resolvers: Vec<A>,
    flows: FlowTable<A>,
}

impl<A: Family> Party<A> {
    fn new(address: A, resolvers: Vec<A>) -> Self {
        Self {
            address,
            resolvers,
            flows: FlowTable::default(),
        }
    }
}

/// Both families; the second only where policy and device have it.
pub struct Parties {
    pub(super) v4: Party<Ipv4Addr>,
    pub(super) v6: Option<Party<Ipv6Addr>>,
}

/// Admits packets by policy, situation and the connections that are under way.
pub struct Gatekeeper {
    rules: Admission,
    mtu: u16,
    parties: Parties,
    limits: Limits,
    began: Moment,
}

impl Gatekeeper {
    /// Admission under these rules, beginning now without any connection.
    pub fn new(rules: Admission, terms: Terms, now: Moment) -> Self {
        Self {
            limits: Limits::new(rules.bandwidth()),
            rules,
            mtu: terms.mtu,
            parties: Parties {
                v4: Party::new(terms.address, terms.resolvers),
                v6: terms.v6.map(|address| Party::new(address, Vec::new())),
            },
            began: now,
        }
    }

    /// From now on the laptop has this address. Connections of the other one are none any more.
    pub fn readdress(&mut self, address: Ipv4Addr) {
        self.parties.v4.address = address;
        self.parties.v4.flows = FlowTable::default();
    }

    /// The longest packet from now on, in bytes.
    pub const fn limit(&mut self, mtu: u16) {
        self.mtu = mtu;
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
    pub fn admit<'a, A: Family>(
        &mut self,
        packet: Packet<'a, A>,
        origin: Origin,
        situation: &Situation,
        now: Moment,
    ) -> Result<Admitted<Packet<'a, A>>, Refusal> {
        let (decided, way) = match (origin.scope(*situation), A::party(&mut self.parties)) {
            (None, _) => (Err(Rule::Closed), Way::Up),
            (_, None) => (Err(Rule::Ipv6), Way::Up),
            (Some(_), _) if !A::ON_A_WIRE && matches!(situation, Situation::Direct { .. }) => {
                (Err(Rule::Ipv6), Way::Up)
            }
            (Some(scope), Some(party)) => {
                let mut desk = Desk {
                    rules: &self.rules,
                    mtu: self.mtu,
                    began: self.began,
                    party,
                    scope,
                    now,
                };
                match origin {
                    Origin::Guest => (desk.outbound(&packet), Way::Up),
                    Origin::Resolver => (desk.question(&packet.flow()), Way::Up),
                    Origin::Tunnel | Origin::Wire => (desk.inbound(&packet), Way::Down),
                }
            }
        };
        let paid = decided.and_then(|class| {
            let taken = self.limits.take(&packet, class, way, now);
            taken.map_err(|Exceeded(limit)| Rule::Bandwidth(limit))
        });
        match paid {
            Ok(()) => Ok(Admitted { packet }),
            Err(rule) => {
                let flow = packet.flow();
                let subject = match origin {
                    Origin::Guest | Origin::Resolver => Subject::outbound(&flow),
                    Origin::Tunnel | Origin::Wire => Subject::inbound(&flow),
                };
                Err(Refusal { rule, subject })
            }
        }
    }
}
