//! What a gateway's tunnel demands of the person before it counts as up: asked, answered, judged.
//!
//! While somebody is waited for, the gate is closed like at any other time without a tunnel; only
//! the reason says so. An asking is answered once at most, and an answer is given once at most. After
//! one that was not taken, the person is asked anew, with a pause that grows, and not at all any more
//! before the token or the gateway would lock itself. Where nobody answers, nobody is asked again
//! before the person says that they are there, or the way to the gateway is another one.
//!
//! What is different about a PIN is in [`token`].

use std::time::Duration;

use sekisho_control::{DemandId, DemandStage, Factor, PathId};

use super::way::Phase;
use super::{Action, GatewayId, Machine, Reason};
use crate::moment::Moment;

/// After a wrong answer; twice as long after the next one. A typing error costs no more.
const PAUSE: Duration = Duration::from_secs(2);
/// After as many wrong answers as are let through: the ban of a gateway has passed by then (ocserv's
/// takes 20 minutes, `ban-reset-time`).
const STOP: Duration = Duration::from_mins(20);
/// Gateways ban after a handful: ocserv after eight.
const MAX_WRONG_OTPS: u8 = 3;
/// Cards lock themselves after three. The last one is left to the person, elsewhere.
const MAX_WRONG_PINS: u8 = 2;

/// Wrong answers that are let through, one after the other.
pub const fn max_wrong(factor: Factor) -> u8 {
    match factor {
        Factor::Otp => MAX_WRONG_OTPS,
        Factor::Pin => MAX_WRONG_PINS,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is asked.
    Quiet,
    /// Asked, and answered by then or not at all.
    Asked { path: PathId, until: Moment },
    /// The answer was handed over; what becomes of the attempt over this path says what it was.
    Judged { path: PathId },
    /// The token opened for the attempt over this path: what becomes of it says nothing of the answer.
    Opened { path: PathId },
    /// The attempt ended before anything was known of the answer.
    Cut,
    /// Nobody answered.
    Lapsed,
    /// Not taken; not asked before then.
    Refused { until: Moment },
    /// The token is not there; not looked for before then.
    Absent { until: Moment },
    /// Not taken too often; not asked before then, or not while this gate lives.
    Stopped { until: Option<Moment> },
}

/// One gateway that demands something.
#[derive(Debug, Clone, Copy)]
struct Row {
    gateway: GatewayId,
    factor: Factor,
    stage: Stage,
    id: DemandId,
    /// Wrong answers since the last right one.
    wrong: u8,
}

/// A demand, as the machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demanded {
    /// The asking, or the last one.
    pub id: DemandId,
    /// Who demands.
    pub gateway: GatewayId,
    /// What.
    pub factor: Factor,
    /// How far it is.
    pub stage: DemandStage,
    /// When this stage ends by itself.
    pub until: Option<Moment>,
    /// Wrong answers that may still be given before it stops for long.
    pub tries: u8,
}

/// What is demanded by all gateways.
#[derive(Debug, Default)]
pub(super) struct Demands {
    rows: Vec<Row>,
    /// How long an answer is waited for.
    within: Duration,
    last: u32,
    /// Whether the engine may keep a PIN that opened the token.
    known: bool,
}

impl Demands {
    /// These gateways demand these, and wait so long. `seed` is to differ from gate to gate: an answer to an earlier
    /// gate's asking is then none to this one's.
    pub(super) fn new(
        factors: impl IntoIterator<Item = (GatewayId, Factor)>,
        within: Duration,
        seed: u32,
    ) -> Self {
        let row = |(gateway, factor)| Row {
            gateway,
            factor,
            stage: Stage::Quiet,
            id: DemandId(seed),
            wrong: 0,
        };
        Self {
            rows: factors.into_iter().map(row).collect(),
            within,
            last: seed,
            known: false,
        }
    }

    /// The engine needs an answer for this path; when it must have come. None if policy names no
    /// second factor for the gateway, or this attempt had its answer.
    fn ask(&mut self, gateway: GatewayId, path: PathId, now: Moment) -> Option<Moment> {
        let id = self.last.wrapping_add(1);
        let until = now + self.within;
        let row = self.row(gateway)?;
        if !matches!(row.stage, Stage::Quiet) {
            return None;
        }
        row.stage = Stage::Asked { path, until };
        row.id = DemandId(id);
        if row.factor == Factor::Pin {
            self.known = false;
        }
        self.last = id;
        Some(until)
    }

    /// Somebody answered this asking: over which path the answer is to go, if it is still wanted.
    fn answered(&mut self, id: DemandId, now: Moment) -> Option<PathId> {
        self.rows.iter_mut().find_map(|row| match row.stage {
            Stage::Asked { path, until } if row.id == id && now < until => {
                row.stage = Stage::Judged { path };
                Some(path)
            }
            _ => None,
        })
    }

    /// The tunnel of this path is up. Whether it may count as that: its gateway demands nothing, or
    /// has had its answer.
    fn up(&mut self, gateway: GatewayId, path: PathId) -> bool {
        let Some(row) = self.row(gateway) else {
            return true;
        };
        let given = row.given(path);
        if given {
            (row.stage, row.wrong) = (Stage::Quiet, 0);
        }
        given
    }

    fn lacks(&self, gateway: GatewayId, path: PathId) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| row.gateway == gateway && !row.given(path))
    }

    /// The attempt over this path has failed. An answer that was handed over counts as wrong: it may
    /// have been judged. An asking that the other side gave up was not answered. Whether this was
    /// about the second factor.
    fn failed(&mut self, gateway: GatewayId, path: PathId, now: Moment) -> bool {
        let Some(row) = self.row(gateway) else {
            return false;
        };
        match row.stage {
            Stage::Judged { path: over } if over == path => row.refuse(now),
            Stage::Asked { path: over, .. } if over == path => row.stage = Stage::Lapsed,
            Stage::Opened { path: over } if over == path => {
                row.stage = Stage::Quiet;
                return false;
            }
            _ => return false,
        }
        self.share(gateway);
        true
    }

    /// The attempt over this path is not wanted any more, or its way is gone. Whoever did not answer
    /// may be asked again; an answer that was handed over may have been judged.
    pub(super) fn withdraw(&mut self, path: PathId) {
        for row in &mut self.rows {
            match row.stage {
                Stage::Asked { path: over, .. } | Stage::Opened { path: over } if over == path => {
                    row.stage = Stage::Quiet;
                }
                Stage::Judged { path: over } if over == path => row.stage = Stage::Cut,
                _ => {}
            }
        }
    }

    /// The person is there, or the laptop is somewhere else: what nobody answered may be asked again.
    pub(super) fn ask_again(&mut self) {
        for row in &mut self.rows {
            if matches!(row.stage, Stage::Lapsed | Stage::Absent { .. }) {
                row.stage = Stage::Quiet;
            }
        }
    }

    /// What time has brought: pauses end, and an asking that nobody answered; its path comes out.
    fn expire(&mut self, now: Moment) -> Option<PathId> {
        let mut lapsed = None;
        for at in 0..self.rows.len() {
            let row = &mut self.rows[at];
            match row.stage {
                Stage::Asked { path, until } if until <= now => {
                    row.stage = Stage::Lapsed;
                    lapsed = Some(path);
                }
                Stage::Cut => row.refuse(now),
                Stage::Refused { until }
                | Stage::Absent { until }
                | Stage::Stopped { until: Some(until) }
                    if until <= now =>
                {
                    row.stage = Stage::Quiet;
                    continue;
                }
                _ => continue,
            }
            let gateway = row.gateway;
            self.share(gateway);
        }
        lapsed
    }

    /// Whether nothing is to be begun with this gateway now.
    pub(super) fn holds(&self, gateway: GatewayId) -> bool {
        self.rows
            .iter()
            .any(|row| row.gateway == gateway && row.holds())
    }

    /// Whether any gateway is left alone for the person's sake.
    pub(super) fn holds_any(&self) -> bool {
        self.rows.iter().any(Row::holds)
    }

    /// Whether somebody is being asked.
    pub(super) fn asks(&self) -> bool {
        let asked = |row: &Row| matches!(row.stage, Stage::Asked { .. });
        self.rows.iter().any(asked)
    }

    /// When [`Demands::expire`] is wanted.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.rows.iter().filter_map(Row::until).min()
    }

    /// The one that people are to know of: whoever asks now, else whoever is left alone.
    fn shown(&self) -> Option<Demanded> {
        self.rows
            .iter()
            .filter_map(|row| Some((row, row.told()?)))
            .min_by_key(|(row, _)| row.holds())
            .map(|(row, stage)| Demanded {
                id: row.id,
                gateway: row.gateway,
                factor: row.factor,
                stage,
                until: row.until(),
                tries: row.tries(),
            })
    }

    fn row(&mut self, gateway: GatewayId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.gateway == gateway)
    }
}

impl Row {
    /// Whether the attempt over this path has what is demanded: a gateway that calls it up has judged
    /// the password; of a PIN the token's word is needed.
    fn given(&self, path: PathId) -> bool {
        self.stage
            == match self.factor {
                Factor::Otp => Stage::Judged { path },
                Factor::Pin => Stage::Opened { path },
            }
    }

    fn refuse(&mut self, now: Moment) {
        self.wrong = self.wrong.saturating_add(1);
        let most = max_wrong(self.factor);
        if self.wrong < most {
            let pause = PAUSE * (1 << (self.wrong - 1));
            self.stage = Stage::Refused { until: now + pause };
            return;
        }
        // One more after the long pause, not as many again.
        self.wrong = most;
        let until = match self.factor {
            Factor::Otp => Some(now + STOP),
            Factor::Pin => None,
        };
        self.stage = Stage::Stopped { until };
    }

    const fn holds(&self) -> bool {
        matches!(
            self.stage,
            Stage::Cut
                | Stage::Lapsed
                | Stage::Refused { .. }
                | Stage::Absent { .. }
                | Stage::Stopped { .. }
        )
    }

    /// Of those that are left when it was stopped, there is one after each pause.
    const fn tries(&self) -> u8 {
        match (
            self.stage,
            max_wrong(self.factor).saturating_sub(self.wrong),
        ) {
            (Stage::Stopped { .. }, _) => 0,
            (_, 0) => 1,
            (_, left) => left,
        }
    }

    const fn until(&self) -> Option<Moment> {
        match self.stage {
            Stage::Asked { until, .. } | Stage::Refused { until } | Stage::Absent { until } => {
                Some(until)
            }
            Stage::Stopped { until } => until,
            Stage::Quiet
            | Stage::Judged { .. }
            | Stage::Opened { .. }
            | Stage::Cut
            | Stage::Lapsed => None,
        }
    }

    const fn told(&self) -> Option<DemandStage> {
        Some(match self.stage {
            Stage::Quiet | Stage::Cut => return None,
            Stage::Asked { .. } => DemandStage::Asked,
            Stage::Judged { .. } | Stage::Opened { .. } => DemandStage::Judged,
            Stage::Lapsed => DemandStage::Lapsed,
            Stage::Refused { .. } => DemandStage::Refused,
            Stage::Stopped { .. } => DemandStage::Stopped,
            Stage::Absent { .. } => DemandStage::Absent,
        })
    }
}

impl Machine {
    /// These gateways demand a second factor, and it is waited for so long.
    #[must_use]
    pub fn with_factors(
        mut self,
        factors: impl IntoIterator<Item = (GatewayId, Factor)>,
        within: Duration,
        seed: u32,
    ) -> Self {
        self.demands = Demands::new(factors, within, seed);
        self
    }

    /// What is demanded of the person, if anything.
    pub fn demanded(&self) -> Option<Demanded> {
        self.demands.shown()
    }

    /// Whether a tunnel over this path that came up now would lack the answer that policy demands.
    pub fn lacks_factor(&self, path: PathId) -> bool {
        let gateway = self.engaged_gateway(path);
        gateway.is_some_and(|gateway| self.demands.lacks(gateway, path))
    }

    /// The engine at this path waits for the person. One that asks without being entitled to, or
    /// again, has failed.
    pub(super) fn engine_asks(&mut self, path: PathId, now: Moment, actions: &mut Vec<Action>) {
        let Some(gateway) = self.engaged_gateway(path) else {
            return;
        };
        match self.demands.ask(gateway, path, now) {
            Some(until) => {
                if let Some(engaged) = &mut self.engaged {
                    engaged.until = Some(until);
                }
            }
            None => self.engine_down(path, now, actions),
        }
    }

    /// Somebody answered.
    pub(super) fn answered(&mut self, id: DemandId, now: Moment, actions: &mut Vec<Action>) {
        let Some(path) = self.demands.answered(id, now) else {
            return;
        };
        if let Some(engaged) = self.engaged.as_mut().filter(|engaged| engaged.path == path) {
            engaged.until = Some(now + self.timings.up_within);
            actions.push(Action::HandOver(path));
        }
    }

    /// Whether a tunnel that the engine calls up counts as that.
    pub(super) fn counts_as_up(&mut self, path: PathId) -> bool {
        let gateway = self.engaged_gateway(path);
        gateway.is_some_and(|gateway| self.demands.up(gateway, path))
    }

    /// The attempt over this path has failed: whether that was about the second factor, which is no
    /// fault of the path's.
    pub(super) fn factor_failed(&mut self, path: PathId, now: Moment) -> bool {
        let gateway = self.engaged_gateway(path);
        gateway.is_some_and(|gateway| self.demands.failed(gateway, path, now))
    }

    /// Ends the asking that nobody answered, and pauses that are over.
    pub(super) fn keep_demands(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if let Some(path) = self.demands.expire(now) {
            self.disengage_from(path, actions);
        }
    }

    fn engaged_gateway(&self, path: PathId) -> Option<GatewayId> {
        let engaged = self.engaged.filter(|engaged| engaged.path == path)?;
        // One that is up is asked for nothing.
        engaged.until.map(|_| engaged.gateway)
    }

    /// Says that the gate is closed for want of the person, if it is that, and whether it said so.
    pub(super) fn explain_factor(&mut self) -> bool {
        let none = self.paths.is_empty();
        let held = self.engaged.is_none() && self.demands.holds_any() && !none;
        let why = if self.demands.asks() {
            Reason::SecondFactor
        } else if held {
            Reason::SecondFactorMissing
        } else {
            return false;
        };
        let closed = matches!(self.phase, Phase::Closed(_)) && !self.asleep;
        if closed {
            self.phase = Phase::Closed(why);
        }
        closed
    }
}

#[cfg(test)]
mod tests;
mod token;
