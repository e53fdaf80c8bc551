//! What the builder of an initrd tells the init inside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the configuration lies in the initrd.
pub const PATH: &str = "/init.json";

/// The kernel parameter that names a shared folder: `sekisho.share=TAG:ro|rw:PATH`.
pub const SHARE_PARAMETER: &str = "sekisho.share=";

/// The console port that serves commands in the laptop.
pub const LAPTOP_EXEC_PORT: &str = "jp.sekisho.exec.0";

/// The console port that serves commands in the work OS, for tests only.
pub const WORK_EXEC_PORT: &str = "jp.sekisho.test.0";

/// The console port of the guest channel.
pub const AGENT_PORT: &str = "jp.sekisho.agent.0";

/// What the init is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Modules in the initrd's `/modules`, in loading order, that the start itself needs.
    pub modules: Vec<String>,
    /// Those that are loaded beside the rest of the start, before the first command.
    pub modules_beside: Vec<String>,
    /// Which machine this is.
    pub role: Role,
}

/// The two machines that the init starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The laptop: its root is the build machine's, read-only under a writable layer in memory.
    Laptop {
        /// The kernel's modules on the build machine.
        modules_dir: PathBuf,
        /// What it starts by itself.
        at_boot: Option<AtBoot>,
    },
    /// The work OS: its root is the initrd.
    Work,
}

/// What a laptop starts by itself, as soon as it can. When that ends, the laptop switches off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtBoot {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where its output goes: a file in a folder that the laptop may write.
    pub log: PathBuf,
    /// Console ports that it needs to find.
    pub ports: Vec<String>,
}

/// One shared folder, as [`SHARE_PARAMETER`] names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// 9p mount tag.
    pub tag: String,
    /// Whether the laptop may write.
    pub writable: bool,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl SharedFolder {
    /// The kernel parameter.
    pub fn parameter(&self) -> String {
        let mode = if self.writable { "rw" } else { "ro" };
        format!(
            "{SHARE_PARAMETER}{}:{mode}:{}",
            self.tag,
            self.path.display()
        )
    }

    /// All of a kernel command line.
    pub fn parse_all(cmdline: &str) -> Vec<Self> {
        cmdline
            .split_whitespace()
            .filter_map(|word| {
                let mut parts = word.strip_prefix(SHARE_PARAMETER)?.splitn(3, ':');
                let (tag, mode, path) = (parts.next()?, parts.next()?, parts.next()?);
                Some(Self {
                    tag: tag.into(),
                    writable: mode == "rw",
                    path: path.into(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_survives_the_command_line() {
        let share = SharedFolder {
            tag: "share0".into(),
            writable: true,
            path: "/a/b:c".into(),
        };
        let cmdline = format!("quiet {} panic=-1", share.parameter());
        assert_eq!(SharedFolder::parse_all(&cmdline), [share]);
    }
}
