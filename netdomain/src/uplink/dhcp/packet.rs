//! DHCP messages as whole Ethernet frames: written and read in one place, no state.

use std::net::Ipv4Addr;

use sekisho_control::LanMember;
use smoltcp::{
    phy::{Checksum, ChecksumCapabilities},
    wire::{
        DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket,
        DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress,
        IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
    },
};

/// Options that we ask for: subnet mask, router, and whether there is a captive portal (RFC 8910:
/// most servers tell only who asks). Servers send lease time and server identifier unasked.
const WANTED: [u8; 3] = [OPTION_MASK, OPTION_ROUTER, OPTION_PORTAL];
const OPTION_MASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_HOST: u8 = 12;
const OPTION_CLASS: u8 = 60;
const OPTION_LEASE_TIME: u8 = 51;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER: u8 = 54;
const OPTION_PORTAL: u8 = 114;
/// What a network without a portal says in its place (RFC 8910, section 2).
const NO_PORTAL: &[u8] = b"urn:ietf:params:capport:unrestricted";
/// Options that are part of the protocol itself and no news: requested address, overload, message,
/// T1, T2, client identifier, relay information.
const HARMLESS: [u8; 8] = [28, 50, 52, 56, 58, 59, 61, 82];

/// Length of a BOOTP message (RFC 951); some servers and relays drop shorter ones.
const MESSAGE: usize = 300;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// One hop to the server or the relay is enough on a LAN, but relays may route a unicast renewal.
const HOP_LIMIT: u8 = 64;

/// An address option may carry a list; more options than this in one message are not looked at.
/// A message of 1500 bytes has room for some 600 empty ones.
const MAX_OPTIONS: usize = 64;

/// What the client wants to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: RequestKind,
    pub(super) xid: u32,
    /// Seconds since the exchange began.
    pub(super) secs: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestKind {
    Discover,
    /// Takes up an offer.
    Select {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// Prolongs a lease with its server; the frame goes to the MAC that the lease came from.
    Renew {
        address: Ipv4Addr,
        server: Ipv4Addr,
        mac: [u8; 6],
    },
    /// Prolongs a lease with whoever answers.
    Rebind {
        address: Ipv4Addr,
    },
    /// Gives back an address that somebody else has.
    Decline {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

/// What a server said to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: ReplyKind,
    pub(super) xid: u32,
    /// The address it offers or grants.
    pub(super) address: Ipv4Addr,
    pub(super) server: Ipv4Addr,
    pub(super) mask: Option<Ipv4Addr>,
    pub(super) router: Option<Ipv4Addr>,
    /// Seconds.
    pub(super) lease: Option<u32>,
    /// Where the frame came from.
    pub(super) mac: [u8; 6],
    /// The network says that it has a captive portal. Where it is, is not looked at.
    pub(super) portal: bool,
    /// Codes of the options that were not asked for and are not taken, in order, each once.
    pub(super) ignored: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyKind {
    Offer,
    Ack,
    Nak,
}

/// The UDP checksum is not looked at: on virtual links an offloading sender leaves it unfinished,
/// and on a wire the Ethernet frame check covers the same bytes. An attacker could compute it.
fn checksums() -> ChecksumCapabilities {
    let mut capabilities = ChecksumCapabilities::default();
    capabilities.udp = Checksum::Tx;
    capabilities
}

/// Reads a frame. `None` for whatever is not a well-formed DHCP reply to this MAC.
pub(super) fn read(frame: &[u8], mac: [u8; 6]) -> Option<Reply> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let from = ethernet.src_addr();
    if !from.is_unicast() {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let ip_repr = Ipv4Repr::parse(&ip, &checksums()).ok()?;
    if ip_repr.next_header != IpProtocol::Udp || ip.frag_offset() != 0 || ip.more_frags() {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let ports = UdpRepr::parse(
        &udp,
        &IpAddress::Ipv4(ip_repr.src_addr),
        &IpAddress::Ipv4(ip_repr.dst_addr),
        &checksums(),
    )
    .ok()?;
    if (ports.src_port, ports.dst_port) != (DHCP_SERVER_PORT, DHCP_CLIENT_PORT) {
        return None;
    }
    let dhcp = DhcpPacket::new_checked(udp.payload()).ok()?;
    // `DhcpRepr` checks operation, hardware type and magic number; its own options are not used,
    // because it knows no list of routers.
    let repr = DhcpRepr::parse(&dhcp).ok()?;
    if dhcp.opcode() != DhcpOpCode::Reply || repr.client_hardware_address.0 != mac {
        return None;
    }
    let kind = match repr.message_type {
        DhcpMessageType::Offer => ReplyKind::Offer,
        DhcpMessageType::Ack => ReplyKind::Ack,
        DhcpMessageType::Nak => ReplyKind::Nak,
        _ => return None,
    };
    let mut reply = Reply {
        kind,
        xid: repr.transaction_id,
        address: repr.your_ip,
        server: repr.server_identifier?,
        mask: None,
        router: None,
        lease: None,
        mac: from.0,
        portal: false,
        ignored: Vec::new(),
    };
    for option in dhcp.options().take(MAX_OPTIONS) {
        match option.kind {
            OPTION_MASK => reply.mask = reply.mask.or(first_address(option.data)),
            OPTION_ROUTER => reply.router = reply.router.or(first_address(option.data)),
            OPTION_LEASE_TIME => {
                let seconds = option.data.try_into().ok().map(u32::from_be_bytes);
                reply.lease = reply.lease.or(seconds);
            }
            OPTION_PORTAL => reply.portal |= option.data != NO_PORTAL,
            OPTION_MESSAGE_TYPE | OPTION_SERVER => {}
            other if HARMLESS.contains(&other) || reply.ignored.contains(&other) => {}
            other => reply.ignored.push(other),
        }
    }
    Some(reply)
}

fn first_address(data: &[u8]) -> Option<Ipv4Addr> {
    data.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

/// Writes the frame of a request. A member of the LAN says its name and what it is, so that DHCP
/// servers keep what belongs to it and enter it into the DNS.
pub(super) fn write(request: &Request, mac: [u8; 6], member: Option<&LanMember>) -> Vec<u8> {
    let host = member.and_then(|member| member.host.as_ref());
    let class = member.and_then(|member| member.class.as_ref());
    let host = host.map(|host| (OPTION_HOST, host.as_bytes()));
    let class = class.map(|class| (OPTION_CLASS, class.as_bytes()));
    let declines = matches!(request.kind, RequestKind::Decline { .. });
    let said: Vec<DhcpOption<'_>> = [host, class]
        .into_iter()
        .flatten()
        // RFC 2131, table 5: it asks for nothing.
        .filter(|_| !declines)
        .map(|(kind, data)| DhcpOption { kind, data })
        .collect();
    let mac = EthernetAddress(mac);
    let any = Ipv4Addr::UNSPECIFIED;
    let mut dhcp = DhcpRepr {
        message_type: DhcpMessageType::Request,
        transaction_id: request.xid,
        secs: request.secs,
        client_hardware_address: mac,
        client_ip: any,
        your_ip: any,
        server_ip: any,
        router: None,
        subnet_mask: None,
        relay_agent_ip: any,
        broadcast: false,
        requested_ip: None,
        client_identifier: Some(mac),
        server_identifier: None,
        parameter_request_list: (!declines).then_some(&WANTED),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &said,
    };
    let (mut to, mut source, mut destination) =
        (EthernetAddress::BROADCAST, any, Ipv4Addr::BROADCAST);
    match request.kind {
        RequestKind::Discover => dhcp.message_type = DhcpMessageType::Discover,
        RequestKind::Select { address, server } => {
            dhcp.requested_ip = Some(address);
            dhcp.server_identifier = Some(server);
        }
        RequestKind::Decline { address, server } => {
            dhcp.message_type = DhcpMessageType::Decline;
            dhcp.requested_ip = Some(address);
            dhcp.server_identifier = Some(server);
        }
        RequestKind::Renew {
            address,
            server,
            mac,
        } => {
            dhcp.client_ip = address;
            (to, source, destination) = (EthernetAddress(mac), address, server);
        }
        RequestKind::Rebind { address } => {
            dhcp.client_ip = address;
            source = address;
        }
    }

    let message = dhcp.buffer_len().max(MESSAGE);
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: UDP + message,
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; ETHERNET + IPV4 + UDP + message];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr {
        src_addr: mac,
        dst_addr: to,
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums());
    UdpRepr {
        src_port: DHCP_CLIENT_PORT,
        dst_port: DHCP_SERVER_PORT,
    }
    .emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &IpAddress::Ipv4(source),
        &IpAddress::Ipv4(destination),
        message,
        |payload| {
            let mut message = DhcpPacket::new_unchecked(payload);
            dhcp.emit(&mut message)
                .expect("there is as much room as it asked for");
        },
        &checksums(),
    );
    bytes
}

/// A server's side of the messages, for tests.
#[cfg(test)]
pub(super) mod server {

    use super::*;

    /// The frame of a reply, with `extra` options after its own.
    pub(in super::super) fn write_reply(
        reply: &Reply,
        client: [u8; 6],
        extra: &[DhcpOption<'_>],
    ) -> Vec<u8> {
        let any = Ipv4Addr::UNSPECIFIED;
        let dhcp = DhcpRepr {
            message_type: match reply.kind {
                ReplyKind::Offer => DhcpMessageType::Offer,
                ReplyKind::Ack => DhcpMessageType::Ack,
                ReplyKind::Nak => DhcpMessageType::Nak,
            },
            transaction_id: reply.xid,
            secs: 0,
            client_hardware_address: EthernetAddress(client),
            client_ip: any,
            your_ip: reply.address,
            server_ip: any,
            router: reply.router,
            subnet_mask: reply.mask,
            relay_agent_ip: any,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(reply.server),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: reply.lease,
            renew_duration: None,
            rebind_duration: None,
            additional_options: extra,
        };
        let length = dhcp.buffer_len();
        let mut bytes = vec![0; ETHERNET + IPV4 + UDP + length];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        EthernetRepr {
            src_addr: EthernetAddress(reply.mac),
            dst_addr: EthernetAddress(client),
            ethertype: EthernetProtocol::Ipv4,
        }
        .emit(&mut frame);
        let ip = Ipv4Repr {
            src_addr: reply.server,
            dst_addr: Ipv4Addr::BROADCAST,
            next_header: IpProtocol::Udp,
            payload_len: UDP + length,
            hop_limit: HOP_LIMIT,
        };
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums());
        UdpRepr {
            src_port: DHCP_SERVER_PORT,
            dst_port: DHCP_CLIENT_PORT,
        }
        .emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &IpAddress::Ipv4(reply.server),
            &IpAddress::Ipv4(Ipv4Addr::BROADCAST),
            length,
            |payload| {
                dhcp.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap();
            },
            &checksums(),
        );
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sekisho_control::{HostName, VendorClass};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn reply() -> Reply {
        Reply {
            kind: ReplyKind::Ack,
            xid: 7,
            address: Ipv4Addr::new(192, 168, 43, 50),
            server: Ipv4Addr::new(192, 168, 43, 1),
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            router: Some(Ipv4Addr::new(192, 168, 43, 1)),
            lease: Some(3600),
            mac: [2, 0, 0, 0, 0, 9],
            portal: false,
            ignored: Vec::new(),
        }
    }

    #[test]
    fn reads_what_a_server_writes() {
        let frame = server::write_reply(&reply(), MAC, &[]);
        assert_eq!(read(&frame, MAC), Some(reply()));
        assert_eq!(read(&frame, [2, 0, 0, 0, 0, 2]), None, "not our MAC");
    }

    #[test]
    fn names_options_it_does_not_take() {
        let routes = DhcpOption {
            kind: 121,
            data: &[1, 0, 192, 168, 43, 66, 1, 128, 192, 168, 43, 66],
        };
        let resolver = DhcpOption {
            kind: 6,
            data: &[192, 168, 43, 66],
        };
        let frame = server::write_reply(&reply(), MAC, &[routes, resolver, routes]);
        let read = read(&frame, MAC).unwrap();
        assert_eq!(read.ignored, [121, 6]);
        assert_eq!(read.router, reply().router);
    }

    #[test]
    fn takes_the_first_of_several_routers() {
        let routers = DhcpOption {
            kind: 3,
            data: &[192, 168, 43, 1, 192, 168, 43, 66],
        };
        let without = Reply {
            router: None,
            ..reply()
        };
        let frame = server::write_reply(&without, MAC, &[routers]);
        assert_eq!(read(&frame, MAC), Some(reply()));
    }

    #[test]
    fn own_requests_are_no_replies() {
        let discover = Request {
            kind: RequestKind::Discover,
            xid: 1,
            secs: 0,
        };
        assert_eq!(read(&write(&discover, MAC, None), MAC), None);
    }

    #[test]
    fn a_renewal_goes_to_the_server_alone() {
        let frame = write(
            &Request {
                kind: RequestKind::Renew {
                    address: reply().address,
                    server: reply().server,
                    mac: reply().mac,
                },
                xid: 1,
                secs: 0,
            },
            MAC,
            None,
        );
        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        assert_eq!(ethernet.dst_addr().0, reply().mac);
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert_eq!(
            (ip.src_addr(), ip.dst_addr()),
            (reply().address, reply().server)
        );
        assert!(ip.verify_checksum());
    }

    #[test]
    fn a_member_says_its_name_and_what_it_is_and_always_the_same_identifier() {
        let member = |host: &[u8]| LanMember {
            host: HostName::new(host),
            class: VendorClass::new(&[b'c'; 48]),
        };
        let request = Request {
            kind: RequestKind::Discover,
            xid: 1,
            secs: 0,
        };
        let said = |frame: &[u8]| -> Vec<(u8, Vec<u8>)> {
            let message = DhcpPacket::new_checked(&frame[ETHERNET + IPV4 + UDP..]).unwrap();
            let options = message.options();
            options.map(|o| (o.kind, o.data.to_vec())).collect()
        };
        let plain = write(&request, MAC, None);
        assert_eq!(plain.len(), ETHERNET + IPV4 + UDP + MESSAGE);
        assert!(
            said(&plain)
                .iter()
                .all(|(kind, _)| ![12, 60].contains(kind))
        );
        let long = [b'h'; 63];
        let frame = write(&request, MAC, Some(&member(&long)));
        let options = said(&frame);
        assert!(options.contains(&(12, long.to_vec())));
        assert!(options.contains(&(60, vec![b'c'; 48])));
        let identifier = [&[1][..], &MAC].concat();
        assert!(options.contains(&(61, identifier.clone())));
        assert!(said(&plain).contains(&(61, identifier)));
        let ip = Ipv4Packet::new_checked(&frame[ETHERNET..]).unwrap();
        assert_eq!(usize::from(ip.total_len()), frame.len() - ETHERNET);
    }

    proptest! {
        #[test]
        fn any_frame_is_read_without_panic(frame: Vec<u8>) {
            let _ = read(&frame, MAC);
        }

        /// Flips bytes of a good frame, so that the reader is taken past the first checks.
        #[test]
        fn any_damage_is_read_without_panic(
            damage in prop::collection::vec((34usize..400, any::<u8>()), 0..8),
            cut in 0usize..400,
        ) {
            let mut frame = server::write_reply(&reply(), MAC, &[]);
            for (at, value) in damage {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            frame.truncate(frame.len() - cut.min(frame.len()));
            let _ = read(&frame, MAC);
        }
    }
}
