//! The city: the gateway, its offices' LAN, LGWAN, and the network that must never be reached.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{ANY, Answer, Hop, Node, Service, net, node};
use crate::address as at;

pub(super) fn gateway() -> Node {
    Node {
        addresses: vec![
            ("wan", net(*at::GATEWAY_OUTSIDE.ip(), 24)),
            ("office", net(*at::GATEWAY_LAN.ip(), 30)),
            ("lgwan", net(Ipv4Addr::new(10, 12, 255, 1), 30)),
            ("mynumber", net(Ipv4Addr::new(10, 99, 255, 1), 30)),
        ],
        routes: vec![
            (net(ANY, 0), Hop::Via(at::INTERNET_ROUTER)),
            (
                net(Ipv4Addr::new(10, 12, 0, 0), 16),
                Hop::Via(Ipv4Addr::new(10, 12, 255, 2)),
            ),
            (
                net(Ipv4Addr::new(10, 12, 100, 0), 24),
                Hop::Via(Ipv4Addr::new(10, 12, 0, 1)),
            ),
            (
                net(*at::BEACON.ip(), 32),
                Hop::Via(Ipv4Addr::new(10, 12, 0, 1)),
            ),
            (
                net(Ipv4Addr::new(10, 99, 0, 0), 16),
                Hop::Via(Ipv4Addr::new(10, 99, 255, 2)),
            ),
        ],
        forwards: true,
        services: vec![Service::WireGuard {
            inner: net(at::GATEWAY_INNER, 24),
            port: at::GATEWAY_OUTSIDE.port(),
        }],
        ..node("gateway", "the municipality's WireGuard peer", (2, 1))
    }
}

pub(super) fn lgwan() -> Node {
    let answer = Service::Answer;
    Node {
        addresses: vec![
            ("core", net(Ipv4Addr::new(10, 12, 255, 2), 30)),
            ("lo", net(at::LGWAN_DNS, 32)),
            ("lo", net(at::LGWAN_NTP, 32)),
            ("lo", net(at::GROUPWARE, 32)),
            ("lo", net(at::COLLECTOR, 32)),
            ("lo", net(at::FILES, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(Ipv4Addr::new(10, 12, 255, 1)))],
        services: vec![
            Service::Dnsmasq(vec![
                format!("listen-address={}", at::LGWAN_DNS),
                format!("host-record={},{}", at::GROUPWARE_NAME, at::GROUPWARE),
                format!("host-record={},{}", at::GROUPWARE_V6_NAME, at::GROUPWARE_V6),
                format!("host-record=files.mihon-city.example,{}", at::FILES),
                "local=/mihon-city.example/".to_owned(),
                "local=/lgwan.example/".to_owned(),
            ]),
            Service::Nginx(GROUPWARE),
            answer(Answer::Ntp(SocketAddrV4::new(at::LGWAN_NTP, 123))),
            answer(Answer::Greeting(
                SocketAddrV4::new(at::FILES, 445),
                "files: office only\r\n",
            )),
            answer(Answer::Discard(SocketAddrV4::new(at::COLLECTOR, 80))),
        ],
        ..node("lgwan", "groupware, DNS, time, files", (3, 0))
    }
}

const GROUPWARE: &str = "
    server {
        listen 10.12.10.5:80;
        root @DIR@/groupware;
        default_type text/plain;
        set $pace 0;
        if ($arg_rate) { set $pace $arg_rate; }
        location = /download { limit_rate $pace; }
        location / { index page.txt; }
    }";

pub(super) fn my_number() -> Node {
    let web = |port| {
        let page = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nMy Number: you must not be here\r\n";
        Service::Answer(Answer::Greeting(
            SocketAddrV4::new(at::MY_NUMBER, port),
            page,
        ))
    };
    Node {
        addresses: vec![
            ("core", net(Ipv4Addr::new(10, 99, 255, 2), 30)),
            ("lo", net(at::MY_NUMBER, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(Ipv4Addr::new(10, 99, 255, 1)))],
        services: vec![web(80), web(443)],
        ..node("mynumber", "the network that must never be reached", (3, 1))
    }
}

pub(super) fn office() -> Node {
    let pool = (
        Ipv4Addr::new(10, 12, 100, 100),
        Ipv4Addr::new(10, 12, 100, 150),
    );
    Node {
        addresses: vec![
            ("lan", net(at::OFFICE_ROUTER, 24)),
            ("core", net(Ipv4Addr::new(10, 12, 0, 1), 30)),
            ("lo", net(*at::BEACON.ip(), 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Via(*at::GATEWAY_LAN.ip()))],
        forwards: true,
        services: vec![
            Service::Dnsmasq(vec![
                "interface=lan".to_owned(),
                format!("dhcp-range={},{},255.255.255.0,1h", pool.0, pool.1),
                format!(
                    "dhcp-host={},{}",
                    at::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":"),
                    at::GUEST_IN_OFFICE
                ),
                format!("dhcp-option=option:router,{}", at::OFFICE_ROUTER),
                format!("dhcp-option=option:dns-server,{}", at::LGWAN_DNS),
            ]),
            Service::Nginx(BEACON),
        ],
        ..node("office", "wired LAN of the city hall", (1, 1))
    }
}

const BEACON: &str = "
    server {
        listen 10.12.0.200:8443 ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate @DIR@/beacon.pem;
        ssl_certificate_key @DIR@/beacon.key;
        location = /sekisho-beacon { default_type text/plain; return 200 $arg_nonce; }
    }";
