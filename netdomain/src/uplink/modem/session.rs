//! What to ask of ModemManager, and what follows from its answers: a pure machine.
//!
//! Nothing is believed of a signal but that something changed. Whatever changed, everything that
//! matters is asked for again (a *look*), and judged as a whole: so a signal that is lost, forged or
//! repeated changes nothing but when the next look is, and a flood of them costs one look in
//! [`LOOK_PAUSE`].
//!
//! One call is under way at a time. A bearer is told to the uplink only by a look that found the
//! modem registered in a network that policy allows, with the access point that policy names; an
//! answer that says less, an error, or none in time takes it back.

use std::time::Duration;

use sekisho_control::{Bearer, BearerAddress, ModemFound};

use super::objects::{BearerState, Config, Method, Modem, ModemState, ObjectPath, Registration};
use crate::uplink::endpoints::is_modems;

/// Shortest time between the beginnings of two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// A look without a reason: ModemManager tells of every change, and this is for the one that was
/// lost.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// ModemManager answers from memory what it is asked for in a look; the time of a whole look.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Switching on, connecting and disconnecting wait for the modem and its network; ModemManager
/// gives up on its own after at most this long (180 s for a connection, `MMBaseBearer`).
const DONE_WITHIN: Duration = Duration::from_secs(200);
/// Pause before something that failed is tried again; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The trouble of a modem that was switched on and stays off.
const SWITCHING_ON: ModemFound = ModemFound::Failed;
/// MTUs that are passed on: from what every host must take (RFC 791, section 3.1) to Ethernet's.
const MTU: std::ops::RangeInclusive<u16> = 576..=1500;

/// What policy says of the SIM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The access point; `None`: the modem's own.
    pub apn: Option<String>,
    /// Networks that may serve it; empty: any.
    pub networks: Vec<String>,
    /// Whether it may be used outside its own network.
    pub roaming: bool,
    /// Interfaces that are the SIM's; empty: those that modems are given by their names.
    pub interfaces: Vec<String>,
}

impl Wish {
    fn owns(&self, interface: &str) -> bool {
        match &self.interfaces[..] {
            [] => is_modems(interface),
            named => named.iter().any(|named| named == interface),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// ModemManager said something unasked, or came or went.
    Changed,
    /// The answer to the call that is under way; `None` for an error or a malformed one.
    Answer(Option<Answer>),
    /// Nothing but time.
    Time,
}

/// An answer, of the type that its call has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All modems.
    Modems(Vec<Modem>),
    /// A bearer.
    Bearer(BearerState),
    /// It is done.
    Done,
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Everything that ModemManager has.
    Modems,
    /// The properties of a bearer.
    Bearer(ObjectPath),
    /// Switch the modem on.
    Enable(ObjectPath),
    /// Connect it.
    Connect(ObjectPath),
    /// End all its connections.
    Disconnect(ObjectPath),
}

/// What is known, for the uplink and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) found: ModemFound,
    pub(crate) operator: String,
    pub(crate) signal: Option<u8>,
    /// Present only with [`ModemFound::Connected`].
    pub(crate) bearer: Option<Bearer>,
}

impl Finding {
    fn nothing(found: ModemFound) -> Self {
        Self {
            found,
            operator: String::new(),
            signal: None,
            bearer: None,
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell this; it differs from what was told before. Comes before a call.
    Tell(Finding),
    /// Make this call. No other is under way: one that was is forgotten with its answer.
    Call(Call),
}

#[derive(Debug)]
enum State {
    /// Nothing is asked until then at the latest.
    Idle { until: Duration },
    /// All modems were asked for.
    Looking,
    /// Bearers of a modem that may be used are being asked for.
    Bearers {
        modem: Modem,
        left: Vec<ObjectPath>,
        connected: Vec<BearerState>,
    },
    /// The modem is doing something.
    Doing { trouble: ModemFound },
}

/// Whether this keeps a modem from being connected for a while. That it was switched on a moment ago
/// does not, nor that it was in another network.
fn spoils(trouble: ModemFound) -> bool {
    matches!(
        trouble,
        ModemFound::Refused | ModemFound::Unusable | ModemFound::OtherInterface
    )
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Session {
    wish: Wish,
    state: State,
    /// The answer is due by then.
    by: Duration,
    changed: bool,
    looked: Option<Duration>,
    told: Option<Finding>,
    /// What failed last, and when it may be tried again.
    trouble: Option<(ModemFound, Duration)>,
    pause: Duration,
}

impl Session {
    /// Nothing is known yet; the first look is due at once.
    pub(crate) fn new(wish: Wish) -> Self {
        Self {
            wish,
            state: State::Idle {
                until: Duration::ZERO,
            },
            by: Duration::ZERO,
            changed: true,
            looked: None,
            told: None,
            trouble: None,
            pause: FIRST_PAUSE,
        }
    }

    /// When [`Event::Time`] is wanted.
    pub(crate) fn due(&self) -> Duration {
        match self.state {
            State::Idle { until } => until,
            _ => self.by,
        }
    }

    /// Takes an event at `now` and says what to do.
    pub(crate) fn on(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Changed => {
                self.changed = true;
                if matches!(self.state, State::Idle { .. }) {
                    self.idle(now);
                }
            }
            Event::Answer(answer) => self.on_answer(now, answer, &mut actions),
            Event::Time => {
                if !matches!(self.state, State::Idle { .. }) && self.by <= now {
                    self.fail(now, &mut actions);
                }
            }
        }
        if let State::Idle { until } = self.state
            && until <= now
        {
            self.look(now, &mut actions);
        }
        actions
    }

    fn idle(&mut self, now: Duration) {
        let again = self
            .looked
            .map_or(Duration::ZERO, |looked| looked + LOOK_PAUSE);
        let until = if self.changed {
            again
        } else {
            let retry = self.trouble.map(|(_, at)| at.max(again));
            (now + LOOK_ANYWAY).min(retry.unwrap_or(Duration::MAX))
        };
        self.state = State::Idle { until };
    }

    fn call(&mut self, now: Duration, call: Call, actions: &mut Vec<Action>) {
        match call {
            Call::Modems => self.by = now + ANSWERS_WITHIN,
            // The rest of a look has the time of the look.
            Call::Bearer(_) => {}
            Call::Enable(_) | Call::Connect(_) | Call::Disconnect(_) => {
                self.by = now + DONE_WITHIN;
            }
        }
        actions.push(Action::Call(call));
    }

    fn look(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.changed = false;
        self.looked = Some(now);
        self.state = State::Looking;
        self.call(now, Call::Modems, actions);
    }

    fn tell(&mut self, finding: Finding, actions: &mut Vec<Action>) {
        if self.told.as_ref() != Some(&finding) {
            self.told = Some(finding.clone());
            actions.push(Action::Tell(finding));
        }
    }

    /// An error, an answer of another type, or none in time.
    fn fail(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.state {
            State::Idle { .. } => return,
            State::Looking => {
                self.tell(Finding::nothing(ModemFound::Absent), actions);
            }
            // It may have gone since it was listed: what there is now, the next look tells.
            State::Bearers { ref modem, .. } => {
                let finding = of(modem, ModemFound::Connecting);
                self.tell(finding, actions);
                self.changed = true;
            }
            State::Doing { trouble } => {
                self.put_off(now, trouble);
                self.changed = true;
            }
        }
        self.idle(now);
    }

    /// What failed is tried again later.
    fn put_off(&mut self, now: Duration, trouble: ModemFound) {
        self.trouble = Some((trouble, now + self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn on_answer(&mut self, now: Duration, answer: Option<Answer>, actions: &mut Vec<Action>) {
        let state = std::mem::replace(&mut self.state, State::Idle { until: now });
        match (state, answer) {
            (State::Looking, Some(Answer::Modems(modems))) => self.judge(now, modems, actions),
            (
                State::Bearers {
                    modem,
                    left,
                    mut connected,
                },
                Some(Answer::Bearer(bearer)),
            ) => {
                connected.extend(Some(bearer).filter(|bearer| bearer.connected));
                self.ask_bearers(now, modem, left, connected, actions);
            }
            (State::Doing { trouble }, Some(Answer::Done)) => {
                // Whether it helped, the next look tells. What has to be done again and again does
                // not help.
                self.put_off(now, trouble);
                self.changed = true;
                self.idle(now);
            }
            // Of a call that was given up.
            (State::Idle { until }, _) => self.state = State::Idle { until },
            (state, _) => {
                self.state = state;
                self.fail(now, actions);
            }
        }
    }

    /// The modems are known: whether one may be used.
    fn judge(&mut self, now: Duration, modems: Vec<Modem>, actions: &mut Vec<Action>) {
        // A laptop has one; of several the one that has come furthest.
        let Some(modem) = modems.into_iter().max_by_key(|modem| modem.state) else {
            self.tell(Finding::nothing(ModemFound::NoModem), actions);
            return self.idle(now);
        };
        let found = self.stands(&modem);
        let connected = matches!(modem.state, ModemState::Connecting | ModemState::Connected);
        match found {
            ModemFound::Connecting => {
                let bearers = modem.bearers.clone();
                self.ask_bearers(now, modem, bearers, Vec::new(), actions);
            }
            ModemFound::WrongNetwork | ModemFound::Roaming if connected => {
                self.tell(of(&modem, found), actions);
                self.act(now, Call::Disconnect(modem.path), found, actions);
            }
            ModemFound::Starting if modem.state == ModemState::Disabled => {
                self.tell(of(&modem, found), actions);
                self.act(now, Call::Enable(modem.path), SWITCHING_ON, actions);
            }
            _ => {
                self.tell(of(&modem, found), actions);
                self.idle(now);
            }
        }
    }

    /// How far a modem is, by what it is and who serves it.
    fn stands(&self, modem: &Modem) -> ModemFound {
        match modem.state {
            ModemState::Failed => ModemFound::Failed,
            ModemState::SimMissing => ModemFound::SimMissing,
            ModemState::Locked => ModemFound::SimLocked,
            ModemState::Unknown | ModemState::Changing | ModemState::Disabled => {
                ModemFound::Starting
            }
            ModemState::Searching => ModemFound::Searching,
            ModemState::Registered | ModemState::Connecting | ModemState::Connected => {
                match (modem.registration, &modem.operator) {
                    (Registration::None, _) => ModemFound::Searching,
                    (_, None) if !self.wish.networks.is_empty() => ModemFound::WrongNetwork,
                    (_, Some(operator))
                        if !self.wish.networks.is_empty()
                            && !self.wish.networks.contains(operator) =>
                    {
                        ModemFound::WrongNetwork
                    }
                    (Registration::Roaming, _) if !self.wish.roaming => ModemFound::Roaming,
                    _ => ModemFound::Connecting,
                }
            }
        }
    }

    fn ask_bearers(
        &mut self,
        now: Duration,
        modem: Modem,
        mut left: Vec<ObjectPath>,
        connected: Vec<BearerState>,
        actions: &mut Vec<Action>,
    ) {
        let Some(next) = left.pop() else {
            return self.settle(now, &modem, &connected, actions);
        };
        self.state = State::Bearers {
            modem,
            left,
            connected,
        };
        self.call(now, Call::Bearer(next), actions);
    }

    /// The modem may be used, and what it is connected by is known.
    fn settle(
        &mut self,
        now: Duration,
        modem: &Modem,
        connected: &[BearerState],
        actions: &mut Vec<Action>,
    ) {
        let (found, bearer) = match connected {
            [] => (ModemFound::Connecting, None),
            [one] => match self.usable(one) {
                Ok(bearer) => (ModemFound::Connected, Some(bearer)),
                Err(found) => (found, None),
            },
            // Which of them the work OS would use must not depend on their order.
            _ => (ModemFound::Unusable, None),
        };
        let told = match self.trouble {
            // Why it came to nothing is worth more than that it is tried again.
            Some((trouble, _)) if found == ModemFound::Connecting && spoils(trouble) => trouble,
            _ => found,
        };
        let finding = Finding {
            bearer,
            ..of(modem, told)
        };
        self.tell(finding, actions);
        let path = modem.path.clone();
        match found {
            ModemFound::Connected => {
                self.trouble = None;
                self.pause = FIRST_PAUSE;
                self.idle(now);
            }
            ModemFound::Connecting if modem.state == ModemState::Connecting => self.idle(now),
            ModemFound::Connecting => {
                self.act(now, Call::Connect(path), ModemFound::Refused, actions);
            }
            found => self.act(now, Call::Disconnect(path), found, actions),
        }
    }

    /// Does something, unless it failed a moment ago.
    fn act(&mut self, now: Duration, call: Call, trouble: ModemFound, actions: &mut Vec<Action>) {
        let hinders = |before| match call {
            Call::Connect(_) => spoils(before),
            Call::Disconnect(_) => before != SWITCHING_ON,
            _ => true,
        };
        if self
            .trouble
            .is_some_and(|(before, at)| now < at && hinders(before))
        {
            return self.idle(now);
        }
        self.state = State::Doing { trouble };
        self.call(now, call, actions);
    }

    /// Whether a bearer is what policy wants, and of a kind that can be used.
    fn usable(&self, state: &BearerState) -> Result<Bearer, ModemFound> {
        let asked = self.wish.apn.as_ref();
        if asked.is_some_and(|apn| !apn.eq_ignore_ascii_case(&state.apn)) {
            return Err(ModemFound::Unusable);
        }
        let address = address(&state.config).ok_or(ModemFound::Unusable)?;
        if !self.wish.owns(&state.interface) {
            return Err(ModemFound::OtherInterface);
        }
        Ok(Bearer {
            interface: state.interface.clone(),
            address,
            mtu: state.config.mtu.filter(|mtu| MTU.contains(mtu)),
        })
    }

    /// What policy says of the SIM.
    pub(crate) const fn wish(&self) -> &Wish {
        &self.wish
    }
}

fn address(config: &Config) -> Option<BearerAddress> {
    match config.method {
        Method::Unknown | Method::Ppp => None,
        Method::Dhcp => Some(BearerAddress::Dhcp),
        Method::Static => Some(BearerAddress::Static {
            address: config.address?,
            prefix: config.prefix,
            router: config.gateway?,
        }),
    }
}

fn of(modem: &Modem, found: ModemFound) -> Finding {
    Finding {
        found,
        operator: match (&modem.operator, modem.name.as_str()) {
            (Some(code), "") => code.clone(),
            (Some(code), name) => format!("{name} ({code})"),
            (None, name) => name.to_owned(),
        },
        signal: modem.signal,
        bearer: None,
    }
}

#[cfg(test)]
mod tests;
