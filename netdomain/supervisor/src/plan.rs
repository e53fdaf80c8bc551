//! Which process runs, which waits, and who is given which socket: a pure machine.
//!
//! Events with their time go in, actions come out in the order in which they must be done. Between
//! two processes that talk there is a [`Wire`]; each start of a process makes fresh pairs for its
//! wires, of which the running peer is given the other end. Where the peer does not run, the end is
//! kept for its next start.

use std::{collections::BTreeMap, time::Duration};

use sekisho_control::{Command, Port};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The VMM with the work OS, or whatever stands for it.
    Work,
    /// Decides about every frame.
    Gate,
    /// Holds the network cards.
    Uplink,
    /// The host's end of the channel to the agent in the work OS.
    Guest,
    /// The engine of a TLS tunnel.
    Tls,
    /// Asks ModemManager for the SIM's connection.
    Modem,
    /// The engine of an `IPsec` tunnel.
    Ike,
}

impl Role {
    /// As it is called in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Work => "vmm",
            Self::Gate => "gate",
            Self::Uplink => "uplink",
            Self::Guest => "guest",
            Self::Tls => "tls",
            Self::Modem => "modem",
            Self::Ike => "ike",
        }
    }
}

/// A pair of sockets between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wire {
    /// The frame link.
    Link,
    /// The channel of paths and proofs.
    Path,
    /// The stream of the guest channel.
    Guest,
    /// The channel of the TLS tunnel's engine.
    Tls,
    /// The channel of the SIM's connection.
    Modem,
    /// The channel of the `IPsec` tunnel's engine.
    Ike,
}

impl Wire {
    const ALL: [Self; 6] = [
        Self::Link,
        Self::Path,
        Self::Guest,
        Self::Tls,
        Self::Modem,
        Self::Ike,
    ];

    /// The two processes that it joins.
    pub fn ends(self) -> (Role, Role) {
        match self {
            Self::Link => (Role::Work, Role::Gate),
            Self::Path => (Role::Gate, Role::Uplink),
            Self::Guest => (Role::Work, Role::Guest),
            Self::Tls => (Role::Gate, Role::Tls),
            Self::Modem => (Role::Uplink, Role::Modem),
            Self::Ike => (Role::Gate, Role::Ike),
        }
    }

    /// The other process, if `role` is one of the two.
    pub fn peer(self, role: Role) -> Option<Role> {
        match self.ends() {
            (one, other) if one == role => Some(other),
            (one, other) if other == role => Some(one),
            _ => None,
        }
    }

    /// What the port is called at this end.
    pub fn port(self, at: Role) -> Port {
        match (self, at) {
            (Self::Link, _) => Port::Link,
            (Self::Path, Role::Uplink) | (Self::Tls, Role::Tls) | (Self::Ike, Role::Ike) => {
                Port::Gate
            }
            (Self::Tls, _) => Port::Tls,
            (Self::Ike, _) => Port::Ike,
            (Self::Modem, Role::Uplink) => Port::Modem,
            (Self::Path | Self::Modem, _) => Port::Uplink,
            (Self::Guest, _) => Port::GuestChannel,
        }
    }
}

/// Where a starting process has the end of a wire from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A fresh pair is made; the other end is given to the peer by the [`Action::Attach`] that
    /// follows the start.
    Fresh,
    /// A fresh pair is made; the other end is kept for the peer.
    FreshKept,
    /// The end that was kept.
    Kept,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The process ended, or could not be started.
    Died(Role, Death),
    /// The gate reported that there is a way out: all that have a part in it are healthy.
    Open,
    /// The process reported that it serves.
    Ready(Role),
    /// The work OS was shut down; the VMM will exit.
    WorkShutDown,
    /// The work OS asked for a reset; the VMM will exit and is to be started again at once.
    WorkReset,
    /// Somebody pressed the power button.
    PowerButton,
    /// Somebody asked the supervisor to end.
    Terminate,
    /// The laptop is about to sleep.
    Sleep,
    /// The laptop woke up.
    Wake,
    /// The gate pulled the work OS's cable: it is to be plugged in again.
    Replug,
    /// Nothing but time.
    Time,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// With exit status 0.
    Clean,
    /// Otherwise.
    Crash,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the process with these ends.
    Start(Role, Vec<(Wire, End)>),
    /// Give the running process the other end of the pair that was just made.
    Attach(Role, Wire),
    /// Make a fresh pair and give both running processes their ends of it.
    Join(Wire),
    /// Close the end that was kept.
    Discard(Wire),
    /// Say this over the process's control channel.
    Tell(Role, Command),
    /// Send SIGTERM to a process that has no control channel.
    Terminate(Role),
    /// Send SIGKILL.
    Kill(Role),
    /// The packet filter is loaded: the network cards may go to the uplink.
    MovePorts,
    /// All is over.
    Exit,
}

/// Times of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A process that ran this long was healthy; its next restart is immediate again.
    pub healthy_after: Duration,
    /// The second restart in a row waits this long, each further one twice as long.
    pub first_pause: Duration,
    /// But never longer than this.
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            healthy_after: Duration::from_secs(10),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// How long the work OS's cable stays pulled when it is to ask for its address anew. Its driver looks
/// at the link when it gets to it, and a cable that is back by then was never pulled.
const UNPLUGGED: Duration = Duration::from_millis(500);

/// How long the work OS may take to shut down when the supervisor is told to end, and how long
/// everything else may take after it.
const WORK_ENDS_WITHIN: Duration = Duration::from_secs(20);
const REST_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// What is known of one process.
#[derive(Debug)]
struct Process {
    /// It has a control channel: it can be told things and given sockets.
    told: bool,
    state: State,
    /// Restarts in a row without a healthy time in between.
    restarts: u32,
    /// When they were last forgotten for a way out.
    forgiven: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running { since: Duration },
    Waiting { until: Duration },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Everything is kept running.
    Up,
    /// The work OS is to end by then; the rest still serves it.
    WorkEnding { by: Duration },
    /// Everything is to end by then.
    RestEnding { by: Duration },
    /// Nothing runs.
    Over,
}

/// The machine.
#[derive(Debug)]
pub struct Plan {
    pace: Pace,
    processes: BTreeMap<Role, Process>,
    /// For whom the end of a wire is kept.
    kept: BTreeMap<Wire, Role>,
    phase: Phase,
    reset: bool,
    asleep: bool,
    /// When the work OS's cable is plugged in again.
    replug: Option<Duration>,
}

/// Who holds a way out, and shuts it for the time of a sleep, and the work OS, which stands still. The gate comes
/// first: it is told that the laptop woke before the uplink hands it a path.
const SLEEPERS: [Role; 3] = [Role::Gate, Role::Uplink, Role::Work];

impl Plan {
    /// A plan for these processes; `true` for those that have a control channel. All of them are
    /// due at once, the work OS first, whose boot takes longest.
    pub fn new(roles: &[(Role, bool)], pace: Pace) -> Self {
        let process = |told| Process {
            told,
            state: State::Waiting {
                until: Duration::ZERO,
            },
            restarts: 0,
            forgiven: None,
        };
        Self {
            pace,
            processes: roles
                .iter()
                .map(|(role, told)| (*role, process(*told)))
                .collect(),
            kept: BTreeMap::new(),
            phase: Phase::Up,
            reset: false,
            asleep: false,
            replug: None,
        }
    }

    /// When [`Event::Time`] is wanted next.
    pub fn due(&self) -> Option<Duration> {
        let by = match self.phase {
            Phase::Up | Phase::Over => None,
            Phase::WorkEnding { by } | Phase::RestEnding { by } => Some(by),
        };
        let waiting = self
            .processes
            .values()
            .filter_map(|process| match process.state {
                State::Waiting { until } => Some(until),
                State::Running { .. } | State::Ended => None,
            });
        waiting.chain(by).chain(self.replug).min()
    }

    /// Takes an event at `now` and says what to do.
    pub fn on(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Died(role, death) => self.on_death(now, role, death, &mut actions),
            Event::Open => self.forgive(now),
            Event::Ready(role) => self.on_ready(role, &mut actions),
            // Whoever asks again in the meantime waits no longer for it.
            Event::Replug => self.replug = self.replug.or(Some(now + UNPLUGGED)),
            Event::Time => {}
            Event::WorkShutDown => self.end_work(now, &mut actions),
            Event::WorkReset => self.reset = true,
            Event::PowerButton => self.press(now, &mut actions),
            Event::Terminate => self.terminate(now, &mut actions),
            Event::Sleep => self.slumber(true, &mut actions),
            Event::Wake => self.slumber(false, &mut actions),
        }
        self.on_time(now, &mut actions);
        actions
    }

    /// Whether a process runs.
    pub fn runs(&self, role: Role) -> bool {
        matches!(self.state(role), Some(State::Running { .. }))
    }

    fn state(&self, role: Role) -> Option<State> {
        self.processes.get(&role).map(|process| process.state)
    }

    fn told(&self, role: Role) -> bool {
        self.processes.get(&role).is_some_and(|p| p.told)
    }

    fn wires(&self, role: Role) -> Vec<(Wire, Role)> {
        Wire::ALL
            .into_iter()
            .filter_map(|wire| Some((wire, wire.peer(role)?)))
            .filter(|(_, peer)| self.processes.contains_key(peer))
            .collect()
    }

    fn on_time(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let due: Vec<Role> = self
            .processes
            .iter()
            .filter(
                |(_, process)| matches!(process.state, State::Waiting { until } if until <= now),
            )
            .map(|(role, _)| *role)
            .collect();
        for role in due {
            self.start(now, role, actions);
        }
        if self.replug.take_if(|at| *at <= now).is_some() {
            self.replug(actions);
        }
        match self.phase {
            Phase::WorkEnding { by } if by <= now && self.runs(Role::Work) => {
                actions.push(Action::Kill(Role::Work));
                // Its death is on the way; not again at each event until then.
                self.phase = Phase::WorkEnding {
                    by: now + REST_ENDS_WITHIN,
                };
            }
            Phase::RestEnding { by } if by <= now => {
                let running: Vec<Role> = self.running().collect();
                actions.extend(running.into_iter().map(Action::Kill));
                self.phase = Phase::RestEnding {
                    by: now + REST_ENDS_WITHIN,
                };
            }
            _ => {}
        }
    }

    /// Plugs the work OS's cable in again, where both ends can be given a socket. Where one cannot,
    /// its next start brings a fresh pair.
    fn replug(&self, actions: &mut Vec<Action>) {
        let ends = [Role::Work, Role::Gate];
        if ends.iter().all(|role| self.runs(*role) && self.told(*role)) {
            actions.push(Action::Join(Wire::Link));
        }
    }

    fn running(&self) -> impl Iterator<Item = Role> {
        self.processes
            .iter()
            .filter(|(_, process)| matches!(process.state, State::Running { .. }))
            .map(|(role, _)| *role)
    }

    fn start(&mut self, now: Duration, role: Role, actions: &mut Vec<Action>) {
        let mut ends = Vec::new();
        let mut given = Vec::new();
        for (wire, peer) in self.wires(role) {
            let end = if self.kept.get(&wire) == Some(&role) {
                self.kept.remove(&wire);
                End::Kept
            } else if self.runs(peer) && self.told(peer) {
                given.push(Action::Attach(peer, wire));
                End::Fresh
            } else {
                self.kept.insert(wire, peer);
                if self.runs(peer) {
                    // It cannot be given a socket: it takes up the kept one when it starts again.
                    given.push(Action::Kill(peer));
                }
                End::FreshKept
            };
            ends.push((wire, end));
        }
        if let Some(process) = self.processes.get_mut(&role) {
            process.state = State::Running { since: now };
        }
        actions.push(Action::Start(role, ends));
        actions.extend(given);
    }

    fn on_death(&mut self, now: Duration, role: Role, death: Death, actions: &mut Vec<Action>) {
        for (wire, peer) in self.wires(role) {
            // What was kept for the peer belongs to the dead one's pair.
            if self.kept.get(&wire) == Some(&peer) {
                self.kept.remove(&wire);
                actions.push(Action::Discard(wire));
            }
        }
        let reset = role == Role::Work && std::mem::take(&mut self.reset);
        let pace = self.pace;
        let Some(process) = self.processes.get_mut(&role) else {
            return;
        };
        let since = match process.state {
            State::Running { since } => since,
            State::Waiting { .. } | State::Ended => return,
        };
        process.state = State::Ended;
        // Without a control channel, a clean end is the only way to say that the work is over.
        let over = role == Role::Work && death == Death::Clean && !process.told;
        match self.phase {
            Phase::Up if over => self.end_rest(now, actions),
            Phase::Up | Phase::WorkEnding { .. }
                if role != Role::Work || self.phase == Phase::Up =>
            {
                if reset || now.saturating_sub(since) >= pace.healthy_after {
                    process.restarts = 0;
                }
                let until = now + pace.pause(process.restarts);
                process.restarts = process.restarts.saturating_add(1);
                process.state = State::Waiting { until };
            }
            Phase::Up | Phase::WorkEnding { .. } => self.end_rest(now, actions),
            Phase::RestEnding { .. } | Phase::Over => {}
        }
        self.finish(actions);
    }

    /// The work OS is over, or will be in a moment.
    fn end_work(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.phase != Phase::Up {
            return;
        }
        if self.runs(Role::Work) {
            self.phase = Phase::WorkEnding {
                by: now + WORK_ENDS_WITHIN,
            };
        } else {
            self.end_rest(now, actions);
            self.finish(actions);
        }
    }

    /// Who brought about a way out is started again at once when it dies, however soon. Pauses are for
    /// those that die before they were of use, and for those that do it again and again: whoever can make
    /// the gate die by a packet is not to try at the speed of its start.
    fn forgive(&mut self, now: Duration) {
        let often = |at: Duration| now.saturating_sub(at) < self.pace.healthy_after;
        for (role, process) in &mut self.processes {
            if !matches!(role, Role::Work | Role::Guest) && !process.forgiven.is_some_and(often) {
                process.restarts = 0;
                process.forgiven = Some(now);
            }
        }
    }

    fn on_ready(&self, role: Role, actions: &mut Vec<Action>) {
        // Before the cards go to it: what starts while the laptop sleeps, sleeps as well.
        if self.asleep && SLEEPERS.contains(&role) && self.runs(role) {
            actions.push(Action::Tell(role, Command::Suspend));
        }
        if role == Role::Uplink {
            actions.push(Action::MovePorts);
        }
    }

    fn slumber(&mut self, asleep: bool, actions: &mut Vec<Action>) {
        self.asleep = asleep;
        let command = || {
            if asleep {
                Command::Suspend
            } else {
                Command::Resume
            }
        };
        for role in SLEEPERS {
            if self.runs(role) && self.told(role) {
                actions.push(Action::Tell(role, command()));
            }
        }
    }

    fn press(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.phase == Phase::Up && self.runs(Role::Work) && self.told(Role::Work) {
            actions.push(Action::Tell(Role::Work, Command::PowerButton));
        } else {
            self.terminate(now, actions);
        }
    }

    fn terminate(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.phase != Phase::Up {
            return;
        }
        if self.runs(Role::Work) {
            actions.push(self.farewell(Role::Work));
        }
        self.end_work(now, actions);
    }

    fn farewell(&self, role: Role) -> Action {
        if self.told(role) {
            Action::Tell(role, Command::Shutdown)
        } else {
            Action::Terminate(role)
        }
    }

    fn end_rest(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for process in self.processes.values_mut() {
            if matches!(process.state, State::Waiting { .. }) {
                process.state = State::Ended;
            }
        }
        let running: Vec<Role> = self.running().collect();
        for role in running {
            actions.push(self.farewell(role));
        }
        self.phase = Phase::RestEnding {
            by: now + REST_ENDS_WITHIN,
        };
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::RestEnding { .. }) && self.running().next().is_none() {
            self.phase = Phase::Over;
            actions.push(Action::Exit);
        }
    }
}

impl Pace {
    /// The pause before a restart after so many in a row.
    fn pause(&self, restarts: u32) -> Duration {
        let Some(doublings) = restarts.checked_sub(1) else {
            return Duration::ZERO;
        };
        self.first_pause
            .saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests;
