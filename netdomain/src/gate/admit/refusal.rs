//! A refusal is a value: the rule that decided and the packet it decided about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sekisho_policy::{ClassId, MAX_CLASSES, Protocol, RuleId};

use crate::gate::packet::{Flow, Malformed};

/// What decided against a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A rule of policy, `forbidden` and `default-deny` among them.
    Policy(RuleId),
    /// Wrong source address, Ethernet or IP.
    AntiSpoof,
    /// The work OS played a router, a DHCP server or an ARP answerer.
    Impostor,
    /// IPv6 is not carried: policy names no network of it, or the way is one of IPv4.
    Ipv6,
    /// An Ethernet type that is not carried.
    EtherType,
    /// Not a frame or packet at all.
    Malformed,
    /// A fragment, IPv4 options, or IPv6 extension headers.
    Unusual,
    /// Longer than the MTU.
    TooLong,
    /// There is no way out at present.
    Closed,
    /// The connection table is full.
    FlowTableFull,
    /// A packet from the tunnel that belongs to no known connection.
    NoFlow,
    /// A name outside of the domains that policy names.
    DnsOutside,
    /// A question that is no question, or more of them than a person's programs ask.
    DnsRefused,
    /// An answer that leads out of the segments, or into what is forbidden.
    DnsRebinding,
    /// More in names or answers than a person's programs need: a tunnel made of them.
    DnsTunnel,
    /// An answer that does not answer what was asked.
    DnsAnswer,
    /// An ICMP error that tells of an MTU that no path has.
    LowMtu,
    /// A service that the gate does not offer.
    NotServed,
    /// More than a class of bandwidth has, or more than everything together has.
    Bandwidth(Option<ClassId>),
}

impl Rule {
    /// Rules of the gate's own, in the order of [`Rule::index`].
    pub const NAMED: [Self; 17] = [
        Self::AntiSpoof,
        Self::Impostor,
        Self::Ipv6,
        Self::EtherType,
        Self::Malformed,
        Self::Unusual,
        Self::TooLong,
        Self::Closed,
        Self::FlowTableFull,
        Self::NoFlow,
        Self::DnsOutside,
        Self::DnsRefused,
        Self::NotServed,
        Self::DnsRebinding,
        Self::DnsTunnel,
        Self::DnsAnswer,
        Self::LowMtu,
    ];
    /// Place of the limit of everything together; the classes follow.
    const BANDWIDTH: usize = Self::NAMED.len();
    /// Rules besides those of policy; they come first where rules are counted.
    pub const BUILT_IN: usize = Self::BANDWIDTH + 1 + MAX_CLASSES;

    /// A small number for tables of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::AntiSpoof => 0,
            Self::Impostor => 1,
            Self::Ipv6 => 2,
            Self::EtherType => 3,
            Self::Malformed => 4,
            Self::Unusual => 5,
            Self::TooLong => 6,
            Self::Closed => 7,
            Self::FlowTableFull => 8,
            Self::NoFlow => 9,
            Self::DnsOutside => 10,
            Self::DnsRefused => 11,
            Self::NotServed => 12,
            Self::DnsRebinding => 13,
            Self::DnsTunnel => 14,
            Self::DnsAnswer => 15,
            Self::LowMtu => 16,
            Self::Bandwidth(None) => Self::BANDWIDTH,
            Self::Bandwidth(Some(class)) => Self::BANDWIDTH + 1 + class.0 as usize,
            Self::Policy(id) => Self::BUILT_IN + id.0 as usize,
        }
    }

    /// The name under which it is reported; rules and classes of policy have theirs from the policy.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Policy(_) | Self::Bandwidth(_) => return None,
            Self::AntiSpoof => "anti-spoof",
            Self::Impostor => "impostor",
            Self::Ipv6 => "ipv6",
            Self::EtherType => "ether-type",
            Self::Malformed => "malformed",
            Self::Unusual => "fragment",
            Self::TooLong => "too-long",
            Self::Closed => "closed",
            Self::FlowTableFull => "flow-table-full",
            Self::NoFlow => "no-flow",
            Self::DnsOutside => "dns-outside",
            Self::DnsRefused => "dns-refused",
            Self::DnsRebinding => "dns-rebinding",
            Self::DnsTunnel => "dns-tunnel",
            Self::DnsAnswer => "dns-answer",
            Self::LowMtu => "low-mtu",
            Self::NotServed => "not-served",
        })
    }
}

impl From<Malformed> for Rule {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Fragment | Malformed::Options | Malformed::Extensions => Self::Unusual,
            Malformed::Protocol(_) => Self::NotServed,
            Malformed::Truncated
            | Malformed::Header
            | Malformed::Transport
            | Malformed::Offload => Self::Malformed,
        }
    }
}

/// What a refusal is about, in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A packet to or from this peer.
    Peer {
        /// Transport protocol.
        protocol: Protocol,
        /// The other end.
        peer: IpAddr,
        /// The port that was asked for.
        port: u16,
    },
    /// A frame of this Ethernet type.
    Frame {
        /// The type field.
        ether_type: u16,
    },
}

impl Subject {
    /// The subject of a packet that the work OS sent.
    pub fn outbound<A: Into<IpAddr> + Copy>(flow: &Flow<A>) -> Self {
        Self::Peer {
            protocol: flow.protocol,
            peer: flow.destination.into(),
            port: flow.destination_port,
        }
    }

    /// The subject of a packet that came out of the tunnel.
    pub fn inbound<A: Into<IpAddr> + Copy>(flow: &Flow<A>) -> Self {
        Self::Peer {
            protocol: flow.protocol,
            peer: flow.source.into(),
            port: flow.destination_port,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Peer {
                protocol: Protocol::Icmp,
                peer,
                ..
            } => write!(f, "icmp {peer}"),
            Self::Peer {
                protocol,
                peer,
                port,
            } => write!(f, "{protocol} {}", SocketAddr::new(peer, port)),
            Self::Frame { ether_type } => write!(f, "frame {ether_type:#06x}"),
        }
    }
}

/// A packet that may not pass, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that decided.
    pub rule: Rule,
    /// What it decided about.
    pub subject: Subject,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_has_a_place_of_its_own_among_the_counters() {
        let others = [
            Rule::Policy(RuleId::DEFAULT_DENY),
            Rule::Policy(RuleId::FORBIDDEN),
            Rule::Bandwidth(None),
            Rule::Bandwidth(Some(ClassId(0))),
        ];
        let all = Rule::NAMED.iter().chain(&others);
        let places: HashSet<_> = all.map(|rule| rule.index()).collect();
        assert_eq!(places.len(), Rule::NAMED.len() + others.len());
        for (place, rule) in Rule::NAMED.iter().enumerate() {
            assert_eq!(rule.index(), place);
        }
    }
}
