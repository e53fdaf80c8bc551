//! The internet: decoys that a laptop of ours must never speak to, and a sink for every other address.

use super::{ANY, Answer, Hop, Node, Service, net, node as empty};
use crate::address as at;

pub(super) fn node() -> Node {
    Node {
        switches: vec!["exchange"],
        addresses: vec![
            ("exchange", net(at::INTERNET_ROUTER, 24)),
            ("lo", net(at::DECOY_DNS, 32)),
            ("lo", net(at::DECOY_WEB, 32)),
        ],
        routes: vec![(net(ANY, 0), Hop::Myself)],
        rules: Some(
            "table ip sink {
                chain in {
                    type nat hook prerouting priority dstnat
                    ip daddr 203.0.113.0/24 accept
                    ip daddr 198.51.100.53 meta l4proto { tcp, udp } th dport 53 accept
                    ip daddr 198.51.100.53 tcp dport { 443, 853 } accept
                    ip daddr 198.51.100.80 tcp dport { 80, 443 } accept
                    meta l4proto { tcp, udp } redirect to :9
                }
            }",
        ),
        services: vec![
            Service::Dnsmasq(vec![
                format!("listen-address={}", at::DECOY_DNS),
                format!("address=/#/{}", at::DECOY_WEB),
            ]),
            Service::Nginx(DECOYS),
            Service::Answer(Answer::Sink),
        ],
        ..empty(
            "internet",
            "decoys, and a sink for every other address",
            (2, 0),
        )
    }
}

/// The public resolver is one by name only: that TLS is answered at all is what a test looks for.
const DECOYS: &str = "
    ssl_certificate @DIR@/decoy.pem;
    ssl_certificate_key @DIR@/decoy.key;
    server {
        listen 198.51.100.53:443 ssl;
        listen 198.51.100.53:853 ssl;
        listen 198.51.100.80:443 ssl;
        listen 198.51.100.80:80;
        location / { default_type text/plain; return 200 'a public server: you should not be here\\n'; }
    }";
