//! What can go wrong with the lab itself.

use std::{io, path::PathBuf};

use crate::process::Output;

/// The lab could not be built or used. A leak is not an error but a finding: see [`crate::oracle`].
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error("The lab makes network namespaces: run it as root.")]
    NotRoot,
    /// Programs are not installed.
    #[error("The lab needs {}: `cargo xtask lab` installs what is missing.", programs.join(", "))]
    Missing {
        /// Their names.
        programs: Vec<String>,
    },
    /// Programs under test are not built.
    #[error("{} not found in {}: build with `cargo build -p sekisho-netdomain -p sekisho-supervisor -p sekisho-lab`.", programs.join(", "), folder.display())]
    NotBuilt {
        /// Their names.
        programs: Vec<String>,
        /// Where they should be.
        folder: PathBuf,
    },
    /// A system call failed.
    #[error("Could not {doing}: {source}.")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("Could not start {program} ({command}): {source}.")]
    Start {
        /// Its name.
        program: String,
        /// Its command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("A command of the lab failed: {0}")]
    Command(Box<Output>),
    /// A server did not come up, or an awaited line did not come.
    #[error("{program} did not say \"{waited_for}\"; its last lines (all are in {}):\n{last}", log.display())]
    NotReady {
        /// Its name.
        program: String,
        /// What was awaited.
        waited_for: String,
        /// Its output.
        log: PathBuf,
        /// The end of its output.
        last: String,
    },
    /// Keys or certificates could not be made.
    #[error("Could not make the laptop's papers: {what}.")]
    Papers {
        /// Why.
        what: String,
    },
    /// A part of the lab is gone.
    #[error("The lab lost {what}.")]
    Lost {
        /// Which.
        what: String,
    },
    /// Something was asked for that this lab does not have.
    #[error("This lab has no {what}.")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// A recording cannot be read.
    #[error("{} is no recording: {what}.", file.display())]
    Recording {
        /// The file.
        file: PathBuf,
        /// Why.
        what: String,
    },
}

impl LabError {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing: doing.to_owned(),
            source,
        }
    }
}
