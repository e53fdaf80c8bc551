//! Gate and the engine of a tunnel.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Carries;
use crate::{Secret, TokenFault};

/// Gate to the engine of a tunnel. An answer cannot be copied, so neither can a message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gate")]
pub enum GateToEngine {
    /// Begin a tunnel. Whatever was begun before has ended.
    Begin {
        /// Names this attempt in all that follows.
        attempt: u32,
        /// The gateway's name in the policy.
        gateway: String,
    },
    /// A connection that [`EngineToGate::Dial`] asked for, or for `IPsec` another path that the tunnel
    /// is to go by from now on. One descriptor, non-blocking: a TCP socket, connecting or connected
    /// to the gateway, or for `IPsec` a UDP one.
    Stream {
        /// For which attempt.
        attempt: u32,
    },
    /// What the person answered to [`EngineToGate::Ask`]. It is for this attempt alone.
    Answer {
        /// For which attempt.
        attempt: u32,
        /// The answer.
        answer: Secret,
    },
    /// End the tunnel, whether it is up or not.
    End {
        /// Which one.
        attempt: u32,
    },
    /// Erase what the person answered, if it is kept: they are to be asked again.
    Forget,
}

impl Carries for GateToEngine {
    fn descriptors(&self) -> usize {
        match self {
            Self::Stream { .. } => 1,
            Self::Begin { .. } | Self::Answer { .. } | Self::End { .. } | Self::Forget => 0,
        }
    }
}

/// Engine of a tunnel to gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "engine")]
pub enum EngineToGate {
    /// The engine wants another connection to the gateway.
    Dial {
        /// For which attempt.
        attempt: u32,
    },
    /// The gateway has proven itself and the tunnel is up. One descriptor: a Unix datagram socket
    /// that carries one IP packet a message, or a TUN device's.
    Up {
        /// Which attempt.
        attempt: u32,
        /// The inner address that the gateway gave; it must be this laptop's own.
        address: Ipv4Addr,
        /// The longest inner packet that the tunnel carries, in bytes.
        mtu: u16,
    },
    /// The second factor that policy names for this gateway is needed now; once in an attempt. The
    /// engine waits for [`GateToEngine::Answer`].
    Ask {
        /// Which attempt.
        attempt: u32,
    },
    /// The token opened with the person's PIN: the answer of this attempt, or the one that the engine
    /// keeps since an earlier one. What comes now is the gateway's to decide.
    Opened {
        /// Which attempt.
        attempt: u32,
    },
    /// The tunnel has ended, or could not be begun; after [`GateToEngine::Answer`] most often because
    /// the answer was not taken.
    Down {
        /// Which attempt.
        attempt: u32,
        /// Why, in a few plain words of the engine's own.
        why: String,
        /// What it says about the gateway and the way to it.
        cause: DownCause,
    },
}

/// Why an engine's tunnel is down, as far as it matters for what is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownCause {
    /// By the gateway, the way to it, or anything else.
    Any,
    /// Its program was killed by a signal, which says nothing about the gateway.
    Crashed,
    /// By the laptop's own token.
    Token(TokenFault),
}

impl Carries for EngineToGate {
    fn descriptors(&self) -> usize {
        match self {
            Self::Up { .. } => 1,
            Self::Dial { .. } | Self::Ask { .. } | Self::Opened { .. } | Self::Down { .. } => 0,
        }
    }
}
