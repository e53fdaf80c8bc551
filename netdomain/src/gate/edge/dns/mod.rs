//! DNS for the guest: names of the segments' domains are asked through the tunnel, everything else
//! is refused here.
//!
//! No cache, no recursion, no other server: a question goes to the DNS server that policy names
//! for its domain, in the gate's own words, from a random port with a random id. Only an answer
//! from that server to that port with that id and that question is taken (RFC 5452, section 9.1),
//! looked through, and handed back under the guest's own id and spelling.
//!
//! The guest may ask over TCP as well. It is asked for by datagram all the same, and again over TCP
//! if the answer was cut; what may be asked and answered, and how much, is the same either way.

mod answer;
mod budget;
mod connections;
mod domains;
mod question;
mod segments;
mod stream;
mod upstream;
mod wire;

use std::net::Ipv4Addr;
use std::time::Duration;

use sekisho_policy::Protocol;
use smoltcp::wire::IpProtocol;

pub use self::domains::Domains;
pub use self::question::Question;

use self::answer::{Sound, examine};
use self::budget::Budget;
use self::question::{Kind, MAX_OWN, repeats};
use self::stream::{MAX_LONG, Streams, Ticket};
use self::upstream::Upstream;
use self::wire::{
    FLAG_ANSWER, FLAG_CUT, HEADER, MAX_QUESTION, NO_ERROR, OPCODE, RECURSION_AVAILABLE,
    RECURSION_DESIRED, REFUSED, kind,
};
use super::ncsi;
use super::reply::{Reply, UDP_HEADER, write_ipv4, write_udp};
use crate::gate::admit::Rule;
use crate::gate::device::Device;
use crate::gate::packet::{IPV4_HEADER, Packet};
use crate::gate::path::Ethernet;
use crate::moment::Moment;

const DNS: u16 = 53;
/// Questions under way. A browser that opens a page asks some dozens.
const PENDING: usize = 256;
/// What a stub resolver waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ports to ask from: above the system ports.
const FIRST_PORT: u16 = 1024;
/// Bytes of a record of type A whose name is a pointer.
const ADDRESS_RECORD: usize = 16;
/// The longest answer that fits any MTU of ours. Asked for are 1232 bytes.
const MAX_ANSWER: usize = 1440 - IPV4_HEADER - UDP_HEADER;

#[derive(Debug)]
struct Pending {
    guest: Asker,
    domain: usize,
    server: Ipv4Addr,
    port: u16,
    id: u16,
    /// Name, type and class as the guest spelled them.
    question: [u8; MAX_QUESTION],
    question_len: usize,
    /// The type.
    number: u16,
    expires: Moment,
}

impl Pending {
    fn question(&self) -> &[u8] {
        &self.question[..self.question_len]
    }
}

/// Whom a question of the guest is answered to.
#[derive(Debug, Clone, Copy)]
struct Asker {
    back: Back,
    id: u16,
    recurse: bool,
}

/// The way back to the guest.
#[derive(Debug, Clone, Copy)]
enum Back {
    /// A datagram to this port.
    Datagram { port: u16 },
    /// A connection.
    Stream(Ticket),
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is to go into the tunnel: [`Resolver::packet_mut`].
    Forward,
    /// Answered here; the answer is in the reply.
    Answered,
    /// Refused by this rule; the answer that says so is in the reply, if there is one.
    Refused(Rule),
}

/// What a packet out of the tunnel was to the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Not an answer to any question of its own.
    Nothing,
    /// An answer; the guest's is in the reply, or on its connection.
    Answer,
    /// An answer that was cut: the whole of it is asked for over TCP, or a part of that came.
    More,
    /// An answer that this rule refuses; the guest is told so in the reply, or on its connection.
    Refused(Rule),
}

/// The resolver.
pub struct Resolver {
    domains: Domains,
    budget: Budget,
    address: Ipv4Addr,
    router: Ipv4Addr,
    /// Whether the guest has IPv6.
    ipv6: bool,
    pending: Vec<Option<Pending>>,
    random: Box<dyn FnMut() -> u32 + Send>,
    packet: Vec<u8>,
    streams: Streams,
    upstream: Upstream,
    /// An answer as it came over TCP, and one as the guest is to see it.
    long: Vec<u8>,
    own: Vec<u8>,
    /// Counts unanswered questions; picks among a segment's servers.
    turn: usize,
}

impl Resolver {
    /// A resolver for the guest of `device`, which asks the router. `random` gives unpredictable
    /// numbers.
    pub fn new(
        domains: Domains,
        device: &Device,
        mut random: Box<dyn FnMut() -> u32 + Send>,
        now: Moment,
    ) -> Self {
        let (mtu, router, address) = (device.mtu, device.router, device.address);
        let mut seed = || u64::from(random()) << 32 | u64::from(random());
        Self {
            budget: Budget::new(domains.len()),
            domains,
            address,
            router,
            ipv6: device.v6.is_some(),
            pending: (0..PENDING).map(|_| None).collect(),
            packet: Vec::with_capacity(IPV4_HEADER + UDP_HEADER + MAX_OWN),
            streams: Streams::new(router, mtu, seed(), now),
            upstream: Upstream::new(address, mtu, seed(), now),
            random,
            long: Vec::with_capacity(MAX_LONG),
            own: Vec::with_capacity(MAX_LONG),
            turn: 0,
        }
    }

    /// The guest of `device` has another address now. Nothing is under way any more, and names carry no more
    /// than before: an address that comes and goes is no new budget.
    pub fn readdress(&mut self, device: &Device, now: Moment) {
        let (mtu, router, address) = (device.mtu, device.router, device.address);
        let mut seed = || u64::from((self.random)()) << 32 | u64::from((self.random)());
        self.streams = Streams::new(router, mtu, seed(), now);
        self.upstream = Upstream::new(address, mtu, seed(), now);
        self.pending.fill_with(|| None);
        (self.address, self.router) = (address, router);
    }

    /// Takes the guest's query. `connected`: the tunnel is up, so that the names by which a work OS
    /// tests for a network may be answered.
    pub fn ask(
        &mut self,
        packet: &Packet<'_>,
        connected: bool,
        ethernet: &Ethernet,
        reply: &mut Reply,
        now: Moment,
    ) -> Asked {
        let query = packet.body().get(UDP_HEADER..).unwrap_or(&[]);
        let port = packet.flow().source_port;
        let back = Back::Datagram { port };
        self.put(query, back, connected, (ethernet, reply), now)
    }

    fn put(
        &mut self,
        query: &[u8],
        back: Back,
        connected: bool,
        out: (&Ethernet, &mut Reply),
        now: Moment,
    ) -> Asked {
        let question = Question::parse(query).filter(|_| self.budget.question(now));
        let Some(question) = question else {
            if let Back::Stream(ticket) = back {
                self.streams.drop(ticket, now);
            }
            return Asked::Refused(Rule::DnsRefused);
        };
        let guest = Asker {
            back,
            id: question.id,
            recurse: question.recurse,
        };
        let asked = (question.bytes, guest);
        let probes = connected && self.domains.probes;
        if let Some(address) = ncsi::address(question.name(), self.router).filter(|_| probes) {
            let address = (question.number == kind::A).then_some(address);
            self.say(NO_ERROR, asked, address, out, now);
            return Asked::Answered;
        }
        match self.take(&question, guest, now) {
            Ok(Asked::Answered) => {
                self.say(NO_ERROR, asked, None, out, now);
                Asked::Answered
            }
            Ok(asked) => asked,
            Err(rule) => {
                self.say(REFUSED, asked, None, out, now);
                Asked::Refused(rule)
            }
        }
    }

    /// Decides about a question, and makes the packet that asks it again.
    fn take(&mut self, question: &Question<'_>, guest: Asker, now: Moment) -> Result<Asked, Rule> {
        let name = question.name();
        let place = self.domains.place(name).ok_or(Rule::DnsOutside)?;
        let kind = question.kind(self.ipv6);
        match kind {
            Kind::Absent => return Ok(Asked::Answered),
            Kind::Transfer => return Err(Rule::DnsRefused),
            Kind::Plain | Kind::Bulky => {}
        }
        let bulky = kind == Kind::Bulky;
        if !self.budget.name(name, question.number, place, bulky, now) {
            return Err(Rule::DnsTunnel);
        }
        let (server, port, id) = self
            .remember(question, guest, place.domain, now)
            .ok_or(Rule::DnsRefused)?;
        let mut own = [0; MAX_OWN];
        let len = question.ask_again(id, &mut own);
        self.packet.clear();
        self.packet.resize(IPV4_HEADER + UDP_HEADER + len, 0);
        let (from, to) = ((self.address, port), (server, DNS));
        write_ipv4(&mut self.packet, (from.0, to.0), IpProtocol::Udp);
        write_udp(&mut self.packet[IPV4_HEADER..], from, to, &own[..len]);
        Ok(Asked::Forward)
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
    ) -> Heard {
        if self.upstream.owns(&packet.flow()) {
            self.upstream.segment(packet, now);
            return Heard::More;
        }
        let Some(held) = self.answered(packet, now) else {
            return Heard::Nothing;
        };
        let message = &packet.body()[UDP_HEADER..];
        let cut = message[2] & FLAG_CUT != 0;
        // Without a place the guest gets what there is, and asks again.
        if cut && matches!(held.guest.back, Back::Stream(_)) && self.upstream.has_room() {
            let port = self.port();
            self.upstream.fetch(held, port, now);
            return Heard::More;
        }
        self.pass_on(message, &held, MAX_ANSWER, (ethernet, reply), now)
    }

    /// Looks an answer through, and hands the guest what it may see of it.
    fn pass_on(
        &mut self,
        message: &[u8],
        held: &Pending,
        most: usize,
        out: (&Ethernet, &mut Reply),
        now: Moment,
    ) -> Heard {
        let mut own = std::mem::take(&mut self.own);
        let heard = match self.look_through(message, held, most, &mut own, now) {
            Ok(()) => {
                self.hand(held.guest.back, &own, out, now);
                Heard::Answer
            }
            Err(rule) => {
                let asked = (held.question(), held.guest);
                self.say(REFUSED, asked, None, out, now);
                Heard::Refused(rule)
            }
        };
        self.own = own;
        heard
    }

    /// Hands a message to the guest.
    fn hand(
        &mut self,
        back: Back,
        message: &[u8],
        (ethernet, reply): (&Ethernet, &mut Reply),
        now: Moment,
    ) {
        match back {
            Back::Datagram { port } => {
                let (from, to) = ((self.router, DNS), (self.address, port));
                reply.udp(ethernet, from, to, message);
            }
            Back::Stream(ticket) => self.streams.answer(ticket, message, now),
        }
    }

    /// A port that nobody guesses.
    fn port(&mut self) -> u16 {
        let [a, b, ..] = (self.random)().to_be_bytes();
        u16::from_be_bytes([a, b]).max(FIRST_PORT)
    }

    /// The question that a packet answers, which is no longer under way then.
    fn answered(&mut self, packet: &Packet<'_>, now: Moment) -> Option<Pending> {
        let flow = packet.flow();
        if flow.protocol != Protocol::Udp
            || flow.source_port != DNS
            || flow.destination != self.address
        {
            return None;
        }
        let message = packet.body().get(UDP_HEADER..)?;
        if message.len() < HEADER || message[2] & (FLAG_ANSWER | OPCODE) != FLAG_ANSWER {
            return None;
        }
        let id = u16::from_be_bytes([message[0], message[1]]);
        let slot = self.pending.iter_mut().find(|slot| {
            slot.as_ref().is_some_and(|held| {
                held.server == flow.source
                    && held.port == flow.destination_port
                    && held.id == id
                    && held.expires > now
                    && message[4..6] == [0, 1]
                    && repeats(&message[HEADER..], held.question())
            })
        });
        slot?.take()
    }

    /// Writes the answer as the guest is to see it over `own`: under its own id and spelling.
    fn look_through(
        &mut self,
        message: &[u8],
        held: &Pending,
        most: usize,
        own: &mut Vec<u8>,
        now: Moment,
    ) -> Result<(), Rule> {
        let behind = HEADER + held.question_len;
        let domains = &self.domains;
        let sound = examine(message, behind, held.number, |address| {
            domains.may_name(address)
        })?;
        let len = match sound {
            Sound::Whole => message.len(),
            Sound::Until(end) => end,
        };
        if len > most {
            return Err(Rule::DnsAnswer);
        }
        if !self.budget.answer(held.domain, len - behind, now) {
            return Err(Rule::DnsTunnel);
        }
        own.clear();
        own.extend_from_slice(&message[..len]);
        own[..2].copy_from_slice(&held.guest.id.to_be_bytes());
        if sound != Sound::Whole {
            own[10..HEADER].fill(0);
        }
        own[HEADER..behind].copy_from_slice(held.question());
        Ok(())
    }

    /// Writes an answer of the gate's own: the question again, and an address perhaps. That one is
    /// not to be remembered (RFC 1035, section 3.2.1): it holds while the tunnel is up.
    fn say(
        &mut self,
        code: u8,
        (question, guest): (&[u8], Asker),
        address: Option<Ipv4Addr>,
        out: (&Ethernet, &mut Reply),
        now: Moment,
    ) {
        let mut message = [0; HEADER + MAX_QUESTION + ADDRESS_RECORD];
        message[..2].copy_from_slice(&guest.id.to_be_bytes());
        message[2] = FLAG_ANSWER;
        if guest.recurse {
            message[2] |= RECURSION_DESIRED;
        }
        message[3] = RECURSION_AVAILABLE | code;
        message[5] = 1;
        let mut end = HEADER + question.len();
        message[HEADER..end].copy_from_slice(question);
        if let Some(address) = address {
            message[7] = 1;
            let record = &mut message[end..end + ADDRESS_RECORD];
            // The name is the question's, type A, class IN, time to live 0, four bytes.
            record[..12].copy_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            record[12..].copy_from_slice(&address.octets());
            end += ADDRESS_RECORD;
        }
        self.hand(guest.back, &message[..end], out, now);
    }

    /// Takes note of a question under way: the server that it goes to, and the port and id that it
    /// goes under.
    fn remember(
        &mut self,
        question: &Question<'_>,
        guest: Asker,
        domain: usize,
        now: Moment,
    ) -> Option<(Ipv4Addr, u16, u16)> {
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
        let server = self.domains.server(domain, self.turn)?;
        let [a, b, c, d] = (self.random)().to_be_bytes();
        let port = u16::from_be_bytes([a, b]).max(FIRST_PORT);
        let id = u16::from_be_bytes([c, d]);
        let mut bytes = [0; MAX_QUESTION];
        let question_len = question.bytes.len();
        bytes
            .get_mut(..question_len)?
            .copy_from_slice(question.bytes);
        self.pending[free?] = Some(Pending {
            guest,
            domain,
            server,
            port,
            id,
            question: bytes,
            question_len,
            number: question.number,
            expires: now + PATIENCE,
        });
        Some((server, port, id))
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetAddress;

    use super::*;
    use crate::gate::fixture::{GUEST, Issue, MTU, at};

    /// A name that carries 120 bytes out.
    fn question(number: usize) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let label = |number: usize| format!("{number:0>60}");
        let (first, second) = (label(number), label(number + 1000));
        for label in [&*first, &*second, "t", "mihon-city", "example", ""] {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn an_address_that_comes_and_goes_is_no_new_budget() {
        let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let device = Device {
            address: GUEST,
            prefix: 24,
            router: Ipv4Addr::new(10, 250, 7, 1),
            v6: None,
            mac,
            mtu: MTU,
        };
        let ethernet = Ethernet {
            guest: mac,
            gate: mac,
        };
        let policy = Issue::default().verified();
        let mut resolver = Resolver::new(Domains::new(&policy), &device, Box::new(|| 7), at(0));
        let mut reply = Reply::with_mtu(MTU);
        let mut carried = 0;
        for number in 0..200 {
            if number % 10 == 0 {
                let address = Ipv4Addr::new(10, 12, 100, u8::try_from(number / 10).unwrap());
                resolver.readdress(&Device { address, ..device }, at(0));
            }
            let back = Back::Datagram { port: 5353 };
            let wire = (&ethernet, &mut reply);
            let asked = resolver.put(&question(number), back, true, wire, at(0));
            carried += usize::from(asked == Asked::Forward) * 120;
        }
        assert!((1000..2500).contains(&carried), "{carried} bytes");
    }
}
