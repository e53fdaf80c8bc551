//! openconnect's tunnels: what is done when.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::PollFlags;
use sekisho_control::{Channel, Received};

use super::client::{self, Gateway};
use super::handover::{Connected, Silence};
use super::relay::Relay;
use crate::engine::{Engine, News, Tunnel};
use crate::program::Program;

/// Connections of one tunnel, as many as the gate lets it have.
const MAX_STREAMS: usize = 4;

/// A gateway, and where openconnect finds it: at the keeper.
type Place = (Gateway, TcpListener);

/// openconnect as an engine.
pub(super) struct OpenConnect {
    places: Vec<Rc<Place>>,
    silence: Duration,
}

impl OpenConnect {
    pub(super) fn new(places: Vec<Place>, silence: Duration) -> Self {
        let places = places.into_iter().map(Rc::new).collect();
        Self { places, silence }
    }
}

impl Engine for OpenConnect {
    type Tunnel = Session;

    fn begin(&mut self, gateway: &str) -> Result<(Program, Session), String> {
        let mut places = self.places.iter();
        let place = places
            .find(|place| place.0.name == gateway)
            .ok_or("the policy names no such gateway")?;
        // Connections of an earlier openconnect.
        while place.1.accept().is_ok() {}
        let (program, handover) = client::start(&place.0, self.silence)
            .map_err(|error| format!("openconnect does not start: {error}"))?;
        let session = Session {
            place: Rc::clone(place),
            silence: self.silence,
            waiting: VecDeque::new(),
            relays: Vec::new(),
            handover: Some(handover),
        };
        Ok((program, session))
    }
}

/// One openconnect, from its start to its end.
pub(super) struct Session {
    place: Rc<Place>,
    silence: Duration,
    /// Connections of openconnect for which none of the uplink's is there yet.
    waiting: VecDeque<TcpStream>,
    relays: Vec<Relay>,
    /// The channel of its script, until it says that the tunnel is up.
    handover: Option<Channel<Silence, Connected>>,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// openconnect connects.
    Listener,
    /// All others are looked at in each turn.
    Other,
}

impl Tunnel for Session {
    type Source = Source;

    fn interests(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut watched = Vec::new();
        if self.waiting.len() + self.relays.len() < MAX_STREAMS {
            watched.push((Source::Listener, self.place.1.as_fd(), PollFlags::IN));
        }
        if let Some(handover) = &self.handover {
            watched.push((Source::Other, handover.as_fd(), PollFlags::IN));
        }
        for relay in &self.relays {
            let interests = relay.interests().into_iter();
            watched.extend(interests.map(|(fd, interest)| (Source::Other, fd, interest)));
        }
        watched
    }

    fn join(&mut self, outer: OwnedFd) -> Result<(), String> {
        let Some(inner) = self.waiting.pop_front() else {
            return Ok(());
        };
        match Relay::new(inner, outer, self.place.0.address, self.silence) {
            Ok(relay) => self.relays.push(relay),
            Err(error) => tracing::warn!("a connection that cannot be used: {error}"),
        }
        Ok(())
    }

    fn turn(&mut self, awake: &[(Source, PollFlags)], news: &mut Vec<News>) -> Result<(), String> {
        let connects = awake.iter().any(|(awake, _)| *awake == Source::Listener);
        if connects && let Ok((stream, _)) = self.place.1.accept() {
            // The uplink is to do the same.
            self.waiting.push_back(stream);
            news.push(News::Dial);
        }
        self.relays.retain_mut(Relay::turn);
        let Some(handover) = &self.handover else {
            // openconnect would wait for its peer to be found dead, or connect anew.
            return if self.relays.is_empty() {
                Err("the connection to the gateway has ended".into())
            } else {
                Ok(())
            };
        };
        let received = handover
            .recv()
            .map_err(|error| format!("no descriptor for packets: {error}"))?;
        if let Some(Received { message, fds }) = received {
            self.handover = None;
            let packets = fds.into_iter().next().ok_or("no descriptor for packets")?;
            news.push(News::Up {
                address: message.address,
                mtu: message.mtu,
                packets,
            });
        }
        Ok(())
    }
}
