//! A packet socket: frames as they are on the wire, for attackers and for deliberate leaks.

use std::{
    ffi::CString,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
        UdpRepr,
    },
};

use crate::Netns;

/// Sends and receives whole Ethernet frames on one interface, past all rules of the kernel.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    /// The interface's own MAC.
    pub mac: [u8; 6],
}

impl PacketSocket {
    /// Opens it on an interface of a namespace.
    pub fn open(space: &Netns, interface: &str) -> io::Result<Self> {
        space.enter(|| {
            let name = CString::new(interface)?;
            // SAFETY: the name is a C string that lives until the call returns.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            let index = libc::c_int::try_from(index).map_err(io::Error::other)?;
            if index == 0 {
                return Err(io::Error::last_os_error());
            }
            let protocol = u16::try_from(libc::ETH_P_ALL)
                .map_err(io::Error::other)?
                .to_be();
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: a plain system call; its result is checked.
            let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is fresh and owned by nobody else.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
            address.sll_protocol = protocol;
            address.sll_ifindex = index;
            let length =
                libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
            // SAFETY: the address is as long as the call is told, and only read.
            let result =
                unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                mac: own_mac(&socket, interface)?,
                socket,
            })
        })?
    }

    /// Sends one frame as it is.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, frame, rustix::net::SendFlags::empty())?;
        Ok(())
    }

    /// Receives frames until one is accepted.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut accept: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 65_600];
        loop {
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(length) => {
                    if let Some(found) = accept(&buffer[..length]) {
                        return Ok(Some(found));
                    }
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = Timespec::try_from(left).map_err(io::Error::other)?;
                    poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn own_mac(socket: &OwnedFd, interface: &str) -> io::Result<[u8; 6]> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFHWADDR reads and writes an `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel filled the hardware address.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    Ok(std::array::from_fn(|index| data[index].cast_unsigned()))
}

/// An ARP packet in an Ethernet frame (RFC 826): operation 1 asks, 2 answers.
pub fn arp_frame(
    operation: u16,
    sender: ([u8; 6], Ipv4Addr),
    target: ([u8; 6], Ipv4Addr),
) -> Vec<u8> {
    let ethernet = if operation == 1 { [0xff; 6] } else { target.0 };
    let mut frame = [&ethernet[..], &sender.0, &[8, 6, 0, 1, 8, 0, 6, 4]].concat();
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&sender.0);
    frame.extend_from_slice(&sender.1.octets());
    frame.extend_from_slice(if operation == 1 { &[0; 6] } else { &target.0 });
    frame.extend_from_slice(&target.1.octets());
    frame
}

/// A UDP datagram in IPv4 in Ethernet, with correct checksums.
pub fn udp_frame(
    macs: ([u8; 6], [u8; 6]),
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let length = udp.header_len() + payload.len();
    ipv4_frame(
        macs,
        (*from.ip(), *to.ip()),
        (IpProtocol::Udp, length),
        |body| {
            udp.emit(
                &mut UdpPacket::new_unchecked(body),
                &(*from.ip()).into(),
                &(*to.ip()).into(),
                payload.len(),
                |to| to.copy_from_slice(payload),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

/// The first segment of a TCP connection in IPv4 in Ethernet, with correct checksums.
pub fn tcp_syn_frame(
    macs: ([u8; 6], [u8; 6]),
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 64_240,
        window_scale: None,
        max_seg_size: Some(1380),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let length = tcp.buffer_len();
    ipv4_frame(
        macs,
        (*from.ip(), *to.ip()),
        (IpProtocol::Tcp, length),
        |body| {
            tcp.emit(
                &mut TcpPacket::new_unchecked(body),
                &(*from.ip()).into(),
                &(*to.ip()).into(),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

/// An IPv4 packet in Ethernet with so long a body of this protocol, which `body` writes.
fn ipv4_frame(
    macs: ([u8; 6], [u8; 6]),
    (from, to): (Ipv4Addr, Ipv4Addr),
    (protocol, length): (IpProtocol, usize),
    body: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: length,
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + length];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    body(packet.payload_mut());
    [&macs.1[..], &macs.0, &[8, 0], &bytes].concat()
}
