//! The two ends between smoltcp's TCP and the gate: one packet in, a few packets out, in memory that
//! is used again.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::moment::Moment;

/// Packets that wait to be taken. smoltcp keeps what does not fit and sends it later.
const WAITING: usize = 32;

/// Every packet is for the one host of the other side.
const EVERYWHERE: u8 = 0;

/// Whether checksums of what comes in are still to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// They are checked here.
    Checked,
    /// The caller has, where there are any: the guest may leave them to the gate, in whose memory
    /// nothing changes.
    Known,
}

/// One host with TCP and nothing else.
pub(super) struct Host {
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    out: Out,
    mtu: usize,
    sums: Sums,
}

/// Packets on their way out, and buffers of such that have left.
#[derive(Default)]
struct Out {
    waiting: VecDeque<Vec<u8>>,
    free: Vec<Vec<u8>>,
}

/// What smoltcp sees of the gate, for the time of one call.
struct Ends<'a> {
    incoming: Option<&'a [u8]>,
    out: &'a mut Out,
    mtu: usize,
    sums: Sums,
}

pub(super) struct In<'a>(&'a [u8]);

pub(super) struct Slot<'a>(&'a mut Out);

impl RxToken for In<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = self.0.free.pop().unwrap_or_default();
        packet.clear();
        packet.resize(len, 0);
        let result = f(&mut packet);
        self.0.waiting.push_back(packet);
        result
    }
}

impl Device for Ends<'_> {
    type RxToken<'t>
        = In<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Slot<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(In<'_>, Slot<'_>)> {
        if self.out.waiting.len() >= WAITING {
            return None;
        }
        let incoming = self.incoming.take()?;
        Some((In(incoming), Slot(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        (self.out.waiting.len() < WAITING).then_some(Slot(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        let sums = match self.sums {
            Sums::Checked => Checksum::Both,
            Sums::Known => Checksum::Tx,
        };
        capabilities.checksum.ipv4 = sums;
        capabilities.checksum.tcp = sums;
        capabilities
    }
}

impl Host {
    /// A host with this address. `seed` makes its sequence numbers unlike those of the last one.
    pub(super) fn new(address: Ipv4Addr, mtu: u16, seed: u64, sums: Sums, now: Moment) -> Self {
        let (mut out, mtu) = (Out::default(), usize::from(mtu));
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut ends = Ends {
            incoming: None,
            out: &mut out,
            mtu,
            sums,
        };
        let mut interface = Interface::new(config, &mut ends, instant(now));
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(address), EVERYWHERE));
        });
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            out,
            mtu,
            sums,
        }
    }

    /// Adds a socket with room for so much each way.
    pub(super) fn add(&mut self, receive: usize, send: usize) -> SocketHandle {
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(receive), buffer(send));
        // An answer is one write and is to leave at once.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Takes a packet, if there is one, and does what is due.
    pub(super) fn turn(&mut self, packet: Option<&[u8]>, now: Moment) {
        let mut ends = Ends {
            incoming: packet,
            out: &mut self.out,
            mtu: self.mtu,
            sums: self.sums,
        };
        self.interface
            .poll(instant(now), &mut ends, &mut self.sockets);
    }

    /// When [`Host::turn`] is due without a packet.
    pub(super) fn due(&mut self, now: Moment) -> Option<Moment> {
        if self.out.waiting.len() >= WAITING {
            // It waits for its packets to be taken, and they are about to be.
            return None;
        }
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(Moment::from_boot(std::time::Duration::from_micros(micros)))
    }

    /// The next packet that is to leave. Given back with [`Host::sent`].
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        self.out.waiting.pop_front()
    }

    /// Gives a packet's memory back.
    pub(super) fn sent(&mut self, packet: Vec<u8>) {
        if self.out.free.len() < WAITING {
            self.out.free.push(packet);
        }
    }
}

fn instant(now: Moment) -> Instant {
    Instant::from_micros(i64::try_from(now.since_boot().as_micros()).unwrap_or(i64::MAX))
}
