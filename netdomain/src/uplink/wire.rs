//! The wire of a proven port: a way for the work OS's packets onto the office LAN, in the kernel, that
//! the gate writes to and reads from by a TUN device.
//!
//! ```text
//! gate ──IPv4 packets── direct0 ──▶ forward rule (port, address) ──▶ route (next hop of the lease) ──▶ port
//! ```
//!
//! This process sees no packet. What it opens is narrow: the packet filter forwards between the
//! device and one port, from and to one address; the route is a nexthop object, which the kernel
//! itself takes away with the carrier, and with it the route, and never brings back by itself.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use super::{
    netlink::{AddressSet, NetlinkError, Routing, Sets, Steer, open_carrier},
    ports::OpenWire,
};
use crate::tun;
use sekisho_policy::Direct;

/// The device's name. No network card is called so, and ports are told apart from it by their kind:
/// it is no Ethernet link.
pub(crate) const DEVICE: &str = "direct0";

/// The device, made once before the process is closed in, and down whenever there is no wire.
#[derive(Debug)]
pub(super) struct Wire {
    device: OwnedFd,
    index: u32,
    /// By which the gate asks for the port's carrier.
    carrier: OwnedFd,
}

impl Wire {
    /// Makes the device in the caller's network namespace.
    pub(super) fn open(routing: &mut Routing, direct: Direct) -> io::Result<Self> {
        let device = tun::create(DEVICE)?;
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = name_to_index(&any, DEVICE)?;
        // Only what the device brings looks into the table that has a default route.
        routing.steer_device(DEVICE).map_err(io::Error::other)?;
        if direct == Direct::Bridged {
            routing.steer_marked().map_err(io::Error::other)?;
        }
        let carrier = open_carrier().map_err(io::Error::other)?;
        Ok(Self {
            device,
            index,
            carrier,
        })
    }

    /// The descriptors for the gate.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.device.as_fd(), self.carrier.as_fd()]
    }

    /// Joins the device to a port. What was done before a failure is left to [`Wire::cut`].
    ///
    /// Gives whether the port's carrier was there all the time: the proof is older than the route,
    /// and from the route on the kernel watches.
    pub(super) fn join(
        &self,
        plan: &OpenWire,
        routing: &mut Routing,
        sets: &mut Sets,
    ) -> Result<bool, NetlinkError> {
        routing.set_mtu(self.index, plan.mtu)?;
        routing.set_up(self.index, true)?;
        routing.steer(&self.steer(plan))?;
        if plan.lan.is_some() {
            sets.add_address(AddressSet::Member, &plan.port.name, plan.address)?;
        }
        sets.add_address(AddressSet::Direct, &plan.port.name, plan.address)?;
        let links = routing.links()?;
        Ok(links.iter().any(|link| {
            link.index == plan.port.index && link.carrier && link.losses == plan.losses
        }))
    }

    /// Parts the device from a port: first no packet passes, then the rest is tidied up.
    pub(super) fn cut(
        &self,
        plan: &OpenWire,
        routing: &mut Routing,
        sets: &mut Sets,
    ) -> Result<(), NetlinkError> {
        sets.remove_address(AddressSet::Direct, &plan.port.name, plan.address)?;
        if plan.lan.is_some() {
            sets.remove_address(AddressSet::Member, &plan.port.name, plan.address)?;
        }
        routing.set_up(self.index, false)?;
        routing.unsteer(&self.steer(plan))
    }

    fn steer(&self, plan: &OpenWire) -> Steer {
        Steer {
            device: self.index,
            port: plan.port.index,
            router: plan.router,
            address: plan.address,
            lan: plan.lan.map(|place| place.prefix),
        }
    }
}
