//! Neighbour discovery (RFC 4861): the gate advertises itself as the router and answers for its own
//! address. Nothing is learned: the guest's MAC comes from the device file, and what the guest says
//! about itself changes nothing.

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::wire::Ipv6Packet;

use super::{GATE, is_guests};
use crate::gate::admit::Rule;
use crate::gate::edge::reply::Reply;
use crate::gate::edge::{Edge, Outcome};
use crate::moment::Moment;

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// No router has forwarded it (RFC 4861, section 3.1).
const HOP_LIMIT: u8 = 255;
/// Hop limit of everything else.
const USUAL: u8 = 64;
/// Where the target of a solicitation stands, and where its options begin.
const TARGET: std::ops::Range<usize> = 8..24;
/// Where the options of a router solicitation begin.
const BEHIND_ROUTER_SOLICITATION: usize = 8;
/// An option with a MAC address, or with an MTU.
const OPTION: usize = 8;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const MTU: u8 = 5;
/// Advertisements: this is a router; it was asked for; believe it rather than what you know.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Router advertisements: addresses come by `DHCPv6`.
const MANAGED: u8 = 0x80;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// `ff02::1:ff00:0/104`, and the last three bytes of the gate's address (RFC 4291, section 2.7.1).
const SOLICITED_NODE: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff53, 0x004b);

/// How long the guest keeps the gate as its router without hearing of it, in seconds, and how often
/// it hears of it unasked: the defaults of RFC 4861, section 6.2.1.
const LIFETIME: u16 = 1800;
const INTERVAL: Duration = Duration::from_mins(10);

impl Edge {
    /// An `ICMPv6` message to the gate or to many, its checksum good.
    pub(super) fn icmpv6(
        &self,
        own: Ipv6Addr,
        ip: &Ipv6Packet<&[u8]>,
        reply: &mut Reply,
    ) -> Outcome {
        let message = ip.payload();
        let (Some(&kind), source) = (message.first(), ip.src_addr()) else {
            return Outcome::Refused(Rule::Malformed);
        };
        if kind == ECHO_REQUEST && ip.dst_addr() == GATE && !source.is_unspecified() {
            reply.icmpv6(self, (GATE, source), USUAL, message.len(), |out| {
                out.copy_from_slice(message);
                out[0] = ECHO_REPLY;
                out[2..4].fill(0);
            });
            return Outcome::Done;
        }
        let discovery = (ROUTER_SOLICITATION..=REDIRECT).contains(&kind);
        if !discovery {
            return Outcome::Refused(Rule::NotServed);
        }
        if ip.hop_limit() != HOP_LIMIT || message.get(1) != Some(&0) {
            return Outcome::Refused(Rule::Malformed);
        }
        match kind {
            ROUTER_SOLICITATION => self.router_solicitation(source, message, reply),
            SOLICITATION => self.solicitation(ip, message, reply),
            ADVERTISEMENT => advertisement(own, message),
            // The guest plays a router (T38).
            _ => Outcome::Refused(Rule::Impostor),
        }
    }

    /// RFC 4861, section 6.1.1.
    fn router_solicitation(&self, source: Ipv6Addr, message: &[u8], reply: &mut Reply) -> Outcome {
        let options = message.get(BEHIND_ROUTER_SOLICITATION..).and_then(options);
        match options {
            Some(options) if !(source.is_unspecified() && options.source_mac) => {}
            _ => return Outcome::Refused(Rule::Malformed),
        }
        let to = if source.is_unspecified() {
            ALL_NODES
        } else {
            source
        };
        self.router_advertisement(to, reply);
        Outcome::Done
    }

    /// RFC 4861, section 7.1.1; the answer by section 7.2.4.
    fn solicitation(&self, ip: &Ipv6Packet<&[u8]>, message: &[u8], reply: &mut Reply) -> Outcome {
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        let Some(target) = target(message).filter(|target| !target.is_multicast()) else {
            return Outcome::Refused(Rule::Malformed);
        };
        let probe = source.is_unspecified();
        match options(&message[TARGET.end..]) {
            // A probe for a duplicate goes to the solicited nodes and has no sender.
            Some(options) if !(probe && (options.source_mac || destination == GATE)) => {}
            _ => return Outcome::Refused(Rule::Malformed),
        }
        if target != GATE {
            // The guest looks for a duplicate of an address of its own, or for a neighbour. Silence
            // says that there is none.
            return Outcome::Done;
        }
        if destination != GATE && destination != SOLICITED_NODE {
            return Outcome::Refused(Rule::Malformed);
        }
        let (to, flags) = if probe {
            (ALL_NODES, ROUTER | OVERRIDE)
        } else {
            (source, ROUTER | SOLICITED | OVERRIDE)
        };
        let mac = self.ethernet.gate.0;
        let len = TARGET.end + OPTION;
        reply.icmpv6(self, (GATE, to), HOP_LIMIT, len, |out| {
            out[0] = ADVERTISEMENT;
            out[4] = flags;
            out[TARGET].copy_from_slice(&GATE.octets());
            let option = &mut out[TARGET.end..];
            option[..2].copy_from_slice(&[TARGET_MAC, 1]);
            option[2..].copy_from_slice(&mac);
        });
        Outcome::Done
    }

    /// RFC 4861, section 4.2: a router, addresses by `DHCPv6`, an MTU, and no prefix.
    fn router_advertisement(&self, to: Ipv6Addr, reply: &mut Reply) {
        const HEADER: usize = 16;
        let (mac, mtu) = (self.ethernet.gate.0, u32::from(self.device.mtu));
        reply.icmpv6(self, (GATE, to), HOP_LIMIT, HEADER + 2 * OPTION, |out| {
            out[0] = ROUTER_ADVERTISEMENT;
            out[4] = USUAL;
            out[5] = MANAGED;
            out[6..8].copy_from_slice(&LIFETIME.to_be_bytes());
            let (source, size) = out[HEADER..].split_at_mut(OPTION);
            source[..2].copy_from_slice(&[SOURCE_MAC, 1]);
            source[2..].copy_from_slice(&mac);
            size[..2].copy_from_slice(&[MTU, 1]);
            size[4..].copy_from_slice(&mtu.to_be_bytes());
        });
    }

    /// When the guest is to hear of its router unasked; never, where IPv6 is not carried.
    pub const fn advertises(&self) -> Option<Moment> {
        match self.device.v6 {
            Some(_) => Some(self.advertised),
            None => None,
        }
    }

    /// Leaves an advertisement in `reply` if it is due.
    pub fn advertise(&mut self, reply: &mut Reply, now: Moment) {
        if self.advertises().is_some_and(|due| due <= now) {
            self.advertised = now + INTERVAL;
            self.router_advertisement(ALL_NODES, reply);
        }
    }
}

/// The guest's own address, said to all, is no news; any other is somebody else's (T38).
fn advertisement(own: Ipv6Addr, message: &[u8]) -> Outcome {
    match target(message) {
        None => Outcome::Refused(Rule::Malformed),
        Some(target) if is_guests(target, own) => Outcome::Done,
        Some(_) => Outcome::Refused(Rule::Impostor),
    }
}

fn target(message: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = message.get(TARGET)?.try_into().ok()?;
    Some(octets.into())
}

/// What the options of a message hold.
struct Options {
    source_mac: bool,
}

/// Looks through options (RFC 4861, section 4.6); `None` if one is empty or ends behind the message.
fn options(mut bytes: &[u8]) -> Option<Options> {
    let mut found = Options { source_mac: false };
    while let Some(&kind) = bytes.first() {
        let len = usize::from(*bytes.get(1)?) * OPTION;
        if len == 0 {
            return None;
        }
        found.source_mac |= kind == SOURCE_MAC;
        bytes = bytes.get(len..)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetAddress;

    use super::*;
    use crate::gate::device::Device;
    use crate::gate::fixture::{GUEST, GUEST_V6, MTU as LINK, at};

    fn edge(v6: Option<Ipv6Addr>) -> Edge {
        let device = Device {
            address: GUEST,
            prefix: 24,
            router: [10, 250, 7, 1].into(),
            v6,
            mac: EthernetAddress([2, 0x53, 0x4b, 0, 7, 0x17]),
            mtu: LINK,
        };
        Edge::new(device, true, at(100))
    }

    /// The guest keeps its router: it hears of it three times within each lifetime, and no more often.
    #[test]
    fn the_router_is_heard_of_every_ten_minutes() {
        let mut edge = edge(Some(GUEST_V6));
        let mut reply = Reply::default();
        let heard: Vec<u64> = (100..100 + 2 * u64::from(LIFETIME))
            .filter(|&second| {
                reply.clear();
                edge.advertise(&mut reply, at(second));
                !reply.frame().is_empty()
            })
            .collect();
        assert_eq!(heard, [100, 700, 1300, 1900, 2500, 3100]);
        assert_eq!(edge.advertises(), Some(at(3700)));
    }

    #[test]
    fn without_ipv6_there_is_no_router_to_hear_of() {
        let mut edge = edge(None);
        let mut reply = Reply::default();
        edge.advertise(&mut reply, at(10_000));
        assert!(reply.frame().is_empty());
        assert_eq!(edge.advertises(), None);
    }

    #[test]
    fn options_end_where_the_message_does() {
        let mac = [SOURCE_MAC, 1, 0, 0, 0, 0, 0, 0];
        assert!(options(&[]).is_some_and(|found| !found.source_mac));
        assert!(options(&mac).is_some_and(|found| found.source_mac));
        let other = [MTU, 1, 0, 0, 0, 0, 5, 0];
        assert!(options(&[other, mac].concat()).is_some_and(|found| found.source_mac));
        for broken in [
            &mac[..7],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1],
        ] {
            assert!(options(broken).is_none(), "{broken:?}");
        }
    }
}
