//! IPv6: which prefixes a policy may name, and what cannot carry them.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::Check;
use crate::schema::{GatewayProtocol, Policy};
use crate::source::Step::{self, Index, Key};

/// Widest prefix. No government's network is wider than a /20; what is, is a good part of the
/// internet.
const MIN_PREFIX_LEN: u8 = 20;
/// Where unicast addresses of networks lie: global ones (RFC 4291, section 2.5.4; all that is given
/// out so far) and unique local ones (RFC 4193). Outside lie loopback, link-local and multicast, and
/// also what carries an address of IPv4 past the rules for IPv4: mapped (`::ffff:0:0/96`) and
/// translated addresses (`64:ff9b::/96`).
const UNICAST: [(Ipv6Addr, u8); 2] = [
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
];
/// And what inside them does the same: 6to4 (RFC 3056) and Teredo (RFC 4380).
const TUNNELLED: [(Ipv6Addr, u8); 2] = [
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
];

fn overlaps((net, len): (Ipv6Addr, u8), prefix: Ipv6Net) -> bool {
    let net = Ipv6Net::new_assert(net, len);
    net.contains(&prefix) || prefix.contains(&net)
}

impl Check<'_> {
    pub(super) fn prefix_v6(&mut self, path: &[Step<'_>], prefix: Ipv6Net) {
        let unicast = UNICAST
            .iter()
            .any(|&(net, len)| Ipv6Net::new_assert(net, len).contains(&prefix));
        if !unicast {
            self.refuse(
                path,
                format!("{prefix} is no unicast network"),
                format!("{prefix} はユニキャストの網ではありません"),
            );
        } else if prefix.prefix_len() < MIN_PREFIX_LEN {
            self.refuse(
                path,
                format!("{prefix} is wider than /{MIN_PREFIX_LEN}: name the city's own networks"),
                format!(
                    "{prefix} は /{MIN_PREFIX_LEN} より広すぎます。庁内の網だけを書いてください"
                ),
            );
        } else if TUNNELLED.iter().any(|&net| overlaps(net, prefix)) {
            self.refuse(
                path,
                format!("{prefix} has addresses of 6to4 or Teredo, which lead to others of IPv4"),
                format!(
                    "{prefix} は 6to4 または Teredo のアドレスを含みます。別の IPv4 アドレスに通じるため使えません"
                ),
            );
        }
    }

    /// A policy that names networks of IPv6 needs ways that carry it.
    pub(super) fn ipv6(&mut self) {
        let Some(path) = first_ipv6(self.policy) else {
            return;
        };
        let onprem = self.policy.onprem.as_ref();
        if onprem.is_some_and(|onprem| onprem.direct.is_some()) {
            self.refuse(
                &path,
                "`direct` carries IPv4 only: name no IPv6 network, or leave `direct` out of [onprem]",
                "`direct` が運ぶのは IPv4 だけです。IPv6 の網か [onprem] の `direct` を消してください",
            );
        }
        for (index, gateway) in self.policy.vpn.gateway.iter().enumerate() {
            if !matches!(gateway.protocol, GatewayProtocol::Wireguard { .. }) {
                self.refuse(
                    &[Key("vpn"), Key("gateway"), Index(index), Key("kind")],
                    format!(
                        "gateway `{}` is of kind `ikev2` or `tls`, which carries IPv4 only, and a \
                         segment names an IPv6 network",
                        gateway.name
                    ),
                    format!(
                        "ゲートウェイ `{}` は `ikev2` または `tls` で、IPv4 しか運びません。セグメントに IPv6 の網があります",
                        gateway.name
                    ),
                );
            }
        }
    }
}

/// The first prefix of IPv6 among the segments.
fn first_ipv6(policy: &Policy) -> Option<[Step<'_>; 4]> {
    policy.segments.iter().find_map(|(name, segment)| {
        let mut prefixes = segment.prefixes.iter();
        let index = prefixes.position(|net| matches!(net, IpNet::V6(_)))?;
        Some([Key("segments"), Key(name), Key("prefixes"), Index(index)])
    })
}
