//! Adds and removes single ports in the sets of the packet filter, and watches that its rules stay.
//!
//! The rules themselves are loaded once, by `nft`, before the sandbox closes. What changes while
//! the uplink runs is only which ports are in a set; that is two netlink messages, written here, so
//! that no `nft` process needs to be kept or started later. Layout: `linux/netfilter/nf_tables.h`.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};

use super::{
    DATAGRAM, NetlinkError, Requests, failed, retry,
    wire::{ACK, CREATE, REQUEST, Writer, messages},
};
use crate::uplink::rules::TABLE;

/// Sets of ports that the rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortSet {
    /// May talk to the outside of the gateways.
    Open,
    /// May talk to the beacon.
    Premises,
    /// May ask at the beacon's address who answers there; it proves nothing.
    Asking,
    /// May talk to the LAN side of the gateways.
    Proven,
    /// May do what it may slowly: its quota is spent.
    Slow,
}

impl PortSet {
    pub(crate) const ALL: [Self; 5] = [
        Self::Open,
        Self::Premises,
        Self::Asking,
        Self::Proven,
        Self::Slow,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Premises => "premises",
            Self::Asking => "asking",
            Self::Proven => "proven",
            Self::Slow => "slow",
        }
    }
}

/// Sets of a port with an address: interface name and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressSet {
    /// The address is the port's own: it is spoken there and nowhere else.
    Own,
    /// The address is the port's next hop: ARP is spoken with it and with nobody else.
    NextHop,
    /// The address is the work OS's as a member of the port's LAN: ARP is spoken for it with everybody
    /// there.
    Member,
    /// The address is the work OS's, and goes over the port without a tunnel.
    Direct,
}

impl AddressSet {
    const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::NextHop => "nexthop",
            Self::Member => "member",
            Self::Direct => "direct",
        }
    }

    const fn family(self) -> u8 {
        match self {
            Self::Own | Self::Direct => FAMILY_INET,
            Self::NextHop | Self::Member => FAMILY_ARP,
        }
    }
}

pub(super) const FAMILY_INET: u8 = 1;
const FAMILY_ARP: u8 = 3;
/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_ELEMENT: u16 = (NFTABLES << 8) | 0x0c;
const DELETE_ELEMENT: u16 = (NFTABLES << 8) | 0x0e;

/// `NFT_MSG_NEWGEN`: the mark after each change.
const NEW_GENERATION: u16 = (NFTABLES << 8) | 0x0f;
/// `NFNLGRP_NFTABLES` as a mask.
const GROUP_RULES: u32 = 1 << 6;

/// `NFTA_SET_ELEM_LIST_*`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`, `NFTA_SET_ELEM_KEY`, `NFTA_DATA_VALUE`.
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// `IFNAMSIZ`: an interface name in a key is padded to this with zeros.
const NAME_SIZE: usize = 16;

/// The handle on the packet filter.
#[derive(Debug)]
pub(crate) struct Sets {
    requests: Requests,
}

impl Sets {
    /// Opens the netlink socket, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            requests: Requests::open(Some(netlink::NETFILTER))?,
        })
    }

    /// Puts a port into a set; it may be there already.
    pub(crate) fn add(&mut self, set: PortSet, port: &str) -> Result<(), NetlinkError> {
        self.change(NEW_ELEMENT, FAMILY_INET, set.name(), &padded(port))
            .map_err(failed(&format!("open {port} in the packet filter")))
    }

    /// Takes a port out of a set; it may not be there.
    pub(crate) fn remove(&mut self, set: PortSet, port: &str) -> Result<(), NetlinkError> {
        absent_is_fine(self.change(DELETE_ELEMENT, FAMILY_INET, set.name(), &padded(port)))
            .map_err(failed(&format!("shut {port} in the packet filter")))
    }

    /// Puts a port with an address into a set; it may be there already.
    pub(crate) fn add_address(
        &mut self,
        set: AddressSet,
        port: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let key = address_key(port, address);
        self.change(NEW_ELEMENT, set.family(), set.name(), &key)
            .map_err(failed(&format!("allow {address} on {port}")))
    }

    /// Takes a port with an address out of a set; it may not be there.
    pub(crate) fn remove_address(
        &mut self,
        set: AddressSet,
        port: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let key = address_key(port, address);
        absent_is_fine(self.change(DELETE_ELEMENT, set.family(), set.name(), &key))
            .map_err(failed(&format!("forbid {address} on {port}")))
    }

    fn change(&mut self, kind: u16, family: u8, set: &str, key: &[u8]) -> Result<(), Errno> {
        let sequence = self.requests.next_sequence();
        let mut batch = Writer::default();
        batch.message(BATCH_BEGIN, REQUEST, sequence, |m| {
            m.raw(&generic(0, NFTABLES));
        });
        let flags = match kind {
            NEW_ELEMENT => REQUEST | ACK | CREATE,
            _ => REQUEST | ACK,
        };
        let sequence = self.requests.next_sequence();
        batch.message(kind, flags, sequence, |message| {
            message.raw(&generic(family, 0));
            message.attribute(LIST_TABLE, &zero_ended(TABLE));
            message.attribute(LIST_SET, &zero_ended(set));
            message.nested(LIST_ELEMENTS, |list| {
                list.nested(ELEMENT, |element| {
                    element.nested(KEY, |data| data.attribute(VALUE, key));
                });
            });
        });
        let end = self.requests.next_sequence();
        batch.message(BATCH_END, REQUEST, end, |m| m.raw(&generic(0, NFTABLES)));
        self.requests.acknowledged(&batch, sequence)
    }
}

/// The socket that tells of changes of the packet filter, whoever makes them.
#[derive(Debug)]
pub(crate) struct RuleWatch {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl RuleWatch {
    /// Subscribes, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::NETFILTER),
        )
        .map_err(failed("open a netlink socket"))?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_RULES))
            .map_err(failed("subscribe to changes of the packet filter"))?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
        })
    }

    /// Whether tables, chains, rules or sets were changed since the last look. Our own changes are
    /// of elements of sets alone. Where news were lost, the worst is assumed.
    pub(crate) fn changed(&mut self) -> bool {
        loop {
            let read = retry(|| recv(&self.socket, &mut *self.buffer, RecvFlags::empty()));
            let Ok((length, _)) = read else {
                return read.err() != Some(Errno::AGAIN);
            };
            let own = [NEW_ELEMENT, DELETE_ELEMENT, NEW_GENERATION];
            if messages(&self.buffer[..length]).any(|message| !own.contains(&message.kind)) {
                return true;
            }
        }
    }
}

impl AsFd for RuleWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `struct nfgenmsg`: family, version 0, resource id in network byte order.
pub(super) fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn padded(port: &str) -> [u8; NAME_SIZE] {
    let mut name = [0; NAME_SIZE];
    let length = port.len().min(NAME_SIZE - 1);
    name[..length].copy_from_slice(&port.as_bytes()[..length]);
    name
}

fn address_key(port: &str, address: Ipv4Addr) -> [u8; NAME_SIZE + 4] {
    let mut key = [0; NAME_SIZE + 4];
    key[..NAME_SIZE].copy_from_slice(&padded(port));
    key[NAME_SIZE..].copy_from_slice(&address.octets());
    key
}

pub(super) fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn absent_is_fine(answer: Result<(), Errno>) -> Result<(), Errno> {
    match answer {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
