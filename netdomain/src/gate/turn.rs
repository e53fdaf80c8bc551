//! The loop: wait for something, then give everything its share.
//!
//! Waiting is by `poll` over at most some thirty descriptors, rebuilt each turn: what is waited for
//! is a function of the gate's state, so back-pressure needs no registration that could be
//! forgotten.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::GateError;
use super::engine::{Gate, wall, wall_less_boot};
use super::situation::{Event, Situation};
use crate::moment::{Moment, slept};
use crate::tunnel::Tunnel;

/// Without any deadline the gate looks at its clocks so often.
const IDLE: Duration = Duration::from_secs(1);
/// The machine slept if the clocks that count sleep and that do not have parted by so much.
const SLEPT: Duration = Duration::from_millis(200);
/// A wall clock that was set by more than this did not drift.
const JUMPED: Duration = Duration::from_secs(5);

/// Which descriptors have something.
#[derive(Debug, Default)]
struct Awake {
    control: bool,
    uplink: bool,
    guest: Option<PollFlags>,
    /// By index of the socket; a bit each.
    paths: u64,
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
        if awake.control {
            self.read_control(now);
        }
        if awake.uplink {
            self.read_uplink(now);
        }
        self.timers(now);
        self.advance_probes(now);
        let guest = awake.guest.unwrap_or(PollFlags::empty());
        if guest.contains(PollFlags::OUT) {
            self.guest.drain();
        }
        if awake.paths != 0 {
            // Backwards, so that a socket that is closed meanwhile moves none that is still due.
            for index in (0..self.sockets.readers().len().min(64)).rev() {
                if awake.paths & (1 << index) != 0 && !self.guest.is_full() {
                    self.read_path(index, now);
                }
            }
        }
        self.flush(now);
        if guest.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read_guest(now);
        }
        self.tell_situation();
        Ok(())
    }

    fn wait(&self, patience: Duration) -> Result<Awake, GateError> {
        let now = Moment::now();
        let pause = self
            .next_deadline(now)
            .map_or(patience, |due| due.since(now).min(patience));
        let pause = Timespec::try_from(pause).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let mut fds = Vec::with_capacity(32);
        fds.push(PollFd::new(&self.control, PollFlags::IN));
        if let Some(uplink) = &self.uplink {
            fds.push(PollFd::new(uplink, PollFlags::IN));
        }
        let guest = self.guest.socket();
        if let Some(guest) = &guest {
            fds.push(PollFd::new(guest, self.guest_interest()));
        }
        for probe in &self.probes {
            fds.push(PollFd::new(probe, probe.interest()));
        }
        let first_path = fds.len();
        let sender = match self.machine.situation() {
            Situation::Tunnelled { path, .. } if !self.path.is_empty() => Some(path),
            _ => None,
        };
        for socket in self.sockets.readers() {
            let mut interest = PollFlags::empty();
            if !self.guest.is_full() {
                interest |= PollFlags::IN;
            }
            if sender == Some(socket.id) {
                interest |= PollFlags::OUT;
            }
            fds.push(PollFd::new(socket, interest));
        }
        match poll(&mut fds, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(GateError::Wait(error)),
        }
        let mut events = fds.iter().map(PollFd::revents);
        let mut awake = Awake {
            control: !events.next().unwrap_or(PollFlags::empty()).is_empty(),
            ..Awake::default()
        };
        if self.uplink.is_some() {
            awake.uplink = !events.next().unwrap_or(PollFlags::empty()).is_empty();
        }
        if guest.is_some() {
            awake.guest = events.next();
        }
        for (index, fd) in fds[first_path..].iter().enumerate().take(64) {
            if !fd.revents().is_empty() {
                awake.paths |= 1 << index;
            }
        }
        Ok(awake)
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

    fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let tunnels = self.tunnels.iter().map(Tunnel::next_timer);
        let probes = self.probes.iter().map(crate::premises::Probe::deadline);
        self.machine
            .next_deadline(now)
            .into_iter()
            .chain(self.sockets.next_deadline())
            .chain(tunnels)
            .chain(probes)
            .min()
    }

    /// Does what is due.
    fn timers(&mut self, now: Moment) {
        self.sockets.expire(now);
        if self
            .machine
            .next_deadline(now)
            .is_some_and(|due| due <= now)
        {
            self.happen(Event::Tick, now);
        }
        let in_use = match self.machine.situation() {
            Situation::Tunnelled { path, gateway, .. } => Some((path, gateway)),
            Situation::Closed(_) => None,
        };
        for index in 0..self.tunnels.len() {
            if self.tunnels[index].next_timer() > now {
                continue;
            }
            let mut datagram = std::mem::take(&mut self.datagram);
            let due = self.tunnels[index].on_timer(&mut datagram, now);
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
        if wall() >= self.expires {
            return Err(GateError::PolicyExpired);
        }
        Ok(())
    }
}
