//! What became readable or due, and what the ports' machine is told of it.

use sekisho_control::{Channel, Command, Port, Report};

use super::act::TRIAL;
use super::{Event, FRAMES_PER_TURN, MESSAGES_PER_TURN, Meter, Turn, UplinkError, now};
use crate::uplink::{
    dhcp::Step,
    frames::FrameSocket,
    gate_ended,
    netlink::{Link, LinkEvent},
    quota::Mark,
    supervisor,
};

impl Turn {
    pub(super) fn on_links(&mut self) -> Result<(), UplinkError> {
        while let Some(events) = self.links.read() {
            let Ok(events) = events else {
                tracing::warn!("link events were lost; listing the links again");
                self.list_links()?;
                continue;
            };
            for event in events {
                match event {
                    LinkEvent::Changed(link) => self.on_link(link)?,
                    LinkEvent::Gone(index) => self.feed(Event::Gone(index))?,
                }
            }
        }
        Ok(())
    }

    pub(super) fn list_links(&mut self) -> Result<(), UplinkError> {
        let links = self.routing.links()?;
        let gone = self.ports.absent_from(&links);
        for index in gone {
            self.feed(Event::Gone(index))?;
        }
        links.into_iter().try_for_each(|link| self.on_link(link))
    }

    pub(super) fn on_link(&mut self, mut link: Link) -> Result<(), UplinkError> {
        link.radio = self.wireless.has(link.index)?;
        self.feed(Event::Link(link))
    }

    /// News of one datagram a turn: whether a router answers is told to people, who have time.
    pub(super) fn on_neighbours(&mut self) -> Result<(), UplinkError> {
        for neighbour in self.neighbours.read() {
            let Some(event) = self.routers.on(&neighbour) else {
                continue;
            };
            if let Some((port, kind)) = self.ports.port(neighbour.index) {
                let (port, event) = (port.to_owned(), event.to_owned());
                self.report(&Report::Uplink { port, kind, event })?;
            }
        }
        Ok(())
    }

    pub(super) fn on_control(&mut self) -> Result<(), UplinkError> {
        while let Some(received) = self.control.recv().map_err(supervisor)? {
            let mut fds = received.fds.into_iter();
            match received.message {
                Command::Attach { port: Port::Gate } => {
                    if let Some(fd) = fds.next() {
                        self.attach_gate(Channel::from_fd(fd).map_err(gate_ended)?)?;
                    }
                }
                Command::Attach { port: Port::Modem } => {
                    if let Some(fd) = fds.next() {
                        self.attach_modem(fd)?;
                    }
                }
                Command::Suspend => self.feed(Event::Suspend)?,
                Command::Resume => self.feed(Event::Resume)?,
                Command::Shutdown => self.ending = true,
                Command::Attach { .. }
                | Command::PowerButton
                | Command::Answer { .. }
                | Command::AskAgain
                | Command::Notice { .. } => {
                    tracing::warn!("the supervisor sent a command that is not for the uplink");
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_dot1x(&mut self) -> Result<(), UplinkError> {
        while let Some(keeper) = &mut self.dot1x
            && let Some((index, standing)) = keeper.read().map_err(UplinkError::Dot1xEnded)?
        {
            self.feed(Event::Standing(index, standing))?;
        }
        Ok(())
    }

    pub(super) fn on_gate(&mut self) -> Result<(), UplinkError> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(gate) = &self.gate else {
                return Ok(());
            };
            match gate.recv() {
                Ok(Some(received)) => self.feed(Event::Gate(received.message))?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the gate is gone; its sockets are cut");
                    self.drop_gate();
                    return self.feed(Event::GateLost);
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_frames(&mut self, index: u32) -> Result<(), UplinkError> {
        let mut buffer = FrameSocket::buffer();
        for _ in 0..FRAMES_PER_TURN {
            // The port may have gone with the steps of the last frame.
            let Some((client, socket)) = self.clients.get_mut(&index) else {
                break;
            };
            let Some(frame) = socket.receive(&mut buffer) else {
                break;
            };
            let endpoints = &self.endpoints;
            let steps = client.on_frame(now(), frame, &|address| endpoints.names(address));
            self.follow(index, steps)?;
        }
        Ok(())
    }

    pub(super) fn on_time(&mut self) -> Result<(), UplinkError> {
        let now = now();
        let due: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, (client, _))| client.due() <= now)
            .map(|(index, _)| *index)
            .collect();
        for index in due {
            if let Some((client, _)) = self.clients.get_mut(&index) {
                let steps = client.on_time(now);
                self.follow(index, steps)?;
            }
        }
        self.on_lent_time()?;
        while let Some((&index, _)) = self.trials.iter().find(|(_, due)| **due <= now) {
            self.trials.remove(&index);
            self.feed(Event::TrialOver(index))?;
            if self.ports.is_on_trial(index) {
                self.trials.insert(index, now + TRIAL);
            }
        }
        for action in self.shortage.take(now) {
            self.act(action)?;
        }
        self.shortage.tried();
        Ok(())
    }

    /// Looks at what the SIM moved.
    pub(super) fn count(&mut self, last: bool) -> Result<(), UplinkError> {
        let now = now();
        let due = |meter: &Meter| last || meter.due() <= now;
        if !self.ports.has_sim() || !self.meter.as_ref().is_some_and(due) {
            return Ok(());
        }
        let links = self.routing.links()?;
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        let sims = links.iter().filter(|link| self.ports.is_sim(link.index));
        let marks = sims.map(|link| Mark {
            index: link.index,
            bytes: link.bytes,
        });
        let (allowance, news) = meter.look(marks, now, last);
        let monthly = meter.monthly();
        // What is told has happened.
        self.feed(Event::Allowance(allowance))?;
        if let Some(news) = news {
            self.report(&Report::Quota {
                used: news.used,
                monthly,
                percent: news.percent,
                state: news.state,
            })?;
        }
        Ok(())
    }

    /// Does what a DHCP client says.
    pub(super) fn follow(&mut self, index: u32, steps: Vec<Step>) -> Result<(), UplinkError> {
        for step in steps {
            match step {
                Step::Send(frame) => {
                    if let Some((_, socket)) = self.clients.get(&index) {
                        socket.send(&frame);
                    }
                }
                Step::Bound(lease) => self.lend(index, lease)?,
                Step::Lost => {
                    self.take_back(index);
                    self.feed(Event::LeaseLost(index))?;
                }
                Step::Portal => self.feed(Event::Portal(index))?,
                Step::Ignored(what) => self.report(&Report::Ignored { what })?,
            }
        }
        Ok(())
    }
}
