//! openconnect's tunnels: what is done when.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::PollFlags;
use sekisho_control::{Channel, Received, Secret};

use super::client::{self, Consent, Gateway};
use super::handover::{Connected, Silence};
use super::relay::Relay;
use super::sign_in::SignIn;
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
        let (program, step) = match &place.0.person {
            Some(person) => {
                let (program, sign_in) =
                    SignIn::start(&place.0, person).map_err(|error| not_started(&error))?;
                (program, Step::SignIn(sign_in))
            }
            None => Step::connect(place, self.silence, Consent::Certificate)?,
        };
        let session = Session {
            place: Rc::clone(place),
            silence: self.silence,
            waiting: VecDeque::new(),
            relays: Vec::new(),
            step,
        };
        Ok((program, session))
    }
}

fn not_started(error: &std::io::Error) -> String {
    format!("openconnect does not start: {error}")
}

/// How far it is.
enum Step {
    /// A person is being signed in.
    SignIn(SignIn),
    /// openconnect's script will say here that the tunnel is up.
    Connect(Channel<Silence, Connected>),
    /// It is.
    Up,
}

impl Step {
    fn connect(
        place: &Place,
        silence: Duration,
        consent: Consent,
    ) -> Result<(Program, Self), String> {
        let (program, handover) =
            client::start(&place.0, silence, consent).map_err(|error| not_started(&error))?;
        Ok((program, Self::Connect(handover)))
    }
}

/// One tunnel, from its start to its end.
pub(super) struct Session {
    place: Rc<Place>,
    silence: Duration,
    /// Connections of openconnect for which none of the uplink's is there yet.
    waiting: VecDeque<TcpStream>,
    relays: Vec<Relay>,
    step: Step,
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
        if let Step::Connect(handover) = &self.step {
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
        let handover = match &self.step {
            Step::Connect(handover) => handover,
            // openconnect would wait for its peer to be found dead, or connect anew.
            Step::Up if self.relays.is_empty() => {
                return Err("the connection to the gateway has ended".into());
            }
            Step::SignIn(_) | Step::Up => return Ok(()),
        };
        let received = handover
            .recv()
            .map_err(|error| format!("no descriptor for packets: {error}"))?;
        if let Some(Received { message, fds }) = received {
            self.step = Step::Up;
            let packets = fds.into_iter().next().ok_or("no descriptor for packets")?;
            news.push(News::Up {
                address: message.address,
                mtu: message.mtu,
                packets,
            });
        }
        Ok(())
    }

    fn heard(&mut self, _said: &str, prompts: bool, news: &mut Vec<News>) -> Result<(), String> {
        if let Step::SignIn(sign_in) = &mut self.step
            && prompts
            && sign_in.prompted()?
        {
            news.push(News::Ask);
        }
        Ok(())
    }

    fn answer(&mut self, answer: Secret) -> Result<(), String> {
        match &mut self.step {
            Step::SignIn(sign_in) => sign_in.answer(&answer),
            Step::Connect(_) | Step::Up => Err("an answer to no question".into()),
        }
    }

    fn next(&mut self) -> Result<Option<Program>, String> {
        let Step::SignIn(sign_in) = &mut self.step else {
            return Ok(None);
        };
        let consent = Consent::Cookie(sign_in.cookie()?.into());
        let (program, step) = Step::connect(&self.place, self.silence, consent)?;
        self.step = step;
        Ok(Some(program))
    }
}
