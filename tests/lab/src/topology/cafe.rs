//! A stranger's LAN: its router, as its owner or an attacker has set it up, and a stranger's seat.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{ANY, Hop, Node, Service, net, node};
use crate::address as at;

/// The cafe's LAN, as its owner (or an attacker) has set it up.
#[derive(Debug, Clone)]
pub struct Cafe {
    /// The router's address with the LAN's prefix.
    pub router: Ipv4Net,
    /// First and last address that DHCP lends.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Further lines for dnsmasq: an attacker's DHCP options and false names.
    pub extra: Vec<String>,
    /// The router forwards no UDP: a network that carries the web and nothing else.
    pub blocks_udp: bool,
    /// The router forwards no datagrams to `WireGuard`'s port.
    pub blocks_wireguard: bool,
}

impl Default for Cafe {
    fn default() -> Self {
        Self {
            router: net(at::CAFE_ROUTER, 24),
            pool: (
                Ipv4Addr::new(192, 168, 43, 100),
                Ipv4Addr::new(192, 168, 43, 150),
            ),
            extra: Vec::new(),
            blocks_udp: false,
            blocks_wireguard: false,
        }
    }
}

/// Rules for the cafe's router. The lab's internet answers for every address; one like any other carries
/// no private ones (RFC 1918).
pub const PUBLIC_ONLY: &str = "table ip public {
    chain pass {
        type filter hook forward priority filter;
        iifname lan ip daddr 10.0.0.0/8 drop
    };
}";

pub(super) fn router(cafe: &Cafe) -> Node {
    let router = cafe.router.addr();
    let mut dnsmasq = vec![
        "interface=lan".to_owned(),
        format!(
            "dhcp-range={},{},{},1h",
            cafe.pool.0,
            cafe.pool.1,
            cafe.router.netmask()
        ),
        format!("dhcp-option=option:router,{router}"),
        format!("dhcp-option=option:dns-server,{router}"),
        "dhcp-option=option:domain-name,cafe.example".to_owned(),
        format!("server={}", at::DECOY_DNS),
    ];
    dnsmasq.extend(cafe.extra.iter().cloned());
    Node {
        addresses: vec![("lan", cafe.router), ("wan", net(at::CAFE_OUTSIDE, 24))],
        routes: vec![(net(ANY, 0), Hop::Via(at::INTERNET_ROUTER))],
        forwards: true,
        rules: Some(if cafe.blocks_udp {
            "table ip cafe {
                chain through {
                    type filter hook forward priority filter
                    meta l4proto udp drop
                }
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        } else if cafe.blocks_wireguard {
            "table ip cafe {
                chain through {
                    type filter hook forward priority filter
                    udp dport 51820 drop
                }
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        } else {
            "table ip cafe {
                chain out {
                    type nat hook postrouting priority srcnat
                    oifname wan masquerade
                }
            }"
        }),
        services: vec![Service::Dnsmasq(dnsmasq)],
        ..node("cafe", "router of a stranger's LAN", (1, 0))
    }
}

pub(super) fn attacker(cafe: &Cafe) -> Node {
    // The seat keeps its place in the LAN even where the LAN's prefix is itself the attack.
    let address = if cafe.router.contains(&at::ATTACKER) {
        net(at::ATTACKER, cafe.router.prefix_len())
    } else {
        net(
            Ipv4Addr::from(u32::from(cafe.router.addr()) + 1),
            cafe.router.prefix_len(),
        )
    };
    Node {
        addresses: vec![("lan", address)],
        routes: vec![(net(ANY, 0), Hop::Via(cafe.router.addr()))],
        ..node("attacker", "a stranger's laptop in the cafe", (0, 0))
    }
}
