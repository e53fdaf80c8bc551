//! What a laptop says of itself, field by field as `jp.sekisho.Laptop` describes it.
//!
//! Times are ages in milliseconds at the moment of the answer, so that nobody needs to know which
//! clock the laptop counts by.

use sekisho_control::{
    DemandId, DemandStage, Factor, GatewayFound, ModemFound, Place, QuotaState, Side, UplinkKind,
};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the product.
    pub product: String,
    /// The policy in force, once a gate applies one.
    pub policy: Option<Policy>,
    /// Whether there is a way out.
    pub situation: Standing,
    /// What a gateway demands of the person, if one does.
    pub demand: Option<Demand>,
    /// Every network card that is the uplink's, by name.
    pub uplinks: Vec<Uplink>,
    /// The SIM, where the policy says what it must be.
    pub sim: Option<Sim>,
    /// The SIM's monthly quota, where the policy gives one.
    pub quota: Option<Quota>,
    /// What was found at the gateways.
    pub gateways: Vec<Gateway>,
    /// The work OS.
    pub work: Work,
    /// What was refused since the supervisor began, by rule, the latest first.
    pub refusals: Vec<Refusal>,
    /// Refusals by rules that there was no room for.
    pub refused_by_others: u64,
    /// What the network offered and the laptop did not take.
    pub ignored: Ignored,
    /// The laptop's own processes.
    pub processes: Vec<Process>,
}

/// A policy by name and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub id: String,
    /// Grows with each change.
    pub version: u64,
}

/// A situation, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The situation.
    #[serde(flatten)]
    pub situation: Situation,
    /// Since when.
    pub age_ms: u64,
}

/// Whether there is a way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Situation {
    /// No gate has said anything yet, or the last one is gone: there is no way out either.
    Unknown,
    /// There is none.
    Closed {
        /// Why, in the gate's words.
        reason: String,
    },
    /// Through the tunnel.
    Tunnelled {
        /// To this gateway.
        gateway: String,
        /// Over this interface.
        port: String,
        /// Which side of the gateway it enters.
        side: Side,
        /// Where the laptop has proven to be.
        place: Place,
    },
    /// Onto the office LAN itself, without a tunnel.
    Direct {
        /// The proven interface.
        port: String,
        /// The work OS's address there.
        address: String,
    },
}

impl Situation {
    /// Whether there is a way out.
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Unknown | Self::Closed { .. } => false,
            Self::Tunnelled { .. } | Self::Direct { .. } => true,
        }
    }
}

/// What a gateway demands of the person before its tunnel counts as up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Names the asking; an answer says which one it answers.
    pub id: DemandId,
    /// The gateway's name in the policy.
    pub gateway: String,
    /// What it demands.
    pub factor: Factor,
    /// How far the asking is.
    pub state: DemandStage,
    /// Wrong answers that may still be given before it stops for long.
    pub tries: u8,
    /// When this state ends by itself, from now; none if it does not.
    pub left_ms: Option<u64>,
    /// Since when.
    pub age_ms: u64,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Interface name.
    pub port: String,
    /// Its kind, once the uplink has told it.
    pub kind: Option<UplinkKind>,
    /// How far it has come.
    pub state: UplinkState,
    /// Whether its network says that it lets nobody through without a page of its own.
    pub portal: bool,
    /// Whether somebody answers there in place of the office, as such a network does that says
    /// nothing.
    pub stranger: bool,
    /// How it stands with the switch at its other end, once something came of 802.1X.
    pub dot1x: Option<Dot1x>,
    /// Since when.
    pub age_ms: u64,
}

/// How a card stands with the switch at its other end (802.1X).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dot1x {
    /// It was authenticated, and is asked anew.
    Asking,
    /// The switch took the laptop's certificate, and its server showed the right one.
    Authenticated,
    /// One of the two was not content with the other.
    Refused,
    /// Nobody speaks it there.
    Unanswered,
    /// The laptop cannot speak it.
    Unable,
}

/// How far a network card has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkState {
    /// Nobody is at the other end of the cable.
    NoCarrier,
    /// Somebody is; there is no address yet.
    Carrier,
    /// It has an address, and its router does not answer.
    RouterSilent,
    /// It has an address.
    Leased,
    /// Its router answers.
    Reached,
}

/// The SIM and its modem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sim {
    /// How far it is, or why it goes no further.
    pub state: ModemFound,
    /// The mobile network that serves it; empty if none.
    pub operator: String,
    /// Quality of its signal in percent, where it is known.
    pub signal: Option<u8>,
    /// Since when it is so far.
    pub age_ms: u64,
}

/// How much of the SIM's month is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes used this month, both ways together.
    pub used: u64,
    /// The quota in bytes.
    pub monthly: u64,
    /// What follows.
    pub state: QuotaState,
}

/// What was found at one address of one gateway over one card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its name in the policy.
    pub gateway: String,
    /// Interface that it was asked over.
    pub port: String,
    /// Which of its addresses was asked.
    pub side: Side,
    /// What was found.
    pub found: GatewayFound,
    /// Since when.
    pub age_ms: u64,
}

/// The work OS, as far as it is seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Whether its network card is plugged in, once the VMM has told it.
    pub link: Option<bool>,
    /// Whether it uses its address.
    pub address: bool,
    /// Whether resolvers of the closed network answer it.
    pub names: Answers,
    /// Whether servers of the closed network answer it.
    pub servers: Answers,
    /// The agent in it, once it was heard.
    pub agent: Option<Agent>,
}

/// Whether those inside answer the work OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// Nobody was asked since the way was opened.
    #[default]
    Unknown,
    /// They do.
    Answered,
    /// They do not.
    Silent,
}

/// The agent in the work OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Whether it has been silent for longer than it may.
    pub silent: bool,
    /// When it was last heard.
    pub age_ms: u64,
}

/// Refusals by one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// How many.
    pub count: u64,
    /// The last packet, in one line.
    pub last: String,
    /// When that was.
    pub age_ms: u64,
}

/// What was ignored on purpose: route options, spoofed answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ignored {
    /// How many.
    pub count: u64,
    /// The last, in the field's own words.
    pub last: Option<String>,
}

/// One of the laptop's own processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// As the supervisor calls it: `gate`, `guest`, `uplink`, `vmm`.
    pub name: String,
    /// Whether it serves.
    pub state: ProcessState,
    /// Since when.
    pub age_ms: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How it last ended.
    pub last_end: Option<String>,
}

/// Whether a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It was started, and has not said that it serves.
    Starting,
    /// It serves.
    Serving,
    /// It ended, and will be started again.
    Ended,
}
