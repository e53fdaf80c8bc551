//! The edge: the guest's side of the gate. It answers what belongs to the guest's own network and
//! hands on what wants out.

mod arp;
mod dhcp;
mod dns;
mod icmp;
mod ipv6;
#[cfg(test)]
mod member_tests;
mod ncsi;
mod reply;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sekisho_control::{LanMember, LanPlace};
use sekisho_framelink::{GsoType, NetHdr};
use sekisho_policy::Protocol;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

pub use dns::{Asked, Domains, Heard, Question, Resolver};
use icmp::ErrorBudget;
use ncsi::WebServer;
pub(crate) use reply::write_ipv4;
pub use reply::{ETHERNET_HEADER, Reply};

use super::admit::{Refusal, Rule, Subject};
use super::device::Device;
use super::family::Family;
use super::packet::{IcmpKind, Offload, Packet, Packet6, Transport};
use super::path::Ethernet;
use crate::moment::Moment;

/// The MAC address of the gate, on every laptop: locally administered, "SK".
pub const GATE_MAC: EthernetAddress = EthernetAddress([0x02, 0x53, 0x4b, 0xff, 0xff, 0x01]);

const DNS: u16 = 53;
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// What a frame of the guest turned out to be.
#[derive(Debug)]
pub enum Taken<'a> {
    /// A packet that wants out, for admission to decide.
    Transit(Packet<'a>),
    /// The same of IPv6.
    Transit6(Packet6<'a>),
    /// A question for the resolver.
    Question(Packet<'a>),
    /// A segment of a connection to the resolver.
    Segment(Packet<'a>),
    /// The work OS asks whether it has a network: [`Edge::serve_probe`], if it has.
    Probe(Packet<'a>),
    /// Dealt with; there may be a reply.
    Done,
    /// Refused here; there may be a reply all the same.
    Refused(Refusal),
}

/// What a part of the edge made of its frame.
enum Outcome {
    Done,
    Refused(Rule),
}

/// The edge.
#[derive(Debug)]
pub struct Edge {
    device: Device,
    /// Where the work OS is: at home, with the device file's address, or on an office LAN.
    place: LanPlace,
    /// What it told of itself.
    member: LanMember,
    ethernet: Ethernet,
    netmask: Ipv4Addr,
    broadcast: Ipv4Addr,
    errors: ErrorBudget,
    web: WebServer,
    probes: bool,
    /// When the guest is to hear of its router of IPv6.
    advertised: Moment,
}

impl Edge {
    /// The edge of this device. `probes`: whether the work OS may be told that it has a network.
    pub fn new(device: Device, probes: bool, now: Moment) -> Self {
        let place = home(&device);
        let net = Ipv4Net::new(place.address, place.prefix).unwrap_or_default();
        Self {
            device,
            place,
            member: LanMember::default(),
            ethernet: Ethernet {
                guest: device.mac,
                gate: GATE_MAC,
            },
            netmask: net.netmask(),
            broadcast: net.broadcast(),
            errors: ErrorBudget::new(now),
            web: WebServer::default(),
            probes,
            advertised: now,
        }
    }

    /// The gate's own address in the guest's eyes.
    pub const fn router(&self) -> Ipv4Addr {
        self.device.router
    }

    /// The device.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Where the work OS is by its own address.
    pub const fn place(&self) -> LanPlace {
        self.place
    }

    /// Where it is unless it is a member of a LAN.
    pub const fn home(&self) -> LanPlace {
        home(&self.device)
    }

    /// From now on the work OS has this address; it gets it when it asks again.
    pub fn move_to(&mut self, place: LanPlace) {
        let net = Ipv4Net::new(place.address, place.prefix).unwrap_or_default();
        self.place = place;
        self.netmask = net.netmask();
        self.broadcast = net.broadcast();
    }

    /// Who the work OS is on a LAN, as far as it told.
    pub const fn member(&self) -> &LanMember {
        &self.member
    }

    /// Who talks to whom on the guest's Ethernet.
    pub const fn ethernet(&self) -> Ethernet {
        self.ethernet
    }

    /// Takes one frame of the guest, header checked by the link. An answer is left in `reply`,
    /// which comes empty.
    pub fn take<'a>(
        &mut self,
        header: &NetHdr,
        frame: &'a [u8],
        reply: &mut Reply,
        now: Moment,
    ) -> Taken<'a> {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return refuse(Rule::Malformed, 0);
        };
        let ether_type = u16::from(ethernet.ethertype());
        if ethernet.src_addr() != self.device.mac {
            return refuse(Rule::AntiSpoof, ether_type);
        }
        let body = &frame[ETHERNET_HEADER..];
        let to_gate = ethernet.dst_addr() == GATE_MAC;
        let outcome = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => return self.ipv4(header, body, to_gate, reply, now),
            EthernetProtocol::Arp => self.arp(body, reply),
            EthernetProtocol::Ipv6 => return self.ipv6(header, body, to_gate, reply),
            EthernetProtocol::Unknown(_) => Outcome::Refused(Rule::EtherType),
        };
        match outcome {
            Outcome::Done => Taken::Done,
            Outcome::Refused(rule) => refuse(rule, ether_type),
        }
    }

    fn ipv4<'a>(
        &mut self,
        header: &NetHdr,
        body: &'a [u8],
        to_gate: bool,
        reply: &mut Reply,
        now: Moment,
    ) -> Taken<'a> {
        const IPV4: u16 = 0x0800;
        let packet = match offload(header, Ipv4Addr::GSO).and_then(|offload| {
            let packet = Packet::parse(body, offload).map_err(Rule::from)?;
            checksum_in_place(header, &packet)
                .then_some(packet)
                .ok_or(Rule::Malformed)
        }) {
            Ok(packet) => packet,
            Err(rule) => return refuse(rule, IPV4),
        };
        let flow = packet.flow();
        let refused = |rule| {
            Taken::Refused(Refusal {
                rule,
                subject: Subject::outbound(&flow),
            })
        };
        let dhcp = flow.protocol == Protocol::Udp && flow.destination_port == dhcp::SERVER;
        let unbound = flow.source.is_unspecified() && dhcp;
        if flow.source != self.place.address && !unbound {
            return refused(Rule::AntiSpoof);
        }
        let to_router = flow.destination == self.device.router;
        if dhcp && (to_router || flow.destination.is_broadcast()) {
            let payload = packet.body().get(reply::UDP_HEADER..).unwrap_or(&[]);
            return match self.dhcp(payload, reply) {
                Outcome::Done => Taken::Done,
                Outcome::Refused(rule) => refused(rule),
            };
        }
        // A DHCP server's answer: the guest plays one (T38).
        if flow.protocol == Protocol::Udp && flow.source_port == dhcp::SERVER && !to_router {
            return refused(Rule::Impostor);
        }
        if to_router {
            return self.for_router(packet, reply, now);
        }
        if !to_gate || self.is_for_many(flow.destination) {
            // Sent to a MAC address that nobody has, or to all: multicast and broadcast end here.
            return refused(Rule::NotServed);
        }
        Taken::Transit(packet)
    }

    /// Whether an address of a LAN that the work OS is a member of means all of its hosts. The guest's
    /// own network at home has no hosts, and policy decides on what looks like its broadcast.
    fn is_for_many(&self, address: Ipv4Addr) -> bool {
        let place = self.place;
        let net = || Ipv4Net::new(place.address, place.prefix).unwrap_or_default();
        // A prefix of 31 has two hosts and nothing else (RFC 3021).
        place != self.home()
            && place.prefix < 31
            && (address == self.broadcast || address == net().network())
    }

    /// A packet to the gate itself.
    fn for_router<'a>(&mut self, packet: Packet<'a>, reply: &mut Reply, now: Moment) -> Taken<'a> {
        let flow = packet.flow();
        match packet.transport() {
            Transport::Udp if flow.destination_port == DNS => Taken::Question(packet),
            Transport::Icmp {
                kind: IcmpKind::EchoRequest,
            } => {
                self.echo(&packet, reply);
                Taken::Done
            }
            Transport::Tcp { .. } if flow.destination_port == DNS => {
                // Nothing else would check the sum before smoltcp believes the segment.
                if ncsi::is_broken(&packet) {
                    return Taken::Refused(Refusal {
                        rule: Rule::Malformed,
                        subject: Subject::outbound(&flow),
                    });
                }
                Taken::Segment(packet)
            }
            Transport::Tcp { .. } if self.probes && flow.destination_port == ncsi::HTTP => {
                Taken::Probe(packet)
            }
            _ => Taken::Refused(self.not_served(&packet, reply, now)),
        }
    }

    /// Refuses a service that the gate does not offer, or not now.
    pub fn not_served(&mut self, packet: &Packet<'_>, reply: &mut Reply, now: Moment) -> Refusal {
        self.prohibit(packet, reply, now);
        Refusal {
            rule: Rule::NotServed,
            subject: Subject::outbound(&packet.flow()),
        }
    }
}

const fn home(device: &Device) -> LanPlace {
    LanPlace {
        address: device.address,
        prefix: device.prefix,
        router: device.router,
    }
}

fn refuse<'a>(rule: Rule, ether_type: u16) -> Taken<'a> {
    Taken::Refused(Refusal {
        rule,
        subject: Subject::Frame { ether_type },
    })
}

/// What the guest left to be done, by the header that the link has checked. `family`: the only kind of
/// super-frame that the packet can be.
fn offload(header: &NetHdr, family: GsoType) -> Result<Offload, Rule> {
    match header.gso() {
        Some(GsoType::None) if header.needs_csum() => Ok(Offload::Checksum),
        Some(GsoType::None) => Ok(Offload::None),
        Some(gso) if gso == family => Ok(Offload::Tcp {
            mss: header.gso_size,
        }),
        _ => Err(Rule::Malformed),
    }
}

/// Whether a missing checksum is the transport's own, where we will write it.
fn checksum_in_place<A: Family>(header: &NetHdr, packet: &Packet<'_, A>) -> bool {
    if packet.offload() == Offload::None {
        return true;
    }
    let offset = match packet.transport() {
        Transport::Tcp { .. } => TCP_CHECKSUM,
        Transport::Udp => UDP_CHECKSUM,
        Transport::Icmp { .. } => return false,
    };
    usize::from(header.csum_start) == ETHERNET_HEADER + A::HEADER && header.csum_offset == offset
}
