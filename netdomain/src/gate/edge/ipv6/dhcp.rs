//! The `DHCPv6` server of the guest's network: a pure function of the device file (RFC 8415).
//!
//! There is one client and one address, as with DHCP for IPv4: whoever asks gets the same lease,
//! before and after the gate was restarted. The resolver is the one of IPv4.

use std::net::Ipv6Addr;

use sekisho_framelink::NetHdr;
use smoltcp::wire::{IpProtocol, Ipv6Packet, UdpPacket};

use super::{GATE, is_guests, is_whole};
use crate::gate::admit::Rule;
use crate::gate::edge::reply::{Reply, UDP_HEADER};
use crate::gate::edge::{ETHERNET_HEADER, Edge, GATE_MAC, Outcome};
use crate::gate::packet::IPV6_HEADER;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All relay agents and servers (RFC 8415, section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const UDP_CHECKSUM: u16 = 6;
/// A week, as the lease of IPv4; the guest asks again after half of it.
const VALID: u32 = 7 * 24 * 3600;
const RENEW: u32 = VALID / 2;
const REBIND: u32 = VALID / 5 * 4;
const HOP_LIMIT: u8 = 64;

/// Options (RFC 8415, section 21).
mod code {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID: u16 = 14;
}

/// Status codes (RFC 8415, section 21.13).
const SUCCESS: [u8; 2] = [0, 0];
const NO_ADDRESS: [u8; 2] = [0, 2];
const NOT_ON_LINK: [u8; 2] = [0, 4];

/// Type, transaction.
const HEADER: usize = 4;
/// The longest identifier of a client (RFC 8415, section 11.1).
const MAX_CLIENT: usize = 130;
/// Identity associations that are answered, and former addresses in one. A client has one of each.
const MAX_IDENTITIES: usize = 4;
const MAX_FORMER: usize = 4;
/// The server's identifier: of its link-layer address (RFC 8415, section 11.4), on Ethernet.
const SERVER_ID: [u8; 10] = {
    let mac = GATE_MAC.0;
    [0, 3, 0, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
};
/// The longest answer: header, identifiers, the association with its address and former ones, others
/// that get nothing, rapid commit, a status.
const MAX_ANSWER: usize = HEADER
    + (4 + MAX_CLIENT)
    + (4 + SERVER_ID.len())
    + (4 + 12 + (1 + MAX_FORMER) * (4 + 24))
    + MAX_IDENTITIES * (4 + 12 + 4 + 2)
    + 4
    + (4 + 2);

/// Messages of a client (RFC 8415, section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
}

impl Kind {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Solicit,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::Information,
            _ => return None,
        })
    }

    /// Whether it must name the server that it is for, must not, or may (RFC 8415, section 16).
    const fn names_server(self) -> Option<bool> {
        match self {
            Self::Request | Self::Renew | Self::Release | Self::Decline => Some(true),
            Self::Solicit | Self::Confirm | Self::Rebind => Some(false),
            Self::Information => None,
        }
    }
}

/// A client's identity association for an address.
#[derive(Debug, Clone, Copy)]
struct Identity<'a> {
    id: [u8; 4],
    options: &'a [u8],
}

/// A client's message.
struct Request<'a> {
    kind: Kind,
    transaction: [u8; 3],
    client: &'a [u8],
    server: Option<&'a [u8]>,
    rapid: bool,
    identities: [Option<Identity<'a>>; MAX_IDENTITIES],
}

impl<'a> Request<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let (&[number, a, b, c], rest) = message.split_first_chunk::<HEADER>()?;
        let mut request = Self {
            kind: Kind::of(number)?,
            transaction: [a, b, c],
            client: &[],
            server: None,
            rapid: false,
            identities: [None; MAX_IDENTITIES],
        };
        let mut options = Options(rest);
        let mut count = 0;
        while let Some((code, data)) = options.next()? {
            match code {
                code::CLIENT if request.client.is_empty() => request.client = data,
                code::SERVER if request.server.is_none() => request.server = Some(data),
                code::CLIENT | code::SERVER => return None,
                code::RAPID => request.rapid = true,
                code::IA_NA => {
                    let (id, rest) = data.split_first_chunk()?;
                    let options = rest.get(8..)?;
                    if let Some(place) = request.identities.get_mut(count) {
                        *place = Some(Identity { id: *id, options });
                    }
                    count += 1;
                }
                _ => {}
            }
        }
        let nameless = request.kind == Kind::Information && request.client.is_empty();
        let named = (3..=MAX_CLIENT).contains(&request.client.len());
        let server_fits = match request.kind.names_server() {
            Some(needed) => request.server.is_some() == needed,
            None => true,
        };
        ((named || nameless) && server_fits).then_some(request)
    }
}

/// Options, one after the other.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// The next one; `None` if what is left is none.
    #[expect(clippy::option_option, reason = "broken, over, or one more")]
    fn next(&mut self) -> Option<Option<(u16, &'a [u8])>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let (&[a, b, c, d], rest) = self.0.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([c, d]));
        let (data, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(Some((u16::from_be_bytes([a, b]), data)))
    }
}

/// An answer while it is written.
struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
}

impl Answer {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn head(&mut self, code: u16, len: usize) {
        self.put(&code.to_be_bytes());
        self.put(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    }

    fn option(&mut self, code: u16, data: &[u8]) {
        self.head(code, data.len());
        self.put(data);
    }

    /// An address, for so many seconds.
    fn address(&mut self, address: Ipv6Addr, seconds: u32) {
        self.head(code::ADDRESS, 24);
        self.put(&address.octets());
        self.put(&seconds.to_be_bytes());
        self.put(&seconds.to_be_bytes());
    }
}

impl Edge {
    /// A datagram to the gate or to many.
    pub(super) fn dhcpv6(
        &self,
        own: Ipv6Addr,
        header: &NetHdr,
        ip: &Ipv6Packet<&[u8]>,
        reply: &mut Reply,
    ) -> Outcome {
        let body = ip.payload();
        let (Ok(udp), source) = (UdpPacket::new_checked(body), ip.src_addr()) else {
            return Outcome::Refused(Rule::Malformed);
        };
        if usize::from(udp.len()) != body.len() {
            return Outcome::Refused(Rule::Malformed);
        }
        // A DHCPv6 server's answer: the guest plays one (T38).
        if udp.src_port() == SERVER_PORT {
            return Outcome::Refused(Rule::Impostor);
        }
        let for_server = udp.dst_port() == SERVER_PORT && [SERVERS, GATE].contains(&ip.dst_addr());
        if !for_server || udp.src_port() != CLIENT_PORT || !is_guests(source, own) {
            return Outcome::Refused(Rule::NotServed);
        }
        let sound = if header.needs_csum() {
            usize::from(header.csum_start) == ETHERNET_HEADER + IPV6_HEADER
                && header.csum_offset == UDP_CHECKSUM
        } else {
            is_whole(ip)
        };
        let request = Request::parse(udp.payload()).filter(|_| sound);
        let Some(request) = request else {
            return Outcome::Refused(Rule::Malformed);
        };
        // Meant for another server, which there is not: silence, as the RFC asks.
        if request.server.is_none_or(|server| server == SERVER_ID)
            && let Some(answer) = answer(&request, own)
        {
            self.send_datagram(source, &answer.bytes[..answer.len], reply);
        }
        Outcome::Done
    }

    fn send_datagram(&self, to: Ipv6Addr, payload: &[u8], reply: &mut Reply) {
        let len = UDP_HEADER + payload.len();
        let how = (IpProtocol::Udp, HOP_LIMIT);
        reply.ipv6(self, (GATE, to), how, len, |body| {
            body[UDP_HEADER..].copy_from_slice(payload);
            let mut udp = UdpPacket::new_unchecked(body);
            udp.set_src_port(SERVER_PORT);
            udp.set_dst_port(CLIENT_PORT);
            udp.set_len(u16::try_from(len).unwrap_or(u16::MAX));
            udp.fill_checksum(&GATE.into(), &to.into());
        });
    }
}

/// What a message is answered with (RFC 8415, section 18.3); `None`: nothing.
fn answer(request: &Request<'_>, own: Ipv6Addr) -> Option<Answer> {
    const ADVERTISE: u8 = 2;
    const REPLY: u8 = 7;
    let at_once = request.kind == Kind::Solicit && request.rapid;
    let number = if request.kind == Kind::Solicit && !at_once {
        ADVERTISE
    } else {
        REPLY
    };
    let mut answer = Answer {
        bytes: [0; MAX_ANSWER],
        len: 0,
    };
    answer.put(&[number]);
    answer.put(&request.transaction);
    if !request.client.is_empty() {
        answer.option(code::CLIENT, request.client);
    }
    answer.option(code::SERVER, &SERVER_ID);
    if at_once {
        answer.option(code::RAPID, &[]);
    }
    match request.kind {
        Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind => {
            lease(request, own, &mut answer)?;
        }
        Kind::Confirm => {
            let mut any = false;
            let mut all = true;
            for identity in request.identities.iter().flatten() {
                for address in addresses(identity.options)?.into_iter().flatten() {
                    any = true;
                    all &= address == own;
                }
            }
            if !any {
                return None;
            }
            let status = if all { SUCCESS } else { NOT_ON_LINK };
            answer.option(code::STATUS, &status);
        }
        // A release frees nothing, a decline changes nothing: there is no other address.
        Kind::Release | Kind::Decline => answer.option(code::STATUS, &SUCCESS),
        Kind::Information => {}
    }
    Some(answer)
}

/// The first association has the address, and is told that its former ones are over; there is none for
/// the others.
fn lease(request: &Request<'_>, own: Ipv6Addr, answer: &mut Answer) -> Option<()> {
    for (index, identity) in request.identities.iter().flatten().enumerate() {
        if index > 0 {
            answer.head(code::IA_NA, 12 + 4 + NO_ADDRESS.len());
            answer.put(&identity.id);
            answer.put(&[0; 8]);
            answer.option(code::STATUS, &NO_ADDRESS);
            continue;
        }
        let held = matches!(request.kind, Kind::Renew | Kind::Rebind);
        let named = addresses(identity.options)?;
        let former = named.into_iter().flatten();
        let former = former.filter(|address| held && *address != own);
        let count = 1 + former.clone().count();
        answer.head(code::IA_NA, 12 + count * (4 + 24));
        answer.put(&identity.id);
        answer.put(&RENEW.to_be_bytes());
        answer.put(&REBIND.to_be_bytes());
        answer.address(own, VALID);
        for address in former {
            answer.address(address, 0);
        }
    }
    Some(())
}

/// The addresses that an association names, as many as are looked at; `None` if an option is broken.
fn addresses(options: &[u8]) -> Option<[Option<Ipv6Addr>; MAX_FORMER]> {
    let mut found = [None; MAX_FORMER];
    let mut places = found.iter_mut();
    let mut options = Options(options);
    while let Some((code, data)) = options.next()? {
        if code == code::ADDRESS {
            let octets: &[u8; 16] = data.first_chunk()?;
            if let Some(place) = places.next() {
                *place = Some((*octets).into());
            }
        }
    }
    Some(found)
}
