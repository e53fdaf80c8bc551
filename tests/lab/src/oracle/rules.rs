//! What the laptop may send on an outside wire.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use memchr::memmem;
use smoltcp::wire::{
    ArpOperation, ArpPacket, DhcpPacket, EthernetAddress, EthernetFrame, EthernetProtocol,
    IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

use super::direct::Admitted;
use crate::{address as at, topology::Cafe};

/// `EtherType` of 802.1X (IEEE 802.1X-2020 §11.1.4).
const EAPOL: u16 = 0x888e;

const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// What the laptop may send on one wire.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The gateway's addresses: the only places the tunnel may lead to.
    pub tunnel: Vec<SocketAddrV4>,
    /// The gateway's address for TLS, where it has one.
    pub tls: Option<SocketAddrV4>,
    /// The gateway's addresses for IKE and ESP, where it has them.
    pub ike: Vec<SocketAddrV4>,
    /// The premises beacon: asked for its proof over wired ports, and over others who answers there.
    pub beacon: Option<SocketAddrV4>,
    /// Addresses that ARP may ask for.
    pub next_hops: Vec<Ipv4Addr>,
    /// Addresses that the laptop may have been lent: it may answer ARP for them.
    pub lan: Ipv4Net,
    /// What the guest may send here without a tunnel.
    pub direct: Option<&'static [Admitted]>,
    /// The guest's address there, with its own MAC, where it is a member of the LAN.
    pub member: Option<Ipv4Addr>,
    /// The wire that the cable was in a moment ago: what the laptop's own kernel had begun there, sealed
    /// or without a word of the guest's, may still come.
    pub before: Option<Box<Rules>>,
}

impl Rules {
    /// On the cafe's LAN.
    pub fn cafe(cafe: &Cafe) -> Self {
        Self {
            tunnel: vec![at::GATEWAY_OUTSIDE],
            tls: None,
            ike: Vec::new(),
            beacon: Some(at::BEACON),
            next_hops: vec![cafe.router.addr()],
            lan: cafe.router.trunc(),
            direct: None,
            member: None,
            before: None,
        }
    }

    /// On the office LAN, with the premises proven.
    pub fn office() -> Self {
        Self {
            tunnel: vec![at::GATEWAY_OUTSIDE, at::GATEWAY_LAN],
            tls: None,
            ike: Vec::new(),
            beacon: Some(at::BEACON),
            next_hops: vec![at::OFFICE_ROUTER],
            lan: crate::topology::net(at::OFFICE_ROUTER, 24).trunc(),
            direct: None,
            member: None,
            before: None,
        }
    }
}

impl Rules {
    /// A moment after the cable was in another wire. Nothing that the guest may send there in clear may
    /// come here.
    #[must_use]
    pub fn just_after(mut self, before: &Self) -> Self {
        self.before = Some(Box::new(Self {
            direct: None,
            member: None,
            before: None,
            ..before.clone()
        }));
        self
    }

    /// The laptop may also speak TLS to the gateway.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = Some(at::GATEWAY_TLS);
        self
    }

    /// The laptop may also speak IKE and send ESP to the gateway.
    #[must_use]
    pub fn with_ike(mut self) -> Self {
        let port = at::GATEWAY_IKE.port();
        let sides = self.tunnel.iter();
        self.ike = sides
            .map(|side| SocketAddrV4::new(*side.ip(), port))
            .collect();
        self
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The tunnel's.
    Tunnel,
    /// The guest's own, where it may be without a tunnel.
    Direct,
    /// Needed to be on the wire at all.
    Allowed,
    /// Not allowed; why.
    Leak(&'static str),
}

/// Judges one Ethernet frame that the laptop sent.
pub fn classify(frame: &[u8], rules: &Rules) -> Kind {
    match (by_wire(frame, rules), &rules.before) {
        (Kind::Leak(why), Some(before)) => match by_wire(frame, before) {
            Kind::Leak(_) => Kind::Leak(why),
            late => late,
        },
        (found, _) => found,
    }
}

fn by_wire(frame: &[u8], rules: &Rules) -> Kind {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return Kind::Leak("a frame too short to be one");
    };
    let guest = EthernetAddress(at::GUEST_MAC);
    let member = rules.member.is_some();
    if !member && (ethernet.src_addr() == guest || ethernet.dst_addr() == guest) {
        return Kind::Leak("the guest's MAC");
    }
    let found = match ethernet.ethertype() {
        EthernetProtocol::Unknown(EAPOL) => Kind::Allowed,
        EthernetProtocol::Arp => arp(ethernet.payload(), rules),
        EthernetProtocol::Ipv4 => ipv4(ethernet.payload(), rules),
        EthernetProtocol::Ipv6 => Kind::Leak("IPv6"),
        EthernetProtocol::Unknown(_) => Kind::Leak("an unknown protocol"),
    };
    // What is sealed in the tunnel may hold any bytes by chance; everything else is short and plain.
    if found == Kind::Allowed {
        if !member && memmem::find(frame, &at::GUEST_MAC).is_some() {
            return Kind::Leak("the guest's MAC in a payload");
        }
        if memmem::find(frame, &at::GUEST.octets()).is_some() {
            return Kind::Leak("the guest's address in a payload");
        }
    }
    found
}

fn arp(bytes: &[u8], rules: &Rules) -> Kind {
    let Ok(arp) = ArpPacket::new_checked(bytes) else {
        return Kind::Leak("a broken ARP packet");
    };
    if arp.protocol_type() != EthernetProtocol::Ipv4 || arp.protocol_len() != 4 {
        return Kind::Leak("ARP for something else than IPv4");
    }
    let (Some(sender), Some(target)) = (
        octets(arp.source_protocol_addr()),
        octets(arp.target_protocol_addr()),
    ) else {
        return Kind::Leak("a broken ARP packet");
    };
    let own =
        |address: Ipv4Addr| rules.lan.contains(&address) && !rules.next_hops.contains(&address);
    match arp.operation() {
        ArpOperation::Request => {
            // RFC 5227: a probe has no sender address, an announcement asks for its own.
            let probe = sender.is_unspecified() && own(target);
            let announcement = sender == target && own(sender);
            let next_hop = own(sender) && rules.next_hops.contains(&target);
            // A member asks for its neighbours.
            let neighbour = rules.member == Some(sender) && rules.lan.contains(&target);
            if probe || announcement || next_hop {
                Kind::Allowed
            } else if neighbour {
                Kind::Direct
            } else {
                Kind::Leak("ARP for something else than the next hop")
            }
        }
        ArpOperation::Reply if own(sender) => Kind::Allowed,
        ArpOperation::Reply
            if rules.direct.is_some()
                && sender == at::GUEST
                && rules.next_hops.contains(&target) =>
        {
            Kind::Direct
        }
        ArpOperation::Reply => Kind::Leak("an ARP answer for an address that is not the wire's"),
        ArpOperation::Unknown(_) => Kind::Leak("an unknown ARP operation"),
    }
}

fn octets(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn ipv4(bytes: &[u8], rules: &Rules) -> Kind {
    // A capture may show a super-packet before the kernel cuts it up; then the total length of the
    // header is the super-packet's.
    let Ok(ip) = Ipv4Packet::new_checked(bytes) else {
        return Kind::Leak("a broken IPv4 packet");
    };
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Kind::Leak("an IPv4 fragment");
    }
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    if let Some(admitted) = rules.direct
        && from == rules.guest()
        && !rules.is_own(&ip)
    {
        return if admitted.iter().any(|flow| flow.carries(&ip)) {
            Kind::Direct
        } else {
            Kind::Leak("a packet of the guest's that policy does not allow")
        };
    }
    if rules.member.is_some() && from == at::GUEST {
        return Kind::Leak("the guest's inner address");
    }
    let own = rules.lan.contains(&from);
    match ip.next_header() {
        IpProtocol::Udp => {
            let Ok(udp) = UdpPacket::new_checked(ip.payload()) else {
                return Kind::Leak("a broken UDP packet");
            };
            if udp.src_port() == DHCP_CLIENT && udp.dst_port() == DHCP_SERVER {
                return dhcp(from, to, udp.payload(), rules);
            }
            if own
                && rules
                    .tunnel
                    .contains(&SocketAddrV4::new(to, udp.dst_port()))
            {
                return if is_wireguard(udp.payload()) {
                    Kind::Tunnel
                } else {
                    Kind::Leak("to the gateway, but not WireGuard")
                };
            }
            if own && rules.ike.contains(&SocketAddrV4::new(to, udp.dst_port())) {
                return match is_ike_or_esp(udp.payload()) {
                    Some(kind) => kind,
                    None => Kind::Leak("to the gateway, but neither IKE nor ESP"),
                };
            }
            Kind::Leak("UDP to somewhere else than the gateway")
        }
        IpProtocol::Tcp => match TcpPacket::new_checked(ip.payload()) {
            Ok(tcp) if own && rules.beacon == Some(SocketAddrV4::new(to, tcp.dst_port())) => {
                Kind::Allowed
            }
            Ok(tcp) if own && rules.tls == Some(SocketAddrV4::new(to, tcp.dst_port())) => {
                Kind::Tunnel
            }
            Ok(_) => Kind::Leak("TCP to somewhere else than the beacon"),
            Err(_) => Kind::Leak("a broken TCP packet"),
        },
        _ => Kind::Leak("an IP protocol that has no business here"),
    }
}

fn dhcp(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], rules: &Rules) -> Kind {
    let at_home = from.is_unspecified() || rules.lan.contains(&from);
    let server = to.is_broadcast() || rules.next_hops.contains(&to);
    match DhcpPacket::new_checked(payload) {
        Ok(packet) if boots_from_network(&packet) => {
            Kind::Leak("DHCP of a firmware that boots from the network")
        }
        Ok(_) if at_home && server => Kind::Allowed,
        Ok(_) => Kind::Leak("DHCP to a stranger"),
        Err(_) => Kind::Leak("something on the DHCP ports that is not DHCP"),
    }
}

/// Whether a firmware asks, for something to boot: by its class (PXE 2.1, section 2.2) or by the
/// architecture that it names (RFC 4578, section 2.1).
fn boots_from_network(packet: &DhcpPacket<&[u8]>) -> bool {
    const VENDOR_CLASS: u8 = 60;
    const CLIENT_ARCHITECTURE: u8 = 93;
    packet.options().any(|option| match option.kind {
        VENDOR_CLASS => option.data.starts_with(b"PXEClient"),
        CLIENT_ARCHITECTURE => true,
        _ => false,
    })
}

/// Whether a datagram begins as a `WireGuard` message does: type 1 to 4, three zero bytes, and the
/// length of that type (whitepaper §5.4). A super-packet of several messages shows only its first.
fn is_wireguard(payload: &[u8]) -> bool {
    match payload {
        [1, 0, 0, 0, ..] => payload.len() == 148,
        [2, 0, 0, 0, ..] => payload.len() == 92,
        [3, 0, 0, 0, ..] => payload.len() == 64,
        [4, 0, 0, 0, ..] => payload.len() >= 32,
        _ => false,
    }
}

/// What UDP port 4500 carries (RFC 3948, section 2): IKE behind four zero bytes, ESP with an SPI that
/// is not zero, or one byte that keeps a NAT awake. ESP with AES-GCM has 8 + 8 + 16 bytes and more; its
/// sequence numbers begin at 1.
fn is_ike_or_esp(payload: &[u8]) -> Option<Kind> {
    match payload {
        [0xff] => Some(Kind::Allowed),
        [0, 0, 0, 0, ike @ ..] => {
            // RFC 7296, section 3.1: version 2.0, and the length of the whole.
            let length = ike.get(24..28)?;
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            (ike[17] == 0x20 && usize::try_from(length) == Ok(ike.len())).then_some(Kind::Allowed)
        }
        esp => {
            let sequence = esp.get(4..8)?;
            let sequence = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            // No test sends so much that a sequence number has its highest byte set.
            (esp.len() >= 32 && (1..1 << 24).contains(&sequence)).then_some(Kind::Tunnel)
        }
    }
}

/// A frame in one line, for people.
pub(super) fn describe(frame: &[u8]) -> String {
    let length = frame.len();
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return format!("{length} bytes");
    };
    let who = format!("{} > {}", ethernet.src_addr(), ethernet.dst_addr());
    let what = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => describe_ipv4(ethernet.payload()),
        EthernetProtocol::Arp => describe_arp(ethernet.payload()),
        other => format!("{other}"),
    };
    format!("{what} ({who}, {length} bytes)")
}

fn describe_arp(bytes: &[u8]) -> String {
    let Ok(arp) = ArpPacket::new_checked(bytes) else {
        return "broken ARP".into();
    };
    let address = |bytes| octets(bytes).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let (from, to) = (
        address(arp.source_protocol_addr()),
        address(arp.target_protocol_addr()),
    );
    format!("ARP {:?} {from} about {to}", arp.operation())
}

fn describe_ipv4(bytes: &[u8]) -> String {
    let Ok(ip) = Ipv4Packet::new_checked(bytes) else {
        return "broken IPv4".into();
    };
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let ports = match ip.next_header() {
        IpProtocol::Udp => UdpPacket::new_checked(ip.payload())
            .ok()
            .map(|p| (p.src_port(), p.dst_port())),
        IpProtocol::Tcp => TcpPacket::new_checked(ip.payload())
            .ok()
            .map(|p| (p.src_port(), p.dst_port())),
        _ => None,
    };
    match ports {
        Some((source, target)) => format!("{} {from}:{source} > {to}:{target}", ip.next_header()),
        None => format!("{} {from} > {to}", ip.next_header()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{arp_frame, udp_frame};

    const NIC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];
    const LENT: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 101);

    fn rules() -> Rules {
        Rules::cafe(&Cafe::default())
    }

    fn ethernet(source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &source, &ethertype.to_be_bytes(), payload].concat()
    }

    fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        udp_frame((NIC, [0xff; 6]), from, to, payload)
    }

    fn arp(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        arp_frame(operation, (NIC, sender), ([0; 6], target))
    }

    #[test]
    fn the_tunnel_is_its_five_tuple_and_its_shape() {
        let from = SocketAddrV4::new(LENT, 40000);
        let sealed = [&[4, 0, 0, 0][..], &[7; 60]].concat();
        assert_eq!(
            classify(&udp(from, at::GATEWAY_OUTSIDE, &sealed), &rules()),
            Kind::Tunnel
        );
        let other = SocketAddrV4::new(*at::GATEWAY_OUTSIDE.ip(), 53);
        assert!(matches!(
            classify(&udp(from, other, &sealed), &rules()),
            Kind::Leak(_)
        ));
        assert!(matches!(
            classify(&udp(from, at::GATEWAY_OUTSIDE, b"hello"), &rules()),
            Kind::Leak(_)
        ));
        assert!(matches!(
            classify(&udp(from, at::GATEWAY_LAN, &sealed), &rules()),
            Kind::Leak(_)
        ));
        let inner = SocketAddrV4::new(at::GUEST, 40000);
        assert!(matches!(
            classify(&udp(inner, at::GATEWAY_OUTSIDE, &sealed), &rules()),
            Kind::Leak(_)
        ));
    }

    #[test]
    fn dns_to_anyone_is_a_leak() {
        let from = SocketAddrV4::new(LENT, 40000);
        for to in [at::DECOY_DNS, at::CAFE_ROUTER, at::LGWAN_DNS] {
            let frame = udp(from, SocketAddrV4::new(to, 53), b"query");
            assert!(matches!(classify(&frame, &rules()), Kind::Leak(_)), "{to}");
        }
    }

    #[test]
    fn arp_is_for_the_next_hop_and_for_the_lent_address() {
        assert_eq!(
            classify(&arp(1, LENT, at::CAFE_ROUTER), &rules()),
            Kind::Allowed
        );
        assert_eq!(
            classify(&arp(1, Ipv4Addr::UNSPECIFIED, LENT), &rules()),
            Kind::Allowed
        );
        assert_eq!(
            classify(&arp(2, LENT, at::CAFE_ROUTER), &rules()),
            Kind::Allowed
        );
        for leak in [
            arp(1, LENT, at::ATTACKER),
            arp(2, at::GUEST, at::ATTACKER),
            arp(1, at::GUEST, at::CAFE_ROUTER),
            arp(2, at::CAFE_ROUTER, at::ATTACKER),
        ] {
            assert!(matches!(classify(&leak, &rules()), Kind::Leak(_)));
        }
    }

    #[test]
    fn what_was_begun_a_moment_ago_may_come_late_and_nothing_of_the_guests() {
        let office = Rules::office().with_direct();
        let late = rules().just_after(&office);
        let lent = SocketAddrV4::new(Ipv4Addr::new(10, 12, 100, 131), 40000);
        let sealed = udp(
            lent,
            at::GATEWAY_OUTSIDE,
            &[&[4, 0, 0, 0][..], &[7; 60]].concat(),
        );
        assert_eq!(classify(&sealed, &late), Kind::Tunnel);
        assert!(matches!(classify(&sealed, &rules()), Kind::Leak(_)));
        let guest = SocketAddrV4::new(at::GUEST, 40000);
        let clear = udp(guest, SocketAddrV4::new(at::LGWAN_NTP, 123), b"what time");
        assert_eq!(classify(&clear, &office), Kind::Direct);
        assert!(matches!(classify(&clear, &late), Kind::Leak(_)));
        let member = ethernet(at::GUEST_MAC, 0x0806, &[0; 28]);
        let late = rules().just_after(&Rules::office().with_member());
        assert_eq!(classify(&member, &late), Kind::Leak("the guest's MAC"));
    }

    #[test]
    fn the_guests_mac_and_ipv6_never_pass() {
        let guest = ethernet(at::GUEST_MAC, 0x0806, &[0; 28]);
        assert_eq!(classify(&guest, &rules()), Kind::Leak("the guest's MAC"));
        assert_eq!(
            classify(&ethernet(NIC, 0x86dd, &[0; 40]), &rules()),
            Kind::Leak("IPv6")
        );
        assert_eq!(
            classify(&ethernet(NIC, 0x888e, &[0; 40]), &rules()),
            Kind::Allowed
        );
        assert!(matches!(classify(&[0; 5], &rules()), Kind::Leak(_)));
    }
}
