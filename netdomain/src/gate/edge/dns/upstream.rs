//! The city's side of DNS over TCP: an answer that did not fit a datagram is asked for again, of the
//! same server, through the tunnel.
//!
//! Only a connection of the guest's leads here, and only when the server's own answer said that it
//! was cut (RFC 7766, section 5). So a server is asked for nothing over TCP that it was not asked
//! before, and the guest opens no connection into the tunnel by itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use sekisho_policy::Protocol;
use smoltcp::iface::SocketHandle;
use smoltcp::wire::IpAddress;

use super::question::{MAX_OWN, ask_plain};
use super::segments::{Host, Sums};
use super::stream::{LENGTH, MAX_LONG};
use super::{DNS, Pending};
use crate::gate::packet::{Flow, Packet};
use crate::moment::Moment;

/// Long answers under way. Each place holds its buffers for good.
const FETCHES: usize = 4;
/// From the first segment to the end of the answer: as long as the guest waits.
const WITHIN: Duration = Duration::from_secs(5);
/// Room for one answer and its length. A server that sends more waits until it is read.
const RECEIVE: usize = LENGTH + MAX_LONG;
const SEND: usize = LENGTH + MAX_OWN;

#[derive(Debug)]
struct Fetch {
    handle: SocketHandle,
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    held: Pending,
    port: u16,
    asked: bool,
    by: Moment,
}

/// Connections to the servers.
pub(super) struct Upstream {
    host: Host,
    fetches: Vec<Fetch>,
}

impl Upstream {
    /// Nothing is under way. The host has the guest's own address, as its questions have.
    pub(super) fn new(address: Ipv4Addr, mtu: u16, seed: u64, now: Moment) -> Self {
        let mut host = Host::new(address, mtu, seed, Sums::Checked, now);
        let fetches = (0..FETCHES).map(|_| Fetch {
            handle: host.add(RECEIVE, SEND),
            task: None,
        });
        let fetches = fetches.collect();
        Self { host, fetches }
    }

    /// Whether there is a place.
    pub(super) fn has_room(&self) -> bool {
        self.fetches.iter().any(|fetch| fetch.task.is_none())
    }

    /// Asks `held` again, from `port`. Without a place nothing is asked.
    pub(super) fn fetch(&mut self, held: Pending, port: u16, now: Moment) {
        let free = self.fetches.iter_mut().find(|fetch| fetch.task.is_none());
        let Some(fetch) = free else {
            return;
        };
        let Host {
            interface, sockets, ..
        } = &mut self.host;
        let socket = sockets.get_mut::<smoltcp::socket::tcp::Socket<'_>>(fetch.handle);
        socket.abort();
        let server = (IpAddress::Ipv4(held.server), DNS);
        // An open address, a port that is not zero, a socket that is closed: where it failed all the
        // same, the next look finds it closed.
        let _ = socket.connect(interface.context(), server, port);
        fetch.task = Some(Task {
            held,
            port,
            asked: false,
            by: now + WITHIN,
        });
        self.tick(now);
    }

    /// Whether a packet out of the tunnel belongs to a connection of ours.
    pub(super) fn owns(&self, flow: &Flow) -> bool {
        flow.protocol == Protocol::Tcp
            && flow.source_port == DNS
            && self.fetches.iter().any(|fetch| {
                fetch.task.as_ref().is_some_and(|task| {
                    task.held.server == flow.source && task.port == flow.destination_port
                })
            })
    }

    /// Takes such a packet.
    pub(super) fn segment(&mut self, packet: &Packet<'_>, now: Moment) {
        self.host.turn(Some(packet.bytes()), now);
        self.tick(now);
    }

    /// Asks what can be asked by now.
    pub(super) fn tick(&mut self, now: Moment) {
        self.host.turn(None, now);
        let mut asked = false;
        for fetch in &mut self.fetches {
            let Some(task) = fetch.task.as_mut().filter(|task| !task.asked) else {
                continue;
            };
            let socket = self.host.socket(fetch.handle);
            if socket.may_send() {
                let mut own = [0; LENGTH + MAX_OWN];
                let len = ask_plain(&task.held, &mut own);
                // It fits an empty buffer.
                let _ = socket.send_slice(&own[..len]);
                task.asked = true;
                asked = true;
            }
        }
        if asked {
            self.host.turn(None, now);
        }
    }

    /// A question whose answer is whole, which is then in `answer`; or will never be, and `answer`
    /// is empty.
    pub(super) fn finished(&mut self, answer: &mut Vec<u8>, now: Moment) -> Option<Pending> {
        answer.clear();
        for fetch in &mut self.fetches {
            let Some(task) = &fetch.task else {
                continue;
            };
            let socket = self.host.socket(fetch.handle);
            let mut length = [0; LENGTH];
            let waits = task.by > now && socket.is_open() && (!task.asked || socket.may_recv());
            let told = socket.peek_slice(&mut length) == Ok(LENGTH);
            let length = usize::from(u16::from_be_bytes(length));
            if told && length <= MAX_LONG && socket.recv_queue() >= LENGTH + length {
                let _ = socket.recv_slice(&mut [0; LENGTH]);
                answer.resize(length, 0);
                if socket.recv_slice(answer) != Ok(length) {
                    answer.clear();
                }
            } else if waits && !(told && length > MAX_LONG) {
                continue;
            }
            // The server needs no leave: one question is all that it was asked.
            socket.abort();
            let held = fetch.task.take().map(|task| task.held);
            self.host.turn(None, now);
            return held;
        }
        None
    }

    /// When [`Upstream::tick`] and [`Upstream::finished`] are due.
    pub(super) fn due(&mut self, now: Moment) -> Option<Moment> {
        let tasks = self.fetches.iter().filter_map(|fetch| fetch.task.as_ref());
        // Where nothing is under way, nothing is due, and nothing more is looked at.
        let soonest = tasks.map(|task| task.by).min()?;
        let sooner = self.host.due(now);
        Some(sooner.map_or(soonest, |due| due.min(soonest)))
    }

    /// The next packet for the tunnel. Given back with [`Upstream::sent`].
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        self.host.packet()
    }

    /// Gives a packet's memory back.
    pub(super) fn sent(&mut self, packet: Vec<u8>) {
        self.host.sent(packet);
    }
}
