//! What unit tests of the gate share: a signed policy and a situation with a way out.

use std::net::Ipv4Addr;
use std::time::Duration;

use sekisho_control::{PathId, Place, Side, UplinkKind};
use sekisho_policy::{Admission, Clock, Floor, Policy, PrivateKey, Trust, Verified, verify};

use super::admit::{Gatekeeper, Terms};
use super::situation::{GatewayId, Situation};
use crate::moment::Moment;

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 250, 7, 23);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 12, 10, 5);
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 12, 0, 53);
pub(crate) const MTU: u16 = 1420;

const POLICY: &str = r#"
schema = 1
[policy]
id = "jp.mihon-city"
version = 1
issued = "2026-01-01T00:00:00+09:00"
expires = "2099-01-01T00:00:00+09:00"
[segments.lgwan]
prefixes = ["10.12.0.0/16"]
dns = ["10.12.0.53"]
domains = ["mihon-city.example"]
[forbidden]
prefixes = ["10.99.0.0/16"]
reason = "forbidden"
[[flow]]
id = "groupware"
to = { segment = "lgwan", hosts = ["10.12.10.0/24"] }
tcp = ["1-65535"]
udp = ["1-65535"]
icmp = true
[[flow]]
id = "files"
to = { segment = "lgwan", hosts = ["10.12.30.0/24"] }
tcp = [445]
places = ["onprem"]
[[flow]]
id = "inventory"
from = { segment = "lgwan", hosts = ["10.12.0.70/32"] }
tcp = [135]
[[uplink]]
kind = "wired"
rank = 1
[vpn]
kill_switch = "always"
[[vpn.gateway]]
name = "honcho"
kind = "wireguard"
address = "203.0.113.10:51820"
public_key = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
uplinks = ["wired"]
"#;

pub(crate) fn policy() -> Verified<Policy> {
    let key = PrivateKey::from_seed(&[3; 32]);
    let trust = Trust::parse(&key.public_pem()).unwrap();
    let signature = key.sign(POLICY.as_bytes()).to_file();
    let clock = Clock::system(Floor::default());
    verify(POLICY.as_bytes(), signature.as_bytes(), &trust, &clock).unwrap()
}

pub(crate) fn gatekeeper() -> Gatekeeper {
    let terms = Terms {
        address: GUEST,
        mtu: MTU,
        resolvers: vec![RESOLVER],
    };
    Gatekeeper::new(Admission::compile(&policy()), terms, at(0))
}

pub(crate) const fn tunnelled(place: Place) -> Situation {
    Situation::Tunnelled {
        gateway: GatewayId(0),
        path: PathId(1),
        kind: UplinkKind::Wired,
        side: Side::Outside,
        place,
    }
}

pub(crate) const fn at(seconds: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(seconds))
}

/// An IPv4 packet with correct checksums, TCP flags and options as given.
pub(crate) fn tcp(
    (from, from_port): (Ipv4Addr, u16),
    (to, to_port): (Ipv4Addr, u16),
    (sequence, acknowledgement): (u32, u32),
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket};
    assert!(options.len().is_multiple_of(4));
    let header = 20 + options.len();
    let total = 20 + header + payload.len();
    let mut bytes = vec![0; total];
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(u16::try_from(total).unwrap());
    ip.set_ident(0x1234);
    ip.set_dont_frag(true);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Tcp);
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    ip.fill_checksum();
    let body = &mut bytes[20..];
    body[0..2].copy_from_slice(&from_port.to_be_bytes());
    body[2..4].copy_from_slice(&to_port.to_be_bytes());
    body[4..8].copy_from_slice(&sequence.to_be_bytes());
    body[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    body[12] = u8::try_from(header / 4).unwrap() << 4;
    body[13] = flags;
    body[14..16].copy_from_slice(&4000u16.to_be_bytes());
    body[20..header].copy_from_slice(options);
    body[header..].copy_from_slice(payload);
    TcpPacket::new_unchecked(body).fill_checksum(&from.into(), &to.into());
    bytes
}
