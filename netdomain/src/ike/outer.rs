//! The side of charon's network that looks at the gateway: a device, and an address on it for the path
//! in use.
//!
//! charon knows a change of path by a change of address, so each path is given one of its own; which
//! one has no meaning outside. The routes to the gateways say which address is the present one. The
//! one before stays on the device, because what the gateway sends in between is for that one.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::uplink::netlink::{HostRoute, NetlinkError, Routing};

/// The addresses, one path after the other: the "IPv4 Service Continuity Prefix" (RFC 7335), which is
/// for a host's own use. Two would do, if the network never changed twice before charon has looked: it
/// waits a tenth of a second first.
pub(super) const OUTERS: [Ipv4Addr; 6] = [
    Ipv4Addr::new(192, 0, 0, 1),
    Ipv4Addr::new(192, 0, 0, 2),
    Ipv4Addr::new(192, 0, 0, 3),
    Ipv4Addr::new(192, 0, 0, 4),
    Ipv4Addr::new(192, 0, 0, 5),
    Ipv4Addr::new(192, 0, 0, 6),
];
/// Name of the device.
pub(super) const NAME: &str = "outer";

/// The device, and what is on it.
#[derive(Debug)]
pub(super) struct Outer {
    device: OwnedFd,
    routing: RefCell<Routing>,
    index: u32,
    gateways: Vec<Ipv4Addr>,
    /// Place of the present address.
    present: Cell<usize>,
}

impl Outer {
    /// Takes the device, which is up, in the network of this thread, and gives it an address and
    /// routes to the gateways.
    pub(super) fn new(device: OwnedFd, gateways: Vec<Ipv4Addr>) -> io::Result<Self> {
        let mut routing = Routing::open().map_err(io::Error::other)?;
        let links = routing.links().map_err(io::Error::other)?;
        let index = links
            .iter()
            .find(|link| link.name == NAME)
            .map(|link| link.index)
            .ok_or_else(|| io::Error::other("the device is not there"))?;
        let outer = Self {
            device,
            routing: RefCell::new(routing),
            index,
            gateways,
            present: Cell::new(0),
        };
        outer.set().map_err(io::Error::other)?;
        Ok(outer)
    }

    /// The present address.
    pub(super) fn address(&self) -> Ipv4Addr {
        OUTERS[self.present.get()]
    }

    /// The address before.
    pub(super) fn before(&self) -> Ipv4Addr {
        OUTERS[(self.present.get() + OUTERS.len() - 1) % OUTERS.len()]
    }

    /// Another path: another address.
    pub(super) fn renew(&self) -> Result<(), NetlinkError> {
        let old = self.before();
        self.present.set((self.present.get() + 1) % OUTERS.len());
        self.set()?;
        self.routing.borrow_mut().remove_address(self.index, old)
    }

    fn set(&self) -> Result<(), NetlinkError> {
        let source = self.address();
        let mut routing = self.routing.borrow_mut();
        routing.add_address(self.index, source)?;
        for destination in self.gateways.iter().copied() {
            routing.add_host_route(&HostRoute {
                index: self.index,
                destination,
                source,
                via: None,
            })?;
        }
        Ok(())
    }
}

impl AsFd for Outer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
