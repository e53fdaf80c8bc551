//! Which server answers for which names, and which addresses an answer may name.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use sekisho_policy::Policy;

/// A domain of policy.
#[derive(Debug, Clone)]
struct Domain {
    /// Lower case, without a final dot.
    name: String,
    servers: Vec<Ipv4Addr>,
}

/// Which server answers for which names.
#[derive(Debug, Clone, Default)]
pub struct Domains {
    /// The longest first.
    entries: Vec<Domain>,
    /// Prefixes of the segments.
    inside: Vec<IpNet>,
    forbidden: Vec<IpNet>,
    /// Whether names of the test for a network are answered.
    pub(super) probes: bool,
}

/// Where a name belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its domain.
    pub(super) domain: usize,
    /// Bytes of the name in front of the domain's.
    pub(super) front: usize,
}

impl Domains {
    /// The domains of policy's segments.
    pub fn new(policy: &Policy) -> Self {
        let mut entries: Vec<_> = policy
            .segments
            .values()
            .filter(|segment| !segment.dns.is_empty())
            .flat_map(|segment| {
                segment.domains.iter().map(|domain| Domain {
                    name: domain.trim_end_matches('.').to_ascii_lowercase(),
                    servers: segment.dns.clone(),
                })
            })
            .collect();
        entries.sort_by_key(|domain| std::cmp::Reverse(domain.name.len()));
        let segments = policy.segments.values();
        Self {
            entries,
            inside: segments
                .flat_map(|segment| segment.prefixes.iter().copied())
                .collect(),
            forbidden: policy.forbidden.prefixes.clone(),
            probes: policy.ncsi.answer,
        }
    }

    /// Every server, for admission.
    pub fn servers(&self) -> Vec<Ipv4Addr> {
        let all = self.entries.iter();
        let mut servers: Vec<_> = all
            .flat_map(|domain| domain.servers.iter().copied())
            .collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// How many domains there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a lower-case name belongs: it is a domain's, or lies under it.
    pub(super) fn place(&self, name: &[u8]) -> Option<Place> {
        self.entries.iter().enumerate().find_map(|(at, domain)| {
            let front = name.strip_suffix(domain.name.as_bytes())?;
            let belongs = front.is_empty() || front.ends_with(b".");
            belongs.then_some(Place {
                domain: at,
                front: front.len(),
            })
        })
    }

    /// The server of a domain whose turn it is.
    pub(super) fn server(&self, domain: usize, turn: usize) -> Option<Ipv4Addr> {
        let servers = &self.entries.get(domain)?.servers;
        servers.get(turn.checked_rem(servers.len())?).copied()
    }

    /// Whether an answer may name this address: one of a segment, and none that is forbidden.
    pub(super) fn may_name(&self, address: IpAddr) -> bool {
        let within = |prefixes: &[IpNet]| prefixes.iter().any(|net| net.contains(&address));
        within(&self.inside) && !within(&self.forbidden)
    }
}
