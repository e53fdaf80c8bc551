//! What is different about the PIN of a token: the laptop's own token judges it, not the gateway.
//!
//! All gateways that demand it demand that of the same token, so what one learns of it holds for all:
//! wrong ones are counted together. The engine may keep one that opened the token, and open it again
//! without the person; whether it may is decided here: not after a sleep, a jump of a clock, or an
//! attempt of which nothing came back. A token that is not there has judged nothing.

use std::time::Duration;

use sekisho_control::{Factor, PathId, TokenFault};

use super::super::{Action, GatewayId, Machine};
use super::{Demands, MAX_WRONG_PINS, Stage};
use crate::moment::Moment;

/// From one look for a token to the next. Whoever puts a card in waits no longer than for a page; a
/// look is a process that lives for a tenth of a second.
const LOOK: Duration = Duration::from_secs(5);

impl Demands {
    /// What was learnt at this gateway of a token holds for all that need it.
    pub(super) fn share(&mut self, gateway: GatewayId) {
        let mut rows = self.rows.iter();
        let known = rows.find(|row| row.gateway == gateway && row.factor == Factor::Pin);
        let Some(known) = known.copied() else {
            return;
        };
        for row in &mut self.rows {
            if row.factor == Factor::Pin {
                row.wrong = known.wrong;
                if known.holds() {
                    (row.stage, row.id) = (known.stage, known.id);
                }
            }
        }
    }

    /// An attempt at this gateway begins: what the engine keeps is of no use where it may not be used.
    pub(in super::super) fn entitle(&self, gateway: GatewayId, actions: &mut Vec<Action>) {
        let mut rows = self.rows.iter();
        let asks = rows.any(|row| row.gateway == gateway && row.factor == Factor::Pin);
        if asks && !self.known {
            actions.push(Action::Forget);
        }
    }

    /// Whoever opened the token may not be there any more.
    pub(in super::super) fn forget(&mut self, actions: &mut Vec<Action>) {
        self.known = false;
        if self.rows.iter().any(|row| row.factor == Factor::Pin) {
            actions.push(Action::Forget);
        }
    }

    /// The token opened for the attempt over this path. Whether that can be: by the answer of this
    /// attempt, or by an earlier one that may be kept.
    fn opened(&mut self, gateway: GatewayId, path: PathId) -> bool {
        let known = self.known;
        let Some(row) = self.row(gateway) else {
            return false;
        };
        let answered = row.stage == Stage::Judged { path };
        let kept = row.stage == Stage::Quiet && known;
        if row.factor != Factor::Pin || !(answered || kept) {
            return false;
        }
        (row.stage, row.wrong) = (Stage::Opened { path }, 0);
        self.known = true;
        self.share(gateway);
        true
    }

    /// The attempt over this path has failed by the token. Whether somebody is to be told.
    fn token_failed(&mut self, gateway: GatewayId, fault: TokenFault, now: Moment) -> bool {
        self.known = false;
        let Some(row) = self.row(gateway) else {
            return false;
        };
        if row.factor != Factor::Pin {
            return false;
        }
        match fault {
            TokenFault::Absent => row.stage = Stage::Absent { until: now + LOOK },
            // A kept one that the card does not take any more is a wrong one as well.
            TokenFault::Refused => row.refuse(now),
            TokenFault::Spent => {
                row.wrong = MAX_WRONG_PINS;
                row.stage = Stage::Stopped { until: None };
            }
        }
        self.share(gateway);
        true
    }
}

impl Machine {
    /// The engine at this path says that the token opened. One that says so without anybody having
    /// been asked has failed.
    pub(in super::super) fn token_opened(
        &mut self,
        path: PathId,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(gateway) = self.engaged_gateway(path) else {
            return;
        };
        if !self.demands.opened(gateway, path) {
            self.engine_down(path, now, actions);
        }
    }

    /// The engine at this path has ended because of the token.
    pub(in super::super) fn token_failed(
        &mut self,
        path: PathId,
        fault: TokenFault,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(gateway) = self.engaged_gateway(path) else {
            return self.engine_down(path, now, actions);
        };
        if self.demands.token_failed(gateway, fault, now) {
            self.disengage(actions);
        } else {
            self.engine_down(path, now, actions);
        }
    }
}

#[cfg(test)]
mod tests;
