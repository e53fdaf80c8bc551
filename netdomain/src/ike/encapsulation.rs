//! Between charon's UDP packets, as they come out of a TUN device, and payloads on a socket of the
//! uplink's (RFC 3948: IKE and ESP, both in UDP from and to port 4500).
//!
//! What is not exactly that, from our address there to the gateway, is nothing that leaves.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, getpeername, recv, send, sockopt,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket};

use super::dialogue::Gateway;
use super::outer::{OUTERS, Outer};
use crate::moment::Moment;

/// UDP port of IKE and ESP where NATs are on the way.
pub(super) const NAT_T: u16 = 4500;
/// The longest packet of the outer device.
pub(super) const OUTER_MTU: u16 = 1500;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const MAX_PACKET: usize = OUTER_MTU as usize;
const MAX_PAYLOAD: usize = MAX_PACKET - IP_HEADER - UDP_HEADER;
/// For so long after a change of path the gateway's packets are given to charon's network for both
/// addresses: whether the tunnel is already at the new one is charon's secret. It needs a tenth of a
/// second and a round trip, and more where something is lost.
const BOTH: Duration = Duration::from_secs(2);
/// Packets of one direction in one turn, so that a flood does not starve the channels.
const PACKETS: usize = 64;

/// The payload, if the packet may leave.
fn outward(packet: &[u8], gateway: SocketAddrV4) -> Option<&[u8]> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let whole =
        usize::from(ip.total_len()) == packet.len() && usize::from(ip.header_len()) == IP_HEADER;
    let right = whole
        && ip.version() == 4
        && ip.next_header() == IpProtocol::Udp
        && ip.frag_offset() == 0
        && !ip.more_frags()
        && OUTERS.contains(&ip.src_addr())
        && ip.dst_addr() == *gateway.ip();
    let payload = packet.get(IP_HEADER..).filter(|_| right)?;
    let udp = UdpPacket::new_checked(payload).ok()?;
    let right = udp.src_port() == NAT_T
        && udp.dst_port() == gateway.port()
        && usize::from(udp.len()) == payload.len();
    payload.get(UDP_HEADER..).filter(|_| right)
}

/// Whether a payload is ESP, and no message of IKE or a keepalive (RFC 3948, section 2).
fn is_esp(payload: &[u8]) -> bool {
    payload.get(..4).is_some_and(|spi| spi != [0; 4])
}

/// The packet that this payload of the gateway's becomes.
fn inward(
    buffer: &mut [u8; MAX_PACKET],
    payload: usize,
    gateway: SocketAddrV4,
    to: Ipv4Addr,
) -> &[u8] {
    let length = IP_HEADER + UDP_HEADER + payload;
    let ip = Ipv4Repr {
        src_addr: *gateway.ip(),
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER + payload,
        hop_limit: 64,
    };
    let packet = &mut buffer[..length];
    ip.emit(
        &mut Ipv4Packet::new_unchecked(&mut *packet),
        &ChecksumCapabilities::default(),
    );
    let mut udp = UdpPacket::new_unchecked(&mut packet[IP_HEADER..]);
    udp.set_src_port(gateway.port());
    udp.set_dst_port(NAT_T);
    // No longer than a packet of the device.
    udp.set_len(u16::try_from(UDP_HEADER + payload).unwrap_or(u16::MAX));
    // None: what is inside proves itself (RFC 3948, section 2.1).
    udp.set_checksum(0);
    packet
}

/// A socket of the uplink's, as the path to the gateway.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
    /// The gateway as charon knows it, whichever of its addresses the socket leads to: charon proves
    /// it by name.
    gateway: SocketAddrV4,
    /// Until then the tunnel may still be at the address before.
    moving: Option<Moment>,
}

impl Wire {
    /// Takes a UDP socket that is connected to the gateway, and nothing else. `moves`: the tunnel is
    /// up and comes from another path.
    pub(super) fn new(socket: OwnedFd, gateway: &Gateway, moves: bool) -> io::Result<Self> {
        let family = sockopt::socket_domain(&socket)?;
        let kind = sockopt::socket_type(&socket)?;
        let peer = getpeername(&socket)?.and_then(|peer| SocketAddrV4::try_from(peer).ok());
        let right = peer.is_some_and(|peer| peer == gateway.address || gateway.lan == Some(peer));
        if (family, kind) != (AddressFamily::INET, SocketType::DGRAM) || !right {
            return Err(io::Error::other("it is no UDP socket to the gateway"));
        }
        Ok(Self {
            socket,
            gateway: gateway.address,
            moving: moves.then(|| Moment::now() + BOTH),
        })
    }

    /// Moves what can be moved now.
    pub(super) fn turn(&mut self, outer: &Outer) {
        if self.moving.is_some_and(|until| Moment::now() >= until) {
            self.moving = None;
        }
        self.out(outer.as_fd());
        self.back(outer);
    }

    fn out(&self, outer: BorrowedFd<'_>) {
        let mut packet = [0; MAX_PACKET];
        for _ in 0..PACKETS {
            let Ok(read @ 1..) = rustix::io::read(outer, &mut packet) else {
                return;
            };
            if let Some(payload) = outward(&packet[..read], self.gateway) {
                // What does not go is lost, as on any wire; IKE and TCP ask again.
                let _ = send(
                    &self.socket,
                    payload,
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                );
            }
        }
    }

    fn back(&self, outer: &Outer) {
        let mut packet = [0; MAX_PACKET];
        for _ in 0..PACKETS {
            let room = &mut packet[IP_HEADER + UDP_HEADER..];
            match recv(
                &self.socket,
                &mut *room,
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            ) {
                Ok((read @ 1.., length)) if read == length => {
                    let both = self.moving.is_some() && is_esp(&room[..read]);
                    let before = both.then(|| outer.before());
                    // Under the wrong one no tunnel is found, and nothing comes of it.
                    for to in before.into_iter().chain([outer.address()]) {
                        let packet = inward(&mut packet, read, self.gateway, to);
                        let _ = rustix::io::write(outer, packet);
                    }
                }
                Err(Errno::AGAIN) => return,
                // Longer than anything of ours, or empty; or an ICMP message, which anybody can forge.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const _: () = assert!(MAX_PAYLOAD + IP_HEADER + UDP_HEADER == MAX_PACKET);

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), NAT_T);

    /// A packet of charon's: [`inward`] with the ends exchanged.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut buffer = [0; MAX_PACKET];
        buffer[28..28 + payload.len()].copy_from_slice(payload);
        let mut packet = inward(&mut buffer, payload.len(), GATEWAY, OUTERS[0]).to_vec();
        packet[12..16].copy_from_slice(&OUTERS[0].octets());
        packet[16..20].copy_from_slice(&GATEWAY.ip().octets());
        packet
    }

    #[test]
    fn only_datagrams_to_the_gateway_leave() {
        let right = packet(b"sealed");
        assert_eq!(outward(&right, GATEWAY), Some(&b"sealed"[..]));
        let other = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 11), NAT_T);
        assert_eq!(outward(&right, other), None);
        // Version, header length, length, fragment, protocol, source, destination, ports, UDP length.
        for (at, value) in [
            (0, 0x65),
            (0, 0x46),
            (3, 33),
            (6, 0x20),
            (9, 6),
            (15, 9),
            (19, 11),
            (21, 0),
            (23, 0),
            (25, 13),
        ] {
            let mut wrong = right.clone();
            assert_ne!(wrong[at], value, "{at}");
            wrong[at] = value;
            assert_eq!(outward(&wrong, GATEWAY), None, "{at}");
        }
        for cut in 0..right.len() {
            assert_eq!(outward(&right[..cut], GATEWAY), None);
        }
    }
}
