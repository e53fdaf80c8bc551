//! DNS for the guest: names of the segments' domains are asked through the tunnel, everything else
//! is refused here.
//!
//! No cache, no recursion, no other server: a question goes to the DNS server that policy names
//! for its domain, from a random port with a random id, and only an answer from that server to
//! that port with that id and that question is handed back (RFC 5452, section 9.1).

use std::net::Ipv4Addr;
use std::time::Duration;

use sekisho_policy::{Policy, Protocol};
use smoltcp::wire::IpProtocol;

use super::reply::{Reply, UDP_HEADER, write_ipv4, write_udp};
use crate::gate::admit::Rule;
use crate::gate::packet::{IPV4_HEADER, Packet};
use crate::gate::path::Ethernet;
use crate::moment::Moment;

const DNS: u16 = 53;
const HEADER: usize = 12;
/// RFC 1035, section 2.3.4: with the lengths of its labels and the final zero.
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// Name, type and class.
const MAX_QUESTION: usize = MAX_NAME + 4;
/// Room for a question with EDNS options; programs send well below 512 bytes.
const MAX_QUERY: usize = 1024;
/// Questions under way. A browser that opens a page asks some dozens.
const PENDING: usize = 256;
/// What a stub resolver waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions in a burst, and the time that each costs: enough for a browser, too slow to carry
/// data out in names at leisure.
const BURST: u32 = 200;
const PER_QUESTION: Duration = Duration::from_millis(20);
/// Ports to ask from: above the system ports.
const FIRST_PORT: u16 = 1024;

const FLAG_ANSWER: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const REFUSED: u8 = 5;

/// Which server answers for which names.
#[derive(Debug, Clone, Default)]
pub struct Domains {
    /// Lower-case domain without a final dot, and its servers; the longest first.
    entries: Vec<(String, Vec<Ipv4Addr>)>,
}

impl Domains {
    /// The domains of policy's segments.
    pub fn new(policy: &Policy) -> Self {
        let mut entries: Vec<_> = policy
            .segments
            .values()
            .filter(|segment| !segment.dns.is_empty())
            .flat_map(|segment| {
                segment.domains.iter().map(|domain| {
                    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
                    (domain, segment.dns.clone())
                })
            })
            .collect();
        entries.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        Self { entries }
    }

    /// Every server, for admission.
    pub fn servers(&self) -> Vec<Ipv4Addr> {
        let mut servers: Vec<_> = self
            .entries
            .iter()
            .flat_map(|(_, servers)| servers.iter().copied())
            .collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// The servers for a lower-case name: the domain itself or something under it.
    fn for_name(&self, name: &[u8]) -> Option<&[Ipv4Addr]> {
        self.entries
            .iter()
            .find(|(domain, _)| {
                name.strip_suffix(domain.as_bytes())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with(b"."))
            })
            .map(|(_, servers)| servers.as_slice())
    }
}

/// A query's question, as far as the gate looks into it.
#[derive(Debug)]
pub struct Question<'a> {
    id: u16,
    /// Name, type and class as they were asked.
    bytes: &'a [u8],
    name: [u8; MAX_NAME],
    name_len: usize,
}

impl<'a> Question<'a> {
    /// Parses a query: one question, no answers, an uncompressed name.
    pub fn parse(query: &'a [u8]) -> Option<Self> {
        if query.len() < HEADER || query.len() > MAX_QUERY {
            return None;
        }
        let count = |at: usize| u16::from_be_bytes([query[at], query[at + 1]]);
        let plain = query[2] & (FLAG_ANSWER | OPCODE) == 0;
        // At most one additional record: EDNS.
        if !plain || count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 1 {
            return None;
        }
        let mut name = [0; MAX_NAME];
        let mut name_len = 0;
        let mut at = HEADER;
        loop {
            let len = *query.get(at)?;
            at += 1;
            if len == 0 {
                break;
            }
            if len > MAX_LABEL {
                return None;
            }
            let label = query.get(at..at + usize::from(len))?;
            if name_len > 0 {
                *name.get_mut(name_len)? = b'.';
                name_len += 1;
            }
            let room = name.get_mut(name_len..name_len + label.len())?;
            for (to, from) in room.iter_mut().zip(label) {
                // A dot inside a label would make one name look like another.
                if *from == b'.' {
                    return None;
                }
                *to = from.to_ascii_lowercase();
            }
            name_len += label.len();
            at += label.len();
        }
        if at - HEADER > MAX_NAME {
            return None;
        }
        Some(Self {
            id: count(0),
            bytes: query.get(HEADER..at + 4)?,
            name,
            name_len,
        })
    }

    /// The name in lower case, without a final dot.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }
}

#[derive(Debug)]
struct Pending {
    guest: (u16, u16),
    server: Ipv4Addr,
    port: u16,
    id: u16,
    question: [u8; MAX_QUESTION],
    question_len: usize,
    expires: Moment,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is to go into the tunnel: [`Resolver::packet_mut`].
    Forward,
    /// Refused by this rule; the answer that says so is in the reply, if there is one.
    Refused(Rule),
}

/// The resolver.
pub struct Resolver {
    domains: Domains,
    address: Ipv4Addr,
    router: Ipv4Addr,
    pending: Vec<Option<Pending>>,
    random: Box<dyn FnMut() -> u32 + Send>,
    packet: Vec<u8>,
    /// Counts unanswered questions; picks among a segment's servers.
    turn: usize,
    tokens: u32,
    filled: Moment,
}

impl Resolver {
    /// A resolver for the guest at `address`, which asks `router`. `random` gives unpredictable
    /// numbers.
    pub fn new(
        domains: Domains,
        address: Ipv4Addr,
        router: Ipv4Addr,
        random: Box<dyn FnMut() -> u32 + Send>,
        now: Moment,
    ) -> Self {
        Self {
            domains,
            address,
            router,
            pending: (0..PENDING).map(|_| None).collect(),
            random,
            packet: Vec::with_capacity(IPV4_HEADER + UDP_HEADER + MAX_QUERY),
            turn: 0,
            tokens: BURST,
            filled: now,
        }
    }

    /// Takes the guest's query.
    pub fn ask(
        &mut self,
        packet: &Packet<'_>,
        ethernet: &Ethernet,
        reply: &mut Reply,
        now: Moment,
    ) -> Asked {
        let query = packet.body().get(UDP_HEADER..).unwrap_or(&[]);
        let Some(question) = Question::parse(query) else {
            return Asked::Refused(Rule::DnsRefused);
        };
        if !self.spend(now) {
            return Asked::Refused(Rule::DnsRefused);
        }
        let guest = (packet.flow().source_port, question.id);
        let Some(servers) = self.domains.for_name(question.name()) else {
            self.refuse(query, &question, guest.0, ethernet, reply);
            return Asked::Refused(Rule::DnsOutside);
        };
        let server = servers[self.turn % servers.len()];
        let Some((port, id)) = self.remember(guest, server, question.bytes, now) else {
            return Asked::Refused(Rule::DnsRefused);
        };
        self.packet.clear();
        self.packet
            .resize(IPV4_HEADER + UDP_HEADER + query.len(), 0);
        let (from, to) = ((self.address, port), (server, DNS));
        write_ipv4(&mut self.packet, (from.0, to.0), IpProtocol::Udp);
        let body = &mut self.packet[IPV4_HEADER..];
        let mut own = [0; MAX_QUERY];
        let own = &mut own[..query.len()];
        own.copy_from_slice(query);
        own[..2].copy_from_slice(&id.to_be_bytes());
        write_udp(body, from, to, own);
        Asked::Forward
    }

    /// The inner packet of the last question that is to be forwarded. Taken and given back, so
    /// that its memory is used again.
    pub const fn packet_mut(&mut self) -> &mut Vec<u8> {
        &mut self.packet
    }

    /// Takes a packet out of the tunnel if it answers a question, and leaves the guest's answer in
    /// `reply`.
    pub fn answer(
        &mut self,
        packet: &Packet<'_>,
        ethernet: &Ethernet,
        reply: &mut Reply,
        now: Moment,
    ) -> bool {
        let flow = packet.flow();
        if flow.protocol != Protocol::Udp
            || flow.source_port != DNS
            || flow.destination != self.address
        {
            return false;
        }
        let payload = &packet.body()[UDP_HEADER..];
        if payload.len() < HEADER || payload[2] & FLAG_ANSWER == 0 {
            return false;
        }
        let id = u16::from_be_bytes([payload[0], payload[1]]);
        let answered = self.pending.iter_mut().find(|slot| {
            slot.as_ref().is_some_and(|held| {
                held.server == flow.source
                    && held.port == flow.destination_port
                    && held.id == id
                    && held.expires > now
                    && payload[4..6] == [0, 1]
                    && payload[HEADER..].starts_with(&held.question[..held.question_len])
            })
        });
        let Some(held) = answered.and_then(Option::take) else {
            return false;
        };
        let (port, id) = held.guest;
        reply.udp(ethernet, (self.router, DNS), (self.address, port), payload);
        let at = super::ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER;
        reply.renumber(at, id);
        true
    }

    /// Writes the REFUSED answer: the question again, and no more.
    fn refuse(
        &self,
        query: &[u8],
        question: &Question<'_>,
        port: u16,
        ethernet: &Ethernet,
        reply: &mut Reply,
    ) {
        let mut answer = [0; HEADER + MAX_QUESTION];
        let answer = &mut answer[..HEADER + question.bytes.len()];
        answer[..2].copy_from_slice(&question.id.to_be_bytes());
        answer[2] = FLAG_ANSWER | (query[2] & RECURSION_DESIRED);
        answer[3] = RECURSION_AVAILABLE | REFUSED;
        answer[5] = 1;
        answer[HEADER..].copy_from_slice(question.bytes);
        reply.udp(ethernet, (self.router, DNS), (self.address, port), answer);
    }

    fn remember(
        &mut self,
        guest: (u16, u16),
        server: Ipv4Addr,
        question: &[u8],
        now: Moment,
    ) -> Option<(u16, u16)> {
        if question.len() > MAX_QUESTION {
            return None;
        }
        let mut free = None;
        for (at, slot) in self.pending.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|held| held.expires <= now) {
                *slot = None;
                // Nobody answered: the next question goes to the next server.
                self.turn = self.turn.wrapping_add(1);
            }
            if slot.is_none() && free.is_none() {
                free = Some(at);
            }
        }
        let [a, b, c, d] = (self.random)().to_be_bytes();
        let port = u16::from_be_bytes([a, b]).max(FIRST_PORT);
        let id = u16::from_be_bytes([c, d]);
        let mut bytes = [0; MAX_QUESTION];
        bytes[..question.len()].copy_from_slice(question);
        self.pending[free?] = Some(Pending {
            guest,
            server,
            port,
            id,
            question: bytes,
            question_len: question.len(),
            expires: now + PATIENCE,
        });
        Some((port, id))
    }

    fn spend(&mut self, now: Moment) -> bool {
        let earned = now.since(self.filled).as_millis() / PER_QUESTION.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.filled = now;
        }
        let spent = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        spent
    }
}
