//! Commands in the lab's nodes.

use std::{process::Command, time::Duration};

use super::Lab;
use crate::{LabError, Output, Process};

/// How long [`Lab::run`] lets a command run.
const RUN_LIMIT: Duration = Duration::from_secs(30);

impl Lab {
    /// Runs a command in a node to its end.
    pub fn run(&self, node: &str, command: &[&str]) -> Result<Output, LabError> {
        self.run_for(node, command, RUN_LIMIT)
    }

    /// Runs a command in a node to its end, at most for `limit`.
    pub fn run_for(
        &self,
        node: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<Output, LabError> {
        self.launcher.run(self.command(node, command)?, limit)
    }

    /// Runs a prepared command ([`Netns::command`]) to its end, at most for `limit`.
    pub fn run_command(&self, command: Command, limit: Duration) -> Result<Output, LabError> {
        self.launcher.run(command, limit)
    }

    /// Starts a command in a node; its output goes to `logs/NAME.log`.
    pub fn spawn(&self, node: &str, name: &str, command: &[&str]) -> Result<Process, LabError> {
        self.launcher.spawn(name, self.command(node, command)?)
    }

    /// Starts a prepared command ([`Netns::command`]).
    pub fn spawn_command(&self, name: &str, command: Command) -> Result<Process, LabError> {
        self.launcher.spawn(name, command)
    }

    fn command(&self, node: &str, command: &[&str]) -> Result<Command, LabError> {
        let (program, arguments) = command.split_first().ok_or_else(|| LabError::Unknown {
            what: "command without a program".into(),
        })?;
        let mut prepared = self.space(node)?.command(program);
        prepared.args(arguments).current_dir(&self.dir);
        Ok(prepared)
    }
}
