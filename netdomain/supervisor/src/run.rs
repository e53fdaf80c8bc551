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
use sekisho_control::{Channel, Command, Report, SituationReport, pair};
use sekisho_status::{Ledger, Wish};

use crate::{
    asking::Asking,
    child::{Handed, Running},
    config::{
        CONTROL, Config, ConfigError, GUEST, IKE, LINK, MODEM, NETNS, PATH, PowerButton, Recipe,
        TLS,
    },
    events::{Events, Own},
    host::Host,
    netns,
    notices::{Notices, Obstacle},
    plan::{Action, Death, End, Event, Plan, Role, Wire},
    power,
    serving::Serving,
};

/// What `sekisho status` calls the product's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often a network card that is not there yet is looked for.
const LOOK_FOR_PORTS: Duration = Duration::from_millis(250);
/// A process that closed its channel has something left to say, most often why it ends. It is given
/// so long before it is killed.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
    Signal(u32),
    Button(u32),
    Ended(Role),
    Report(Role),
    Status,
}

impl Source {
    fn token(self) -> epoll::EventData {
        let (kind, who) = match self {
            Self::Signal(number) => (0, number),
            Self::Button(number) => (1, number),
            Self::Ended(role) => (2, role as u32),
            Self::Report(role) => (3, role as u32),
            Self::Status => (4, 0),
        };
        epoll::EventData::new_u64((kind << 32) | u64::from(who))
    }

    fn from_token(token: u64) -> Option<Self> {
        let who = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        let role = || {
            [
                Role::Work,
                Role::Gate,
                Role::Uplink,
                Role::Guest,
                Role::Tls,
                Role::Modem,
                Role::Ike,
            ]
            .into_iter()
            .find(|role| *role as u32 == who)
        };
        match token >> 32 {
            0 => Some(Self::Signal(who)),
            1 => Some(Self::Button(who)),
            2 => role().map(Self::Ended),
            3 => role().map(Self::Report),
            4 => Some(Self::Status),
            _ => None,
        }
    }
}

/// A process that runs.
#[derive(Debug)]
struct Member {
    running: Running,
    control: Option<Channel<Command, Report>>,
    /// It closed its channel and is to have ended by then.
    ends_by: Option<Duration>,
}

struct Supervisor {
    recipes: BTreeMap<Role, Recipe>,
    plan: Plan,
    events: Events,
    ledger: Ledger,
    notices: Notices,
    asking: Asking,
    serving: Option<Serving>,
    host: Host,
    epoll: OwnedFd,
    signals: Vec<(UnixStream, Event)>,
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

/// What each signal says. Sleep and waking are told by the host's sleep hook, so that everything is
/// shut before the laptop sleeps; where it is not told, the gate notices by its clocks when it wakes.
/// Of both at once the waking counts, as the laptop would not run else.
const SIGNALS: [(&[i32], Event); 3] = [
    (
        &[signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT],
        Event::Terminate,
    ),
    (&[signal_hook::consts::SIGUSR1], Event::Sleep),
    (&[signal_hook::consts::SIGUSR2], Event::Wake),
];

/// A socket that becomes readable with any of these signals.
fn listen(numbers: &[i32]) -> Result<UnixStream, SuperviseError> {
    let (signals, wake) = UnixStream::pair().map_err(failed("make a pipe for signals"))?;
    signals
        .set_nonblocking(true)
        .map_err(failed("make a pipe for signals"))?;
    for number in numbers {
        let end = wake.try_clone().map_err(failed("copy the signals' pipe"))?;
        signal_hook::low_level::pipe::register(*number, end)
            .map_err(failed("register a signal handler"))?;
    }
    Ok(signals)
}

/// Runs until everything has ended: the work OS was shut down, or a signal asked for it. Events are
/// also written to `events`.
pub fn run(config: &Config, events: Option<File>) -> Result<(), SuperviseError> {
    fs::create_dir_all(&config.state).map_err(failed("make the gate's state folder"))?;
    if let Some(user) = config.users.gate {
        std::os::unix::fs::chown(&config.state, Some(user), Some(user))
            .map_err(failed("give the gate its state folder"))?;
    }
    if let Some(usage) = &config.usage {
        // The uplink opens its file there before it gives up its rights.
        fs::create_dir_all(usage).map_err(failed("make the uplink's folder"))?;
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
    let signals = SIGNALS
        .iter()
        .map(|(numbers, event)| listen(numbers).map(|signals| (signals, *event)))
        .collect::<Result<_, _>>()?;
    let mut supervisor = Supervisor {
        recipes: recipes.into_iter().map(|r| (r.role, r)).collect(),
        plan: Plan::new(&roles, config.pace()),
        events: Events::new(events),
        ledger: Ledger::new(VERSION, now()),
        notices: Notices::new(),
        asking: Asking::default(),
        serving: serving(config),
        host: Host::new(),
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

/// The laptop works without being asked about: a status socket that cannot be is left out.
fn serving(config: &Config) -> Option<Serving> {
    let status = config.status.as_ref()?;
    Serving::open(status, VERSION, now())
        .inspect_err(|error| {
            let socket = status.socket.display();
            tracing::warn!(%socket, %error, "nobody can ask for the status");
        })
        .ok()
}

impl Supervisor {
    fn run(&mut self) -> Result<(), SuperviseError> {
        for (number, (signals, _)) in (0..).zip(&self.signals) {
            self.watch(signals, Source::Signal(number))?;
        }
        if let Some(serving) = &self.serving {
            self.watch(serving, Source::Status)?;
        }
        for (number, button) in (0..).zip(&self.buttons) {
            self.watch(button, Source::Button(number))?;
        }
        self.feed(Event::Time)?;
        Host::ready();
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
            self.kill_overdue();
            self.move_ports();
            self.feed(Event::Time)?;
            self.tell_people();
            self.host.turn(now());
        }
        Host::stopping();
        self.events.own(now(), &Own::Ended);
        Ok(())
    }

    /// Ends those that live on without their channel.
    fn kill_overdue(&mut self) {
        let now = now();
        for member in self.members.values_mut() {
            if member.ends_by.is_some_and(|by| by <= now) {
                member.ends_by = None;
                member.running.signal(Signal::KILL);
            }
        }
    }

    fn watch(&self, fd: impl AsFd, source: Source) -> Result<(), SuperviseError> {
        epoll::add(&self.epoll, fd, source.token(), epoll::EventFlags::IN)
            .map_err(failed("watch a descriptor"))
    }

    fn wait(&self) -> Option<Timespec> {
        let now = now();
        let (situation, since) = self.ledger.situation();
        let serving = self.serving.as_ref();
        let ends = self.members.values().filter_map(|member| member.ends_by);
        let due = [
            ends.chain(self.plan.due()).min(),
            self.notices.due(situation, since),
            self.asking.due(self.ledger.demand()),
            self.host.due(),
            serving.and_then(|serving| serving.due(&self.ledger, now)),
        ];
        let due = due.into_iter().flatten().min();
        let mut wait = due.map(|due| due.saturating_sub(now));
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
            Source::Signal(number) => self.on_signal(number),
            Source::Button(number) => self.on_button(number),
            Source::Report(role) => self.on_reports(role),
            Source::Ended(role) => self.on_end(role),
            // It has its turn after everything that matters.
            Source::Status => Ok(()),
        }
    }

    /// Tells the person in the work OS what is worth telling, and whoever asks what is known.
    fn tell_people(&mut self) {
        let (situation, since) = self.ledger.situation();
        self.notices.facing(if self.ledger.wants_page() {
            Obstacle::Page
        } else {
            Obstacle::Unknown
        });
        if let Some(notice) = self.notices.on(situation, since, now()) {
            self.tell(Role::Guest, &notice, None);
        }
        if let Some(notice) = self.asking.on(self.ledger.demand(), now()) {
            self.tell(Role::Guest, &notice, None);
        }
        let Some(serving) = &mut self.serving else {
            return;
        };
        serving.turn(&self.ledger, now());
        if let Some(wish) = serving.take_wish() {
            let command = match wish {
                Wish::Answer(demand, answer) => Command::Answer { demand, answer },
                Wish::AskAgain => Command::AskAgain,
            };
            self.tell(Role::Gate, &command, None);
        }
    }

    fn on_signal(&mut self, number: u32) -> Result<(), SuperviseError> {
        let Some((signals, event)) = self.signals.get_mut(number as usize) else {
            return Ok(());
        };
        // Level-triggered: what is not read wakes again.
        let mut bytes = [0; 64];
        let _ = io::Read::read(signals, &mut bytes);
        let event = *event;
        match event {
            Event::Sleep => tracing::info!("the laptop is about to sleep"),
            Event::Wake => tracing::info!("the laptop woke up"),
            _ => tracing::info!("asked to end"),
        }
        self.feed(event)
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
                    // can be neither told anything nor given a socket, and is killed in a moment.
                    tracing::debug!(%error, "{} closed its channel", role.name());
                    let _ = epoll::delete(&self.epoll, control);
                    member.control = None;
                    member.ends_by = Some(now() + LAST_WORDS);
                    return Ok(());
                }
            };
            self.events.reported(now(), role.name(), &report);
            self.ledger.reported(role.name(), &report, now());
            match report {
                Report::Situation(
                    SituationReport::Tunnelled { .. } | SituationReport::Direct { .. },
                ) if role == Role::Gate => self.feed(Event::Open)?,
                Report::Ready => self.feed(Event::Ready(role))?,
                Report::Replug if role == Role::Gate => self.feed(Event::Replug)?,
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
        self.ledger.ended(process, &status_text, now());
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
            Action::Join(wire) => {
                let (own, other) = make_pair(wire)?;
                for (role, end) in [wire.ends().0, wire.ends().1].into_iter().zip([own, other]) {
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
                let member = Member {
                    running,
                    control,
                    ends_by: None,
                };
                self.members.insert(role, member);
                self.ledger.started(process, now());
                self.events.own(now(), &Own::Started { process, pid });
                Ok(None)
            }
            Err(error) => {
                let why = format!("{}: {error}", recipe.words[0]);
                self.ledger.started(process, now());
                self.ledger.ended(process, &why, now());
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
        let ledger = &mut self.ledger;
        self.ports
            .retain(|port| match netns::move_port(port, namespace) {
                Ok(()) => {
                    ledger.moved(port, now());
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
        Wire::Modem => MODEM,
        Wire::Ike => IKE,
    }
}

fn make_pair(wire: Wire) -> Result<(OwnedFd, OwnedFd), SuperviseError> {
    let made = match wire {
        Wire::Link => sekisho_framelink::pair().map_err(io::Error::other),
        Wire::Path | Wire::Tls | Wire::Modem | Wire::Ike => pair().map_err(io::Error::other),
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
