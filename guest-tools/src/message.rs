//! Everything that can be said on the channel.
//!
//! An unknown kind of message is dropped and counted, and what a side can do is in its hello, so
//! that either end can be newer than the other.

use serde::{Deserialize, Serialize};

/// Version of the protocol. Another one is not spoken with.
pub const VERSION: u16 = 1;

/// Longest countdown before a shutdown, in seconds: a person who needs longer than five minutes
/// to save will press the button again later.
pub const MAX_COUNTDOWN: u32 = 300;

/// Longest text of a notice in one language, in characters.
pub const MAX_NOTICE: usize = 600;

/// Shows notices to the person.
pub const CAN_NOTICE: &str = "notice";
/// Shuts the work OS down cleanly.
pub const CAN_SHUT_DOWN: &str = "shutdown";

/// A message with its place in the sender's sequence: 0 for a hello, then 1, 2, 3…
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// The place.
    pub seq: u64,
    /// The message.
    pub body: T,
}

/// The first message of each side, and the answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// A random number for this connection of the sender.
    pub session: u64,
    /// The receiver's session, if it is known: then this is an answer and needs none.
    pub answers: Option<u64>,
    /// What the sender can do.
    pub capabilities: Vec<String>,
    /// The sender's name and version, for logs.
    pub program: String,
}

/// From the host end to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToGuest {
    /// Here I am.
    Hello(Hello),
    /// I live.
    Heartbeat,
    /// Show this to the person.
    Notice {
        /// Comes back in [`ToHost::NoticeShown`].
        id: u64,
        /// Japanese text.
        ja: String,
        /// English text.
        en: String,
    },
    /// Tell the person, wait, then shut the work OS down cleanly.
    Shutdown {
        /// Seconds to wait, at most [`MAX_COUNTDOWN`].
        countdown: u32,
    },
}

/// From the agent to the host end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToHost {
    /// Here I am.
    Hello(Hello),
    /// I live.
    Heartbeat {
        /// How long the work OS runs, in milliseconds.
        uptime_ms: u64,
    },
    /// The notice is on the screen.
    NoticeShown {
        /// Of the notice.
        id: u64,
    },
    /// The countdown runs.
    ShutdownAccepted {
        /// Seconds to wait.
        countdown: u32,
    },
    /// The work OS goes down now.
    ShutdownBegins,
}

/// What the two directions have in common.
pub trait Greets: Sized {
    /// Makes a hello.
    fn hello(hello: Hello) -> Self;
    /// The hello in it, if it is one.
    fn as_hello(&self) -> Option<&Hello>;
}

impl Greets for ToGuest {
    fn hello(hello: Hello) -> Self {
        Self::Hello(hello)
    }

    fn as_hello(&self) -> Option<&Hello> {
        match self {
            Self::Hello(hello) => Some(hello),
            _ => None,
        }
    }
}

impl Greets for ToHost {
    fn hello(hello: Hello) -> Self {
        Self::Hello(hello)
    }

    fn as_hello(&self) -> Option<&Hello> {
        match self {
            Self::Hello(hello) => Some(hello),
            _ => None,
        }
    }
}
