//! Leases of which the address is also the work OS's: used once nobody else on the LAN was found to have
//! it, and watched from then on.

use std::time::Duration;

use rustix::event::epoll;
use sekisho_control::Report;
use smoltcp::wire::EthernetAddress;

use super::{Event, FRAMES_PER_TURN, Turn, UplinkError, act::random, now};
use crate::uplink::{
    dhcp::Lease,
    duplicate::{Step, Watch, open},
    frames::FrameSocket,
    ports::Action,
};

/// From here on: the ARP socket of the port with index `token - ARP`. Above any DHCP socket's.
pub(super) const ARP: u64 = 1 << 33;

/// A lease with the watch over its address.
pub(super) struct Lent {
    watch: Watch,
    socket: FrameSocket,
    lease: Lease,
}

impl Lent {
    pub(super) fn due(&self) -> Option<Duration> {
        self.watch.due()
    }
}

impl Turn {
    /// Takes what a DHCP server lent to a port.
    pub(super) fn lend(&mut self, index: u32, lease: Lease) -> Result<(), UplinkError> {
        let Some(mac) = self.ports.member_mac_at(index) else {
            return self.feed(Event::Bound(index, lease));
        };
        if let Some(lent) = self.lent.get_mut(&index) {
            if lent.watch.address() == lease.address {
                lent.lease = lease.clone();
                if lent.watch.is_free() {
                    return self.feed(Event::Bound(index, lease));
                }
                return Ok(());
            }
            // The server took the other one back.
            self.take_back(index);
            self.feed(Event::LeaseLost(index))?;
        }
        match open(index, lease.address) {
            Ok(socket) => {
                self.watch(&socket, ARP + u64::from(index))?;
                let watch = Watch::new(lease.address, mac, now(), random);
                let lent = Lent {
                    watch,
                    socket,
                    lease,
                };
                self.lent.insert(index, lent);
                self.on_lent_time()
            }
            // Without a look nothing is used. The exchange begins anew when there may be room again.
            Err(error) => {
                if self.shortage.add(Action::StartDhcp(index, mac), now()) {
                    tracing::warn!(index, %error, "no look for duplicates on this port for now");
                }
                Ok(())
            }
        }
    }

    /// The lease of a port is over, or its client.
    pub(super) fn take_back(&mut self, index: u32) {
        if let Some(lent) = self.lent.remove(&index) {
            let _ = epoll::delete(&self.epoll, &lent.socket);
        }
    }

    pub(super) fn on_arp(&mut self, index: u32) -> Result<(), UplinkError> {
        let mut buffer = FrameSocket::buffer();
        for _ in 0..FRAMES_PER_TURN {
            // The lease may have gone with the steps of the last frame.
            let Some(lent) = self.lent.get_mut(&index) else {
                break;
            };
            let Some(frame) = lent.socket.receive(&mut buffer) else {
                break;
            };
            let steps = lent.watch.on_frame(now(), frame);
            self.heed(index, steps)?;
        }
        Ok(())
    }

    pub(super) fn on_lent_time(&mut self) -> Result<(), UplinkError> {
        let now = now();
        let is_due = |lent: &Lent| lent.due().is_some_and(|due| due <= now);
        let due = self.lent.iter().filter(|(_, lent)| is_due(lent));
        let due: Vec<u32> = due.map(|(index, _)| *index).collect();
        for index in due {
            if let Some(lent) = self.lent.get_mut(&index) {
                let steps = lent.watch.on_time(now);
                self.heed(index, steps)?;
            }
        }
        Ok(())
    }

    fn heed(&mut self, index: u32, steps: Vec<Step>) -> Result<(), UplinkError> {
        for step in steps {
            let Some(lent) = self.lent.get(&index) else {
                break;
            };
            let lease = lent.lease.clone();
            match step {
                Step::Send(frame) => lent.socket.send(&frame),
                Step::Free => self.feed(Event::Bound(index, lease))?,
                Step::Taken(by) => {
                    self.take_back(index);
                    let on_trial = self.ports.is_on_trial(index);
                    if !self.declined.gives_back(index, on_trial) {
                        self.tell_of_duplicate(
                            index,
                            &format!(
                                "{} says of each address that it has it; {} is used",
                                EthernetAddress(by),
                                lease.address
                            ),
                        )?;
                        self.feed(Event::Bound(index, lease))?;
                        break;
                    }
                    let address = lease.address;
                    self.tell_of_duplicate(
                        index,
                        &format!(
                            "{address} is in use by {}; it is given back",
                            EthernetAddress(by)
                        ),
                    )?;
                    if let Some((client, _)) = self.clients.get_mut(&index) {
                        let steps = client.decline(now());
                        self.follow(index, steps)?;
                    }
                }
                Step::Disputed(by) => {
                    let address = lease.address;
                    self.tell_of_duplicate(
                        index,
                        &format!(
                            "{address} is the work OS's, and {} says that it has it",
                            EthernetAddress(by)
                        ),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn tell_of_duplicate(&mut self, index: u32, what: &str) -> Result<(), UplinkError> {
        let port = self.ports.port(index).map_or("a port", |(name, _)| name);
        let what = format!("{port}: duplicate address: {what}");
        tracing::warn!("{what}");
        self.report(&Report::Ignored { what })
    }
}
