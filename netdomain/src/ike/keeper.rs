//! The keeper's loop: one task at a time, begun and ended by the gate.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sekisho_control::{Channel, Command, EngineToGate, GateToEngine, Port, Received, Report};

use super::dialogue::{Dialogue, Follows, Gateway, Identity};
use super::encapsulation::Wire;
use super::place::{INNER_MTU, forget, socket};
use super::vici::{Vici, ViciError};
use super::{Esp, IkeError, charon};
use crate::moment::Moment;
use crate::program::Program;

/// Messages of one channel in one turn.
const MESSAGES: usize = 16;
/// Packets of charon's in one turn.
const WORDS: usize = 16;
/// How often charon's socket is looked for while it starts.
const LOOK: Duration = Duration::from_millis(5);

/// How long charon may take to say goodbye. The gate is closed to this tunnel by then.
const LEAVE: Duration = Duration::from_millis(500);

type Control = Channel<Report, Command>;
type Gate = Channel<EngineToGate, GateToEngine>;

/// What the gate wants, and what became of it.
struct Task {
    attempt: u32,
    gateway: Gateway,
    charon: Program,
    conversation: Conversation,
    /// The uplink's socket, once it is there.
    wire: Option<Wire>,
}

/// The conversation with charon.
enum Conversation {
    /// It does not listen yet.
    Starting,
    /// It listens; nothing goes out before there is a way.
    On(Box<(Vici, Dialogue)>),
}

/// What stays the same from task to task.
pub(super) struct Settings {
    pub(super) gateways: Vec<Gateway>,
    pub(super) identity: Identity,
    pub(super) silence: Duration,
    pub(super) esp: Esp,
    pub(super) outer: OwnedFd,
    pub(super) inner: OwnedFd,
    pub(super) xfrm: Option<OwnedFd>,
}

/// The keeper.
pub(super) struct Keeper {
    settings: Settings,
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
    Words,
    /// The uplink's socket was cut.
    Cut,
    /// All of a task are looked at in each turn.
    Task,
}

impl Keeper {
    pub(super) const fn new(settings: Settings, control: Control, gate: Option<Gate>) -> Self {
        Self {
            settings,
            control,
            gate,
            task: None,
            ended: false,
        }
    }

    /// Serves until the supervisor says that it is enough or goes away.
    pub(super) fn serve(&mut self) -> Result<(), IkeError> {
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
            if let Some(task) = self.task.as_mut().filter(|_| is(Source::Words)) {
                task.charon.log();
            }
            if is(Source::Cut) {
                self.end("the uplink has cut the path");
            }
            if let Some(Err(why)) = self.task.as_mut().map(|task| advance(task, &self.settings)) {
                self.end(&why);
            }
            self.tell_up();
        }
        self.leave();
        self.drop_task();
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Source>, IkeError> {
        let mut watched = vec![(Source::Control, self.control.as_fd(), PollFlags::IN)];
        if let Some(gate) = &self.gate {
            watched.push((Source::Gate, gate.as_fd(), PollFlags::IN));
        }
        let mut patience = None;
        if let Some(task) = &self.task {
            watched.push((Source::Task, task.charon.end(), PollFlags::IN));
            let words = task.charon.words();
            watched.extend(words.map(|words| (Source::Words, words, PollFlags::IN)));
            match &task.conversation {
                Conversation::Starting => patience = Timespec::try_from(LOOK).ok(),
                Conversation::On(both) => {
                    let mut interest = PollFlags::IN;
                    interest.set(PollFlags::OUT, both.0.waits());
                    watched.push((Source::Task, both.0.as_fd(), interest));
                }
            }
            if let Some(wire) = &task.wire {
                watched.push((Source::Cut, wire.as_fd(), PollFlags::IN));
                watched.push((Source::Task, self.settings.outer.as_fd(), PollFlags::IN));
            }
        }
        let mut fds: Vec<_> = watched
            .iter()
            .map(|(_, fd, interest)| PollFd::from_borrowed_fd(*fd, *interest))
            .collect();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(IkeError::Wait(error)),
        }
        let events = fds.iter().map(PollFd::revents);
        let sources = watched.iter().map(|(source, _, _)| *source);
        Ok(events
            .zip(sources)
            .filter(|(events, _)| !events.is_empty())
            .map(|(events, source)| match source {
                // A datagram, most of the time. The uplink's `shutdown` of its copy shows as this.
                Source::Cut if !events.contains(PollFlags::HUP) => Source::Task,
                source => source,
            })
            .collect())
    }

    fn read_control(&mut self) {
        for _ in 0..MESSAGES {
            match self.control.recv() {
                Ok(Some(Received { message, fds })) => match message {
                    Command::Attach { port: Port::Gate } => {
                        self.drop_task();
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
                    self.lose_gate();
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
                if self
                    .task
                    .as_ref()
                    .is_some_and(|task| task.attempt == attempt)
                {
                    self.leave();
                    self.end("the gate wants it no more");
                }
            }
        }
    }

    fn begin(&mut self, attempt: u32, name: &str) {
        self.drop_task();
        let known = &self.settings.gateways;
        let Some(gateway) = known.iter().find(|known| known.name == name).cloned() else {
            return self.down(attempt, "the policy names no such gateway");
        };
        match charon::start(self.settings.esp, self.settings.silence) {
            Ok(charon) => {
                self.task = Some(Task {
                    attempt,
                    gateway,
                    charon,
                    conversation: Conversation::Starting,
                    wire: None,
                });
                self.tell(&EngineToGate::Dial { attempt }, None);
            }
            Err(error) => self.down(attempt, &format!("charon does not start: {error}")),
        }
    }

    /// The uplink's socket is there.
    fn join(&mut self, attempt: u32, socket: OwnedFd) {
        let Some(task) = self.task.as_mut().filter(|task| task.attempt == attempt) else {
            return;
        };
        match Wire::new(socket, task.gateway.address) {
            Ok(wire) => task.wire = Some(wire),
            Err(error) => self.end(&format!("a socket that cannot be used: {error}")),
        }
    }

    /// Tells the gate that the tunnel is up, in the turn in which it came up.
    fn tell_up(&mut self) {
        let Some(task) = self.task.as_mut() else {
            return;
        };
        let Conversation::On(both) = &mut task.conversation else {
            return;
        };
        if both.1.take_news() {
            let up = EngineToGate::Up {
                attempt: task.attempt,
                address: self.settings.identity.address,
                mtu: INNER_MTU,
            };
            match self.settings.inner.try_clone() {
                Ok(inner) => self.tell(&up, Some(&inner)),
                Err(error) => self.end(&format!("no descriptor for packets: {error}")),
            }
        }
    }

    fn end(&mut self, why: &str) {
        if let Some(attempt) = self.task.as_ref().map(|task| task.attempt) {
            self.drop_task();
            self.down(attempt, why);
        }
    }

    /// Lets charon tell the gateway that the tunnel is over, while there is a way: a gateway that is
    /// not told goes on sending into it what by then is asked by another one. Nothing else is done
    /// meanwhile; it is a matter of milliseconds.
    fn leave(&mut self) {
        let Some(task) = &mut self.task else {
            return;
        };
        let (Conversation::On(_), Some(wire)) = (&task.conversation, &task.wire) else {
            return;
        };
        task.charon.terminate();
        let until = Moment::now() + LEAVE;
        while task.charon.ended().is_none() {
            let left = until.since(Moment::now());
            let Ok(patience) = Timespec::try_from(left) else {
                break;
            };
            if left.is_zero() {
                break;
            }
            let outer = self.settings.outer.as_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(task.charon.end(), PollFlags::IN),
                PollFd::from_borrowed_fd(outer, PollFlags::IN),
            ];
            let _ = poll(&mut fds, Some(&patience));
            wire.turn(outer);
        }
    }

    /// Ends charon, the kernel's tunnel, and what waits on either side of it.
    fn drop_task(&mut self) {
        if self.task.take().is_none() {
            return;
        }
        if let Some(Err(error)) = self.settings.xfrm.as_ref().map(forget) {
            tracing::warn!("the kernel does not forget a tunnel: {error}");
        }
        for device in [&self.settings.outer, &self.settings.inner] {
            let mut packet = [0; 2048];
            while matches!(rustix::io::read(device, &mut packet), Ok(1..)) {}
        }
    }

    fn lose_gate(&mut self) {
        self.drop_task();
        self.gate = None;
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
            self.lose_gate();
        }
    }
}

/// Moves packets and words; an error is the end of the task, in a few words.
fn advance(task: &mut Task, settings: &Settings) -> Result<(), String> {
    if let Some(why) = task.charon.ended() {
        return Err(why);
    }
    if let Some(wire) = &task.wire {
        wire.turn(settings.outer.as_fd());
    }
    if matches!(task.conversation, Conversation::Starting) && task.wire.is_some() {
        // Not there yet, or not listening yet: charon's end would be told above.
        let Ok(stream) = UnixStream::connect(socket()) else {
            return Ok(());
        };
        let both =
            open(stream, task.gateway.clone(), settings).map_err(|error| error.to_string())?;
        task.conversation = Conversation::On(Box::new(both));
    }
    let Conversation::On(both) = &mut task.conversation else {
        return Ok(());
    };
    let (vici, dialogue) = &mut **both;
    converse(vici, dialogue).unwrap_or_else(|error| Err(error.to_string()))
}

fn open(
    stream: UnixStream,
    gateway: Gateway,
    settings: &Settings,
) -> Result<(Vici, Dialogue), ViciError> {
    let mut vici = Vici::new(stream)?;
    let ask_after = charon::ask_after(settings.silence);
    let (dialogue, first) = Dialogue::begin(gateway, settings.identity.clone(), ask_after);
    vici.ask(&first)?;
    Ok((vici, dialogue))
}

/// Hears charon, and says what follows. Inside: why the tunnel is down, if it is.
fn converse(vici: &mut Vici, dialogue: &mut Dialogue) -> Result<Result<(), String>, ViciError> {
    vici.flush()?;
    for _ in 0..WORDS {
        let Some(said) = vici.hear()? else {
            break;
        };
        match dialogue.on(said) {
            Follows::Nothing => {}
            Follows::Ask(asked) => vici.ask(&asked)?,
            Follows::Down(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(()))
}
