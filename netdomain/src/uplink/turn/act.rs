//! What the ports' machine says, done in its order.

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::{event::epoll, io::Errno, net::Shutdown};
use sekisho_control::{ChannelError, Report, UplinkToGate};

use super::{Client, DHCP, Event, Turn, UplinkError, now};
use crate::uplink::{
    NetlinkError, dhcp,
    dot1x::Standing,
    gate_ended,
    netlink::{AddressSet, HostRoute},
    ports::{Action, At},
    supervisor,
};

/// How long a port may take to prove the office under the work OS's MAC: 802.1X with a patient
/// supplicant and a switch that thinks, a lease, and two questions to the beacon.
pub(super) const TRIAL: Duration = Duration::from_mins(1);

/// A transaction id that a neighbour cannot guess.
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Fails on no kernel that runs this program; a fixed id is only easier to guess.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

impl Turn {
    /// Does what the ports' machine says, in its order.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), UplinkError> {
        for action in self.ports.on(event) {
            self.act(action)?;
        }
        Ok(())
    }

    pub(super) fn act(&mut self, action: Action) -> Result<(), UplinkError> {
        match action {
            Action::Up(index) => or_gone(self.routing.set_up(index, true))?,
            Action::Down(index) => self.routing.set_up(index, false)?,
            Action::SetMac { port, mac, own } => self.set_mac(&port, mac, own)?,
            Action::Wake(index, magic) => {
                if let Some(ethtool) = &mut self.ethtool {
                    let can = ethtool.set_wake(index, magic)?;
                    tracing::debug!(index, magic, can, "waking by a magic packet");
                }
            }
            Action::StartDhcp(index, mac) => self.start_dhcp(index, mac)?,
            Action::StopDhcp(index) => {
                self.shortage.stopped(index);
                self.take_back(index);
                self.declined.forget(index);
                if let Some((_, socket)) = self.clients.remove(&index) {
                    let _ = epoll::delete(&self.epoll, &socket);
                }
            }
            Action::Configure {
                port,
                lease,
                destinations,
            } => {
                tracing::info!(
                    port = port.name,
                    address = %lease.address,
                    prefix = lease.prefix,
                    router = %lease.router,
                    server = %lease.server,
                    "leased"
                );
                let mut sets = |set, address| self.sets.add_address(set, &port.name, address);
                sets(AddressSet::NextHop, lease.router)?;
                sets(AddressSet::Own, lease.address)?;
                self.routers.leased(port.index, lease.router);
                or_gone(self.routing.add_address(port.index, lease.address))?;
                let hosts = destinations
                    .into_iter()
                    .filter(|host| *host != lease.router);
                for (destination, via) in [(lease.router, None)]
                    .into_iter()
                    .chain(hosts.map(|host| (host, Some(lease.router))))
                {
                    or_gone(self.routing.add_host_route(&HostRoute {
                        index: port.index,
                        destination,
                        source: lease.address,
                        via,
                    }))?;
                }
            }
            Action::BeginDot1x(port) => match &mut self.dot1x {
                Some(keeper) => keeper
                    .begin(port.index, &port.name)
                    .map_err(UplinkError::Dot1xEnded)?,
                None => self.feed(Event::Standing(port.index, Standing::Unable))?,
            },
            Action::EndDot1x(index) => {
                if let Some(keeper) = &mut self.dot1x {
                    keeper.end(index).map_err(UplinkError::Dot1xEnded)?;
                }
            }
            Action::Flush(index) => {
                self.routers.forget(index);
                self.routing.flush(index)?;
            }
            Action::Allow(port, set) => self.sets.add(set, &port)?,
            Action::Forbid(port, set) => self.sets.remove(set, &port)?,
            Action::Forget(port, set, address) => self.sets.remove_address(set, &port, address)?,
            Action::OpenPath { from, path } => self.open_path(from, path)?,
            Action::CutPath(id) => {
                self.shortage.cut(id);
                for socket in self.paths.remove(&id).unwrap_or_default() {
                    // The socket is one for all who hold a descriptor of it: the gate's dies too.
                    let _ = rustix::net::shutdown(&socket, Shutdown::Both);
                }
            }
            Action::OpenStream {
                id,
                transport,
                from,
                to,
            } => self.open_stream(id, transport, &from, to)?,
            Action::OpenBeacon { from, to } => self.open_beacon(from, to)?,
            Action::OpenKnock { from, to } => self.open_knock(&from, to)?,
            Action::OpenWire(plan) => self.open_wire(&plan)?,
            Action::ShutWire(plan) => {
                if let Some(wire) = &self.wire {
                    wire.cut(&plan, &mut self.routing, &mut self.sets)?;
                }
            }
            Action::Tell(UplinkToGate::CarrierLost { port }) => {
                self.beaconless.remove(&port);
                self.tell(&UplinkToGate::CarrierLost { port }, &[])?;
            }
            Action::Tell(message) => self.tell(&message, &[])?,
            Action::Report(report) => self.report(&report)?,
        }
        Ok(())
    }

    pub(super) fn start_dhcp(&mut self, index: u32, mac: [u8; 6]) -> Result<(), UplinkError> {
        self.take_back(index);
        let socket = match dhcp::open(index) {
            Ok(socket) => socket,
            // The link may be gone again; its event is on the way.
            Err(error) => {
                if self.shortage.add(Action::StartDhcp(index, mac), now()) {
                    tracing::warn!(index, %error, "no DHCP on this port for now");
                }
                return Ok(());
            }
        };
        self.watch(&socket, DHCP + u64::from(index))?;
        let member = self.ports.member_at(index).cloned();
        let client = Client::new(mac, now(), random).for_member(member);
        self.clients.insert(index, (client, socket));
        Ok(())
    }

    /// Sets a port's MAC. A card that does not take on the work OS's keeps its own, and the work OS the
    /// tunnel; one that does not take back its own is not to come up again.
    fn set_mac(
        &mut self,
        port: &At,
        mac: [u8; 6],
        own: Option<[u8; 6]>,
    ) -> Result<(), UplinkError> {
        let set = self.routing.set_mac(port.index, mac, own);
        let until = own.is_some().then(|| now() + TRIAL);
        match (set, until) {
            (Ok(()), Some(until)) => {
                tracing::info!(port = port.name, "the port takes on the work OS's MAC");
                self.trials.insert(port.index, until);
            }
            (Ok(()), None) => {
                tracing::info!(port = port.name, "the port has its own MAC again");
                self.trials.remove(&port.index);
            }
            (Err(error), Some(_)) => {
                tracing::warn!(port = port.name, %error, "no place on the office LAN");
                self.trials.insert(port.index, now());
            }
            (Err(error), None) if error.errno() == Errno::NODEV => {}
            (Err(error), None) => return Err(error.into()),
        }
        Ok(())
    }

    /// A gate that does not take what it must hear is no gate: this process ends, its sockets with
    /// it, and the supervisor starts both afresh.
    pub(super) fn tell(
        &self,
        message: &UplinkToGate,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), UplinkError> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        match gate.send(message, fds) {
            Ok(()) => Ok(()),
            // Its end is read in its turn.
            Err(error) if closed(&error) => Ok(()),
            Err(error) => Err(gate_ended(error)),
        }
    }

    pub(super) fn report(&mut self, report: &Report) -> Result<(), UplinkError> {
        tracing::debug!(?report);
        match self.control.send(report, &[]) {
            // News may be lost, the network not.
            Err(ChannelError::Full) | Ok(()) => Ok(()),
            Err(error) => Err(supervisor(error)),
        }
    }
}

fn closed(error: &ChannelError) -> bool {
    error.ends()
}

/// A link can leave between its event and what is done about it; its own event follows.
fn or_gone(answer: Result<(), NetlinkError>) -> Result<(), UplinkError> {
    match answer {
        Err(error)
            if matches!(
                error.errno(),
                Errno::NODEV | Errno::NETDOWN | Errno::NETUNREACH
            ) =>
        {
            tracing::warn!(%error, "a link left meanwhile");
            Ok(())
        }
        other => Ok(other?),
    }
}
