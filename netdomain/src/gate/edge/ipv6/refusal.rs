//! What the guest is told about packets that do not pass: "prohibited" (RFC 4443, section 3.1) and
//! "too big" (section 3.2).

use std::net::Ipv6Addr;

use smoltcp::wire::{IpProtocol, Ipv6Packet};

use super::GATE;
use crate::gate::edge::Edge;
use crate::gate::edge::reply::Reply;
use crate::gate::packet::{IPV6_HEADER, IcmpKind, Packet6, Transport};
use crate::moment::Moment;

const HOP_LIMIT: u8 = 64;
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 1;
const PROHIBITED: u8 = 1;
const TOO_BIG: u8 = 2;
/// The refused packet's header and the start of its transport.
const QUOTE: usize = IPV6_HEADER + 20;

impl Edge {
    /// IPv6 is not carried at all. A host that sends some to the gate is told so; the chatter of a
    /// stack that looks for routers and neighbours is ignored.
    pub(super) fn not_carried(&self, body: &[u8], to_gate: bool, reply: &mut Reply) {
        let Ok(packet) = Ipv6Packet::new_checked(body) else {
            return;
        };
        let unicast = !packet.dst_addr().is_multicast() && !packet.src_addr().is_multicast();
        if to_gate
            && unicast
            && !packet.src_addr().is_unspecified()
            && packet.next_header() != IpProtocol::Icmpv6
        {
            self.error(packet.src_addr(), (UNREACHABLE, PROHIBITED), 0, body, reply);
        }
    }

    /// Tells the guest that `packet` is not allowed.
    pub fn prohibit_v6(&mut self, packet: &Packet6<'_>, reply: &mut Reply, now: Moment) {
        self.tell(packet, (UNREACHABLE, PROHIBITED), 0, reply, now);
    }

    /// Tells the guest that `packet` is too long for the path and how much fits.
    pub fn too_long_v6(&mut self, packet: &Packet6<'_>, mtu: u16, reply: &mut Reply, now: Moment) {
        self.tell(packet, (TOO_BIG, 0), mtu.into(), reply, now);
    }

    /// Not for every packet: errors about errors are forbidden (RFC 4443, section 2.4), and there is a
    /// budget.
    fn tell(
        &mut self,
        packet: &Packet6<'_>,
        kind: (u8, u8),
        word: u32,
        reply: &mut Reply,
        now: Moment,
    ) {
        let quiet = match packet.transport() {
            Transport::Icmp { kind } => kind != IcmpKind::EchoRequest,
            Transport::Tcp { flags, .. } => flags.rst,
            Transport::Udp => false,
        };
        if !quiet && self.errors.spend(now) {
            self.error(packet.flow().source, kind, word, packet.bytes(), reply);
        }
    }

    fn error(
        &self,
        to: Ipv6Addr,
        (kind, code): (u8, u8),
        word: u32,
        about: &[u8],
        reply: &mut Reply,
    ) {
        let quote = &about[..about.len().min(QUOTE)];
        let len = ICMP_HEADER + quote.len();
        reply.icmpv6(self, (GATE, to), HOP_LIMIT, len, |out| {
            out[..2].copy_from_slice(&[kind, code]);
            out[4..ICMP_HEADER].copy_from_slice(&word.to_be_bytes());
            out[ICMP_HEADER..].copy_from_slice(quote);
        });
    }
}
