//! The exec channel: how tests run commands inside the laptop and inside the work OS.
//!
//! It belongs to the test bed only. The product's guest channel has no command execution; this
//! one has nothing else, and runs over a console port that only tests attach.
//!
//! One message is one line of JSON; bytes travel as base64. A line never contains a raw newline,
//! so a stream that was cut in the middle of a message (a guest was reset) is whole again at the
//! next newline.

mod client;
mod line;
mod server;

pub use client::{ExecClient, ExecError, Input, Output, Running, Said, Status};
pub use line::{LineReader, MAX_LINE};
pub use server::{PowerOff, serve};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Raw bytes in one message at most: with base64 and the JSON around it this stays well below
/// [`MAX_LINE`].
pub const CHUNK: usize = 32 * 1024;

/// What is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Program and its arguments; the program is looked up in `PATH` if it has no slash.
    pub argv: Vec<String>,
    /// Variables beside the server's own (`PATH`, `HOME`, `TERM`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Whether standard input is fed by [`Request::Stdin`]; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// A terminal of this size instead of three pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Client to server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Say [`Event::Hello`] again with this number.
    Sync {
        /// Any number; comes back in the answer.
        nonce: u64,
    },
    /// Start a command under a number of the client's choice.
    Start {
        /// Names the command in all later messages.
        id: u32,
        /// What to start.
        start: Start,
    },
    /// Bytes for the command's standard input.
    Stdin {
        /// The command.
        id: u32,
        /// At most [`CHUNK`] bytes, base64.
        data: String,
    },
    /// No more bytes for its standard input.
    StdinEnd {
        /// The command.
        id: u32,
    },
    /// Send it a signal.
    Signal {
        /// The command.
        id: u32,
        /// Signal number, as in `kill -l`.
        signal: i32,
    },
    /// Switch the machine off: sync, then the power goes.
    PowerOff,
}

/// Server to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The server is there. Said once at its start (without a nonce) and for each
    /// [`Request::Sync`]. One without a nonce means that the server is new: commands of an older
    /// one are lost.
    Hello {
        /// The nonce of the request.
        #[serde(default)]
        nonce: Option<u64>,
        /// The machine's uptime in milliseconds.
        uptime_ms: u64,
    },
    /// The command runs.
    Started {
        /// The command.
        id: u32,
        /// Its process id there.
        pid: u32,
    },
    /// The command could not be started.
    Failed {
        /// The command.
        id: u32,
        /// Why.
        error: String,
    },
    /// Bytes of its standard output (or of its terminal).
    Stdout {
        /// The command.
        id: u32,
        /// Base64.
        data: String,
    },
    /// Bytes of its standard error.
    Stderr {
        /// The command.
        id: u32,
        /// Base64.
        data: String,
    },
    /// It ended, and all its output was sent before.
    Exited {
        /// The command.
        id: u32,
        /// Exit status, if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}
