//! charon's tunnels: what is done when.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::charon::Wanted;
use super::dialogue::{Dialogue, Follows, Gateway, Identity};
use super::encapsulation::Wire;
use super::outer::Outer;
use super::place::{INNER_MTU, forget, socket};
use super::vici::{Vici, ViciError};
use super::{Esp, charon};
use crate::engine::{Engine, News, Tunnel};
use crate::moment::Moment;
use crate::program::Program;

/// Packets of charon's in one turn.
const WORDS: usize = 16;
/// How often charon's socket is looked for while it starts.
const LOOK: Duration = Duration::from_millis(5);
/// How long a tunnel waits for another path when its own was cut. The gate decides; this is for one that
/// does not.
const PATHLESS: Duration = Duration::from_secs(1);
/// From its last word to its end: a process that is killed closes its sockets first.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// How long charon may take to say goodbye. The gate is closed to this tunnel by then.
const LEAVE: Duration = Duration::from_millis(500);

/// What stays the same from tunnel to tunnel.
pub(super) struct Settings {
    pub(super) gateways: Vec<Gateway>,
    pub(super) identity: Identity,
    pub(super) silence: Duration,
    pub(super) esp: Esp,
    /// The module of the token that holds the private key.
    pub(super) token: Option<PathBuf>,
    /// What became of the token.
    pub(super) tries: Cell<Tries>,
    pub(super) outer: Outer,
    pub(super) inner: OwnedFd,
    pub(super) xfrm: Option<OwnedFd>,
}

/// How often charon was told to open the token without saying that it did: it may have tried the PIN each
/// time. Tokens lock themselves for good after three wrong ones at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tries {
    /// Ended before it said anything, so many times.
    Unanswered(u8),
    /// It did not open. It is not asked again by this process.
    Refused,
}

/// Tries that may be cut short, by a cable that is pulled or a laptop that falls asleep.
const CUT_SHORT: u8 = 2;

impl Tries {
    /// After a turn: whether charon was at the token before it, and is now.
    const fn after(self, was: bool, is: bool) -> Self {
        match (self, was, is) {
            (Self::Unanswered(tries), false, true) => Self::Unanswered(tries + 1),
            (Self::Unanswered(_), true, false) => Self::Unanswered(0),
            _ => self,
        }
    }

    const fn are_over(self) -> bool {
        match self {
            Self::Unanswered(tries) => tries >= CUT_SHORT,
            Self::Refused => true,
        }
    }
}

/// charon as an engine.
pub(super) struct Charon {
    settings: Rc<Settings>,
}

impl Charon {
    pub(super) const fn new(settings: Rc<Settings>) -> Self {
        Self { settings }
    }
}

impl Engine for Charon {
    type Tunnel = Session;

    fn begin(&mut self, gateway: &str) -> Result<(Program, Session), String> {
        if self.settings.token.is_some() && self.settings.tries.get().are_over() {
            return Err("the token did not open, and its PIN is not tried again".into());
        }
        let mut known = self.settings.gateways.iter();
        let gateway = known
            .find(|known| known.name == gateway)
            .ok_or("the policy names no such gateway")?;
        let wanted = Wanted {
            esp: self.settings.esp,
            silence: self.settings.silence,
            auth: gateway.auth,
            token: self.settings.token.as_deref(),
        };
        let program =
            charon::start(wanted).map_err(|error| format!("charon does not start: {error}"))?;
        let session = Session {
            settings: Rc::clone(&self.settings),
            gateway: gateway.clone(),
            conversation: Conversation::Starting { asked: false },
            way: Way::Awaited,
        };
        Ok((program, session))
    }
}

/// The conversation with charon.
enum Conversation {
    /// It does not listen yet; a socket of the uplink's is asked for meanwhile.
    Starting { asked: bool },
    /// It listens; nothing goes out before there is a way.
    On(Box<(Vici, Dialogue)>),
    /// It speaks no more. Most likely it has just ended, which its own descriptor tells, and how.
    Over { why: ViciError, until: Moment },
}

/// The way to the gateway.
enum Way {
    /// There was none yet.
    Awaited,
    /// The uplink's socket.
    Open(Wire),
    /// It was cut; the gate may have another one, until then.
    Cut(Moment),
}

/// One charon, from its start to its end.
pub(super) struct Session {
    settings: Rc<Settings>,
    gateway: Gateway,
    conversation: Conversation,
    way: Way,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The uplink's socket.
    Wire,
    /// All others are looked at in each turn.
    Other,
}

impl Tunnel for Session {
    type Source = Source;

    fn interests(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut watched = Vec::new();
        if let Conversation::On(both) = &self.conversation {
            let mut interest = PollFlags::IN;
            interest.set(PollFlags::OUT, both.0.waits());
            watched.push((Source::Other, both.0.as_fd(), interest));
        }
        if let Way::Open(wire) = &self.way {
            watched.push((Source::Wire, wire.as_fd(), PollFlags::IN));
            let outer = self.settings.outer.as_fd();
            watched.push((Source::Other, outer, PollFlags::IN));
        }
        watched
    }

    fn patience(&self) -> Option<Duration> {
        match (&self.conversation, &self.way) {
            (Conversation::Starting { .. }, _) => Some(LOOK),
            (Conversation::Over { until, .. }, _) | (Conversation::On(_), Way::Cut(until)) => {
                Some(until.since(Moment::now()))
            }
            (Conversation::On(_), Way::Awaited | Way::Open(_)) => None,
        }
    }

    fn join(&mut self, socket: OwnedFd) -> Result<(), String> {
        let moves = !matches!(self.way, Way::Awaited);
        let wire = Wire::new(socket, &self.gateway, moves)
            .map_err(|error| format!("a socket that cannot be used: {error}"))?;
        self.way = Way::Open(wire);
        if moves {
            let renewed = self.settings.outer.renew();
            renewed.map_err(|error| format!("charon cannot be shown another path: {error}"))?;
        }
        Ok(())
    }

    fn turn(&mut self, awake: &[(Source, PollFlags)], news: &mut Vec<News>) -> Result<(), String> {
        // The uplink's `shutdown` of its copy shows as this.
        let cut = |(source, events): &(Source, PollFlags)| {
            *source == Source::Wire && events.contains(PollFlags::HUP)
        };
        if awake.iter().any(cut) {
            self.way = Way::Cut(Moment::now() + PATHLESS);
        }
        match &mut self.way {
            Way::Open(wire) => wire.turn(&self.settings.outer),
            Way::Cut(until) if Moment::now() >= *until => {
                return Err("the uplink has cut the path".into());
            }
            Way::Cut(_) | Way::Awaited => {}
        }
        if let Conversation::Starting { asked } = &mut self.conversation {
            if !std::mem::replace(asked, true) {
                news.push(News::Dial);
            }
            if matches!(self.way, Way::Awaited) {
                return Ok(());
            }
            // Not there yet, or not listening yet: charon's end would be told by its own descriptor.
            let Ok(stream) = UnixStream::connect(socket()) else {
                return Ok(());
            };
            let both = self.open(stream).map_err(|error| error.to_string())?;
            self.conversation = Conversation::On(Box::new(both));
        }
        if let Conversation::Over { why, until } = &self.conversation
            && Moment::now() >= *until
        {
            return Err(why.to_string());
        }
        let Conversation::On(both) = &mut self.conversation else {
            return Ok(());
        };
        let (vici, dialogue) = &mut **both;
        let was = dialogue.is_opening();
        let follows = converse(vici, dialogue);
        let tries = &self.settings.tries;
        tries.set(tries.get().after(was, dialogue.is_opening()));
        match follows {
            Ok(Follows::Down(why)) => return Err(why),
            Ok(Follows::Locked(why)) => {
                self.settings.tries.set(Tries::Refused);
                return Err(why);
            }
            Ok(Follows::Nothing | Follows::Ask(_)) => {}
            Err(why @ (ViciError::Closed | ViciError::Socket(_))) => {
                let until = Moment::now() + LAST_MOMENT;
                self.conversation = Conversation::Over { why, until };
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
        if dialogue.take_news() {
            let packets = self.settings.inner.try_clone();
            news.push(News::Up {
                address: self.settings.identity.address,
                mtu: INNER_MTU,
                packets: packets.map_err(|error| format!("no descriptor for packets: {error}"))?,
            });
        }
        Ok(())
    }

    /// Lets charon tell the gateway that the tunnel is over, while there is a way: a gateway that is
    /// not told goes on sending into it what by then is asked by another one. Nothing else is done
    /// meanwhile; it is a matter of milliseconds.
    fn leave(&mut self, program: &mut Program) {
        let (Conversation::On(_), Way::Open(wire)) = (&self.conversation, &mut self.way) else {
            return;
        };
        program.terminate();
        let until = Moment::now() + LEAVE;
        while program.ended().is_none() {
            let left = until.since(Moment::now());
            let Ok(patience) = Timespec::try_from(left) else {
                break;
            };
            if left.is_zero() {
                break;
            }
            let outer = self.settings.outer.as_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(program.end(), PollFlags::IN),
                PollFd::from_borrowed_fd(outer, PollFlags::IN),
            ];
            let _ = poll(&mut fds, Some(&patience));
            wire.turn(&self.settings.outer);
        }
    }
}

impl Session {
    fn open(&self, stream: UnixStream) -> Result<(Vici, Dialogue), ViciError> {
        let mut vici = Vici::new(stream)?;
        let ask_after = charon::ask_after(self.settings.silence);
        let identity = &self.settings.identity;
        let (dialogue, first) = Dialogue::begin(self.gateway.clone(), identity, ask_after);
        vici.ask(&first)?;
        Ok((vici, dialogue))
    }
}

impl Drop for Session {
    /// charon has ended by now: ends the kernel's tunnel, and what waits on either side of it.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.settings.xfrm.as_ref().map(forget) {
            tracing::warn!("the kernel does not forget a tunnel: {error}");
        }
        for device in [self.settings.outer.as_fd(), self.settings.inner.as_fd()] {
            let mut packet = [0; 2048];
            while matches!(rustix::io::read(device, &mut packet), Ok(1..)) {}
        }
    }
}

/// Hears charon, and tells it what follows; the end, if that follows.
fn converse(vici: &mut Vici, dialogue: &mut Dialogue) -> Result<Follows, ViciError> {
    vici.flush()?;
    for _ in 0..WORDS {
        let Some(said) = vici.hear()? else {
            break;
        };
        match dialogue.on(said) {
            Follows::Nothing => {}
            Follows::Ask(asked) => vici.ask(&asked)?,
            end @ (Follows::Down(_) | Follows::Locked(_)) => return Ok(end),
        }
    }
    Ok(Follows::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_asked_a_third_time_before_it_has_said_something() {
        let mut tries = Tries::Unanswered(0);
        for cut_short in 1..=CUT_SHORT {
            assert!(!tries.are_over(), "the first {cut_short} may be tried");
            // The path is lost while charon is at it, and the next attempt begins.
            tries = tries.after(false, false).after(false, true);
        }
        assert!(tries.are_over());
        // One that opens takes nothing off the next.
        let opened = Tries::Unanswered(1).after(false, true).after(true, false);
        assert_eq!(opened, Tries::Unanswered(0));
        assert!(Tries::Refused.are_over());
        assert_eq!(Tries::Refused.after(true, false), Tries::Refused);
    }
}
