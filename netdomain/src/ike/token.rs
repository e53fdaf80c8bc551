//! The token that holds the private key, and its PIN: what charon says of it, how often a PIN is tried,
//! and how long one is kept. A pure machine.
//!
//! charon's answer to a token that it cannot use is the same whatever the reason. The reason is in its
//! log, which it writes before it answers (`strongSwan`, `pkcs11_private_key.c`). It is believed where
//! it says that no PIN was tried, and of what it does not say the worst is assumed: that a PIN was
//! wrong. A token locks itself after a few of those, most after three.

use sekisho_control::{Secret, TokenFault};
use zeroize::Zeroizing;

/// PINs that are tried before one has opened the token: wrong ones, and tries that were cut short, by a
/// cable that is pulled or a laptop that falls asleep. What is left of a token's three is the person's,
/// elsewhere.
const MOST: u8 = 2;

/// Where the PIN comes from.
#[derive(Clone)]
pub(super) enum Pin {
    /// A file of IT's.
    File(Zeroizing<Vec<u8>>),
    /// The person, who is asked.
    Asked,
}

/// What charon found at the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No token with the laptop's key.
    Absent,
    /// The token, which wants a PIN.
    Closed,
    /// It did not take the PIN.
    Refused,
    /// It is locked, and takes none.
    Locked,
}

/// What charon's log said of the token since it was last asked for it.
#[derive(Debug, Default)]
pub(super) struct Words(Option<Found>);

impl Words {
    /// Takes whole lines. What is worse for the token stands.
    pub(super) fn hear(&mut self, lines: &str) {
        let worse = |found: &Found| match found {
            Found::Absent => 0,
            Found::Closed => 1,
            Found::Refused => 2,
            Found::Locked => 3,
        };
        let known = self.0.into_iter().chain(lines.lines().filter_map(found));
        self.0 = known.max_by_key(worse);
    }

    /// What it was, if it said something.
    pub(super) const fn found(&self) -> Option<Found> {
        self.0
    }
}

/// What a line of the log says of the token.
fn found(line: &str) -> Option<Found> {
    let (_, said) = line.split_once("[CFG] ")?;
    if said.starts_with("no PKCS#11 module found having a keyid") {
        Some(Found::Absent)
    } else if said.starts_with("no PIN found for PKCS#11 key") {
        Some(Found::Closed)
    } else if said.starts_with("login to '") && said.ends_with("failed: PIN_LOCKED") {
        Some(Found::Locked)
    } else if said.starts_with("login to '") && said.contains("failed: ") {
        Some(Found::Refused)
    } else {
        None
    }
}

/// PINs that charon was given since one has opened the token: it may have tried each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tries(u8);

impl Tries {
    /// Whether none is tried any more by this process.
    pub(super) const fn are_over(self) -> bool {
        self.0 >= MOST
    }

    /// charon is given one.
    #[must_use]
    const fn another(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The token was not there: the last one was not tried.
    #[must_use]
    const fn untried(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// A PIN of the person's.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// charon has it, and has not said what it was.
    Trying(Secret),
    /// It opened the token.
    Good(Secret),
}

/// What the engine knows of the token, from tunnel to tunnel.
#[derive(Debug, Default)]
pub(super) struct Known {
    tries: Tries,
    /// charon was given a PIN, and has not said what it was.
    trying: bool,
    held: Held,
    /// Why the last tunnel ended or could not be begun.
    fault: Option<TokenFault>,
}

impl Known {
    /// A tunnel is wanted: whether the token may be asked for it.
    pub(super) const fn may_begin(&mut self) -> bool {
        let spent = self.tries.are_over();
        self.fault = if spent { Some(TokenFault::Spent) } else { None };
        !spent
    }

    /// Why the last tunnel ended, where the token is why.
    pub(super) const fn fault(&self) -> Option<TokenFault> {
        self.fault
    }

    /// The PIN that opened the token last, to be tried again; it is handed out once.
    pub(super) fn good(&mut self) -> Option<Secret> {
        match std::mem::take(&mut self.held) {
            Held::Good(pin) => Some(pin),
            Held::Trying(_) | Held::Nothing => None,
        }
    }

    /// charon is given a PIN; one of the person's is held until it is known what it was.
    pub(super) fn trying(&mut self, pin: Option<Secret>) {
        self.tries = self.tries.another();
        self.trying = true;
        self.held = pin.map_or(Held::Nothing, Held::Trying);
    }

    /// It opened the token.
    pub(super) fn opened(&mut self) {
        self.tries = Tries::default();
        self.trying = false;
        if let Held::Trying(pin) = std::mem::take(&mut self.held) {
            self.held = Held::Good(pin);
        }
    }

    /// It did not. `last` where no other could be tried: a file says the same the next time.
    pub(super) fn refused(&mut self, last: bool) {
        self.trying = false;
        self.forget();
        if last {
            self.tries = Tries(MOST);
        }
        self.fault = Some(if self.tries.are_over() {
            TokenFault::Spent
        } else {
            TokenFault::Refused
        });
    }

    /// The token is not there; `tried` where charon was given a PIN for it.
    pub(super) fn absent(&mut self, tried: bool) {
        self.trying = false;
        self.forget();
        if tried {
            self.tries = self.tries.untried();
        }
        self.fault = Some(TokenFault::Absent);
    }

    /// Whether charon was given a PIN and nothing is known of it yet.
    pub(super) const fn is_trying(&self) -> bool {
        self.trying
    }

    /// Erases what the person answered.
    pub(super) fn forget(&mut self) {
        self.held = Held::Nothing;
    }

    /// The tunnel is over: of a PIN of which nothing was heard nothing is kept.
    pub(super) fn left(&mut self) {
        self.trying = false;
        if matches!(self.held, Held::Trying(_)) {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests;
