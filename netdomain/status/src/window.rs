//! What answers on the status socket: whoever connects is told how the laptop does; the person's answers
//! are taken from those alone who may give them.

use std::time::Duration;

use sekisho_control::{DemandId, Secret};
use sekisho_varlink::{About, Answer, Call, Reply, Service};
use serde_json::json;

use crate::{
    doctor::diagnose,
    ledger::Ledger,
    varlink::{Asked, about, asked},
};

/// The user that may do everything.
const ROOT: u32 = 0;

/// What somebody who may wants to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Give this answer to this asking.
    Answer(DemandId, Secret),
    /// Ask again what nobody answered.
    AskAgain,
}

/// What is kept between turns.
#[derive(Debug)]
pub struct Window {
    version: &'static str,
    /// Users who may answer, beside root.
    answerers: Vec<u32>,
    /// What is to be done for one who may; one thing at a time.
    wish: Option<Wish>,
}

impl Window {
    /// `version` is the product's. `answerers` may answer what is asked of the person, beside root.
    pub const fn new(version: &'static str, answerers: Vec<u32>) -> Self {
        Self {
            version,
            answerers,
            wish: None,
        }
    }

    /// What answers calls now.
    pub const fn onto<'w>(&'w mut self, ledger: &'w Ledger) -> View<'w> {
        View {
            window: self,
            ledger,
        }
    }

    /// What is to be done now, if anything; to be looked for after each turn.
    pub const fn take_wish(&mut self) -> Option<Wish> {
        self.wish.take()
    }
}

/// The window, and what is seen through it.
#[derive(Debug)]
pub struct View<'w> {
    window: &'w mut Window,
    ledger: &'w Ledger,
}

impl Service for View<'_> {
    fn call(&mut self, mut call: Call, user: u32, now: Duration) -> Answer {
        let allowed = user == ROOT || self.window.answerers.contains(&user);
        let reply = match asked(&mut call, self.window.version) {
            Asked::Reply(reply) => reply,
            Asked::Answer(id, answer) => self.answer(allowed, id, answer),
            Asked::AskAgain => self.make(allowed, Wish::AskAgain),
            Asked::Status => self.news(now),
            Asked::Diagnosis => {
                let checks = diagnose(&self.ledger.status(now));
                Reply::of(json!({ "checks": checks }))
            }
            Asked::Watch => return Answer::Watch(self.news(now)),
        };
        Answer::Reply(reply)
    }

    fn revision(&self) -> u64 {
        self.ledger.revision()
    }

    fn news(&self, now: Duration) -> Reply {
        Reply::of(json!({ "status": self.ledger.status(now) }))
    }
}

impl View<'_> {
    /// The gate has the last word; what it would refuse anyway is refused here at once.
    fn answer(&mut self, allowed: bool, id: DemandId, answer: Secret) -> Reply {
        if allowed && self.ledger.asked() != Some(id) {
            return self.about().refusal("NotAsked");
        }
        self.make(allowed, Wish::Answer(id, answer))
    }

    fn make(&mut self, allowed: bool, wish: Wish) -> Reply {
        if !allowed {
            return self.about().refusal("NotAllowed");
        }
        // Somebody else was quicker, in the same turn.
        if self.window.wish.is_some() {
            return self.about().refusal("NotAsked");
        }
        self.window.wish = Some(wish);
        Reply::of(json!({}))
    }

    const fn about(&self) -> About {
        about(self.window.version)
    }
}

#[cfg(test)]
mod tests;
