//! A [`Packet`]: an IP packet that was parsed once and cannot be malformed.

mod v6;

use std::net::{Ipv4Addr, Ipv6Addr};

use sekisho_policy::Protocol;
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};
use thiserror::Error;

pub use super::family::{Family, IPV4_HEADER, IPV6_HEADER};

/// What the sender left for us to do, as its `virtio_net_hdr` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: the packet is complete.
    None,
    /// The transport checksum is missing.
    Checksum,
    /// A TCP super-packet to be cut into segments of `mss` payload bytes, checksums missing.
    Tcp {
        /// Payload bytes of each segment but the last.
        mss: u16,
    },
}

/// Transport of a packet. Ports live in [`Flow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP with its header's length in bytes and its flags.
    Tcp {
        /// 20 to 60.
        header: u8,
        /// What the connection table needs to know.
        flags: TcpFlags,
    },
    /// UDP.
    Udp,
    /// ICMP with its type.
    Icmp {
        /// The ICMP type.
        kind: IcmpKind,
    },
}

/// The TCP flags that move a connection's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the bits of RFC 9293, section 3.1"
)]
pub struct TcpFlags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// The ICMP messages that the gate tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpKind {
    /// Echo request (type 8; 128 of `ICMPv6`).
    EchoRequest,
    /// Echo reply (type 0; 129 of `ICMPv6`).
    EchoReply,
    /// An error about the packet that it quotes (types 3, 11, 12; 1 to 4 of `ICMPv6`).
    Error,
    /// Anything else.
    Other,
}

/// Addresses and ports of a packet as they stand in its headers. For ICMP echo both ports are the
/// identifier, for other ICMP messages zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<A = Ipv4Addr> {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// Why bytes are no [`Packet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Shorter than its headers say.
    #[error("the packet ends before its headers say it does")]
    Truncated,
    /// Of another version, or its length and the buffer disagree.
    #[error("the IP header contradicts the packet")]
    Header,
    /// IPv4 options; nothing that we carry needs them, source routing is one of them.
    #[error("the packet carries IPv4 options")]
    Options,
    /// Extension headers of IPv6: hop by hop, routing, destination options and all others but the one
    /// of a fragment. Nothing that we carry needs them, and each is a way past a rule.
    #[error("the packet carries IPv6 extension headers")]
    Extensions,
    /// A fragment.
    #[error("the packet is a fragment")]
    Fragment,
    /// A transport header that no sender of good will makes.
    #[error("the transport header is broken")]
    Transport,
    /// Neither TCP, UDP nor ICMP.
    #[error("the transport protocol {0} is not carried")]
    Protocol(u8),
    /// The offload asked for does not fit the packet.
    #[error("the offload asked for does not fit the packet")]
    Offload,
}

/// An IP packet of one family, parsed once. Header and transport header lie within the bytes, lengths
/// agree, it is no fragment and carries no options.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a, A = Ipv4Addr> {
    bytes: &'a [u8],
    flow: Flow<A>,
    transport: Transport,
    offload: Offload,
}

/// A packet of IPv6.
pub type Packet6<'a> = Packet<'a, Ipv6Addr>;

impl<'a, A: Family> Packet<'a, A> {
    /// A packet whose headers are parsed, if what is said of its super-frame fits them.
    fn of(
        bytes: &'a [u8],
        (source, destination): (A, A),
        (protocol, transport, source_port, destination_port): Parsed,
        offload: Offload,
    ) -> Result<Self, Malformed> {
        check_offload(offload, transport, &bytes[A::HEADER..])?;
        Ok(Self {
            bytes,
            flow: Flow {
                protocol,
                source,
                destination,
                source_port,
                destination_port,
            },
            transport,
            offload,
        })
    }
}

impl<'a> Packet<'a> {
    /// Parses the IPv4 packet at the start of `bytes`; link-layer padding behind it is cut off.
    pub fn parse(bytes: &'a [u8], offload: Offload) -> Result<Self, Malformed> {
        let ip = Ipv4Packet::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
        if ip.version() != 4 {
            return Err(Malformed::Header);
        }
        if usize::from(ip.header_len()) != IPV4_HEADER {
            return Err(Malformed::Options);
        }
        if ip.more_frags() || ip.frag_offset() != 0 {
            return Err(Malformed::Fragment);
        }
        let bytes = &bytes[..usize::from(ip.total_len())];
        let body = &bytes[IPV4_HEADER..];
        let parsed = match ip.next_header() {
            IpProtocol::Tcp => parse_tcp(body)?,
            IpProtocol::Udp => parse_udp(body)?,
            IpProtocol::Icmp => parse_icmp(body)?,
            other => return Err(Malformed::Protocol(other.into())),
        };
        Self::of(bytes, (ip.src_addr(), ip.dst_addr()), parsed, offload)
    }

    /// Whether nobody on the way may cut it into fragments (DF, RFC 791, section 3.1).
    pub const fn must_not_be_cut(&self) -> bool {
        self.bytes[6] & 0x40 != 0
    }
}

impl<'a, A: Family> Packet<'a, A> {
    /// The whole packet, header first.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Transport header and payload.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[A::HEADER..]
    }

    /// Addresses and ports.
    pub const fn flow(&self) -> Flow<A> {
        self.flow
    }

    /// Transport.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// What is left to do before the packet is complete.
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Bytes of IP and transport header that every segment of this packet repeats.
    pub fn header_len(&self) -> usize {
        match self.transport {
            Transport::Tcp { header, .. } => A::HEADER + usize::from(header),
            Transport::Udp | Transport::Icmp { .. } => A::HEADER,
        }
    }

    /// The MTU that an ICMP error tells of. `None` unless this is such an error.
    pub fn told_mtu(&self) -> Option<u16> {
        matches!(self.transport, Transport::Icmp { .. })
            .then(|| A::told_mtu(self.body()))
            .flatten()
    }

    /// The packet that an ICMP error quotes: protocol, addresses and ports as that packet had
    /// them. `None` unless this is an ICMP error that quotes enough.
    pub fn quoted(&self) -> Option<Flow<A>> {
        if !matches!(
            self.transport,
            Transport::Icmp {
                kind: IcmpKind::Error
            }
        ) {
            return None;
        }
        A::quoted(self.body().get(8..)?)
    }
}

type Parsed = (Protocol, Transport, u16, u16);

fn parse_tcp(body: &[u8]) -> Result<Parsed, Malformed> {
    let tcp = TcpPacket::new_checked(body).map_err(|_| Malformed::Transport)?;
    let flags = TcpFlags {
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        rst: tcp.rst(),
    };
    // No stack sends these (RFC 9293, section 3.10.7); scanners do.
    if flags.syn && (flags.fin || flags.rst) {
        return Err(Malformed::Transport);
    }
    let header = tcp.header_len();
    Ok((
        Protocol::Tcp,
        Transport::Tcp { header, flags },
        tcp.src_port(),
        tcp.dst_port(),
    ))
}

fn parse_udp(body: &[u8]) -> Result<Parsed, Malformed> {
    let udp = UdpPacket::new_checked(body).map_err(|_| Malformed::Transport)?;
    if usize::from(udp.len()) != body.len() {
        return Err(Malformed::Transport);
    }
    Ok((
        Protocol::Udp,
        Transport::Udp,
        udp.src_port(),
        udp.dst_port(),
    ))
}

fn parse_icmp(body: &[u8]) -> Result<Parsed, Malformed> {
    let icmp = Icmpv4Packet::new_checked(body).map_err(|_| Malformed::Transport)?;
    if body.len() < 8 {
        return Err(Malformed::Transport);
    }
    let (kind, ident) = match icmp.msg_type() {
        Icmpv4Message::EchoRequest => (IcmpKind::EchoRequest, icmp.echo_ident()),
        Icmpv4Message::EchoReply => (IcmpKind::EchoReply, icmp.echo_ident()),
        Icmpv4Message::DstUnreachable
        | Icmpv4Message::TimeExceeded
        | Icmpv4Message::ParamProblem => (IcmpKind::Error, 0),
        _ => (IcmpKind::Other, 0),
    };
    Ok((Protocol::Icmp, Transport::Icmp { kind }, ident, ident))
}

fn check_offload(offload: Offload, transport: Transport, body: &[u8]) -> Result<(), Malformed> {
    match (offload, transport) {
        (Offload::None, _)
        | (Offload::Checksum, Transport::Tcp { .. } | Transport::Udp) => Ok(()),
        (Offload::Tcp { mss }, Transport::Tcp { header, flags })
            // A SYN or RST is never cut, and what is cut has something to cut.
            if mss > 0 && !flags.syn && !flags.rst && body.len() > usize::from(header) =>
        {
            Ok(())
        }
        _ => Err(Malformed::Offload),
    }
}
