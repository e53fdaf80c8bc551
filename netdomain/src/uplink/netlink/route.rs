//! Links, addresses and routes: the part of rtnetlink that the uplink needs.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with, sockopt::set_socket_recv_buffer_size_force,
    },
};

use super::{
    DATAGRAM, NetlinkError, Requests, failed, retry,
    wire::{
        ACK, CREATE, DUMP, Message, REPLACE, REQUEST, Writer, attributes, messages, read_u16,
        read_u32,
    },
};

/// `RTM_*`.
pub(super) const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
pub(super) const NEW_ROUTE: u16 = 24;

/// `IFLA_*`.
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_ALIAS: u16 = 20;
const LINK_OPERATIONAL: u16 = 16;
const LINK_STATISTICS: u16 = 23;
pub(super) const LINK_CARRIER_DOWN_COUNT: u16 = 48;
/// `IFA_*`.
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// `RTA_*`.
pub(super) const ROUTE_DESTINATION: u16 = 1;
pub(super) const ROUTE_DEVICE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
pub(super) const ROUTE_PRIORITY: u16 = 6;
const ROUTE_SOURCE: u16 = 7;

pub(super) const IFF_UP: u32 = 0x1;
pub(super) const IFF_LOWER_UP: u32 = 0x1_0000;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// `ARPHRD_RAWIP` and `ARPHRD_NONE`: packets without a frame, as most modems carry them.
const RAW_IP: u16 = 519;
const NO_FRAME: u16 = 0xfffe;
/// `IF_OPER_UP` (RFC 2863).
const OPERATIONAL_UP: u8 = 6;
pub(super) const AF_INET: u8 = 2;
pub(super) const SCOPE_UNIVERSE: u8 = 0;
pub(super) const SCOPE_LINK: u8 = 253;
pub(super) const TABLE_MAIN: u8 = 254;
/// `RTPROT_STATIC`: set by an administrator, which we are here.
pub(super) const PROTOCOL_STATIC: u8 = 4;
pub(super) const TYPE_UNICAST: u8 = 1;
pub(super) const NEXT_HOP_ON_LINK: u32 = 4;
/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;

/// Lengths of `struct ifinfomsg` and `struct ifaddrmsg`.
pub(super) const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A link as the kernel tells of it: Ethernet, or IP without a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the kernel's own flags, each apart"
)]
pub(crate) struct Link {
    /// Interface index.
    pub(crate) index: u32,
    /// Interface name.
    pub(crate) name: String,
    /// Its MAC; zero without a frame.
    pub(crate) mac: [u8; 6],
    /// The card's own MAC, where `mac` is the work OS's: a process of ours left word on the link.
    pub(crate) own: Option<[u8; 6]>,
    /// Its packets come in Ethernet frames.
    pub(crate) ethernet: bool,
    /// Administratively up.
    pub(crate) up: bool,
    /// There is somebody at the other end of the cable.
    pub(crate) carrier: bool,
    /// It passes traffic: a radio has a carrier from association on, and does so only once its
    /// keys are agreed.
    pub(crate) operational: bool,
    /// It is a radio's; rtnetlink does not tell, see [`Wireless`](super::Wireless).
    pub(crate) radio: bool,
    /// How often the carrier was lost. The kernel may fold a loss and a return into one event;
    /// this number tells.
    pub(crate) losses: u32,
    /// Bytes received and sent since the interface exists.
    pub(crate) bytes: u64,
}

/// A change among the links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// A link is new or changed.
    Changed(Link),
    /// The link with this index left the namespace.
    Gone(u32),
}

/// The socket that link events arrive on.
#[derive(Debug)]
pub(crate) struct LinkEvents {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

/// Room for a burst of link events; some hundred of about 1.5 KiB each.
const EVENT_BUFFER: usize = 1 << 20;

/// Events were lost; the links must be listed again.
#[derive(Debug)]
pub(crate) struct Overrun;

impl LinkEvents {
    /// Subscribes, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(failed("open a netlink socket"))?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))
            .map_err(failed("subscribe to link events"))?;
        // A smaller buffer only means an earlier overrun, and an overrun is recovered from.
        let _ = set_socket_recv_buffer_size_force(&socket, EVENT_BUFFER);
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
        })
    }

    /// The events of one datagram, in order; `None` when there is none now.
    pub(crate) fn read(&mut self) -> Option<Result<Vec<LinkEvent>, Overrun>> {
        match retry(|| recv(&self.socket, &mut *self.buffer, RecvFlags::empty())) {
            Ok((length, _)) => Some(Ok(messages(&self.buffer[..length])
                .filter_map(|message| event(&message))
                .collect())),
            Err(Errno::AGAIN) => None,
            Err(_) => Some(Err(Overrun)),
        }
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Requests about links, addresses and routes.
#[derive(Debug)]
pub(crate) struct Routing {
    requests: Requests,
}

impl Routing {
    /// Opens the netlink socket, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            requests: Requests::open(None)?,
        })
    }

    /// Every link of the namespace that could be a port.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        request.message(GET_LINK, REQUEST | DUMP, sequence, |m| {
            m.raw(&[0; LINK_HEADER]);
        });
        self.requests
            .collect(&request, sequence, |message| {
                if let Some(LinkEvent::Changed(link)) = event(message) {
                    links.push(link);
                }
            })
            .map_err(failed("list the links"))?;
        Ok(links)
    }

    /// Sets a link up or down. A link that is gone is down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let flags = if up { IFF_UP } else { 0 };
        let answer = self.ask(NEW_LINK, 0, |m| {
            m.raw(&[0; 4]);
            m.raw(&index.to_ne_bytes());
            m.raw(&flags.to_ne_bytes());
            m.raw(&IFF_UP.to_ne_bytes());
        });
        match answer {
            Err(Errno::NODEV) if !up => Ok(()),
            other => other.map_err(failed("set a link up or down")),
        }
    }

    /// Sets the MAC of a link that is down, and leaves word on the link (its alias, which lives as
    /// long as it does) of the card's own, where the new one is not that.
    pub(crate) fn set_mac(
        &mut self,
        index: u32,
        mac: [u8; 6],
        own: Option<[u8; 6]>,
    ) -> Result<(), NetlinkError> {
        let alias = own.map_or_else(Vec::new, write_own);
        self.ask(NEW_LINK, 0, |m| {
            m.raw(&[0; 4]);
            m.raw(&index.to_ne_bytes());
            m.raw(&[0; 8]);
            m.attribute(LINK_ADDRESS, &mac);
            m.attribute(LINK_ALIAS, &alias);
        })
        .map_err(failed("set the MAC of a link"))
    }

    /// Removes every IPv4 address of a link, and with the last of them the kernel removes every
    /// route over it.
    pub(crate) fn flush(&mut self, index: u32) -> Result<(), NetlinkError> {
        for (address, prefix) in self.addresses(index)? {
            self.delete_address(index, address, prefix)?;
        }
        Ok(())
    }

    /// Removes the host address `address`/32 from a link, if it is there.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        self.delete_address(index, address, 32)
    }

    fn delete_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let answer = self.ask(DELETE_ADDRESS, 0, |m| {
            write_address(m, index, address, prefix);
        });
        match answer {
            Ok(()) | Err(Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
            Err(errno) => Err(failed("remove an address")(errno)),
        }
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
        let mut found = Vec::new();
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        request.message(GET_ADDRESS, REQUEST | DUMP, sequence, |m| {
            m.raw(&[AF_INET, 0, 0, 0]);
            m.raw(&0u32.to_ne_bytes());
        });
        self.requests
            .collect(&request, sequence, |message| {
                if message.kind == NEW_ADDRESS
                    && read_u32(message.body, 4) == Some(index)
                    && let Some(rest) = message.body.get(ADDRESS_HEADER..)
                    && let Some(address) = attributes(rest)
                        .find(|(kind, _)| *kind == ADDRESS_LOCAL)
                        .and_then(|(_, value)| <[u8; 4]>::try_from(value).ok())
                {
                    found.push((Ipv4Addr::from(address), message.body[1]));
                }
            })
            .map_err(failed("list the addresses"))?;
        Ok(found)
    }

    /// Gives a link the host address `address`/32.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        self.ask(NEW_ADDRESS, CREATE | REPLACE, |m| {
            write_address(m, index, address, 32);
        })
        .map_err(failed("set the leased address"))
    }

    /// Sets the route to one host. Two ports may each have one to the same host: a socket that is
    /// bound to a port only sees that port's, and `metric` keeps the entries apart.
    pub(crate) fn add_host_route(&mut self, route: &HostRoute) -> Result<(), NetlinkError> {
        let (scope, flags) = match route.via {
            Some(_) => (SCOPE_UNIVERSE, NEXT_HOP_ON_LINK),
            None => (SCOPE_LINK, 0),
        };
        self.ask(NEW_ROUTE, CREATE | REPLACE, |m| {
            m.raw(&[
                AF_INET,
                32,
                0,
                0,
                TABLE_MAIN,
                PROTOCOL_STATIC,
                scope,
                TYPE_UNICAST,
            ]);
            m.raw(&flags.to_ne_bytes());
            m.attribute(ROUTE_DESTINATION, &route.destination.octets());
            m.attribute(ROUTE_DEVICE, &route.index.to_ne_bytes());
            m.attribute(ROUTE_PRIORITY, &route.index.to_ne_bytes());
            m.attribute(ROUTE_SOURCE, &route.source.octets());
            if let Some(via) = route.via {
                m.attribute(ROUTE_GATEWAY, &via.octets());
            }
        })
        .map_err(failed("set a route to a gateway"))
    }

    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), Errno> {
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        request.message(kind, REQUEST | ACK | flags, sequence, body);
        self.requests.acknowledged(&request, sequence)
    }
}

/// A route to one host over one port.
#[derive(Debug)]
pub(crate) struct HostRoute {
    /// Interface index, also the metric.
    pub(crate) index: u32,
    /// Where to.
    pub(crate) destination: Ipv4Addr,
    /// Our address on this port.
    pub(crate) source: Ipv4Addr,
    /// The next hop; `None` where the host itself is on the link.
    pub(crate) via: Option<Ipv4Addr>,
}

/// What stands before the card's own MAC in a link's alias.
const OWN: &[u8] = b"sekisho: own MAC ";

/// The word that is left on a link.
fn write_own(mac: [u8; 6]) -> Vec<u8> {
    let hex = mac.map(|byte| format!("{byte:02x}")).concat();
    [OWN, hex.as_bytes()].concat()
}

/// Reads it. Nobody on a network writes an alias; whoever does on the laptop may set MACs as well.
fn read_own(alias: &[u8]) -> Option<[u8; 6]> {
    let alias = alias.strip_suffix(&[0]).unwrap_or(alias);
    let hex: &[u8; 12] = alias.strip_prefix(OWN)?.try_into().ok()?;
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(hex.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(mac)
}

/// `rx_bytes` and `tx_bytes` of `struct rtnl_link_stats64`, after the two counts of packets.
fn moved(statistics: &[u8]) -> Option<u64> {
    let number = |at: usize| {
        let field = statistics.get(at..at + 8)?;
        Some(u64::from_ne_bytes(field.try_into().ok()?))
    };
    Some(number(16)?.saturating_add(number(24)?))
}

fn write_address(message: &mut Writer, index: u32, address: Ipv4Addr, prefix: u8) {
    message.raw(&[AF_INET, prefix, 0, SCOPE_UNIVERSE]);
    message.raw(&index.to_ne_bytes());
    message.attribute(ADDRESS_LOCAL, &address.octets());
    message.attribute(ADDRESS_ADDRESS, &address.octets());
}

pub(super) fn event(message: &Message<'_>) -> Option<LinkEvent> {
    let body = message.body;
    let index = read_u32(body, 4)?;
    match message.kind {
        DELETE_LINK => Some(LinkEvent::Gone(index)),
        NEW_LINK if [ETHERNET, RAW_IP, NO_FRAME].contains(&read_u16(body, 2)?) => {
            let ethernet = read_u16(body, 2)? == ETHERNET;
            let flags = read_u32(body, 8)?;
            let mut link = Link {
                index,
                name: String::new(),
                mac: [0; 6],
                own: None,
                ethernet,
                up: flags & IFF_UP != 0,
                carrier: flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP,
                operational: false,
                radio: false,
                losses: 0,
                bytes: 0,
            };
            for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
                match kind {
                    LINK_ADDRESS if ethernet => link.mac = value.try_into().ok()?,
                    LINK_NAME => {
                        let name = std::str::from_utf8(value).ok()?;
                        name.trim_end_matches('\0').clone_into(&mut link.name);
                    }
                    LINK_ALIAS => link.own = read_own(value),
                    LINK_OPERATIONAL => link.operational = value == [OPERATIONAL_UP],
                    LINK_STATISTICS => link.bytes = moved(value)?,
                    LINK_CARRIER_DOWN_COUNT => link.losses = read_u32(value, 0)?,
                    _ => {}
                }
            }
            (!link.name.is_empty()).then_some(LinkEvent::Changed(link))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_word_of_ours_on_a_link_is_none() {
        for alias in [
            &b""[..],
            b"uplink to the hall",
            OWN,
            b"sekisho: own MAC 0200000000",
        ] {
            assert_eq!(read_own(alias), None);
        }
        assert_eq!(read_own(b"sekisho: own MAC 02000000000g"), None);
        assert_eq!(read_own(b"sekisho: own MAC 0200000000011"), None);
    }

    proptest! {
        #[test]
        fn the_word_on_a_link_is_read_as_it_was_written(mac: [u8; 6]) {
            let mut alias = write_own(mac);
            prop_assert_eq!(read_own(&alias), Some(mac));
            // As the kernel gives it back.
            alias.push(0);
            prop_assert_eq!(read_own(&alias), Some(mac));
        }

        #[test]
        fn any_alias_is_read_without_panic(alias: Vec<u8>) {
            let _ = read_own(&alias);
        }
    }
}
