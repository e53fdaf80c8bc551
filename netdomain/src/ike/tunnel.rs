//! charon's tunnels: what is done when.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sekisho_control::{Secret, TokenFault};

use super::charon::Wanted;
use super::dialogue::{Dialogue, Follows, Gateway, Identity, Key};
use super::encapsulation::Wire;
use super::outer::Outer;
use super::place::{INNER_MTU, forget, socket};
use super::token::{Known, Pin, Words};
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
    /// What is known of it.
    pub(super) known: RefCell<Known>,
    pub(super) outer: Outer,
    pub(super) inner: OwnedFd,
    pub(super) xfrm: Option<OwnedFd>,
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
        if !self.settings.known.borrow_mut().may_begin() {
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
            token: Token::default(),
        };
        Ok((program, session))
    }

    fn forget(&mut self) {
        self.settings.known.borrow_mut().forget();
    }

    fn token_fault(&self) -> Option<TokenFault> {
        self.settings.known.borrow().fault()
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

/// What this charon has found out of the token.
#[derive(Default)]
struct Token {
    words: Words,
    /// charon cannot use it, and its log may not have said why yet.
    weighing: bool,
    /// The log said something in this turn.
    heard: bool,
    /// The person is asked for the PIN.
    asked: bool,
}

/// One charon, from its start to its end.
pub(super) struct Session {
    settings: Rc<Settings>,
    gateway: Gateway,
    conversation: Conversation,
    way: Way,
    token: Token,
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
        if self.token.weighing {
            return Some(Duration::ZERO);
        }
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
        let mut follows = match converse(vici, dialogue) {
            Ok(follows) => follows,
            Err(why @ (ViciError::Closed | ViciError::Socket(_))) => {
                let until = Moment::now() + LAST_MOMENT;
                self.token.weighing = false;
                self.conversation = Conversation::Over { why, until };
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        // The log was written before the answer: once it is silent, or has spoken, there is no more.
        let heard = std::mem::take(&mut self.token.heard);
        let said = self.token.words.found().is_some() || !heard;
        if self.token.weighing && said && follows == Follows::Nothing {
            self.token.weighing = false;
            follows = dialogue.weigh(self.token.words.found());
        }
        match follows {
            Follows::Nothing | Follows::Ask(_) => {}
            Follows::Down(why) => return Err(why),
            Follows::Weigh => self.token.weighing = true,
            Follows::Pin => self.find_pin(news)?,
            Follows::Absent { tried } => {
                self.settings.known.borrow_mut().absent(tried);
                return Err("the token with the laptop's key is not there".into());
            }
            Follows::Shut { locked } => return Err(self.shut(locked)),
        }
        let Conversation::On(both) = &mut self.conversation else {
            return Ok(());
        };
        let (_, dialogue) = &mut **both;
        let (opened, up) = (dialogue.take_opened(), dialogue.take_news());
        if opened {
            self.settings.known.borrow_mut().opened();
            if self.asks() {
                news.push(News::Opened);
            }
        }
        if up {
            let packets = self.settings.inner.try_clone();
            news.push(News::Up {
                address: self.settings.identity.address,
                mtu: INNER_MTU,
                packets: packets.map_err(|error| format!("no descriptor for packets: {error}"))?,
            });
        }
        Ok(())
    }

    fn heard(&mut self, said: &str, _prompts: bool, _news: &mut Vec<News>) -> Result<(), String> {
        self.token.words.hear(said);
        self.token.heard = true;
        Ok(())
    }

    fn answer(&mut self, answer: Secret) -> Result<(), String> {
        if !std::mem::take(&mut self.token.asked) {
            return Err("an answer to no question".into());
        }
        self.try_pin(Some(answer))
    }

    /// Lets charon tell the gateway that the tunnel is over, while there is a way: a gateway that is
    /// not told goes on sending into it what by then is asked by another one. Nothing else is done
    /// meanwhile; it is a matter of milliseconds.
    fn leave(&mut self, program: &mut Program) {
        self.hear_verdict(program);
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

    /// Waits for what the token makes of a PIN that it was given: of one that is cut short nobody would know,
    /// and it would count as wrong. Whoever can cut the way at the right moments is not to use the tries up.
    fn hear_verdict(&mut self, program: &mut Program) {
        let until = Moment::now() + LEAVE;
        while self.settings.known.borrow().is_trying() {
            let Conversation::On(both) = &self.conversation else {
                return;
            };
            let Ok(patience) = Timespec::try_from(until.since(Moment::now())) else {
                return;
            };
            let words = program.words();
            let mut fds = vec![
                PollFd::from_borrowed_fd(both.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(program.end(), PollFlags::IN),
            ];
            fds.extend(words.map(|words| PollFd::from_borrowed_fd(words, PollFlags::IN)));
            if !matches!(poll(&mut fds, Some(&patience)), Ok(1..)) {
                return;
            }
            let speaks = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
            let ended = !fds[1].revents().is_empty();
            if speaks {
                let said = program.log();
                self.token.words.hear(&said);
                self.token.heard = true;
            }
            // Its news are for a gate that does not want them any more.
            if self.turn(&[], &mut Vec::new()).is_err() || ended {
                return;
            }
        }
    }

    /// Whether the PIN is the person's.
    fn asks(&self) -> bool {
        let key = &self.settings.identity.key;
        matches!(
            key,
            Key::Token {
                pin: Pin::Asked,
                ..
            }
        )
    }

    /// The token is there and wants its PIN: tries the one that there is, or has the person asked.
    fn find_pin(&mut self, news: &mut Vec<News>) -> Result<(), String> {
        if !self.asks() {
            return self.try_pin(None);
        }
        let kept = self.settings.known.borrow_mut().good();
        if kept.is_some() {
            return self.try_pin(kept);
        }
        self.token.asked = true;
        news.push(News::Ask);
        Ok(())
    }

    /// Gives charon a PIN, the person's or that of the file. It goes to charon's socket and nowhere else.
    fn try_pin(&mut self, person: Option<Secret>) -> Result<(), String> {
        let Conversation::On(both) = &mut self.conversation else {
            return Err("a PIN for no token".into());
        };
        let (vici, dialogue) = &mut **both;
        let pin = match (&person, &self.settings.identity.key) {
            (Some(pin), _) => pin.expose().as_bytes(),
            (None, Key::Token { pin, .. }) => match pin {
                Pin::File(pin) => pin,
                Pin::Asked => return Err("nobody was asked for the PIN".into()),
            },
            (None, Key::Here(_)) => return Err("a PIN for no token".into()),
        };
        let asked = dialogue.open(pin);
        self.token.words = Words::default();
        // Before it goes out: from here on it may be tried.
        self.settings.known.borrow_mut().trying(person);
        vici.ask(&asked).map_err(|error| error.to_string())
    }

    /// The token did not open: why not, in a few words.
    fn shut(&self, locked: bool) -> String {
        let mut known = self.settings.known.borrow_mut();
        known.refused(locked || !self.asks());
        match (locked, known.fault()) {
            (true, _) => "the token is locked, and no PIN is tried any more".into(),
            (false, Some(TokenFault::Spent)) => {
                "the token did not open, and no PIN is tried any more".into()
            }
            (false, _) => "the token did not open".into(),
        }
    }
}

impl Drop for Session {
    /// charon has ended by now: ends the kernel's tunnel, and what waits on either side of it.
    fn drop(&mut self) {
        self.settings.known.borrow_mut().left();
        if let Some(Err(error)) = self.settings.xfrm.as_ref().map(forget) {
            tracing::warn!("the kernel does not forget a tunnel: {error}");
        }
        for device in [self.settings.outer.as_fd(), self.settings.inner.as_fd()] {
            let mut packet = [0; 2048];
            while matches!(rustix::io::read(device, &mut packet), Ok(1..)) {}
        }
    }
}

/// Hears charon, and tells it what follows; what is not for charon comes out.
fn converse(vici: &mut Vici, dialogue: &mut Dialogue) -> Result<Follows, ViciError> {
    vici.flush()?;
    for _ in 0..WORDS {
        let Some(said) = vici.hear()? else {
            break;
        };
        match dialogue.on(said) {
            Follows::Nothing => {}
            Follows::Ask(asked) => vici.ask(&asked)?,
            // charon was asked for nothing more: it says nothing more, or it is over.
            end => return Ok(end),
        }
    }
    Ok(Follows::Nothing)
}

#[cfg(test)]
mod tests;
