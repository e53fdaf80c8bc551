//! A network card under a malicious driver.

use std::sync::{Arc, Mutex};

use sekisho_framelink::{FrameArena, FrameLink as _, NetHdr, Offloads, Rules, SeqPacket};
use sekisho_vmm::virtio::VirtioPci;
use sekisho_vmm::virtio::net::{Counters, Net};
use sekisho_vmm::worker::Worker;

use crate::TURNS;
use crate::virtio_fixture::card::{ETHERNET_MTU, card, plug_gate};
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{Driver, Ring, VERSION_1, put};
use crate::virtio_fixture::transport::BarTransport;
use crate::virtio_fixture::{Machine, settle};

pub(crate) const HEADER: usize = 12;
pub(crate) const CSUM: u64 = 1;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const GUEST_TSO4: u64 = 1 << 7;
pub(crate) const HOST_TSO4: u64 = 1 << 11;
pub(crate) const MRG_RXBUF: u64 = 1 << 15;
pub(crate) const STATUS: u64 = 1 << 16;
pub(crate) const CTRL_VQ: u64 = 1 << 17;
pub(crate) const ALL: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    uso: true,
};

/// A network card, its gate, and the guest's driver.
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) worker: Worker,
    pub(crate) device: Arc<Mutex<VirtioPci<Net>>>,
    pub(crate) gate: SeqPacket,
    pub(crate) arena: FrameArena,
    pub(crate) driver: Driver,
    pub(crate) receive: Ring,
    pub(crate) transmit: Ring,
    pub(crate) control: Ring,
}

impl Bench {
    pub(crate) fn new(features: u64) -> Self {
        let mut machine = Machine::new();
        let (slot, device) = machine.add(card());
        let mut worker = machine.start();
        let rules = Rules {
            offloads: ALL,
            mtu: ETHERNET_MTU,
        };
        let gate = plug_gate(&device, rules);
        let transport = BarTransport::find(&machine, slot);
        transport.set_vector(0, 0x40, None);
        let mut driver = Driver::start(transport, features | VERSION_1);
        let receive = driver.ring(0, 64);
        let transmit = driver.ring(1, 64);
        let control = driver.ring(2, 32);
        driver.transport.set_vector(0, 0x40, None);
        driver.transport.set_vector(1, 0x41, Some(0));
        driver.transport.set_vector(2, 0x42, Some(1));
        driver.go();
        settle(&mut worker, TURNS);
        Self {
            machine,
            worker,
            device,
            gate,
            arena: FrameArena::new(64),
            driver,
            receive,
            transmit,
            control,
        }
    }

    /// Sends one message that lies in one buffer; the device has to give it back.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let buffer = take_pages(17);
        put(buffer, message);
        let length = u32::try_from(message.len()).unwrap();
        self.transmit.offer(0, &[(buffer, length, 0)]);
        self.kick();
        assert_eq!(self.transmit.take_used(), Some((0, 0)), "not completed");
        assert!(!self.driver.needs_reset());
    }

    pub(crate) fn kick(&mut self) {
        self.driver.kick(&self.transmit);
        settle(&mut self.worker, TURNS);
    }

    /// What the gate got, without headers.
    pub(crate) fn at_gate(&mut self) -> Vec<Vec<u8>> {
        self.gate.recv_batch(&mut self.arena).unwrap();
        self.arena
            .frames()
            .map(|frame| frame.frame.to_vec())
            .collect()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.device.lock().unwrap().device().counters()
    }

    /// Turns the loop for the queue of received frames.
    pub(crate) fn kick_receive(&mut self) {
        self.driver.kick(&self.receive);
        settle(&mut self.worker, TURNS);
    }

    /// The card still works.
    pub(crate) fn assert_alive(&mut self) {
        let frame = [0x55; 60];
        self.send(&message(NetHdr::default(), &frame));
        assert_eq!(self.at_gate(), [frame.to_vec()]);
    }
}

pub(crate) fn message(header: NetHdr, frame: &[u8]) -> Vec<u8> {
    [&header.emit()[..], frame].concat()
}
