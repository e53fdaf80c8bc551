//! The office LAN itself: the wire that the uplink hands over while a port is proven, and the packets
//! on it.
//!
//! Before each batch of packets the gate asks the kernel whether the port's cable is still the one that
//! was proven: no process of ours has to be in time with the news.
//!
//! Where the work OS is a member of the LAN, its address changes with the way: it is that of the LAN's
//! lease while there is a wire, and the device file's again once the tunnel carries. Its cable is pulled
//! for a moment, as on any PC that comes to another network, and it asks for the address by itself.
//!
//! The gate knows no neighbour of that LAN. It reads and writes IPv4 packets; next
//! hop, ARP and the port are the kernel's, in the uplink's namespace, under the uplink's rules.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sekisho_control::{GateToUplink, LanPlace, UplinkToGate, WireId};
use sekisho_framelink::HEADER_LEN;
use sekisho_policy::Direct;
use thiserror::Error;

use super::admit::{Admitted, Origin, Refusal, Rule, Subject};
use super::device::Device;
use super::engine::{Gate, fill_random};
use super::guest::MOST_FROM_GUEST;
use super::packet::{Packet, Transport};
use super::path::{MAX_WHOLE, deliver_whole, send_whole, whole};
use super::situation::{Event, Situation};
use super::sockets::set_nonblocking;
use crate::moment::Moment;
use crate::tun;
use crate::uplink::netlink::Carrier;

/// Ethernet's number for IPv4, the only protocol of a wire.
const IPV4: u16 = 0x0800;
/// Packets read in one turn; each may be a super-packet of 64 KiB.
const READS: usize = 64;

/// Why a descriptor is no wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NotAWire {
    /// Not a TUN device with the header that is wanted.
    #[error("the descriptor is no TUN device with a virtio_net_hdr before each packet")]
    Kind,
    /// Nothing that the kernel could be asked by.
    #[error("the descriptor for the carrier is no netlink socket")]
    Carrier,
    /// The kernel refused something.
    #[error("the device cannot be used: {0}")]
    Device(Errno),
}

/// A wire in use.
#[derive(Debug)]
struct Wire {
    id: WireId,
    device: OwnedFd,
    carrier: Carrier,
    /// The work OS's place on the LAN, where it is a member of it.
    lan: Option<LanPlace>,
}

/// The wire, while there is one, and room for one packet of it.
#[derive(Debug)]
pub(super) struct Wiring {
    wire: Option<Wire>,
    room: Option<Box<[u8]>>,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            wire: None,
            room: Some(vec![0; MAX_WHOLE].into_boxed_slice()),
        }
    }
}

impl Wiring {
    pub(super) fn device(&self) -> Option<BorrowedFd<'_>> {
        self.wire.as_ref().map(|wire| wire.device.as_fd())
    }

    fn lan(&self) -> Option<LanPlace> {
        self.wire.as_ref()?.lan
    }

    pub(super) fn close(&mut self, id: WireId) {
        self.wire.take_if(|wire| wire.id == id);
    }
}

impl Gate {
    /// The machine wants the wire of a proven port.
    pub(super) fn ask_wire(&mut self, port: String) {
        let (address, mtu) = (self.address, self.mtu);
        let member = self.edge.member().clone();
        self.tell_uplink(&GateToUplink::AskWire {
            port,
            address,
            mtu,
            member,
        });
    }

    /// The uplink hands one over.
    pub(super) fn take_wire(
        &mut self,
        message: UplinkToGate,
        device: OwnedFd,
        carrier: OwnedFd,
        now: Moment,
    ) {
        let UplinkToGate::Wire {
            id,
            port,
            kind,
            index,
            losses,
            lan,
        } = message
        else {
            return;
        };
        if self.wiring.wire.is_some() {
            tracing::warn!(%port, "a second wire beside the one in use");
            return;
        }
        let fits = match self.plan.direct {
            Some(Direct::Bridged) => lan.is_some_and(|lan| self.may_live_at(&lan)),
            Some(Direct::Routed) => lan.is_none(),
            None => false,
        };
        if !fits {
            tracing::warn!(%port, ?lan, "a wire in another way than policy's");
            return;
        }
        let mut sequence = [0; 4];
        fill_random(&mut sequence);
        let carrier = Carrier::new(carrier, index, losses, u32::from_ne_bytes(sequence));
        let carrier = carrier.ok_or(NotAWire::Carrier);
        match check(&device).and(carrier) {
            Ok(carrier) => {
                self.wiring.wire = Some(Wire {
                    id,
                    device,
                    carrier,
                    lan,
                });
                // Where no proof wants it the machine closes it again.
                self.happen(Event::WireUp(id, port, kind), now);
            }
            Err(why) => tracing::warn!(%port, "{why}"),
        }
    }

    /// Whether the work OS can have this place: a host's address, and not the one by which it knows
    /// the gate.
    fn may_live_at(&self, lan: &LanPlace) -> bool {
        let host = |address: Ipv4Addr| {
            let first = address.octets()[0];
            first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
        };
        host(lan.address)
            && host(lan.router)
            && (1..=32).contains(&lan.prefix)
            && lan.address != lan.router
            && ![lan.address, lan.router].contains(&self.edge.router())
    }

    /// Gives the work OS the address of the way out that there is now. While there is none it keeps
    /// what it has: nothing leaves under it, and the same way may be back in a moment.
    pub(super) fn seat(&mut self, situation: Situation, now: Moment) {
        let place = match situation {
            Situation::Closed(_) => return,
            Situation::Tunnelled { .. } => self.edge.home(),
            Situation::Direct { .. } => self.wiring.lan().unwrap_or(self.edge.home()),
        };
        if place == self.edge.place() {
            return;
        }
        tracing::info!(address = %place.address, "the work OS has another address");
        self.edge.move_to(place);
        self.keeper.readdress(place.address);
        let device = Device {
            address: place.address,
            ..*self.edge.device()
        };
        self.resolver.readdress(&device, now);
        self.guest.detach();
        self.unplugged = true;
    }

    /// Asks the kernel whether the cable is still the one that was proven, before anything is
    /// written to the wire or taken from it. The uplink's word of a lost carrier may come later.
    pub(super) fn watch_carrier(&mut self, now: Moment) {
        let Some(wire) = &mut self.wiring.wire else {
            return;
        };
        if !wire.carrier.holds() {
            let id = wire.id;
            tracing::info!("the cable was pulled: the wire is closed");
            self.happen(Event::WireLost(id), now);
        }
    }

    /// Writes an admitted packet to the wire of the situation.
    pub(super) fn send_direct(&mut self, id: WireId, admitted: &Admitted<Packet<'_>>, now: Moment) {
        let Some(wire) = self.wiring.wire.as_ref().filter(|wire| wire.id == id) else {
            return;
        };
        match send_whole(wire.device.as_fd(), admitted, self.mtu) {
            Ok(()) => {}
            // The device is down, or gone.
            Err(error @ (Errno::IO | Errno::BADFD | Errno::NODEV)) => {
                tracing::info!(%error, "the wire takes nothing any more");
                self.happen(Event::WireLost(id), now);
            }
            // No room now: lost, as in any queue on the way.
            Err(_) => self.path.dropped += 1,
        }
    }

    /// Reads the wire until it is empty, the budget is spent or the guest's link is full.
    pub(super) fn read_wire(&mut self, now: Moment) {
        self.watch_carrier(now);
        let Some(mut room) = self.wiring.room.take() else {
            return;
        };
        for _ in 0..READS {
            let Some(wire) = self.wiring.wire.as_ref().filter(|_| !self.guest.is_full()) else {
                break;
            };
            let id = wire.id;
            match rustix::io::read(&wire.device, &mut room[..]) {
                Ok(len) => self.wire_packet(&room[..len], now),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => {
                    tracing::info!(%error, "the wire gives nothing any more");
                    self.happen(Event::WireLost(id), now);
                }
            }
        }
        self.wiring.room = Some(room);
    }

    fn wire_packet(&mut self, message: &[u8], now: Moment) {
        let mtu = self.mtu.max(MOST_FROM_GUEST);
        let parsed = whole(message, mtu)
            .map_err(|_| Rule::Malformed)
            .and_then(|(offload, bytes)| Packet::parse(bytes, offload).map_err(Rule::from));
        let packet = match parsed {
            Ok(packet) => packet,
            // The kernel sends its own news of neighbours and groups into every interface; IPv6 is
            // off there, but what is not IPv4 is none of ours in any case.
            Err(rule) => {
                if message.get(HEADER_LEN).is_some_and(|first| first >> 4 == 4) {
                    let subject = Subject::Frame { ether_type: IPV4 };
                    self.refused(&Refusal { rule, subject }, now);
                }
                return;
            }
        };
        let situation = self.machine.situation();
        if matches!(situation, Situation::Direct { .. }) && self.answers_name(&packet, now) {
            return self.serve_connections(now);
        }
        match self.keeper.admit(packet, Origin::Wire, &situation, now) {
            Ok(admitted) => {
                if matches!(packet.transport(), Transport::Tcp { .. }) {
                    self.findings.server_answered();
                }
                deliver_whole(&admitted, self.edge.ethernet(), self.mtu, &mut self.guest);
            }
            Err(refusal) => self.refused(&refusal, now),
        }
    }
}

/// Whether the kernel says that this is a device as it was agreed; and the gate never waits on it.
fn check(device: &OwnedFd) -> Result<(), NotAWire> {
    if !tun::is_one(device) {
        return Err(NotAWire::Kind);
    }
    set_nonblocking(device).map_err(NotAWire::Device)
}
