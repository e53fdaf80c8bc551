//! The keeper's loop: one tunnel at a time, begun and ended by the gate.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sekisho_control::{
    Channel, Command, DownCause, EngineToGate, GateToEngine, Port, Received, Report, Secret,
    TokenFault,
};

use super::{Channels, EngineError};
use crate::program::{Ending, Program};

/// Letters of a reason: twelve bytes each as JSON at most, of the sixteen thousand of a message.
const MAX_WHY: usize = 200;
/// Messages of one channel in one turn.
const MESSAGES: usize = 16;

/// What an engine does when the gate wants a tunnel.
pub(crate) trait Engine {
    /// The tunnel.
    type Tunnel: Tunnel;

    /// Starts the program against this gateway of policy's; why not, in a few words.
    fn begin(&mut self, gateway: &str) -> Result<(Program, Self::Tunnel), String>;

    /// Erases what the person answered, where it is kept.
    fn forget(&mut self) {}

    /// What is wrong with the token, where that is why the last tunnel ended or could not be begun.
    fn token_fault(&self) -> Option<TokenFault> {
        None
    }
}

/// A tunnel from the gate's wish for it to its end. It is dropped after its program.
pub(crate) trait Tunnel {
    /// What a descriptor stands for.
    type Source: Copy;

    /// What to wait for.
    fn interests(&self) -> Vec<(Self::Source, BorrowedFd<'_>, PollFlags)>;

    /// How long to wait for it; for ever if there is nothing that has no descriptor.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Takes a socket of the uplink's, one for each [`News::Dial`] and each change of the path.
    fn join(&mut self, socket: OwnedFd) -> Result<(), String>;

    /// Does what can be done now. An error is the end of the tunnel, in a few words.
    fn turn(
        &mut self,
        awake: &[(Self::Source, PollFlags)],
        news: &mut Vec<News>,
    ) -> Result<(), String>;

    /// The program said something: these whole lines, and it `prompts` where it waits behind the
    /// beginning of another one.
    fn heard(&mut self, _said: &str, _prompts: bool, _news: &mut Vec<News>) -> Result<(), String> {
        Ok(())
    }

    /// Takes the person's answer to [`News::Ask`].
    fn answer(&mut self, _answer: Secret) -> Result<(), String> {
        Err("an answer to no question".into())
    }

    /// The program has ended: the one that goes on from there, if that was not all.
    fn next(&mut self) -> Result<Option<Program>, String> {
        Ok(None)
    }

    /// The gate wants it no more: says goodbye to the gateway, where that is needed.
    fn leave(&mut self, _program: &mut Program) {}
}

/// What the gate is to hear of a tunnel.
pub(crate) enum News {
    /// It wants a socket of the uplink's.
    Dial,
    /// It wants the second factor that policy names.
    Ask,
    /// The token opened with it.
    Opened,
    /// It is up.
    Up {
        /// The inner address that the gateway gave.
        address: Ipv4Addr,
        /// The longest inner packet.
        mtu: u16,
        /// Where inner packets go in and come out.
        packets: OwnedFd,
    },
}

/// What the gate wants, and what became of it. The program ends before what it used is cleared away.
struct Task<T> {
    attempt: u32,
    program: Program,
    tunnel: T,
}

/// What a descriptor stands for.
enum Source<T> {
    Control,
    Gate,
    /// The program ended.
    Ended,
    /// It says something.
    Words,
    Tunnel(T),
}

/// What woke the keeper up.
type Awake<T> = Vec<(Source<T>, PollFlags)>;

/// The keeper.
pub(crate) struct Keeper<E: Engine> {
    engine: E,
    control: Channel<Report, Command>,
    gate: Option<Channel<EngineToGate, GateToEngine>>,
    task: Option<Task<E::Tunnel>>,
    ended: bool,
}

impl<E: Engine> Keeper<E> {
    pub(crate) fn new(engine: E, channels: Channels) -> Self {
        Self {
            engine,
            control: channels.control,
            gate: channels.gate,
            task: None,
            ended: false,
        }
    }

    /// Serves until the supervisor says that it is enough or goes away.
    pub(crate) fn serve(&mut self) -> Result<(), EngineError> {
        self.control.send(&Report::Ready, &[])?;
        while !self.ended {
            let awake = self.wait()?;
            let is = |wanted: fn(&Source<_>) -> bool| awake.iter().any(|(awake, _)| wanted(awake));
            let control = is(|source| matches!(source, Source::Control));
            let gate = is(|source| matches!(source, Source::Gate));
            // First, because what woke it up is this tunnel's and not that of the gate's next wish.
            self.turn(awake);
            if control {
                self.read_control();
            }
            if gate {
                self.read_gate();
            }
        }
        self.leave();
        Ok(())
    }

    fn wait(&self) -> Result<Awake<<E::Tunnel as Tunnel>::Source>, EngineError> {
        let mut watched = vec![(Source::Control, self.control.as_fd(), PollFlags::IN)];
        if let Some(gate) = &self.gate {
            watched.push((Source::Gate, gate.as_fd(), PollFlags::IN));
        }
        let mut patience = None;
        if let Some(Task {
            program, tunnel, ..
        }) = &self.task
        {
            watched.push((Source::Ended, program.end(), PollFlags::IN));
            let words = program.words();
            watched.extend(words.map(|words| (Source::Words, words, PollFlags::IN)));
            let interests = tunnel.interests().into_iter();
            watched
                .extend(interests.map(|(source, fd, flags)| (Source::Tunnel(source), fd, flags)));
            patience = tunnel
                .patience()
                .map(Timespec::try_from)
                .and_then(Result::ok);
        }
        // `poll` would tell of errors whatever the interest.
        watched.retain(|(_, _, interest)| !interest.is_empty());
        let mut fds: Vec<_> = watched
            .iter()
            .map(|(_, fd, interest)| PollFd::from_borrowed_fd(*fd, *interest))
            .collect();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(EngineError::Wait(error)),
        }
        let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
        let sources = watched.into_iter().map(|(source, _, _)| source);
        Ok(sources
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect())
    }

    /// Lets the tunnel go on, and tells the gate what comes of it.
    fn turn(&mut self, awake: Awake<<E::Tunnel as Tunnel>::Source>) {
        let Some(task) = &mut self.task else {
            return;
        };
        let mut own = Vec::with_capacity(awake.len());
        let mut news = Vec::new();
        let mut heard = Ok(());
        let mut ended = false;
        for (source, events) in awake {
            match source {
                Source::Tunnel(source) => own.push((source, events)),
                Source::Words => {
                    let said = task.program.log();
                    heard = task.tunnel.heard(&said, task.program.prompts(), &mut news);
                }
                Source::Ended => ended = true,
                Source::Control | Source::Gate => {}
            }
        }
        if ended && let Some(Ending { why, crashed }) = task.program.ended() {
            match task.tunnel.next() {
                Ok(Some(program)) => task.program = program,
                Ok(None) if crashed => return self.crash(why),
                Ok(None) => return self.end(&why),
                Err(more) => return self.end(&format!("{more} ({why})")),
            }
        }
        let attempt = task.attempt;
        let turned = heard.and_then(|()| task.tunnel.turn(&own, &mut news));
        for news in news {
            match news {
                News::Dial => self.tell(&EngineToGate::Dial { attempt }, None),
                News::Ask => self.tell(&EngineToGate::Ask { attempt }, None),
                News::Opened => self.tell(&EngineToGate::Opened { attempt }, None),
                News::Up {
                    address,
                    mtu,
                    packets,
                } => {
                    let up = EngineToGate::Up {
                        attempt,
                        address,
                        mtu,
                    };
                    self.tell(&up, Some(&packets));
                }
            }
        }
        if let Err(why) = turned {
            self.end(&why);
        }
    }

    fn read_control(&mut self) {
        for _ in 0..MESSAGES {
            match self.control.recv() {
                Ok(Some(Received { message, fds })) => match message {
                    Command::Attach { port: Port::Gate } => {
                        self.task = None;
                        self.engine.forget();
                        let socket = fds.into_iter().next().map(Channel::from_fd);
                        self.gate = socket.and_then(Result::ok);
                    }
                    // The gate says what is to be done about it.
                    Command::Suspend | Command::Resume => {}
                    Command::Shutdown => self.ended = true,
                    Command::Attach { .. }
                    | Command::PowerButton
                    | Command::Answer { .. }
                    | Command::AskAgain
                    | Command::Notice { .. } => {
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
            GateToEngine::Answer { attempt, answer } => {
                let task = self.task.as_mut().filter(|task| task.attempt == attempt);
                if let Some(Err(why)) = task.map(|task| task.tunnel.answer(answer)) {
                    self.end(&why);
                }
            }
            GateToEngine::Forget => self.engine.forget(),
            GateToEngine::End { attempt } => {
                let task = self.task.as_ref();
                if task.is_some_and(|task| task.attempt == attempt) {
                    self.leave();
                    self.end("the gate wants it no more");
                }
            }
        }
    }

    fn begin(&mut self, attempt: u32, gateway: &str) {
        self.task = None;
        match self.engine.begin(gateway) {
            Ok((program, tunnel)) => {
                self.task = Some(Task {
                    attempt,
                    program,
                    tunnel,
                });
                self.turn(Vec::new());
            }
            Err(why) => self.down(attempt, why),
        }
    }

    fn join(&mut self, attempt: u32, socket: OwnedFd) {
        let task = self.task.as_mut().filter(|task| task.attempt == attempt);
        match task.map(|task| task.tunnel.join(socket)) {
            Some(Ok(())) => self.turn(Vec::new()),
            Some(Err(why)) => self.end(&why),
            None => {}
        }
    }

    fn leave(&mut self) {
        if let Some(task) = &mut self.task {
            task.tunnel.leave(&mut task.program);
        }
    }

    fn end(&mut self, why: &str) {
        if let Some(Task { attempt, .. }) = self.task.take() {
            self.down(attempt, why.to_owned());
        }
    }

    /// The same, where the program was killed.
    fn crash(&mut self, why: String) {
        if let Some(Task { attempt, .. }) = self.task.take() {
            self.tell_down(attempt, why, DownCause::Crashed);
        }
    }

    fn down(&mut self, attempt: u32, why: String) {
        let fault = self.engine.token_fault();
        let cause = fault.map_or(DownCause::Any, DownCause::Token);
        self.tell_down(attempt, why, cause);
    }

    fn tell_down(&mut self, attempt: u32, why: String, cause: DownCause) {
        let why = in_brief(why);
        let down = EngineToGate::Down {
            attempt,
            why,
            cause,
        };
        self.tell(&down, None);
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

    fn lose_gate(&mut self) {
        self.task = None;
        self.engine.forget();
        self.gate = None;
    }
}

/// A program that has fallen may say much. The gate is told what fits a message.
fn in_brief(mut why: String) -> String {
    if let Some((most, _)) = why.char_indices().nth(MAX_WHY) {
        why.truncate(most);
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_program_says_the_gate_hears_that_it_is_down() {
        let (gate, engine) = sekisho_control::pair().unwrap();
        let gate = Channel::<GateToEngine, EngineToGate>::from_fd(gate).unwrap();
        let engine = Channel::<EngineToGate, GateToEngine>::from_fd(engine).unwrap();
        for why in ["\u{1}".repeat(60_000), "\u{10ffff}".repeat(60_000)] {
            let down = |why| EngineToGate::Down {
                attempt: 1,
                why,
                cause: DownCause::Any,
            };
            assert!(engine.send(&down(why.clone()), &[]).is_err(), "the control");
            engine.send(&down(in_brief(why)), &[]).unwrap();
            assert!(gate.recv().unwrap().is_some());
        }
    }
}
