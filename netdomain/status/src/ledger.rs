//! Keeps what the processes reported, bounded whatever they say.

use std::time::Duration;

use sekisho_control::{
    Demand as Told, DemandId, DemandStage, GatewayFound, ModemFound, Refused, Report, Side,
    SituationReport, UplinkKind, WorkFound,
};

use crate::{
    status::{
        Agent, Answers, Demand, Dot1x, Gateway, Ignored, Policy, Process, ProcessState, Quota,
        Refusal, Sim, Situation, Standing, Status, Uplink, UplinkState, Work,
    },
    text::clean,
};

/// Network cards: the uplink uses no more.
const MAX_UPLINKS: usize = 16;
/// Gateways times sides times cards, as many as a gate has paths for.
const MAX_GATEWAYS: usize = 16;
/// Rules with refusals. A person reads the first few; the count of the rest is kept.
const MAX_RULES: usize = 32;
/// The supervisor starts six.
const MAX_PROCESSES: usize = 8;

#[derive(Debug)]
struct UplinkRow {
    port: String,
    kind: Option<UplinkKind>,
    state: UplinkState,
    portal: bool,
    stranger: bool,
    dot1x: Option<Dot1x>,
    since: Duration,
}

#[derive(Debug)]
struct SimRow {
    state: ModemFound,
    operator: String,
    signal: Option<u8>,
    since: Duration,
}

#[derive(Debug)]
struct GatewayRow {
    gateway: String,
    port: String,
    side: Side,
    found: GatewayFound,
    since: Duration,
}

#[derive(Debug)]
struct RefusalRow {
    rule: String,
    count: u64,
    last: String,
    at: Duration,
}

#[derive(Debug)]
struct ProcessRow {
    name: &'static str,
    state: ProcessState,
    since: Duration,
    restarts: u64,
    last_end: Option<String>,
}

#[derive(Debug, Default)]
struct WorkRow {
    link: Option<bool>,
    address: bool,
    names: Answers,
    servers: Answers,
    agent: Option<(bool, Duration)>,
}

/// What is known of the laptop. Times are of any clock that never goes back.
#[derive(Debug)]
pub struct Ledger {
    product: &'static str,
    policy: Option<Policy>,
    situation: Situation,
    since: Duration,
    demand: Option<(Told, Duration)>,
    uplinks: Vec<UplinkRow>,
    sim: Option<SimRow>,
    quota: Option<Quota>,
    gateways: Vec<GatewayRow>,
    work: WorkRow,
    refusals: Vec<RefusalRow>,
    refused_by_others: u64,
    ignored: Ignored,
    processes: Vec<ProcessRow>,
    revision: u64,
}

impl Ledger {
    /// Nothing is known yet. `product` is the version.
    pub fn new(product: &'static str, now: Duration) -> Self {
        Self {
            product,
            policy: None,
            situation: Situation::Unknown,
            since: now,
            demand: None,
            uplinks: Vec::new(),
            sim: None,
            quota: None,
            gateways: Vec::new(),
            work: WorkRow::default(),
            refusals: Vec::new(),
            refused_by_others: 0,
            ignored: Ignored::default(),
            processes: Vec::new(),
            revision: 0,
        }
    }

    /// Grows with every change.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The situation, and since when.
    pub const fn situation(&self) -> (&Situation, Duration) {
        (&self.situation, self.since)
    }

    /// The asking that an answer may be given to now, if there is one.
    pub fn asked(&self) -> Option<DemandId> {
        let (told, _) = self.demand.as_ref()?;
        (told.stage == DemandStage::Asked).then_some(told.id)
    }

    /// What is demanded of the person, as it was told last.
    pub fn demand(&self) -> Option<&Told> {
        self.demand.as_ref().map(|(told, _)| told)
    }

    /// A process was started.
    pub fn started(&mut self, process: &'static str, now: Duration) {
        self.revision += 1;
        self.forget(process, now);
        let state = ProcessState::Starting;
        if let Some(row) = self.process(process) {
            row.restarts += 1;
            (row.state, row.since) = (state, now);
        } else if self.processes.len() < MAX_PROCESSES {
            self.processes.push(ProcessRow {
                name: process,
                state,
                since: now,
                restarts: 0,
                last_end: None,
            });
        }
    }

    /// A process ended, or could not be started.
    pub fn ended(&mut self, process: &'static str, how: &str, now: Duration) {
        self.revision += 1;
        self.forget(process, now);
        if let Some(row) = self.process(process) {
            (row.state, row.since) = (ProcessState::Ended, now);
            row.last_end = Some(clean(how));
        }
    }

    /// A network card is the uplink's now.
    pub fn moved(&mut self, port: &str, now: Duration) {
        self.revision += 1;
        self.uplink(port, None, UplinkState::NoCarrier, now);
    }

    /// A process said something.
    pub fn reported(&mut self, from: &'static str, report: &Report, now: Duration) {
        self.revision += 1;
        match report {
            Report::Ready => {
                if let Some(row) = self.process(from) {
                    (row.state, row.since) = (ProcessState::Serving, now);
                }
            }
            Report::Policy { id, version } => {
                self.policy = Some(Policy {
                    id: clean(id),
                    version: *version,
                });
            }
            Report::Situation(situation) => self.stand(situation, now),
            Report::Gateway {
                gateway,
                port,
                side,
                found,
            } => self.found(gateway, port, *side, *found, now),
            Report::Demand { demand } => {
                self.demand = demand.as_ref().map(|told| {
                    let gateway = clean(&told.gateway);
                    (
                        Told {
                            gateway,
                            ..told.clone()
                        },
                        now,
                    )
                });
            }
            Report::Stranger { port } => self.stranger(port),
            Report::Work { found } => self.work.on(*found),
            Report::Refused(refused) => self.refused(refused, now),
            Report::Link { up } => self.work.link = Some(*up),
            Report::Uplink { port, kind, event } => {
                if event == "captive-portal" {
                    self.portal(port);
                } else if let Some(dot1x) = dot1x(event) {
                    self.dot1x(port, dot1x);
                } else if let Some(state) = state(event) {
                    self.uplink(port, Some(*kind), state, now);
                }
            }
            Report::Modem {
                found,
                operator,
                signal,
            } => self.modem(*found, operator, *signal, now),
            Report::Quota {
                used,
                monthly,
                state,
                ..
            } => {
                self.quota = Some(Quota {
                    used: *used,
                    monthly: *monthly,
                    state: *state,
                });
            }
            Report::Ignored { what } => {
                self.ignored.count += 1;
                self.ignored.last = Some(clean(what));
            }
            Report::Guest { event, .. } => self.guest(event, now),
            Report::WorkEnded { .. } | Report::Replug => {}
        }
    }

    /// What is known, with ages as of `now`.
    pub fn status(&self, now: Duration) -> Status {
        let age = |since: Duration| {
            u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX)
        };
        let uplinks = self.uplinks.iter().map(|row| Uplink {
            port: row.port.clone(),
            kind: row.kind,
            state: row.state,
            portal: row.portal,
            stranger: row.stranger,
            dot1x: row.dot1x,
            age_ms: age(row.since),
        });
        let gateways = self.gateways.iter().map(|row| Gateway {
            gateway: row.gateway.clone(),
            port: row.port.clone(),
            side: row.side,
            found: row.found,
            age_ms: age(row.since),
        });
        let refusals = self.refusals.iter().rev().map(|row| Refusal {
            rule: row.rule.clone(),
            count: row.count,
            last: row.last.clone(),
            age_ms: age(row.at),
        });
        let processes = self.processes.iter().map(|row| Process {
            name: row.name.to_owned(),
            state: row.state,
            age_ms: age(row.since),
            restarts: row.restarts,
            last_end: row.last_end.clone(),
        });
        Status {
            product: self.product.to_owned(),
            policy: self.policy.clone(),
            situation: Standing {
                situation: self.situation.clone(),
                age_ms: age(self.since),
            },
            demand: self.demand.as_ref().map(|(told, since)| Demand {
                id: told.id,
                gateway: told.gateway.clone(),
                factor: told.factor,
                state: told.stage,
                tries: told.tries,
                left_ms: told.ends_ms.map(|ends| ends.saturating_sub(age(*since))),
                age_ms: age(*since),
            }),
            uplinks: uplinks.collect(),
            sim: self.sim.as_ref().map(|row| Sim {
                state: row.state,
                operator: row.operator.clone(),
                signal: row.signal,
                age_ms: age(row.since),
            }),
            quota: self.quota,
            gateways: gateways.collect(),
            work: Work {
                link: self.work.link,
                address: self.work.address,
                names: self.work.names,
                servers: self.work.servers,
                agent: self.work.agent.map(|(silent, heard)| Agent {
                    silent,
                    age_ms: age(heard),
                }),
            },
            refusals: refusals.collect(),
            refused_by_others: self.refused_by_others,
            ignored: self.ignored.clone(),
            processes: processes.collect(),
        }
    }

    fn process(&mut self, name: &str) -> Option<&mut ProcessRow> {
        self.processes.iter_mut().find(|row| row.name == name)
    }

    /// A process that ended, or began anew, takes along what it said of the present.
    fn forget(&mut self, process: &str, now: Duration) {
        match process {
            "gate" => {
                self.enter(Situation::Unknown, now);
                self.policy = None;
                self.demand = None;
                self.gateways.clear();
                self.work.address = false;
            }
            "uplink" => {
                for row in &mut self.uplinks {
                    row.dot1x = None;
                    row.enter(UplinkState::NoCarrier, now);
                }
            }
            // Nobody asks ModemManager until it is there again.
            "modem" if self.sim.is_some() => self.modem(ModemFound::Absent, "", None, now),
            "guest" => self.work.agent = None,
            "vmm" => {
                self.work = WorkRow::default();
            }
            _ => {}
        }
    }

    fn stand(&mut self, report: &SituationReport, now: Duration) {
        let situation = match report {
            SituationReport::Closed { reason } => Situation::Closed {
                reason: clean(reason),
            },
            SituationReport::Tunnelled {
                gateway,
                port,
                side,
                place,
            } => {
                self.led_on(port);
                Situation::Tunnelled {
                    gateway: clean(gateway),
                    port: clean(port),
                    side: *side,
                    place: *place,
                }
            }
            SituationReport::Direct { port, address } => Situation::Direct {
                port: clean(port),
                address: address.to_string(),
            },
        };
        self.enter(situation, now);
    }

    fn enter(&mut self, situation: Situation, now: Duration) {
        if !situation.is_open() {
            // The gate forgets it as well: what was known of those inside says nothing now.
            self.work.names = Answers::Unknown;
            self.work.servers = Answers::Unknown;
        }
        if self.situation != situation {
            self.situation = situation;
            self.since = now;
        }
    }

    fn found(&mut self, gateway: &str, port: &str, side: Side, found: GatewayFound, now: Duration) {
        let (gateway, port) = (clean(gateway), clean(port));
        self.gateways
            .retain(|row| (&row.gateway, &row.port, row.side) != (&gateway, &port, side));
        if self.gateways.len() >= MAX_GATEWAYS {
            self.gateways.remove(0);
        }
        self.gateways.push(GatewayRow {
            gateway,
            port,
            side,
            found,
            since: now,
        });
    }

    fn uplink(&mut self, port: &str, kind: Option<UplinkKind>, state: UplinkState, now: Duration) {
        let port = clean(port);
        // What was found over a card was found with its last address.
        if state < UplinkState::RouterSilent || state == UplinkState::Leased {
            self.gateways.retain(|row| row.port != port);
        }
        if let Some(row) = self.uplinks.iter_mut().find(|row| row.port == port) {
            row.kind = kind.or(row.kind);
            let goes = matches!(state, UplinkState::NoCarrier | UplinkState::Carrier);
            row.portal &= !goes;
            row.stranger &= !goes;
            // Another carrier; a lease alone comes and goes with the same switch.
            if state == UplinkState::NoCarrier {
                row.dot1x = None;
            }
            row.enter(state, now);
        } else if self.uplinks.len() < MAX_UPLINKS {
            self.uplinks.push(UplinkRow {
                port,
                kind,
                state,
                portal: false,
                stranger: false,
                dot1x: None,
                since: now,
            });
            self.uplinks.sort_by(|a, b| a.port.cmp(&b.port));
        }
    }

    fn modem(&mut self, state: ModemFound, operator: &str, signal: Option<u8>, now: Duration) {
        let before = self.sim.as_ref().filter(|row| row.state == state);
        self.sim = Some(SimRow {
            state,
            operator: clean(operator),
            signal,
            since: before.map_or(now, |row| row.since),
        });
    }

    /// The network of a card says that it has a captive portal.
    fn portal(&mut self, port: &str) {
        let port = clean(port);
        if let Some(row) = self.uplinks.iter_mut().find(|row| row.port == port) {
            row.portal = true;
        }
    }

    /// Over a card somebody answered in place of the office or a gateway.
    fn stranger(&mut self, port: &str) {
        let port = clean(port);
        if let Some(row) = self.uplinks.iter_mut().find(|row| row.port == port) {
            row.stranger = true;
        }
    }

    /// A gateway was reached over a card: its network lets through, whatever answered there before.
    fn led_on(&mut self, port: &str) {
        let port = clean(port);
        if let Some(row) = self.uplinks.iter_mut().find(|row| row.port == port) {
            row.stranger = false;
        }
    }

    /// Whether there is no way out, and a network that seems to want a page of its own first.
    pub fn wants_page(&self) -> bool {
        let wants = |row: &UplinkRow| row.portal || row.stranger;
        !self.situation.is_open() && self.uplinks.iter().any(wants)
    }

    /// A card stands so with its switch.
    fn dot1x(&mut self, port: &str, dot1x: Dot1x) {
        let port = clean(port);
        if let Some(row) = self.uplinks.iter_mut().find(|row| row.port == port) {
            row.dot1x = Some(dot1x);
        }
    }

    /// The table is in the order of the last refusal; the oldest row makes room.
    fn refused(&mut self, refused: &Refused, now: Duration) {
        let rule = clean(&refused.rule);
        let known = self.refusals.iter().position(|row| row.rule == rule);
        let before = known.map_or(0, |index| self.refusals.remove(index).count);
        if self.refusals.len() >= MAX_RULES {
            let oldest = self.refusals.remove(0);
            self.refused_by_others = self.refused_by_others.saturating_add(oldest.count);
        }
        self.refusals.push(RefusalRow {
            rule,
            count: before.saturating_add(refused.count),
            last: clean(&refused.packet),
            at: now,
        });
    }

    fn guest(&mut self, event: &str, now: Duration) {
        match event {
            "silent" => {
                if let Some((silent, _)) = &mut self.work.agent {
                    *silent = true;
                }
            }
            // What it says without its hello, or in another tongue, is no sign of its life.
            "hello" | "heartbeat" | "notice-shown" | "shutdown-accepted" | "shutdown-begins" => {
                self.work.agent = Some((false, now));
            }
            _ => {}
        }
    }
}

impl UplinkRow {
    fn enter(&mut self, state: UplinkState, now: Duration) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }
}

impl WorkRow {
    const fn on(&mut self, found: WorkFound) {
        match found {
            WorkFound::Address => self.address = true,
            WorkFound::NameAnswered => self.names = Answers::Answered,
            WorkFound::NameSilent => self.names = Answers::Silent,
            WorkFound::ServerAnswered => self.servers = Answers::Answered,
            WorkFound::ServerSilent => self.servers = Answers::Silent,
        }
    }
}

/// The uplink's words for how far a card has come; others are of no interest here.
fn state(event: &str) -> Option<UplinkState> {
    Some(match event {
        "no-carrier" => UplinkState::NoCarrier,
        "carrier" | "lease-lost" => UplinkState::Carrier,
        "leased" => UplinkState::Leased,
        "router" => UplinkState::Reached,
        "router-silent" => UplinkState::RouterSilent,
        _ => return None,
    })
}

/// And for how it stands with its switch.
fn dot1x(event: &str) -> Option<Dot1x> {
    Some(match event {
        "dot1x-asking" => Dot1x::Asking,
        "dot1x-authenticated" => Dot1x::Authenticated,
        "dot1x-refused" => Dot1x::Refused,
        "dot1x-unanswered" => Dot1x::Unanswered,
        "dot1x-unable" => Dot1x::Unable,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
