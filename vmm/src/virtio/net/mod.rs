//! Network card (virtio 1.2, section 5.1) whose wire is a frame link to the gate.
//!
//! The device forwards frames and looks only at the `virtio_net_hdr`: addresses, protocols and
//! policy are the gate's. It never queues: a full link stops the transmit queue, an empty receive
//! queue stops the link, and a link that ended is shown to the guest as a cable that was pulled.

mod control;
mod features;
mod receive;
mod transmit;

use std::os::fd::OwnedFd;

use sekisho_framelink::{FrameLink as _, LinkError, Offloads, Rules, SeqPacket};

use self::receive::Receive;
use self::transmit::Transmit;
use super::{Chain, Device, DriverFault, Io, Kind, Progress, QUEUE_SIZE};
use crate::worker::{Interest, Source, Turn};

const RECEIVE_QUEUE: usize = 0;
const TRANSMIT_QUEUE: usize = 1;
const CONTROL_QUEUE: usize = 2;
/// Entries of the control queue: Linux and Windows have one command under way.
const CONTROL_QUEUE_SIZE: u16 = 64;
/// One queue pair: two vectors, and one for the configuration. The drivers for Windows run degraded
/// with any other number (`machine.md`, section 1.2).
const VECTORS: u16 = 3;
const LINK_TOKEN: u32 = 0;
/// Longest IP packet of any Ethernet. A driver that knows nothing of `VIRTIO_NET_F_MTU` sends such;
/// they go to the gate, which tells the guest how much fits.
const ETHERNET_MTU: u16 = 1500;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// What the board decides about a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Longest IP packet, in bytes.
    pub mtu: u16,
    /// What the guest may leave to the gate.
    pub to_gate: Offloads,
    /// What the gate may leave to the guest.
    pub to_guest: Offloads,
}

impl Settings {
    /// A card with all offloads in both directions.
    pub fn new(mac: [u8; 6], mtu: u16) -> Self {
        let all = Offloads {
            csum: true,
            tso4: true,
            tso6: true,
            uso: true,
        };
        Self {
            mac,
            mtu,
            to_gate: all,
            to_guest: all,
        }
    }
}

/// Frames since power-on. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that the link took from the guest.
    pub sent: u64,
    /// Frames of the guest that were dropped because the link is down.
    pub sent_link_down: u64,
    /// Frames of the guest that were dropped: too short, too long, or a header that breaks the
    /// rules of what was negotiated.
    pub sent_malformed: u64,
    /// How often a full link stopped the transmit queue.
    pub stalls: u64,
    /// Frames given to the guest.
    pub received: u64,
    /// Frames for the guest that no receive buffers it may ever post have room for.
    pub received_no_room: u64,
    /// How often the link ended.
    pub link_losses: u64,
    /// Commands on the control queue that were refused.
    pub refused_commands: u64,
}

/// The device.
pub struct Net {
    settings: Settings,
    link: Option<SeqPacket>,
    /// Number of the present link, to tell its descriptor from an earlier one.
    generation: u32,
    config_changed: bool,
    /// What the driver accepted, while it runs.
    features: Option<u64>,
    receive: Receive,
    transmit: Transmit,
    control: Chain,
    control_notified: bool,
    counters: Counters,
}

impl Net {
    /// A card with its cable pulled; [`Net::attach`] plugs it in.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            link: None,
            generation: 0,
            config_changed: false,
            features: None,
            receive: Receive::new(),
            transmit: Transmit::default(),
            control: Chain::default(),
            control_notified: false,
            counters: Counters::default(),
        }
    }

    /// Takes a frame link's socket, in place of the present one; the link is up from then on. Call
    /// it through [`super::VirtioPci::update`], so that guest and worker hear of it.
    pub fn attach(&mut self, socket: OwnedFd) -> Result<(), LinkError> {
        self.link = Some(SeqPacket::from_fd(socket, self.link_rules())?);
        self.generation = self.generation.wrapping_add(1);
        self.config_changed = true;
        self.transmit.resume();
        self.receive.resume();
        Ok(())
    }

    /// Whether there is a link.
    pub fn link_up(&self) -> bool {
        self.link.is_some()
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn link_lost(&mut self, error: LinkError) {
        if self.link.take().is_some() {
            tracing::info!(%error, "the frame link ended; the guest sees its cable pulled");
            self.counters.link_losses += 1;
            self.config_changed = true;
            self.transmit.resume();
        }
    }

    /// What the gate may send: what the guest accepted to receive. Checksums are allowed always and
    /// completed here where the guest did not accept to.
    fn link_rules(&self) -> Rules {
        let accepted = self.features.unwrap_or(0);
        let granted = self.settings.to_guest;
        Rules {
            offloads: Offloads {
                csum: granted.csum,
                ..features::guest_offloads(accepted)
            },
            mtu: self.settings.mtu,
        }
    }

    fn refresh_rules(&mut self) {
        let rules = self.link_rules();
        if let Some(link) = &mut self.link {
            link.set_rules(rules);
        }
    }

    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.settings.mac);
        let status = if self.link_up() { LINK_UP } else { 0 };
        config[6..8].copy_from_slice(&status.to_le_bytes());
        config[8..10].copy_from_slice(&1_u16.to_le_bytes());
        config[10..].copy_from_slice(&self.settings.mtu.to_le_bytes());
        config
    }
}

impl Device for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        features::offered(&self.settings)
    }

    fn accepts(&self, accepted: u64) -> bool {
        features::consistent(accepted)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE, QUEUE_SIZE, CONTROL_QUEUE_SIZE]
    }

    fn vectors(&self) -> u16 {
        VECTORS
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.config();
        for (at, byte) in (offset..).zip(data) {
            *byte = config.get(at).copied().unwrap_or(0);
        }
    }

    fn activate(&mut self, accepted: u64) {
        self.features = Some(accepted);
        self.refresh_rules();
    }

    fn reset(&mut self) -> Progress {
        self.features = None;
        self.control_notified = false;
        self.receive.reset();
        self.transmit = Transmit::default();
        self.refresh_rules();
        Progress::Done
    }

    fn notified(&mut self, index: usize) {
        match index {
            RECEIVE_QUEUE => self.receive.resume(),
            TRANSMIT_QUEUE => self.transmit.notified(),
            CONTROL_QUEUE => self.control_notified = true,
            _ => {}
        }
    }

    fn ready(&mut self, _token: u32) {
        let waited_for = self.receive.wants_link() || self.transmit.blocked();
        if waited_for {
            self.receive.link_ready();
            self.transmit.resume();
        } else {
            // Nothing was waited for, and so only a hang-up wakes us.
            self.link_lost(LinkError::Closed);
        }
    }

    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, DriverFault> {
        let Some(accepted) = self.features else {
            return Ok(Turn::Idle);
        };
        let [receive_queue, transmit_queue, control_queue] = io.queues else {
            return Ok(Turn::Idle);
        };
        let mut turn = self.serve_control(io.ram, control_queue)?;

        let rules = Rules {
            offloads: features::host_offloads(accepted),
            mtu: self.settings.mtu.max(ETHERNET_MTU),
        };
        let counters = &mut self.counters;
        let link = self.link.as_mut();
        let sent = self
            .transmit
            .turn(io.ram, transmit_queue, link, rules, counters)?;
        let style = features::receive_style(self.features.unwrap_or(accepted));
        let link = self.link.as_mut();
        let received = self
            .receive
            .turn(io.ram, receive_queue, link, style, counters)?;

        for result in [sent, received] {
            match result {
                Ok(Turn::More) => turn = Turn::More,
                Ok(Turn::Idle) => {}
                Err(error) => {
                    self.link_lost(error);
                    // Once more, for what is in the transmit queue and is dropped now.
                    turn = Turn::More;
                }
            }
        }
        Ok(turn)
    }

    fn take_config_change(&mut self) -> bool {
        std::mem::take(&mut self.config_changed)
    }

    fn sources<'a>(&'a self, list: &mut Vec<Source<'a>>) {
        let Some(link) = &self.link else {
            return;
        };
        list.push(Source {
            token: LINK_TOKEN,
            fd: link.as_fd(),
            generation: self.generation,
            interest: Interest {
                read: self.receive.wants_link(),
                write: self.transmit.blocked(),
                edge: false,
            },
        });
    }
}
