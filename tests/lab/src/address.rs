//! The lab's addresses, in one place. All are private or documentation ranges (RFC 1918, RFC 5737, RFC 3849)
//! and exist inside the lab's namespaces only.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Router, resolver and DHCP server of the cafe.
pub const CAFE_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 1);
/// The seat from which an attacker works on the cafe's LAN.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 66);
/// The cafe's address on the internet side; its LAN is translated to it.
pub const CAFE_OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 43);
/// The internet's router.
pub const INTERNET_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Where the gateway is reached from the internet.
pub const GATEWAY_OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 51820);
/// Where the gateway takes TLS, for networks that carry nothing else.
pub const GATEWAY_TLS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
/// Where the gateway takes IKE and ESP in UDP.
pub const GATEWAY_IKE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 4500);
/// The name that it proves to have there.
pub const GATEWAY_NAME: &str = "vpn1.mihon-city.example";
/// Where the gateway is reached from the office LAN.
pub const GATEWAY_LAN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 12, 0, 2), 51820);
/// A public resolver (plain, over TLS, over HTTPS) that must never hear from the laptop.
pub const DECOY_DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// A public web server that must never hear from the laptop.
pub const DECOY_WEB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// Resolver of the LGWAN side.
pub const LGWAN_DNS: Ipv4Addr = Ipv4Addr::new(10, 12, 0, 53);
/// Time server of the LGWAN side.
pub const LGWAN_NTP: Ipv4Addr = Ipv4Addr::new(10, 12, 0, 123);
/// Groupware: a page at `/`, a long body at `/download?rate=BYTES_A_SECOND`.
pub const GROUPWARE: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 5);
/// Port 80 takes whatever is sent and throws it away (uploads).
pub const COLLECTOR: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 6);
/// File server, TCP 445, open to the office only.
pub const FILES: Ipv4Addr = Ipv4Addr::new(10, 12, 30, 4);
/// A server of the My Number network, which must never be reached.
pub const MY_NUMBER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Router, resolver and DHCP server of the office LAN.
pub const OFFICE_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 12, 100, 1);
/// The premises beacon.
pub const BEACON: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 12, 0, 200), 8443);
/// The gateway's own address inside the tunnel.
pub const GATEWAY_INNER: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 254);
/// What the guest takes for its router: the gate itself.
pub const GUEST_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 1);
/// The laptop's address inside the tunnel, and so the guest's.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
/// A printer on the office LAN, which also looks at PCs there.
pub const OFFICE_PRINTER: Ipv4Addr = Ipv4Addr::new(10, 12, 100, 20);
/// The address that the office's DHCP server keeps for the guest's MAC.
pub const GUEST_IN_OFFICE: Ipv4Addr = Ipv4Addr::new(10, 12, 100, 70);
/// The laptop's address of IPv6 inside the tunnel, where policy names networks of IPv6.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x250, 7, 0, 0, 0, 0x23);
/// A server of the LGWAN side that only IPv6 leads to, and its name.
pub const GROUPWARE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0x10, 0, 0, 0, 5);
/// Its name there.
pub const GROUPWARE_V6_NAME: &str = "six.mihon-city.example";
/// The guest's MAC.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
/// MTU inside the tunnel.
pub const INNER_MTU: u16 = 1420;
/// Name of the groupware server on the LGWAN side.
pub const GROUPWARE_NAME: &str = "groupware.mihon-city.example";
/// The laptop's interface on the cafe wire.
pub const ETH0: &str = "eth0";
/// The laptop's interface on the office wire.
pub const ETH1: &str = "eth1";
