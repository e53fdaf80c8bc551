//! The loop: waits for ends of processes, their reports, signals, the button and time, feeds the
//! plan and does what it says.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::Signal,
    time::{ClockId, clock_gettime},
};
use sekisho_control::{Channel, Command, Report, pair};

use crate::{
    child::{Handed, Running},
    config::{CONTROL, Config, ConfigError, GUEST, LINK, NETNS, PATH, PowerButton, Recipe, TLS},
    events::{Events, Own},
    netns,
    plan::{Action, Death, End, Event, Plan, Role, Wire},
    power,
};

/// How often a network card that is not there yet is looked for.
const LOOK_FOR_PORTS: Duration = Duration::from_millis(250);
/// Reports taken from one process in one turn; a flood of one must not hide the end of another.
const REPORTS_PER_TURN: usize = 64;

/// Why the supervisor could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A call of the system.
    #[error("the supervisor could not {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> SuperviseError + '_ {
    move |source| SuperviseError::System {
        what: what.to_owned(),
        source: source.into(),
    }
}

/// What became readable: the kind in the upper half of the token, who in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signal,
    Button(u32),
    Ended(Role),
    Report(Role),
}

impl Source {
    fn token(self) -> epoll::EventData {
        let (kind, who) = match self {
            Self::Signal => (0, 0),
            Self::Button(number) => (1, number),
            Self::Ended(role) => (2, role as u32),
            Self::Report(role) => (3, role as u32),
        };
        epoll::EventData::new_u64((kind << 32) | u64::from(who))
    }

    fn from_token(token: u64) -> Option<Self> {
        let who = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        let role = || {
            [Role::Work, Role::Gate, Role::Uplink, Role::Guest, Role::Tls]
                .into_iter()
                .find(|role| *role as u32 == who)
        };
        match token >> 32 {
            0 => Some(Self::Signal),
            1 => Some(Self::Button(who)),
            2 => role().map(Self::Ended),
            3 => role().map(Self::Report),
            _ => None,
        }
    }
}

/// A process that runs.
#[derive(Debug)]
struct Member {
    running: Running,
    control: Option<Channel<Command, Report>>,
}

struct Supervisor {
    recipes: BTreeMap<Role, Recipe>,
    plan: Plan,
    events: Events,
    epoll: OwnedFd,
    signals: UnixStream,
    buttons: Vec<File>,
    namespace: OwnedFd,
    /// Cards that are not the uplink's yet.
    ports: Vec<String>,
    may_move: bool,
    members: BTreeMap<Role, Member>,
    /// Ends for peers that do not run.
    kept: BTreeMap<Wire, OwnedFd>,
    /// Ends for running peers, until the attach that follows.
    fresh: BTreeMap<Wire, OwnedFd>,
    over: bool,
}

/// Time that also passes while the laptop sleeps; what events tell.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Runs until everything has ended: the work OS was shut down, or a signal asked for it. Events are
/// also written to `events`.
pub fn run(config: &Config, events: Option<File>) -> Result<(), SuperviseError> {
    fs::create_dir_all(&config.state).map_err(failed("make the gate's state folder"))?;
    if let Some(user) = config.users.gate {
        std::os::unix::fs::chown(&config.state, Some(user), Some(user))
            .map_err(failed("give the gate its state folder"))?;
    }
    let recipes = config.recipes()?;
    let roles: Vec<(Role, bool)> = recipes
        .iter()
        .map(|recipe| (recipe.role, recipe.takes(CONTROL)))
        .collect();
    let (namespace, ports) = match &config.netns {
        Some(name) => (netns::named(name), Vec::new()),
        None => (netns::make(), config.ports.clone()),
    };
    let (signals, wake) = UnixStream::pair().map_err(failed("make a pipe for signals"))?;
    for number in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let end = wake.try_clone().map_err(failed("copy the signals' pipe"))?;
        signal_hook::low_level::pipe::register(number, end)
            .map_err(failed("register a signal handler"))?;
    }
    let mut supervisor = Supervisor {
        recipes: recipes.into_iter().map(|r| (r.role, r)).collect(),
        plan: Plan::new(&roles, config.pace()),
        events: Events::new(events),
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("open epoll"))?,
        signals,
        buttons: match config.power_button {
            PowerButton::Auto => power::open(),
            PowerButton::None => Vec::new(),
        },
        namespace: namespace.map_err(failed("open the uplink's network namespace"))?,
        ports,
        may_move: false,
        members: BTreeMap::new(),
        kept: BTreeMap::new(),
        fresh: BTreeMap::new(),
        over: false,
    };
    supervisor.run()
}

impl Supervisor {
    fn run(&mut self) -> Result<(), SuperviseError> {
        self.watch(&self.signals, Source::Signal)?;
        for (number, button) in (0..).zip(&self.buttons) {
            self.watch(button, Source::Button(number))?;
        }
        self.feed(Event::Time)?;
        let mut ready = Vec::with_capacity(32);
        while !self.over {
            let wait = self.wait();
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("wait for events")(errno)),
            }
            for event in &ready {
                if let Some(source) = Source::from_token(event.data.u64()) {
                    self.on(source)?;
                }
            }
            self.move_ports();
            self.feed(Event::Time)?;
        }
        self.events.own(now(), &Own::Ended);
        Ok(())
    }

    fn watch(&self, fd: impl AsFd, source: Source) -> Result<(), SuperviseError> {
        epoll::add(&self.epoll, fd, source.token(), epoll::EventFlags::IN)
            .map_err(failed("watch a descriptor"))
    }

    fn wait(&self) -> Option<Timespec> {
        let mut wait = self.plan.due().map(|due| due.saturating_sub(now()));
        if self.may_move && !self.ports.is_empty() {
            wait = Some(wait.map_or(LOOK_FOR_PORTS, |wait| wait.min(LOOK_FOR_PORTS)));
        }
        wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn on(&mut self, source: Source) -> Result<(), SuperviseError> {
        match source {
            Source::Signal => {
                // Level-triggered: what is not read wakes again.
                let mut byte = [0; 64];
                let _ = io::Read::read(&mut self.signals, &mut byte);
                tracing::info!("asked to end");
                self.feed(Event::Terminate)
            }
            Source::Button(number) => self.on_button(number),
            Source::Report(role) => self.on_reports(role),
            Source::Ended(role) => self.on_end(role),
        }
    }

    fn on_button(&mut self, number: u32) -> Result<(), SuperviseError> {
        let Some(button) = self.buttons.get_mut(number as usize) else {
            return Ok(());
        };
        match power::pressed(button) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.events.own(now(), &Own::PowerButton);
                self.feed(Event::PowerButton)
            }
            Err(error) => {
                tracing::warn!(%error, "a power button is gone");
                let _ = epoll::delete(&self.epoll, &*button);
                Ok(())
            }
        }
    }

    fn on_reports(&mut self, role: Role) -> Result<(), SuperviseError> {
        for _ in 0..REPORTS_PER_TURN {
            let Some(member) = self.members.get_mut(&role) else {
                return Ok(());
            };
            let Some(control) = &member.control else {
                return Ok(());
            };
            let report = match control.recv() {
                Ok(Some(received)) => received.message,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // Mostly its end, which its pidfd tells. One that lives on without its channel
                    // can be neither told anything nor given a socket.
                    tracing::debug!(%error, "{} closed its channel", role.name());
                    let _ = epoll::delete(&self.epoll, control);
                    member.control = None;
                    member.running.signal(Signal::KILL);
                    return Ok(());
                }
            };
            self.events.reported(now(), role.name(), &report);
            match report {
                Report::Ready => self.feed(Event::Ready(role))?,
                Report::WorkEnded { cause } if role == Role::Work => match cause.as_str() {
                    "shutdown" => self.feed(Event::WorkShutDown)?,
                    "reset" => self.feed(Event::WorkReset)?,
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn on_end(&mut self, role: Role) -> Result<(), SuperviseError> {
        // Its last words come before its end.
        self.on_reports(role)?;
        let Some(member) = self.members.get_mut(&role) else {
            return Ok(());
        };
        let status = match member.running.reap() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => status,
            Err(source) => return Err(failed("take an exit status")(source)),
        };
        // Closing the descriptors takes them out of epoll.
        self.members.remove(&role);
        let process = role.name();
        let status_text = status.to_string();
        self.events.own(
            now(),
            &Own::Died {
                process,
                status: status_text,
            },
        );
        let death = if status.success() {
            Death::Clean
        } else {
            Death::Crash
        };
        self.feed(Event::Died(role, death))
    }

    /// Feeds the plan and does what it says; what goes wrong with that is fed in turn.
    fn feed(&mut self, event: Event) -> Result<(), SuperviseError> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.plan.on(now(), event) {
                if let Some(follows) = self.act(action)? {
                    events.push(follows);
                }
            }
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<Option<Event>, SuperviseError> {
        match action {
            Action::Start(role, ends) => return self.start(role, &ends),
            Action::Attach(role, wire) => {
                if let Some(end) = self.fresh.remove(&wire) {
                    let port = wire.port(role);
                    self.tell(role, &Command::Attach { port }, Some(&end));
                }
            }
            Action::Discard(wire) => {
                self.kept.remove(&wire);
            }
            Action::Tell(role, command) => self.tell(role, &command, None),
            Action::Terminate(role) => self.signal(role, Signal::TERM),
            Action::Kill(role) => self.signal(role, Signal::KILL),
            Action::MovePorts => self.may_move = true,
            Action::Exit => self.over = true,
        }
        Ok(None)
    }

    fn signal(&self, role: Role, signal: Signal) {
        if let Some(member) = self.members.get(&role) {
            member.running.signal(signal);
        }
    }

    /// A process that does not take what it must hear is as good as dead, and restarted.
    fn tell(&mut self, role: Role, command: &Command, fd: Option<&OwnedFd>) {
        let Some(member) = self.members.get(&role) else {
            return;
        };
        let Some(control) = &member.control else {
            return;
        };
        let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
        if let Err(error) = control.send(command, &fds) {
            tracing::warn!(%error, "{} does not take a command", role.name());
            member.running.signal(Signal::KILL);
        }
    }

    fn start(&mut self, role: Role, ends: &[(Wire, End)]) -> Result<Option<Event>, SuperviseError> {
        let mut handed: Vec<Handed> = Vec::new();
        for (wire, end) in ends {
            let own = match end {
                End::Kept => self.kept.remove(wire),
                End::Fresh | End::FreshKept => {
                    let (own, other) = make_pair(*wire)?;
                    if *end == End::Fresh {
                        self.fresh.insert(*wire, other);
                    } else {
                        self.kept.insert(*wire, other);
                    }
                    Some(own)
                }
            };
            handed.extend(own.map(|own| (placeholder(*wire), own)));
        }
        let Some(recipe) = self.recipes.get(&role) else {
            return Ok(None);
        };
        let mut control = None;
        if recipe.takes(CONTROL) {
            let (own, theirs) = pair().map_err(|error| SuperviseError::System {
                what: "make a control channel".to_owned(),
                source: io::Error::other(error),
            })?;
            handed.push((CONTROL, theirs));
            control = Channel::from_fd(own).ok();
        }
        if recipe.takes(NETNS) {
            let copy = self.namespace.try_clone();
            handed.push((
                NETNS,
                copy.map_err(failed("copy the namespace's descriptor"))?,
            ));
        }
        // A process that does not name a socket does not inherit it either.
        handed.retain(|(placeholder, _)| recipe.takes(placeholder));

        let process = role.name();
        match Running::start(&recipe.words, handed) {
            Ok(running) => {
                let pid = running.id();
                self.watch(&running.pidfd, Source::Ended(role))?;
                if let Some(control) = &control {
                    self.watch(control, Source::Report(role))?;
                }
                self.members.insert(role, Member { running, control });
                self.events.own(now(), &Own::Started { process, pid });
                Ok(None)
            }
            Err(error) => {
                let why = format!("{}: {error}", recipe.words[0]);
                self.events.own(now(), &Own::NotStarted { process, why });
                Ok(Some(Event::Died(role, Death::Crash)))
            }
        }
    }

    /// Moves the cards that are there. One that is not (its driver may still be loading) is looked
    /// for again.
    fn move_ports(&mut self) {
        if !self.may_move {
            return;
        }
        let namespace = &self.namespace;
        let events = &mut self.events;
        self.ports
            .retain(|port| match netns::move_port(port, namespace) {
                Ok(()) => {
                    events.own(now(), &Own::Moved { port: port.clone() });
                    false
                }
                Err(error) => {
                    if error.raw_os_error() != Some(Errno::NODEV.raw_os_error()) {
                        tracing::warn!(port, %error, "a network card does not go to the uplink");
                    }
                    true
                }
            });
    }
}

fn placeholder(wire: Wire) -> &'static str {
    match wire {
        Wire::Link => LINK,
        Wire::Path => PATH,
        Wire::Guest => GUEST,
        Wire::Tls => TLS,
    }
}

fn make_pair(wire: Wire) -> Result<(OwnedFd, OwnedFd), SuperviseError> {
    let made = match wire {
        Wire::Link => sekisho_framelink::pair().map_err(io::Error::other),
        Wire::Path | Wire::Tls => pair().map_err(io::Error::other),
        Wire::Guest => socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(Into::into),
    };
    made.map_err(failed("make a pair of sockets"))
}
