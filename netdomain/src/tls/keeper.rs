//! The keeper's loop: one task at a time, begun and ended by the gate.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sekisho_control::{Channel, Command, EngineToGate, GateToEngine, Port, Received, Report};

use super::TlsError;
use super::client::{Client, Gateway};
use super::relay::Relay;

/// Connections of one task, as many as the gate lets it have.
const MAX_STREAMS: usize = 4;
/// Messages of one channel in one turn.
const MESSAGES: usize = 16;

type Control = Channel<Report, Command>;
type Gate = Channel<EngineToGate, GateToEngine>;

/// What the gate wants, and what became of it.
struct Task {
    attempt: u32,
    /// Place of its gateway.
    gateway: usize,
    client: Client,
    /// Connections of openconnect for which none of the uplink's is there yet.
    waiting: VecDeque<TcpStream>,
    relays: Vec<Relay>,
    up: bool,
}

/// The keeper.
pub(super) struct Keeper {
    gateways: Vec<(Gateway, TcpListener)>,
    silence: Duration,
    control: Control,
    gate: Option<Gate>,
    task: Option<Task>,
    ended: bool,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Control,
    Gate,
    Listener,
    Words,
    /// All of a task are looked at in each turn.
    Task,
}

impl Keeper {
    pub(super) const fn new(
        gateways: Vec<(Gateway, TcpListener)>,
        silence: Duration,
        control: Control,
        gate: Option<Gate>,
    ) -> Self {
        Self {
            gateways,
            silence,
            control,
            gate,
            task: None,
            ended: false,
        }
    }

    /// Serves until the supervisor says that it is enough or goes away.
    pub(super) fn serve(&mut self) -> Result<(), TlsError> {
        self.control.send(&Report::Ready, &[])?;
        while !self.ended {
            let awake = self.wait()?;
            let is = |wanted| awake.contains(&wanted);
            if is(Source::Control) {
                self.read_control();
            }
            if is(Source::Gate) {
                self.read_gate();
            }
            if is(Source::Listener) {
                self.accept();
            }
            if let Some(task) = self.task.as_mut().filter(|_| is(Source::Words)) {
                task.client.program.log();
            }
            self.look_at_task();
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Source>, TlsError> {
        let mut watched = vec![(Source::Control, self.control.as_fd(), PollFlags::IN)];
        if let Some(gate) = &self.gate {
            watched.push((Source::Gate, gate.as_fd(), PollFlags::IN));
        }
        if let Some(task) = &self.task {
            let (_, listener) = &self.gateways[task.gateway];
            if task.waiting.len() + task.relays.len() < MAX_STREAMS {
                watched.push((Source::Listener, listener.as_fd(), PollFlags::IN));
            }
            watched.push((Source::Task, task.client.program.end(), PollFlags::IN));
            if !task.up {
                let handover = task.client.handover().as_fd();
                watched.push((Source::Task, handover, PollFlags::IN));
            }
            let words = task.client.program.words();
            watched.extend(words.map(|words| (Source::Words, words, PollFlags::IN)));
            for relay in &task.relays {
                let interests = relay.interests().into_iter();
                watched.extend(interests.map(|(fd, interest)| (Source::Task, fd, interest)));
            }
        }
        // `poll` would tell of errors whatever the interest.
        watched.retain(|(_, _, interest)| !interest.is_empty());
        let mut fds: Vec<_> = watched
            .iter()
            .map(|(_, fd, interest)| PollFd::from_borrowed_fd(*fd, *interest))
            .collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(TlsError::Wait(error)),
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let sources = watched.iter().map(|(source, _, _)| *source);
        Ok(ready
            .zip(sources)
            .filter_map(|(ready, source)| ready.then_some(source))
            .collect())
    }

    fn read_control(&mut self) {
        for _ in 0..MESSAGES {
            match self.control.recv() {
                Ok(Some(Received { message, fds })) => match message {
                    Command::Attach { port: Port::Gate } => {
                        self.task = None;
                        let socket = fds.into_iter().next().map(Channel::from_fd);
                        self.gate = socket.and_then(Result::ok);
                    }
                    // The gate says what is to be done about it.
                    Command::Suspend | Command::Resume => {}
                    Command::Shutdown => self.ended = true,
                    Command::Attach { .. } | Command::PowerButton | Command::Notice { .. } => {
                        tracing::warn!("a command that is not for the engine");
                    }
                },
                Ok(None) => return,
                Err(error) => {
                    tracing::info!("the supervisor is gone: {error}");
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn read_gate(&mut self) {
        for _ in 0..MESSAGES {
            let Some(gate) = &self.gate else {
                return;
            };
            match gate.recv() {
                Ok(Some(received)) => self.gate_says(received),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("the gate is gone: {error}");
                    self.task = None;
                    self.gate = None;
                }
            }
        }
    }

    fn gate_says(&mut self, received: Received<GateToEngine>) {
        match received.message {
            GateToEngine::Begin { attempt, gateway } => self.begin(attempt, &gateway),
            GateToEngine::Stream { attempt } => {
                if let Some(socket) = received.fds.into_iter().next() {
                    self.join(attempt, socket);
                }
            }
            GateToEngine::End { attempt } => {
                self.task.take_if(|task| task.attempt == attempt);
            }
        }
    }

    fn begin(&mut self, attempt: u32, name: &str) {
        self.task = None;
        let found = self
            .gateways
            .iter()
            .position(|(known, _)| known.name == name);
        let Some(gateway) = found else {
            return self.down(attempt, "the policy names no such gateway");
        };
        let (known, listener) = &self.gateways[gateway];
        // Connections of an earlier openconnect.
        while listener.accept().is_ok() {}
        match Client::start(known, self.silence) {
            Ok(client) => {
                self.task = Some(Task {
                    attempt,
                    gateway,
                    client,
                    waiting: VecDeque::new(),
                    relays: Vec::new(),
                    up: false,
                });
            }
            Err(error) => self.down(attempt, &format!("openconnect does not start: {error}")),
        }
    }

    /// openconnect connects: the uplink is to do the same.
    fn accept(&mut self) {
        let Some(task) = &mut self.task else {
            return;
        };
        let (_, listener) = &self.gateways[task.gateway];
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        task.waiting.push_back(stream);
        let attempt = task.attempt;
        self.tell(&EngineToGate::Dial { attempt }, None);
    }

    fn join(&mut self, attempt: u32, outer: OwnedFd) {
        let Some(task) = self.task.as_mut().filter(|task| task.attempt == attempt) else {
            return;
        };
        let Some(inner) = task.waiting.pop_front() else {
            return;
        };
        let gateway = self.gateways[task.gateway].0.address;
        match Relay::new(inner, outer, gateway, self.silence) {
            Ok(relay) => task.relays.push(relay),
            Err(error) => tracing::warn!("a connection that cannot be used: {error}"),
        }
    }

    /// Moves bytes, and notices that openconnect is connected or has ended.
    fn look_at_task(&mut self) {
        let Some(task) = &mut self.task else {
            return;
        };
        task.relays.retain_mut(Relay::turn);
        let attempt = task.attempt;
        if let Some(why) = task.client.program.ended() {
            return self.end(&why);
        }
        if task.up {
            // openconnect would wait for its peer to be found dead, or connect anew.
            if task.relays.is_empty() {
                self.end("the connection to the gateway has ended");
            }
            return;
        }
        match task.client.handover().recv() {
            Ok(None) => {}
            Ok(Some(Received { message, fds })) => {
                task.up = true;
                let up = EngineToGate::Up {
                    attempt,
                    address: message.address,
                    mtu: message.mtu,
                };
                self.tell(&up, fds.first());
            }
            Err(error) => self.end(&format!("no descriptor for packets: {error}")),
        }
    }

    fn end(&mut self, why: &str) {
        if let Some(task) = self.task.take() {
            self.down(task.attempt, why);
        }
    }

    fn down(&mut self, attempt: u32, why: &str) {
        let why = why.to_owned();
        self.tell(&EngineToGate::Down { attempt, why }, None);
    }

    /// A gate that does not take what it must hear is as good as gone.
    fn tell(&mut self, message: &EngineToGate, fd: Option<&OwnedFd>) {
        let Some(gate) = &self.gate else {
            return;
        };
        let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
        if let Err(error) = gate.send(message, &fds) {
            tracing::warn!("cannot tell the gate: {error}");
            self.task = None;
            self.gate = None;
        }
    }
}
