//! What a tunnel demands of the person before it counts as up, as the gate tells it to the
//! supervisor.

use serde::{Deserialize, Serialize};

/// What is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// A one-time password: good for one connection, judged by the gateway.
    Otp,
    /// The PIN of a smart card or token in the laptop, judged by the token itself, which locks itself
    /// after a few wrong ones.
    Pin,
}

/// Names one asking; an answer is for one asking, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DemandId(pub u32);

/// How far the asking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemandStage {
    /// An answer is waited for.
    Asked,
    /// It was given, and is being judged.
    Judged,
    /// Nobody answered. It is not asked again before somebody says that the person is there.
    Lapsed,
    /// The answer was not taken; it will be asked anew in a moment.
    Refused,
    /// Answers were not taken too often; it is not asked again for a long time.
    Stopped,
    /// The card or token is not in its reader; it is looked for again in a moment.
    Absent,
}

/// Why a token is the reason that there is no tunnel, where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFault {
    /// It is not there: no PIN was tried.
    Absent,
    /// It did not open with the PIN that it was given, the person's or the one that was kept.
    Refused,
    /// As many PINs were tried as the engine tries in its life: one more might lock the token.
    Spent,
}

/// A demand, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// The asking, or the last one.
    pub id: DemandId,
    /// The gateway's name in the policy.
    pub gateway: String,
    /// What it demands.
    pub factor: Factor,
    /// How far it is.
    pub stage: DemandStage,
    /// When this stage ends by itself, in milliseconds from the telling; none if it does not.
    pub ends_ms: Option<u64>,
    /// Wrong answers that may still be given before it stops for long.
    pub tries: u8,
}
