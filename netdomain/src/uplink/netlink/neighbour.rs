//! What the kernel knows of neighbours: who answered ARP, who did not.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    socket_with,
};

use super::{
    DATAGRAM, NetlinkError, failed, retry,
    wire::{Message, attributes, messages, read_u16, read_u32},
};

/// `RTM_NEWNEIGH`.
const NEW_NEIGHBOUR: u16 = 28;
/// `RTMGRP_NEIGH`.
const GROUP_NEIGHBOUR: u32 = 4;
/// `NDA_DST`.
const DESTINATION: u16 = 1;
/// Length of `struct ndmsg`.
const HEADER: usize = 12;
const AF_INET: u8 = 2;
/// `NUD_REACHABLE` and `NUD_FAILED`. What lies between says nothing yet.
const REACHABLE: u16 = 0x02;
const FAILED: u16 = 0x20;

/// A neighbour that answers, or that was asked in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Interface index.
    pub(crate) index: u32,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Whether it answers.
    pub(crate) answers: bool,
}

/// The socket that tells of neighbours. News that are lost are lost: nothing is decided by them.
#[derive(Debug)]
pub(crate) struct NeighbourWatch {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl NeighbourWatch {
    /// Subscribes, in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(failed("open a netlink socket"))?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_NEIGHBOUR))
            .map_err(failed("subscribe to news of neighbours"))?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
        })
    }

    /// The neighbours of one datagram; empty where there is none, or none of interest.
    pub(crate) fn read(&mut self) -> Vec<Neighbour> {
        let Ok((length, _)) = retry(|| recv(&self.socket, &mut *self.buffer, RecvFlags::empty()))
        else {
            return Vec::new();
        };
        messages(&self.buffer[..length])
            .filter_map(|message| neighbour(&message))
            .collect()
    }
}

impl AsFd for NeighbourWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Layout: `struct ndmsg` of `linux/neighbour.h`.
pub(super) fn neighbour(message: &Message<'_>) -> Option<Neighbour> {
    let body = message.body;
    if message.kind != NEW_NEIGHBOUR || body.first() != Some(&AF_INET) {
        return None;
    }
    let state = read_u16(body, 8)?;
    if state & (REACHABLE | FAILED) == 0 {
        return None;
    }
    let (_, address) = attributes(body.get(HEADER..)?).find(|(kind, _)| *kind == DESTINATION)?;
    Some(Neighbour {
        index: read_u32(body, 4)?,
        address: <[u8; 4]>::try_from(address).ok()?.into(),
        answers: state & REACHABLE != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::netlink::wire::Writer;

    #[test]
    fn only_what_answered_or_failed_is_of_interest() {
        let read = |kind, family, state: u16| {
            let mut writer = Writer::default();
            writer.message(kind, 0, 0, |m| {
                m.raw(&[family, 0, 0, 0]);
                m.raw(&7u32.to_ne_bytes());
                m.raw(&state.to_ne_bytes());
                m.raw(&[0, 0]);
                m.attribute(DESTINATION, &[192, 168, 11, 1]);
            });
            messages(writer.bytes()).find_map(|message| neighbour(&message))
        };
        let answers = |answers| {
            Some(Neighbour {
                index: 7,
                address: Ipv4Addr::new(192, 168, 11, 1),
                answers,
            })
        };
        assert_eq!(read(NEW_NEIGHBOUR, AF_INET, REACHABLE), answers(true));
        assert_eq!(read(NEW_NEIGHBOUR, AF_INET, FAILED), answers(false));
        // NUD_STALE, IPv6, another message.
        assert_eq!(read(NEW_NEIGHBOUR, AF_INET, 0x04), None);
        assert_eq!(read(NEW_NEIGHBOUR, 10, REACHABLE), None);
        assert_eq!(read(16, AF_INET, REACHABLE), None);
    }
}
