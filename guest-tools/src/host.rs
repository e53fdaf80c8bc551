//! The host end's side of the conversation, without sockets and clocks.

use std::collections::VecDeque;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::message::{CAN_NOTICE, CAN_SHUT_DOWN, MAX_COUNTDOWN, MAX_NOTICE, ToGuest, ToHost};
use crate::sequence::{Incoming, Sequence};
use crate::text::clean;
use crate::{HEARTBEAT, SILENCE};

/// Notices that wait for an agent to show them; older ones are of no interest any more.
const WAITING_NOTICES: usize = 4;

/// A shutdown that was asked for before the agent was there is still meant for so long.
const SHUTDOWN_WAITS: Duration = Duration::from_mins(1);

/// Reports that the agent can cause: a burst, then one a second. Normal is one in ten seconds.
const REPORT_BURST: u32 = 16;
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Longest free text in a report, in characters.
const MAX_DETAIL: usize = 200;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOutput {
    /// Bytes for the agent.
    Send(Vec<u8>),
    /// Something to tell the supervisor.
    Report {
        /// What happened: `hello`, `heartbeat`, `silent`, `notice-shown`, `shutdown-asked`,
        /// `shutdown-accepted`, `shutdown-begins`, `other-version`, `malformed`, `replayed`,
        /// `unannounced`, `flood`.
        event: &'static str,
        /// Free text, cleaned and bounded.
        detail: String,
    },
}

/// The conversation with the agent over one connection after the other.
#[derive(Debug)]
pub struct HostSession {
    sequence: Sequence,
    attached: bool,
    heard: Duration,
    beat: Duration,
    silent: bool,
    next_notice: u64,
    notices: VecDeque<(String, String)>,
    /// Countdown, and until when it is meant.
    shutdown: Option<(u32, Duration)>,
    reports: Bucket,
}

impl HostSession {
    /// Without a connection. Time is counted from any moment, and never goes back.
    pub fn new(now: Duration) -> Self {
        Self {
            sequence: Sequence::new(0, &[]),
            attached: false,
            heard: now,
            beat: now,
            silent: false,
            next_notice: 0,
            notices: VecDeque::new(),
            shutdown: None,
            reports: Bucket::new(REPORT_BURST, REPORT_EVERY),
        }
    }

    /// A fresh connection. `session` is a random number, so that nothing of an older connection
    /// can be mistaken for an answer.
    pub fn attached(&mut self, session: u64, now: Duration) -> Vec<HostOutput> {
        self.sequence = Sequence::new(session, &[]);
        self.attached = true;
        self.silent = false;
        (self.heard, self.beat) = (now, now);
        vec![HostOutput::Send(self.sequence.greeting::<ToGuest>())]
    }

    /// The connection is gone.
    pub fn detached(&mut self) {
        self.attached = false;
        self.sequence = Sequence::new(0, &[]);
    }

    /// Whether an agent is there and was heard of lately.
    pub fn agent_lives(&self) -> bool {
        self.attached && self.sequence.has_peer() && !self.silent
    }

    /// Takes bytes of the agent, as many as came.
    pub fn received(&mut self, bytes: &[u8], now: Duration) -> Vec<HostOutput> {
        let mut answer = Vec::new();
        let incoming = self
            .sequence
            .received::<ToGuest, ToHost>(bytes, now, &mut answer);
        let mut out = Vec::new();
        if !answer.is_empty() {
            out.push(HostOutput::Send(answer));
        }
        for incoming in incoming {
            self.incoming(incoming, now, &mut out);
        }
        out
    }

    fn incoming(&mut self, incoming: Incoming<ToHost>, now: Duration, out: &mut Vec<HostOutput>) {
        let (event, detail) = match incoming {
            Incoming::Began(hello) => {
                self.heard(now);
                let can = hello.capabilities.iter().take(8).map(String::as_str);
                let can = can.collect::<Vec<_>>().join(" ");
                self.report("hello", &format!("{}: {can}", hello.program), now, out);
                self.deliver(now, out);
                return;
            }
            Incoming::OtherVersion(version) => (
                "other-version",
                format!("the agent speaks version {version}"),
            ),
            Incoming::Malformed => ("malformed", String::new()),
            Incoming::Replayed => ("replayed", String::new()),
            Incoming::Unannounced => ("unannounced", String::new()),
            Incoming::Said(said) => {
                self.heard(now);
                match said {
                    // A hello never comes as something said.
                    ToHost::Hello(_) => return,
                    ToHost::Heartbeat { uptime_ms } => ("heartbeat", format!("up {uptime_ms} ms")),
                    ToHost::NoticeShown { id } => ("notice-shown", format!("notice {id}")),
                    ToHost::ShutdownAccepted { countdown } => {
                        self.shutdown = None;
                        (
                            "shutdown-accepted",
                            format!("in {} s", countdown.min(MAX_COUNTDOWN)),
                        )
                    }
                    ToHost::ShutdownBegins => ("shutdown-begins", String::new()),
                }
            }
        };
        self.report(event, &detail, now, out);
    }

    fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.silent = false;
    }

    /// Shows a notice to the person, as soon as an agent is there that can.
    pub fn notice(&mut self, ja: &str, en: &str, now: Duration) -> Vec<HostOutput> {
        if self.notices.len() == WAITING_NOTICES {
            self.notices.pop_front();
        }
        self.notices
            .push_back((clean(ja, MAX_NOTICE), clean(en, MAX_NOTICE)));
        let mut out = Vec::new();
        self.deliver(now, &mut out);
        out
    }

    /// Has the work OS shut itself down after `countdown` seconds, as soon as an agent is there
    /// that can, if it comes soon.
    pub fn shut_down(&mut self, countdown: u32, now: Duration) -> Vec<HostOutput> {
        self.shutdown = Some((countdown.min(MAX_COUNTDOWN), now + SHUTDOWN_WAITS));
        let mut out = Vec::new();
        self.deliver(now, &mut out);
        out
    }

    /// Sends what waits, to an agent that can do it.
    fn deliver(&mut self, now: Duration, out: &mut Vec<HostOutput>) {
        if !self.attached {
            return;
        }
        if self.sequence.peer_can(CAN_NOTICE) {
            for (ja, en) in std::mem::take(&mut self.notices) {
                self.next_notice += 1;
                let notice = ToGuest::Notice {
                    id: self.next_notice,
                    ja,
                    en,
                };
                out.push(HostOutput::Send(self.sequence.message(notice)));
            }
        }
        if let Some((countdown, until)) = self.shutdown {
            if until < now {
                self.shutdown = None;
            } else if self.sequence.peer_can(CAN_SHUT_DOWN) {
                let ask = ToGuest::Shutdown { countdown };
                out.push(HostOutput::Send(self.sequence.message(ask)));
                self.shutdown = None;
                self.report("shutdown-asked", &format!("in {countdown} s"), now, out);
            }
        }
    }

    /// Does what time has brought. Call it at [`HostSession::next_tick`] or later.
    pub fn tick(&mut self, now: Duration) -> Vec<HostOutput> {
        let mut out = Vec::new();
        if !self.attached {
            return out;
        }
        if self.beat + HEARTBEAT <= now {
            self.beat = now;
            // Before a hello a heartbeat would only be dropped; a hello may have been.
            let bytes = if self.sequence.has_peer() {
                self.sequence.message(ToGuest::Heartbeat)
            } else {
                self.sequence.greeting::<ToGuest>()
            };
            out.push(HostOutput::Send(bytes));
        }
        if !self.silent && self.sequence.has_peer() && self.heard + SILENCE <= now {
            self.silent = true;
            let detail = format!("nothing heard for {} s", SILENCE.as_secs());
            out.push(HostOutput::Report {
                event: "silent",
                detail,
            });
        }
        out
    }

    /// When something is to be done even if nothing comes; `None` without a connection.
    pub fn next_tick(&self) -> Option<Duration> {
        let silence = (!self.silent && self.sequence.has_peer()).then_some(self.heard + SILENCE);
        let beat = self.beat + HEARTBEAT;
        self.attached
            .then(|| silence.map_or(beat, |silence| silence.min(beat)))
    }

    fn report(
        &mut self,
        event: &'static str,
        detail: &str,
        now: Duration,
        out: &mut Vec<HostOutput>,
    ) {
        if self.reports.take(now) {
            let dropped = self.reports.refused();
            if dropped > 0 {
                let detail = format!("{dropped} reports were dropped");
                out.push(HostOutput::Report {
                    event: "flood",
                    detail,
                });
            }
            out.push(HostOutput::Report {
                event,
                detail: clean(detail, MAX_DETAIL),
            });
        }
    }
}
