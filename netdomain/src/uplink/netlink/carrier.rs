//! The kernel's count of how often a link lost its carrier, asked for by whoever holds the socket.
//!
//! An event of a lost carrier may come late: the kernel looks after links once a second
//! (`net/core/link_watch.c`), and a loss and a return in between are one event or none. The count
//! (`IFLA_CARRIER_DOWN_COUNT`) grows in the moment in which the driver tells of the loss. So the gate
//! asks for it before it writes onto a wire, whatever events are on their way.
//!
//! The socket is the uplink's, in the uplink's namespace. With it the gate can read the kernel's
//! tables and nothing more: every change needs `CAP_NET_ADMIN` of the sender as well (`netlink_capable`).

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
        recv, sendto, socket_with, sockopt,
    },
};

use super::{
    NetlinkError, failed,
    route::{IFF_LOWER_UP, IFF_UP, LINK_CARRIER_DOWN_COUNT, LINK_HEADER, NEW_LINK},
    wire::{REQUEST, attributes, messages, read_u32},
};

/// `RTM_GETLINK`, `IFLA_EXT_MASK` and `RTEXT_FILTER_SKIP_STATS`: a shorter answer.
const GET_LINK: u16 = 18;
const LINK_WHAT: u16 = 29;
const NO_STATISTICS: u32 = 8;
/// A link without statistics takes about a kilobyte.
const ANSWER: usize = 16 * 1024;
/// Answers to others that are passed over: a gate that was killed left one at most.
const STALE: usize = 4;

/// Length of `struct nlmsghdr`, and of the request with it.
const HEADER: usize = 16;
const QUESTION: usize = HEADER + LINK_HEADER + 8;

/// Opens a socket for such questions, in the caller's network namespace.
pub(crate) fn open() -> Result<OwnedFd, NetlinkError> {
    socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(failed("open a netlink socket"))
}

/// The carrier of one link, as it was when a proof was made.
#[derive(Debug)]
pub(crate) struct Carrier {
    socket: OwnedFd,
    index: u32,
    losses: u32,
    sequence: u32,
    answer: Box<[u8]>,
}

impl Carrier {
    /// Of the link with this index, which had lost its carrier so often. `None` if the descriptor
    /// is no netlink socket. `sequence` is to differ from holder to holder.
    pub(crate) fn new(socket: OwnedFd, index: u32, losses: u32, sequence: u32) -> Option<Self> {
        let family = sockopt::socket_domain(&socket);
        (family == Ok(AddressFamily::NETLINK)).then(|| Self {
            socket,
            index,
            losses,
            sequence,
            answer: vec![0; ANSWER].into_boxed_slice(),
        })
    }

    /// Whether the carrier is there, and has been all the time. Any doubt is a no.
    pub(crate) fn holds(&mut self) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.index, self.sequence);
        let kernel = SocketAddrNetlink::new(0, 0);
        if sendto(self.socket.as_fd(), &question, SendFlags::DONTWAIT, &kernel).is_err() {
            return false;
        }
        // The kernel has answered before `sendto` returns.
        for _ in 0..=STALE {
            let flags = RecvFlags::DONTWAIT;
            let length = match recv(&self.socket, &mut *self.answer, flags) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            };
            let mut answers = messages(&self.answer[..length]);
            if let Some(link) = answers.find(|answer| answer.sequence == self.sequence) {
                return link.kind == NEW_LINK && holds(link.body, self.index, self.losses);
            }
        }
        false
    }
}

pub(super) fn holds(link: &[u8], index: u32, losses: u32) -> bool {
    let up = IFF_UP | IFF_LOWER_UP;
    let flags = read_u32(link, 8).unwrap_or(0);
    let count = link.get(LINK_HEADER..).and_then(|rest| {
        let (_, value) = attributes(rest).find(|(kind, _)| *kind == LINK_CARRIER_DOWN_COUNT)?;
        read_u32(value, 0)
    });
    read_u32(link, 4) == Some(index) && flags & up == up && count == Some(losses)
}

/// Without an allocation, as it is asked once for each batch of packets.
fn question(index: u32, sequence: u32) -> [u8; QUESTION] {
    let mut bytes = [0; QUESTION];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    // 40 bytes in all, an attribute of eight.
    put(0, &40u32.to_ne_bytes());
    put(4, &GET_LINK.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    put(8, &sequence.to_ne_bytes());
    put(HEADER + 4, &index.to_ne_bytes());
    put(HEADER + LINK_HEADER, &8u16.to_ne_bytes());
    put(HEADER + LINK_HEADER + 2, &LINK_WHAT.to_ne_bytes());
    put(HEADER + LINK_HEADER + 4, &NO_STATISTICS.to_ne_bytes());
    bytes
}
const _: () = assert!(QUESTION == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_a_link_that_is_there() {
        // The loopback of whatever namespace this runs in has the index 1 and never lost anything.
        let socket = || open().unwrap();
        let mut there = Carrier::new(socket(), 1, 0, 7).unwrap();
        let mut lost = Carrier::new(socket(), 1, 1, 7).unwrap();
        let mut gone = Carrier::new(socket(), 0x7fff_fff0, 0, 7).unwrap();
        let is_up = std::fs::read_to_string("/sys/class/net/lo/carrier").is_ok();
        assert_eq!(there.holds(), is_up);
        assert_eq!(there.holds(), is_up, "again");
        assert!(!lost.holds(), "another count");
        assert!(!gone.holds(), "no such link");
        let pipe = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(Carrier::new(pipe.into(), 1, 0, 7).is_none());
    }

    #[test]
    fn an_answer_that_is_no_answer_is_a_no() {
        assert!(!holds(&[], 1, 0));
        let mut link = [0; LINK_HEADER + 8];
        link[4..8].copy_from_slice(&1u32.to_ne_bytes());
        link[8..12].copy_from_slice(&(IFF_UP | IFF_LOWER_UP).to_ne_bytes());
        assert!(!holds(&link[..LINK_HEADER], 1, 0), "no count");
        link[LINK_HEADER..LINK_HEADER + 2].copy_from_slice(&8u16.to_ne_bytes());
        link[LINK_HEADER + 2..LINK_HEADER + 4]
            .copy_from_slice(&LINK_CARRIER_DOWN_COUNT.to_ne_bytes());
        assert!(holds(&link, 1, 0));
        assert!(!holds(&link, 2, 0) && !holds(&link, 1, 1));
        link[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        assert!(!holds(&link, 1, 0), "no carrier");
    }
}
