//! The office LAN itself: the wire that the uplink hands over while a port is proven, and the packets
//! on it.
//!
//! Before each batch of packets the gate asks the kernel whether the port's cable is still the one that
//! was proven: no process of ours has to be in time with the news.
//!
//! The gate knows no address and no neighbour of that LAN. It reads and writes IPv4 packets; next
//! hop, ARP and the port are the kernel's, in the uplink's namespace, under the uplink's rules.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sekisho_control::{GateToUplink, UplinkToGate, WireId};
use sekisho_framelink::HEADER_LEN;
use thiserror::Error;

use super::admit::{Admitted, Origin, Refusal, Rule, Subject};
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

    pub(super) fn close(&mut self, id: WireId) {
        self.wire.take_if(|wire| wire.id == id);
    }
}

impl Gate {
    /// The machine wants the wire of a proven port.
    pub(super) fn ask_wire(&mut self, port: String) {
        let (address, mtu) = (self.address, self.mtu);
        self.tell_uplink(&GateToUplink::AskWire { port, address, mtu });
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
        } = message
        else {
            return;
        };
        if self.wiring.wire.is_some() {
            tracing::warn!(%port, "a second wire beside the one in use");
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
                });
                // Where no proof wants it the machine closes it again.
                self.happen(Event::WireUp(id, port, kind), now);
            }
            Err(why) => tracing::warn!(%port, "{why}"),
        }
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
