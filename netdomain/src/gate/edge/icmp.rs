//! ICMP between the gate and the guest: echo, and errors that say "forbidden" at once.

use std::time::Duration;

use smoltcp::wire::{IpProtocol, checksum};

use super::Edge;
use super::reply::{Reply, fill_icmp_checksum};
use crate::gate::packet::{IPV4_HEADER, IcmpKind, Packet, Transport};
use crate::moment::Moment;

const HEADER: usize = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const PROHIBITED: u8 = 13;
const FRAGMENTATION_NEEDED: u8 = 4;
/// Bytes of the refused packet that an error repeats: header and ports (RFC 792), and enough of a
/// TCP header for stacks that want its sequence number and more.
const QUOTE: usize = IPV4_HEADER + 20;

/// Errors at most so many in a burst, and then one every so often: enough for a person's programs,
/// too little to keep anybody busy.
const BURST: u32 = 64;
const PER_ERROR: Duration = Duration::from_millis(10);

/// Bounds how many errors go to the guest.
#[derive(Debug)]
pub(super) struct ErrorBudget {
    tokens: u32,
    filled: Moment,
}

impl ErrorBudget {
    pub(super) const fn new(now: Moment) -> Self {
        Self {
            tokens: BURST,
            filled: now,
        }
    }

    pub(super) fn spend(&mut self, now: Moment) -> bool {
        let earned = now.since(self.filled).as_millis() / PER_ERROR.as_millis();
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

impl Edge {
    /// The answer to an echo request to the router.
    pub(super) fn echo(&self, packet: &Packet<'_>, reply: &mut Reply) {
        let flow = packet.flow();
        let body = packet.body();
        // A request with a broken checksum would get an answer with a good one.
        if checksum::data(body) != u16::MAX {
            return;
        }
        let addresses = (flow.destination, flow.source);
        let protocol = IpProtocol::Icmp;
        reply.ipv4(&self.ethernet, addresses, protocol, body.len(), |out| {
            out.copy_from_slice(body);
            out[0] = ECHO_REPLY;
            out[2..4].fill(0);
            fill_icmp_checksum(out);
        });
    }

    /// Tells the guest that `packet` is not allowed: "communication administratively prohibited"
    /// (RFC 1812, section 5.2.7.1). Not for every packet: errors about errors, and about what was
    /// meant for many, are forbidden (RFC 1122, section 3.2.2), and there is a budget.
    pub fn prohibit(&mut self, packet: &Packet<'_>, reply: &mut Reply, now: Moment) {
        self.unreachable(packet, PROHIBITED, 0, reply, now);
    }

    /// Tells the guest that `packet`, which must not be cut, is too long for the path and how much
    /// fits (RFC 1191, section 4): `mtu` bytes. One that may be cut is not: the gate cuts nothing, and a guest
    /// that keeps to its MTU sends none.
    pub fn too_long(&mut self, packet: &Packet<'_>, mtu: u16, reply: &mut Reply, now: Moment) {
        if packet.must_not_be_cut() {
            self.unreachable(packet, FRAGMENTATION_NEEDED, mtu, reply, now);
        }
    }

    fn unreachable(
        &mut self,
        packet: &Packet<'_>,
        code: u8,
        mtu: u16,
        reply: &mut Reply,
        now: Moment,
    ) {
        let flow = packet.flow();
        let quiet = match packet.transport() {
            Transport::Icmp { kind } => kind != IcmpKind::EchoRequest,
            Transport::Tcp { flags, .. } => flags.rst,
            Transport::Udp => false,
        };
        let many = flow.destination.is_multicast()
            || flow.destination.is_broadcast()
            || flow.destination == self.broadcast;
        if quiet || many || !self.errors.spend(now) {
            return;
        }
        let quote = &packet.bytes()[..packet.bytes().len().min(QUOTE)];
        let addresses = (self.device.router, self.place.address);
        let len = HEADER + quote.len();
        reply.ipv4(&self.ethernet, addresses, IpProtocol::Icmp, len, |out| {
            out[0] = UNREACHABLE;
            out[1] = code;
            out[6..HEADER].copy_from_slice(&mtu.to_be_bytes());
            out[HEADER..].copy_from_slice(quote);
            fill_icmp_checksum(out);
        });
    }
}
