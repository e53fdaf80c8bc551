//! The loop: wait for something, then give everything its share.
//!
//! Waiting is by `poll` over at most some thirty descriptors, listed anew each turn: what is waited
//! for is a function of the gate's state, so back-pressure needs no registration that could be
//! forgotten. A descriptor of which nothing is wanted now is left out: `poll` would tell of its
//! errors whatever the interest, and the gate would wake for them again and again.

use std::array;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sekisho_control::PathId;

use super::GateError;
use super::engine::{Gate, wall, wall_less_boot};
use super::knocking::MAX_KNOCKS;
use super::messages::MAX_PROBES;
use super::plan::EngineKind;
use super::situation::{Event, Situation};
use super::sockets::MAX_SOCKETS;
use crate::moment::{Moment, slept};
use crate::tunnel::{AnyTunnel, Roaming as _};

/// Without any deadline the gate looks at its clocks so often.
const IDLE: Duration = Duration::from_secs(1);
/// The machine slept if the clocks that count sleep and that do not have parted by so much.
const SLEPT: Duration = Duration::from_millis(200);
/// A wall clock that was set by more than this did not drift.
const JUMPED: Duration = Duration::from_secs(5);

/// Supervisor, uplink, engines, guest, the office LAN, conversations with the beacon, paths. What does
/// not fit any more has its turn when something else is gone.
const MAX_WATCHED: usize = 4 + EngineKind::ALL.len() + MAX_PROBES + MAX_KNOCKS + MAX_SOCKETS;

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Control,
    Uplink,
    Engine(EngineKind),
    Guest,
    /// The office LAN.
    Wire,
    /// All are looked at in each turn.
    Probe,
    /// All are looked at in each turn.
    Knock,
    /// The socket at this place, of this path.
    Path(usize, PathId),
}

/// The descriptors of one turn.
struct Watched<'fd> {
    fds: [PollFd<'fd>; MAX_WATCHED],
    sources: [Source; MAX_WATCHED],
    count: usize,
}

impl<'fd> Watched<'fd> {
    fn new(gate: &'fd Gate) -> Self {
        let control = |_| PollFd::new(&gate.control, PollFlags::IN);
        Self {
            fds: array::from_fn(control),
            sources: [Source::Control; MAX_WATCHED],
            count: 1,
        }
    }

    fn add(&mut self, source: Source, fd: PollFd<'fd>, interest: PollFlags) {
        if self.count < MAX_WATCHED && !interest.is_empty() {
            self.fds[self.count] = fd;
            self.sources[self.count] = source;
            self.count += 1;
        }
    }
}

/// Which descriptors have something.
#[derive(Debug)]
struct Awake {
    events: [(Source, PollFlags); MAX_WATCHED],
    count: usize,
}

impl Awake {
    fn of(watched: &Watched<'_>) -> Self {
        let event = |at: usize| (watched.sources[at], watched.fds[at].revents());
        Self {
            events: array::from_fn(event),
            count: watched.count,
        }
    }

    fn events(&self) -> impl DoubleEndedIterator<Item = (Source, PollFlags)> {
        let all = self.events[..self.count].iter().copied();
        all.filter(|(_, flags)| !flags.is_empty())
    }

    fn flags(&self, wanted: Source) -> PollFlags {
        self.events()
            .find(|(source, _)| *source == wanted)
            .map_or(PollFlags::empty(), |(_, flags)| flags)
    }

    /// Paths with something, as place, name and whether they hung up. Backwards, so that a socket
    /// that is closed meanwhile moves none that is still due.
    fn paths(&self) -> impl Iterator<Item = (usize, PathId, bool)> {
        self.events().rev().filter_map(|(source, flags)| {
            let Source::Path(index, id) = source else {
                return None;
            };
            Some((index, id, flags.contains(PollFlags::HUP)))
        })
    }
}

impl Gate {
    /// Serves until the supervisor says that it is enough or goes away.
    pub fn serve(&mut self) -> Result<(), GateError> {
        while !self.ended {
            self.turn(IDLE)?;
        }
        Ok(())
    }

    /// Waits at most `patience`, then does one turn's work.
    pub fn turn(&mut self, patience: Duration) -> Result<(), GateError> {
        let awake = self.wait(patience)?;
        let now = Moment::now();
        self.look_at_clocks(now)?;
        // Messages first: a lost carrier closes its paths before the next frame is looked at.
        if !awake.flags(Source::Control).is_empty() {
            self.read_control(now);
        }
        if !awake.flags(Source::Uplink).is_empty() {
            self.read_uplink(now)?;
        }
        for kind in EngineKind::ALL {
            if !awake.flags(Source::Engine(kind)).is_empty() {
                self.read_engine(kind, now);
            }
        }
        self.timers(now);
        self.advance_probes(now);
        self.advance_knocks(now);
        let guest = awake.flags(Source::Guest);
        if guest.contains(PollFlags::OUT) {
            self.guest.drain();
        }
        for (index, id, hung_up) in awake.paths() {
            if self.guest.is_full() {
                break;
            }
            // Nothing comes any more over a socket that was shut down once it is empty.
            if !self.read_path(index, id, now) && hung_up {
                self.cut(index, id, now);
            }
        }
        if !awake.flags(Source::Wire).is_empty() {
            self.read_wire(now);
        }
        self.flush(now);
        if guest.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read_guest(now);
        }
        self.tell_situation();
        self.tell_demand(now);
        self.tell_findings(now);
        self.tell_refusals(now);
        Ok(())
    }

    fn wait(&mut self, patience: Duration) -> Result<Awake, GateError> {
        let now = Moment::now();
        let names = self.resolver.due(now);
        let pause = self
            .next_deadline()
            .into_iter()
            .chain(names)
            .min()
            .map_or(patience, |due| due.since(now).min(patience));
        let pause = Timespec::try_from(pause).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let guest = self.guest.socket();
        let mut watched = Watched::new(self);
        let mut add = |source, fd, interest| watched.add(source, fd, interest);
        if let Some(uplink) = &self.uplink {
            let interest = PollFlags::IN;
            add(Source::Uplink, PollFd::new(uplink, interest), interest);
        }
        for kind in EngineKind::ALL {
            if let Some(engine) = self.engines.channel(kind) {
                let interest = PollFlags::IN;
                add(
                    Source::Engine(kind),
                    PollFd::new(engine, interest),
                    interest,
                );
            }
        }
        if let Some(guest) = &guest {
            let interest = self.guest_interest();
            add(Source::Guest, PollFd::new(guest, interest), interest);
        }
        if let Some(wire) = self.wiring.device().filter(|_| !self.guest.is_full()) {
            let interest = PollFlags::IN;
            let fd = PollFd::from_borrowed_fd(wire, interest);
            add(Source::Wire, fd, interest);
        }
        for probe in &self.probes {
            let interest = probe.interest();
            add(Source::Probe, PollFd::new(probe, interest), interest);
        }
        for knock in &self.knocks {
            let interest = knock.interest();
            add(Source::Knock, PollFd::new(knock, interest), interest);
        }
        let sender = match self.machine.situation() {
            Situation::Tunnelled { path, .. } if !self.path.is_empty() => Some(path),
            _ => None,
        };
        for (index, socket) in self.sockets.readers().iter().enumerate() {
            let mut interest = PollFlags::empty();
            if !self.guest.is_full() {
                interest |= PollFlags::IN;
            }
            if sender == Some(socket.id) {
                interest |= PollFlags::OUT;
            }
            let source = Source::Path(index, socket.id);
            add(source, PollFd::new(socket, interest), interest);
        }
        let count = watched.count;
        match poll(&mut watched.fds[..count], Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => Ok(Awake::of(&watched)),
            Err(error) => Err(GateError::Wait(error)),
        }
    }

    /// Frames are read while their way is free; written when some wait.
    fn guest_interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.path.has_room() {
            interest |= PollFlags::IN;
        }
        if self.guest.is_full() {
            interest |= PollFlags::OUT;
        }
        interest
    }

    fn next_deadline(&self) -> Option<Moment> {
        let tunnels = self.tunnels.iter().filter_map(|tunnel| match tunnel {
            AnyTunnel::WireGuard(tunnel) => Some(tunnel.next_timer()),
            AnyTunnel::IpFd(_) => None,
        });
        let probes = self.probes.iter().map(crate::premises::Probe::deadline);
        let knocks = self.knocks.iter().map(crate::portal::Knock::deadline);
        self.machine
            .next_deadline()
            .into_iter()
            .chain(self.sockets.next_deadline())
            .chain(self.next_advertisement())
            .chain(tunnels)
            .chain(probes)
            .chain(knocks)
            .min()
    }

    /// When the guest, if there is one, is to hear of its router of IPv6.
    fn next_advertisement(&self) -> Option<Moment> {
        self.guest.socket().and(self.edge.advertises())
    }

    /// Does what is due, the machine's own deadline included.
    fn timers(&mut self, now: Moment) {
        self.sockets.expire(now);
        self.refit(now);
        self.tick_connections(now);
        if self.next_advertisement().is_some_and(|due| due <= now) {
            self.edge.advertise(&mut self.reply, now);
            self.send_reply();
        }
        if self.machine.next_deadline().is_some_and(|due| due <= now) {
            self.happen(Event::Tick, now);
        }
        let in_use = match self.machine.situation() {
            Situation::Tunnelled { path, gateway, .. } => Some((path, gateway)),
            Situation::Direct { .. } | Situation::Closed(_) => None,
        };
        for index in 0..self.tunnels.len() {
            let tunnel = self.tunnels[index].roaming();
            let Some(tunnel) = tunnel.filter(|tunnel| tunnel.next_timer() <= now) else {
                continue;
            };
            let mut datagram = std::mem::take(&mut self.datagram);
            let due = tunnel.on_timer(&mut datagram, now);
            // Where no path is in use, the machine does what is to be done about that.
            if let Some((path, gateway)) = in_use
                && due
                && usize::from(gateway.0) == index
            {
                self.keep_stamp(gateway);
                self.send_on(path, datagram.bytes());
            }
            self.datagram = datagram;
        }
    }

    /// Notices a sleep that nobody announced, a wall clock that jumped and a policy that expired.
    fn look_at_clocks(&mut self, now: Moment) -> Result<(), GateError> {
        let (slept, wall_then) = (slept(), wall_less_boot(now));
        let jumped = wall_then.abs_diff(self.wall) > JUMPED;
        if slept.abs_diff(self.slept) > SLEPT || jumped {
            tracing::warn!("the laptop slept or its clock was set: proving everything again");
            self.happen(Event::Doubt, now);
        }
        self.slept = slept;
        self.wall = wall_then;
        if self.expiry.is_over(wall(), now) {
            return Err(GateError::PolicyExpired);
        }
        Ok(())
    }
}
