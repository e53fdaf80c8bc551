//! The host end of the guest channel, closed in: it alone parses what the work OS says.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::event::{PollFd, PollFlags};
use sekisho_control::{Channel, ChannelError, Command, Port as Place, Report, inherited};
use sekisho_guest_tools::port::{Arrived, Port, now, random, wait};
use sekisho_guest_tools::{HostOutput, HostSession};
use sekisho_sandbox::{BARE, Demand, EVENTS, Filter, MESSAGES, Sandbox};
use tracing::{debug, info, warn};

/// The host end of the channel into the work OS. Started by the supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The stream socket to the console port; without it, it comes later by `attach`.
    #[arg(long, value_name = "fd:N")]
    port: Option<String>,
    /// The channel to the supervisor.
    #[arg(long, value_name = "fd:N")]
    control: String,
    /// Seconds that a person has before a shutdown.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    countdown: u32,
    /// Become this user.
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

/// Why the host end ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Inherited(#[from] sekisho_control::InheritedError),
    #[error("the channel to the supervisor failed: {0}")]
    Control(#[from] ChannelError),
    #[error(transparent)]
    Sandbox(#[from] sekisho_sandbox::SandboxError),
    #[error(transparent)]
    Filter(#[from] sekisho_sandbox::FilterError),
    #[error("the kernel refused: {0}")]
    System(#[from] rustix::io::Errno),
}

/// How long a work OS that is asked to shut down has for its answer before this process ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SEKISHO_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match Host::open(&Options::parse()).and_then(Host::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sekisho-guest-host: {failure}");
            ExitCode::FAILURE
        }
    }
}

struct Host {
    control: Channel<Report, Command>,
    port: Option<Port>,
    session: HostSession,
    countdown: u32,
    /// When this process is to end.
    ends: Option<Duration>,
}

impl Host {
    /// Takes what it was born with and closes itself in.
    fn open(options: &Options) -> Result<Self, Failure> {
        let control = Channel::from_fd(inherited(&options.control)?)?;
        let port = options.port.as_deref().map(inherited).transpose()?;
        let mut sandbox = Sandbox::closed().landlock(Demand::BestEffort);
        if let Some(user) = options.user {
            sandbox = sandbox.user(user, user);
        }
        let enforced = sandbox.enter()?;
        debug!(?enforced, "closed in");
        // Before the filter: the first look at the clock asks the kernel where its code for that
        // lies (`PR_GET_AUXV`), once, which no thread may do afterwards.
        let session = HostSession::new(now());
        Filter::new("guest-host", &[BARE, EVENTS, MESSAGES])?.install()?;

        let mut host = Self {
            control,
            port: None,
            session,
            countdown: options.countdown,
            ends: None,
        };
        host.tell(&Report::Ready);
        if let Some(port) = port {
            host.attach(port)?;
        }
        Ok(host)
    }

    fn serve(mut self) -> Result<(), Failure> {
        while self.ends.is_none_or(|ends| now() < ends) {
            self.wait()?;
            loop {
                match self.control.recv() {
                    Ok(Some(received)) => self.command(received.message, received.fds)?,
                    Ok(None) => break,
                    Err(ChannelError::Closed) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            self.take_turn();
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Failure> {
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        if let Some(port) = &self.port {
            fds.push(PollFd::new(port, port.interest()));
        }
        let until = [self.session.next_tick(), self.ends]
            .into_iter()
            .flatten()
            .min();
        Ok(wait(&mut fds, until)?)
    }

    /// Reads the port once, does what time has brought, sends what was kept.
    fn take_turn(&mut self) {
        let Some(port) = &mut self.port else { return };
        let outputs = match port.read() {
            Ok(Arrived::Bytes(bytes)) => self.session.received(&bytes, now()),
            Ok(Arrived::Closed) => return self.detach("the port was closed"),
            Err(error) => return self.detach(&format!("the port failed: {error}")),
        };
        self.perform(outputs);
        let outputs = self.session.tick(now());
        self.perform(outputs);
        if let Some(Err(error)) = self.port.as_mut().map(Port::flush) {
            self.detach(&format!("the port failed: {error}"));
        }
    }

    fn command(&mut self, command: Command, fds: Vec<std::os::fd::OwnedFd>) -> Result<(), Failure> {
        let outputs = match command {
            Command::Attach {
                port: Place::GuestChannel,
            } => {
                for fd in fds {
                    self.attach(fd)?;
                }
                return Ok(());
            }
            Command::Notice { ja, en } => self.session.notice(&ja, &en, now()),
            Command::PowerButton => self.session.shut_down(self.countdown, now()),
            Command::Shutdown => {
                self.ends = Some(now() + LAST_WORDS);
                self.session.shut_down(0, now())
            }
            // Nothing here outlives a sleep that would have to be proven again, and answers are the gate's.
            Command::Suspend
            | Command::Resume
            | Command::Attach { .. }
            | Command::Answer { .. }
            | Command::AskAgain => Vec::new(),
        };
        self.perform(outputs);
        Ok(())
    }

    /// A fresh connection; an older one is closed by being dropped.
    fn attach(&mut self, fd: std::os::fd::OwnedFd) -> Result<(), Failure> {
        self.port = Some(Port::new(fd)?);
        let outputs = self.session.attached(random()?, now());
        self.perform(outputs);
        Ok(())
    }

    fn detach(&mut self, why: &str) {
        info!("{why}");
        self.port = None;
        self.session.detached();
        self.tell(&Report::Guest {
            event: "detached".to_owned(),
            detail: why.to_owned(),
        });
    }

    fn perform(&mut self, outputs: Vec<HostOutput>) {
        for output in outputs {
            match output {
                HostOutput::Send(bytes) => {
                    let sent = self.port.as_mut().map(|port| port.send(&bytes));
                    // Dropped when the next read finds the same.
                    if let Some(Err(error)) = sent {
                        debug!("the agent cannot be written to: {error}");
                    }
                }
                HostOutput::Report { event, detail } => {
                    self.tell(&Report::Guest {
                        event: event.to_owned(),
                        detail,
                    });
                }
            }
        }
    }

    /// Reports are signs, not state: one that finds no room is dropped, so that the agent cannot
    /// make this process wait.
    fn tell(&mut self, report: &Report) {
        match self.control.send(report, &[]) {
            Ok(()) => {}
            Err(ChannelError::Full) => warn!(?report, "the supervisor does not read its reports"),
            Err(error) => debug!("no report: {error}"),
        }
    }
}
