//! What the guest may send over the office LAN without a tunnel: word for word the flows of the lab's
//! policy ([`crate::Papers::policy_with_direct`]), written down a second time.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet};

use super::Rules;
use crate::address as at;

/// A flow: protocol, the servers' prefix, and their ports; none for ICMP.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    protocol: IpProtocol,
    servers: (Ipv4Addr, u8),
    ports: &'static [u16],
    /// The peers open it, and the ports are the guest's.
    inbound: bool,
}

/// What a member of the LAN may besides: [`crate::Papers::policy_with_bridged`].
const MEMBER: &[Admitted] = &[
    FLOWS[0],
    FLOWS[1],
    FLOWS[2],
    FLOWS[3],
    FLOWS[4],
    Admitted {
        protocol: IpProtocol::Tcp,
        servers: (at::OFFICE_PRINTER, 32),
        ports: &[9100],
        inbound: false,
    },
    Admitted {
        protocol: IpProtocol::Tcp,
        servers: (at::OFFICE_PRINTER, 32),
        ports: &[5900],
        inbound: true,
    },
];

const FLOWS: &[Admitted] = &[
    Admitted {
        protocol: IpProtocol::Tcp,
        servers: (Ipv4Addr::new(10, 12, 10, 0), 24),
        ports: &[80, 443],
        inbound: false,
    },
    Admitted {
        protocol: IpProtocol::Icmp,
        servers: (Ipv4Addr::new(10, 12, 10, 0), 24),
        ports: &[],
        inbound: false,
    },
    Admitted {
        protocol: IpProtocol::Udp,
        servers: (at::LGWAN_NTP, 32),
        ports: &[123],
        inbound: false,
    },
    Admitted {
        protocol: IpProtocol::Tcp,
        servers: (Ipv4Addr::new(10, 12, 30, 0), 24),
        ports: &[445],
        inbound: false,
    },
    // The gate's own questions for the guest.
    Admitted {
        protocol: IpProtocol::Udp,
        servers: (at::LGWAN_DNS, 32),
        ports: &[53],
        inbound: false,
    },
];

impl Admitted {
    /// Whether a packet of the guest's belongs to the flow.
    pub(super) fn carries(&self, ip: &Ipv4Packet<&[u8]>) -> bool {
        self.is_between(ip, ip.dst_addr(), if self.inbound { 0 } else { 2 })
    }

    /// Whether a packet to the guest does.
    fn answers(&self, ip: &Ipv4Packet<&[u8]>) -> bool {
        self.is_between(ip, ip.src_addr(), if self.inbound { 2 } else { 0 })
    }

    /// `at`: where the server's port stands in the transport header.
    fn is_between(&self, ip: &Ipv4Packet<&[u8]>, server: Ipv4Addr, at: usize) -> bool {
        let (prefix, length) = self.servers;
        let inside = crate::topology::net(prefix, length).contains(&server);
        let port = ip.payload().get(at..at + 2);
        let port = port.map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let fits = self.ports.is_empty() || port.is_some_and(|port| self.ports.contains(&port));
        ip.next_header() == self.protocol && inside && fits
    }
}

impl Rules {
    /// The guest's packets may be here without a tunnel.
    #[must_use]
    pub fn with_direct(mut self) -> Self {
        self.direct = Some(FLOWS);
        self
    }

    /// The same, with the guest's own MAC and the LAN's address.
    #[must_use]
    pub fn with_member(mut self) -> Self {
        self.member = Some(at::GUEST_IN_OFFICE);
        self.direct = Some(MEMBER);
        self
    }

    /// The guest's address here.
    pub(super) fn guest(&self) -> Ipv4Addr {
        self.member.unwrap_or(at::GUEST)
    }

    /// Whether a packet from the one address that both have is the laptop's own: by whom it is for.
    pub(super) fn is_own(&self, ip: &Ipv4Packet<&[u8]>) -> bool {
        let port = |at: usize| {
            let bytes = ip.payload().get(at..at + 2);
            bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        let to = SocketAddrV4::new(ip.dst_addr(), port(2));
        let gateway = self.tunnel.contains(&to) && ip.next_header() == IpProtocol::Udp;
        let beacon = self.beacon == Some(to) && ip.next_header() == IpProtocol::Tcp;
        let renewal = ip.next_header() == IpProtocol::Udp && port(0) == 68 && to.port() == 67;
        self.member.is_some() && (gateway || beacon || renewal)
    }

    /// Whether a frame carries a packet of the guest's, from it or to it, that is at home here.
    pub(super) fn carries(&self, frame: &[u8]) -> bool {
        let Some(flows) = self.direct else {
            return false;
        };
        let packet = EthernetFrame::new_checked(frame)
            .ok()
            .filter(|ethernet| ethernet.ethertype() == EthernetProtocol::Ipv4)
            .and_then(|_| Ipv4Packet::new_checked(frame.get(14..)?).ok());
        packet.is_some_and(|ip| {
            let guest = self.guest();
            let sent = ip.src_addr() == guest && flows.iter().any(|f| f.carries(&ip));
            let got = ip.dst_addr() == guest && flows.iter().any(|f| f.answers(&ip));
            sent || got
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, classify};
    use super::*;
    use crate::packet::{tcp_syn_frame, udp_frame};

    const NIC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

    #[test]
    fn what_policy_allows_is_at_home_and_nothing_else() {
        let rules = Rules::office().with_direct();
        let guest = SocketAddrV4::new(at::GUEST, 40_000);
        let to = |address, port| SocketAddrV4::new(address, port);
        let time = udp_frame((NIC, [4; 6]), guest, to(at::LGWAN_NTP, 123), b"what time");
        assert_eq!(classify(&time, &rules), Kind::Direct);
        assert!(rules.carries(&time));
        assert!(!Rules::office().carries(&time));
        assert!(matches!(classify(&time, &Rules::office()), Kind::Leak(_)));
        let files = tcp_syn_frame((NIC, [4; 6]), guest, to(at::FILES, 445), b"");
        assert_eq!(classify(&files, &rules), Kind::Direct);
        for (server, port) in [
            (at::FILES, 139),
            (at::MY_NUMBER, 80),
            (at::DECOY_WEB, 443),
            (at::OFFICE_ROUTER, 80),
        ] {
            let other = tcp_syn_frame((NIC, [4; 6]), guest, to(server, port), b"");
            assert!(
                matches!(classify(&other, &rules), Kind::Leak(_)),
                "{server}"
            );
            assert!(!rules.carries(&other));
        }
        // A member has another address and its own MAC, and no other.
        let rules = Rules::office().with_member();
        let member = SocketAddrV4::new(at::GUEST_IN_OFFICE, 40_000);
        let time = to(at::LGWAN_NTP, 123);
        let frame = |from| udp_frame((at::GUEST_MAC, [4; 6]), from, time, b"what time");
        assert_eq!(classify(&frame(member), &rules), Kind::Direct);
        assert!(rules.carries(&frame(member)) && !rules.carries(&frame(guest)));
        assert!(matches!(classify(&frame(guest), &rules), Kind::Leak(_)));
        let files = to(at::FILES, 139);
        let other = tcp_syn_frame((at::GUEST_MAC, [4; 6]), member, files, b"");
        assert!(matches!(classify(&other, &rules), Kind::Leak(_)));
        let rules = Rules::office().with_direct();
        let own_mac = udp_frame((at::GUEST_MAC, [4; 6]), guest, to(at::LGWAN_NTP, 123), b"");
        assert_eq!(classify(&own_mac, &rules), Kind::Leak("the guest's MAC"));
    }
}
