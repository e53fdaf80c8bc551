//! The kernel's tables, over netlink: links, addresses and routes, and the sets of the packet
//! filter. Blocking requests with acknowledgement, and sockets of events for epoll.

mod carrier;
mod counter;
mod ethtool;
mod neighbour;
mod route;
mod sets;
mod steer;
mod wire;
mod wireless;

pub(crate) use carrier::{Carrier, open as open_carrier};
pub(crate) use counter::Counter;
pub(crate) use ethtool::Ethtool;
pub(crate) use neighbour::{Neighbour, NeighbourWatch};
pub(crate) use route::{HostRoute, Link, LinkEvent, LinkEvents, Routing};
pub(crate) use sets::{AddressSet, PortSet, RuleWatch, Sets};
pub(crate) use steer::{MARK, Steer};
pub(crate) use wireless::Wireless;

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink,
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use self::wire::{DONE, ERROR, Message, Writer, messages};

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused to {what}: {errno}")]
pub struct NetlinkError {
    what: String,
    errno: Errno,
}

/// Reads `data` as a datagram of the kernel's: see [`crate::fuzzing`].
///
/// # Panics
/// When what was read breaks what its types promise.
pub(crate) fn fuzz(data: &[u8]) {
    for message in messages(data) {
        let _ = message.errno();
        if let Some(LinkEvent::Changed(link)) = route::event(&message) {
            assert!(!link.name.is_empty() && link.name.len() <= data.len());
            assert!(
                link.up || !link.carrier,
                "no carrier on a link that is down"
            );
            // The gate asks about the same link in other words.
            let holds = carrier::holds(message.body, link.index, link.losses);
            assert!(link.carrier || !holds);
        }
        neighbour::neighbour(&message);
        let count = wire::attributes(message.body).count();
        assert!(count <= message.body.len() / 4, "an attribute has a header");
    }
}

impl NetlinkError {
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }
}

fn failed(what: &str) -> impl Fn(Errno) -> NetlinkError + '_ {
    move |errno| NetlinkError {
        what: what.to_owned(),
        errno,
    }
}

/// The kernel answers a request before `sendto` returns; this is for the day it does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Kernel datagrams of a dump are at most 32 KiB (`netlink_dump`), events smaller.
const DATAGRAM: usize = 64 * 1024;

/// A socket for requests, one at a time.
#[derive(Debug)]
struct Requests {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Requests {
    fn open(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(failed("open a netlink socket"))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind a netlink socket"))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))
            .map_err(failed("bound the wait for netlink"))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
        })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends what was written and waits for the acknowledgement of `sequence`.
    fn acknowledged(&mut self, request: &Writer, sequence: u32) -> Result<(), Errno> {
        self.collect(request, sequence, |_| ())
    }

    /// Sends what was written; `each` sees every answer to `sequence` until the last.
    fn collect(
        &mut self,
        request: &Writer,
        sequence: u32,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        sendto(
            &self.socket,
            request.bytes(),
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        loop {
            let (length, _) = retry(|| recv(&self.socket, &mut *self.buffer, RecvFlags::empty()))?;
            for message in messages(&self.buffer[..length]) {
                // An error of an earlier request that nobody waited for, or of another message of
                // the batch, is not the answer.
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => {
                        return match message.errno() {
                            0 => Ok(()),
                            code => Err(Errno::from_raw_os_error(code)),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
