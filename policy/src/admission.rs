//! The compiled policy: may this connection be opened?
//!
//! Every combination of family, direction, protocol, place and uplink has a table of its own (equal
//! ones are stored once): addresses cut into disjoint intervals, each with a short sorted list of
//! ports. A decision is one array index and two binary searches, whatever the number of rules;
//! nothing is allocated. `[forbidden]` is cut into the same intervals and wins over every flow;
//! what no interval names is refused. Where several flows match, the first in the file is named.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::address::{Bits, Edge, Peer, bounds};
use crate::bandwidth::{Bandwidth, ClassId, TOTAL};
use crate::schema::{Flow, Policy};
use crate::value::PortRange;
use crate::{Direction, Place, Protocol, Query, UplinkKind, Verified};

/// The rule that decided; [`Admission::name`] gives its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

impl RuleId {
    /// No flow allows it.
    pub const DEFAULT_DENY: Self = Self(0);
    /// `[forbidden]` names it.
    pub const FORBIDDEN: Self = Self(1);

    /// The rule of the flow at `index` in the file.
    fn of_flow(index: usize) -> Self {
        let rule = u16::try_from(index + 2).expect("checked policies have at most MAX_FLOWS flows");
        Self(rule)
    }

    /// Index of the flow in the file, where it is one.
    pub(crate) fn flow(self) -> Option<usize> {
        usize::from(self.0).checked_sub(2)
    }
}

/// An answer, with the rule that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It may be opened.
    Allow(RuleId),
    /// It may not.
    Refuse(RuleId),
}

impl Decision {
    /// The rule that decided.
    pub fn rule(self) -> RuleId {
        match self {
            Self::Allow(rule) | Self::Refuse(rule) => rule,
        }
    }

    /// Whether it is [`Decision::Allow`].
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Directions × protocols × places × uplinks.
const CLASSES: usize = 2 * 3 * 2 * 3;

/// A compiled policy.
#[derive(Debug, Clone)]
pub struct Admission {
    v4: Tables<u32>,
    v6: Tables<u128>,
    names: Vec<Box<str>>,
    bandwidth: Bandwidth,
    /// Class of bandwidth, by flow.
    shares: Vec<Option<ClassId>>,
}

impl Admission {
    /// Compiles a verified policy.
    pub fn compile(policy: &Verified<Policy>) -> Self {
        Self::of_checked(policy)
    }

    /// Compiles a policy whose rules have been checked (`check::faults` found none).
    pub(crate) fn of_checked(policy: &Policy) -> Self {
        let share = |flow: &Flow| policy.bandwidth.class(flow.bandwidth.as_deref()?);
        let names = ["default-deny", "forbidden"]
            .into_iter()
            .chain(policy.flow.iter().map(|flow| flow.id.as_str()))
            .map(Box::from)
            .collect();
        Self {
            v4: Tables::build(policy),
            v6: Tables::build(policy),
            names,
            bandwidth: policy.bandwidth.clone(),
            shares: policy.flow.iter().map(share).collect(),
        }
    }

    /// Decides one connection. Constant work but for two binary searches; no allocation.
    pub fn decide<A: Peer>(&self, query: &Query<A>) -> Decision {
        let class = class(query.direction, query.protocol, query.place, query.uplink);
        let port = match query.protocol {
            Protocol::Icmp => 0,
            Protocol::Tcp | Protocol::Udp => query.port,
        };
        query.peer.decide(self, class, port)
    }

    #[inline]
    pub(crate) fn decide_v4(&self, peer: Ipv4Addr, class: usize, port: u16) -> Decision {
        self.v4.decide(class, peer.to_bits(), port)
    }

    #[inline]
    pub(crate) fn decide_v6(&self, peer: Ipv6Addr, class: usize, port: u16) -> Decision {
        self.v6.decide(class, peer.to_bits(), port)
    }

    /// The class of bandwidth of what this rule allows.
    pub fn class(&self, rule: RuleId) -> Option<ClassId> {
        self.shares.get(rule.flow()?).copied().flatten()
    }

    /// The limits.
    pub const fn bandwidth(&self) -> &Bandwidth {
        &self.bandwidth
    }

    /// Name of a limit as the policy spells it: `bandwidth.bulk`, and `bandwidth.total` for the one
    /// of everything together.
    pub fn limit_name(&self, class: Option<ClassId>) -> String {
        let name = class.and_then(|class| self.bandwidth.classes.keys().nth(class.0.into()));
        format!("bandwidth.{}", name.map_or(TOTAL, String::as_str))
    }

    /// Name of a rule: `default-deny`, `forbidden`, or the id of a flow. A rule of another policy
    /// is `default-deny`.
    pub fn name(&self, rule: RuleId) -> &str {
        self.names
            .get(usize::from(rule.0))
            .map_or("default-deny", |name| name)
    }
}

fn class(direction: Direction, protocol: Protocol, place: Place, uplink: UplinkKind) -> usize {
    let direction = match direction {
        Direction::Out => 0,
        Direction::In => 1,
    };
    let protocol = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Icmp => 2,
    };
    let place = match place {
        Place::Remote => 0,
        Place::Office => 1,
    };
    let uplink = match uplink {
        UplinkKind::Wired => 0,
        UplinkKind::Wifi => 1,
        UplinkKind::Sim => 2,
    };
    ((direction * 3 + protocol) * 2 + place) * 3 + uplink
}

/// The tables of one family.
#[derive(Debug, Clone)]
struct Tables<B> {
    /// Index into `tables`, by class.
    classes: [u8; CLASSES],
    tables: Vec<Table<B>>,
}

impl<B: Bits> Tables<B> {
    fn build(policy: &Policy) -> Self {
        let mut tables = Vec::new();
        let mut known: HashMap<(Protocol, Vec<usize>), u8> = HashMap::new();
        let mut classes = [0; CLASSES];
        for direction in [Direction::Out, Direction::In] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                for place in [Place::Remote, Place::Office] {
                    for uplink in [UplinkKind::Wired, UplinkKind::Wifi, UplinkKind::Sim] {
                        let flows = applicable::<B>(policy, direction, protocol, place, uplink);
                        let table =
                            *known
                                .entry((protocol, flows))
                                .or_insert_with_key(|(_, flows)| {
                                    tables.push(Table::build(policy, protocol, flows));
                                    u8::try_from(tables.len() - 1).expect("at most CLASSES tables")
                                });
                        classes[class(direction, protocol, place, uplink)] = table;
                    }
                }
            }
        }
        Self { classes, tables }
    }

    fn decide(&self, class: usize, address: B, port: u16) -> Decision {
        self.tables[usize::from(self.classes[class])].decide(address, port)
    }
}

/// Indices of the flows that can allow something in a class of this family.
fn applicable<B: Bits>(
    policy: &Policy,
    direction: Direction,
    protocol: Protocol,
    place: Place,
    uplink: UplinkKind,
) -> Vec<usize> {
    let applies = |flow: &Flow| {
        flow.direction == direction
            && flow.places.contains(&place)
            && flow.uplinks.contains(&uplink)
            && flow.peers.hosts.iter().any(|host| B::ends(*host).is_some())
            && match protocol {
                Protocol::Tcp => !flow.tcp.is_empty(),
                Protocol::Udp => !flow.udp.is_empty(),
                Protocol::Icmp => flow.icmp,
            }
    };
    (0..policy.flow.len())
        .filter(|&index| applies(&policy.flow[index]))
        .collect()
}

/// What happens to an interval of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Refuse(RuleId),
    /// `ports[first..end]` decide.
    Ports {
        first: u32,
        end: u32,
    },
}

/// Ports that a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowed {
    first: u16,
    last: u16,
    rule: RuleId,
}

/// The table of one class.
#[derive(Debug, Clone)]
struct Table<B> {
    /// First address of each interval, ascending; the first is 0. An interval ends where the next
    /// one starts.
    starts: Vec<B>,
    /// What happens to each.
    actions: Vec<Action>,
    /// Disjoint, ascending port ranges; [`Action::Ports`] names a part of them.
    ports: Vec<Allowed>,
}

impl<B: Bits> Table<B> {
    fn build(policy: &Policy, protocol: Protocol, flows: &[usize]) -> Self {
        // Who starts (+1) and ends (-1) at an address; `None` is `[forbidden]`. Ends lie one past
        // the last address.
        let mut edges: BTreeMap<Edge<B>, Vec<(Option<usize>, i32)>> = BTreeMap::new();
        let mut add = |who: Option<usize>, prefix: IpNet| {
            let Some((start, end)) = bounds(prefix) else {
                return;
            };
            edges.entry(start).or_default().push((who, 1));
            edges.entry(end).or_default().push((who, -1));
        };
        for &prefix in &policy.forbidden.prefixes {
            add(None, prefix);
        }
        for &flow in flows {
            for &prefix in &policy.flow[flow].peers.hosts {
                add(Some(flow), prefix);
            }
        }

        let mut table = Self {
            starts: Vec::new(),
            actions: Vec::new(),
            ports: Vec::new(),
        };
        let mut lists: HashMap<Vec<usize>, Action> = HashMap::new();
        let mut active: BTreeMap<Option<usize>, i32> = BTreeMap::new();
        table.append(B::FIRST, Action::Refuse(RuleId::DEFAULT_DENY));
        for (address, changes) in edges {
            for (who, change) in changes {
                let count = active.entry(who).or_default();
                *count += change;
                if *count == 0 {
                    active.remove(&who);
                }
            }
            let Edge::At(start) = address else {
                break;
            };
            let action = if active.contains_key(&None) {
                Action::Refuse(RuleId::FORBIDDEN)
            } else {
                let flows: Vec<usize> = active.keys().copied().flatten().collect();
                if let Some(&action) = lists.get(&flows) {
                    action
                } else {
                    let action = table.port_list(policy, protocol, &flows);
                    lists.insert(flows, action);
                    action
                }
            };
            table.append(start, action);
        }
        table
    }

    /// Starts an interval, or lets the last one go on where nothing changes.
    fn append(&mut self, start: B, action: Action) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.actions.pop();
        }
        if self.actions.last() != Some(&action) {
            self.starts.push(start);
            self.actions.push(action);
        }
    }

    /// The ports of several flows as disjoint ranges, each with the first flow that allows it.
    fn port_list(&mut self, policy: &Policy, protocol: Protocol, flows: &[usize]) -> Action {
        if flows.is_empty() {
            return Action::Refuse(RuleId::DEFAULT_DENY);
        }
        let mut edges: BTreeMap<u32, Vec<(usize, i32)>> = BTreeMap::new();
        for &flow in flows {
            for range in ranges(&policy.flow[flow], protocol) {
                edges.entry(range.0.into()).or_default().push((flow, 1));
                edges
                    .entry(u32::from(range.1) + 1)
                    .or_default()
                    .push((flow, -1));
            }
        }
        let begin = self.ports.len();
        let mut active: BTreeMap<usize, i32> = BTreeMap::new();
        let mut open: Option<(u32, usize)> = None;
        for (port, changes) in edges {
            for (flow, change) in changes {
                let count = active.entry(flow).or_default();
                *count += change;
                if *count == 0 {
                    active.remove(&flow);
                }
            }
            let winner = active.keys().next().copied();
            if open.map(|(_, flow)| flow) == winner {
                continue;
            }
            if let Some((first, flow)) = open {
                self.ports.push(Allowed {
                    first: u16::try_from(first).expect("a range starts at a port"),
                    last: u16::try_from(port - 1).expect("a range ends at a port"),
                    rule: RuleId::of_flow(flow),
                });
            }
            open = winner.map(|flow| (port, flow));
        }
        let index = |length: usize| u32::try_from(length).expect("checked against MAX_ENTRIES");
        Action::Ports {
            first: index(begin),
            end: index(self.ports.len()),
        }
    }

    fn decide(&self, address: B, port: u16) -> Decision {
        let after = self.starts.partition_point(|&start| start <= address);
        let Some(&action) = after
            .checked_sub(1)
            .and_then(|index| self.actions.get(index))
        else {
            return Decision::Refuse(RuleId::DEFAULT_DENY);
        };
        match action {
            Action::Refuse(rule) => Decision::Refuse(rule),
            Action::Ports { first, end } => {
                let ports = &self.ports[first as usize..end as usize];
                let after = ports.partition_point(|range| range.first <= port);
                match after.checked_sub(1).map(|index| ports[index]) {
                    Some(range) if port <= range.last => Decision::Allow(range.rule),
                    _ => Decision::Refuse(RuleId::DEFAULT_DENY),
                }
            }
        }
    }
}

/// Port ranges of a flow; ICMP is port 0.
fn ranges(flow: &Flow, protocol: Protocol) -> Vec<(u16, u16)> {
    let pairs = |ranges: &[PortRange]| {
        ranges
            .iter()
            .map(|range| (range.first(), range.last()))
            .collect()
    };
    match protocol {
        Protocol::Tcp => pairs(&flow.tcp),
        Protocol::Udp => pairs(&flow.udp),
        Protocol::Icmp => vec![(0, 0)],
    }
}

#[cfg(test)]
mod tests;
