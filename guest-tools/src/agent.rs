//! The agent's side of the conversation, without sockets and clocks.

use std::time::Duration;

use crate::bucket::Bucket;
use crate::message::{CAN_NOTICE, CAN_SHUT_DOWN, MAX_COUNTDOWN, MAX_NOTICE, ToGuest, ToHost};
use crate::sequence::{Incoming, Sequence};
use crate::text::clean;
use crate::{HEARTBEAT, SILENCE};

const CAPABILITIES: &[&str] = &[CAN_NOTICE, CAN_SHUT_DOWN];

/// Notices a person is shown: a burst, then one in five seconds. A host end that was taken over
/// must not be able to make the work OS unusable with them.
const NOTICE_BURST: u32 = 8;
const NOTICE_EVERY: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentOutput {
    /// Bytes for the host.
    Send(Vec<u8>),
    /// Show this to the person.
    Show {
        /// Japanese text, cleaned and bounded.
        ja: String,
        /// English text, likewise.
        en: String,
    },
    /// Shut the work OS down now.
    ShutDown,
}

/// The conversation with the host.
#[derive(Debug)]
pub struct AgentSession {
    sequence: Sequence,
    born: Duration,
    heard: Duration,
    beat: Duration,
    notices: Bucket,
    /// When the work OS is to go down.
    shutdown: Option<Duration>,
}

impl AgentSession {
    /// A fresh connection; the first bytes to send are given. `session` is a random number. Time
    /// is the work OS's uptime.
    pub fn new(session: u64, now: Duration) -> (Self, Vec<AgentOutput>) {
        let mut sequence = Sequence::new(session, CAPABILITIES);
        let greeting = sequence.greeting::<ToHost>();
        let notices = Bucket::new(NOTICE_BURST, NOTICE_EVERY);
        let agent = Self {
            sequence,
            born: now,
            heard: now,
            beat: now,
            notices,
            shutdown: None,
        };
        (agent, vec![AgentOutput::Send(greeting)])
    }

    /// Whether the host was heard of lately.
    pub fn host_lives(&self, now: Duration) -> bool {
        self.sequence.has_peer() && now < self.heard + SILENCE
    }

    /// When this connection began.
    pub fn born(&self) -> Duration {
        self.born
    }

    /// Takes bytes of the host, as many as came.
    pub fn received(&mut self, bytes: &[u8], now: Duration) -> Vec<AgentOutput> {
        let mut answer = Vec::new();
        let incoming = self
            .sequence
            .received::<ToHost, ToGuest>(bytes, now, &mut answer);
        let mut out = Vec::new();
        if !answer.is_empty() {
            out.push(AgentOutput::Send(answer));
        }
        for incoming in incoming {
            match incoming {
                Incoming::Began(_) => {
                    self.heard = now;
                    self.send(
                        ToHost::Heartbeat {
                            uptime_ms: millis(now),
                        },
                        &mut out,
                    );
                }
                Incoming::Said(said) => {
                    self.heard = now;
                    self.said(said, now, &mut out);
                }
                // Dropped: the host is told nothing that it could learn from.
                Incoming::OtherVersion(_)
                | Incoming::Malformed
                | Incoming::Replayed
                | Incoming::Unannounced => {}
            }
        }
        out
    }

    fn said(&mut self, said: ToGuest, now: Duration, out: &mut Vec<AgentOutput>) {
        match said {
            ToGuest::Hello(_) | ToGuest::Heartbeat => {}
            ToGuest::Notice { id, ja, en } => {
                if self.notices.take(now) {
                    let (ja, en) = (clean(&ja, MAX_NOTICE), clean(&en, MAX_NOTICE));
                    out.push(AgentOutput::Show { ja, en });
                    self.send(ToHost::NoticeShown { id }, out);
                }
            }
            ToGuest::Shutdown { countdown } => {
                let countdown = countdown.min(MAX_COUNTDOWN);
                let at = now + Duration::from_secs(countdown.into());
                // A second request can only bring it nearer.
                if self.shutdown.is_none_or(|planned| at < planned) {
                    self.shutdown = Some(at);
                    out.push(AgentOutput::Show {
                        ja: format!("{countdown}秒後に電源を切ります。作業を保存してください。"),
                        en: format!("The computer switches off in {countdown} s. Save your work."),
                    });
                }
                self.send(ToHost::ShutdownAccepted { countdown }, out);
            }
        }
    }

    /// Does what time has brought. Call it at [`AgentSession::next_tick`] or later.
    pub fn tick(&mut self, now: Duration) -> Vec<AgentOutput> {
        let mut out = Vec::new();
        if self.shutdown.is_some_and(|at| at <= now) {
            self.shutdown = None;
            self.send(ToHost::ShutdownBegins, &mut out);
            out.push(AgentOutput::ShutDown);
        }
        if self.beat + HEARTBEAT <= now {
            self.beat = now;
            if self.sequence.has_peer() {
                self.send(
                    ToHost::Heartbeat {
                        uptime_ms: millis(now),
                    },
                    &mut out,
                );
            } else {
                // The host end may have come later than our first hello.
                out.push(AgentOutput::Send(self.sequence.greeting::<ToHost>()));
            }
        }
        out
    }

    /// When something is to be done even if nothing comes.
    pub fn next_tick(&self) -> Duration {
        let beat = self.beat + HEARTBEAT;
        self.shutdown.map_or(beat, |at| at.min(beat))
    }

    fn send(&mut self, message: ToHost, out: &mut Vec<AgentOutput>) {
        out.push(AgentOutput::Send(self.sequence.message(message)));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
